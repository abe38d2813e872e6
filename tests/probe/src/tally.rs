//! What one client did, and how long it took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Different errors that are kept in words, for each client.
const ERRORS: usize = 5;

/// What all clients have done so far, for who looks on.
#[derive(Debug, Default)]
pub struct Live {
    operations: AtomicU64,
    errors: AtomicU64,
    wrong: AtomicU64,
    longest: AtomicU64,
    lately: AtomicU64,
}

/// What all clients had done when it was asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Operations that were answered.
    pub operations: u64,
    /// Errors.
    pub errors: u64,
    /// What is known already to be lost, doubled, or out of order.
    pub wrong: u64,
    /// The longest that one operation took.
    pub longest: Duration,
}

impl Live {
    /// As it is now.
    pub fn progress(&self) -> Progress {
        Progress {
            operations: self.operations.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            wrong: self.wrong.load(Ordering::Relaxed),
            longest: Duration::from_micros(self.longest.load(Ordering::Relaxed)),
        }
    }

    /// The longest that one operation took since this was last asked.
    pub fn longest_lately(&self) -> Duration {
        Duration::from_micros(self.lately.swap(0, Ordering::Relaxed))
    }

    /// So many things more are wrong.
    pub fn wrong(&self, more: u64) {
        self.wrong.fetch_add(more, Ordering::Relaxed);
    }
}

/// What one client, or all of a kind, did.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Operations that were answered.
    pub operations: u64,
    /// Operations that ended otherwise.
    pub errors: u64,
    /// Writes of which nobody knows what became of them, because the server crashed: no errors.
    pub unknown: u64,
    /// Why there were errors, and how often.
    pub texts: BTreeMap<String, u64>,
    /// The longest that one took.
    pub longest: Duration,
    times: Times,
}

/// How often something took how many microseconds, in buckets a thirty-second wide.
#[derive(Debug, Clone, Default)]
struct Times(Vec<u64>);

impl Times {
    fn bucket(micros: u64) -> usize {
        let shift = (u64::BITS - micros.leading_zeros()).saturating_sub(6);
        shift as usize * 32 + (micros >> shift) as usize
    }

    /// The least that is in a bucket.
    fn least(bucket: usize) -> u64 {
        match bucket / 32 {
            0 | 1 => bucket as u64,
            shift => (bucket as u64 % 32 + 32) << (shift - 1),
        }
    }

    fn add(&mut self, bucket: usize, times: u64) {
        if self.0.len() <= bucket {
            self.0.resize(bucket + 1, 0);
        }
        self.0[bucket] += times;
    }

    fn median(&self) -> u64 {
        let mut left = self.0.iter().sum::<u64>().div_ceil(2);
        let middle = self.0.iter().position(|times| {
            let found = *times >= left;
            left = left.saturating_sub(*times);
            found
        });
        middle.map_or(0, Times::least)
    }
}

impl Tally {
    /// One more operation was answered.
    pub fn done(&mut self, time: Duration, live: &Live) {
        self.operations += 1;
        live.operations.fetch_add(1, Ordering::Relaxed);
        self.took(time, live);
    }

    /// One took so long.
    pub fn took(&mut self, time: Duration, live: &Live) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.times.add(Times::bucket(micros), 1);
        self.longest = self.longest.max(time);
        live.longest.fetch_max(micros, Ordering::Relaxed);
        live.lately.fetch_max(micros, Ordering::Relaxed);
    }

    /// One failed.
    pub fn failed(&mut self, why: String, live: &Live) {
        live.errors.fetch_add(1, Ordering::Relaxed);
        self.note_error(why);
    }

    /// One failed, when nobody looks on any more.
    pub fn note_error(&mut self, why: String) {
        self.errors += 1;
        self.note(why, 1);
    }

    fn note(&mut self, why: String, times: u64) {
        if self.texts.len() < ERRORS || self.texts.contains_key(&why) {
            *self.texts.entry(why).or_default() += times;
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Tally) {
        self.operations += other.operations;
        self.errors += other.errors;
        self.unknown += other.unknown;
        self.longest = self.longest.max(other.longest);
        other.texts.iter().for_each(|(why, times)| self.note(why.clone(), *times));
        for (bucket, times) in other.times.0.iter().enumerate() {
            self.times.add(bucket, *times);
        }
    }

    /// Half of all took no longer.
    pub fn median(&self) -> Duration {
        Duration::from_micros(self.times.median())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow_and_in_order() {
        for micros in (0..5000).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let bucket = Times::bucket(micros);
            let least = Times::least(bucket);
            assert!(least <= micros && micros - least <= micros / 32, "{micros}: {least}");
            assert_eq!(Times::bucket(least), bucket);
        }
    }

    #[test]
    fn half_of_all_took_no_longer_than_the_median() {
        let (mut one, mut two) = (Tally::default(), Tally::default());
        let live = Live::default();
        assert_eq!(one.median(), Duration::ZERO);
        for micros in [10, 20, 30] {
            one.done(Duration::from_micros(micros), &live);
        }
        assert_eq!(one.median(), Duration::from_micros(20));
        for micros in [40, 50] {
            two.done(Duration::from_micros(micros), &live);
        }
        one.add(&two);
        assert_eq!(
            (one.median(), one.longest),
            (Duration::from_micros(30), Duration::from_micros(50))
        );
        assert_eq!(live.progress().operations, 5);
    }
}
