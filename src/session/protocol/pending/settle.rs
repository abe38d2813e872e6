//! What a reply answers, of what is owed. Pure.

use super::super::effect::Effect;
use super::super::expected::{Expected, Names, Reply, Settled, is_unasked, learn};
use super::super::state::{Confirmation, Confirmed, State, Subscription};
use super::{Outcome, Pending};

const EXECABORT: &str = "EXECABORT Transaction discarded because of previous errors.";

impl Pending {
    /// Finds what `reply` answers.
    pub fn settle(&mut self, reply: Reply<'_>, state: &mut State) -> Outcome {
        let confirmation = reply.confirmation(state);
        if let Some(confirmation) = confirmation {
            if let Some(over) = self.confirm(confirmation, reply, state) {
                return Outcome { settled: Settled::Answered, over };
            }
            if state.subscribed() || reply.kind == b'>' {
                state.confirmed(confirmation, Confirmed::Unknown, reply.number);
            }
        }
        if is_unasked(reply, state, confirmation.is_some()) {
            return Outcome { settled: Settled::Unasked, over: 0 };
        }
        match self.runs.front_mut().map(|run| &mut run.awaited) {
            None => Outcome { settled: Settled::Fault, over: 0 },
            Some(Expected::Executed(queue)) => {
                let element = queue.pop();
                let settled = element.map_or(Settled::Fault, |it| learn(it, reply, state));
                Outcome { settled, over: self.element_ends() }
            }
            Some(Expected::Exec) if reply.kind == b'*' && !reply.null => self.execute(reply, state),
            Some(_) => {
                let awaited = self.take();
                let settled = awaited.map_or(Settled::Fault, |it| self.learn(it, reply, state));
                let over = match settled {
                    Settled::Own => 0,
                    Settled::Asked(question) => u32::from(question.has_pass()),
                    _ => 1,
                };
                Outcome { settled, over }
            }
        }
    }

    /// The header of EXEC's array has come.
    fn execute(&mut self, reply: Reply<'_>, state: &mut State) -> Outcome {
        state.apply(Effect::Unwatch);
        let queue = self.open.take().map(|open| open.queue).unwrap_or_default();
        let Some(run) = self.runs.front_mut() else {
            return Outcome { settled: Settled::Fault, over: 0 };
        };
        if i64::from(queue.len()) != reply.number {
            // Not what it said that it had queued.
            return Outcome { settled: Settled::Fault, over: 0 };
        }
        let size = queue.size();
        run.cost += size;
        self.bytes += size;
        run.awaited = Expected::Executed(Box::new(queue));
        Outcome { settled: Settled::Answered, over: self.element_ends() }
    }

    /// What `reply` means to a request that awaited this, whether or not a transaction is open.
    fn learn(&mut self, awaited: Expected, reply: Reply<'_>, state: &mut State) -> Settled {
        let refused = reply.kind == b'-';
        match awaited {
            Expected::Queued(inner) => self.learn_queued(inner, reply, state),
            Expected::Multi | Expected::Nested if refused => match self.open {
                Some(_) => Settled::Answered,
                None => Settled::Surprise,
            },
            Expected::Multi => {
                self.open = Some(Box::default());
                Settled::Answered
            }
            Expected::Nested => {
                self.open = Some(Box::default());
                Settled::Begun
            }
            Expected::Exec | Expected::Discard => {
                let discarded = matches!(awaited, Expected::Discard) && !refused;
                let is_null = reply.null || reply.kind == b'_';
                // It was refused before it was known that there is none.
                let is_alone = self.open.is_none();
                if discarded || is_null || reply.is_abort() {
                    self.end_transaction(state);
                    if is_alone { Settled::Unwatched } else { Settled::Answered }
                } else if reply.is_without_multi() {
                    self.open = None;
                    Settled::Answered
                } else if refused {
                    self.abort();
                    Settled::Surprise
                } else {
                    Settled::Fault
                }
            }
            Expected::Touched if !reply.is_abort() => Settled::Instead("ERR EXEC without MULTI"),
            Expected::Touched => {
                let aborted = self.is_aborted();
                self.end_transaction(state);
                if aborted { Settled::Instead(EXECABORT) } else { Settled::Touched }
            }
            Expected::Reset | Expected::Instead(_) => {
                if refused {
                    self.abort();
                } else {
                    self.open = None;
                }
                learn(awaited, reply, state)
            }
            // A DISCARD, or an EXEC, before it was refused: the transaction is still open.
            awaited if reply.is_queued() && self.open.is_some() => {
                self.open.get_or_insert_default().queue.push(awaited);
                Settled::Answered
            }
            awaited => learn(awaited, reply, state),
        }
    }

    fn learn_queued(
        &mut self,
        inner: Option<Box<Expected>>,
        reply: Reply<'_>,
        state: &mut State,
    ) -> Settled {
        let inner = inner.map_or(Expected::Plain, |inner| *inner);
        if reply.is_queued() {
            self.open.get_or_insert_default().queue.push(inner);
            return Settled::Answered;
        }
        if reply.is_abort() {
            self.end_transaction(state);
            return Settled::Surprise;
        }
        if reply.kind == b'-' && self.open.is_some() {
            self.abort();
            return Settled::Answered;
        }
        learn(inner, reply, state)
    }

    fn end_transaction(&mut self, state: &mut State) {
        self.open = None;
        state.apply(Effect::Unwatch);
    }

    fn abort(&mut self) {
        if let Some(open) = &mut self.open {
            open.aborted = true;
        }
    }

    /// If the next reply is awaited to be this confirmation, it is one of those; gives how many
    /// requests are over with it.
    fn confirm(
        &mut self,
        confirmation: Confirmation,
        reply: Reply<'_>,
        state: &mut State,
    ) -> Option<u32> {
        let awaited = match &mut self.runs.front_mut()?.awaited {
            Expected::Executed(queue) => queue.front_mut()?,
            // It was executed at once.
            Expected::Queued(Some(inner)) => inner,
            awaited => awaited,
        };
        let Confirmation { channel: confirmed, subscription } = confirmation;
        let names: &mut Names = match (awaited, subscription) {
            (Expected::Subscribed(channel, names), Subscription::Begun)
            | (Expected::Unsubscribed(channel, names), Subscription::Ended)
                if *channel == confirmed =>
            {
                names
            }
            _ => return None,
        };
        if names.left == 0 {
            names.left = u32::try_from(state.subscriptions(confirmed)).unwrap_or(0).max(1);
        }
        state.confirmed(confirmation, names.next(), reply.number);
        names.left -= 1;
        if names.left > 0 {
            return Some(0);
        }
        if let Expected::Executed(queue) = &mut self.runs.front_mut()?.awaited {
            queue.pop();
            return Some(self.element_ends());
        }
        self.pop();
        Some(1)
    }
}
