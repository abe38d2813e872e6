//! The next uplink: it is connected to, and told what the client carries, while the present one
//! serves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::protocol::frame_filter::{FrameFilter, Meaning, Seen};
use super::protocol::replay;
use super::protocol::state::Carried;
use super::{Dial, Link, Session, poll_read};
use crate::changeover::{Attempt, Marker};
use crate::command::Channel;
use crate::resp::reply::{self, Scanner, Step};
use crate::uplink::{Answer, Fresh, Id};

/// A session's next uplink connection.
pub(super) struct Standby {
    /// Of this generation, and no other of the same number.
    pub(super) attempt: Arc<Attempt>,
    /// What it was told.
    pub(super) primed: Carried,
    pub(super) link: StandbyLink,
    /// Its messages are not for the client until the mark.
    pub(super) listens: Option<Box<Listens>>,
    /// It is subscribed to the mark.
    pub(super) marker: Option<Arc<Marker>>,
    /// It was told whom to send invalidations to, if that is another connection.
    pub(super) redirected: bool,
    /// It was told what can only be told last.
    pub(super) complete: bool,
    /// Somebody waits until it is made.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

pub(super) enum StandbyLink {
    Busy(Dial),
    Ready(Box<Fresh>),
    /// It does not take what the client carries.
    Refused,
}

impl Standby {
    /// It cannot be told anything now: it is being connected to, or in the middle of a message.
    pub(super) fn is_busy(&self) -> bool {
        let in_frame = self.listens.as_ref().is_some_and(|listens| listens.scanner.in_frame());
        in_frame || matches!(self.link, StandbyLink::Busy(_))
    }

    pub(super) fn is_refused(&self) -> bool {
        matches!(self.link, StandbyLink::Refused)
    }
}

/// Looks for the mark.
pub(super) struct Listens {
    pub(super) scanner: Scanner,
    pub(super) filter: FrameFilter,
}

impl Listens {
    /// Without a mark, everything is passed over, until the connection is in use.
    fn new(mark: Option<Vec<u8>>) -> Box<Self> {
        let mut scanner = Scanner::default();
        scanner.set_peek(true);
        Box::new(Listens { scanner, filter: mark.map(FrameFilter::until).unwrap_or_default() })
    }

    /// Passes over everything before the mark; gives what comes after it once that is found.
    fn feed(&mut self, input: &[u8]) -> Result<Option<Vec<u8>>, reply::Error> {
        let mut pos = 0;
        while pos < input.len() {
            let start = pos;
            if !self.scanner.in_frame() {
                self.filter.begin();
            }
            let ends = matches!(self.scanner.next(input, &mut pos)?, Step::End { .. });
            if self.filter.is_matching()
                && self.filter.feed(&input[start..pos], ends) == Seen::Frame(Meaning::Mark)
            {
                return Ok(Some(input[pos..].to_vec()));
            }
        }
        Ok(None)
    }
}

/// How a connection is listened to whose client is subscribed.
pub(super) fn listens(attempt: &Attempt, subscribed: bool, resp3: bool) -> Option<Box<Listens>> {
    if !subscribed || attempt.marker().is_none() {
        return None;
    }
    attempt.listen();
    Some(Listens::new(attempt.next_marker().map(|marker| marker.message(resp3))))
}

impl Session {
    pub(super) fn prepare(&mut self, attempt: Arc<Attempt>, permit: OwnedSemaphorePermit) {
        // For an earlier generation that did not come.
        self.standby = None;
        let ends = self.ending.is_some() || self.uncarried().is_some();
        if !self.is_connected() || ends {
            return;
        }
        let mut primed = self.state.carried();
        if self.listens_only() && self.needs_more_than_told() {
            // Afterwards, that could not be told any more.
            primed = primed.without_channels();
        }
        let mut script = replay::prepared(&primed);
        let subscribed = primed.subscribed();
        let marker = attempt.next_marker().filter(|_| subscribed).cloned();
        if let Some(marker) = &marker {
            script.repeat(&marker.subscribe(), "SSUBSCRIBE", Answer::Confirmations(1));
        }
        let listens = listens(&attempt, subscribed, primed.resp3);
        if let Some(marker) = attempt.marker().filter(|_| self.state.subscribed())
            && self.may_subscribe_mark()
        {
            self.subscribe_mark(marker.clone());
        }
        // One that says nothing may be refused all the same (`maxclients`).
        script.ask("PING", &[], Answer::Pong);
        let (shared, ready) = (self.shared.clone(), attempt.clone());
        let link = StandbyLink::Busy(Box::pin(async move {
            let result = shared.dial(ready.generation(), script).await;
            ready.connected(&result);
            result
        }));
        self.standby = Some(Box::new(Standby {
            attempt,
            primed,
            link,
            listens,
            marker,
            redirected: false,
            complete: false,
            permit: Some(permit),
        }));
        self.mark();
    }

    /// Nothing that the client has sent can be shifted or counted wrongly by it.
    fn may_subscribe_mark(&self) -> bool {
        self.pending.is_empty()
            && self.requested.transaction().is_none()
            && !self.intake.is_incomplete()
            && self.shards() == 0
    }

    /// Has the mark sent to this client's present uplink connection, too.
    pub(super) fn subscribe_mark(&mut self, marker: Arc<Marker>) {
        self.unsubscribe_mark();
        let (resp3, shards) = (self.state.resp3, self.shards());
        self.to_uplink.push(&marker.subscribe());
        let filter = self.filter.get_or_insert_default();
        filter.keep_back(marker.beginning(resp3));
        filter.expect(marker.confirmation(resp3, true, shards + 1), Meaning::Noise);
        filter.expect(marker.message(resp3), Meaning::Mark);
        self.marker = Some(marker);
    }

    /// Ends that. Not in the middle of a request, nor in a transaction, where it would be queued.
    pub(super) fn unsubscribe_mark(&mut self) {
        let free = self.requested.transaction().is_none() && !self.intake.is_incomplete();
        let Some(marker) = self.marker.take_if(|_| free) else { return };
        let confirmation = marker.confirmation(self.state.resp3, false, self.shards());
        self.to_uplink.push(&marker.unsubscribe());
        let filter = self.filter.get_or_insert_default();
        // On the next uplink, it may be on its way yet.
        if !filter.drops {
            filter.forget_mark();
        }
        filter.keep_back(marker.beginning(self.state.resp3));
        filter.expect(confirmation, Meaning::Noise);
        self.mark();
    }

    /// Before the next request, if nobody needs it any more.
    pub(super) fn unsubscribe_late(&mut self) {
        if self.standby.is_none() && self.cutover.is_none() {
            self.unsubscribe_mark();
        }
    }

    /// RESET ends all subscriptions, without a word.
    pub(super) fn forget_mark(&mut self) {
        self.marker = None;
        self.filter.iter_mut().filter(|it| !it.drops).for_each(|it| it.forget_mark());
    }

    /// The present uplink was asked to send this mark.
    pub(super) fn is_marked_by(&self, marker: &Arc<Marker>) -> bool {
        self.marker.as_ref().is_some_and(|it| Arc::ptr_eq(it, marker))
    }

    /// It has not confirmed that yet: the mark, published now, could come before it has looked. (For a
    /// client that does not read, its uplink is not read either: that must hold up nobody else.)
    pub(super) fn awaits_confirmation(&self) -> bool {
        let awaits = self.filter.as_ref().is_some_and(|filter| filter.awaits_noise());
        awaits && self.to_client.is_clear()
    }

    fn shards(&self) -> i64 {
        self.state.subscriptions(Channel::Shard)
    }

    /// What will be the uplink. True if there is more to be done, for the present one, too.
    pub(super) fn poll_standby(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> bool {
        if let Some(revive) = &mut self.revive
            && Pin::new(revive).poll(cx).is_ready()
        {
            self.revive = None;
            if matches!(self.uplink, Link::Absent) && self.ending.is_none() {
                self.dial();
                return true;
            }
        }
        if self.standby.is_some() {
            self.poll_standby_link(cx, scratch);
            self.mark();
        }
        self.poll_cutover()
    }

    fn poll_standby_link(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        let Some(standby) = &mut self.standby else { return };
        if let StandbyLink::Busy(dial) = &mut standby.link {
            match dial.as_mut().poll(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(mut fresh)) => {
                    if let (Some(seen), Id::Is(id)) = (self.id, fresh.id) {
                        self.shared.ids.prepared(seen, id);
                    }
                    let early = std::mem::take(&mut fresh.early);
                    standby.link = StandbyLink::Ready(Box::new(fresh));
                    // Not before its id is known to all.
                    standby.permit = None;
                    self.overhear(&early);
                }
                Poll::Ready(Err(why)) if standby.attempt.costs_one_client(&why) => {
                    warn!(client = %self.peer, %why, "the new uplink does not take this client");
                    (standby.link, standby.permit) = (StandbyLink::Refused, None);
                }
                Poll::Ready(Err(why)) => {
                    self.standby = None;
                    self.cutover_failed(&why);
                }
            }
        }
        while let Some(standby) = &mut self.standby {
            let (StandbyLink::Ready(fresh), Some(_)) = (&mut standby.link, &standby.listens) else {
                break;
            };
            match poll_read(&mut fresh.stream, cx, scratch) {
                Poll::Pending => break,
                Poll::Ready(Ok(read)) if read > 0 => self.overhear(&scratch[..read]),
                Poll::Ready(_) => self.standby = None,
            }
        }
    }

    /// What the next uplink says already. Messages before the mark come from the present one.
    fn overhear(&mut self, input: &[u8]) {
        let Some(standby) = &mut self.standby else { return };
        let StandbyLink::Ready(fresh) = &mut standby.link else { return };
        match standby.listens.as_mut().map(|listens| listens.feed(input)) {
            None => fresh.early.extend_from_slice(input),
            Some(Ok(None)) => {}
            Some(Ok(Some(after))) => {
                fresh.early = after;
                standby.listens = None;
            }
            Some(Err(_)) => self.standby = None,
        }
    }
}
