//! Input that waits: for the gate to open, or for the reply to the request before it.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::blocking::{Blocked, UNBLOCKED};
use super::route::NotYet;
use crate::changeover::{Ticket, Unblocked};
use crate::gate::Waiting;
use crate::resp::encode;

/// What more that was read waits for.
pub(super) enum Waits {
    /// The gate.
    Gate(Waiting),
    /// Replies to what is before it.
    Reply,
}

/// Input that waits.
pub(super) struct Parked {
    pub(super) waits: Waits,
    pub(super) since: Instant,
    /// What was read and not taken in.
    pub(super) input: Vec<u8>,
}

/// A blocking command that was interrupted.
pub(super) struct Resumed {
    /// When it will have waited long enough; `None` for never.
    pub(super) until: Option<Instant>,
    /// Since when it has waited at an uplink, and up to when.
    pub(super) since: Instant,
    pub(super) interrupted: Instant,
    /// Its bytes.
    len: usize,
    ticket: Option<Arc<Ticket>>,
}

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
        let since = Instant::now();
        self.intake.parked = Some(Box::new(Parked { waits, since, input: input.concat() }));
    }

    /// What came behind a request that must be answered first waits.
    pub(super) fn park_behind(&mut self, input: &[u8]) {
        if !input.is_empty() {
            self.park_until(Waits::Reply, &[input]);
        }
    }

    /// A blocking command was interrupted: it comes to the gate again, ahead of what is behind it.
    pub(super) fn interrupted(&mut self, blocked: Blocked) {
        let frame = blocked.request();
        let behind = self.intake.parked.take().map(|parked| parked.input).unwrap_or_default();
        let Blocked { until, since, ticket, .. } = blocked;
        let (interrupted, len) = (Instant::now(), frame.len());
        self.intake.resumed = Some(Box::new(Resumed { until, since, interrupted, len, ticket }));
        self.park(NotYet::GateShut, &[&frame, &behind]);
    }

    /// It was another client that had it interrupted.
    pub(super) fn refuse_interrupted(&mut self) {
        let resumed = self.intake.resumed.as_ref();
        let ticket = resumed.and_then(|resumed| resumed.ticket.as_ref());
        if ticket.is_some_and(|ticket| ticket.answered() == Unblocked::No) {
            self.end_interrupted(&encode::error(UNBLOCKED));
        }
    }

    /// One that was interrupted has waited long enough.
    pub(super) fn end_interrupted(&mut self, reply: &[u8]) {
        let Some(resumed) = self.intake.resumed.take() else { return };
        if let Some(mut parked) = self.intake.parked.take() {
            parked.input.drain(..resumed.len);
            if !parked.input.is_empty() {
                self.intake.parked = Some(parked);
            }
        }
        self.answer(reply.to_vec());
        self.mark();
    }

    /// A blocking command that was interrupted waits at the gate.
    pub(super) fn is_interrupted(&self) -> bool {
        self.intake.resumed.is_some()
    }
}
