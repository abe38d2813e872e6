//! Input that is kept back: until the gate opens, or until the request before it is answered.

use super::Session;
use super::blocking::UNBLOCKED;
use super::close::Reason;
use super::intake::{NotYet, Parked, Waits};
use crate::clock;
use crate::resp::encode;

impl Session {
    /// Parks input that cannot be taken in yet. A session that ends takes in nothing any more, and keeps nothing.
    pub(super) fn park(&mut self, why: NotYet, input: &[&[u8]]) {
        if why == NotYet::GateShut
            && let Some(why) = self.shared.outages.given_up()
        {
            return self.end(Reason::OutageTooLong(why));
        }
        if self.ending.is_none() {
            let waits = match why {
                NotYet::GateShut => Waits::Gate(self.shared.gate.wait()),
                NotYet::RepliesOwed => Waits::Reply,
            };
            self.park_until(waits, input);
        }
    }

    fn park_until(&mut self, waits: Waits, input: &[&[u8]]) {
        let since = clock::now();
        self.intake.parked = Some(Box::new(Parked { waits, since, input: input.concat() }));
    }

    /// Parks input behind a request that must be answered first.
    pub(super) fn park_behind(&mut self, input: &[u8]) {
        if !input.is_empty() {
            self.park_until(Waits::Reply, &[input]);
        }
    }

    /// Parks an interrupted command ahead of the input behind it.
    pub(super) fn park_ahead(&mut self, frame: &[u8]) {
        let behind = self.intake.parked.take().map(|parked| parked.input).unwrap_or_default();
        self.park(NotYet::GateShut, &[frame, &behind]);
    }

    /// Gives the parked input, which may be taken in now.
    pub(super) fn unpark(&mut self) -> Option<Vec<u8>> {
        if self.blocking.is_refused() {
            self.end_interrupted(&encode::error(UNBLOCKED));
        }
        let Parked { waits, since, input } = *self.intake.parked.take()?;
        if matches!(waits, Waits::Gate(_)) {
            self.recorder.parked.observe(clock::now() - since, 1);
        }
        Some(input)
    }

    /// A blocking command that was interrupted is not sent again.
    pub(super) fn end_interrupted(&mut self, reply: &[u8]) {
        let Some(len) = self.blocking.end_at_gate() else { return };
        if let Some(mut parked) = self.intake.parked.take() {
            parked.input.drain(..len);
            if !parked.input.is_empty() {
                self.intake.parked = Some(parked);
            }
        }
        self.answer(reply.to_vec());
    }
}
