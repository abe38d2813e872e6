//! Clients that let others wait: those that do not log in, guess passwords, stop in the middle of a request, or
//! have left.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::time::{Duration, Instant};

use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::warn;

use super::Session;
use super::close::Reason;
use crate::gate::GateShut;
use crate::log::RateLimit;
use crate::strangers::Stranger;

/// How long a client may take to log in.
const LOGIN: Duration = Duration::from_secs(60);
/// How long a client that has not logged in waits after what it has sent was read.
pub(super) const STRANGERS_PACE: Duration = Duration::from_millis(1);
/// How long a client waits after a wrong password, for each that it gave so far; and at most.
const FAILED_LOGIN: Duration = Duration::from_millis(20);
const LONGEST_PENALTY: Duration = Duration::from_secs(1);
/// How long the rest of a request that goes up as it comes, or of a transaction that cannot be carried, may
/// stay out before it holds up nobody.
const STALLED: Duration = Duration::from_millis(100);
/// How long the rest of a request may stay out before the client is given up.
const GIVEN_UP: Duration = Duration::from_secs(60);
/// A request that takes longer than that must have come at this many bytes a second.
const SLOWEST: u64 = 1024;

/// A request of which only a part has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arriving {
    /// When its first byte came.
    pub(super) since: Instant,
    /// Bytes that have come since then.
    pub(super) bytes: u64,
}

impl Arriving {
    /// When its client is given up, however it goes on.
    fn until(self) -> Instant {
        self.since + GIVEN_UP + Duration::from_secs(self.bytes / SLOWEST)
    }
}

/// A client that makes room for others: it has not logged in, or it has hung up.
pub(super) struct Dispensable {
    sent_away: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When it is given up.
    until: Option<Instant>,
    _stranger: Stranger,
}

impl Dispensable {
    pub(super) fn not_logged_in(stranger: Stranger) -> Box<Self> {
        let sent_away = Box::pin(stranger.sent_away());
        let until = Some(Instant::now() + LOGIN);
        Box::new(Dispensable { sent_away, until, _stranger: stranger })
    }

    pub(super) fn hung_up(stranger: Stranger) -> Box<Self> {
        Box::new(Dispensable { until: None, ..*Dispensable::not_logged_in(stranger) })
    }
}

impl Session {
    pub(super) fn authenticate(&mut self, authenticated: bool) {
        self.requested.set_authenticated(authenticated);
        self.intake.set_limits(authenticated);
    }

    /// The client is a stranger no more; nobody may take its place once it knows that.
    pub(super) fn logged_in(&mut self) {
        self.authenticate(true);
        self.stranger = None;
    }

    /// A client that does not log in goes when its place is needed, or its time is over.
    pub(super) fn poll_stranger(&mut self, cx: &mut Context<'_>) {
        let Some(stranger) = &mut self.stranger else { return };
        let until = stranger.until;
        if stranger.sent_away.as_mut().poll(cx).is_ready() {
            self.stranger = None;
            match self.ending {
                None => self.end(Reason::MadeRoom),
                Some(_) => {
                    self.lose_client(io::ErrorKind::ConnectionAborted.into());
                    self.ending = Some(Reason::MadeRoom);
                }
            }
        } else if until.is_some_and(|until| self.poll_timer(until, cx).is_ready()) {
            self.end(Reason::NoLogin);
        }
    }

    /// The client is not read for this long, or for as long as it is not read already.
    pub(super) fn slow_down(&mut self, time: Duration) {
        let until = Instant::now() + time;
        self.intake.slowed_until = self.intake.slowed_until.max(Some(until));
    }

    /// The client gave a wrong password, and is told so late. Each makes the next take longer, and all clients
    /// together are told of so many in a second only.
    pub(super) fn login_failed(&mut self, reply: Vec<u8>) {
        static FAILED: RateLimit = RateLimit::one_a_second();
        self.shared.metrics.logins_failed.inc();
        if let Some(suppressed) = FAILED.pass() {
            warn!(client = %self.peer, suppressed, "a client gave a wrong password, or user");
        }
        self.intake.failed_logins = self.intake.failed_logins.saturating_add(1);
        let now = Instant::now();
        let own = (FAILED_LOGIN * self.intake.failed_logins).min(LONGEST_PENALTY);
        let of_all = self.shared.strangers.failed_login(now) - now;
        self.slow_down(own.max(of_all));
        self.intake.late_reply = Some(reply);
    }

    /// A client that guesses passwords, or floods before it has logged in, is read slowly.
    pub(super) fn slowed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.intake.slowed_until else { return false };
        if self.poll_timer(until, cx).is_pending() {
            return true;
        }
        self.intake.slowed_until = None;
        if let Some(reply) = self.intake.late_reply.take() {
            self.answer(reply);
        }
        false
    }

    /// The client has sent nothing for a while, in the middle of a request that goes up as it comes.
    pub(super) fn stall(&mut self) {
        // Unless the uplink did not wait for its end to answer.
        if !self.intake.stalled && !self.pending.is_empty() && self.passes.held() > 0 {
            self.intake.stalled = true;
            self.passes.leave(1);
            self.stall_transaction();
        }
    }

    /// The client has sent nothing for a while, in a transaction that only this uplink can finish.
    fn stall_transaction(&mut self) {
        if self.requested.pinned_since.take().is_some() {
            self.passes.leave(1);
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
            && self.poll_timer(at, cx).is_ready()
        {
            return self.lose_client(io::ErrorKind::ConnectionAborted.into());
        }
        if self.requested.pinned_since.is_some()
            && self.pending.is_empty()
            && !self.intake.is_incomplete()
            && self.poll_timer(self.arrived + STALLED, cx).is_ready()
        {
            self.stall_transaction();
        }
        if self.ending.is_some() || !self.intake.awaits_rest() {
            return;
        }
        if self.intake.is_incomplete()
            && !self.intake.stalled
            && self.poll_timer(self.arrived + STALLED, cx).is_ready()
        {
            self.stall();
            // The other deadlines are looked at again.
            cx.waker().wake_by_ref();
        }
        let until = self.intake.arriving.map_or(self.arrived + GIVEN_UP, Arriving::until);
        if self.poll_timer(until.min(self.arrived + GIVEN_UP), cx).is_ready() {
            self.end(Reason::Unfinished);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_too_slowly_is_given_up_however_it_goes_on() {
        let since = Instant::now();
        let seconds = |bytes| (Arriving { since, bytes }.until() - since).as_secs();
        // A byte every few seconds is no excuse; what comes as fast as a modem's may take its time.
        assert_eq!(seconds(20), 60);
        assert_eq!(seconds(512 * 1024 * 1024), 60 + 512 * 1024);
    }
}
