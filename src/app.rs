//! The composition root: binds, spawns, hears signals, stops. The only module that knows all.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use crate::admin;
use crate::controller::Controller;
use crate::generation::Generation;
use crate::limits;
use crate::listener;
use crate::notify;
use crate::reception::{DoorPlace, Reception};
use crate::shared::Shared;
use crate::signal::{Signal, Signals};
use crate::worker::Workers;

/// How often systemd gets a fresh status, if nothing happens before that.
const STATUS: Duration = Duration::from_secs(10);

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

/// Runs until a signal says stop. `file` is what a reload reads, if it can be read again.
pub async fn run(
    generation: Generation,
    file: Option<PathBuf>,
    mut signals: Signals,
) -> Result<(), Error> {
    let generation = Arc::new(generation);
    limits::allow_descriptors(generation.settings.max_clients);
    let cores = available_parallelism().map_or(1, Into::into);
    let shared = Shared::new(generation.clone(), cores);
    let (reception, mut failures) = Reception::new(Workers::start(cores)?, shared.clone());
    let controller = Controller::new(shared.clone(), reception.clone(), file);
    let watch = tokio::spawn(controller.clone().watch_always());
    let discovery = tokio::spawn(controller.clone().discover_always());
    tokio::spawn(controller.clone().tell_listeners_always());

    let listen = DoorPlace::At(&generation.listen.config.addr);
    let listen_raw = generation.listen_raw.as_ref().map(|endpoint| &endpoint.config.addr);
    let sockets =
        reception.bind(listen, DoorPlace::changed(None, listen_raw)).await.map_err(first)?;
    let admin = match &generation.admin {
        Some(endpoint) => listener::bind("admin", &endpoint.config.addr, &[]).await?,
        None => Vec::new(),
    };
    reception.open(sockets);
    let admin = admin::serve(admin, shared.clone(), reception.clone(), controller.clone());
    let tell = tokio::spawn(tell_systemd(controller.clone(), reception.clone()));
    info!(version = env!("CARGO_PKG_VERSION"), workers = cores, "running");
    notify::ready(&controller.status());

    let failed = told_to_stop(&mut signals, &controller, &mut failures).await;
    notify::stopping();
    stop(&shared, &reception, &controller, &mut signals).await;
    tell.abort();
    watch.abort();
    discovery.abort();
    admin.close().await;
    match failed {
        Some(why) => Err(why.into()),
        None => Ok(()),
    }
}

/// One of several; the others are logged.
fn first(mut errors: Vec<listener::Error>) -> Error {
    let first = errors.swap_remove(0);
    for why in errors {
        tracing::error!(%why, "cannot start");
    }
    first.into()
}

/// Completes at SIGTERM or SIGINT, or with the error of a listener.
async fn told_to_stop(
    signals: &mut Signals,
    controller: &Arc<Controller>,
    failures: &mut mpsc::UnboundedReceiver<listener::Error>,
) -> Option<listener::Error> {
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => controller.hang_up(),
                Signal::Stop => return None,
            },
            Some(why) = failures.recv() => return Some(why),
        }
    }
}

/// Running requests finish within the limit; a second signal does not wait for them.
async fn stop(
    shared: &Shared,
    reception: &Reception,
    controller: &Controller,
    signals: &mut Signals,
) {
    info!(clients = reception.clients(), "stopping");
    let limit = shared.current.load().settings.stop_time_limit;
    let hold = controller.stop();
    reception.close();
    let finished = async {
        controller.switch_ended().await;
        hold.quiesced().await;
        reception.raw().close();
        reception.emptied().await;
    };
    tokio::select! {
        finished = timeout(limit, finished) => {
            if finished.is_err() {
                warn!(remaining = reception.remaining(), "stop_time_limit_ms is over: cut off");
            }
        }
        () = signals.stop() => {
            warn!(
                remaining = reception.remaining(),
                "second signal: closing the remaining connections"
            );
        }
    }
    info!("stopped");
}

/// A fresh status line for `systemctl status`; and, for its watchdog, a sign of life while all
/// workers have their turns.
async fn tell_systemd(controller: Arc<Controller>, reception: Arc<Reception>) {
    let watchdog = notify::watchdog();
    let every = watchdog.map_or(STATUS, |limit| (limit / 2).min(STATUS));
    let mut ticks = interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if watchdog.is_some() {
                    reception.turn().await;
                    notify::alive();
                }
            }
            () = controller.changed() => {}
        }
        notify::status(&controller.status());
    }
}
