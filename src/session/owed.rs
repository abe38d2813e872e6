//! The replies that are owed to a client, in order. Pure.

use std::collections::VecDeque;
use std::time::Instant;

use super::awaited::{Awaited, Confirmed, Reply, Settled, confirmation, is_unasked, learn};
use super::ids::Place;
use super::state::State;
use super::transaction::Executed;
use crate::command;

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

/// What becomes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// The client gets it as it comes.
    Shown,
    /// It is not for the client.
    Hidden,
    /// Nor is this one, but it is kept.
    Kept,
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
    pub(super) fn push(&mut self, awaited: Awaited, name: &[u8]) {
        match awaited {
            Awaited::Plain => self.push_plain(name),
            Awaited::Local(ref reply) => {
                self.local += reply.len();
                self.runs.push_back(Run::new(awaited, Name::new(name)));
            }
            _ if self.can_join(name, |last| are_alike(last, &awaited)) => self.join(),
            _ => self.runs.push_back(Run::new(awaited, Name::new(name))),
        }
    }

    /// The same for what most requests are.
    #[inline]
    pub(super) fn push_plain(&mut self, name: &[u8]) {
        if self.can_join(name, |last| matches!(last, Awaited::Plain)) {
            self.join();
        } else {
            self.runs.push_back(Run::new(Awaited::Plain, Name::new(name)));
        }
    }

    /// The last run is of such requests.
    #[inline]
    fn can_join(&self, name: &[u8], alike: impl Fn(&Awaited) -> bool) -> bool {
        let crowded = self.runs.len() > FINE_RUNS;
        self.runs.back().is_some_and(|run| {
            alike(&run.awaited) && (crowded || (run.timing.sent.is_none() && run.name.is(name)))
        })
    }

    #[inline]
    fn join(&mut self) {
        if let Some(run) = self.runs.back_mut() {
            run.count += 1;
            run.timing = Timing::default();
        }
    }

    /// Adds one request of the proxy's own, ahead of all that were not sent either.
    pub(super) fn push_ahead(&mut self, awaited: Awaited) {
        self.runs.push_front(Run::new(awaited, Name::new(b"")));
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
            let last = Run::new(run.awaited.again(), run.name);
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
        let blocking = matches!(run.awaited, Awaited::Blocking | Awaited::Waiting);
        Some(Oldest { sent: run.timing.sent, blocking })
    }

    /// The oldest request that has a pass, and since when the uplink has it.
    pub(super) fn oldest_admitted(&self) -> Option<(Name, Option<Instant>)> {
        let has_pass = |run: &&Run| {
            !matches!(run.awaited, Awaited::Own | Awaited::Asked(_) | Awaited::Local(_))
        };
        self.runs.iter().find(has_pass).map(|run| (run.name, run.timing.sent))
    }

    /// The proxy's own replies, in order.
    pub(super) fn into_locals(self) -> impl Iterator<Item = Box<[u8]>> {
        self.runs.into_iter().filter_map(|run| match run.awaited {
            Awaited::Local(reply) => Some(reply),
            _ => None,
        })
    }

    /// Once all is answered, the client will be subscribed to something.
    pub(super) fn will_be_subscribed(&self, state: &State) -> bool {
        let mut left = state.all_subscriptions();
        for run in &self.runs {
            match &run.awaited {
                Awaited::Subscribed(_, names) => left += i64::from(names.left),
                Awaited::Unsubscribed(_, names) if names.left > 0 => left -= i64::from(names.left),
                Awaited::Unsubscribed(channel, _) => left -= state.subscriptions(*channel),
                _ => {}
            }
        }
        left > 0
    }

    /// No reply is owed to the client but for those that are made here.
    pub(super) fn is_for_the_proxy(&self) -> bool {
        self.oldest_admitted().is_none()
    }

    /// When the oldest request came and went.
    #[inline]
    pub(super) fn timing(&self) -> Timing {
        self.runs.front().map_or_else(Timing::default, |run| run.timing)
    }

    /// The oldest request may wait for long.
    pub(super) fn is_blocked(&self) -> bool {
        self.oldest().is_some_and(|oldest| oldest.blocking)
    }

    /// It does so for data, and there is no other.
    pub(super) fn is_only_blocked(&self) -> bool {
        self.runs.len() == 1 && matches!(self.runs[0].awaited, Awaited::Blocking)
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

    /// What becomes of the next reply, which begins with this byte.
    #[inline]
    pub(super) fn view(&self, kind: u8) -> View {
        let Some(run) = self.runs.front() else { return View::Shown };
        match &run.awaited {
            // Nothing else comes between a RESET and this, but pushes.
            Awaited::Own | Awaited::Touched if kind != b'>' => View::Hidden,
            // Always an error.
            Awaited::Instead(_) if kind == b'-' => View::Hidden,
            Awaited::Asked(_) | Awaited::Ids(..) if kind != b'>' => View::Kept,
            Awaited::Exec(executed) if !executed.ids.is_empty() && kind == b'*' => View::Kept,
            _ => View::Shown,
        }
    }

    /// EXEC's reply comes next, and it is for it to say which requests succeeded.
    pub(super) fn executes(&self) -> Option<&Executed> {
        match self.runs.front() {
            Some(Run { awaited: Awaited::Exec(executed), .. }) if executed.has_effects() => {
                Some(executed)
            }
            _ => None,
        }
    }

    /// The ids in EXEC's reply, which comes next.
    pub(super) fn ids(&self) -> Vec<(u32, Place)> {
        match self.runs.front() {
            Some(Run { awaited: Awaited::Exec(executed), .. }) => executed.ids.clone(),
            _ => Vec::new(),
        }
    }

    /// The next reply may hold a secret.
    pub(super) fn is_secret(&self) -> bool {
        self.runs.front().is_some_and(|run| match &run.awaited {
            Awaited::Exec(executed) => executed.secrets,
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
            if let Some(settled) = self.confirm(channel, on, reply, state) {
                return settled;
            }
            if (state.subscribed() || reply.kind == b'>') && !state.take_loose() {
                state.confirmed(channel, on, Confirmed::Unknown, reply.number);
            }
        }
        if is_unasked(reply, state, confirmation.is_some()) {
            return Settled::Unasked;
        }
        let Some(run) = self.runs.front_mut() else { return Settled::Fault };
        run.count -= 1;
        if run.count > 0 {
            return learn(run.awaited.again(), reply, state);
        }
        self.runs.pop_front().map_or(Settled::Fault, |run| learn(run.awaited, reply, state))
    }

    /// If the oldest request awaits this confirmation, it got one of its.
    fn confirm(
        &mut self,
        confirmed: command::Channel,
        on: bool,
        reply: Reply<'_>,
        state: &mut State,
    ) -> Option<Settled> {
        let names = match &mut self.runs.front_mut()?.awaited {
            Awaited::Subscribed(channel, names) if on && *channel == confirmed => names,
            Awaited::Unsubscribed(channel, names) if !on && *channel == confirmed => names,
            _ => return None,
        };
        if names.left == 0 {
            names.left = u32::try_from(state.subscriptions(confirmed)).unwrap_or(0).max(1);
        }
        state.confirmed(confirmed, on, names.next(), reply.number);
        names.left -= 1;
        if names.left > 0 {
            return Some(Settled::Confirmed);
        }
        self.runs.pop_front();
        Some(Settled::Answered)
    }
}

/// Requests that are counted together.
#[inline]
fn are_alike(one: &Awaited, other: &Awaited) -> bool {
    matches!((one, other), (Awaited::Plain, Awaited::Plain) | (Awaited::Queued, Awaited::Queued))
}

impl Awaited {
    /// Of requests that are counted together.
    fn again(&self) -> Awaited {
        match self {
            Awaited::Queued => Awaited::Queued,
            _ => Awaited::Plain,
        }
    }
}
