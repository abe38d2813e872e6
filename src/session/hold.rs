//! A client whose connection to the uplink broke, or cannot be made. The watch is asked: if the uplink has closed
//! this one connection alone, the client is closed as well; if it is lost, the client is held until it is back.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::Session;
use super::close::Reason;
use super::intake::Waits;
use super::link::{Doubt, LinkState, Linked, Reads};
use super::protocol::expected::{Expected, Unblocking};
use super::refused::may_refuse;
use crate::clock;
use crate::outage::Verdict;
use crate::session::blocking::Returned;

const REDIRECTED: &str = "client-side caching that is redirected to another connection";

/// What of a client's requests can be sent again.
struct Again {
    requests: Vec<u8>,
    count: u32,
}

/// A request was sent that may have been executed, and that does more than to read.
struct OutcomeUnknown;

impl Session {
    /// The connection to the uplink broke.
    pub(super) fn uplink_ends(&mut self, reason: Reason) {
        // The gate is shut a moment before the outage is told.
        let is_replaced = self.handover.is_leaving() || !self.redirects();
        if self.can_do_without_uplink() && is_replaced {
            self.let_go();
        } else {
            let not_executed = self.take_refused();
            self.doubt(reason, true, not_executed);
        }
    }

    /// How many of the requests in flight were refused, or have only read, by the replies that were kept.
    fn take_refused(&mut self) -> usize {
        self.replies.refused.take().map_or(0, |refused| refused.answered)
    }

    fn redirects(&self) -> bool {
        self.state.tracking().is_some_and(|tracking| tracking.redirect.is_some())
    }

    /// Makes the connection, or asks what became of it.
    pub(super) fn poll_link(&mut self, cx: &mut Context<'_>) -> Linked {
        match &self.link.state {
            LinkState::Live(_) if self.link.ends == Some(Reads::Nothing) => {
                let not_executed = self.take_refused();
                self.hold_client(Reason::UplinkClosed, true, not_executed);
                Linked::Anew
            }
            LinkState::Live(_) | LinkState::Lost => Linked::AsBefore,
            LinkState::Dialling(_) => match self.poll_dial(cx) {
                Poll::Pending => Linked::AsBefore,
                Poll::Ready(Ok(())) => Linked::Anew,
                Poll::Ready(Err(why)) if why.is_away() => {
                    self.doubt(why.into(), false, 0);
                    Linked::Anew
                }
                Poll::Ready(Err(why)) => {
                    self.lose_uplink(why.into());
                    Linked::AsBefore
                }
            },
            LinkState::Doubtful(_) => self.poll_verdict(cx),
            LinkState::Absent(_) => self.poll_revival(cx),
        }
    }

    /// Asks whether the uplink is lost.
    fn doubt(&mut self, reason: Reason, was_live: bool, not_executed: usize) {
        let is_hopeless = self.ending.is_some()
            || self.replies.partial
            || self.link.refusal.is_some()
            || self.uncarried().is_some();
        if is_hopeless {
            return self.lose_uplink(reason);
        }
        let verdict = Box::pin(self.shared.outages.verdict(self.link.outages));
        let doubt = Doubt { reason, stream: None, was_live, not_executed, verdict };
        self.link.state = LinkState::Doubtful(Box::new(doubt));
    }

    /// Whether the reply that begins here is a refusal that need not go down: all that was sent is known, and none
    /// of it is the proxy's own.
    pub(super) fn may_be_refused(&self, reply: &[u8]) -> bool {
        may_refuse(reply)
            && !self.replies.takes_refusals
            && self.replies.filter.is_none()
            && self.ending.is_none()
            && self.handover.cutover().is_none()
            && !self.handover.is_leaving()
            && !self.state.hears_unasked()
            && !self.pending.is_unfolding()
            && self.pending.owes_clients_alone()
            && self.link.unanswered.last(self.pending.requests()).is_some()
    }

    /// All that was sent was refused, or has only read: whether another server would be better is asked.
    pub(super) fn doubt_refusals(&mut self) {
        let verdict = Box::pin(self.shared.outages.verdict_now(self.link.outages));
        let before = std::mem::replace(&mut self.link.state, LinkState::Lost);
        let LinkState::Live(stream) = before else { return };
        self.link.state = LinkState::Doubtful(Box::new(Doubt {
            reason: Reason::UplinkClosed,
            stream: Some(stream),
            was_live: false,
            not_executed: 0,
            verdict,
        }));
    }

    fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Linked {
        let LinkState::Doubtful(doubt) = &mut self.link.state else { return Linked::AsBefore };
        let Poll::Ready(verdict) = doubt.verdict.as_mut().poll(cx) else { return Linked::AsBefore };
        let reason = std::mem::replace(&mut doubt.reason, Reason::UplinkClosed);
        let (was_live, not_executed) = (doubt.was_live, doubt.not_executed);
        if let Some(stream) = doubt.stream.take()
            && (verdict == Verdict::Alone || self.again(was_live, not_executed).is_err())
        {
            // It refuses what it is there to refuse; or what was sent cannot be sent again.
            self.link.state = LinkState::Live(stream);
            return Linked::RefusalsCount;
        }
        match verdict {
            Verdict::Alone => self.lose_uplink(reason),
            Verdict::Lost => self.hold_client(reason, was_live, not_executed),
        }
        Linked::Anew
    }

    /// There may be an outage since the connection was made, which nobody has closed; or it has gone on for too
    /// long.
    pub(super) fn hear_of_outages(&mut self) {
        let outages = &self.shared.outages;
        if self.link.outages != outages.number() {
            match self.link.state {
                LinkState::Dialling(_) => self.hold_client(Reason::UplinkClosed, false, 0),
                // What the uplink has said before is for the client.
                LinkState::Live(_) => self.link.ends = Some(Reads::ToTheEnd),
                LinkState::Absent(_) | LinkState::Doubtful(_) | LinkState::Lost => {}
            }
        }
        let at_gate = self.intake.parked.as_ref().map(|parked| &parked.waits);
        let waits = self.link.held() > 0 || matches!(at_gate, Some(Waits::Gate(_)));
        if waits && let Some(why) = self.shared.outages.given_up() {
            self.lose_uplink(Reason::OutageTooLong(why));
        }
    }

    /// The uplink is lost: the client waits for the next one. `was_live` says that requests may have been
    /// executed.
    fn hold_client(&mut self, reason: Reason, was_live: bool, not_executed: usize) {
        if self.ending.is_some() || self.replies.partial || self.uncarried().is_some() {
            return self.lose_uplink(reason);
        }
        if self.redirects() {
            // The other connection has no number yet, and the client would not hear that nothing comes.
            return self.lose_uplink(Reason::NotCarried(REDIRECTED));
        }
        self.interrupt_blocked();
        match self.again(was_live, not_executed) {
            Err(OutcomeUnknown) => {
                self.shared.metrics.outcomes_unknown.inc();
                self.lose_uplink(Reason::OutcomeUnknown);
            }
            Ok(again) if again.count == 0 => self.let_go_for_outage(),
            Ok(again) => {
                if was_live || self.replies.refused.is_some() {
                    self.shared.metrics.asked_again.inc_by(u64::from(again.count));
                }
                self.hold_requests(&again);
            }
        }
    }

    fn let_go_for_outage(&mut self) {
        self.release(self.passes.held());
        self.let_go();
    }

    fn hold_requests(&mut self, again: &Again) {
        self.pending.begin_again();
        while let Some(local) = self.pending.take_local() {
            self.send_local(&local);
        }
        self.part_from_uplink();
        self.link.push(&again.requests, &self.pending);
        if let LinkState::Absent(absent) = &mut self.link.state {
            absent.held = again.count;
            absent.revive = Some(self.shared.gate.wait());
        }
        self.requested.pinned_since = None;
        self.release(self.passes.held());
        if let Some(why) = self.shared.outages.given_up() {
            self.lose_uplink(Reason::OutageTooLong(why));
        }
    }

    /// A command that waits for data goes back to the gate, for the time that is left.
    fn interrupt_blocked(&mut self) {
        if !self.pending.owed().last().is_some_and(|it| matches!(it, Expected::Blocking)) {
            return;
        }
        let returned = self.blocking.returned(Some(Unblocking::RoleChange), clock::now());
        if let Returned::Interrupted { frame, .. } = returned {
            self.pending.take_back();
            self.link.unanswered.take_back();
            self.park_ahead(&frame);
        }
    }

    /// The requests that are owed a reply, if all of them can be sent again. The first few were not executed.
    fn again(&self, was_live: bool, not_executed: usize) -> Result<Again, OutcomeUnknown> {
        let owed = self.pending.requests();
        if owed == 0 {
            return Ok(Again { requests: Vec::new(), count: 0 });
        }
        // What was queued is known up to EXEC.
        if self.pending.is_open() && self.requested.transaction().is_none() {
            return Err(OutcomeUnknown);
        }
        let unanswered = &self.link.unanswered;
        let requests = unanswered.last(owed).ok_or(OutcomeUnknown)?;
        let unsent = match was_live {
            true => unanswered.len().saturating_sub(self.link.out.len()),
            false => 0,
        };
        let owed_each = requests.iter().zip(self.pending.owed()).skip(not_executed);
        let can_be = owed_each.into_iter().all(|(request, awaited)| {
            request.at.end > unsent
                || match awaited.without_ids() {
                    Expected::Plain => request.reads,
                    // These change the connection alone, which is gone.
                    Expected::Effect(_) | Expected::Hello(_) => true,
                    Expected::Caching | Expected::Asked(_) => true,
                    Expected::Subscribed(_, names) | Expected::Unsubscribed(_, names) => {
                        names.are_all_left()
                    }
                    // Nothing is executed before EXEC.
                    Expected::Multi | Expected::Queued(_) => true,
                    _ => false,
                }
        });
        let (true, Some(first)) = (can_be, requests.first()) else { return Err(OutcomeUnknown) };
        let bytes = unanswered.bytes(first.at.start..unanswered.len());
        let count = u32::try_from(owed).unwrap_or(u32::MAX);
        Ok(Again { requests: bytes.to_vec(), count })
    }

    /// The gate is open, and the uplink is back: the connection is made without waiting for a request, and what
    /// was held is sent.
    fn poll_revival(&mut self, cx: &mut Context<'_>) -> Linked {
        let LinkState::Absent(absent) = &mut self.link.state else { return Linked::AsBefore };
        let Some(revive) = &mut absent.revive else { return Linked::AsBefore };
        if Pin::new(revive).poll(cx).is_pending() {
            return Linked::AsBefore;
        }
        absent.revive = None;
        let held = absent.held;
        if self.ending.is_some() {
            return Linked::AsBefore;
        }
        if held > 0 {
            if self.passes.enter().is_err() {
                absent.revive = Some(self.shared.gate.wait());
                return Linked::Anew;
            }
            self.passes.add(held - 1);
            absent.held = 0;
        }
        self.dial();
        Linked::Anew
    }
}
