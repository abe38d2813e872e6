//! A client cannot tell the proxy from the server behind it: random programs run directly and
//! through the proxy, and every reply and push is compared, in order.
//!
//! A third of the programs have a reload before each step, to the same server by its other
//! address: the data stay, and so must everything that the connections carry. `REDIS_PROXY_SEED`
//! runs the programs from this seed on, `REDIS_PROXY_PROGRAMS` says how many.
//! With `REDIS_PROXY_FAILURES`, so many failures are collected before the test ends.

mod compare;
mod frames;
mod generate;
mod place;
mod program;
mod run;
mod shrink;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::scope;
use std::time::Duration;

use self::place::Places;
use crate::random_programs::number;

const SEED: u64 = 1;
const PROGRAMS: u64 = 300;
const WORKERS: usize = 2;

/// How long a reply may take, and how long while it is known that something fails.
const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(700);

#[test]
fn a_client_cannot_tell_the_proxy_from_the_server() {
    let first = number("REDIS_PROXY_SEED");
    let count =
        number("REDIS_PROXY_PROGRAMS").unwrap_or(if first.is_some() { 1 } else { PROGRAMS });
    let first = first.unwrap_or(SEED);
    let most = number("REDIS_PROXY_FAILURES").unwrap_or(1) as usize;
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let mut places = Places::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failures.lock().unwrap().len() >= most {
                        return;
                    }
                    let program = generate::program(seed);
                    let Some(first) = places.difference(&program, PATIENCE) else { continue };
                    places.forget(&program.mode);
                    let (least, difference) = shrink::shrink(&mut places, &program, first);
                    let text = format!("REDIS_PROXY_SEED={seed}: {least}\n  {difference}\n");
                    eprintln!("{text}");
                    failures.lock().unwrap().push(text);
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} programs differ:\n{}", failures.len(), failures.join("\n"));
}
