//! Whatever takes many processes, descriptors and much time takes turns.

use std::sync::{Condvar, Mutex, PoisonError};

/// So many at once, however many tests run side by side.
const AT_ONCE: usize = 8;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ONE_ENDED: Condvar = Condvar::new();

/// One of [`AT_ONCE`] turns; it is over when this is dropped. Whoever has one must not wait for
/// another.
pub struct Turn(());

impl Turn {
    pub fn wait() -> Turn {
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let running = ONE_ENDED.wait_while(running, |running| *running == AT_ONCE);
        *running.unwrap_or_else(PoisonError::into_inner) += 1;
        Turn(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ONE_ENDED.notify_one();
    }
}
