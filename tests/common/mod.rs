//! The harness: real redis-servers, scripted uplinks, the real binary, and clients that say
//! exactly what they send and expect.

mod acceptor;
mod api;
mod browser;
mod client;
mod fake;
mod http;
mod middle;
mod proxy;
mod redis;
mod sentinel;
mod turn;

use std::path::PathBuf;
use std::time::Duration;

pub use self::api::{FakeApi, Post};
pub use self::browser::Browser;
pub use self::client::{Client, tls_config};
pub use self::fake::{FakeUplink, tls_server};
pub use self::http::{Answer, http, send};
pub use self::middle::{Middle, Then, When};
pub use self::proxy::{Proxy, check, config, run_to_end};
pub use self::redis::{Redis, own_host, redis};
pub use self::sentinel::{FakeSentinel, Says, Sentinel};
pub use self::turn::Turn;

/// How long anything may take before a test is given up, on a machine that has much else to do.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what no event tells of; what is looked at needs the processor, too.
pub const LOOK: Duration = Duration::from_millis(2);

/// A test certificate or key.
pub fn cert(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("certs").join(name).display().to_string()
}

/// A program of another package, which `cargo build` puts beside the proxy.
pub fn program(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_BIN_EXE_redis-proxy")).with_file_name(name);
    assert!(path.exists(), "{} is not there: run `cargo build` first", path.display());
    path.display().to_string()
}

/// A request as clients send it.
pub fn request(args: &[&str]) -> Vec<u8> {
    redis_proxy::resp::encode::request(args)
}

/// Polls, for what no event tells of: another process's or thread's state.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < until, "never happened: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Tells other threads to end, however this one does.
pub struct TellsToEnd<'a>(pub &'a std::sync::atomic::AtomicBool);

impl Drop for TellsToEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
