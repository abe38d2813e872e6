//! Any bytes, at any split: the reply scanner finds the same ends as in one piece.
//!
//! The first byte of the input says how long the pieces are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_proxy::resp::reply::{Scanner, Step};

fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut scanner = Scanner::default();
    let (mut seen, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut pos = 0;
        loop {
            if !scanner.in_frame() {
                scanner.set_peek(true);
            }
            match scanner.next(piece, &mut pos) {
                Ok(Step::More) => break,
                Ok(Step::End { kind }) => {
                    let (text, number) = (scanner.first_text(), scanner.last_number());
                    seen.push(format!("{} {kind} {text:?} {number}", before + pos));
                }
                Err(why) => {
                    seen.push(format!("{why:?}"));
                    return seen;
                }
            }
        }
        assert_eq!(pos, piece.len());
        before += piece.len();
    }
    seen
}

fuzz_target!(|data: &[u8]| {
    let Some((size, bytes)) = data.split_first() else { return };
    assert_eq!(scan(bytes.chunks(usize::from(*size).max(1))), scan(std::iter::once(bytes)));
});
