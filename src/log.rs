//! Where the log goes, and how often a thing may be said.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the log to standard error, filtered by `RUST_LOG`.
pub fn init(format: Format) {
    let filter =
        EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        Format::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        Format::Json => builder.json().flatten_event(true).init(),
    }
}

/// Lets one line a second through, for what a remote can bring about as often as it likes.
#[derive(Debug)]
pub struct RateLimit {
    second: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimit {
    /// For a `static` beside the line that it limits.
    pub const fn one_a_second() -> Self {
        RateLimit { second: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// `Some` if the line may be written, with how many were not since the last.
    pub fn pass(&self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.second.swap(now, Ordering::Relaxed) == now {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second_and_counted() {
        let limit = RateLimit::one_a_second();
        let passed = (0..100).filter(|_| limit.pass().is_some()).count();
        assert!((1..=2).contains(&passed), "two if a second ended meanwhile");
        let rest = limit.suppressed.load(Ordering::Relaxed);
        assert!((1..=99).contains(&rest));
    }
}
