//! MULTI: what was queued, and what it will have changed once it is executed. Pure.

use std::collections::BTreeSet;

use super::effect::Effect;
use super::ids::Place;
use super::state::State;

/// Bytes of requests that are kept for one transaction. Nothing of it was executed yet, so with
/// them it can be begun again on another uplink.
pub(super) const MAX_KEPT: usize = 1024 * 1024;
/// What a request costs beyond its bytes.
const OVERHEAD: usize = 32;
/// Bytes of effects that are remembered of one transaction, though its requests are not.
const MAX_EFFECTS: usize = 4 * 1024 * 1024;

/// An open transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// What was sent since MULTI, while it is not too much; with true, it is to be executed.
    frames: Vec<(Box<[u8]>, bool)>,
    bytes: usize,
    /// It is too much: only the old uplink can finish it.
    pub(super) pinned: bool,
    queued: u32,
    /// By the number of the request.
    effects: Vec<(u32, Effect)>,
    effect_bytes: usize,
    /// Requests whose replies are not for the log.
    secrets: bool,
    /// Which replies have ids of clients, and where.
    ids: Vec<(u32, Place)>,
}

/// One that EXEC was sent for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Executed {
    queued: u32,
    effects: Vec<(u32, Effect)>,
    pub(super) secrets: bool,
    /// Which of its replies have ids of clients, and where.
    pub(super) ids: Vec<(u32, Place)>,
}

impl Transaction {
    /// There is room for what a request changes.
    pub(super) fn can_note(&self, effect: Option<&Effect>) -> bool {
        effect.is_none_or(|effect| self.effect_bytes + effect.size() <= MAX_EFFECTS)
    }

    /// How long a request may be to be kept.
    pub(super) fn room(&self) -> usize {
        if self.pinned { 0 } else { MAX_KEPT.saturating_sub(self.bytes + OVERHEAD) }
    }

    /// One request more to be executed; `frame` is `None` if it was not kept.
    pub(super) fn push(&mut self, frame: Option<&[u8]>, effect: Option<Effect>) {
        self.keep(frame, true);
        if let Some(effect) = effect {
            self.effect_bytes += effect.size();
            self.effects.push((self.queued, effect));
        }
        self.queued += 1;
    }

    /// One that is refused in a transaction, as MULTI. What that does to the transaction depends
    /// on the server's version.
    pub(super) fn push_refused(&mut self, frame: Option<&[u8]>) {
        self.keep(frame, false);
    }

    fn keep(&mut self, frame: Option<&[u8]>, queued: bool) {
        match frame {
            Some(frame) if frame.len() <= self.room() => {
                self.bytes += frame.len() + OVERHEAD;
                self.frames.push((frame.into(), queued));
            }
            _ => {
                self.pinned = true;
                self.frames = Vec::new();
            }
        }
    }

    /// The reply to the last request has ids in it.
    pub(super) fn note_ids(&mut self, place: Place) {
        self.ids.push((self.queued - 1, place));
    }

    pub(super) fn note_secret(&mut self) {
        self.secrets = true;
    }

    /// Databases that it will choose.
    pub(super) fn databases(&self) -> BTreeSet<u32> {
        let chosen = |(_, effect): &(u32, Effect)| match effect {
            Effect::Select(db) => Some(*db),
            _ => None,
        };
        self.effects.iter().filter_map(chosen).collect()
    }

    pub(super) fn frames(&self) -> &[(Box<[u8]>, bool)] {
        &self.frames
    }

    pub(super) fn executed(self) -> Executed {
        Executed {
            queued: self.queued,
            effects: self.effects,
            secrets: self.secrets,
            ids: self.ids,
        }
    }
}

impl Executed {
    /// Whether it matters which of its requests succeeded.
    pub(super) fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// In EXEC's reply, a subscribing request is one element by the header. What comes is, in
    /// RESP2, an array for each of its channels, and in RESP3 pushes, which are no elements.
    pub(super) fn more_elements(&self, state: &State) -> i64 {
        let replies = self.effects.iter().map(|(_, effect)| elements(effect, state));
        let replies = replies.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        replies.fold(0, |sum, count| sum.saturating_add(count - 1))
    }

    /// Applies what was executed. `errors` are the places of errors among the reply's elements.
    pub(super) fn apply(self, errors: &[u32], state: &mut State) {
        let mut moved = 0;
        for (request, effect) in self.effects {
            let count = elements(&effect, state);
            let place = i64::from(request) + moved;
            moved += i64::try_from(count).unwrap_or(0) - 1;
            let failed = count == 1 && errors.iter().any(|error| i64::from(*error) == place);
            if !failed {
                state.apply(effect);
            }
        }
    }
}

/// How many elements of EXEC's reply a request with this effect takes.
fn elements(effect: &Effect, state: &State) -> usize {
    match effect {
        Effect::Subscribe(..) | Effect::Unsubscribe(..) if state.resp3 => 0,
        Effect::Subscribe(_, names) => names.len(),
        Effect::Unsubscribe(channel, names) if names.is_empty() => {
            usize::try_from(state.subscriptions(*channel)).unwrap_or(0).max(1)
        }
        Effect::Unsubscribe(_, names) => names.len(),
        _ => 1,
    }
}
