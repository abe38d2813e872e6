//! Where clients come in: which addresses are listened on, and who is let in.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info};

use crate::config::Address;
use crate::generation::Generation;
use crate::listener::{self, Accepted, Bound, Listener, SocketId};
use crate::lock::lock;
use crate::raw::{self, RawConnections};
use crate::session;
use crate::shared::Shared;
use crate::worker::Workers;

/// Clients that are being told that there are too many; more are just closed.
const REFUSALS: usize = 64;

type Serve = fn(&Reception, Accepted, Arc<Generation>);

/// Takes in clients of both listeners.
#[derive(Debug)]
pub struct Reception {
    workers: Workers,
    shared: Arc<Shared>,
    raw: Arc<RawConnections>,
    /// Clients, managed and raw.
    clients: Arc<AtomicUsize>,
    refusals: Arc<Semaphore>,
    sessions: TaskTracker,
    doors: Mutex<Doors>,
    /// Where a door that cannot go on says so.
    failed: mpsc::UnboundedSender<listener::Error>,
}

/// The sockets that listen now.
#[derive(Debug, Default)]
struct Doors {
    listen: Vec<Door>,
    listen_raw: Vec<Door>,
}

#[derive(Debug)]
struct Door {
    id: SocketId,
    /// Closes it, after those who have connected by then are let in.
    close: CancellationToken,
    /// Set when it is about to be closed: the generation of its last clients.
    last: Arc<OnceLock<Arc<Generation>>>,
}

/// Where a listener is to be.
#[derive(Debug, Clone, Copy)]
pub enum DoorPlace<'a> {
    /// Where it is.
    Same,
    /// Nowhere.
    Nowhere,
    /// Somewhere else.
    At(&'a Address),
}

impl<'a> DoorPlace<'a> {
    /// From one address, or none, to another.
    pub fn changed(before: Option<&Address>, now: Option<&'a Address>) -> Self {
        match now {
            _ if before == now => DoorPlace::Same,
            Some(addr) => DoorPlace::At(addr),
            None => DoorPlace::Nowhere,
        }
    }

    async fn bind(
        self,
        block: &'static str,
        held: &[SocketId],
    ) -> Result<Option<Vec<Bound>>, listener::Error> {
        match self {
            DoorPlace::Same => Ok(None),
            DoorPlace::Nowhere => Ok(Some(Vec::new())),
            DoorPlace::At(addr) => listener::bind(block, addr, held).await.map(Some),
        }
    }
}

/// Sockets for both listeners, bound and not open yet; `None` leaves a listener as it is.
#[derive(Debug, Default)]
pub struct Sockets {
    listen: Option<Vec<Bound>>,
    listen_raw: Option<Vec<Bound>>,
}

impl Reception {
    /// Lets nobody in yet. The receiver hears of sockets that fail.
    pub fn new(
        workers: Workers,
        shared: Arc<Shared>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<listener::Error>) {
        let (failed, failures) = mpsc::unbounded_channel();
        let reception = Reception {
            workers,
            shared,
            raw: Arc::default(),
            clients: Arc::default(),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            sessions: TaskTracker::new(),
            doors: Mutex::default(),
            failed,
        };
        (Arc::new(reception), failures)
    }

    /// Clients of `listen`.
    pub fn clients(&self) -> usize {
        self.shared.roster.len()
    }

    /// Clients of `listen_raw`.
    pub fn raw(&self) -> &RawConnections {
        &self.raw
    }

    /// Completes when each worker has had a turn.
    pub async fn turn(&self) {
        self.workers.turn().await;
    }

    /// Binds what is not bound yet, and opens nothing.
    pub async fn bind(
        &self,
        listen: DoorPlace<'_>,
        listen_raw: DoorPlace<'_>,
    ) -> Result<Sockets, Vec<listener::Error>> {
        let (held, held_raw): (Vec<SocketId>, Vec<SocketId>) = {
            let doors = lock(&self.doors);
            let ids = |doors: &[Door]| doors.iter().map(|door| door.id).collect();
            (ids(&doors.listen), ids(&doors.listen_raw))
        };
        let listen = listen.bind("listen", &held).await;
        match (listen, listen_raw.bind("listen_raw", &held_raw).await) {
            (Ok(listen), Ok(listen_raw)) => Ok(Sockets { listen, listen_raw }),
            (listen, listen_raw) => {
                Err([listen.err(), listen_raw.err()].into_iter().flatten().collect())
            }
        }
    }

    /// Doors that are not among `sockets` keep to `generation`, whatever comes in force: whoever
    /// comes in there expects its TLS, or none.
    pub fn retire(&self, sockets: &Sockets, generation: &Arc<Generation>) {
        let doors = lock(&self.doors);
        let sets = [(&doors.listen, &sockets.listen), (&doors.listen_raw, &sockets.listen_raw)];
        for (doors, sockets) in sets {
            let Some(sockets) = sockets else { continue };
            let kept = |door: &&Door| {
                sockets.iter().any(|bound| matches!(bound, Bound::Held(id) if *id == door.id))
            };
            for door in doors.iter().filter(|door| !kept(door)) {
                // Set once, for it is closed then.
                let _ = door.last.set(generation.clone());
            }
        }
    }

    /// Opens new doors, and closes those that are not among `sockets`.
    pub fn open(self: &Arc<Self>, sockets: Sockets) {
        let mut doors = lock(&self.doors);
        if let Some(sockets) = sockets.listen {
            self.replace("listen", &mut doors.listen, sockets, Reception::serve);
        }
        if let Some(sockets) = sockets.listen_raw {
            self.replace("listen_raw", &mut doors.listen_raw, sockets, Reception::serve_raw);
        }
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        let doors = std::mem::take(&mut *lock(&self.doors));
        for door in doors.listen.iter().chain(&doors.listen_raw) {
            door.close.cancel();
        }
        self.sessions.close();
    }

    /// Sessions and raw connections that have not ended.
    pub fn remaining(&self) -> usize {
        self.sessions.len()
    }

    /// Completes when all clients are gone, after [`Reception::close`].
    pub async fn emptied(&self) {
        self.sessions.wait().await;
    }

    fn replace(
        self: &Arc<Self>,
        block: &'static str,
        doors: &mut Vec<Door>,
        sockets: Vec<Bound>,
        serve: Serve,
    ) {
        let mut kept = Vec::new();
        for bound in sockets {
            match bound {
                Bound::Held(id) => {
                    if let Some(at) = doors.iter().position(|door| door.id == id) {
                        kept.push(doors.swap_remove(at));
                    }
                }
                Bound::New(listener) => {
                    info!(block, addr = listener.addr(), "listening");
                    let (close, last) = (CancellationToken::new(), Arc::<OnceLock<_>>::default());
                    let door = Door { id: listener.id(), close: close.clone(), last: last.clone() };
                    kept.push(door);
                    tokio::spawn(self.clone().accept(listener, close, last, serve));
                }
            }
        }
        for door in std::mem::replace(doors, kept) {
            door.close.cancel();
        }
    }

    async fn accept(
        self: Arc<Self>,
        listener: Listener,
        close: CancellationToken,
        last: Arc<OnceLock<Arc<Generation>>>,
        serve: Serve,
    ) {
        // One more task that the end waits for: its socket's file is removed when it is dropped.
        let _token = self.sessions.token();
        let let_in = |accepted| {
            let generation = last.get().cloned().unwrap_or_else(|| self.shared.current.load());
            serve(&self, accepted, generation);
        };
        if let Err(why) = listener.run(close, let_in).await {
            // The receiver ends with the process.
            let _ = self.failed.send(why);
        }
    }

    fn serve(&self, accepted: Accepted, generation: Arc<Generation>) {
        let Some(place) = self.admit() else { return self.refuse(accepted, generation) };
        let shared = self.shared.clone();
        self.workers.spawn(move |seat| async move {
            let (_place, seat) = (place, seat);
            let peer = accepted.peer();
            match accepted.into_socket() {
                Ok(socket) => {
                    session::run(socket, peer, generation, shared, seat.worker).await;
                }
                Err(why) => debug!(client = %peer, %why, "cannot serve"),
            }
        });
    }

    fn serve_raw(&self, accepted: Accepted, generation: Arc<Generation>) {
        let Some(place) = self.admit() else {
            self.shared.metrics.refused.inc();
            return;
        };
        let (shared, raw) = (self.shared.clone(), self.raw.clone());
        self.workers.spawn(move |seat| async move {
            let _places = (place, seat);
            let peer = accepted.peer();
            let Some(endpoint) = &generation.listen_raw else { return };
            match accepted.into_socket() {
                Ok(socket) => {
                    let Shared { current, metrics, .. } = &*shared;
                    raw::run(socket, peer, endpoint, current, metrics, &raw).await;
                }
                Err(why) => debug!(client = %peer, %why, "cannot serve"),
            }
        });
    }

    fn refuse(&self, accepted: Accepted, generation: Arc<Generation>) {
        self.shared.metrics.refused.inc();
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        let (shared, token) = (self.shared.clone(), self.sessions.token());
        self.workers.spawn(move |seat| async move {
            let _places = (permit, token, seat);
            let peer = accepted.peer();
            if let Ok(socket) = accepted.into_socket() {
                session::refuse(socket, peer, generation, shared).await;
            }
        });
    }

    /// A place among `max_clients`, given back when it is dropped; if there is none, that of a client that
    /// has not logged in.
    fn admit(&self) -> Option<Admitted> {
        let most = self.shared.current.load().settings.max_clients;
        // Accepting happens on one thread, so nobody else adds.
        let full = self.clients.load(Ordering::Relaxed) >= most;
        if full && !self.shared.strangers.send_oldest_away() {
            return None;
        }
        self.clients.fetch_add(1, Ordering::Relaxed);
        Some(Admitted { clients: self.clients.clone(), _token: self.sessions.token() })
    }
}

struct Admitted {
    clients: Arc<AtomicUsize>,
    _token: TaskTrackerToken,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}
