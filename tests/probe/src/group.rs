//! The threads of one kind of client, and what they hand back.

use std::thread::{self, JoinHandle};

use super::ledger::Faults;
use super::tally::Tally;

/// What one client did, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Part {
    /// What it did.
    pub tally: Tally,
    /// What is wrong.
    pub faults: Faults,
}

impl Part {
    /// Adds another's.
    pub fn add(&mut self, other: Part) {
        self.tally.add(&other.tally);
        self.faults.add(other.faults);
    }
}

/// Clients that hand back a [`Part`], or more than that.
#[derive(Debug)]
pub struct Group<T = Part> {
    threads: Vec<JoinHandle<T>>,
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Group { threads: Vec::new() }
    }
}

impl<T: Send + 'static> Group<T> {
    /// One more client.
    pub fn spawn(&mut self, client: impl FnOnce() -> T + Send + 'static) {
        self.threads.push(thread::spawn(client));
    }

    /// They need not be waited for any more.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for all. One that panicked has said why, and counts as an error in `part`.
    pub fn join(self, part: &mut Part) -> Vec<T> {
        let mut done = Vec::new();
        for thread in self.threads {
            match thread.join() {
                Ok(it) => done.push(it),
                Err(_) => part.tally.note_error("a client panicked".to_owned()),
            }
        }
        done
    }
}

impl Group<Part> {
    /// Waits for all, and adds them up.
    pub fn sum(self) -> Part {
        let mut sum = Part::default();
        for part in self.join(&mut sum) {
            sum.add(part);
        }
        sum
    }
}
