//! What a session is told, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::attempt::{Attempt, OldUplink};
use crate::clock;
use crate::transport::Peer;

/// What a session is told by name. All of them also see a stop and a new generation.
#[derive(Debug)]
pub enum Order {
    /// To connect to the next uplink, while the present one still serves.
    Prepare(Arc<Attempt>, OwnedSemaphorePermit),
    /// To try what it carries on a connection to the next uplink, which is then let go.
    Rehearse(Arc<Attempt>, OwnedSemaphorePermit),
    /// To have its blocking command interrupted.
    Interrupt(mpsc::UnboundedSender<Interrupt>, OwnedSemaphorePermit),
    /// To tell the next uplink what can only be told while nothing is in flight.
    Cutover(Arc<Attempt>, OldUplink, OwnedSemaphorePermit),
    /// To tell the next uplink of its open transaction, after [`Order::Cutover`].
    Queue(OwnedSemaphorePermit),
    /// To forget what it has done for the next uplink, and keep the present one.
    Abandon(OwnedSemaphorePermit),
    /// To take the new generation now, if it has not yet.
    TakeGeneration(OwnedSemaphorePermit),
    /// To tell which request it waits for.
    Report(mpsc::UnboundedSender<Running>, OwnedSemaphorePermit),
    /// To be closed for this reason, if it is one of those that are not waited for.
    GiveUp(Arc<Attempt>, GiveUp, &'static str, OwnedSemaphorePermit),
    /// To tell what a handover would make of it.
    Predict(mpsc::UnboundedSender<Prospect>, OwnedSemaphorePermit),
    /// To tell its client, which listens, whether clients are held.
    Notify(OwnedSemaphorePermit),
    /// To close if its client would not be let in any more, and to count that.
    Review(Arc<AtomicU64>, OwnedSemaphorePermit),
}

/// Which sessions are not waited for any longer.
#[derive(Debug, Clone, Copy)]
pub enum GiveUp {
    /// Sessions with a request that cannot be expected to end within this time.
    Slow {
        /// For how long clients may be held.
        limit: Duration,
        /// Commands that wait for data can be interrupted.
        may_unblock: bool,
    },
    /// Sessions with any request that runs.
    Running,
}

/// A blocking command that somebody else must have interrupted.
#[derive(Debug)]
pub struct Interrupt {
    /// The id of the connection that waits.
    pub id: u64,
    /// Since when the command waits for data.
    pub since: Instant,
    /// Where to tell what came of it.
    pub ticket: Arc<Ticket>,
}

/// What a handover would make of a session.
#[derive(Debug, Clone, Copy)]
pub struct Prospect {
    /// The client.
    pub client: Peer,
    /// The database in use.
    pub db: u32,
    /// The session has an uplink connection.
    pub connected: bool,
    /// Why the session would be closed, if it would.
    pub closed_for: Option<&'static str>,
    /// A command that waits could not be interrupted.
    pub waits: bool,
    /// The client has used a command that has to do with the connection, and that the proxy does not know.
    pub unknown: bool,
}

/// A request that keeps the gate from being quiet.
#[derive(Debug, Clone)]
pub struct Running {
    /// The command's name.
    pub command: String,
    /// Who sent it.
    pub client: Peer,
    /// Since when the request runs.
    pub since: Instant,
    /// What is waited for.
    pub awaits: Awaits,
    /// The client does not read its replies.
    pub unread: bool,
    /// The command waits for data, and can be interrupted.
    pub interruptible: bool,
    /// When the request ends by itself, if that is known.
    pub until: Option<Instant>,
}

/// What a request that keeps the gate from being quiet waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaits {
    /// The uplink's reply.
    Reply,
    /// The rest of the request, which the client has not sent.
    Rest,
    /// The EXEC of a transaction that is too large to be carried.
    Exec,
}

impl Running {
    /// Whether the request is unlikely to end within `limit`: it has been running for longer than that
    /// already, does not end by itself in that time, and cannot be interrupted.
    pub fn is_slow(&self, limit: Duration, may_unblock: bool) -> bool {
        let interrupted = self.interruptible && may_unblock;
        let ends = self.until.is_some_and(|until| until <= clock::now() + limit);
        !interrupted && !ends && clock::now() - self.since > limit
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Running { command, client, .. } = self;
        let command = command.to_ascii_uppercase();
        write!(f, "{command} of {client} for {:.1} s", (clock::now() - self.since).as_secs_f64())?;
        match self.awaits {
            Awaits::Reply => {}
            Awaits::Rest => f.write_str(", which has not sent all of it")?,
            Awaits::Exec => f.write_str(", a transaction that is too large to be carried")?,
        }
        if self.unread { f.write_str(", which does not read its replies") } else { Ok(()) }
    }
}

/// What became of a CLIENT UNBLOCK.
#[derive(Debug, Default)]
pub struct Ticket(AtomicU8);

/// The answer to a CLIENT UNBLOCK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblocked {
    /// Not known (yet).
    Perhaps,
    /// The command was interrupted.
    Yes,
    /// The command had ended before.
    No,
}

impl Ticket {
    /// Tells the session that asked.
    pub fn answer(&self, unblocked: bool) {
        self.0.store(if unblocked { 1 } else { 2 }, Ordering::Release);
    }

    /// What the answer was, if it has come.
    pub fn answered(&self) -> Unblocked {
        match self.0.load(Ordering::Acquire) {
            1 => Unblocked::Yes,
            2 => Unblocked::No,
            _ => Unblocked::Perhaps,
        }
    }
}
