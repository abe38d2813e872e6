//! A bounded number of callers. Nobody can lock the others out by keeping a connection: whoever
//! waits between two requests makes room for the next caller, and before them whoever has not shown
//! that it may ask anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// For a caller to send its request's head, counted from its last answer; and its body.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The callers that are connected now.
#[derive(Debug)]
pub(super) struct Callers {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts callers and requests.
    clock: u64,
    connected: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    standing: Standing,
    /// When it had its last answer, or came; by the clock.
    since: u64,
    sent_away: CancellationToken,
}

/// Who makes room: the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// It has asked nothing but what anybody may ask.
    Stranger,
    /// It was answered what it may ask.
    Known,
    /// A command of it is running. It keeps its place.
    Commands,
}

/// One caller's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Caller {
    callers: Arc<Callers>,
    number: u64,
    sent_away: CancellationToken,
}

/// A command is running for as long as this lives.
#[derive(Debug)]
pub(super) struct Commanding<'a>(&'a Caller);

impl Callers {
    /// For so many.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Callers { most, inner: Mutex::default() })
    }

    /// A place; if there is none, that of whoever is the first to make room. `None` if nobody can.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Caller> {
        let mut inner = self.lock();
        if inner.connected.len() >= self.most {
            let idle = |(_, place): &(&u64, &Place)| place.standing != Standing::Commands;
            let first = |(_, place): &(&u64, &Place)| (place.standing, place.since);
            let first = *inner.connected.iter().filter(idle).min_by_key(first)?.0;
            inner.connected.remove(&first)?.sent_away.cancel();
        }
        inner.clock += 1;
        let (number, sent_away) = (inner.clock, CancellationToken::new());
        let place =
            Place { standing: Standing::Stranger, since: number, sent_away: sent_away.clone() };
        inner.connected.insert(number, place);
        Some(Caller { callers: self.clone(), number, sent_away })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    /// It was answered something that not everybody may ask.
    pub(super) fn is_known(&self) {
        self.stand(Standing::Known);
    }

    /// A command of it begins.
    pub(super) fn commands(&self) -> Commanding<'_> {
        self.stand(Standing::Commands);
        Commanding(self)
    }

    /// Completes when its place is needed for another. Cancel safe.
    pub(super) async fn sent_away(&self) {
        self.sent_away.cancelled().await;
    }

    fn stand(&self, standing: Standing) {
        let mut inner = self.callers.lock();
        inner.clock += 1;
        let since = inner.clock;
        // It may have been sent away meanwhile.
        if let Some(place) = inner.connected.get_mut(&self.number) {
            (place.standing, place.since) = (standing, since);
        }
    }
}

impl Drop for Commanding<'_> {
    fn drop(&mut self) {
        self.0.is_known();
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.callers.lock().connected.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(callers: &Arc<Callers>) -> Caller {
        callers.enter().expect("room")
    }

    #[test]
    fn strangers_make_room_and_then_whoever_had_its_last_answer_first() {
        let callers = Callers::new(3);
        let [one, two, stranger] = [(); 3].map(|()| enter(&callers));
        one.is_known();
        two.is_known();
        one.is_known();
        let next = enter(&callers);
        assert!(stranger.sent_away.is_cancelled() && !two.sent_away.is_cancelled());
        next.is_known();
        let _last = enter(&callers);
        assert!(two.sent_away.is_cancelled() && !one.sent_away.is_cancelled());
    }

    #[test]
    fn a_caller_with_a_command_keeps_its_place() {
        let callers = Callers::new(2);
        let (one, two) = (enter(&callers), enter(&callers));
        let (commanding, _other) = (one.commands(), two.commands());
        assert!(callers.enter().is_none(), "commands are running");
        drop(commanding);
        let _next = enter(&callers);
        assert!(one.sent_away.is_cancelled() && !two.sent_away.is_cancelled());
    }

    #[test]
    fn whoever_is_sent_away_has_no_place_any_more() {
        let callers = Callers::new(1);
        let one = enter(&callers);
        let two = enter(&callers);
        one.is_known();
        drop(one);
        assert_eq!(callers.lock().connected.len(), 1);
        drop(two);
        assert!(callers.lock().connected.is_empty());
    }
}
