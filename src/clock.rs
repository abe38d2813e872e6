//! The time. A test that has stopped the runtime's clock has stopped this one, too.

use std::time::Instant;

/// The time, as the runtime's timers see it.
#[inline]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
