//! Tells every session that the process is about to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Set once.
#[derive(Debug, Default)]
pub struct Stop {
    stopping: AtomicBool,
    notify: Arc<Notify>,
}

impl Stop {
    /// Wakes everybody who waits.
    pub fn begin(&self) {
        self.stopping.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Looked at whenever a session is awake.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Completes when [`Stop::begin`] is called after this was made.
    pub fn notified(&self) -> OwnedNotified {
        self.notify.clone().notified_owned()
    }
}
