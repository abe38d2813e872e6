//! The gate between clients and uplinks: requests share it, a pause takes it alone.
//!
//! It has one shard for each worker, so that admission touches no cache line that another core
//! writes. Admission looks whether the shard is closed and counts in one atomic step; so once all
//! shards are closed and all counts are zero, nothing is in flight and nothing can come.
//!
//! The gate knows no IO, no configuration and no RESP.

mod atomic;
mod shard;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout_at};

use self::shard::Shard;
use crate::lock::lock;

/// The gate of one process.
#[derive(Debug)]
pub struct Gate {
    shards: Box<[Arc<Shard>]>,
    /// Holds that exist; the gate is open when there are none.
    holds: Mutex<usize>,
    /// A closed shard has become empty.
    drained: Notify,
    /// The last hold was dropped.
    opened: Arc<Notify>,
    waiting: AtomicU64,
}

impl Gate {
    /// An open gate with this many shards.
    pub fn new(shards: usize) -> Arc<Gate> {
        Arc::new(Gate {
            shards: (0..shards.max(1)).map(|_| Arc::new(Shard::new())).collect(),
            holds: Mutex::new(0),
            drained: Notify::new(),
            opened: Arc::default(),
            waiting: AtomicU64::new(0),
        })
    }

    /// A session's access, through one of the shards.
    pub fn passes(self: &Arc<Gate>, shard: usize) -> Passes {
        let shard = self.shards[shard % self.shards.len()].clone();
        Passes { gate: self.clone(), shard, held: 0 }
    }

    /// Shuts the gate to new requests until the hold is dropped. Holds do not undo one another.
    pub fn pause(self: &Arc<Gate>) -> Hold {
        let mut holds = self.holds();
        *holds += 1;
        if *holds == 1 {
            self.shards.iter().for_each(|shard| shard.close());
        }
        Hold { gate: self.clone() }
    }

    /// Completes when the gate is open. Counts as waiting for as long as it exists.
    pub fn wait(self: &Arc<Gate>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { notified: Box::pin(self.opened.clone().notified_owned()), gate: self.clone() }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.in_flight()).sum()
    }

    /// Sessions that wait with a request for the gate to open.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// No hold exists.
    pub fn is_open(&self) -> bool {
        self.held() == 0
    }

    /// How many holds exist.
    pub fn held(&self) -> usize {
        *self.holds()
    }

    async fn quiesced(&self) {
        loop {
            let drained = self.drained.notified();
            if self.in_flight() == 0 {
                return;
            }
            drained.await;
        }
    }

    fn holds(&self) -> MutexGuard<'_, usize> {
        lock(&self.holds)
    }
}

/// The gate is shut: the request waits until it opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateShut;

/// The right of one session to have requests in flight, and how many it has. Dropping it gives
/// them all back.
#[derive(Debug)]
pub struct Passes {
    gate: Arc<Gate>,
    shard: Arc<Shard>,
    held: u32,
}

impl Passes {
    /// Admits one new request.
    ///
    /// # Errors
    ///
    /// The gate is shut.
    #[inline]
    pub fn enter(&mut self) -> Result<(), GateShut> {
        if !self.shard.enter() {
            return Err(GateShut);
        }
        self.held += 1;
        Ok(())
    }

    /// Counts requests that came together with an admitted one that is still in flight.
    #[inline]
    pub fn add(&mut self, more: u32) {
        debug_assert!(self.held > 0, "only next to a request that was admitted");
        self.shard.add(more);
        self.held += more;
    }

    /// These requests are over.
    #[inline]
    pub fn leave(&mut self, over: u32) {
        debug_assert!(over <= self.held);
        self.held -= over;
        if self.shard.leave(over) {
            self.gate.drained.notify_waiters();
        }
    }

    /// Requests that this session has in flight.
    pub fn held(&self) -> u32 {
        self.held
    }
}

impl Drop for Passes {
    fn drop(&mut self) {
        self.leave(self.held);
    }
}

/// A session that waits at the gate with a request.
#[derive(Debug)]
pub struct Waiting {
    gate: Arc<Gate>,
    notified: Pin<Box<OwnedNotified>>,
}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // Looked at before the gate is, so that an opening in between is heard of.
            let heard = self.notified.as_mut().poll(cx).is_ready();
            if self.gate.is_open() {
                return Poll::Ready(());
            }
            if !heard {
                return Poll::Pending;
            }
            // It opened, and is shut again.
            let notified = self.gate.opened.clone().notified_owned();
            self.notified.set(notified);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps the gate shut for as long as it lives.
#[derive(Debug)]
pub struct Hold {
    gate: Arc<Gate>,
}

impl Hold {
    /// Completes when no request is in flight. The future does not keep the gate shut: whoever
    /// drops the hold must drop the future, too. Cancel safe.
    pub fn quiesced(&self) -> impl Future<Output = ()> + Send + use<> {
        let gate = self.gate.clone();
        async move { gate.quiesced().await }
    }

    /// Completes when no request is in flight, with true; with false if some are at `deadline`.
    pub fn quiesced_by(&self, deadline: Instant) -> impl Future<Output = bool> + Send + use<> {
        let quiesced = self.quiesced();
        async move { timeout_at(deadline, quiesced).await.is_ok() }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut holds = self.gate.holds();
        *holds -= 1;
        if *holds == 0 {
            self.gate.shards.iter().for_each(|shard| shard.open());
            drop(holds);
            self.gate.opened.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
