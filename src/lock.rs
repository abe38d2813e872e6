//! Locks a mutex whether or not somebody panicked who held it: what it guards is right at each step,
//! and a panic stays with the one who had it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
