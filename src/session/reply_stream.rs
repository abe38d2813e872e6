//! What comes from the uplink: how far it was read, and what is kept of it. All of that ends with the
//! connection.

use std::sync::Arc;

use super::protocol::frame_filter::FrameFilter;
use super::protocol::pending::View;
use super::refused::Refused;
use crate::changeover::Marker;
use crate::resp::encode;
use crate::resp::reply::Scanner;

const LONG_REPLY: &str = "ERR redis-proxy: the reply is too long to replace the ids in it";
/// Bytes of one reply that are kept: the ids of some 50,000 clients.
const MAX_KEPT: usize = 16 * 1024 * 1024;

/// The stream of replies and messages of one uplink connection.
pub(super) struct ReplyStream {
    pub(super) scanner: Scanner,
    /// What becomes of the present reply.
    pub(super) view: View,
    /// The present reply, where it is kept; an error if it was too long.
    kept: Option<Result<Vec<u8>, ()>>,
    /// A part of the present reply went down to the client.
    pub(super) partial: bool,
    /// What the uplink said already, and nobody has looked at.
    pub(super) unread: Vec<u8>,
    /// Replies that refuse requests, while it is not known whether another server would be better.
    pub(super) refused: Option<Box<Refused>>,
    /// What is owed now goes down, refused or not.
    pub(super) takes_refusals: bool,
    /// Frames that are not for the client.
    pub(super) filter: Option<Box<FrameFilter>>,
    /// The proxy's own channel, while the uplink sends what is published there.
    pub(super) marker: Option<Arc<Marker>>,
    /// The mark has come: what comes after it is taken from the next uplink.
    pub(super) at_mark: bool,
}

impl Default for ReplyStream {
    fn default() -> Self {
        ReplyStream {
            scanner: Scanner::default(),
            view: View::Shown,
            kept: None,
            partial: false,
            unread: Vec::new(),
            refused: None,
            takes_refusals: false,
            filter: None,
            marker: None,
            at_mark: false,
        }
    }
}

impl ReplyStream {
    /// Keeps some of a reply that the client gets, if at all, in another form.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        let kept = self.kept.get_or_insert_with(|| Ok(Vec::new()));
        match kept {
            Ok(kept) if kept.len() + bytes.len() <= MAX_KEPT => kept.extend_from_slice(bytes),
            _ => *kept = Err(()),
        }
    }

    /// What was kept of the present reply; an error reply in its place if it was too long.
    pub(super) fn take_kept(&mut self) -> Option<Vec<u8>> {
        Some(self.kept.take()?.unwrap_or_else(|()| encode::error(LONG_REPLY)))
    }

    /// The mark is still to come.
    pub(super) fn awaits_mark(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.awaits_mark())
    }

    /// The uplink was asked to send this mark.
    pub(super) fn is_marked_by(&self, marker: &Arc<Marker>) -> bool {
        self.marker.as_ref().is_some_and(|it| Arc::ptr_eq(it, marker))
    }
}
