//! The connection to the uplink: whether there is one, and what waits to be written to it.

use std::pin::Pin;

use super::close::Reason;
use super::outbox::Outbox;
use super::protocol::pending::Pending;
use super::unanswered::Unanswered;
use crate::gate::Waiting;
use crate::outage::Verdict;
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
    /// The client's requests that are not answered yet.
    pub(super) unanswered: Unanswered,
    /// How many outages had begun when the connection was begun.
    pub(super) outages: u64,
    /// What the uplink answered to the question for the connection's id, if that was an error.
    pub(super) refusal: Option<Box<[u8]>>,
    /// The uplink was lost, and nobody has closed the connection yet.
    pub(super) ends: Option<Reads>,
    /// Set at an exchange; cleared by `Session::poll`.
    pub(super) was_exchanged: bool,
}

/// Whether there is a connection to the uplink.
pub(super) enum LinkState {
    /// No connection: the next request dials.
    Absent(Absent),
    Dialling(Dial),
    Live(Stream),
    /// It broke, or could not be made. The watch is asked whether the uplink is lost.
    Doubtful(Box<Doubt>),
    /// It is lost, and the session ends.
    Lost,
}

/// What became of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linked {
    AsBefore,
    /// There is something new to be done.
    Anew,
    /// The client gets the refusals that were kept from it.
    RefusalsCount,
}

/// A connection that broke, or could not be made.
pub(super) struct Doubt {
    /// What happened to it.
    pub(super) reason: Reason,
    /// The connection, if it is still there: the uplink has refused requests over it.
    pub(super) stream: Option<Stream>,
    /// What was sent may have been executed, but for so many requests.
    pub(super) was_live: bool,
    pub(super) not_executed: usize,
    pub(super) verdict: Pin<Box<dyn Future<Output = Verdict> + Send + Sync>>,
}

/// How far a connection to an uplink that was lost is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// It may have something to say yet.
    ToTheEnd,
    /// All was read that has come.
    Nothing,
}

/// No connection, with what the next one needs.
#[derive(Default)]
pub(super) struct Absent {
    /// What the next one is told first, where another one was lost or let go.
    pub(super) restore: Option<Box<Script>>,
    /// The connection is made once the gate opens, without waiting for a request.
    pub(super) revive: Option<Waiting>,
    /// So many requests are held: they are in `out`, and are sent once the gate lets them in.
    pub(super) held: u32,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            state: LinkState::Absent(Absent::default()),
            id: None,
            out: Outbox::default(),
            unanswered: Unanswered::default(),
            outages: 0,
            refusal: None,
            ends: None,
            was_exchanged: false,
        }
    }
}

impl Link {
    /// There is a connection, or there was one a moment ago.
    pub(super) fn is_connected(&self) -> bool {
        match self.state {
            LinkState::Live(_) | LinkState::Dialling(_) | LinkState::Doubtful(_) => true,
            LinkState::Absent(_) | LinkState::Lost => false,
        }
    }

    /// Nothing more can be sent before it is known which uplink will have it.
    pub(super) fn is_between_uplinks(&self) -> bool {
        match &self.state {
            LinkState::Absent(absent) => absent.held > 0,
            LinkState::Live(_) => self.ends.is_some(),
            LinkState::Doubtful(_) => true,
            LinkState::Dialling(_) | LinkState::Lost => false,
        }
    }

    /// How many requests are held.
    pub(super) fn held(&self) -> u32 {
        match &self.state {
            LinkState::Absent(absent) => absent.held,
            LinkState::Live(_)
            | LinkState::Dialling(_)
            | LinkState::Doubtful(_)
            | LinkState::Lost => 0,
        }
    }

    /// Adds whole requests of the client's to what goes up; `pending` has what is owed.
    pub(super) fn push(&mut self, requests: &[u8], pending: &Pending) {
        self.out.push(requests);
        self.unanswered.push(requests, || pending.requests());
    }

    /// Adds some of the client's input that would not mean the same at a later time, or that is not whole.
    pub(super) fn push_once(&mut self, input: &[u8]) {
        self.out.push(input);
        self.unanswered.push_part();
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
        self.state = LinkState::Absent(Absent { restore, revive: None, held: 0 });
        self.out = Outbox::default();
        self.unanswered.clear();
        self.ends = None;
        self.id = None;
    }
}
