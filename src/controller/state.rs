//! The one owner of pause, reload and stop, and what it is doing.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{Error, stopping};
use super::outcome::{By, ReloadRecord, Reloading};
use super::switch::progress::{SwitchRecord, Switching};
use super::uplink_identity::Identity;
use crate::config;
use crate::config_file::Outdated;
use crate::gate::Hold;
use crate::generation::Generation;
use crate::lock::lock;
use crate::notices::FailingOver;
use crate::notify;
use crate::reception::Reception;
use crate::shared::Shared;

/// Reloads, and switches, that are remembered.
const REMEMBERED: usize = 10;

/// What replaces the generation in force.
pub(super) enum RunningChange {
    Reload(Reloading),
    Switch(Arc<Switching>),
}

impl RunningChange {
    /// The proxy itself has found the uplink at another place.
    pub(super) fn is_discovery(&self) -> bool {
        matches!(self, RunningChange::Reload(Reloading { by: By::Discovery, .. }))
    }
}

/// A change is running for as long as this lives, even if it panics.
pub(super) struct Busy(pub(super) Arc<Controller>);

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.0.inner).change = None;
        if self.0.not_stopping().is_ok() {
            notify::ready(&self.0.status());
        }
        // A SIGHUP may have come meanwhile.
        tokio::spawn(self.0.clone().reload_again());
    }
}

/// What the process is doing, by the numbers of the older program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyState {
    /// Requests pass.
    Running = 2,
    /// New requests wait, some older ones still run.
    Pausing = 3,
    /// New requests wait, none runs.
    Paused = 4,
    /// The process is about to end.
    Stopping = 5,
}

impl fmt::Display for ProxyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyState::Running => "running",
            ProxyState::Pausing => "pausing",
            ProxyState::Paused => "paused",
            ProxyState::Stopping => "stopping",
        })
    }
}

/// An operator's pause.
pub(super) struct OperatorPause {
    pub(super) hold: Hold,
    pub(super) since: Instant,
    /// When it ends by itself.
    pub(super) until: Option<Instant>,
    pub(super) released: CancellationToken,
}

/// The uplink is lost: clients are held.
#[derive(Debug)]
pub(super) struct Outage {
    pub(super) hold: Hold,
    /// Clients are to know it; `None` once they are not held any more.
    pub(super) failing_over: Option<FailingOver>,
    pub(super) over: CancellationToken,
}

/// How long the present pause has been on, and how long it will be, if that is known.
#[derive(Debug, Clone, Copy)]
pub struct Paused {
    /// How long it has been on.
    pub since: Duration,
    /// How long it will be on from now.
    pub ends_in: Option<Duration>,
}

/// The owner of pause, reload and stop.
pub struct Controller {
    pub(super) shared: Arc<Shared>,
    pub(super) reception: Arc<Reception>,
    /// The configuration; `None` if it came from standard input.
    pub(super) file: Option<PathBuf>,
    pub(super) inner: Mutex<Known>,
    pub(super) changed: Notify,
}

/// What the controller knows.
#[derive(Default)]
pub(super) struct Known {
    pub(super) pause: Option<OperatorPause>,
    /// The uplink is lost, and clients are held for it.
    pub(super) outage: Option<Outage>,
    /// Who the uplink was when it was last seen; `None` if the one in force has not been seen yet.
    pub(super) identity: Option<Identity>,
    /// The history of the data of a master that is the uplink, and the generation since which it is.
    pub(super) history: Option<(u64, String)>,
    /// The history that the uplink follows as a replica, when it was last seen.
    pub(super) follows: Option<String>,
    /// The histories of servers that were masters beside it.
    pub(super) forks: Vec<String>,
    /// Why no server is found that could be the uplink, which is lost.
    pub(super) unfound: Option<String>,
    /// Several servers could be the uplink, and nobody can tell which; in words.
    pub(super) dispute: Option<String>,
    /// The configuration file names the uplink before the last switch.
    pub(super) outdated: Option<Outdated>,
    /// The reload or switch that is running: one at a time.
    pub(super) change: Option<RunningChange>,
    /// A SIGHUP came during a reload.
    pub(super) again: bool,
    /// The last reloads, the newest first.
    pub(super) reloads: VecDeque<ReloadRecord>,
    /// The last switches, the newest first.
    pub(super) switches: VecDeque<SwitchRecord>,
    /// The uplink that a failed switch did not reach: its data are old.
    pub(super) not_reached: Option<config::Uplink>,
}

impl Known {
    /// The history of the data of the uplink of this generation.
    pub(super) fn history_of(&self, generation: &Generation) -> Option<String> {
        let seen = self.history.as_ref().filter(|(since, _)| *since == generation.uplink_since);
        seen.map(|(_, history)| history).or(generation.history.as_ref()).cloned()
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Controller {
    /// The owner for this process.
    pub fn new(
        shared: Arc<Shared>,
        reception: Arc<Reception>,
        file: Option<PathBuf>,
    ) -> Arc<Controller> {
        Arc::new(Controller {
            shared,
            reception,
            file,
            inner: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// What the process is doing.
    pub fn state(&self) -> ProxyState {
        if self.shared.stop.is_stopping() {
            ProxyState::Stopping
        } else if self.shared.gate.held() <= usize::from(lock(&self.inner).outage.is_some()) {
            // An outage is none of the proxy's states.
            ProxyState::Running
        } else if self.shared.gate.in_flight() > 0 {
            ProxyState::Pausing
        } else {
            ProxyState::Paused
        }
    }

    /// The operator's pause, if there is one.
    pub fn paused(&self) -> Option<Paused> {
        lock(&self.inner).pause.as_ref().map(|pause| Paused {
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
            (ProxyState::Stopping, _) => "Stopping".to_owned(),
            (ProxyState::Running, _) if self.switching().is_some() => {
                let switching = self.switching().map(|switching| switching.line());
                format!("Running, {}", switching.unwrap_or_default())
            }
            (_, Some(paused)) => {
                let (waiting, since) = (self.shared.gate.waiting(), paused.since.as_secs());
                format!("Paused for {since} s by an operator, {waiting} clients wait")
            }
            _ => "Running".to_owned(),
        };
        let failed = match lock(&self.inner).reloads.front() {
            Some(record) if !record.error.is_empty() => {
                format!("; the last reload failed: {}", record.error)
            }
            _ => String::new(),
        };
        let lost = match self.shared.outages.loss() {
            Some(loss) => format!(" lost for {} s", loss.since.elapsed().as_secs()),
            None => String::new(),
        };
        let remarks: String = self.remarks().iter().map(|it| format!("; {it}")).collect();
        format!(
            "{state}: {} clients, uplink {}{lost}, generation {}{failed}{remarks}",
            self.reception.clients(),
            generation.uplink.config.addr,
            generation.number,
        )
    }

    /// The reload that is running.
    pub fn reloading(&self) -> Option<Reloading> {
        match &lock(&self.inner).change {
            Some(RunningChange::Reload(reloading)) => Some(*reloading),
            Some(RunningChange::Switch(_)) | None => None,
        }
    }

    /// The last reloads, the newest first.
    pub fn history(&self) -> Vec<ReloadRecord> {
        lock(&self.inner).reloads.iter().cloned().collect()
    }

    /// The switch that is running.
    pub fn switching(&self) -> Option<Arc<Switching>> {
        match &lock(&self.inner).change {
            Some(RunningChange::Switch(switching)) => Some(switching.clone()),
            Some(RunningChange::Reload(_)) | None => None,
        }
    }

    /// The last switches, the newest first.
    pub fn switches(&self) -> Vec<SwitchRecord> {
        lock(&self.inner).switches.iter().cloned().collect()
    }

    /// Nothing else replaces the generation until this is dropped.
    pub(super) fn begin(self: &Arc<Self>, next: RunningChange) -> Result<Busy, Error> {
        self.not_stopping()?;
        let mut inner = lock(&self.inner);
        let running = match &inner.change {
            None => {
                inner.change = Some(next);
                return Ok(Busy(self.clone()));
            }
            Some(RunningChange::Reload(_)) => "a reload",
            Some(RunningChange::Switch(_)) => "a switch",
        };
        Err(Error::Conflict(format!("{running} is running already")))
    }

    /// Completes when no switch is running. What a failed switch has begun is undone by then.
    pub async fn switch_ended(&self) {
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

    pub(super) fn not_stopping(&self) -> Result<(), Error> {
        if self.shared.stop.is_stopping() { Err(stopping()) } else { Ok(()) }
    }
}

/// Adds the newest, and forgets the oldest.
pub(super) fn remember<T>(history: &mut VecDeque<T>, record: T) {
    history.push_front(record);
    history.truncate(REMEMBERED);
}
