//! How a session ends: no more is taken in, the client is lost, or what is owed is forgotten.

use std::io;

use super::Session;
use super::blocking::Blocking;
use super::close::{LAST_REPLIES, Reason};
use super::dispensable::Dispensable;
use super::intake::Route;
use crate::clock;

impl Session {
    /// Takes in no more requests; what is owed will still be answered.
    pub(super) fn end(&mut self, reason: Reason) {
        if self.ending.is_none() {
            self.drop_incomplete();
            self.drop_held();
            self.ending = Some(reason);
        }
    }

    /// Requests that wait for an uplink will not be sent any more.
    fn drop_held(&mut self) {
        if self.link.held() > 0 {
            self.pending.clear();
            self.link.forget(None);
        }
    }

    /// The last request will not be completed: nobody answers it.
    pub(super) fn drop_incomplete(&mut self) {
        // Unless the uplink did not wait for its end to answer.
        if self.intake.is_incomplete() && !self.pending.is_empty() {
            self.pending.take_back();
            if !self.intake.stalled {
                self.release(self.passes.held().min(1));
            }
        }
        self.intake.stalled = false;
        self.intake.route = Route::None;
        self.intake.parked = None;
        self.blocking.end_at_gate();
    }

    /// The client cannot be told anything more.
    pub(super) fn lose_client(&mut self, why: io::Error) {
        self.to_client.clear();
        self.forget_owed();
        self.ending = Some(Reason::ClientLost(why));
    }

    /// Forgets all that is owed to the client, and gives back the passes for it: no reply will come.
    pub(super) fn forget_owed(&mut self) {
        self.pending.clear();
        self.blocking = Blocking::None;
        self.requested.pinned_since = None;
        self.release(self.passes.held());
    }

    /// The client has hung up, or will send no more; it may still read.
    pub(super) fn is_leaving_us(&mut self) {
        self.gone_by.get_or_insert_with(|| clock::now() + LAST_REPLIES);
        let strangers = &self.shared.strangers;
        self.dispensable.get_or_insert_with(|| Dispensable::hung_up(strangers.enter()));
    }

    /// Nothing is left to be done before the session can be closed.
    pub(super) fn is_over(&self) -> bool {
        match &self.ending {
            None => false,
            Some(Reason::ClientLost(_) | Reason::Unread) => true,
            // A blocked client that is gone must not be served: what is popped would be lost.
            Some(Reason::ClientClosed) if self.pending.is_blocked() => true,
            Some(_) => {
                self.pending.is_empty() && self.to_client.is_clear() && self.link.out.is_clear()
            }
        }
    }
}
