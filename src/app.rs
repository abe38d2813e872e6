//! The composition root: binds, spawns, hears signals, stops. The only module that knows all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;

use futures_util::StreamExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_tokio::Signals;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, info, warn};

use crate::gate::Gate;
use crate::generation::Generation;
use crate::listener::{self, Accepted, Listener};
use crate::raw::{self, RawConnections};
use crate::session::{self, Shared};
use crate::worker::Workers;

/// Clients that are being told that there are too many; more are just closed.
const REFUSALS: usize = 64;

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] listener::Error),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What every accepted connection may need.
struct App {
    workers: Workers,
    shared: Arc<Shared>,
    raw: Arc<RawConnections>,
    /// Clients, managed and raw.
    clients: Arc<AtomicUsize>,
    refusals: Arc<Semaphore>,
    sessions: TaskTracker,
}

/// Runs until a signal says stop.
pub async fn run(generation: Arc<Generation>) -> Result<(), Error> {
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT])?;
    allow_descriptors(generation.settings.max_clients);
    let listeners = listener::bind("listen", &generation.listen.addr).await?;
    let raw_listeners = match &generation.listen_raw {
        Some(endpoint) => listener::bind("listen_raw", &endpoint.addr).await?,
        None => Vec::new(),
    };
    if generation.admin.is_some() {
        warn!("this version has no admin API; the admin block is verified and not used");
    }

    let cores = available_parallelism().map_or(1, Into::into);
    let gate = Gate::new(cores);
    let app = Arc::new(App {
        workers: Workers::start(cores)?,
        shared: Arc::new(Shared { gate, stop: Arc::default(), generation }),
        raw: Arc::default(),
        clients: Arc::default(),
        refusals: Arc::new(Semaphore::new(REFUSALS)),
        sessions: TaskTracker::new(),
    });
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, app.clone(), App::serve));
    }
    for listener in raw_listeners {
        accepting.spawn(accept(listener, app.clone(), App::serve_raw));
    }
    info!(version = env!("CARGO_PKG_VERSION"), workers = cores, "running");

    tokio::select! {
        () = told_to_stop(&mut signals) => {}
        Some(Ok(failed)) = accepting.join_next() => return Err(failed.into()),
    }
    accepting.shutdown().await;
    stop(&app, &mut signals).await;
    Ok(())
}

async fn accept(listener: Listener, app: Arc<App>, serve: fn(&App, Accepted)) -> listener::Error {
    listener.run(|accepted| serve(&app, accepted)).await
}

/// Completes at SIGTERM or SIGINT. Cancel safe.
async fn told_to_stop(signals: &mut Signals) {
    while signals.next().await == Some(SIGHUP) {
        warn!("this version cannot reload; the configuration stays");
    }
}

/// Running requests finish within the limit; a second signal does not wait for them.
async fn stop(app: &App, signals: &mut Signals) {
    info!(sessions = app.sessions.len(), "stopping");
    let hold = app.shared.gate.pause();
    app.shared.stop.begin();
    app.sessions.close();
    let finished = async {
        hold.quiesced().await;
        app.raw.close();
        app.sessions.wait().await;
    };
    tokio::select! {
        finished = timeout(app.shared.generation.settings.stop_time_limit, finished) => {
            if finished.is_err() {
                warn!(sessions = app.sessions.len(), "stop_time_limit_ms is over: cut off");
            }
        }
        () = told_to_stop(signals) => warn!(sessions = app.sessions.len(), "second signal: cut off"),
    }
    info!("stopped");
}

impl App {
    fn serve(&self, accepted: Accepted) {
        let Some(place) = self.place() else { return self.refuse(accepted) };
        let shared = self.shared.clone();
        self.workers.spawn(move |seat| async move {
            let (_place, seat) = (place, seat);
            let peer = accepted.peer();
            match accepted.into_socket() {
                Ok(socket) => session::run(socket, peer, shared, seat.worker).await,
                Err(why) => debug!(client = %peer, %why, "cannot serve"),
            }
        });
    }

    fn serve_raw(&self, accepted: Accepted) {
        let Some(place) = self.place() else { return };
        let (generation, raw) = (self.shared.generation.clone(), self.raw.clone());
        self.workers.spawn(move |seat| async move {
            let _places = (place, seat);
            let peer = accepted.peer();
            match accepted.into_socket() {
                Ok(socket) => raw::run(socket, peer, generation, raw).await,
                Err(why) => debug!(client = %peer, %why, "cannot serve"),
            }
        });
    }

    fn refuse(&self, accepted: Accepted) {
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        let (shared, token) = (self.shared.clone(), self.sessions.token());
        self.workers.spawn(move |seat| async move {
            let _places = (permit, token, seat);
            let peer = accepted.peer();
            debug!(client = %peer, "refused: max_clients are connected");
            if let Ok(socket) = accepted.into_socket() {
                session::refuse(socket, peer, shared).await;
            }
        });
    }

    /// A place among `max_clients`, given back when it is dropped.
    fn place(&self) -> Option<Place> {
        let most = self.shared.generation.settings.max_clients;
        // Accepting happens on one thread, so nobody else adds.
        if self.clients.load(Ordering::Relaxed) >= most {
            return None;
        }
        self.clients.fetch_add(1, Ordering::Relaxed);
        Some(Place { clients: self.clients.clone(), _token: self.sessions.token() })
    }
}

struct Place {
    clients: Arc<AtomicUsize>,
    _token: TaskTrackerToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Each client needs two descriptors, its own and its uplink's.
fn allow_descriptors(max_clients: usize) {
    const OTHERS: u64 = 64;
    let needed = 2 * max_clients as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < needed) {
        let current = Some(limit.maximum.map_or(needed, |most| most.min(needed)));
        let wanted = Rlimit { current, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, wanted).is_err() || current < Some(needed) {
            let allowed = getrlimit(Resource::Nofile).current;
            warn!(needed, allowed, "too few file descriptors for max_clients");
        }
    }
}
