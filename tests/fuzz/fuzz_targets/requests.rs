//! Any bytes, at any split: the request scanner sees what it sees in one piece.
//!
//! The first byte of the input says how long the pieces are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_proxy::resp::request::{Limits, Scanner, Step};

fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: Limits) -> Vec<String> {
    let mut scanner = Scanner::new(limits);
    let (mut seen, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut pos = 0;
        scanner.new_input();
        loop {
            let last = pos;
            match scanner.next(piece, &mut pos) {
                Ok(Step::More) => break,
                Ok(step) => {
                    assert!(pos > last, "every step reads something");
                    if let Step::Head { .. } = step {
                        scanner.report_end();
                        seen.push(format!("{:?} {step:?}", scanner.name()));
                    } else {
                        seen.push(format!("{} {step:?}", before + pos));
                    }
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
    for limits in [Limits::FULL, Limits::UNAUTHENTICATED] {
        let pieces = scan(bytes.chunks(usize::from(*size).max(1)), limits);
        assert_eq!(pieces, scan(std::iter::once(bytes), limits));
    }
});
