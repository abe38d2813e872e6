//! Inline commands: a line of words, with the quoting rules of Redis's `sdssplitargs`.

use super::request::Error;

/// Splits a line (without its line feed) into arguments.
///
/// `"..."` knows `\n \r \t \b \a \xHH` and `\` before any other byte; `'...'` knows `\'` alone.
/// A closing quote must be followed by white space or the end.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut rest = line;
    let mut args = Vec::new();
    loop {
        let words = rest.iter().position(|b| !is_space(*b)).unwrap_or(rest.len());
        rest = &rest[words..];
        if rest.is_empty() {
            return Ok(args);
        }
        let (arg, after) = word(rest)?;
        args.push(arg);
        rest = after;
    }
}

/// One word, quoted parts included, and what comes after it.
fn word(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), Error> {
    let mut arg = Vec::new();
    loop {
        rest = match rest {
            [] => return Ok((arg, rest)),
            [b' ' | b'\t' | b'\r' | b'\n', ..] => return Ok((arg, rest)),
            [b'"', after @ ..] => double_quoted(after, &mut arg)?,
            [b'\'', after @ ..] => single_quoted(after, &mut arg)?,
            [byte, after @ ..] => {
                arg.push(*byte);
                after
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Error> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, after @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                arg.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', escaped, after @ ..] => {
                arg.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                after
            }
            [b'"', after @ ..] => return closed(after),
            [byte, after @ ..] => {
                arg.push(*byte);
                after
            }
            [] => return Err(Error::UnbalancedQuotes),
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], Error> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                arg.push(b'\'');
                after
            }
            [b'\'', after @ ..] => return closed(after),
            [byte, after @ ..] => {
                arg.push(*byte);
                after
            }
            [] => return Err(Error::UnbalancedQuotes),
        }
    }
}

fn closed(after: &[u8]) -> Result<&[u8], Error> {
    match after.first() {
        Some(byte) if !is_space(*byte) => Err(Error::UnbalancedQuotes),
        _ => Ok(after),
    }
}

/// C's `isspace`, which counts between words; two of these do not end one.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<String>, Error> {
        let args = split(line.as_bytes())?;
        Ok(args.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect())
    }

    #[test]
    fn words_are_split_at_white_space() {
        assert_eq!(words(" set  a\tb \r").expect("valid"), ["set", "a", "b"]);
        assert!(words("  \r").expect("valid").is_empty());
        assert_eq!(words("\x0ba\x0bb \x0cc").expect("valid"), ["a\x0bb", "c"]);
    }

    #[test]
    fn quotes_follow_sdssplitargs() {
        assert_eq!(words(r#""a b"c 'd\'e' '\n'"#), Err(Error::UnbalancedQuotes));
        assert_eq!(words(r#"x"a b" 'd\'e' '\n' """#).expect("valid"), ["xa b", "d'e", "\\n", ""]);
        assert_eq!(
            split(br#""\x41\xfF\n\r\t\b\a\"\\\q\xZZ""#).expect("valid"),
            [b"A\xff\n\r\t\x08\x07\"\\qxZZ".to_vec()]
        );
    }

    #[test]
    fn open_quotes_are_refused() {
        for line in ["\"", "'", "a \"b", "a 'b", "\"a\\", "'a\\'", "\"a\"b", "'a'b"] {
            assert_eq!(words(line), Err(Error::UnbalancedQuotes), "{line}");
        }
    }
}
