//! Clients that let others wait: those that do not log in, guess passwords, stop in the middle of a request, or
//! have left.

use std::io;
use std::task::Context;
use std::time::Duration;

use tracing::warn;

use super::Session;
use super::close::Reason;
use super::intake::{Arriving, GIVEN_UP};
use crate::clock;
use crate::gate::GateShut;
use crate::log::RateLimit;

/// How long a client that has not logged in waits after what it has sent was read.
pub(super) const STRANGERS_PACE: Duration = Duration::from_millis(1);
/// How long a client waits after a wrong password, for each that it gave so far; and at most.
const FAILED_LOGIN: Duration = Duration::from_millis(20);
const LONGEST_PENALTY: Duration = Duration::from_secs(1);
/// How long a request that goes up as it comes, or a transaction that cannot be carried, may pause before it
/// gives back its pass.
const STALLED: Duration = Duration::from_millis(100);

impl Session {
    pub(super) fn authenticate(&mut self, authenticated: bool) {
        self.requested.set_authenticated(authenticated);
        self.intake.set_limits(authenticated);
    }

    /// The login succeeded: the client counts as a stranger no more, and keeps its place.
    pub(super) fn logged_in(&mut self) {
        self.authenticate(true);
        self.dispensable = None;
    }

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

    /// Stops reading the client for at least this time.
    pub(super) fn slow_down(&mut self, time: Duration) {
        let until = clock::now() + time;
        self.login.slowed_until = self.login.slowed_until.max(Some(until));
    }

    /// The client gave a wrong password, and is told so late. Each makes the next take longer, and all clients
    /// together are told of so many in a second only.
    pub(super) fn login_failed(&mut self, reply: Vec<u8>) {
        static FAILED: RateLimit = RateLimit::one_a_second();
        self.shared.metrics.logins_failed.inc();
        if let Some(suppressed) = FAILED.pass() {
            warn!(client = %self.peer, suppressed, "a client gave a wrong password, or user");
        }
        self.login.failed = self.login.failed.saturating_add(1);
        let now = clock::now();
        let own = (FAILED_LOGIN * self.login.failed).min(LONGEST_PENALTY);
        let of_all = self.shared.strangers.failed_login(now) - now;
        self.slow_down(own.max(of_all));
        self.login.late_reply = Some(reply);
    }

    /// A client that guesses passwords, or floods before it has logged in, is read slowly.
    pub(super) fn slowed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.login.slowed_until else { return false };
        if self.timer.poll(until, cx).is_pending() {
            return true;
        }
        self.login.slowed_until = None;
        if let Some(reply) = self.login.late_reply.take() {
            self.answer(reply);
        }
        false
    }

    /// The client has sent nothing for a while, in the middle of a request that goes up as it comes.
    pub(super) fn stall(&mut self) {
        // Unless the uplink did not wait for its end to answer.
        if !self.intake.stalled && !self.pending.is_empty() && self.passes.held() > 0 {
            self.intake.stalled = true;
            self.release(1);
            self.stall_transaction();
        }
    }

    /// The client has sent nothing for a while, in a transaction that only this uplink can finish.
    fn stall_transaction(&mut self) {
        if self.requested.pinned_since.take().is_some() {
            self.release(1);
        }
    }

    /// More comes of a request that had stalled.
    pub(super) fn readmit(&mut self) -> Result<(), GateShut> {
        self.enter()?;
        self.intake.stalled = false;
        Ok(())
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
