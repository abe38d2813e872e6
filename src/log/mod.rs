//! Where the log goes, and how often a thing may be said.
//!
//! Nobody who logs waits for standard error, or hears of its faults: lines go into a queue, out of
//! which a thread writes them. What finds no room there, or cannot be written, is dropped and counted.

mod queue;
mod text;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, poll};
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, LevelFilter};

use self::queue::{LogQueue, Untold, Why};

/// For how long the end of the process waits for what is not written yet.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The process has one log.
static QUEUE: LogQueue = LogQueue::new();

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Has the last lines written when it is dropped, as far as that is possible without hanging.
#[derive(Debug)]
#[must_use = "the last lines are written when it is dropped"]
pub struct Log(());

impl Drop for Log {
    fn drop(&mut self) {
        QUEUE.wait(LAST_LINES);
    }
}

/// Sends the log to standard error, filtered by `RUST_LOG`. Panics go there, too.
pub fn init(format: Format) -> io::Result<Log> {
    thread::Builder::new().name("log".to_owned()).spawn(|| QUEUE.run(StandardError, tell))?;
    let wanted = std::env::var_os("RUST_LOG").unwrap_or_default();
    let wanted = wanted.to_string_lossy();
    let (filter, faults) = filter(&wanted);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| &QUEUE)
        // Else it writes to standard error by itself, and panics if it cannot.
        .log_internal_errors(false);
    match format {
        Format::Text => {
            builder.with_ansi(io::stderr().is_terminal()).fmt_fields(text::fields()).init();
        }
        Format::Json => builder.json().flatten_event(true).init(),
    }
    panic::set_hook(Box::new(panicked));
    for (part, why) in faults {
        warn!(part, %why, "RUST_LOG: not understood");
    }
    Ok(Log(()))
}

/// Lines that were dropped since the start.
pub fn dropped() -> u64 {
    QUEUE.dropped()
}

/// Waits until all that was logged by now is written, or could not be; at most for this long.
pub fn wait(limit: Duration) {
    QUEUE.wait(limit);
}

/// What cannot be read of it is left out, and returned with the reason.
fn filter(text: &str) -> (EnvFilter, Vec<(&str, impl Display + use<>)>) {
    let (mut good, mut faults) = (Vec::new(), Vec::new());
    for part in text.split(',').filter(|part| !part.is_empty()) {
        match part.parse::<Directive>() {
            Ok(_) => good.push(part),
            Err(why) => faults.push((part, why)),
        }
    }
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    (builder.parse_lossy(good.join(",")), faults)
}

/// The log tells that lines are missing.
fn tell(untold: Untold) {
    let Untold { lines, why } = untold;
    match why {
        Why::Full => warn!(lines, "log lines were dropped: they came faster than they were read"),
        Why::Failed(why) => warn!(lines, %why, "log lines were dropped: they could not be written"),
    }
}

/// A panic is a line of the log.
fn panicked(info: &PanicHookInfo<'_>) {
    let at = info.location().map(ToString::to_string);
    let thread = thread::current();
    let trace = Backtrace::capture();
    let backtrace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    error!(reason = panic_text(info.payload()), at, thread = thread.name(), backtrace, "panicked");
}

/// What a panic says.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

/// Standard error without the standard library's lock, which a writer that is stuck would keep.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        loop {
            match rustix::io::write(&stderr, text) {
                // Another process shares the descriptor and has made it non-blocking.
                Err(rustix::io::Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
                }
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
