//! The reply scanner finds the end of every RESP2 and RESP3 value, at any split.

use proptest::prelude::*;
use redis_proxy::resp::reply::{Error, MAX_DEPTH, Scanner, Step};

fn scan(chunks: &[&[u8]]) -> (Vec<(u8, usize)>, Option<Error>) {
    let mut scanner = Scanner::default();
    let (mut ends, mut before) = (Vec::new(), 0);
    for chunk in chunks {
        let mut pos = 0;
        loop {
            if !scanner.in_frame() {
                scanner.set_peek(true);
            }
            match scanner.next(chunk, &mut pos) {
                Ok(Step::More) => break,
                Ok(Step::End { kind }) => ends.push((kind, before + pos)),
                Err(why) => return (ends, Some(why)),
            }
        }
        before += chunk.len();
    }
    (ends, None)
}

fn split<'a>(bytes: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Any value, with the type byte that it is known by.
fn value() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let text = "[ -~]{0,20}";
    let line = (prop::sample::select(b"+-:,#_(".to_vec()), text)
        .prop_map(|(kind, text)| (kind, [&[kind], text.as_bytes(), b"\r\n"].concat()));
    let bulk = (prop::sample::select(b"$=!".to_vec()), prop::collection::vec(any::<u8>(), 0..50))
        .prop_map(|(kind, body)| {
            let head = format!("{}{}\r\n", char::from(kind), body.len());
            (kind, [head.as_bytes(), &body, b"\r\n"].concat())
        });
    let null = prop::sample::select(vec![&b"$-1\r\n"[..], b"*-1\r\n"])
        .prop_map(|null| (null[0], null.to_vec()));
    let streamed =
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4).prop_map(|chunks| {
            let mut bytes = b"$?\r\n".to_vec();
            for chunk in chunks {
                bytes.extend(format!(";{}\r\n", chunk.len()).as_bytes());
                bytes.extend(&chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b";0\r\n");
            (b'$', bytes)
        });
    let leaf = prop_oneof![4 => line, 4 => bulk, 1 => null, 1 => streamed];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let attribute = prop::collection::vec((inner.clone(), inner.clone()), 0..2);
        let elements = prop::collection::vec(inner.clone(), 0..6);
        let kind = prop::sample::select(b"*~%".to_vec());
        prop_oneof![
            (kind, elements, any::<bool>()).prop_map(|(kind, mut elements, streamed)| {
                let pairs = kind == b'%';
                if pairs && elements.len() % 2 == 1 {
                    elements.pop();
                }
                let count = if pairs { elements.len() / 2 } else { elements.len() };
                let length = if streamed { "?".to_owned() } else { count.to_string() };
                let mut bytes = format!("{}{length}\r\n", char::from(kind)).into_bytes();
                bytes.extend(elements.into_iter().flat_map(|(_, bytes)| bytes));
                bytes.extend(if streamed { &b".\r\n"[..] } else { b"" });
                (kind, bytes)
            }),
            (attribute, inner).prop_map(|(pairs, (kind, value))| {
                let mut bytes = format!("|{}\r\n", pairs.len()).into_bytes();
                for ((_, key), (_, value)) in pairs {
                    bytes.extend(key);
                    bytes.extend(value);
                }
                bytes.extend(value);
                (kind, bytes)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_ends_where_it_ends(
        values in prop::collection::vec(value(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for (kind, value) in values {
            bytes.extend(value);
            wanted.push((kind, bytes.len()));
        }
        prop_assert_eq!(scan(&split(&bytes, &cuts)), (wanted, None));
    }

    #[test]
    fn a_cut_value_has_no_end((_, bytes) in value(), cut in any::<prop::sample::Index>()) {
        prop_assert_eq!(scan(&[&bytes[..cut.index(bytes.len())]]), (Vec::new(), None));
    }

    #[test]
    fn any_bytes_give_the_same_at_any_split(
        bytes in prop::collection::vec(prop::sample::select(b"+-:$*%|>~.;?_#(,=!019\r\nax".to_vec()), 0..80),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        prop_assert_eq!(scan(&split(&bytes, &cuts)), scan(&[&bytes]));
    }
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    let deep = |levels: usize| "*1\r\n".repeat(levels) + ":1\r\n";
    let fits = deep(MAX_DEPTH);
    assert_eq!(scan(&[fits.as_bytes()]), (vec![(b'*', fits.len())], None));
    assert_eq!(scan(&[deep(MAX_DEPTH + 1).as_bytes()]), (vec![], Some(Error::TooDeep)));
    assert_eq!(scan(&["*?\r\n".repeat(1_000_000).as_bytes()]), (vec![], Some(Error::TooDeep)));
}

#[test]
fn garbage_is_refused() {
    for (bytes, error) in [
        ("HTTP/1.1 200 OK\r\n", Error::Type(b'H')),
        ("\r\n", Error::Type(b'\r')),
        ("$-2\r\n", Error::Length),
        ("$x\r\n", Error::Length),
        ("%-1\r\n", Error::Length),
        ("%9223372036854775807\r\n", Error::Length),
        ("=?\r\n", Error::Length),
        ("$1\r\nabc", Error::LineEnd),
        (".\r\n", Error::Type(b'.')),
        ("*1\r\n.\r\n", Error::Type(b'.')),
    ] {
        assert_eq!(scan(&[bytes.as_bytes()]), (vec![], Some(error)), "{bytes:?}");
    }
}

#[test]
fn a_confirmation_tells_its_kind_and_number() {
    let mut scanner = Scanner::default();
    for byte in b">3\r\n$9\r\nsubscribe\r\n$2\r\n12\r\n:7\r\n" {
        if !scanner.in_frame() {
            scanner.set_peek(true);
        }
        scanner.next(&[*byte], &mut 0).unwrap();
    }
    assert_eq!(scanner.first_text(), b"subscribe");
    assert_eq!(scanner.last_number(), 7);
}

#[test]
fn a_number_that_is_none_stays_none_at_any_split() {
    for split in 0..=5 {
        let mut scanner = Scanner::default();
        scanner.set_peek(true);
        let (first, second) = b":x1\r\n".split_at(split);
        scanner.next(first, &mut 0).unwrap();
        scanner.next(second, &mut 0).unwrap();
        assert_eq!(scanner.last_number(), 0, "{split}");
    }
}

#[test]
fn a_push_is_an_element_of_nothing() {
    let push = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n*1\r\n:1\r\n";
    let inside = format!("*2\r\n{push}:1\r\n{push}>0\r\n:2\r\n");
    let bytes = format!("{push}{inside}{push}");
    let ends = [push.len(), push.len() + inside.len(), bytes.len()];
    let wanted = vec![(b'>', ends[0]), (b'*', ends[1]), (b'>', ends[2])];
    for size in 1..bytes.len() {
        let chunks: Vec<&[u8]> = bytes.as_bytes().chunks(size).collect();
        assert_eq!(scan(&chunks), (wanted.clone(), None), "{size}");
    }
}

#[test]
fn an_array_that_unfolds_is_its_header_and_then_its_elements() {
    for (reply, ends) in [
        ("*2\r\n:1\r\n*1\r\n:2\r\n+OK\r\n", &[4, 8, 16, 21][..]),
        ("*0\r\n+OK\r\n", &[4, 9]),
        ("*-1\r\n+OK\r\n", &[5, 10]),
        ("-EXECABORT\r\n*1\r\n:1\r\n", &[12, 20]),
    ] {
        for size in 1..=reply.len() {
            let mut scanner = Scanner::default();
            scanner.set_peek(true);
            scanner.set_unfolds(true);
            let (mut found, mut numbers) = (Vec::new(), Vec::new());
            let mut before = 0;
            for chunk in reply.as_bytes().chunks(size) {
                let mut pos = 0;
                while pos < chunk.len() {
                    if let Step::End { .. } = scanner.next(chunk, &mut pos).unwrap() {
                        found.push(before + pos);
                        numbers.push(scanner.last_number());
                    }
                }
                before += chunk.len();
            }
            assert_eq!(found, ends, "{reply:?} by {size}");
            let elements = i64::from(reply.starts_with("*2")) * 2;
            assert_eq!(numbers[0], elements, "{reply:?}");
        }
    }
}
