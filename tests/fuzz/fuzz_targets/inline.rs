//! Any line: it is split or refused, and what was split can be quoted and split again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_proxy::resp::inline::split;
use redis_proxy::resp::{Args, encode};

fuzz_target!(|line: &[u8]| {
    let Ok(args) = split(line) else { return };
    let quoted: Vec<String> = args
        .iter()
        .map(|arg| format!("\"{}\"", arg.iter().map(|b| format!("\\x{b:02x}")).collect::<String>()))
        .collect();
    assert_eq!(split(quoted.join(" ").as_bytes()).as_ref(), Ok(&args));
    let frame = encode::request(&args);
    assert!(Args::new(&frame).eq(args.iter().map(Vec::as_slice)));
});
