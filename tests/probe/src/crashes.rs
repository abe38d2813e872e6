//! When the server crashed, and which connections may have been closed by that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The crashes of a run, in their order.
#[derive(Debug, Default)]
pub struct Crashes {
    crashes: Mutex<Vec<Crash>>,
    /// Rises before each crash and after it.
    changes: AtomicU64,
}

#[derive(Debug)]
struct Crash {
    /// What is asked after this waits until the server is back.
    known: Option<Instant>,
    /// Clients whose connection it has closed.
    closed: u64,
}

impl Crashes {
    fn lock(&self) -> MutexGuard<'_, Vec<Crash>> {
        self.crashes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server is about to be killed.
    pub fn begin(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.lock().push(Crash { known: None, closed: 0 });
    }

    /// It is gone, and whoever stands before it knows that.
    pub fn known(&self) {
        if let Some(crash) = self.lock().last_mut() {
            crash.known = Some(Instant::now());
        }
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether a server is being killed, and whoever stands before it may not know that yet.
    pub fn is_on(&self) -> bool {
        self.lock().last().is_some_and(|crash| crash.known.is_none())
    }

    /// Another number: a crash was possible in between.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Whether a crash may have come between this request and the end of its connection, just now. It counts as
    /// one that the crash has closed.
    pub fn excuse(&self, asked: Instant) -> bool {
        match self.lock().last_mut() {
            Some(crash) if crash.known.is_none_or(|known| asked <= known) => {
                crash.closed += 1;
                true
            }
            _ => false,
        }
    }

    /// How many connections each crash has closed.
    pub fn closed(&self) -> Vec<u64> {
        self.lock().iter().map(|crash| crash.closed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_may_be_closed_by_a_crash_and_only_before_that_is_known() {
        let crashes = Crashes::default();
        let early = Instant::now();
        assert!(!crashes.excuse(early), "there was none");
        let before = crashes.changes();
        crashes.begin();
        assert!(crashes.excuse(Instant::now()), "the proxy may not know yet");
        assert!(crashes.is_on());
        crashes.known();
        assert!(!crashes.is_on());
        assert!(crashes.excuse(early));
        assert!(!crashes.excuse(Instant::now()), "it should wait");
        assert_ne!(crashes.changes(), before);
        crashes.begin();
        assert!(crashes.excuse(Instant::now()));
        assert_eq!(crashes.closed(), [2, 1]);
    }
}
