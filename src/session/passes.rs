//! Passes that are kept, and given back.

use tokio::sync::OwnedSemaphorePermit;

use super::Session;

impl Session {
    /// Gives back passes of requests that are over, after the facets were published: the controller, which
    /// finds the gate quiet, sees what the session is like now. No pass goes back in any other way.
    #[inline]
    pub(super) fn release(&mut self, over: u32) {
        self.publish_changes();
        if over > 0 {
            self.passes.leave(over);
        }
    }

    /// Drops the permit of whoever waits for this session, after the facets were published.
    pub(super) fn dismiss(&mut self, permit: Option<OwnedSemaphorePermit>) {
        self.publish_changes();
        drop(permit);
    }

    /// A transaction that cannot be carried holds one pass until EXEC.
    pub(super) fn keep_pass(&mut self) {
        if self.requested.pinned_since.is_none() {
            self.passes.add(1);
            self.requested.pinned_since = Some(self.intake.arrived);
        }
    }

    /// Gives back the pass of a transaction that was too large to be carried, once that is over.
    pub(super) fn unpin(&mut self) {
        if self.pending.is_empty() && self.requested.transaction().is_none() {
            self.requested.pinned_since = None;
            self.release(1);
        }
    }

    /// How many of these requests have given back their pass before: the uplink did not wait for the end of
    /// one that had stalled.
    pub(super) fn answered_before_its_end(&mut self, over: u32) -> u32 {
        if over == 0 || !self.intake.stalled || !self.pending.is_empty() {
            return 0;
        }
        self.intake.stalled = false;
        1
    }

    /// Gives back the pass of a request that goes up as it comes, and of which nothing has come for a while.
    pub(super) fn stall(&mut self) {
        // Unless the uplink did not wait for its end to answer.
        if !self.intake.stalled && !self.pending.is_empty() && self.passes.held() > 0 {
            self.intake.stalled = true;
            self.release(1);
            self.stall_transaction();
        }
    }

    /// Gives back the pass of a transaction that only this uplink can finish, and in which the client has sent nothing
    /// for a while.
    pub(super) fn stall_transaction(&mut self) {
        if self.requested.pinned_since.take().is_some() {
            self.release(1);
        }
    }
}
