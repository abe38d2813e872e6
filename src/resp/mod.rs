//! The Redis serialization protocol, as far as a proxy needs it: where frames begin and end.
//!
//! Everything here is sans-IO: it is fed bytes at any split and keeps its place between calls.
//! No frame is assembled, nothing is scanned twice, nothing recurses. (A short cut looks at a bulk
//! string's head of at most six bytes before the scanner's states do, where it cannot take it.)
//!
//! - [`request`]: what clients send
//! - [`reply`]: what the uplink sends
//! - [`inline`]: the quoting rules of inline commands
//! - [`encode`]: the few frames that the proxy writes itself
//! - [`Args`]: the arguments of one request that is held whole

pub mod encode;
pub mod inline;
mod number;
pub mod reply;
pub mod request;

/// The longest inline command, in bytes (`PROTO_INLINE_MAX_SIZE` in Redis).
pub const MAX_INLINE: usize = 64 * 1024;

/// A short cut for most bulk strings: if `rest` begins with a whole one of up to 999 bytes, its
/// length with head and end. What this does not take, the scanners' states read.
#[inline(always)]
fn short_bulk(rest: &[u8]) -> Option<usize> {
    let digit = |byte: u8| usize::from(byte - b'0');
    let (head, len) = match *rest {
        [b'$', a @ b'0'..=b'9', b'\r', b'\n', ..] => (4, digit(a)),
        [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => (5, digit(a) * 10 + digit(b)),
        [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            (6, digit(a) * 100 + digit(b) * 10 + digit(c))
        }
        _ => return None,
    };
    let end = head + len;
    (rest.get(end..end + 2) == Some(b"\r\n")).then_some(end + 2)
}

/// The arguments of a request frame that is held whole, in order.
///
/// Meant for frames that [`request::Scanner`] has accepted; anything else ends the iteration.
#[derive(Debug, Clone)]
pub struct Args<'a> {
    rest: &'a [u8],
}

impl<'a> Args<'a> {
    /// `frame` is one array of bulk strings, from its `*` to its last line end.
    pub fn new(frame: &'a [u8]) -> Self {
        let mut args = Args { rest: frame };
        args.line();
        args
    }

    fn line(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(b'\n', self.rest)?;
        let line = self.rest[..end].strip_suffix(b"\r")?;
        self.rest = &self.rest[end + 1..];
        Some(line)
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.line()?.strip_prefix(b"$")?;
        let len: usize = std::str::from_utf8(line).ok()?.parse().ok()?;
        let arg = self.rest.get(..len)?;
        self.rest = self.rest.get(len + 2..)?;
        Some(arg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn args_of_a_whole_frame_come_in_order() {
        let args: Vec<_> = Args::new(b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n").collect();
        assert_eq!(args, [&b"SET"[..], b"", b"a\r\nb"]);
    }

    #[test]
    fn args_of_a_cut_frame_end_early() {
        for cut in 0..20 {
            let frame = &b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..cut];
            assert!(Args::new(frame).count() < 2, "{cut}");
        }
    }
}
