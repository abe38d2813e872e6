//! Clients that have not logged in yet. Where there are too many clients, the one that has been a stranger
//! for longest makes room: nobody can lock the others out by connecting and saying nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Between the answers to two wrong passwords, of all clients.
const BETWEEN_FAILURES: Duration = Duration::from_millis(10);

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
    /// When the next wrong password may be answered.
    next_failure: Option<Instant>,
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

    /// When a wrong password, which came at `now`, may be answered: whoever guesses by many connections is
    /// told of a hundred in a second.
    pub fn failed_login(&self, now: Instant) -> Instant {
        let next = &mut self.lock().next_failure;
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + BETWEEN_FAILURES);
        at
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
    fn wrong_passwords_of_all_clients_are_answered_one_after_the_other() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        let waits: Vec<_> = (0..3).map(|_| strangers.failed_login(now) - now).collect();
        assert_eq!(waits, [0, 10, 20].map(Duration::from_millis));
        let later = now + Duration::from_secs(1);
        assert_eq!(strangers.failed_login(later), later);
    }

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
