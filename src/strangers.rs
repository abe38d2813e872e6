//! Clients that have not logged in yet. Where there are too many clients, the one that has been a stranger
//! for longest makes room: nobody can lock the others out by connecting and saying nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::crowd::{Crowd, Guest};
use crate::lock::lock;

/// Between the answers to two wrong passwords, of all clients.
const BETWEEN_FAILURES: Duration = Duration::from_millis(10);

/// The strangers that are connected now.
#[derive(Debug, Default)]
pub struct Strangers {
    crowd: Arc<Crowd<()>>,
    /// When the next wrong password may be answered.
    next_failure: Mutex<Option<Instant>>,
}

/// One of them, until it is dropped.
pub type Stranger = Guest<()>;

impl Strangers {
    /// One more.
    pub fn enter(&self) -> Stranger {
        self.crowd.enter()
    }

    /// Has the oldest one closed; false if there is none.
    pub fn send_oldest_away(&self) -> bool {
        self.crowd.send_first_away()
    }

    /// When a wrong password, which came at `now`, may be answered: whoever guesses by many connections is
    /// told of a hundred in a second.
    pub fn failed_login(&self, now: Instant) -> Instant {
        let mut next = lock(&self.next_failure);
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + BETWEEN_FAILURES);
        at
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
}
