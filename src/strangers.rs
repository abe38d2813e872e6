//! Clients that have not logged in yet. Where there are too many clients, the one that has been a stranger
//! for longest makes room: nobody can lock the others out by connecting and saying nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The strangers that are connected now.
#[derive(Debug, Default)]
pub struct Strangers {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// The oldest first.
    connected: BTreeMap<u64, CancellationToken>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Stranger {
    strangers: Arc<Strangers>,
    number: u64,
    sent_away: CancellationToken,
}

impl Strangers {
    /// One more.
    pub fn enter(self: &Arc<Self>) -> Stranger {
        let sent_away = CancellationToken::new();
        let mut inner = self.lock();
        inner.next += 1;
        let number = inner.next;
        inner.connected.insert(number, sent_away.clone());
        Stranger { strangers: self.clone(), number, sent_away }
    }

    /// Has the oldest one closed; false if there is none.
    pub fn send_oldest_away(&self) -> bool {
        let oldest = self.lock().connected.pop_first();
        oldest.is_some_and(|(_, sent_away)| {
            sent_away.cancel();
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stranger {
    /// Completes when its place is needed for another client.
    pub fn sent_away(&self) -> WaitForCancellationFutureOwned {
        self.sent_away.clone().cancelled_owned()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.strangers.lock().connected.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_whoever_logged_in_stays() {
        let strangers = Arc::<Strangers>::default();
        let [one, two, three] = [(); 3].map(|()| strangers.enter());
        drop(one);
        assert!(strangers.send_oldest_away());
        assert!(two.sent_away.is_cancelled() && !three.sent_away.is_cancelled());
        assert!(strangers.send_oldest_away());
        assert!(!strangers.send_oldest_away(), "nobody is left");
    }
}
