//! The few frames that the proxy writes itself.

/// A request: an array of bulk strings.
pub fn request<I, A>(args: I) -> Vec<u8>
where
    I: IntoIterator<Item = A, IntoIter: ExactSizeIterator>,
    A: AsRef<[u8]>,
{
    let args = args.into_iter();
    let mut out = Vec::new();
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// An error reply. Line ends in `text` become spaces, for an error is one line.
pub fn error(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 3);
    out.push(b'-');
    out.extend(text.bytes().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_array_of_bulk_strings() {
        assert_eq!(request(["GET", ""]), b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n");
    }

    #[test]
    fn an_error_stays_one_line() {
        assert_eq!(error("ERR a\r\nb"), b"-ERR a  b\r\n");
    }
}
