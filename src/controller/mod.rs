//! Pause, reload, stop: the one owner of every change of state.
//!
//! What each command does during another:
//!
//! | During | pause | unpause | reload, switch | SIGHUP | stop |
//! | --- | --- | --- | --- | --- | --- |
//! | running | begins | nothing to do | begins | a reload | begins |
//! | an operator's pause | joined: the longer time to live counts | ends it | swaps, stays paused | a reload | begins |
//! | a reload | holds after it | releases the operator's hold alone | refused | one more, afterwards | ends it; it is cancelled unless it has swapped |
//! | a switch | holds after it | as above | refused | a reload, afterwards | ends it; it is undone unless the new uplink is promoted |
//! | a stop | refused | refused | refused | ignored | cuts off |

mod cutover;
mod dry_run;
mod following;
mod interrupting;
mod links;
mod loading;
mod panics;
mod reload;
mod server;
mod switch;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::dry_run::{Carried, Prediction};
pub use self::reload::{By, NotReloaded, Record, Reloading, Stage};
pub use self::switch::{NotDone, Options, Record as SwitchRecord, Report, Switching};
use crate::changeover::{Order, Running};
use crate::config::{self, Fault};
use crate::gate::Hold;
use crate::notify;
use crate::reception::Reception;
use crate::shared::Shared;

/// How long to ask the sessions what they wait for.
const ASKING: Duration = Duration::from_millis(200);
/// Sessions that are woken at once, where nothing hurries.
const WOKEN: u32 = 64;
/// Running requests that an answer names.
const NAMED: usize = 5;
/// Reloads, and switches, that are remembered.
const REMEMBERED: usize = 10;

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// In conflict with what is running.
    #[error("{0}")]
    Conflict(String),
    /// The configuration is refused.
    #[error("the configuration is refused: {}", joined(.0))]
    Refused(Vec<Fault>),
    /// Running requests did not end in time.
    #[error("{0}")]
    TimeLimit(String),
    /// A switch did not come to an end.
    #[error("the switch is rolled back: {0}")]
    RolledBack(String),
    /// A fault of the proxy's own.
    #[error("failed: {0}")]
    Failed(String),
}

/// What replaces the generation in force.
enum Change {
    Reload(Reloading),
    Switch(Arc<Switching>),
}

/// A change is running for as long as this lives, even if it panics.
struct Busy(Arc<Controller>);

impl Drop for Busy {
    fn drop(&mut self) {
        *lock(&self.0.change) = None;
        if self.0.not_stopping().is_ok() {
            notify::ready(&self.0.status());
        }
        // A SIGHUP may have come meanwhile.
        tokio::spawn(self.0.clone().reload_again());
    }
}

fn joined(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}

/// What the process is doing, by the numbers of the older program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests pass.
    Running = 2,
    /// New requests wait, some older ones still run.
    Pausing = 3,
    /// New requests wait, none runs.
    Paused = 4,
    /// It is about to end.
    Stopping = 5,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Running => "running",
            State::Pausing => "pausing",
            State::Paused => "paused",
            State::Stopping => "stopping",
        })
    }
}

/// An operator's pause.
struct Pause {
    hold: Hold,
    since: Instant,
    /// When it ends by itself.
    until: Option<Instant>,
    released: CancellationToken,
}

/// How long the present pause has been on, and how long it will be, if that is known.
#[derive(Debug, Clone, Copy)]
pub struct Paused {
    /// So far.
    pub since: Duration,
    /// From now on.
    pub ends_in: Option<Duration>,
}

/// The owner of pause, reload and stop.
pub struct Controller {
    shared: Arc<Shared>,
    reception: Arc<Reception>,
    /// The configuration; `None` if it came from standard input.
    file: Option<PathBuf>,
    pause: Mutex<Option<Pause>>,
    /// One at a time.
    change: Mutex<Option<Change>>,
    /// A SIGHUP came during a reload.
    again: AtomicBool,
    history: Mutex<VecDeque<Record>>,
    switches: Mutex<VecDeque<SwitchRecord>>,
    /// Where a switch did not come to: what is there is old.
    not_reached: Mutex<Option<config::Uplink>>,
    changed: Notify,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Controller {
    /// Of this process.
    pub fn new(
        shared: Arc<Shared>,
        reception: Arc<Reception>,
        file: Option<PathBuf>,
    ) -> Arc<Controller> {
        Arc::new(Controller {
            shared,
            reception,
            file,
            pause: Mutex::default(),
            change: Mutex::default(),
            again: AtomicBool::new(false),
            history: Mutex::default(),
            switches: Mutex::default(),
            not_reached: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// What the process is doing.
    pub fn state(&self) -> State {
        if self.shared.stop.is_stopping() {
            State::Stopping
        } else if self.shared.gate.is_open() {
            State::Running
        } else if self.shared.gate.in_flight() > 0 {
            State::Pausing
        } else {
            State::Paused
        }
    }

    /// The operator's pause, if there is one.
    pub fn paused(&self) -> Option<Paused> {
        lock(&self.pause).as_ref().map(|pause| Paused {
            since: pause.since.elapsed(),
            ends_in: pause.until.map(|until| until.saturating_duration_since(Instant::now())),
        })
    }

    /// Completes when what [`Controller::status`] says may have changed. Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// A line that a person can read.
    pub fn status(&self) -> String {
        let generation = self.shared.current.load();
        let state = match (self.state(), self.paused()) {
            (State::Stopping, _) => "Stopping".to_owned(),
            (State::Running, _) if self.switching().is_some() => {
                let switching = self.switching().map(|switching| switching.line());
                format!("Running, {}", switching.unwrap_or_default())
            }
            (_, Some(paused)) => {
                let (waiting, since) = (self.shared.gate.waiting(), paused.since.as_secs());
                format!("Paused for {since} s by an operator, {waiting} clients wait")
            }
            _ => "Running".to_owned(),
        };
        let failed = match lock(&self.history).front() {
            Some(record) if !record.error.is_empty() => {
                format!("; the last reload failed: {}", record.error)
            }
            _ => String::new(),
        };
        format!(
            "{state}: {} clients, uplink {}, generation {}{failed}",
            self.reception.clients(),
            generation.uplink.config.addr,
            generation.number,
        )
    }

    /// Holds new requests, for `ttl` if there is one. A pause that is on already is joined: the
    /// longer time to live counts, and none is the longest.
    pub fn pause(self: &Arc<Self>, ttl: Option<Duration>) -> Result<(), Error> {
        // One too long to be a time is for ever.
        let until = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        let mut pause = lock(&self.pause);
        self.not_stopping()?;
        match &mut *pause {
            Some(pause) => pause.until = pause.until.zip(until).map(|(one, other)| one.max(other)),
            none => {
                let released = CancellationToken::new();
                let hold = self.shared.gate.pause();
                *none =
                    Some(Pause { hold, since: Instant::now(), until, released: released.clone() });
                info!(ttl_ms = ttl.map(|ttl| ttl.as_millis()), "paused by an operator");
                tokio::spawn(self.clone().interrupt_for_pause(released.clone()));
                if let Some(until) = until {
                    tokio::spawn(self.clone().expire(until, released));
                }
            }
        }
        drop(pause);
        self.changed.notify_one();
        Ok(())
    }

    /// Like [`Controller::pause`], and completes when no request runs any more.
    pub async fn pause_and_wait(self: &Arc<Self>, ttl: Option<Duration>) -> Result<(), Error> {
        self.pause(ttl)?;
        let limit = self.shared.current.load().settings.pause_time_limit;
        let released_meanwhile = || Error::Conflict("the pause was released meanwhile".to_owned());
        let (quiesced, released) = match &*lock(&self.pause) {
            Some(pause) => (pause.hold.quiesced_by(Instant::now() + limit), pause.released.clone()),
            None => return Err(released_meanwhile()),
        };
        let quiesced = tokio::select! {
            biased;
            () = released.cancelled() => return Err(released_meanwhile()),
            () = self.shared.stop.begun() => return Err(stopping()),
            quiesced = quiesced => quiesced,
        };
        if quiesced {
            return Ok(());
        }
        let running = named(&self.running().await);
        let limit = limit.as_millis();
        Err(Error::TimeLimit(format!(
            "not paused within {limit} ms, the pause stays; still running: {running}"
        )))
    }

    /// Ends the operator's pause. There need not be one.
    pub fn unpause(&self) -> Result<(), Error> {
        self.not_stopping()?;
        if let Some(pause) = lock(&self.pause).take() {
            self.release(pause, "unpaused by an operator");
        }
        Ok(())
    }

    fn begin(self: &Arc<Self>, next: Change) -> Result<Busy, Error> {
        self.not_stopping()?;
        let mut change = lock(&self.change);
        let running = match &*change {
            None => {
                *change = Some(next);
                return Ok(Busy(self.clone()));
            }
            Some(Change::Reload(_)) => "a reload",
            Some(Change::Switch(_)) => "a switch",
        };
        Err(Error::Conflict(format!("{running} is running already")))
    }

    /// Completes when no switch is running; what one has begun is undone by then.
    pub async fn settled(&self) {
        if let Some(switching) = self.switching() {
            switching.ended.cancelled().await;
        }
    }

    /// Begins the end: new requests wait for ever, idle clients are closed.
    pub fn stop(&self) -> Hold {
        let hold = self.shared.gate.pause();
        self.shared.stop.begin();
        self.shared.roster.wake_all();
        hold
    }

    /// Which requests keep the gate from being quiet, the oldest first.
    pub(crate) async fn running(&self) -> Vec<Running> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let ask = self.shared.roster.tell_each(
            WOKEN,
            || false,
            |permit| Order::Report(tell.clone(), permit),
        );
        // A busy worker must not hold up the answer.
        let _ = timeout(ASKING, ask).await;
        let mut running = Vec::new();
        while let Ok(request) = told.try_recv() {
            running.push(request);
        }
        running.sort_by_key(|request| request.since);
        running
    }

    /// Waits for `until`, or what that becomes by pauses that join this one.
    async fn expire(self: Arc<Self>, mut until: Instant, released: CancellationToken) {
        loop {
            tokio::select! {
                () = released.cancelled() => return,
                () = sleep_until(until) => {}
            }
            let mut pause = lock(&self.pause);
            // Another pause can only begin after this one was released.
            match pause.as_ref().and_then(|pause| pause.until) {
                _ if released.is_cancelled() => return,
                None => return,
                Some(later) if later > until => until = later,
                Some(_) => {
                    if let Some(pause) = pause.take() {
                        self.release(pause, "the pause's time to live is over");
                    }
                    return;
                }
            }
        }
    }

    fn release(&self, pause: Pause, why: &str) {
        pause.released.cancel();
        drop(pause.hold);
        let lasted = pause.since.elapsed();
        self.shared.metrics.operator_pauses.observe(lasted, 1);
        info!(lasted_ms = lasted.as_millis(), "{why}");
        self.changed.notify_one();
    }

    fn not_stopping(&self) -> Result<(), Error> {
        if self.shared.stop.is_stopping() { Err(stopping()) } else { Ok(()) }
    }

    /// SIGHUP. Several during a reload make one more.
    pub fn hang_up(self: &Arc<Self>) {
        if self.not_stopping().is_err() {
            return;
        }
        self.again.store(true, Ordering::SeqCst);
        tokio::spawn({
            let controller = self.clone();
            async move { controller.reload_again().await }
        });
    }

    /// Reloads if a SIGHUP asked for it, unless a reload is running: that comes here when it ends.
    async fn reload_again(self: Arc<Self>) {
        if lock(&self.change).is_none() && self.again.swap(false, Ordering::SeqCst) {
            // What comes of it is in the log, and in the status for systemd.
            let _ = self.reload(By::Signal, false).await;
        }
    }
}

fn stopping() -> Error {
    Error::Conflict("the proxy is stopping".to_owned())
}

/// The oldest few.
fn named(running: &[Running]) -> String {
    if running.is_empty() {
        return "unknown".to_owned();
    }
    let mut names: Vec<String> = running.iter().take(NAMED).map(Running::to_string).collect();
    if running.len() > NAMED {
        names.push(format!("and {} more", running.len() - NAMED));
    }
    names.join(", ")
}

/// The newest first.
fn remember<T>(history: &Mutex<VecDeque<T>>, record: T) {
    let mut history = lock(history);
    history.push_front(record);
    history.truncate(REMEMBERED);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
