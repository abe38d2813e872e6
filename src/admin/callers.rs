//! A bounded number of callers. One who has not shown that it may ask anything makes room for the
//! next: nobody can lock the others out by connecting and saying nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The callers that are connected now.
#[derive(Debug)]
pub(super) struct Callers {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    connected: usize,
    next: u64,
    /// Those that have not had an answer to anything but the question for their password; the
    /// oldest first.
    strangers: VecDeque<(u64, CancellationToken)>,
}

/// One caller's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Caller {
    callers: Arc<Callers>,
    number: u64,
    sent_away: CancellationToken,
}

impl Callers {
    /// For so many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Callers { most, inner: Mutex::default() })
    }

    /// A place; if there is none, the oldest stranger's. `None` if there are no strangers.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Caller> {
        let mut inner = self.lock();
        if inner.connected >= self.most {
            let (_, oldest) = inner.strangers.pop_front()?;
            oldest.cancel();
        }
        inner.connected += 1;
        inner.next += 1;
        let (number, sent_away) = (inner.next, CancellationToken::new());
        inner.strangers.push_back((number, sent_away.clone()));
        Some(Caller { callers: self.clone(), number, sent_away })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// It may ask, so it keeps its place.
    pub(super) fn is_known(&self) {
        self.callers.lock().strangers.retain(|(number, _)| *number != self.number);
    }

    /// Completes when its place is needed for another. Cancel safe.
    pub(super) async fn sent_away(&self) {
        self.sent_away.cancelled().await;
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.is_known();
        self.callers.lock().connected -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_make_room_and_those_who_are_known_stay() {
        let callers = Callers::new(2);
        let (known, stranger) = (callers.enter().expect("room"), callers.enter().expect("room"));
        known.is_known();
        let next = callers.enter().expect("the stranger's place");
        assert!(stranger.sent_away.is_cancelled() && !known.sent_away.is_cancelled());
        next.is_known();
        drop(stranger);
        assert!(callers.enter().is_none(), "all are known");
        drop(known);
        assert!(callers.enter().is_some());
    }
}
