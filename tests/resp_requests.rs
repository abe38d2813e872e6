//! The request scanner finds the same frames at any split, and refuses what Redis refuses.

use proptest::prelude::*;
use redis_proxy::resp::encode;
use redis_proxy::resp::request::{Error, Limits, Scanner, Step};

/// What a session would see: names with argument counts, ends with their positions, and the
/// error, if any.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Head(Vec<u8>, u32),
    End(usize),
    Inline(usize),
    Empty(usize),
    Error(Error),
}

fn scan(chunks: &[&[u8]], limits: Limits) -> Vec<Seen> {
    let mut scanner = Scanner::new(limits);
    let mut seen = Vec::new();
    let mut before = 0;
    for chunk in chunks {
        let mut pos = 0;
        scanner.new_input();
        loop {
            match scanner.next(chunk, &mut pos) {
                Ok(Step::More) => break,
                Ok(Step::Head { args }) => {
                    scanner.report_end();
                    seen.push(Seen::Head(scanner.name().to_vec(), args));
                }
                Ok(Step::End) => seen.push(Seen::End(before + pos)),
                Ok(Step::Inline) => seen.push(Seen::Inline(before + pos)),
                Ok(Step::Empty) => seen.push(Seen::Empty(before + pos)),
                Err(why) => {
                    seen.push(Seen::Error(why));
                    return seen;
                }
            }
        }
        assert_eq!(pos, chunk.len(), "all input is read");
        before += chunk.len();
    }
    seen
}

fn split<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6)
}

/// Bytes that look like the protocol more often than chance would have it.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"*"[..],
        b"$",
        b"\r\n",
        b"\n",
        b"\r",
        b"-1",
        b"0",
        b"1",
        b"3",
        b"12",
        b"GET",
        b"AUTH",
        b" ",
        b"\"",
        b"'",
        b"\\x",
        b"99999999999",
        b"\0",
    ]);
    let piece = prop_oneof![
        8 => pieces.prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn frames_are_found_at_any_split(
        requests in prop::collection::vec(request(), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for args in &requests {
            bytes.extend(encode::request(args));
            let name = if args[0].len() > 24 { Vec::new() } else { args[0].to_ascii_lowercase() };
            wanted.push(Seen::Head(name, u32::try_from(args.len()).unwrap()));
            wanted.push(Seen::End(bytes.len()));
        }
        prop_assert_eq!(scan(&split(&bytes, &cuts), Limits::FULL), wanted);
    }

    #[test]
    fn any_bytes_give_the_same_at_any_split(
        bytes in noise(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        for limits in [Limits::FULL, Limits::UNAUTHENTICATED] {
            prop_assert_eq!(scan(&split(&bytes, &cuts), limits), scan(&[&bytes], limits));
        }
    }

    #[test]
    fn a_cut_request_has_no_end(args in request(), cut in any::<prop::sample::Index>()) {
        let bytes = encode::request(&args);
        let seen = scan(&[&bytes[..cut.index(bytes.len())]], Limits::FULL);
        let ended = seen.iter().any(|seen| matches!(seen, Seen::End(_) | Seen::Error(_)));
        prop_assert!(!ended);
    }
}

#[test]
fn what_breaks_the_protocol_is_named_as_redis_names_it() {
    for (bytes, text) in [
        ("*x\r\n", "invalid multibulk length"),
        ("*\r\n", "invalid multibulk length"),
        ("*03\r\n", "invalid multibulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
        ("*1\r\n:1\r\n", "expected '$', got ':'"),
        ("*1\r\n\n", "expected '$', got ' '"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$1234567890123456789\r\n", "invalid bulk length"),
        ("*1\r\n$4\r\nPINGxx", "expected CRLF"),
        ("*1\rx", "expected CRLF"),
    ] {
        match &scan(&[bytes.as_bytes()], Limits::FULL)[..] {
            [.., Seen::Error(why)] => assert_eq!(why.to_string(), text, "{bytes:?}"),
            other => panic!("{bytes:?}: {other:?}"),
        }
    }
}

#[test]
fn limits_are_those_of_redis() {
    let error = |bytes: &str, limits| match scan(&[bytes.as_bytes()], limits).pop() {
        Some(Seen::Error(why)) => Some(why),
        _ => None,
    };
    let before_auth = Limits::UNAUTHENTICATED;
    assert_eq!(error("*10\r\n$16384\r\n", before_auth), None);
    assert_eq!(error("*11\r\n", before_auth), Some(Error::UnauthenticatedArgCount));
    assert_eq!(error("*1\r\n$16385\r\n", before_auth), Some(Error::UnauthenticatedBulkLength));
    assert_eq!(error("*2147483647\r\n$536870912\r\n", Limits::FULL), None);
    assert_eq!(error(&"x".repeat(65536), Limits::FULL), None);
    assert_eq!(error(&"x".repeat(65537), Limits::FULL), Some(Error::InlineTooLong));
    assert_eq!(error(&"x".repeat(16385), before_auth), Some(Error::InlineTooLong));
}

#[test]
fn an_empty_request_is_passed_over() {
    let seen = scan(&[b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n"], Limits::FULL);
    let ping = Seen::Head(b"ping".to_vec(), 1);
    assert_eq!(seen, [Seen::Empty(4), Seen::Empty(9), ping, Seen::End(23)]);
}
