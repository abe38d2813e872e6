//! Input that waits: for the gate to open, or for the reply to the request before it.

use super::Session;
use super::intake::{NotYet, Parked, Waits};
use crate::clock;

impl Session {
    pub(super) fn park(&mut self, why: NotYet, input: &[&[u8]]) {
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
        self.publish_facets();
    }
}
