//! An open transaction: what is remembered of it, so that it can be begun again elsewhere.

use super::Session;
use super::protocol::effect::Effect;
use super::protocol::expected::Expected;
use super::protocol::queue::Awaited;
use super::protocol::transaction::{TooMuch, Transaction};

impl Session {
    /// Remembers a request in the open transaction. The transaction keeps a pass once it cannot be carried.
    pub(super) fn push_queued(&mut self, push: impl FnOnce(&mut Transaction)) {
        let Some(transaction) = self.requested.transaction_mut() else { return };
        push(transaction);
        if transaction.pinned {
            self.keep_pass();
        }
    }

    /// Remembers what a request in a transaction means.
    ///
    /// # Errors
    ///
    /// More is remembered than may be.
    pub(super) fn note_queued(&mut self, awaited: &Expected) -> Result<(), TooMuch> {
        let Some(transaction) = self.requested.transaction_mut() else { return Ok(()) };
        if let Expected::Effect(effect) = awaited
            && let Effect::Select(db) = **effect
        {
            transaction.note_database(db);
        }
        transaction.note(awaited.size())
    }

    /// Corrects what was assumed of the transaction, after an unexpected reply.
    pub(super) fn reconsider_transaction(&mut self) {
        let before = self.requested.set_transaction(None);
        let open = self.pending.will_be_queued().map(|count| match before {
            Some(before) => before.since(count),
            None => Transaction::unknown(),
        });
        self.requested.set_transaction(open);
        if self.is_pinned() {
            self.keep_pass();
        }
    }
}
