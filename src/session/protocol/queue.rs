//! What a server has queued since MULTI, by its own word. Pure.

use std::collections::VecDeque;

/// What the reply to a queued request means.
pub trait Awaited: Sized {
    /// Whether a reply to it needs no more than to be counted.
    fn is_plain(&self) -> bool;

    /// Whether requests with these two meanings are counted together.
    fn is_like(&self, other: &Self) -> bool;

    /// The meaning of one more of the requests that are counted together.
    fn again(&self) -> Self;

    /// Bytes that it takes beside its own place.
    fn size(&self) -> usize;
}

/// Requests that will be executed together, and what their replies mean.
#[derive(Debug)]
pub struct Queue<M> {
    runs: VecDeque<Run<M>>,
    len: u32,
    bytes: usize,
}

/// Consecutive requests that await the same.
#[derive(Debug)]
struct Run<M> {
    awaited: M,
    count: u32,
}

/// A transaction that is open at the server.
#[derive(Debug)]
pub struct Open<M> {
    pub queue: Queue<M>,
    /// A request was refused: it will not be executed.
    pub aborted: bool,
}

impl<M> Default for Queue<M> {
    fn default() -> Self {
        Queue { runs: VecDeque::new(), len: 0, bytes: 0 }
    }
}

impl<M> Default for Open<M> {
    fn default() -> Self {
        Open { queue: Queue::default(), aborted: false }
    }
}

impl<M: Awaited> Queue<M> {
    /// Requests in it.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.bytes + size_of::<Self>()
    }

    /// One request more.
    pub fn push(&mut self, awaited: M) {
        self.len += 1;
        match self.runs.back_mut() {
            Some(last) if last.awaited.is_like(&awaited) => last.count += 1,
            _ => {
                self.bytes += awaited.size() + size_of::<Run<M>>();
                self.runs.push_back(Run { awaited, count: 1 });
            }
        }
    }

    /// What the next reply means.
    pub fn front(&self) -> Option<&M> {
        self.runs.front().map(|run| &run.awaited)
    }

    pub fn front_mut(&mut self) -> Option<&mut M> {
        self.runs.front_mut().map(|run| &mut run.awaited)
    }

    /// How many of the next replies are plain.
    pub fn plain(&self) -> u32 {
        match self.runs.front() {
            Some(run) if run.awaited.is_plain() => run.count,
            _ => 0,
        }
    }

    /// Removes so many plain replies.
    pub fn pass(&mut self, count: u32) {
        self.len -= count;
        if let Some(run) = self.runs.front_mut() {
            run.count -= count;
            if run.count == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// The next reply has come.
    pub fn pop(&mut self) -> Option<M> {
        let run = self.runs.front_mut()?;
        self.len -= 1;
        run.count -= 1;
        if run.count > 0 {
            return Some(run.awaited.again());
        }
        self.runs.pop_front().map(|run| run.awaited)
    }
}
