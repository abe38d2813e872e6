//! Tells everybody that the process is about to end.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Set once.
#[derive(Debug, Default)]
pub struct Stop {
    stopping: AtomicBool,
    notify: Notify,
}

impl Stop {
    /// Wakes everybody who waits.
    pub fn begin(&self) {
        self.stopping.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }

    /// Whether it has begun.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Completes once it has begun. Cancel safe.
    pub async fn begun(&self) {
        let notified = self.notify.notified();
        if !self.is_stopping() {
            notified.await;
        }
    }
}
