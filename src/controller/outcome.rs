//! How far a reload has come, and what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::error::Error;
use crate::changeover::{Attempt, Prospect, Running};
use crate::config::Fault;
use crate::generation::Generation;
use crate::transport::Peer;

/// Who asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The API.
    Http,
    /// SIGHUP.
    Signal,
    /// The proxy itself: the uplink was found at another place.
    Discovery,
}

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadStage {
    /// The file is read and verified.
    Verifying,
    /// Connections to the new uplink are made.
    Preparing,
    /// Running requests end.
    Pausing,
    /// Sessions let go of the old uplink.
    Settling,
}

impl ReloadStage {
    pub(super) fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A reload that is running.
#[derive(Debug, Clone, Copy)]
pub struct Reloading {
    /// Who asked for it.
    pub by: By,
    /// How far it has come.
    pub stage: ReloadStage,
    /// When it began.
    pub since: Instant,
}

/// A reload that has ended.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadRecord {
    at_unix_seconds: f64,
    by: By,
    pub(super) result: &'static str,
    /// The generation in force since then.
    generation: u64,
    uplink: String,
    duration_ms: f64,
    /// How long the reload kept the gate shut; `None` if it did not.
    pause_ms: Option<f64>,
    #[serde(flatten)]
    moved: Moved,
    faults: Vec<String>,
    held_up_by: Vec<HeldUp>,
    warnings: Vec<String>,
    /// Why the reload failed, in a line; empty if it succeeded.
    #[serde(skip)]
    pub(super) error: String,
}

/// What became of the clients.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Moved {
    pub(super) sessions_moved: u64,
    /// What the sessions that were moved carried.
    handed_over: HandedOver,
    pub(super) sessions_closed: u64,
    /// Some of the clients that were closed, and why.
    closed: Vec<Closed>,
}

/// A request that is in the way.
#[derive(Debug, Clone, Serialize)]
pub(super) struct HeldUp {
    command: String,
    client: String,
    seconds: f64,
}

/// What a reload has done so far.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) pause: Option<Duration>,
    pub(super) attempt: Option<Arc<Attempt>>,
    pub(super) held_up_by: Vec<Running>,
    pub(super) warnings: Vec<String>,
}

/// A reload that was not done.
#[derive(Debug)]
pub struct NotReloaded {
    /// Why.
    pub error: Error,
    /// What became of it, if it began.
    pub record: Option<Box<ReloadRecord>>,
}

impl From<Error> for NotReloaded {
    fn from(error: Error) -> Self {
        NotReloaded { error, record: None }
    }
}

impl ReloadRecord {
    /// The record of a reload that ends now; `before` was in force when it began, and `generation` is.
    pub(super) fn of(
        by: By,
        duration: Duration,
        generation: &Generation,
        before: u64,
        done: Done,
        result: &Result<(), Error>,
    ) -> Self {
        let (label, faults) = match result {
            Ok(()) => ("done", Vec::new()),
            Err(Error::Refused(faults)) => {
                ("refused", faults.iter().map(Fault::to_string).collect())
            }
            // The proxy panicked afterwards.
            Err(why) if generation.number != before => ("done", vec![why.to_string()]),
            // Told by what held it up.
            Err(_) if !done.held_up_by.is_empty() => ("cancelled", Vec::new()),
            Err(why) => ("cancelled", vec![why.to_string()]),
        };
        ReloadRecord {
            at_unix_seconds: unix_seconds(),
            by,
            result: label,
            generation: generation.number,
            uplink: generation.uplink.config.addr.to_string(),
            duration_ms: milliseconds(duration),
            pause_ms: done.pause.map(milliseconds),
            moved: done.moved(),
            faults,
            held_up_by: done.held_up_by.iter().map(HeldUp::from).collect(),
            warnings: done.warnings,
            error: result.as_ref().err().map(Error::to_string).unwrap_or_default(),
        }
    }

    pub(super) fn log(&self, result: &Result<(), Error>) {
        let label = self.result;
        match result {
            Ok(()) => info!(
                generation = self.generation,
                uplink = self.uplink,
                duration_ms = self.duration_ms,
                pause_ms = self.pause_ms,
                sessions_moved = self.moved.sessions_moved,
                sessions_closed = self.moved.sessions_closed,
                "reloaded"
            ),
            Err(Error::Refused(faults)) => {
                for fault in faults {
                    error!(%fault, "the reload is refused");
                }
            }
            Err(why) => error!(%why, "the reload is {label}"),
        }
        for warning in &self.warnings {
            warn!(warning, "at the reload");
        }
    }

    /// The record says more than that the reload is done.
    pub fn is_worth_telling(&self) -> bool {
        !self.warnings.is_empty()
    }
}

/// A client that a reload closes, or has closed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Closed {
    pub(super) client: String,
    pub(super) reason: &'static str,
}

impl Closed {
    pub(super) fn of(prospect: &Prospect) -> Option<Closed> {
        prospect.closed_for.map(|reason| Closed::named(prospect, reason))
    }

    pub(super) fn named(prospect: &Prospect, reason: &'static str) -> Closed {
        Closed { client: prospect.client.to_string(), reason }
    }
}

/// How sessions were moved, and what they carried.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct HandedOver {
    /// Sessions whose new uplink connection had been made before the pause.
    made_ready: u64,
    transactions: u64,
    watched: u64,
    touched: u64,
    blocked: u64,
    subscribed: u64,
    tracking: u64,
    monitors: u64,
}

impl Done {
    /// What became of the clients so far.
    pub(super) fn moved(&self) -> Moved {
        let Some(attempt) = &self.attempt else { return Moved::default() };
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let outcome = &attempt.outcome;
        Moved {
            sessions_moved: now(&outcome.moved),
            handed_over: HandedOver {
                made_ready: now(&outcome.made_ready),
                transactions: now(&outcome.transactions),
                watched: now(&outcome.watched),
                touched: now(&outcome.touched),
                blocked: now(&outcome.blocked),
                subscribed: now(&outcome.subscribed),
                tracking: now(&outcome.tracking),
                monitors: now(&outcome.monitors),
            },
            sessions_closed: now(&outcome.closed),
            closed: attempt.closed().iter().map(Closed::from).collect(),
        }
    }
}

impl From<&(Peer, &'static str)> for Closed {
    fn from((client, reason): &(Peer, &'static str)) -> Self {
        Closed { client: client.to_string(), reason }
    }
}

impl From<&Running> for HeldUp {
    fn from(running: &Running) -> Self {
        HeldUp {
            command: running.command.clone(),
            client: running.client.to_string(),
            seconds: running.since.elapsed().as_secs_f64(),
        }
    }
}

/// The time of day, as records have it.
pub(super) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are fine enough.
    duration.as_micros() as f64 / 1000.0
}
