//! The connection to the uplink: dialled, written to, lost.

use std::task::{Context, Poll, ready};

use tracing::debug;

use super::Session;
use super::close::Reason;
use super::link::LinkState;
use super::protocol::expected::{Expected, Question};
use crate::clock;
use crate::resp::encode;
use crate::shared::Hurry;
use crate::uplink::{self, Fresh, Id};

impl Session {
    /// Ready when the uplink has just become usable, or cannot be reached.
    pub(super) fn poll_dial(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), uplink::Error>> {
        let LinkState::Dialling(dial) = &mut self.link.state else { return Poll::Pending };
        let fresh = ready!(dial.as_mut().poll(cx))?;
        self.connect(fresh);
        self.send_up(cx, &[]);
        Poll::Ready(Ok(()))
    }

    /// Makes `fresh` the uplink.
    pub(super) fn connect(&mut self, fresh: Fresh) {
        let Fresh { stream, id, early } = fresh;
        self.link.state = LinkState::Live(stream);
        self.link.ends = None;
        self.replies.unread = early;
        match id {
            Id::Is(id) => self.is_known_as(id),
            Id::Secret => self.link.id = None,
            Id::Unasked => {
                self.pending.push_ahead(Expected::Asked(Question::Id));
                self.link.out.push_ahead(&encode::request(["CLIENT", "ID"]));
            }
        }
    }

    /// The uplink has told the connection's id.
    pub(super) fn is_known_as(&mut self, id: u64) {
        self.link.id = Some(id);
        let id = self.shared.ids.connected(self.generation.uplink_since, self.id, id);
        self.id = Some(id);
        if self.state.is_touched() {
            self.shared.ids.touched(id, true);
        }
    }

    pub(super) fn dial(&mut self) {
        // Before the first one, there was nothing to be remembered.
        let restore = match &mut self.link.state {
            LinkState::Absent(absent) => absent.restore.take(),
            _ => None,
        };
        let script = restore.map(|script| *script).unwrap_or_default();
        self.link.outages = self.shared.outages.number();
        let hurry = if self.link.out.len() > 0 { Hurry::Waits } else { Hurry::Idle };
        let (shared, generation) = (self.shared.clone(), self.generation.clone());
        let dial = async move { shared.dial(&generation, script, hurry).await };
        self.link.state = LinkState::Dialling(Box::pin(dial));
    }

    /// The uplink is lost: the client is told the last words, if there are any, and the session ends.
    pub(super) fn lose_uplink(&mut self, reason: Reason) {
        self.link.state = LinkState::Lost;
        self.link.out.clear();
        if !self.pending.is_empty()
            && !self.replies.partial
            && let Some(words) = self.last_words(&reason)
        {
            self.to_client.push(&words);
        }
        self.forget_owed();
        // The first reason counts, but for a failed write, of which this is the cause.
        if !matches!(self.ending, Some(Reason::ClientClosed | Reason::Quit | Reason::Protocol(_))) {
            self.ending = Some(reason);
        }
    }

    /// During a pause, an uplink that goes away is one that is being replaced: a client to whom
    /// nothing is owed waits for the next.
    pub(super) fn can_do_without_uplink(&self) -> bool {
        let replaced = self.handover.is_leaving() || !self.shared.gate.is_open();
        let safe =
            self.pending.is_for_the_proxy() && !self.replies.partial && self.passes.held() == 0;
        replaced && safe && self.ending.is_none() && self.uncarried().is_none()
    }

    /// What the uplink said before it closed is for the client: there are too many, say.
    fn last_words(&mut self, reason: &Reason) -> Option<Vec<u8>> {
        match (reason, self.link.refusal.take()) {
            (Reason::UplinkClosed | Reason::UplinkLost(_), Some(line)) => {
                Some([b"-", &line[..]].concat())
            }
            _ => reason.last_words(),
        }
    }

    /// Writes to the uplink what waits and then `tail`; dials if there is none yet.
    pub(super) fn send_up(&mut self, cx: &mut Context<'_>, tail: &[u8]) {
        if self.intake.is_incomplete() {
            self.link.unanswered.push_part();
        } else if !tail.is_empty() {
            let pending = &self.pending;
            self.link.unanswered.push(tail, || pending.requests());
        }
        match &mut self.link.state {
            // They wait for the gate.
            LinkState::Absent(absent) if absent.held > 0 => self.link.out.push(tail),
            LinkState::Absent(_) => {
                self.link.out.push(tail);
                if self.link.out.len() > 0 {
                    self.dial();
                }
            }
            LinkState::Dialling(_) | LinkState::Doubtful(_) => self.link.out.push(tail),
            LinkState::Live(stream) => match self.link.out.send(stream, cx, tail) {
                Ok(()) if self.link.out.is_clear() => self.all_sent(),
                Ok(()) => {}
                // Replies may still be on their way down, also to a request that was not sent whole; reading
                // them will find the end.
                Err(why) => debug!(client = %self.peer, %why, "the uplink takes no more requests"),
            },
            LinkState::Lost => {}
        }
    }

    fn all_sent(&mut self) {
        self.pending.sent(self.intake.arrived, clock::now(), self.intake.is_incomplete());
        if self.requested.pinned_since.is_some() {
            self.unpin();
        }
    }
}
