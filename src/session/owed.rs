//! The replies that are owed to a client, in order. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use super::awaited::{Awaited, Reply, Settled, confirmation, is_unasked, learn};
use super::state::State;

/// A command's name, or its beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Name {
    bytes: [u8; Name::MOST],
    len: u8,
}

impl Name {
    const MOST: usize = 23;

    #[inline]
    pub(super) fn new(name: &[u8]) -> Self {
        let len = name.len().min(Name::MOST);
        let mut bytes = [0; Name::MOST];
        bytes[..len].copy_from_slice(&name[..len]);
        Name { bytes, len: len as u8 }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..usize::from(self.len)]).into_owned()
    }

    #[inline]
    fn is(&self, name: &[u8]) -> bool {
        &self.bytes[..usize::from(self.len)] == name
    }
}

/// What is known of the oldest request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Oldest {
    /// When its last byte went up; `None` while it has not.
    pub(super) sent: Option<Instant>,
    pub(super) blocking: bool,
}

/// When a request came and went.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timing {
    /// When its last byte went up; `None` while it has not.
    pub(super) sent: Option<Instant>,
    /// How long that took, since it was read; in nanoseconds.
    pub(super) delay: u32,
}

/// Consecutive requests that await the same.
#[derive(Debug)]
struct Run {
    awaited: Awaited,
    /// Of the first of them; all have the same, but where there are many runs.
    name: Name,
    count: u32,
    timing: Timing,
}

impl Run {
    fn new(awaited: Awaited, name: Name) -> Self {
        Run { awaited, name, count: 1, timing: Timing::default() }
    }
}

/// Beyond this many runs, batches of one kind are counted together, under the later's time.
const FINE_RUNS: usize = 64;
/// Beyond this many runs no more requests are taken in.
const MAX_RUNS: usize = 4096;

/// Beyond this many bytes of the proxy's own replies, too.
const MAX_LOCAL: usize = 64 * 1024;

/// The queue of what is owed.
#[derive(Debug, Default)]
pub(super) struct Owed {
    runs: VecDeque<Run>,
    /// Bytes in [`Awaited::Local`].
    local: usize,
}

impl Owed {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Nothing more may be added for now.
    pub(super) fn is_full(&self) -> bool {
        self.runs.len() >= MAX_RUNS || self.local >= MAX_LOCAL
    }

    /// Adds one request, not sent yet.
    #[inline]
    pub(super) fn push(&mut self, awaited: Awaited, name: &[u8]) {
        let crowded = self.runs.len() > FINE_RUNS;
        if let Awaited::Local(reply) = &awaited {
            self.local += reply.len();
        }
        match self.runs.back_mut() {
            Some(run)
                if matches!(awaited, Awaited::Plain)
                    && matches!(run.awaited, Awaited::Plain)
                    && (crowded || (run.timing.sent.is_none() && run.name.is(name))) =>
            {
                run.count += 1;
                run.timing = Timing::default();
            }
            _ => self.runs.push_back(Run::new(awaited, Name::new(name))),
        }
    }

    /// Gives back the memory of a long queue that is over.
    #[inline]
    pub(super) fn trim(&mut self) {
        if self.runs.is_empty() && self.runs.capacity() > FINE_RUNS {
            self.runs = VecDeque::new();
        }
    }

    /// All bytes are on their way, but for those of a last request that is not complete.
    /// They were read at `arrived`.
    #[inline]
    pub(super) fn sent(&mut self, arrived: Instant, now: Instant, last_incomplete: bool) {
        if last_incomplete
            && let Some(run) = self.runs.back_mut()
            && run.count > 1
        {
            run.count -= 1;
            let last = Run::new(Awaited::Plain, run.name);
            self.runs.push_back(last);
        }
        let skipped = usize::from(last_incomplete);
        let delay = u32::try_from((now - arrived).as_nanos()).unwrap_or(u32::MAX);
        let unsent = |run: &&mut Run| run.timing.sent.is_none();
        for run in self.runs.iter_mut().rev().skip(skipped).take_while(unsent) {
            run.timing = Timing { sent: Some(now), delay };
        }
    }

    /// The oldest request.
    pub(super) fn oldest(&self) -> Option<Oldest> {
        let run = self.runs.front()?;
        let blocking = run.awaited == Awaited::Blocking;
        Some(Oldest { sent: run.timing.sent, blocking })
    }

    /// The oldest request that has a pass, and since when the uplink has it.
    pub(super) fn oldest_admitted(&self) -> Option<(Name, Option<Instant>)> {
        let has_pass = |run: &&Run| !matches!(run.awaited, Awaited::Own | Awaited::Local(_));
        self.runs.iter().find(has_pass).map(|run| (run.name, run.timing.sent))
    }

    /// The proxy's own replies, in order.
    pub(super) fn into_locals(self) -> impl Iterator<Item = Box<[u8]>> {
        self.runs.into_iter().filter_map(|run| match run.awaited {
            Awaited::Local(reply) => Some(reply),
            _ => None,
        })
    }

    /// When the oldest request came and went.
    #[inline]
    pub(super) fn timing(&self) -> Timing {
        self.runs.front().map_or_else(Timing::default, |run| run.timing)
    }

    /// The oldest request may wait for long.
    pub(super) fn is_blocked(&self) -> bool {
        self.runs.front().is_some_and(|run| run.awaited == Awaited::Blocking)
    }

    /// Takes back the newest request, whose last byte will never come; false if there is none.
    pub(super) fn take_back(&mut self) -> bool {
        let Some(run) = self.runs.back_mut() else { return false };
        run.count -= 1;
        if run.count == 0 {
            self.runs.pop_back();
        }
        true
    }

    /// Forgets everything: no reply will come.
    pub(super) fn clear(&mut self) {
        *self = Owed::default();
    }

    /// The next reply, which begins with this byte, is not for the client.
    #[inline]
    pub(super) fn hides(&self, kind: u8) -> bool {
        match self.runs.front() {
            Some(run) => match run.awaited {
                // Nothing else comes between a RESET and this, but pushes.
                Awaited::Own => kind != b'>',
                // Always an error.
                Awaited::Instead(_) => kind == b'-',
                _ => false,
            },
            None => false,
        }
    }

    /// How many elements the next reply has beyond what its header says.
    #[inline]
    pub(super) fn more_elements(&self, state: &State) -> i64 {
        match self.runs.front() {
            Some(Run { awaited: Awaited::Exec(queued), .. }) => queued.more_elements(state.resp3),
            _ => 0,
        }
    }

    /// The next reply may hold a secret.
    pub(super) fn is_secret(&self) -> bool {
        self.runs.front().is_some_and(|run| match run.awaited {
            Awaited::Exec(queued) => queued.secrets,
            Awaited::Secret => true,
            _ => false,
        })
    }

    /// The beginning of the next reply decides what it is.
    #[inline]
    pub(super) fn looks_into(&self, state: &State) -> bool {
        self.plain(state) == 0
    }

    /// How many of the oldest requests await one reply, whatever it is (but no push).
    #[inline]
    pub(super) fn plain(&self, state: &State) -> u32 {
        match self.runs.front() {
            Some(Run { awaited: Awaited::Plain, count, .. })
                if !state.monitor && !state.subscribed() =>
            {
                *count
            }
            _ => 0,
        }
    }

    /// Of these, so many were answered.
    #[inline]
    pub(super) fn settle_plain(&mut self, answered: u32) {
        if let Some(run) = self.runs.front_mut() {
            run.count -= answered;
            if run.count == 0 {
                self.runs.pop_front();
            }
        }
    }

    /// What the proxy has to say next, if it is its turn.
    #[inline]
    pub(super) fn take_local(&mut self) -> Option<Box<[u8]>> {
        match self.runs.front()?.awaited {
            Awaited::Local(_) => match self.runs.pop_front()?.awaited {
                Awaited::Local(reply) => {
                    self.local -= reply.len();
                    Some(reply)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Finds what `reply` answers.
    pub(super) fn settle(&mut self, reply: Reply<'_>, state: &mut State) -> Settled {
        let confirmation = confirmation(reply.text)
            .filter(|_| reply.kind == b'>' || (reply.kind == b'*' && !state.resp3));
        if let Some((channel, on)) = confirmation {
            let awaited = self.runs.front().is_some_and(|run| match run.awaited {
                Awaited::Subscribed(awaited, _) => on && awaited == channel,
                Awaited::Unsubscribed(awaited, _) => !on && awaited == channel,
                _ => false,
            });
            let before = state.subscriptions(channel);
            if awaited || state.subscribed() || reply.kind == b'>' {
                state.confirmed(channel, reply.number);
            }
            if awaited {
                return self.confirm(before);
            }
        }
        if is_unasked(reply, state, confirmation.is_some()) {
            return Settled::Unasked;
        }
        let Some(run) = self.runs.front_mut() else { return Settled::Fault };
        run.count -= 1;
        let settled = learn(&run.awaited, reply, state);
        if run.count == 0 {
            self.runs.pop_front();
        }
        settled
    }

    /// The oldest request got one of its confirmations; `before` it there were that many
    /// subscriptions of its kind.
    fn confirm(&mut self, before: i64) -> Settled {
        let Some(run) = self.runs.front_mut() else { return Settled::Fault };
        let (Awaited::Subscribed(_, left) | Awaited::Unsubscribed(_, left)) = &mut run.awaited
        else {
            return Settled::Fault;
        };
        if *left == 0 {
            *left = u32::try_from(before).unwrap_or(0).max(1);
        }
        *left -= 1;
        if *left > 0 {
            return Settled::Confirmed;
        }
        self.runs.pop_front();
        Settled::Answered
    }
}
