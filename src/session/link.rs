//! The connection to the uplink: whether there is one, and what waits to be written to it.

use std::pin::Pin;

use super::outbox::Outbox;
use crate::gate::Waiting;
use crate::transport::Stream;
use crate::uplink::{self, Fresh, Script};

pub(super) type Dial = Pin<Box<dyn Future<Output = Result<Fresh, uplink::Error>> + Send>>;

/// A session's connection to the uplink.
pub(super) struct Link {
    pub(super) state: LinkState,
    /// The connection's id, as the uplink counts.
    pub(super) id: Option<u64>,
    /// Bytes not yet written to the uplink.
    pub(super) out: Outbox,
    /// What the uplink answered to the question for the connection's id, if that was an error.
    pub(super) refusal: Option<Box<[u8]>>,
    /// Set at an exchange; cleared by `Session::poll`.
    pub(super) was_exchanged: bool,
}

/// Whether there is a connection to the uplink.
pub(super) enum LinkState {
    /// No connection: the next request dials.
    Absent(Absent),
    Dialling(Dial),
    Live(Stream),
    /// It is lost, and the session ends.
    Lost,
}

/// No connection, with what the next one needs.
#[derive(Default)]
pub(super) struct Absent {
    /// What the next one is told first, where another one was lost or let go.
    pub(super) restore: Option<Box<Script>>,
    /// The connection is made once the gate opens, without waiting for a request.
    pub(super) revive: Option<Waiting>,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            state: LinkState::Absent(Absent::default()),
            id: None,
            out: Outbox::default(),
            refusal: None,
            was_exchanged: false,
        }
    }
}

impl Link {
    pub(super) fn is_connected(&self) -> bool {
        matches!(self.state, LinkState::Live(_) | LinkState::Dialling(_))
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, LinkState::Live(_))
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self.state, LinkState::Absent(_))
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.state, LinkState::Lost)
    }

    /// Drops the connection. `restore` is what the next connection is told first; `None` keeps what an absent
    /// one has.
    pub(super) fn forget(&mut self, restore: Option<Script>) {
        let before = match &mut self.state {
            LinkState::Absent(absent) => absent.restore.take(),
            _ => None,
        };
        let restore = match restore {
            Some(script) => Some(Box::new(script)).filter(|script| !script.is_empty()),
            None => before,
        };
        self.state = LinkState::Absent(Absent { restore, revive: None });
        self.out = Outbox::default();
        self.id = None;
    }
}
