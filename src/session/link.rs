//! The connection to the uplink: dialled, written to, lost.

use std::task::{Context, Poll};
use std::time::Instant;

use super::close::Reason;
use super::protocol::expected::{Expected, Question};
use super::{Link, Session};
use crate::resp::encode;
use crate::uplink::{Fresh, Id};

impl Session {
    /// True when the uplink has just become usable.
    pub(super) fn poll_dial(&mut self, cx: &mut Context<'_>) -> bool {
        let Link::Dialling(dial) = &mut self.uplink else { return false };
        match dial.as_mut().poll(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(fresh)) => {
                self.connect(fresh);
                self.send_up(cx, &[]);
                true
            }
            Poll::Ready(Err(why)) => {
                self.lose_uplink(why.into());
                false
            }
        }
    }

    /// This is the uplink from now on.
    pub(super) fn connect(&mut self, fresh: Fresh) {
        let Fresh { stream, id, early } = fresh;
        self.uplink = Link::Live(stream);
        self.unread = early;
        match id {
            Id::Is(id) => self.is_known_as(id),
            Id::Secret => self.uplink_id = None,
            Id::Unasked => {
                self.pending.push_ahead(Expected::Asked(Question::Id));
                self.to_uplink.push_ahead(&encode::request(["CLIENT", "ID"]));
            }
        }
    }

    /// The uplink has told the connection's id.
    pub(super) fn is_known_as(&mut self, id: u64) {
        self.uplink_id = Some(id);
        let id = self.shared.ids.connected(self.generation.uplink_since, self.id, id);
        self.id = Some(id);
        if self.state.touched {
            self.shared.ids.touched(id, true);
        }
    }

    pub(super) fn dial(&mut self) {
        let (shared, generation) = (self.shared.clone(), self.generation.clone());
        // Before the first one, there was nothing to be remembered.
        let script = self.restore.take().map(|script| *script).unwrap_or_default();
        let dial = async move { shared.dial(&generation, script).await };
        self.uplink = Link::Dialling(Box::pin(dial));
    }

    /// What is owed will not come. As with a Redis that died, the client is told nothing, unless there
    /// are words for it.
    pub(super) fn lose_uplink(&mut self, reason: Reason) {
        self.uplink = Link::Lost;
        self.to_uplink.clear();
        if !self.pending.is_empty()
            && !self.partial
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

    /// What the uplink said before it closed is for the client: there are too many, say.
    fn last_words(&mut self, reason: &Reason) -> Option<Vec<u8>> {
        match (reason, self.refusal.take()) {
            (Reason::UplinkClosed | Reason::UplinkLost(_), Some(line)) => {
                Some([b"-", &line[..]].concat())
            }
            _ => reason.last_words(),
        }
    }

    /// Writes to the uplink what waits and then `tail`; dials if there is none yet.
    pub(super) fn send_up(&mut self, cx: &mut Context<'_>, tail: &[u8]) {
        match &mut self.uplink {
            Link::Absent => {
                self.to_uplink.push(tail);
                if self.to_uplink.len() > 0 {
                    self.dial();
                }
            }
            Link::Dialling(_) => self.to_uplink.push(tail),
            Link::Live(stream) => match self.to_uplink.send(stream, cx, tail) {
                Ok(()) if self.to_uplink.is_clear() => self.all_sent(),
                Ok(()) => {}
                Err(why) => {
                    // Replies may still be on their way down, also to a request that was not
                    // sent whole; reading them will find the end.
                    self.to_uplink.clear();
                    if !self.can_do_without_uplink() {
                        self.ending.get_or_insert(Reason::UplinkLost(why));
                    }
                }
            },
            Link::Lost => {}
        }
    }

    fn all_sent(&mut self) {
        self.pending.sent(self.arrived, Instant::now(), self.intake.is_incomplete());
        if self.requested.pinned_since.is_some() {
            self.unpin();
        }
    }
}
