//! Requests of the client that have gone up, or are about to, and that are not answered: byte for byte, so that
//! they can be sent again. Pure.

use std::cell::Cell;
use std::ops::Range;

use crate::command::only_reads;
use crate::resp::Args;
use crate::resp::request::{Limits, Scanner, Step};

/// Bytes that are kept of one client.
const MAX: usize = 64 * 1024;

/// Bytes that a thread keeps for the next client that sends something.
const MAX_SPARE: usize = 8 * 1024;

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The client's requests, as they were sent, of which the last ones are not answered. Holds no memory once all
/// are answered.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    bytes: Vec<u8>,
    /// They were too many: they are not known before all are answered.
    is_too_much: bool,
}

/// One request that is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Where it is among the bytes.
    pub(super) at: Range<usize>,
    /// It only reads.
    pub(super) reads: bool,
}

impl Unanswered {
    /// Adds whole requests; `owed` says of how many, before these, the replies are still to come.
    #[inline]
    pub(super) fn push(&mut self, requests: &[u8], owed: impl FnOnce() -> usize) {
        if self.bytes.len() + requests.len() > MAX {
            self.make_room(requests.len(), owed());
        }
        if !self.is_too_much {
            if self.bytes.capacity() == 0 {
                self.bytes = SPARE.take();
            }
            self.bytes.extend_from_slice(requests);
        }
    }

    /// A request goes up as it comes.
    pub(super) fn push_part(&mut self) {
        *self = Unanswered { bytes: Vec::new(), is_too_much: true };
    }

    /// All are answered.
    #[inline]
    pub(super) fn clear(&mut self) {
        if !self.bytes.is_empty() || self.is_too_much {
            let mut bytes = std::mem::take(&mut self.bytes);
            self.is_too_much = false;
            if bytes.capacity() <= MAX_SPARE {
                bytes.clear();
                SPARE.set(bytes);
            }
        }
    }

    /// The last `owed` requests; `None` if they are not known.
    pub(super) fn last(&self, owed: usize) -> Option<Vec<Request>> {
        if self.is_too_much {
            return None;
        }
        let mut requests = self.requests()?;
        let answered = requests.len().checked_sub(owed)?;
        Some(requests.split_off(answered))
    }

    /// The last one will not be sent again like this.
    pub(super) fn take_back(&mut self) {
        match self.last(1).as_deref() {
            Some([last]) => self.bytes.truncate(last.at.start),
            _ => self.push_part(),
        }
    }

    /// The bytes at this place.
    pub(super) fn bytes(&self, at: Range<usize>) -> &[u8] {
        &self.bytes[at]
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all that were answered.
    fn make_room(&mut self, more: usize, owed: usize) {
        let begin = match self.last(owed).as_deref() {
            Some([first, ..]) => first.at.start,
            Some([]) => self.bytes.len(),
            None => 0,
        };
        self.bytes.drain(..begin);
        if self.bytes.len() + more > MAX {
            self.push_part();
        }
    }

    fn requests(&self) -> Option<Vec<Request>> {
        let mut scanner = Scanner::new(Limits::FULL);
        let (mut pos, mut begin) = (0, 0);
        let mut requests = Vec::new();
        while pos < self.bytes.len() {
            match scanner.next(&self.bytes, &mut pos) {
                Ok(Step::Head { .. }) => scanner.report_end(),
                Ok(Step::End) => {
                    let sub = Args::new(&self.bytes[begin..pos]).nth(1);
                    let reads = only_reads(scanner.name(), sub);
                    requests.push(Request { at: begin..pos, reads });
                    begin = pos;
                }
                // They were looked at when they came.
                Ok(Step::More | Step::Empty | Step::Inline) | Err(_) => return None,
            }
        }
        Some(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::encode;

    /// Which of the last requests only read.
    fn reads(unanswered: &Unanswered, owed: usize) -> Option<Vec<bool>> {
        unanswered.last(owed).map(|requests| requests.iter().map(|it| it.reads).collect())
    }

    #[test]
    fn the_last_requests_are_those_that_are_owed() {
        let mut unanswered = Unanswered::default();
        assert_eq!(reads(&unanswered, 0), Some(Vec::new()));
        assert_eq!(reads(&unanswered, 1), None, "more than there are");
        unanswered.push(&encode::request(["GET", "a"]), || 0);
        let two = [encode::request(["Set", "b", "1"]), encode::request(["MGET", "c"])].concat();
        unanswered.push(&two, || 1);
        assert_eq!(reads(&unanswered, 2), Some(vec![false, true]));
        let last = unanswered.last(1).expect("known").remove(0);
        assert_eq!(unanswered.bytes(last.at), encode::request(["MGET", "c"]));
        unanswered.clear();
        assert_eq!((reads(&unanswered, 1), unanswered.bytes.capacity()), (None, 0));
    }

    #[test]
    fn no_more_is_kept_than_the_limit_however_long_a_client_goes_on() {
        let mut unanswered = Unanswered::default();
        let request = encode::request(["SET", "k", &"v".repeat(1000)]);
        for _ in 0..1000 {
            unanswered.push(&request, || 3);
            assert!(unanswered.bytes.len() <= MAX);
        }
        assert_eq!(reads(&unanswered, 3), Some(vec![false; 3]));
        for _ in 0..1000 {
            unanswered.push(&request, || 1000);
        }
        assert_eq!(reads(&unanswered, 1), None, "too many are owed");
        assert_eq!(unanswered.bytes.capacity(), 0);
        unanswered.clear();
        unanswered.push(&request, || 0);
        assert_eq!(reads(&unanswered, 1), Some(vec![false]));
        unanswered.push_part();
        assert_eq!(reads(&unanswered, 1), None, "one that goes up as it comes");
    }
}
