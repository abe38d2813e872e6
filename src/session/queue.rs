//! What a server has queued since MULTI, by its own word. Pure.

use std::collections::VecDeque;

use super::expected::Expected;

/// Requests that will be executed together, and what their replies mean.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Consecutive requests that await the same, and how many they are.
    runs: VecDeque<(Expected, u32)>,
    len: u32,
    bytes: usize,
}

/// A transaction that is open at the server.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) queue: Queue,
    /// A request was refused: it will not be executed.
    pub(super) aborted: bool,
}

impl Queue {
    /// Requests in it.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.bytes + size_of::<Queue>()
    }

    /// One request more.
    pub(super) fn push(&mut self, awaited: Expected) {
        self.len += 1;
        match self.runs.back_mut() {
            Some((last, count)) if last.is_like(&awaited) => *count += 1,
            _ => {
                self.bytes += awaited.size() + size_of::<(Expected, u32)>();
                self.runs.push_back((awaited, 1));
            }
        }
    }

    /// What the next reply means.
    pub(super) fn front(&self) -> Option<&Expected> {
        self.runs.front().map(|(awaited, _)| awaited)
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Expected> {
        self.runs.front_mut().map(|(awaited, _)| awaited)
    }

    /// How many of the next replies are plain.
    pub(super) fn plain(&self) -> u32 {
        match self.runs.front() {
            Some((Expected::Plain, count)) => *count,
            _ => 0,
        }
    }

    /// So many of the next replies, which are plain, have come.
    pub(super) fn pass(&mut self, count: u32) {
        self.len -= count;
        if let Some((_, left)) = self.runs.front_mut() {
            *left -= count;
            if *left == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// The next reply has come.
    pub(super) fn pop(&mut self) -> Option<Expected> {
        let (awaited, count) = self.runs.front_mut()?;
        self.len -= 1;
        *count -= 1;
        if *count > 0 {
            return Some(awaited.again());
        }
        self.runs.pop_front().map(|(awaited, _)| awaited)
    }
}
