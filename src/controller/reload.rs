//! A reload: verify, bind, prepare, pause, swap, resume, settle. Up to the swap it changes nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::cutover::{Cutover, refused};
use super::dry_run::Closed;
use super::following::Following;
use super::links::Links;
use super::panics::{Panicked, broken_off, caught, caught_now, point};
use super::{Change, Controller, Error, WOKEN, lock, remember, stopping};
use crate::changeover::{Attempt, Order, Running};
use crate::config::{self, Draft, Fault};
use crate::generation::{self, Generation, Readiness};
use crate::limits;
use crate::metrics::Outcome;
use crate::notify;
use crate::reception::{Place, Sockets};
use crate::transport::Peer;

/// Who asked for a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The API.
    Http,
    /// SIGHUP.
    Signal,
}

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The file is read and verified.
    Verifying,
    /// Connections to the new uplink are made.
    Preparing,
    /// Running requests end.
    Pausing,
    /// Sessions let go of the old uplink.
    Settling,
}

impl Stage {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A reload that is running.
#[derive(Debug, Clone, Copy)]
pub struct Reloading {
    /// Who asked for it.
    pub by: By,
    /// How far it has come.
    pub stage: Stage,
    /// When it began.
    pub since: Instant,
}

/// A reload that has ended.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    at_unix_seconds: f64,
    by: By,
    result: &'static str,
    /// The generation in force since then.
    generation: u64,
    uplink: String,
    duration_ms: f64,
    /// How long it kept the gate shut; `None` if it did not.
    pause_ms: Option<f64>,
    #[serde(flatten)]
    moved: Moved,
    faults: Vec<String>,
    held_up_by: Vec<HeldUp>,
    warnings: Vec<String>,
    /// All of it in a line; empty if it succeeded.
    #[serde(skip)]
    pub(super) error: String,
}

/// What became of the clients.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Moved {
    pub(super) sessions_moved: u64,
    /// And what they carried.
    handed_over: HandedOver,
    pub(super) sessions_closed: u64,
    /// Some of these, and why.
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
    pub record: Option<Box<Record>>,
}

impl From<Error> for NotReloaded {
    fn from(error: Error) -> Self {
        NotReloaded { error, record: None }
    }
}

impl Record {
    /// There is more to be told than that it is done.
    pub fn is_worth_telling(&self) -> bool {
        !self.warnings.is_empty()
    }
}

impl Controller {
    /// Puts the configuration file in force. Goes on if the caller does not wait for it. With `force`,
    /// clients that hold it up are closed, and what speaks against the new uplink is a warning, where
    /// it is for an operator to know better.
    pub async fn reload(self: Arc<Self>, by: By, force: bool) -> Result<Record, NotReloaded> {
        self.not_stopping()?;
        let reloading = Reloading { by, stage: Stage::Verifying, since: Instant::now() };
        let busy = self.begin(Change::Reload(reloading))?;
        let running = tokio::spawn(async move { busy.0.run(by, force).await });
        running.await.unwrap_or_else(|why| Err(broken_off(why).into()))
    }

    /// The reload panicked; `before` was in force when it began. What sessions have made ready is let
    /// go, or used.
    pub(super) async fn end_panicked(&self, before: u64, why: &Panicked) -> Error {
        let stage = self.reloading().map(|it| it.stage.name()).unwrap_or_default();
        let why = format!("at the stage {stage}, {why}");
        let number = self.shared.current.number();
        // If this panics, too, each session finds out by itself at its next request.
        if number == before {
            let _ = caught(self.abandon()).await;
            Error::Failed(format!("{why}; nothing is changed, generation {number} is in force"))
        } else {
            let _ = caught(self.tell_settle()).await;
            Error::Failed(format!("{why}; generation {number} is in force"))
        }
    }

    async fn tell_settle(&self) {
        self.shared.roster.tell_each(WOKEN, || false, Order::Settle).await;
    }

    /// The reload that is running.
    pub fn reloading(&self) -> Option<Reloading> {
        match &*lock(&self.change) {
            Some(Change::Reload(reloading)) => Some(*reloading),
            Some(Change::Switch(_)) | None => None,
        }
    }

    /// The last reloads, the newest first.
    pub fn history(&self) -> Vec<Record> {
        lock(&self.history).iter().cloned().collect()
    }

    async fn run(&self, by: By, force: bool) -> Result<Record, NotReloaded> {
        let begun = Instant::now();
        let before = self.shared.current.number();
        notify::reloading();
        let mut done = Done::default();
        let result = tokio::select! {
            biased;
            () = self.shared.stop.begun() => Err(stopping()),
            result = caught(self.steps(by, force, &mut done)) => match result {
                Ok(result) => result,
                Err(why) => Err(self.end_panicked(before, &why).await),
            },
        };
        let record = self.record(by, begun.elapsed(), before, done, &result);
        match result {
            Ok(()) => Ok(record),
            Err(error) => Err(NotReloaded { error, record: Some(Box::new(record)) }),
        }
    }

    async fn steps(&self, by: By, force: bool, done: &mut Done) -> Result<(), Error> {
        point("reload:verifying");
        let before = self.shared.current.load();
        let (generation, sockets) = self.verify(&before, Readiness::Serving).await?;
        // A signal may be about something else, as a renewed certificate.
        let uplink = &generation.uplink.config;
        if by == By::Signal && lock(&self.not_reached).as_ref() == Some(uplink) {
            return Err(refused(Fault::new(format!(
                "uplink: {}: a switch to it was not done, so what it has is old; put the present \
                 uplink back into the file, or switch again (cmd=reload takes it as it is)",
                uplink.addr
            ))));
        }
        let replaced = generation.uplink_since != before.uplink_since;
        let exchanged = if replaced {
            self.stage(Stage::Preparing);
            let mut links = Links::open(&before, &generation, force).await.map_err(refused)?;
            done.warnings.extend(links.warning().cloned());
            let mut following = Following::of(by, &before, &generation, &links).await?;
            let attempt = self.prepare(&generation, &mut links, force).await?;
            done.attempt = Some(attempt.clone());
            // That may have taken a while.
            if let Err(why) = following.closely(&mut links).await {
                self.abandon().await;
                return Err(why);
            }
            self.stage(Stage::Pausing);
            let limit = before.settings.pause_time_limit;
            let swap =
                Cutover { by: "reload", limit, force, before: &before, sockets: &sockets, attempt };
            let exchanged = self.swap(&swap, &mut links, &mut following, done).await?;
            *lock(&self.not_reached) = None;
            exchanged
        } else {
            self.reception.retire(&sockets, &before);
            self.shared.current.exchange(generation.clone());
            self.shared.roster.announce();
            Ok(())
        };
        done.warnings.extend(generation.warnings.iter().cloned());
        // The generation is in force: whatever panics, the rest is done.
        let staged = caught_now(|| self.stage(Stage::Settling));
        let settled = self.settle("reload", &generation, sockets).await;
        exchanged.and(staged).and(settled).map_err(|why| {
            Error::Failed(format!("{why}; generation {} is in force", generation.number))
        })
    }

    /// Another generation is in force: who has not taken it yet does so now, whatever panics before.
    pub(super) async fn settle(
        &self,
        by: &str,
        generation: &Generation,
        sockets: Sockets,
    ) -> Result<(), Panicked> {
        let injected = caught_now(|| point(&format!("{by}:opening")));
        let allowed = caught_now(|| limits::allow_descriptors(generation.settings.max_clients));
        let opened = caught_now(|| {
            // A stop that came meanwhile has closed the doors.
            if self.not_stopping().is_ok() {
                self.reception.open(sockets);
            }
        });
        let told = caught(self.tell_settle()).await;
        injected.and(allowed).and(opened).and(told)
    }

    /// Everything that can be found wrong before anything is touched.
    pub(super) async fn verify(
        &self,
        before: &Generation,
        readiness: Readiness,
    ) -> Result<(Arc<Generation>, Sockets), Error> {
        let refused = |text: String| Error::Refused(vec![Fault::new(text)]);
        let Some(file) = &self.file else {
            return Err(refused(
                "it was read from standard input, where there is nothing to read again".to_owned(),
            ));
        };
        let limit = before.settings.connect_time_limit;
        let text = timeout(limit, tokio::fs::read_to_string(file)).await;
        let text = text.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let text =
            text.map_err(|why| refused(format!("could not read {}: {why}", file.display())))?;
        let draft = config::parse(&text);
        let admin = admin_changes(&draft, before);
        let (listen, listen_raw) = (draft.listen_addr(), draft.listen_raw_addr());
        let raw_before = before.listen_raw.as_ref().map(|endpoint| &endpoint.config.addr);
        let sockets = self
            .reception
            .bind(
                Place::changed(Some(&before.listen.config.addr), listen),
                Place::changed(raw_before, listen_raw),
            )
            .await;
        let loaded = generation::load(draft, Some((before, readiness))).await;
        match (loaded, sockets) {
            (Ok(generation), Ok(sockets)) if admin.is_empty() => {
                Ok((Arc::new(generation), sockets))
            }
            (loaded, sockets) => {
                let unbound = sockets.err().unwrap_or_default();
                let mut faults = loaded.err().unwrap_or_default();
                faults.extend(unbound.iter().map(|why| Fault::new(why.to_string())));
                faults.extend(admin);
                Err(Error::Refused(faults))
            }
        }
    }

    fn stage(&self, stage: Stage) {
        if let Some(Change::Reload(reloading)) = &mut *lock(&self.change) {
            reloading.stage = stage;
        }
        point(&format!("reload:{}", stage.name()));
    }

    fn record(
        &self,
        by: By,
        duration: Duration,
        before: u64,
        done: Done,
        result: &Result<(), Error>,
    ) -> Record {
        let generation = self.shared.current.load();
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
        let held_up_by: Vec<HeldUp> = done.held_up_by.iter().map(HeldUp::from).collect();
        let record = Record {
            at_unix_seconds: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64()),
            by,
            result: label,
            generation: generation.number,
            uplink: generation.uplink.config.addr.to_string(),
            duration_ms: milliseconds(duration),
            pause_ms: done.pause.map(milliseconds),
            moved: done.moved(),
            faults,
            held_up_by,
            warnings: done.warnings,
            error: result.as_ref().err().map(Error::to_string).unwrap_or_default(),
        };
        self.shared.metrics.reloads.get_or_create(&Outcome { result: label }).inc();
        match result {
            Ok(()) => info!(
                generation = record.generation,
                uplink = record.uplink,
                duration_ms = record.duration_ms,
                pause_ms = record.pause_ms,
                sessions_moved = record.moved.sessions_moved,
                sessions_closed = record.moved.sessions_closed,
                "reloaded"
            ),
            Err(Error::Refused(faults)) => {
                for fault in faults {
                    error!(%fault, "the reload is refused");
                }
            }
            Err(why) => error!(%why, "the reload is {label}"),
        }
        for warning in &record.warnings {
            warn!(warning, "at the reload");
        }
        remember(&self.history, record.clone());
        record
    }
}

/// How sessions were moved, and what they carried.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct HandedOver {
    /// Their new uplink connection had been made before the pause.
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

pub(super) fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are fine enough.
    duration.as_micros() as f64 / 1000.0
}

/// The `admin` block is the one that cannot change: its caller could lose the answer.
fn admin_changes(draft: &Draft, before: &Generation) -> Vec<Fault> {
    const SAYS: &str = "cannot be changed by a reload; it needs a restart";
    let before = before.admin.as_ref().map(|endpoint| &endpoint.config);
    let (new, old) = match (draft.admin.as_ref(), before) {
        (Some(new), Some(old)) => (new, old),
        (None, None) => return Vec::new(),
        // It may be there, and not be readable.
        (None, Some(_)) if !draft.faults.is_empty() => return Vec::new(),
        (None, Some(_)) | (Some(_), None) => return vec![Fault::new(format!("admin {SAYS}"))],
    };
    let fields = [
        ("addr", new.addr == old.addr),
        ("user and pass", new.login == old.login),
        ("tls, certfile, keyfile and cacertfile", new.tls == old.tls),
    ];
    let changed = fields.iter().filter(|(_, same)| !same);
    changed.map(|(field, _)| Fault::new(format!("admin.{field} {SAYS}"))).collect()
}
