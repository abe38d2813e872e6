//! How much a session reads of one side before the other sessions of its thread have their turn. Pure.

use std::time::Duration;

/// What one read may bring. One buffer of this size exists for each thread.
pub(super) const READ_BUFFER: usize = 64 * 1024;
/// Reads in one turn.
const READS: u32 = 4;
/// What was read is to be dealt with in this time. Of a side that needs more of it, less is read at once.
const SLICE: Duration = Duration::from_micros(500);
/// A shorter read is dealt with in time, whatever it brings.
const SHORT: usize = 4 * 1024;
/// The least that is read at once.
const LEAST: usize = 2 * 1024;

/// One side's turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    reads: u32,
    /// What one read may bring.
    most: usize,
}

impl Default for Turn {
    fn default() -> Self {
        Turn { reads: READS, most: READ_BUFFER }
    }
}

impl Turn {
    /// The session has its turn.
    pub(super) fn begin(&mut self) {
        self.reads = READS;
    }

    /// How much may be read now; `None` if the turn is over.
    pub(super) fn read(&mut self) -> Option<usize> {
        self.reads = self.reads.checked_sub(1)?;
        Some(self.most)
    }

    /// Whether it matters how long it takes to deal with what a read has brought.
    #[inline]
    pub(super) fn matters(&self, read: usize) -> bool {
        read >= SHORT || self.most < READ_BUFFER
    }

    /// It took so long.
    pub(super) fn took(&mut self, time: Duration) {
        if time > SLICE {
            self.reads = 0;
            self.most = (self.most / 2).max(LEAST);
        } else {
            self.most = (self.most * 2).min(READ_BUFFER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_long_is_read_less_and_has_shorter_turns() {
        let mut turn = Turn::default();
        assert_eq!([turn.read(), turn.read()], [Some(READ_BUFFER); 2]);
        for _ in 0..10 {
            turn.took(SLICE * 2);
            assert_eq!(turn.read(), None);
            turn.begin();
        }
        assert_eq!(turn.read(), Some(LEAST));
        (0..10).for_each(|_| turn.took(SLICE));
        assert_eq!([(); 3].map(|()| turn.read()), [Some(READ_BUFFER); 3]);
        assert_eq!(turn.read(), None);
    }
}
