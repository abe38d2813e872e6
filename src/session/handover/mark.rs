//! The mark on the present uplink: a message, by which both uplinks tell the same moment.

use std::sync::Arc;

use crate::changeover::Marker;
use crate::command::Channel;
use crate::resp::encode;
use crate::session::Session;
use crate::session::protocol::frame_filter::Meaning;

/// What may be read for a client that does not read, so that the mark's confirmation is found.
const READ_AHEAD: usize = 256 * 1024;

impl Session {
    /// No reply, transaction or shard subscription would be confused by SSUBSCRIBE.
    pub(in crate::session) fn may_subscribe_mark(&self) -> bool {
        self.pending.is_empty()
            && self.requested.transaction().is_none()
            && !self.intake.is_incomplete()
            && self.shards() == 0
    }

    /// Has the mark sent to this client's present uplink connection, too.
    pub(in crate::session) fn subscribe_mark(&mut self, marker: Arc<Marker>) {
        self.unsubscribe_mark();
        let (resp3, shards) = (self.state.resp3, self.shards());
        self.link.out.push(&marker.subscribe());
        let filter = self.replies.filter.get_or_insert_default();
        filter.keep_back(marker.beginning(resp3));
        filter.expect(marker.confirmation(resp3, true, shards + 1), Meaning::Noise);
        filter.expect(marker.message(resp3), Meaning::Mark);
        self.replies.marker = Some(marker);
    }

    /// Unsubscribes from the mark, but not within a request, or a transaction, which would queue that.
    pub(in crate::session) fn unsubscribe_mark(&mut self) {
        let free = self.requested.transaction().is_none() && !self.intake.is_incomplete();
        let Some(marker) = self.replies.marker.take_if(|_| free) else { return };
        let confirmation = marker.confirmation(self.state.resp3, false, self.shards());
        self.link.out.push(&marker.unsubscribe());
        let filter = self.replies.filter.get_or_insert_default();
        filter.forget_mark();
        filter.keep_back(marker.beginning(self.state.resp3));
        filter.expect(confirmation, Meaning::Noise);
    }

    /// Before the next request, if nobody needs it any more.
    pub(in crate::session) fn unsubscribe_late(&mut self) {
        if self.handover.is_idle() {
            self.unsubscribe_mark();
        }
    }

    /// The present uplink stays: the mark means nothing any more, whether it comes or not.
    pub(in crate::session) fn keep_uplink_in_spite_of_mark(&mut self) {
        // Where a channel carries it, it may be on its way.
        let sure = self.replies.marker.is_none();
        if let Some(filter) = &mut self.replies.filter {
            match sure {
                true => filter.ignore_mark(),
                false => filter.forget_mark(),
            }
        }
        self.unsubscribe_mark();
        // What came after the mark is for the client now.
        self.replies.at_mark = false;
    }

    /// RESET ends all subscriptions, without a word.
    pub(in crate::session) fn forget_mark(&mut self) {
        self.replies.marker = None;
        self.replies.filter.iter_mut().for_each(|it| it.forget_mark());
    }

    /// The uplink has not confirmed the subscription to the mark: if the mark were published now, it could be missed.
    /// (For a client that does not read, its uplink is read some way ahead and no further: that must hold up nobody
    /// else.)
    pub(in crate::session) fn awaits_confirmation(&self) -> bool {
        let awaits = self.replies.filter.as_ref().is_some_and(|filter| filter.awaits_noise());
        awaits && self.to_client.len() < READ_AHEAD
    }

    /// The uplink is read although the client has yet to take what came before: the others wait for the
    /// confirmation.
    pub(in crate::session) fn reads_ahead(&self) -> bool {
        self.handover.cutover().is_some() && self.awaits_confirmation()
    }

    fn shards(&self) -> i64 {
        self.state.subscriptions(Channel::Shard)
    }

    /// Without a channel of the proxy's own, what comes before this answer is all that the old
    /// uplink has to say.
    pub(in crate::session) fn ping_for_mark(&mut self) {
        let pong: &[u8] =
            if self.state.resp3 { b"+PONG\r\n" } else { b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" };
        self.link.out.push(&encode::request(["PING"]));
        self.replies.filter.get_or_insert_default().expect(pong.to_vec(), Meaning::Mark);
    }
}
