//! What a session is like, for those who look for such sessions.

use super::standby::Standby;
use crate::changeover::{NOT_TAKEN, facets};
use crate::session::protocol::requested::Silence;
use crate::session::{Published, Session};

/// Only the uplink that has queued it can execute it.
const TOO_LARGE: &str = "a transaction that is too large to be carried";

impl Session {
    /// Publishes the session's facets if they may be others than those that were published last. The end of each
    /// turn calls this, and whatever gives back a pass or a permit.
    ///
    /// Nothing that changes a facet needs to do more: [`State`](crate::session::protocol::state::State) and
    /// [`Requested`](crate::session::protocol::requested::Requested) mark their own changes, a blocking command
    /// is compared, and in a handover all is computed anew.
    #[inline]
    pub(in crate::session) fn publish_changes(&mut self) {
        let is_changed = self.state.is_changed()
            | self.requested.is_changed()
            | (self.blocking.is_none() == self.published.blocked)
            | !self.handover.is_idle()
            | self.published.in_handover;
        if is_changed {
            self.publish_facets();
        }
    }

    /// The connection to which this one redirects its invalidations has to drop its cache at a handover.
    fn note_target(&mut self) {
        let target = self.state.tracking().and_then(|tracking| tracking.redirect);
        if target != self.target {
            self.shared.ids.redirected(self.target, target);
            self.target = target;
        }
    }

    fn publish_facets(&mut self) {
        self.state.changes_are_published();
        self.requested.changes_are_published();
        self.published =
            Published { blocked: !self.blocking.is_none(), in_handover: !self.handover.is_idle() };
        self.note_target();
        let state = &self.state;
        let bits = [
            (self.requested.transaction().is_some(), facets::TRANSACTION),
            (state.watching(), facets::WATCHING),
            (!self.blocking.is_none(), facets::BLOCKED),
            (state.subscribed(), facets::SUBSCRIBED),
            (state.tracking().is_some(), facets::TRACKING),
            (state.monitor, facets::MONITOR),
            (self.requested.silence() == Silence::Always, facets::SILENT),
            (self.needs_cutover(), facets::CUTOVER),
            (state.is_touched(), facets::TOUCHED),
            (state.tracking().is_some_and(|it| it.redirect.is_some()), facets::REDIRECTS),
            (state.listens, facets::LISTENS),
        ];
        let set = bits.iter().filter(|(is, _)| *is);
        let before = self.member.set_facets(set.fold(0, |facets, (_, bit)| facets | bit));
        if (before & facets::TOUCHED > 0) != state.is_touched()
            && let Some(id) = self.id
        {
            self.shared.ids.touched(id, state.is_touched());
        }
    }

    /// What a handover would lose.
    pub(in crate::session) fn uncarried(&self) -> Option<&'static str> {
        // Also one that the uplink answered before its end: nobody may hear of the rest.
        if self.intake.is_incomplete() && (self.intake.stalled || self.passes.held() == 0) {
            return Some("a long request of which only a part has come");
        }
        if self.is_pinned() && self.requested.pinned_since.is_none() {
            return Some(TOO_LARGE);
        }
        if self.is_refused() {
            return Some(NOT_TAKEN);
        }
        self.state.uncarried()
    }

    /// Whether there is something to be done while nothing is in flight.
    pub(in crate::session) fn needs_cutover(&self) -> bool {
        let subscribed = self.state.subscribed();
        self.needs_more_than_told()
            || match self.handover.standby() {
                Some(standby) => {
                    let marker = standby.attempt.marker();
                    let marked = marker.is_some_and(|marker| self.replies.is_marked_by(marker));
                    let marked = marked && !self.awaits_confirmation();
                    let is_told = standby.primed.is(&self.state) && !standby.is_refused();
                    !is_told || (subscribed && !marked)
                }
                None => subscribed || self.state.tracking().is_some(),
            }
    }

    /// The next uplink does not take what this client carries.
    pub(in crate::session) fn is_refused(&self) -> bool {
        self.handover.standby().is_some_and(Standby::is_refused)
    }

    /// The transaction can only be finished by the uplink that it was begun on. Of one that will be
    /// aborted, no more need be known.
    pub(in crate::session) fn is_pinned(&self) -> bool {
        let transaction = self.requested.transaction();
        transaction.is_some_and(|transaction| transaction.pinned) && !self.pending.is_aborted()
    }
}
