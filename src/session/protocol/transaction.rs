//! MULTI: what was queued, so that it can be begun again on another uplink. Pure.

use std::collections::BTreeSet;

/// Bytes of requests that are kept for one transaction. Nothing of it was executed yet, so with
/// them it can be begun again on another uplink.
pub const MAX_KEPT: usize = 1024 * 1024;
/// What a request costs beyond its bytes.
const OVERHEAD: usize = 64;
/// Bytes of what is remembered of the meaning of one transaction's requests.
const MAX_NOTED: usize = 1024 * 1024;

/// An open transaction.
#[derive(Debug, Default)]
pub struct Transaction {
    /// What was sent since MULTI, while it is not too much.
    frames: Vec<Frame>,
    bytes: usize,
    /// Only the old uplink can finish it: it is too much, or not known.
    pub pinned: bool,
    /// Bytes that the meaning of its requests takes.
    noted: usize,
    /// Databases that it will choose.
    databases: BTreeSet<u32>,
}

/// The meaning of a transaction's requests takes more memory than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

/// One request of a transaction.
#[derive(Debug)]
pub struct Frame {
    pub bytes: Box<[u8]>,
    pub fate: Fate,
}

/// What becomes of a request in a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is executed with the others.
    Queued,
    /// It is refused, as MULTI. What that does to the transaction depends on the server's version.
    Refused,
}

impl Transaction {
    /// One of which nobody knows what was queued.
    pub fn unknown() -> Box<Self> {
        Box::new(Transaction { pinned: true, ..Transaction::default() })
    }

    /// Remembers that the meaning of a request takes so many bytes.
    ///
    /// # Errors
    ///
    /// More is remembered than may be.
    pub fn note(&mut self, size: usize) -> Result<(), TooMuch> {
        // What is plain is only counted.
        let size = if size == 0 { 0 } else { size + OVERHEAD };
        self.noted += size;
        if self.noted <= MAX_NOTED { Ok(()) } else { Err(TooMuch) }
    }

    pub fn note_database(&mut self, db: u32) {
        self.databases.insert(db);
    }

    /// How long a request may be to be kept.
    pub fn room(&self) -> usize {
        if self.pinned { 0 } else { MAX_KEPT.saturating_sub(self.bytes + OVERHEAD) }
    }

    /// One request more; `frame` is `None` if it was not kept.
    pub fn push(&mut self, frame: Option<&[u8]>, fate: Fate) {
        match frame {
            Some(frame) if frame.len() <= self.room() => {
                self.bytes += frame.len() + OVERHEAD;
                self.frames.push(Frame { bytes: frame.into(), fate });
            }
            _ => {
                self.pinned = true;
                self.frames = Vec::new();
            }
        }
    }

    /// The transaction without its first requests: only the last `count` belong to it.
    pub fn since(mut self: Box<Self>, count: usize) -> Box<Self> {
        match self.frames.len().checked_sub(count) {
            Some(others) if !self.pinned => {
                let freed = self.frames.drain(..others).map(|it| it.bytes.len() + OVERHEAD);
                self.bytes -= freed.sum::<usize>();
                self
            }
            _ => Transaction::unknown(),
        }
    }

    /// Databases that it will choose.
    pub fn databases(&self) -> &BTreeSet<u32> {
        &self.databases
    }

    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }
}
