//! Which sessions there are, so that each can be woken and told something.
//!
//! A session looks here when there is *news*: one number, read with every request that enters the
//! gate, tells whether there may be some.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::lock::lock;

/// The sessions of one process, and what `O` each was told and has not read.
pub struct Roster<O> {
    /// One for each worker.
    shards: Box<[Mutex<Slab<Entry<O>>>]>,
    news: AtomicU64,
}

struct Entry<O> {
    waker: Waker,
    orders: Vec<O>,
    facets: Arc<AtomicU32>,
}

impl<O> fmt::Debug for Roster<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("sessions", &self.len()).finish_non_exhaustive()
    }
}

impl<O> Roster<O> {
    /// An empty one.
    pub fn new(shards: usize) -> Arc<Self> {
        let shards = (0..shards.max(1)).map(|_| Mutex::new(Slab::new())).collect();
        Arc::new(Roster { shards, news: AtomicU64::new(1) })
    }

    /// Adds a session, which `waker` wakes, until the member is dropped.
    pub fn enrol(self: &Arc<Self>, shard: usize, waker: Waker) -> Member<O> {
        let shard = shard % self.shards.len();
        let facets = Arc::<AtomicU32>::default();
        let entry = Entry { waker, orders: Vec::new(), facets: facets.clone() };
        let key = self.shard(shard).insert(entry);
        Member { roster: self.clone(), shard, key, seen: 0, facets }
    }

    /// The facets of all sessions.
    pub fn facets(&self) -> Vec<u32> {
        let shards = 0..self.shards.len();
        let of = |shard| -> Vec<u32> {
            self.shard(shard)
                .iter()
                .map(|(_, entry)| entry.facets.load(Ordering::Relaxed))
                .collect()
        };
        shards.flat_map(of).collect()
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        (0..self.shards.len()).map(|shard| self.shard(shard).len()).sum()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// There is news for all; those who are awake will see it. What was done before this, they see.
    pub fn announce(&self) {
        self.news.fetch_add(1, Ordering::Release);
    }

    /// There is news, and all are woken for it.
    pub fn wake_all(&self) {
        self.announce();
        for shard in 0..self.shards.len() {
            for (_, entry) in self.shard(shard).iter() {
                entry.waker.wake_by_ref();
            }
        }
    }

    /// Tells every session that exists now, but no more than `at_once` before one of these has
    /// dropped its permit. Completes when all permits were dropped, or once `stop` says so.
    pub async fn tell_each(
        &self,
        at_once: u32,
        stop: impl Fn() -> bool,
        order: impl Fn(OwnedSemaphorePermit) -> O,
    ) {
        self.tell_some(|_| true, at_once, stop, order).await;
    }

    /// Tells those sessions whose facets are wanted, as [`Roster::tell_each`] does.
    pub async fn tell_some(
        &self,
        wanted: impl Fn(u32) -> bool,
        at_once: u32,
        stop: impl Fn() -> bool,
        order: impl Fn(OwnedSemaphorePermit) -> O,
    ) {
        let permits = Arc::new(Semaphore::new(at_once as usize));
        for shard in 0..self.shards.len() {
            let is_wanted = |entry: &Entry<O>| wanted(entry.facets.load(Ordering::Relaxed));
            let keys: Vec<usize> = self
                .shard(shard)
                .iter()
                .filter(|(_, entry)| is_wanted(entry))
                .map(|(key, _)| key)
                .collect();
            for key in keys {
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                if stop() {
                    return;
                }
                if let Some(entry) = self.shard(shard).get_mut(key) {
                    entry.orders.push(order(permit));
                    self.announce();
                    entry.waker.wake_by_ref();
                }
            }
        }
        // Never closed, so never an error.
        let _ = permits.acquire_many(at_once).await;
    }

    fn shard(&self, shard: usize) -> MutexGuard<'_, Slab<Entry<O>>> {
        lock(&self.shards[shard])
    }
}

/// A session's place in the roster.
pub struct Member<O> {
    roster: Arc<Roster<O>>,
    shard: usize,
    key: usize,
    /// The news it knows.
    seen: u64,
    facets: Arc<AtomicU32>,
}

impl<O> Member<O> {
    /// Whether there was news since the last [`Member::read_news`].
    #[inline]
    pub fn has_news(&self) -> bool {
        self.roster.news.load(Ordering::Acquire) != self.seen
    }

    /// What this session is like, for those who look for such; what the bits mean is theirs. Gives
    /// what it was like before.
    #[inline]
    pub fn set_facets(&self, facets: u32) -> u32 {
        // Nobody else writes it.
        let before = self.facets.load(Ordering::Relaxed);
        self.facets.store(facets, Ordering::Relaxed);
        before
    }

    /// Takes note of the news, and takes what this session was told, in order.
    pub fn read_news(&mut self) -> Vec<O> {
        self.seen = self.roster.news.load(Ordering::Acquire);
        let mut shard = self.roster.shard(self.shard);
        shard.get_mut(self.key).map(|entry| std::mem::take(&mut entry.orders)).unwrap_or_default()
    }
}

impl<O> Drop for Member<O> {
    fn drop(&mut self) {
        // What it was told and did not do is dropped outside of the lock.
        let _entry = self.roster.shard(self.shard).try_remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told = OwnedSemaphorePermit;

    #[tokio::test]
    async fn each_is_told_once_and_no_more_than_some_at_once() {
        let roster = Roster::<Told>::new(2);
        let mut members: Vec<_> =
            (0..10).map(|shard| roster.enrol(shard, Waker::noop().clone())).collect();
        let telling = tokio::spawn({
            let roster = roster.clone();
            async move { roster.tell_each(3, || false, |permit| permit).await }
        });
        let mut told = 0;
        while told < members.len() {
            tokio::task::yield_now().await;
            let orders: Vec<_> = members.iter_mut().flat_map(Member::read_news).collect();
            assert!(orders.len() <= 3);
            told += orders.len();
        }
        telling.await.expect("complete");
        assert!(members.iter_mut().all(|member| member.read_news().is_empty()));
    }

    #[tokio::test]
    async fn what_is_told_by_two_at_once_is_all_heard() {
        let roster = Roster::<Told>::new(1);
        let mut member = roster.enrol(0, Waker::noop().clone());
        let tell = || {
            let roster = roster.clone();
            tokio::spawn(async move { roster.tell_each(1, || false, |permit| permit).await })
        };
        let (one, two) = (tell(), tell());
        tokio::task::yield_now().await;
        assert_eq!(member.read_news().len(), 2);
        let (one, two) = (one.await, two.await);
        assert!(one.is_ok() && two.is_ok());
    }

    #[tokio::test]
    async fn a_session_that_ends_is_not_waited_for() {
        let roster = Roster::<Told>::new(1);
        let member = roster.enrol(0, Waker::noop().clone());
        let telling = tokio::spawn({
            let roster = roster.clone();
            async move { roster.tell_each(1, || false, |permit| permit).await }
        });
        tokio::task::yield_now().await;
        drop(member);
        telling.await.expect("complete");
        assert!(roster.is_empty());
    }

    #[tokio::test]
    async fn only_those_with_the_facet_are_told() {
        let roster = Roster::<()>::new(2);
        let mut members: Vec<_> =
            (0..4).map(|shard| roster.enrol(shard, Waker::noop().clone())).collect();
        members[1].set_facets(2);
        members[2].set_facets(3);
        roster.tell_some(|facets| facets & 2 > 0, 8, || false, |_| ()).await;
        let told: Vec<usize> = members.iter_mut().map(|it| it.read_news().len()).collect();
        assert_eq!(told, [0, 1, 1, 0]);
        assert_eq!(roster.facets().iter().sum::<u32>(), 5);
    }

    #[test]
    fn news_is_new_once() {
        let roster = Roster::<()>::new(1);
        let mut member = roster.enrol(0, Waker::noop().clone());
        assert!(member.has_news(), "what was said before it came is news to it");
        member.read_news();
        assert!(!member.has_news());
        roster.announce();
        assert!(member.has_news());
    }
}
