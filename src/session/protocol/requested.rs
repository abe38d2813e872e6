//! What a client has asked for, as of the last of its requests that was taken in. Pure.
//!
//! [`State`](super::state::State) follows the uplink's replies. This is ahead of them: it decides what
//! becomes of the client's next request.

use std::time::Instant;

use super::replay::OneShot;
use super::transaction::Transaction;

/// What the client asked for with CLIENT REPLY. The uplink answers all the same: so it is known what
/// became of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    No,
    /// No reply to the next request.
    Next,
    /// No replies.
    Always,
}

/// What a client has asked for so far.
#[derive(Debug)]
pub struct Requested {
    authenticated: bool,
    silence: Silence,
    transaction: Option<Box<Transaction>>,
    one_shot: Option<OneShot>,
    /// Follows from the fields above.
    is_ordinary: bool,
    /// Something of the fields above is another than when it was published last.
    changed: bool,
    /// A watched key was touched before a handover: the next EXEC must fail. This is over when that EXEC is sent;
    /// [`State::is_touched`](super::state::State::is_touched) is over when it is answered.
    pub fails: bool,
    /// A command was used that the uplink says has to do with the connection, and that is not known
    /// here: what it changed cannot be carried.
    pub unknown: bool,
    /// Since when the transaction is in flight, for it cannot be carried: it holds one pass more.
    pub pinned_since: Option<Instant>,
}

impl Requested {
    /// Nothing, by a client that has logged in, or has not.
    pub fn new(authenticated: bool) -> Self {
        Requested {
            authenticated,
            silence: Silence::No,
            transaction: None,
            one_shot: None,
            is_ordinary: authenticated,
            changed: true,
            fails: false,
            unknown: false,
            pinned_since: None,
        }
    }

    /// What a RESET leaves.
    pub fn reset(&mut self, authenticated: bool) {
        *self = Requested { pinned_since: self.pinned_since, ..Requested::new(authenticated) };
    }

    /// A plain request changes nothing, and nothing is to be done for it: it is only counted.
    #[inline]
    pub fn is_ordinary(&self) -> bool {
        self.is_ordinary
    }

    /// The client may send any command.
    #[inline]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether the client hears replies.
    pub fn silence(&self) -> Silence {
        self.silence
    }

    /// The transaction that is open.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_deref()
    }

    /// The transaction that is open.
    pub fn transaction_mut(&mut self) -> Option<&mut Transaction> {
        self.transaction.as_deref_mut()
    }

    /// In which way of its own the next request is treated.
    pub fn one_shot(&self) -> Option<OneShot> {
        self.one_shot
    }

    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
        self.update();
    }

    pub fn set_silence(&mut self, silence: Silence) {
        self.silence = silence;
        self.update();
    }

    /// Gives the transaction that was open before.
    pub fn set_transaction(
        &mut self,
        transaction: Option<Box<Transaction>>,
    ) -> Option<Box<Transaction>> {
        let before = std::mem::replace(&mut self.transaction, transaction);
        self.update();
        before
    }

    pub fn set_one_shot(&mut self, one_shot: Option<OneShot>) {
        self.one_shot = one_shot;
        self.update();
    }

    /// Whether anything changed since the last [`Requested::changes_are_published`].
    #[inline]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    pub fn changes_are_published(&mut self) {
        self.changed = false;
    }

    fn update(&mut self) {
        self.changed = true;
        self.is_ordinary = self.authenticated
            && self.silence == Silence::No
            && self.transaction.is_none()
            && self.one_shot.is_none();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_request_is_only_counted_where_nothing_was_asked_for_that_concerns_it() {
        let mut requested = Requested::new(false);
        assert!(!requested.is_ordinary(), "it is refused");
        requested.set_authenticated(true);
        assert!(requested.is_ordinary());
        requested.set_silence(Silence::Next);
        assert!(!requested.is_ordinary(), "its reply is not for the client");
        requested.set_silence(Silence::No);
        requested.set_one_shot(Some(OneShot::Asking));
        assert!(!requested.is_ordinary(), "it uses that up");
        requested.set_one_shot(None);
        requested.set_transaction(Some(Box::default()));
        assert!(!requested.is_ordinary(), "it is queued");
        requested.set_transaction(None);
        assert!(requested.is_ordinary());
    }
}
