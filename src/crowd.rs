//! Guests who may have to make room for others: the lowest rank first, and in one rank the guest that
//! has had it for longest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::lock::lock;

/// The guests that are there now. They come with the default rank.
#[derive(Debug, Default)]
pub struct Crowd<R> {
    inner: Mutex<CrowdGuests<R>>,
}

#[derive(Debug, Default)]
struct CrowdGuests<R> {
    /// Counts guests and changes of rank.
    clock: u64,
    guests: BTreeMap<Place<R>, CancellationToken>,
}

/// A rank, and when its guest got it, by the clock.
type Place<R> = (R, u64);

/// One guest, until it is dropped.
#[derive(Debug)]
pub struct Guest<R: Copy + Ord> {
    crowd: Arc<Crowd<R>>,
    place: Mutex<Place<R>>,
    sent_away: CancellationToken,
}

impl<R: Copy + Ord + Default> Crowd<R> {
    /// One guest more.
    pub fn enter(self: &Arc<Self>) -> Guest<R> {
        self.add(&mut lock(&self.inner))
    }

    /// One guest more among so many; if that is too much, the first one makes room, or, if its rank may
    /// not be sent away, nobody enters.
    pub fn enter_among(
        self: &Arc<Self>,
        most: usize,
        may_be_sent: impl FnOnce(R) -> bool,
    ) -> Option<Guest<R>> {
        let mut inner = lock(&self.inner);
        let has_room = inner.guests.len() < most || inner.send_first_away(may_be_sent);
        has_room.then(|| self.add(&mut inner))
    }

    /// Has the first guest make room; false if there is none.
    pub fn send_first_away(&self) -> bool {
        lock(&self.inner).send_first_away(|_| true)
    }

    fn add(self: &Arc<Self>, inner: &mut CrowdGuests<R>) -> Guest<R> {
        let sent_away = CancellationToken::new();
        let place = inner.put(R::default(), sent_away.clone());
        Guest { crowd: self.clone(), place: Mutex::new(place), sent_away }
    }
}

impl<R: Copy + Ord> CrowdGuests<R> {
    fn put(&mut self, rank: R, sent_away: CancellationToken) -> Place<R> {
        self.clock += 1;
        self.guests.insert((rank, self.clock), sent_away);
        (rank, self.clock)
    }

    fn send_first_away(&mut self, may_be_sent: impl FnOnce(R) -> bool) -> bool {
        let Some(first) = self.guests.first_entry() else { return false };
        let may = may_be_sent(first.key().0);
        if may {
            first.remove().cancel();
        }
        may
    }
}

impl<R: Copy + Ord> Guest<R> {
    /// It has this rank from now on, also if it had it before.
    pub fn rank(&self, rank: R) {
        let mut inner = lock(&self.crowd.inner);
        let mut place = lock(&self.place);
        // It may have been sent away meanwhile.
        if let Some(sent_away) = inner.guests.remove(&place) {
            *place = inner.put(rank, sent_away);
        }
    }

    /// Completes when its place is needed for another guest.
    pub fn sent_away(&self) -> WaitForCancellationFutureOwned {
        self.sent_away.clone().cancelled_owned()
    }
}

impl<R: Copy + Ord> Drop for Guest<R> {
    fn drop(&mut self) {
        lock(&self.crowd.inner).guests.remove(&lock(&self.place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sent_away<R: Copy + Ord>(guest: &Guest<R>) -> bool {
        guest.sent_away.is_cancelled()
    }

    #[test]
    fn the_lowest_rank_makes_room_and_in_it_the_guest_that_has_had_it_for_longest() {
        let crowd = Arc::<Crowd<u8>>::default();
        let [one, two, three] = [(); 3].map(|()| crowd.enter());
        one.rank(1);
        two.rank(1);
        one.rank(1);
        let next = crowd.enter_among(3, |_| true).expect("room");
        assert!(is_sent_away(&three) && !is_sent_away(&two));
        next.rank(1);
        assert!(crowd.send_first_away());
        assert!(is_sent_away(&two) && !is_sent_away(&one));
    }

    #[test]
    fn nobody_enters_where_nobody_may_be_sent_away() {
        let crowd = Arc::<Crowd<u8>>::default();
        let one = crowd.enter();
        one.rank(1);
        assert!(crowd.enter_among(1, |rank| rank < 1).is_none());
        one.rank(0);
        assert!(crowd.enter_among(1, |rank| rank < 1).is_some());
        assert!(is_sent_away(&one));
    }

    #[test]
    fn a_guest_that_is_sent_away_or_dropped_has_no_place_any_more() {
        let crowd = Arc::<Crowd<u8>>::default();
        let [one, two] = [(); 2].map(|()| crowd.enter());
        assert!(crowd.send_first_away());
        one.rank(1);
        assert!(is_sent_away(&one));
        drop(one);
        assert_eq!(lock(&crowd.inner).guests.len(), 1);
        drop(two);
        assert!(!crowd.send_first_away(), "nobody is left");
    }
}
