//! One change of the uplink: what it is made for, how far it has come, and what became of the sessions.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::marker::Marker;
use crate::generation::Generation;
use crate::transport::Peer;
use crate::uplink::{self, Fresh};

/// Sessions whose closing is told one by one.
const NAMED: usize = 20;

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

    /// The proxy's own channel, if both uplinks' users may have it.
    pub fn marker(&self) -> Option<&Arc<Marker>> {
        self.marker.as_ref()
    }

    /// The same, at the new uplink. Where that is not related, all that it says before it is in
    /// force is passed over.
    pub fn next_marker(&self) -> Option<&Arc<Marker>> {
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
    pub fn note(&self, result: &Result<Fresh, uplink::Error>) {
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
    pub fn costs_one_client(&self, why: &uplink::Error) -> bool {
        matches!(why, uplink::Error::Setup { is_about_one_client, .. }
            if self.force || *is_about_one_client)
    }

    /// A session waits for the mark.
    pub fn listen(&self) {
        self.listened.store(true, Ordering::Release);
    }

    /// Whether one does.
    pub fn is_listened(&self) -> bool {
        self.listened.load(Ordering::Acquire)
    }

    /// Whether it is.
    pub fn is_published(&self) -> bool {
        self.published.load(Ordering::Acquire)
    }

    /// The mark is on its way to all sessions that listen, on both uplinks.
    pub fn published(&self) {
        self.published.store(true, Ordering::Release);
    }
}

/// The last part of a reload, for all sessions.
#[derive(Debug)]
pub struct Finish {
    preparation: Arc<Preparation>,
    /// Whether somebody asks the old uplink about watched keys.
    asks: bool,
    /// It is no use to ask the old uplink anything.
    old_is_gone: bool,
    watching: Mutex<Vec<Watching>>,
    unfinished: Mutex<Vec<Peer>>,
    fault: OnceLock<String>,
}

/// Keys of which it must be asked whether they were touched since they are watched.
#[derive(Debug)]
pub struct Watching {
    /// The connection's id at the old uplink.
    pub id: u64,
    /// Each with its database.
    pub keys: Vec<(u32, Box<[u8]>)>,
    /// Set if they were not.
    pub untouched: Arc<AtomicBool>,
}

impl Finish {
    /// With `asks`, [`Finish::take_watching`] will be asked of the old uplink.
    pub fn new(preparation: Arc<Preparation>, asks: bool, old_is_gone: bool) -> Arc<Self> {
        Arc::new(Finish {
            preparation,
            asks,
            old_is_gone,
            watching: Mutex::default(),
            unfinished: Mutex::default(),
            fault: OnceLock::new(),
        })
    }

    /// What was made ready.
    pub fn preparation(&self) -> &Arc<Preparation> {
        &self.preparation
    }

    /// Whether somebody asks the old uplink about watched keys.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// It is no use to ask the old uplink anything.
    pub fn old_is_gone(&self) -> bool {
        self.old_is_gone
    }

    /// The old uplink is to be asked about these keys.
    pub fn watch(&self, watching: Watching) {
        lock(&self.watching).push(watching);
    }

    /// A client has more to tell.
    pub fn begin(&self, client: Peer) {
        lock(&self.unfinished).push(client);
    }

    /// It has told all.
    pub fn end(&self, client: Peer) {
        let mut unfinished = lock(&self.unfinished);
        if let Some(at) = unfinished.iter().position(|it| *it == client) {
            unfinished.swap_remove(at);
        }
    }

    /// The sessions that have more to tell.
    pub fn unfinished(&self) -> Vec<Peer> {
        lock(&self.unfinished).clone()
    }

    /// What there is to be asked.
    pub fn take_watching(&self) -> Vec<Watching> {
        std::mem::take(&mut lock(&self.watching))
    }

    /// Why a session could not be carried over.
    pub fn fault(&self) -> Option<&String> {
        self.fault.get()
    }

    /// A session could not be carried over.
    pub fn fail(&self, client: Peer, why: &str) {
        // The first one counts.
        let _ = self.fault.set(format!("for client {client}: {why}"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A client was closed, for this could not be carried.
    pub fn close(&self, client: Peer, what: &'static str) {
        self.closed.fetch_add(1, Ordering::Relaxed);
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.len() < NAMED {
            named.push((client, what));
        }
    }
}
