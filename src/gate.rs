//! The gate between clients and uplinks: requests share it, a pause takes it alone.
//!
//! It has one shard for each worker, so that admission touches no cache line that another core
//! writes. A shard is one word: the top bit says closed, the rest counts requests in flight.
//! Admission looks at the bit and counts in one atomic step; so once all shards are closed and
//! all counts are zero, nothing is in flight and nothing can come.
//!
//! The gate knows no IO, no configuration and no RESP.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

const CLOSED: u64 = 1 << 63;

/// The gate of one process.
#[derive(Debug)]
pub struct Gate {
    shards: Box<[Arc<Shard>]>,
    /// Holds that exist; the gate is open when there are none.
    holds: Mutex<usize>,
    /// A closed shard has become empty.
    drained: Arc<Notify>,
    /// The last hold was dropped.
    opened: Notify,
}

/// Aligned so that no two shards share a cache line (or a pair of lines fetched together).
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    word: AtomicU64,
    drained: Arc<Notify>,
}

impl Gate {
    /// An open gate with this many shards.
    pub fn new(shards: usize) -> Arc<Gate> {
        let drained = Arc::new(Notify::new());
        let shard = || Arc::new(Shard { word: AtomicU64::new(0), drained: drained.clone() });
        Arc::new(Gate {
            shards: (0..shards.max(1)).map(|_| shard()).collect(),
            holds: Mutex::new(0),
            drained,
            opened: Notify::new(),
        })
    }

    /// A session's access, through one of the shards.
    pub fn passes(self: &Arc<Gate>, shard: usize) -> Passes {
        Passes { shard: self.shards[shard % self.shards.len()].clone(), held: 0 }
    }

    /// Shuts the gate to new requests until the hold is dropped. Holds do not undo one another.
    pub fn pause(self: &Arc<Gate>) -> Hold {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        *holds += 1;
        if *holds == 1 {
            for shard in &self.shards {
                shard.word.fetch_or(CLOSED, Ordering::AcqRel);
            }
        }
        Hold { gate: self.clone() }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.word.load(Ordering::Acquire) & !CLOSED).sum()
    }

    /// Completes when the gate is open.
    pub async fn opened(&self) {
        loop {
            let opened = self.opened.notified();
            if *self.holds.lock().unwrap_or_else(PoisonError::into_inner) == 0 {
                return;
            }
            opened.await;
        }
    }
}

/// The right of one session to have requests in flight, and how many it has. Dropping it gives
/// them all back.
#[derive(Debug)]
pub struct Passes {
    shard: Arc<Shard>,
    held: u32,
}

impl Passes {
    /// Admits one new request, or refuses it because the gate is shut.
    #[inline]
    pub fn enter(&mut self) -> bool {
        let word = &self.shard.word;
        let mut seen = word.load(Ordering::Relaxed);
        while seen & CLOSED == 0 {
            match word.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    self.held += 1;
                    return true;
                }
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Counts requests that came together with an admitted one that is still in flight.
    #[inline]
    pub fn add(&mut self, more: u32) {
        debug_assert!(self.held > 0, "only next to a request that was admitted");
        self.shard.word.fetch_add(u64::from(more), Ordering::AcqRel);
        self.held += more;
    }

    /// These requests are over.
    #[inline]
    pub fn leave(&mut self, over: u32) {
        debug_assert!(over <= self.held);
        self.held -= over;
        let before = self.shard.word.fetch_sub(u64::from(over), Ordering::AcqRel);
        if before == CLOSED | u64::from(over) {
            self.shard.drained.notify_waiters();
        }
    }

    /// Requests that this session has in flight.
    pub fn held(&self) -> u32 {
        self.held
    }
}

impl Drop for Passes {
    fn drop(&mut self) {
        if self.held > 0 {
            self.leave(self.held);
        }
    }
}

/// Keeps the gate shut for as long as it lives.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Gate>,
}

impl Hold {
    /// Completes when no request is in flight. Cancel safe.
    pub async fn quiesced(&self) {
        loop {
            let drained = self.gate.drained.notified();
            if self.gate.in_flight() == 0 {
                return;
            }
            drained.await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.gate.holds.lock().unwrap_or_else(PoisonError::into_inner);
        *holds -= 1;
        if *holds == 0 {
            for shard in &self.gate.shards {
                shard.word.fetch_and(!CLOSED, Ordering::AcqRel);
            }
            self.gate.opened.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn ready(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_pause_refuses_new_requests_and_waits_for_running_ones() {
        let gate = Gate::new(2);
        let (mut one, mut two) = (gate.passes(0), gate.passes(1));
        assert!(one.enter() && two.enter());
        one.add(2);
        let hold = gate.pause();
        assert!(!one.enter() && !two.enter());
        assert_eq!(gate.in_flight(), 4);

        let mut quiesced = pin!(hold.quiesced());
        let mut context = Context::from_waker(Waker::noop());
        assert!(quiesced.as_mut().poll(&mut context).is_pending());
        one.leave(3);
        assert!(quiesced.as_mut().poll(&mut context).is_pending());
        two.leave(1);
        assert!(quiesced.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn holds_do_not_undo_one_another() {
        let gate = Gate::new(1);
        let mut passes = gate.passes(0);
        let (first, second) = (gate.pause(), gate.pause());
        drop(first);
        assert!(!passes.enter());
        assert!(!ready(gate.opened()));
        drop(second);
        assert!(ready(gate.opened()));
        assert!(passes.enter());
    }

    #[test]
    fn a_session_that_is_dropped_gives_its_passes_back() {
        let gate = Gate::new(1);
        let mut passes = gate.passes(0);
        assert!(passes.enter());
        passes.add(6);
        assert_eq!(passes.held(), 7);
        drop(passes);
        assert_eq!(gate.in_flight(), 0);
    }

    #[test]
    fn a_parked_session_is_woken_when_the_gate_opens() {
        let gate = Gate::new(1);
        let hold = gate.pause();
        let mut opened = pin!(gate.opened());
        let mut context = Context::from_waker(Waker::noop());
        assert!(opened.as_mut().poll(&mut context).is_pending());
        drop(hold);
        assert!(opened.as_mut().poll(&mut context).is_ready());
    }
}
