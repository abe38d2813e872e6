//! One worker's part of the gate: a word, and what may be done to it.
//!
//! `tests/loom` compiles this file with loom's atomics and tries every interleaving.

use super::atomic::{AtomicU64, Ordering};

const CLOSED: u64 = 1 << 63;

/// The top bit says closed, the rest counts requests in flight. Aligned so that no two shards
/// share a cache line (or a pair of lines fetched together).
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard {
    word: AtomicU64,
}

impl Shard {
    /// Open and empty.
    pub(super) fn new() -> Self {
        Shard { word: AtomicU64::new(0) }
    }

    /// Admits one request, unless closed, in one atomic step.
    #[inline]
    pub(super) fn enter(&self) -> bool {
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen & CLOSED == 0 {
            match self.word.compare_exchange_weak(
                seen,
                seen + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Counts more, next to one that was admitted and has not left.
    #[inline]
    pub(super) fn add(&self, more: u32) {
        self.word.fetch_add(u64::from(more), Ordering::AcqRel);
    }

    /// True when a closed shard has become empty by this.
    #[inline]
    pub(super) fn leave(&self, over: u32) -> bool {
        let before = self.word.fetch_sub(u64::from(over), Ordering::AcqRel);
        over > 0 && before == CLOSED | u64::from(over)
    }

    /// Refuses new requests.
    pub(super) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Admits new requests. A session that is admitted sees what was done before this.
    pub(super) fn open(&self) {
        self.word.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> u64 {
        self.word.load(Ordering::Acquire) & !CLOSED
    }
}
