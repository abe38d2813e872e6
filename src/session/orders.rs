//! What sessions are told at a reload, and what they tell.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::blocking::Ticket;
use super::last::Finish;
use crate::generation::Generation;
use crate::random;
use crate::resp::encode;
use crate::transport::Peer;
use crate::uplink::{self, Fresh};

/// Sessions whose closing is told one by one.
const NAMED: usize = 20;

/// What a session is like, as bits.
pub mod marks {
    /// A transaction is open.
    pub const TRANSACTION: u32 = 1;
    /// Keys are watched.
    pub const WATCHING: u32 = 1 << 1;
    /// A command waits for data.
    pub const BLOCKED: u32 = 1 << 2;
    /// There are subscriptions.
    pub const SUBSCRIBED: u32 = 1 << 3;
    /// Client-side caching is on.
    pub const TRACKING: u32 = 1 << 4;
    /// MONITOR.
    pub const MONITOR: u32 = 1 << 5;
    /// CLIENT REPLY OFF.
    pub const SILENT: u32 = 1 << 6;
    /// There is something that can only be done while nothing is in flight.
    pub const LAST: u32 = 1 << 7;
    /// Invalidations go to another connection, which must be there before.
    pub const REDIRECTS: u32 = 1 << 8;
    /// A key was touched that is watched, and the present uplink does not know it.
    pub const TOUCHED: u32 = 1 << 9;
}

/// What a session is told by name. All of them also see a stop and a new generation.
#[derive(Debug)]
pub enum Order {
    /// To connect to the next uplink, while the present one still serves.
    Prepare(Arc<Preparation>, OwnedSemaphorePermit),
    /// To have its blocking command interrupted.
    Interrupt(mpsc::UnboundedSender<Interrupt>, OwnedSemaphorePermit),
    /// To tell the next uplink the rest, now that nothing is in flight.
    Finish(Arc<Finish>, OwnedSemaphorePermit),
    /// And then of its open transaction.
    Queue(OwnedSemaphorePermit),
    /// To forget all that.
    Abandon(OwnedSemaphorePermit),
    /// To take the new generation now, if it has not yet.
    Settle(OwnedSemaphorePermit),
    /// To tell which request it waits for.
    Report(mpsc::UnboundedSender<Running>, OwnedSemaphorePermit),
    /// To be closed for this reason, if it is one of those that are not waited for.
    GiveUp(GiveUp, &'static str, OwnedSemaphorePermit),
    /// To tell what a handover would make of it.
    Predict(mpsc::UnboundedSender<Prospect>, OwnedSemaphorePermit),
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
    /// Since when.
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
    /// It has an uplink connection.
    pub connected: bool,
    /// It would be closed, for this.
    pub closed_for: Option<&'static str>,
    /// A command that waits could not be interrupted.
    pub waits: bool,
    /// It has used a command that has to do with the connection, and that is not known here.
    pub unknown: bool,
}

/// New uplink connections, on their way.
#[derive(Debug)]
pub struct Preparation {
    generation: Arc<Generation>,
    marker: Option<Arc<Marker>>,
    related: bool,
    force: bool,
    listened: AtomicBool,
    published: AtomicBool,
    ready: AtomicU64,
    fault: OnceLock<String>,
}

/// The proxy's own channel. It is a shard channel, so that nobody's pattern matches it.
#[derive(Debug)]
pub struct Marker {
    channel: String,
    /// Nobody knows it before it is published, so nobody else can publish the mark.
    secret: String,
}

/// A request that keeps the gate from being quiet.
#[derive(Debug, Clone)]
pub struct Running {
    /// The command's name.
    pub command: String,
    /// Who sent it.
    pub client: Peer,
    /// Since when the uplink has it; `None` while the client has not sent all of it.
    pub since: Option<Instant>,
    /// The client does not read its replies.
    pub unread: bool,
    /// It is a command that waits for data, and can be interrupted.
    pub interruptible: bool,
    /// When it ends by itself, if that is known.
    pub until: Option<Instant>,
}

impl Running {
    /// Whoever waits so long for it will, as far as one can see, wait in vain: it has been running for
    /// longer than that already.
    pub fn is_slow(&self, limit: Duration, may_unblock: bool) -> bool {
        let interrupted = self.interruptible && may_unblock;
        let ends = self.until.is_some_and(|until| until <= Instant::now() + limit);
        !interrupted && !ends && self.since.is_some_and(|since| since.elapsed() > limit)
    }
}

/// What became of the sessions at all reloads so far.
#[derive(Debug, Default)]
pub struct Moves {
    /// Their uplink was exchanged.
    pub moved: AtomicU64,
    /// For one that was ready.
    pub made_ready: AtomicU64,
    /// They were closed, for what they had cannot be carried.
    pub closed: AtomicU64,
    /// What they carried.
    pub carrying: Carrying,
    named: Mutex<Vec<(Peer, &'static str)>>,
}

/// How many of them carried what.
#[derive(Debug, Default)]
pub struct Carrying {
    /// Open transactions.
    pub transactions: AtomicU64,
    /// Watched keys that nobody touched.
    pub watched: AtomicU64,
    /// Watched keys that somebody touched, or that nobody could be asked about.
    pub touched: AtomicU64,
    /// Commands that waited for data.
    pub blocked: AtomicU64,
    /// Subscriptions.
    pub subscribed: AtomicU64,
    /// Client-side caching.
    pub tracking: AtomicU64,
    /// MONITOR.
    pub monitors: AtomicU64,
}

impl Moves {
    /// The sessions that were closed since this was asked last, or some of them.
    pub fn take_named(&self) -> Vec<(Peer, &'static str)> {
        std::mem::take(&mut self.named.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn close(&self, client: Peer, what: &'static str) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < NAMED {
            named.push((client, what));
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Running { command, client, .. } = self;
        let command = command.to_ascii_uppercase();
        match self.since {
            Some(since) => {
                write!(f, "{command} of {client} for {:.1} s", since.elapsed().as_secs_f64())?;
            }
            None => write!(f, "{command} of {client}, which has not sent all of it")?,
        }
        if self.unread { f.write_str(", which does not read its replies") } else { Ok(()) }
    }
}

impl Marker {
    /// What all their names begin with.
    pub const PREFIX: &str = "__redis-proxy__:";

    /// One that nobody else has; `None` if the system has no randomness to give.
    pub fn new() -> Option<Arc<Self>> {
        let channel = format!("{}{}", own_channels().as_ref()?, random::token()?);
        Some(Arc::new(Marker { channel, secret: random::token()? }))
    }

    /// Whether a channel is one of those that only the proxy may use.
    pub(super) fn is_own(channel: &[u8]) -> bool {
        own_channels().as_ref().is_some_and(|own| channel.starts_with(own.as_bytes()))
    }

    /// To hear what is published there.
    pub fn subscribe(&self) -> Vec<u8> {
        encode::request(["SSUBSCRIBE", &self.channel])
    }

    /// To hear it no more.
    pub fn unsubscribe(&self) -> Vec<u8> {
        encode::request(["SUNSUBSCRIBE", &self.channel])
    }

    /// To publish the mark.
    pub fn publish(&self) -> Vec<u8> {
        encode::request(["SPUBLISH", &self.channel, &self.secret])
    }

    /// To find out whether that is allowed; nobody hears it.
    pub fn try_publishing(&self) -> Vec<u8> {
        encode::request(["SPUBLISH", &format!("{}:try", self.channel), ""])
    }

    /// The mark, as it arrives.
    pub fn message(&self, resp3: bool) -> Vec<u8> {
        self.frame(resp3, "smessage", &format!("${}\r\n{}", self.secret.len(), self.secret))
    }

    pub(super) fn confirmation(&self, resp3: bool, on: bool, shards: i64) -> Vec<u8> {
        let name = if on { "ssubscribe" } else { "sunsubscribe" };
        self.frame(resp3, name, &format!(":{shards}"))
    }

    fn frame(&self, resp3: bool, name: &str, last: &str) -> Vec<u8> {
        let (kind, channel) = (if resp3 { '>' } else { '*' }, &self.channel);
        let (name_len, len) = (name.len(), channel.len());
        format!("{kind}3\r\n${name_len}\r\n{name}\r\n${len}\r\n{channel}\r\n{last}\r\n")
            .into_bytes()
    }
}

/// What the channels of this process begin with. Another proxy may be among the clients, and has its own.
fn own_channels() -> &'static Option<String> {
    static OWN: OnceLock<Option<String>> = OnceLock::new();
    OWN.get_or_init(|| Some(format!("{}{}:", Marker::PREFIX, random::token()?)))
}

impl Preparation {
    /// For the uplink of this generation. Without a marker, PINGs are the marks. If it is `related`
    /// to the one before, what is published at the one comes to the other. With `force`, whoever cannot
    /// be carried is closed, whatever that is for.
    pub fn new(
        generation: Arc<Generation>,
        marker: Option<Arc<Marker>>,
        related: bool,
        force: bool,
    ) -> Arc<Self> {
        Arc::new(Preparation {
            generation,
            marker,
            related,
            force,
            listened: AtomicBool::new(false),
            published: AtomicBool::new(false),
            ready: AtomicU64::new(0),
            fault: OnceLock::new(),
        })
    }

    /// What it is made for.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    pub(super) fn marker(&self) -> Option<&Arc<Marker>> {
        self.marker.as_ref()
    }

    /// The same, at the new uplink. Where that is not related, all that it says before it is in
    /// force is passed over.
    pub(super) fn next_marker(&self) -> Option<&Arc<Marker>> {
        self.marker().filter(|_| self.related)
    }

    /// Connections that are ready.
    pub fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// Why one of them could not be made.
    pub fn fault(&self) -> Option<&String> {
        self.fault.get()
    }

    /// One of them is made, or not.
    pub(super) fn note(&self, result: &Result<Fresh, uplink::Error>) {
        match result {
            Ok(_) => {
                self.ready.fetch_add(1, Ordering::Relaxed);
            }
            Err(why) if self.costs_one_client(why) => {}
            // The first one counts.
            Err(why) => drop(self.fault.set(why.to_string())),
        }
    }

    /// For this, the client is closed, and the others are moved.
    pub(super) fn costs_one_client(&self, why: &uplink::Error) -> bool {
        matches!(why, uplink::Error::Setup { is_about_one_client, .. }
            if self.force || *is_about_one_client)
    }

    /// A session waits for the mark.
    pub(super) fn listen(&self) {
        self.listened.store(true, Ordering::Release);
    }

    /// Whether one does.
    pub fn is_listened(&self) -> bool {
        self.listened.load(Ordering::Acquire)
    }

    pub(super) fn is_published(&self) -> bool {
        self.published.load(Ordering::Acquire)
    }

    /// The mark is on its way to all sessions that listen, on both uplinks.
    pub fn published(&self) {
        self.published.store(true, Ordering::Release);
    }
}
