//! How far a switch has come, and what became of it.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::super::error::Error;
use super::super::outcome::{By, Moved, milliseconds, unix_seconds};
use super::super::panics::point;
use crate::config_file::Outdated;
use crate::lock::lock;
use crate::log;

/// Measures of the lag that are shown; with more, every second one is dropped.
const SHOWN: usize = 240;
/// How long a stage waits for the line of the log that tells of it: if the proxy dies, that line
/// says which server to go on with.
const WRITTEN: Duration = Duration::from_millis(20);

/// What a switch is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchStage {
    /// Both servers are looked at for what could go wrong.
    Preflight,
    /// The new uplink becomes a copy of the present one.
    Replicating,
    /// Each client's connection to the new uplink is made.
    Ready,
    /// Running requests end, new ones wait.
    Paused,
    /// The new uplink applies what was written last.
    #[serde(rename = "catching up")]
    CatchingUp,
    /// The new uplink becomes a master.
    Promoting,
    /// Clients use the new uplink.
    Resumed,
    /// The old uplink becomes a replica of the new one.
    Fencing,
    /// What was done is undone.
    #[serde(rename = "rolling back")]
    RollingBack,
}

impl SwitchStage {
    pub(super) fn name(self) -> String {
        json!(self).as_str().unwrap_or_default().to_owned()
    }
}

/// A stage that is over.
#[derive(Debug, Clone, Serialize)]
struct Passed {
    stage: SwitchStage,
    ms: f64,
}

/// A switch that is running.
#[derive(Debug)]
pub struct Switching {
    /// Who asked for it.
    pub by: By,
    /// When it began.
    pub since: Instant,
    pub(super) cancelled: CancellationToken,
    /// The switch has ended, and what was to be undone is undone.
    pub(in super::super) ended: CancellationToken,
    now: Mutex<Now>,
}

#[derive(Debug)]
struct Now {
    stage: SwitchStage,
    begun: Instant,
    passed: Vec<Passed>,
    from: String,
    to: String,
    waiting_for: String,
    sync: Option<(u64, Option<u64>)>,
    /// Keys of the snapshot that are made, and all of them.
    snapshot: Option<(u64, u64)>,
    lag: Option<(u64, Duration)>,
    lags: Vec<(f64, u64)>,
    /// Every so many measures, one is kept.
    every: usize,
    measures: usize,
    /// The switch can be called off.
    revocable: bool,
}

impl Switching {
    pub(in super::super) fn new(by: By, from: String) -> Self {
        let since = Instant::now();
        Switching {
            by,
            since,
            cancelled: CancellationToken::new(),
            ended: CancellationToken::new(),
            now: Mutex::new(Now {
                stage: SwitchStage::Preflight,
                begun: since,
                passed: Vec::new(),
                from,
                to: String::new(),
                waiting_for: "everything that could go wrong is looked at".to_owned(),
                sync: None,
                snapshot: None,
                lag: None,
                lags: Vec::new(),
                every: 1,
                measures: 0,
                revocable: true,
            }),
        }
    }

    /// The uplink before.
    pub(super) fn from(&self) -> String {
        self.now().from.clone()
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        lock(&self.now)
    }

    /// Calls off the switch, if that is still possible.
    pub(in super::super) fn cancel(&self) -> Result<(), Error> {
        // The lock is held, so that it cannot be promoted meanwhile.
        let now = self.now();
        if now.stage == SwitchStage::RollingBack {
            return Ok(());
        }
        if !now.revocable {
            let stage = now.stage.name();
            return Err(Error::Conflict(format!(
                "it is too late: the switch is {stage}, and goes forward only"
            )));
        }
        self.cancelled.cancel();
        Ok(())
    }

    /// From here on the switch goes forward only, unless it was called off.
    pub(super) fn commit(&self) -> Result<(), Error> {
        let mut now = self.now();
        now.revocable = self.cancelled.is_cancelled();
        if now.revocable { Err(called_off()) } else { Ok(()) }
    }

    /// The switch failed: what it has done is undone now.
    pub(super) fn roll_back(&self) {
        self.stage(SwitchStage::RollingBack, "what was done is undone");
        self.now().revocable = false;
    }

    pub(super) fn target(&self, addr: String) {
        self.now().to = addr;
    }

    pub(super) fn stage(&self, stage: SwitchStage, waiting_for: &str) {
        let mut now = self.now();
        let passed = Passed { stage: now.stage, ms: milliseconds(now.begun.elapsed()) };
        now.passed.push(passed);
        (now.stage, now.begun) = (stage, Instant::now());
        waiting_for.clone_into(&mut now.waiting_for);
        drop(now);
        // The manual has this target.
        info!(target: "redis_proxy::switch", ?stage, "switching");
        log::wait(WRITTEN);
        point(&format!("switch:{}", stage.name()));
    }

    /// The stage that is on.
    pub(super) fn at(&self) -> SwitchStage {
        self.now().stage
    }

    pub(super) fn waits_for(&self, what: &str) {
        what.clone_into(&mut self.now().waiting_for);
    }

    /// Bytes of the first synchronisation.
    pub(super) fn synced(&self, read: u64, total: Option<u64>) {
        let mut now = self.now();
        // It tells the total only while it is on its way.
        let known = now.sync.and_then(|(_, known)| known);
        now.sync = Some((read, total.or(known).map(|total| total.max(read))));
    }

    /// Keys of the snapshot, while one is made for the new uplink.
    pub(super) fn snapshot(&self, keys: Option<(u64, u64)>) {
        self.now().snapshot = keys;
    }

    /// How far behind the new uplink is, in bytes, and how long that took it to catch up.
    pub(super) fn lags(&self, bytes: u64, time: Duration) {
        let at = self.since.elapsed().as_secs_f64();
        let mut now = self.now();
        now.lag = Some((bytes, time));
        now.measures += 1;
        if now.measures.is_multiple_of(now.every) {
            now.lags.push((at, bytes));
        }
        if now.lags.len() > SHOWN {
            let mut number = 0;
            now.lags.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            now.every *= 2;
        }
    }

    /// The switch as people and scripts that look on see it.
    pub fn json(&self) -> Value {
        let now = self.now();
        let mut stages: Vec<Value> = now.passed.iter().map(|passed| json!(passed)).collect();
        stages.push(json!({ "stage": now.stage, "ms": null }));
        json!({
            "by": self.by,
            "stage": now.stage,
            "seconds": self.since.elapsed().as_secs_f64(),
            "from": now.from,
            "to": now.to,
            "stages": stages,
            "waiting_for": now.waiting_for,
            "sync": now.sync.map(|(read, total)| json!({ "read_bytes": read, "total_bytes": total })),
            "snapshot": now.snapshot.map(|(keys, total)| json!({ "keys": keys, "total_keys": total })),
            "lag_bytes": now.lag.map(|(bytes, _)| bytes),
            "lag_ms": now.lag.map(|(_, time)| milliseconds(time)),
            "lag": now.lags,
            "can_cancel": now.revocable,
        })
    }

    /// A line for people.
    pub fn line(&self) -> String {
        let now = self.now();
        let stage = now.stage.name();
        let bytes = now.sync.and_then(|(read, total)| (read * 100).checked_div(total?));
        let keys = || now.snapshot.and_then(|(keys, total)| (keys * 100).checked_div(total));
        let percent = bytes.or_else(keys);
        let percent = percent.map(|percent| format!(" ({percent} %)")).unwrap_or_default();
        format!("switching to {}: {stage}{percent}", now.to)
    }
}

/// The error of a switch that was called off.
pub(super) fn called_off() -> Error {
    Error::Conflict("the switch was cancelled by an operator".to_owned())
}

/// A switch that has ended.
#[derive(Debug, Clone, Serialize)]
pub struct SwitchRecord {
    at_unix_seconds: f64,
    by: By,
    pub(super) result: &'static str,
    /// Why it was not done.
    pub(super) reason: String,
    pub(super) faults: Vec<String>,
    /// The generation in force since then.
    pub(super) generation: u64,
    from: String,
    to: String,
    duration_ms: f64,
    /// How long clients were held; `None` if they were not.
    pub(super) held_ms: Option<f64>,
    /// Bytes of the first synchronisation.
    sync_bytes: Option<u64>,
    /// How long the new uplink took to catch up, the last time that was measured.
    lag_ms: Option<f64>,
    stages: Vec<Passed>,
    /// The old uplink is a replica of the new one: who writes to it is refused.
    pub(super) fenced: bool,
    pub(super) warnings: Vec<String>,
    /// The configuration file could not be changed, and names another uplink.
    pub(super) outdated: Option<Outdated>,
    /// What could not be undone.
    pub(super) not_undone: Vec<String>,
    /// What became of the clients.
    #[serde(flatten)]
    pub(super) moved: Moved,
}

impl SwitchRecord {
    /// The record of a switch that ends now.
    pub(super) fn of(switching: &Switching, result: &'static str) -> Self {
        let now = switching.now();
        let mut stages = now.passed.clone();
        stages.push(Passed { stage: now.stage, ms: milliseconds(now.begun.elapsed()) });
        SwitchRecord {
            at_unix_seconds: unix_seconds(),
            by: switching.by,
            result,
            reason: String::new(),
            faults: Vec::new(),
            generation: 0,
            from: now.from.clone(),
            to: now.to.clone(),
            duration_ms: milliseconds(switching.since.elapsed()),
            held_ms: None,
            sync_bytes: now.sync.map(|(read, _)| read),
            lag_ms: now.lag.map(|(_, time)| milliseconds(time)),
            stages,
            fenced: false,
            warnings: Vec::new(),
            outdated: None,
            not_undone: Vec::new(),
            moved: Moved::default(),
        }
    }

    pub(super) fn log(&self) {
        let SwitchRecord { result, reason, .. } = self;
        match reason.as_str() {
            "" => info!(
                from = self.from,
                to = self.to,
                generation = self.generation,
                held_ms = self.held_ms,
                sessions_moved = self.moved.sessions_moved,
                sessions_closed = self.moved.sessions_closed,
                fenced = self.fenced,
                "switched"
            ),
            reason => {
                error!(to = self.to, reason, held_ms = self.held_ms, "the switch is {result}")
            }
        }
        for warning in &self.warnings {
            warn!(warning, "of the switch");
        }
        for what in &self.not_undone {
            error!(what, "could not be undone");
        }
    }
}
