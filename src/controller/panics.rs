//! A panic is a fault like others: it is told with its reason, and what must still be done is done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;
use tokio::task::JoinError;

use super::error::Error;
use crate::log;

/// The proxy panicked, which is a fault of its own.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the proxy panicked: {0}")]
pub(super) struct Panicked(String);

impl From<Box<dyn Any + Send>> for Panicked {
    fn from(payload: Box<dyn Any + Send>) -> Self {
        Panicked(log::panic_text(&*payload).to_owned())
    }
}

/// The error of a change whose task did not come to its end.
pub(super) fn broken_off(why: JoinError) -> Error {
    match why.try_into_panic() {
        Ok(payload) => Error::Failed(Panicked::from(payload).to_string()),
        Err(why) => Error::Failed(why.to_string()),
    }
}

/// Does something that may panic. What it borrows must be right whether or not it comes to its end;
/// that holds for all that can be called off in its middle.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(Panicked::from)
}

/// Does something that may panic, and that does not wait; see [`caught`].
pub(super) fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(Panicked::from)
}

/// Panics here, once, if the environment names this place in `REDIS_PROXY_PANIC_AT` (several with commas
/// between): so tests see what becomes of it.
#[cfg(debug_assertions)]
pub(super) fn point(name: &str) {
    use std::env;
    use std::sync::{LazyLock, Mutex};

    use crate::lock::lock;

    static PLACES: LazyLock<Mutex<Vec<String>>> = LazyLock::new(|| {
        let places = env::var("REDIS_PROXY_PANIC_AT").unwrap_or_default();
        Mutex::new(places.split(',').map(str::to_owned).collect())
    });
    let reached = {
        let mut places = lock(&PLACES);
        let at = places.iter().position(|place| place == name);
        at.map(|at| places.swap_remove(at))
    };
    assert!(reached.is_none(), "on purpose, at {name}");
}

/// A release panics nowhere on purpose.
#[cfg(not(debug_assertions))]
pub(super) fn point(_name: &str) {}
