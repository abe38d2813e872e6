//! One change of the uplink: what it is made for, how far it has come, and what became of the sessions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::marker::Marker;
use crate::generation::Generation;
use crate::lock::lock;
use crate::transport::Peer;
use crate::uplink::{self, Fresh};

/// Why a client is closed to whose state the new uplink says no.
pub const NOT_TAKEN: &str = "what the new uplink does not take";
/// Sessions whose closing is told one by one.
const NAMED: usize = 20;

/// Watched keys, of all clients, that are told the new uplink while the gate is shut. Some 250 of them take a
/// millisecond; a client beyond that has its next EXEC fail, as if a key had been touched.
const MOST_WATCHED: u64 = 25_000;

/// One change of the uplink.
#[derive(Debug)]
pub struct Attempt {
    generation: Arc<Generation>,
    marker: Option<Arc<Marker>>,
    related: bool,
    force: bool,
    listened: AtomicBool,
    published: AtomicBool,
    /// Connections to the new uplink that were made ready ahead.
    ready: AtomicU64,
    /// Watched keys that may yet be told the new uplink while the gate is shut.
    watch_budget: AtomicU64,
    /// What became of the sessions.
    pub outcome: AttemptOutcome,
    inner: Mutex<AttemptState>,
}

#[derive(Debug, Default)]
struct AttemptState {
    fault: Option<String>,
    watching: Vec<Watching>,
    unfinished: Vec<Peer>,
    closed: Vec<(Peer, &'static str)>,
    /// Connections that were tried, which take their places at the new uplink until all were.
    tried: Vec<Fresh>,
}

/// How many sessions came to what.
#[derive(Debug, Default)]
pub struct AttemptOutcome {
    /// Sessions whose uplink was exchanged.
    pub moved: AtomicU64,
    /// Sessions that were moved to a connection that was ready.
    pub made_ready: AtomicU64,
    /// Sessions that were closed, for what they had cannot be carried.
    pub closed: AtomicU64,
    /// Open transactions that were carried.
    pub transactions: AtomicU64,
    /// Sessions with watched keys that nobody touched.
    pub watched: AtomicU64,
    /// Sessions with watched keys that somebody touched, or that nobody could be asked about.
    pub touched: AtomicU64,
    /// Commands that waited for data.
    pub blocked: AtomicU64,
    /// Sessions with subscriptions.
    pub subscribed: AtomicU64,
    /// Sessions with client-side caching.
    pub tracking: AtomicU64,
    /// Sessions with MONITOR.
    pub monitors: AtomicU64,
}

/// What the old uplink can be asked during the cutover, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldUplink {
    /// The old uplink is gone and answers no question.
    Gone,
    /// Each session asks for itself.
    AskedBySessions,
    /// Sessions ask for themselves, but for watched keys, which somebody asks about for all.
    AskedForAll,
}

/// Keys of which the old uplink must be asked whether they were touched since they are watched.
#[derive(Debug)]
pub struct Watching {
    /// The connection's id at the old uplink.
    pub id: u64,
    /// The keys, each with its database.
    pub keys: Vec<(u32, Box<[u8]>)>,
    /// Set if none of the keys was touched.
    pub untouched: Arc<AtomicBool>,
}

impl Attempt {
    /// An attempt to change to the uplink of this generation. Without a marker, PINGs are the marks. If it is
    /// `related` to the one before, what is published at the one comes to the other. With `force`, a
    /// client that cannot be carried is closed, whatever that is for.
    pub fn new(
        generation: Arc<Generation>,
        marker: Option<Arc<Marker>>,
        related: bool,
        force: bool,
    ) -> Arc<Self> {
        Arc::new(Attempt {
            generation,
            marker,
            related,
            force,
            listened: AtomicBool::new(false),
            published: AtomicBool::new(false),
            ready: AtomicU64::new(0),
            watch_budget: AtomicU64::new(MOST_WATCHED),
            outcome: AttemptOutcome::default(),
            inner: Mutex::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, AttemptState> {
        lock(&self.inner)
    }

    /// The generation that is to come in force.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The proxy's own channel, if both uplinks' users may have it.
    pub fn marker(&self) -> Option<&Arc<Marker>> {
        self.marker.as_ref()
    }

    /// The proxy's own channel at the new uplink. Where that is not related to the old one, all that it
    /// says before it is in force is passed over.
    pub fn next_marker(&self) -> Option<&Arc<Marker>> {
        self.marker().filter(|_| self.related)
    }

    /// Connections that are ready.
    pub fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// Why the attempt must be given up, if it must.
    pub fn fault(&self) -> Option<String> {
        self.inner().fault.clone()
    }

    /// Whether the attempt must be given up.
    pub fn has_failed(&self) -> bool {
        self.inner().fault.is_some()
    }

    fn fail(&self, why: String) {
        // The first fault counts.
        self.inner().fault.get_or_insert(why);
    }

    /// A connection to the new uplink was made ready, or not.
    pub fn connected(&self, result: &Result<Fresh, uplink::Error>) {
        match result {
            Ok(_) => {
                self.ready.fetch_add(1, Ordering::Relaxed);
            }
            Err(why) if self.costs_one_client(why) => {}
            Err(why) => self.fail(why.to_string()),
        }
    }

    /// A client's state was tried on a connection to the new uplink.
    pub fn rehearsed(&self, client: Peer, result: Result<Fresh, uplink::Error>) {
        self.connected(&result);
        match result {
            Ok(fresh) => self.inner().tried.push(fresh),
            Err(why) if self.costs_one_client(&why) => self.close(client, NOT_TAKEN),
            Err(_) => {}
        }
    }

    /// For this fault, one client is closed, and the others are moved.
    pub fn costs_one_client(&self, why: &uplink::Error) -> bool {
        matches!(why, uplink::Error::Setup { is_about_one_client, .. }
            if self.force || *is_about_one_client)
    }

    /// A session waits for the mark.
    pub fn listen(&self) {
        self.listened.store(true, Ordering::Release);
    }

    /// Whether a session waits for the mark.
    pub fn is_listened(&self) -> bool {
        self.listened.load(Ordering::Acquire)
    }

    /// The mark is on its way to all sessions that listen, on both uplinks.
    pub fn published(&self) {
        self.published.store(true, Ordering::Release);
    }

    /// Whether the mark is on its way.
    pub fn is_published(&self) -> bool {
        self.published.load(Ordering::Acquire)
    }

    /// Whether a session may tell the new uplink of so many watched keys.
    pub fn may_watch(&self, keys: usize) -> bool {
        let less = |left: u64| left.checked_sub(keys as u64);
        self.watch_budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// The old uplink is to be asked about these keys.
    pub fn watch(&self, watching: Watching) {
        self.inner().watching.push(watching);
    }

    /// The keys that the old uplink is to be asked about.
    pub fn take_watching(&self) -> Vec<Watching> {
        std::mem::take(&mut self.inner().watching)
    }

    /// A client's session has more to tell the new uplink while the gate is shut.
    pub fn begin(&self, client: Peer) {
        self.inner().unfinished.push(client);
    }

    /// A client's session has told the new uplink everything.
    pub fn end(&self, client: Peer) {
        let unfinished = &mut self.inner().unfinished;
        if let Some(at) = unfinished.iter().position(|it| *it == client) {
            unfinished.swap_remove(at);
        }
    }

    /// The clients whose sessions have more to tell.
    pub fn unfinished(&self) -> Vec<Peer> {
        self.inner().unfinished.clone()
    }

    /// A client could not be carried over.
    pub fn not_carried(&self, client: Peer, why: &uplink::Error) {
        self.fail(format!("for client {client}: {why}"));
    }

    /// A client is closed for this reason.
    pub fn close(&self, client: Peer, what: &'static str) {
        self.outcome.closed.fetch_add(1, Ordering::Relaxed);
        let closed = &mut self.inner().closed;
        if closed.len() < NAMED {
            closed.push((client, what));
        }
    }

    /// Clients that were closed, and why; some of them, if there are many.
    pub fn closed(&self) -> Vec<(Peer, &'static str)> {
        self.inner().closed.clone()
    }
}
