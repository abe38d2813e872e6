//! Clients that let others wait: those that do not log in, guess passwords, stop in the middle of a request, or
//! have left.

use std::io;
use std::task::Context;
use std::time::Duration;

use super::Session;
use super::close::Reason;
use super::intake::{Arriving, GIVEN_UP};

/// How long a request that goes up as it comes, or a transaction that cannot be carried, may pause before it
/// gives back its pass.
const STALLED: Duration = Duration::from_millis(100);

impl Session {
    /// A client that does not log in goes when its place is needed, or its time is over.
    pub(super) fn poll_stranger(&mut self, cx: &mut Context<'_>) {
        let Some(stranger) = &mut self.dispensable else { return };
        let until = stranger.until;
        if stranger.sent_away.as_mut().poll(cx).is_ready() {
            self.dispensable = None;
            match self.ending {
                None => self.end(Reason::MadeRoom),
                Some(_) => {
                    self.lose_client(io::ErrorKind::ConnectionAborted.into());
                    self.ending = Some(Reason::MadeRoom);
                }
            }
        } else if until.is_some_and(|until| self.timer.poll(until, cx).is_ready()) {
            self.end(Reason::NoLogin);
        }
    }

    /// A client that has left, or sends no more in the middle of a request, must not be waited for.
    pub(super) fn poll_patience(&mut self, cx: &mut Context<'_>) {
        if matches!(self.ending, Some(Reason::ClientClosed)) {
            self.is_leaving_us();
        }
        if let Some(at) = self.gone_by
            && self.timer.poll(at, cx).is_ready()
        {
            return self.lose_client(io::ErrorKind::ConnectionAborted.into());
        }
        if self.requested.pinned_since.is_some()
            && self.pending.is_empty()
            && !self.intake.is_incomplete()
            && self.timer.poll(self.intake.arrived + STALLED, cx).is_ready()
        {
            self.stall_transaction();
        }
        if self.ending.is_some() || !self.intake.awaits_rest() {
            return;
        }
        if self.intake.is_incomplete()
            && !self.intake.stalled
            && self.timer.poll(self.intake.arrived + STALLED, cx).is_ready()
        {
            self.stall();
            // The other deadlines are looked at again.
            cx.waker().wake_by_ref();
        }
        let until = self.intake.arriving.map_or(self.intake.arrived + GIVEN_UP, Arriving::until);
        if self.timer.poll(until.min(self.intake.arrived + GIVEN_UP), cx).is_ready() {
            self.end(Reason::Unfinished);
        }
    }
}
