//! Replies by which a server refuses requests that another would execute: it is a replica now, or has no data yet.
//! Nothing of them goes down before it is known what came of everything that was sent behind. Pure.

use super::protocol::expected::Expected;
use super::protocol::pending::Pending;
use super::unanswered::Request;
use crate::resp::reply::{Scanner, Step};

/// How such replies begin. Nothing was executed.
const REFUSALS: [&[u8]; 3] = [b"-READONLY ", b"-LOADING ", b"-MASTERDOWN "];
/// Bytes of replies that are kept.
const MAX: usize = 64 * 1024;

/// Replies of which the first one is a refusal.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) bytes: Vec<u8>,
    scanner: Scanner,
    pos: usize,
    /// The requests that these replies answer.
    requests: Vec<Request>,
    /// How many were answered, none of which need count: they were refused, or have only read.
    pub(super) answered: usize,
}

/// What the replies say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// There are more to come.
    More,
    /// All requests were refused, or have only read: they can be asked of another server.
    Nothing,
    /// Something was executed behind a refusal, or it is no refusal: the client gets the replies as they are.
    Something,
}

/// Whether a reply that begins with these bytes is a refusal, or may become one.
pub(super) fn may_refuse(reply: &[u8]) -> bool {
    REFUSALS.iter().any(|text| reply.starts_with(text) || text.starts_with(reply))
}

impl Refused {
    /// The replies to these requests, none of which has come.
    pub(super) fn new(requests: Vec<Request>) -> Self {
        let mut scanner = Scanner::default();
        scanner.set_peek(true);
        Refused { bytes: Vec::new(), scanner, pos: 0, requests, answered: 0 }
    }

    /// Adds what has come; `pending` knows what each request awaits.
    pub(super) fn hear(&mut self, input: &[u8], pending: &Pending) -> Said {
        self.bytes.extend_from_slice(input);
        if self.bytes.len() > MAX {
            return Said::Something;
        }
        let mut awaited = pending.owed().skip(self.answered);
        while self.pos < self.bytes.len() {
            let kind = match self.scanner.next(&self.bytes, &mut self.pos) {
                Ok(Step::End { kind }) => kind,
                Ok(Step::More) => break,
                Err(_) => return Said::Something,
            };
            let (Some(request), Some(awaited)) = (self.requests.get(self.answered), awaited.next())
            else {
                return Said::Something;
            };
            let text = self.scanner.first_text();
            let is_refused = kind == b'-' && refuses(text);
            let is_first = self.answered == 0;
            let is_nothing = is_refused
                || match awaited {
                    _ if is_first || kind == b'>' => false,
                    Expected::Plain => request.reads,
                    // What was queued is executed by EXEC.
                    Expected::Multi | Expected::Queued(_) => true,
                    Expected::Exec => kind == b'-' && text.starts_with(b"EXECABORT"),
                    _ => false,
                };
            if !is_nothing {
                return Said::Something;
            }
            self.answered += 1;
        }
        if self.answered == self.requests.len() { Said::Nothing } else { Said::More }
    }
}

fn refuses(text: &[u8]) -> bool {
    REFUSALS.iter().any(|refusal| text.starts_with(&refusal[1..]))
}
