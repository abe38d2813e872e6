//! The replies that are owed to a client, in order; `settle` finds what a reply answers. Pure.

mod settle;

use std::collections::VecDeque;
use std::time::Instant;

use super::expected::{Expected, Settled};
use super::name::Name;
use super::queue::{Awaited, Open};
use super::state::State;

/// What becomes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The client gets it as it comes.
    Shown,
    /// It is not for the client.
    Hidden,
    /// It is kept; whether the client gets it, and in which form, is decided at its end.
    Kept,
    /// It is kept until its first text tells whether it is for the client.
    Undecided,
}

/// What is known of the oldest request.
#[derive(Debug, Clone, Copy)]
pub struct Oldest {
    /// When its last byte went up; `None` while it has not.
    pub sent: Option<Instant>,
    pub blocking: bool,
}

/// When a request came and went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timing {
    /// When its last byte went up; `None` while it has not.
    pub sent: Option<Instant>,
    /// How long that took, since it was read; in nanoseconds.
    pub delay: u32,
}

/// What a reply was, and how many of the client's requests are over with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub settled: Settled,
    pub over: u32,
}

/// Whether the client gets a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    Client,
    /// The client asked for silence.
    Nobody,
}

/// Consecutive requests that await the same.
#[derive(Debug)]
struct Run {
    awaited: Expected,
    /// Name of the first request of the run; the others have it too, unless there are many runs.
    name: Name,
    count: u32,
    audience: Audience,
    timing: Timing,
    /// Bytes that were counted for it.
    cost: usize,
}

impl Run {
    /// The client waits for it.
    fn has_pass(&self) -> bool {
        !self.is_the_proxys() && !matches!(self.awaited, Expected::Local(_))
    }

    /// It is a request of the proxy's own.
    fn is_the_proxys(&self) -> bool {
        match self.awaited {
            Expected::Asked(question) => !question.has_pass(),
            Expected::Own => true,
            _ => false,
        }
    }
}

/// Beyond this many runs, batches of one kind are counted together, under the later's time.
const FINE_RUNS: usize = 64;
/// Beyond this many bytes no more requests are taken in.
const MAX_BYTES: usize = 512 * 1024;

/// The queue of what is owed.
#[derive(Debug, Default)]
pub struct Pending {
    runs: VecDeque<Run>,
    /// Bytes that all runs take.
    bytes: usize,
    /// The transaction that is open at the server, after the replies that have come.
    open: Option<Box<Open<Expected>>>,
}

impl Pending {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Nothing more may be added for now.
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// Adds one request, not sent yet.
    pub fn push(&mut self, awaited: Expected, name: &[u8], audience: Audience) {
        if self.can_join(name, audience, |last| last.is_like(&awaited)) {
            return self.join();
        }
        let cost = size_of::<Run>() + awaited.size();
        self.bytes += cost;
        let timing = Timing::default();
        let name = Name::new(name);
        self.runs.push_back(Run { awaited, name, count: 1, audience, timing, cost });
    }

    /// Adds what most requests are.
    #[inline]
    pub fn push_plain(&mut self, name: &[u8]) {
        if self.can_join(name, Audience::Client, |last| matches!(last, Expected::Plain)) {
            self.join();
        } else {
            self.push(Expected::Plain, name, Audience::Client);
        }
    }

    /// Adds one request of the proxy's own, or a reply that is made here.
    pub fn push_own(&mut self, awaited: Expected) {
        self.push(awaited, b"", Audience::Client);
    }

    /// The last run is of such requests.
    #[inline]
    fn can_join(&self, name: &[u8], audience: Audience, alike: impl Fn(&Expected) -> bool) -> bool {
        let crowded = self.runs.len() > FINE_RUNS;
        self.runs.back().is_some_and(|run| {
            alike(&run.awaited)
                && run.audience == audience
                && (crowded || (run.timing.sent.is_none() && run.name.is(name)))
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
    pub fn push_ahead(&mut self, awaited: Expected) {
        self.push_own(awaited);
        self.runs.rotate_right(1);
    }

    /// Gives back the memory of a long queue that is over.
    #[inline]
    pub fn trim(&mut self) {
        if self.runs.is_empty() && self.runs.capacity() > FINE_RUNS {
            self.runs = VecDeque::new();
        }
    }

    /// All bytes are on their way, but for those of a last request that is not complete.
    /// They were read at `arrived`.
    #[inline]
    pub fn sent(&mut self, arrived: Instant, now: Instant, last_incomplete: bool) {
        if last_incomplete
            && let Some(run) = self.runs.back_mut()
            && run.count > 1
        {
            run.count -= 1;
            let (awaited, name, audience) = (run.awaited.again(), run.name, run.audience);
            let (timing, cost) = (Timing::default(), size_of::<Run>());
            self.bytes += cost;
            self.runs.push_back(Run { awaited, name, count: 1, audience, timing, cost });
        }
        let skipped = usize::from(last_incomplete);
        let delay = u32::try_from((now - arrived).as_nanos()).unwrap_or(u32::MAX);
        let unsent = |run: &&mut Run| run.timing.sent.is_none();
        for run in self.runs.iter_mut().rev().skip(skipped).take_while(unsent) {
            run.timing = Timing { sent: Some(now), delay };
        }
    }

    /// The oldest request.
    pub fn oldest(&self) -> Option<Oldest> {
        let run = self.runs.front()?;
        Some(Oldest { sent: run.timing.sent, blocking: run.awaited.is_blocking() })
    }

    /// The oldest request that has a pass, and since when the uplink has it.
    pub fn oldest_admitted(&self) -> Option<(Name, Option<Instant>)> {
        self.runs.iter().find(|run| run.has_pass()).map(|run| (run.name, run.timing.sent))
    }

    /// The proxy's own replies, in order; everything else that is owed will not come, but for the
    /// transaction that is open, which is begun again elsewhere.
    pub fn take_locals(&mut self) -> impl Iterator<Item = Box<[u8]>> + use<> {
        let Pending { runs, open, .. } = std::mem::take(self);
        self.open = open;
        runs.into_iter().filter_map(|run| match run.awaited {
            Expected::Local(reply) => Some(reply),
            _ => None,
        })
    }

    /// A request was refused of the transaction that is open.
    pub fn is_aborted(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.aborted)
    }

    /// A reply to come may tell that the connection's state has changed.
    pub fn may_change_the_state(&self) -> bool {
        let leaves_it = |run: &Run| {
            matches!(
                run.awaited,
                Expected::Plain | Expected::Secret | Expected::Own | Expected::Local(_)
            )
        };
        !self.runs.iter().all(leaves_it)
    }

    /// The reply to a MULTI is still to come.
    pub fn awaits_multi(&self) -> bool {
        self.runs.iter().any(|run| matches!(run.awaited, Expected::Multi | Expected::Nested))
    }

    /// Once all is answered, and no MULTI is among that, so many requests will have been queued to the
    /// transaction that is open; `None` if none will be open.
    pub fn will_be_queued(&self) -> Option<usize> {
        let open = self.open.as_ref()?;
        let ends = |run: &Run| {
            matches!(
                run.awaited,
                Expected::Exec | Expected::Discard | Expected::Touched | Expected::Reset
            )
        };
        let is_own = |run: &&Run| matches!(run.awaited, Expected::Own | Expected::Local(_));
        let coming: u32 = self.runs.iter().filter(|run| !is_own(run)).map(|run| run.count).sum();
        (!self.runs.iter().any(ends)).then_some((open.queue.len() + coming) as usize)
    }

    /// Replies to the client's requests that are owed.
    pub fn requests(&self) -> usize {
        self.owed().count()
    }

    /// Nothing is owed to the proxy itself.
    pub fn owes_clients_alone(&self) -> bool {
        !self.runs.iter().any(Run::is_the_proxys)
    }

    /// What each of the client's requests awaits that are not answered.
    pub fn owed(&self) -> impl Iterator<Item = &Expected> {
        let owed = self.runs.iter().filter(|run| run.has_pass());
        owed.flat_map(|run| std::iter::repeat_n(&run.awaited, run.count as usize))
    }

    /// Only the client's own requests are owed, and none of them was sent: they will be sent elsewhere.
    pub fn begin_again(&mut self) {
        let gone: usize =
            self.runs.iter().filter(|run| run.is_the_proxys()).map(|it| it.cost).sum();
        self.bytes -= gone;
        self.runs.retain(|run| !run.is_the_proxys());
        for run in &mut self.runs {
            run.timing = Timing::default();
        }
    }

    /// So many requests were queued to the transaction that is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// No reply is owed to the client but for those that are made here.
    pub fn is_for_the_proxy(&self) -> bool {
        self.oldest_admitted().is_none()
    }

    /// When the oldest request came and went.
    #[inline]
    pub fn timing(&self) -> Timing {
        self.runs.front().map_or_else(Timing::default, |run| run.timing)
    }

    /// The oldest request may wait for long.
    pub fn is_blocked(&self) -> bool {
        self.oldest().is_some_and(|oldest| oldest.blocking)
    }

    /// It does so for data, and there is no other.
    pub fn is_only_blocked(&self) -> bool {
        self.runs.len() == 1 && matches!(self.runs[0].awaited, Expected::Blocking)
    }

    /// Takes back the newest request, if there is one: its last byte will never come.
    pub fn take_back(&mut self) {
        let Some(run) = self.runs.back_mut() else { return };
        run.count -= 1;
        if run.count == 0 {
            self.bytes -= run.cost;
            self.runs.pop_back();
        }
    }

    /// Forgets everything: no reply will come.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }

    /// What the next reply means.
    #[inline]
    fn next(&self) -> Option<&Expected> {
        match &self.runs.front()?.awaited {
            Expected::Executed(queue) => queue.front(),
            awaited => Some(awaited),
        }
    }

    /// The client gets the reply that is next.
    pub fn is_heard(&self) -> bool {
        self.runs.front().is_none_or(|run| run.audience == Audience::Client)
    }

    /// What becomes of the next reply, which begins with this byte.
    #[inline]
    pub fn view(&self, kind: u8, state: &State) -> View {
        let Some(next) = self.next() else { return View::Shown };
        let next = match next {
            // +QUEUED, +OK or an error, which are all for the client; or it was executed at once.
            Expected::Queued(Some(inner)) if !matches!(kind, b'+' | b'-') => inner,
            next => next,
        };
        match next {
            _ if kind == b'>' => View::Shown,
            Expected::Own | Expected::Touched => View::Hidden,
            // Always an error.
            Expected::Instead(_) if kind == b'-' => View::Hidden,
            Expected::Asked(_) | Expected::Ids(..) => View::Kept,
            // Perhaps it was interrupted.
            Expected::Blocking if kind == b'-' => View::Kept,
            _ if self.is_heard() => View::Shown,
            // What is published comes all the same.
            _ if kind == b'*' && !state.resp3 => View::Undecided,
            _ => View::Hidden,
        }
    }

    /// EXEC's reply comes next: if it is an array, its elements are the replies to what was queued.
    #[inline]
    pub fn unfolds(&self) -> bool {
        // Without a transaction, an array is a message.
        self.open.is_some()
            && matches!(self.runs.front(), Some(Run { awaited: Expected::Exec, .. }))
    }

    /// Some of EXEC's reply has gone down.
    pub fn is_unfolding(&self) -> bool {
        matches!(self.runs.front(), Some(Run { awaited: Expected::Executed(_), .. }))
    }

    /// The next reply may hold a secret.
    pub fn is_secret(&self) -> bool {
        matches!(self.next(), Some(Expected::Secret))
    }

    /// The beginning of the next reply decides what it is.
    #[inline]
    pub fn looks_into(&self, state: &State) -> bool {
        self.plain(state) == 0
    }

    /// How many of the next replies answer one request each, whatever they are (but no push).
    #[inline]
    pub fn plain(&self, state: &State) -> u32 {
        match self.runs.front() {
            Some(run) if run.audience == Audience::Client && !state.hears_unasked() => {
                match &run.awaited {
                    // Perhaps it was queued.
                    Expected::Plain if self.open.is_some() => 0,
                    Expected::Plain => run.count,
                    Expected::Executed(queue) => queue.plain(),
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// So many plain replies came; gives how many requests are over.
    #[inline]
    pub fn settle_plain(&mut self, answered: u32) -> u32 {
        let Some(run) = self.runs.front_mut() else { return 0 };
        if let Expected::Executed(queue) = &mut run.awaited {
            queue.pass(answered);
            return self.element_ends();
        }
        run.count -= answered;
        if run.count == 0 {
            self.pop();
        }
        answered
    }

    #[inline]
    fn pop(&mut self) -> Option<Expected> {
        let run = self.runs.pop_front()?;
        self.bytes -= run.cost;
        Some(run.awaited)
    }

    /// The oldest request is answered.
    fn take(&mut self) -> Option<Expected> {
        let run = self.runs.front_mut()?;
        run.count -= 1;
        if run.count > 0 { Some(run.awaited.again()) } else { self.pop() }
    }

    /// An element of EXEC's reply has come; gives 1 if it was the last one, with which EXEC is over.
    fn element_ends(&mut self) -> u32 {
        match self.runs.front() {
            Some(Run { awaited: Expected::Executed(queue), .. }) if queue.len() == 0 => {
                self.pop();
                1
            }
            _ => 0,
        }
    }

    /// What the proxy has to say next, if it is its turn.
    #[inline]
    pub fn take_local(&mut self) -> Option<Box<[u8]>> {
        if !matches!(self.runs.front()?.awaited, Expected::Local(_)) {
            return None;
        }
        match self.pop()? {
            Expected::Local(reply) => Some(reply),
            _ => None,
        }
    }
}
