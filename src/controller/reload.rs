//! A reload: verify, bind, prepare, pause, swap, resume, settle. Up to the swap it changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cutover::Swap;
use super::error::{Error, refused, stopping};
use super::following::Following;
use super::links::{Links, OldIs};
use super::outcome::{By, Done, NotReloaded, ReloadRecord, ReloadStage, Reloading};
use super::panics::{Panicked, broken_off, caught, caught_now, point};
use super::state::{Controller, RunningChange, remember};
use crate::config::Fault;
use crate::generation::{Generation, Readiness};
use crate::limits;
use crate::lock::lock;
use crate::metrics::ResultLabel;
use crate::notify;
use crate::reception::Sockets;
use crate::uplink::Place;

/// What a reload puts in force.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// The configuration file.
    File,
    /// The generation of this number, which must still be in force, with the uplink at another place.
    /// `old` is what can be asked of the present one.
    Uplink { place: Place, number: u64, old: OldIs },
}

impl Controller {
    /// Puts the configuration file in force. Goes on if the caller does not wait for it. With `force`,
    /// clients that hold it up are closed, and what speaks against the new uplink is a warning, where
    /// it is for an operator to know better.
    pub async fn reload(self: Arc<Self>, by: By, force: bool) -> Result<ReloadRecord, NotReloaded> {
        self.change(Target::File, by, force).await
    }

    /// Puts this in force. Goes on if the caller does not wait for it.
    pub(super) async fn change(
        self: Arc<Self>,
        target: Target,
        by: By,
        force: bool,
    ) -> Result<ReloadRecord, NotReloaded> {
        self.not_stopping()?;
        let reloading = Reloading { by, stage: ReloadStage::Verifying, since: Instant::now() };
        let busy = self.begin(RunningChange::Reload(reloading))?;
        let running = tokio::spawn(async move { busy.0.run(target, by, force).await });
        running.await.unwrap_or_else(|why| Err(broken_off(why).into()))
    }

    /// Ends a reload that panicked; `before` was in force when it began. Sessions let go of what they have
    /// made ready, or use it.
    pub(super) async fn end_panicked(&self, before: u64, why: &Panicked) -> Error {
        let stage = self.reloading().map(|it| it.stage.name()).unwrap_or_default();
        let why = format!("at the stage {stage}, {why}");
        let number = self.shared.current.number();
        // If this panics, too, each session finds out by itself at its next request.
        if number == before {
            let _ = caught(self.abandon()).await;
            Error::Failed(format!("{why}; nothing is changed, generation {number} is in force"))
        } else {
            let _ = caught(self.tell_to_take_generation()).await;
            Error::Failed(format!("{why}; generation {number} is in force"))
        }
    }

    async fn run(&self, target: Target, by: By, force: bool) -> Result<ReloadRecord, NotReloaded> {
        let begun = Instant::now();
        let before = self.shared.current.number();
        notify::reloading();
        let mut done = Done::default();
        let result = tokio::select! {
            biased;
            () = self.shared.stop.begun() => Err(stopping()),
            result = caught(self.steps(target, by, force, &mut done)) => match result {
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

    /// Verifies what is to be put in force, moves all clients, and settles.
    pub(super) async fn steps(
        &self,
        target: Target,
        by: By,
        force: bool,
        done: &mut Done,
    ) -> Result<(), Error> {
        point("reload:verifying");
        let before = self.shared.current.load();
        let is_of_file = matches!(target, Target::File);
        let old = match &target {
            Target::File => OldIs::InUse,
            Target::Uplink { old, .. } => *old,
        };
        let (generation, sockets) = self.load(target, &before, Readiness::Serving).await?;
        // A signal may be about something else, as a renewed certificate.
        let uplink = &generation.uplink.config;
        if by == By::Signal && lock(&self.inner).not_reached.as_ref() == Some(uplink) {
            return Err(refused(Fault::new(format!(
                "uplink: {}: a switch to it failed, so its data is stale; put the present \
                 uplink back into the file, or switch again (cmd=reload takes it as it is)",
                uplink.addr
            ))));
        }
        if is_of_file && !force {
            self.not_outdated(&generation)?;
        }
        let replaced = generation.uplink_since != before.uplink_since;
        let exchanged = if replaced {
            self.stage(ReloadStage::Preparing);
            let mut links = Links::open(&before, &generation, old, force).await.map_err(refused)?;
            if by == By::Discovery && links.new_is_replica {
                let addr = &uplink.addr;
                return Err(refused(Fault::new(format!("uplink: {addr} is a replica by now"))));
            }
            done.warnings.extend(links.warning().cloned());
            let mut following = Following::of(by, &before, &generation, &links).await?;
            let prepared = self.prepare(&generation, &mut links, force).await;
            let attempt = self.or_abandon(prepared).await?;
            done.attempt = Some(attempt.clone());
            // That may have taken a while.
            self.or_abandon(following.closely(&mut links).await).await?;
            self.stage(ReloadStage::Pausing);
            let limit = before.settings.pause_time_limit;
            let swap =
                Swap { by: "reload", limit, force, before: &before, sockets: &sockets, attempt };
            let exchanged = self.swap(&swap, &mut links, &mut following, done).await?;
            lock(&self.inner).not_reached = None;
            exchanged
        } else {
            self.reception.retire(&sockets, &before);
            self.shared.current.exchange(generation.clone());
            self.shared.roster.announce();
            Ok(())
        };
        if is_of_file {
            lock(&self.inner).outdated = None;
        }
        done.warnings.extend(generation.warnings.iter().cloned());
        // The generation is in force: whatever panics, the rest is done.
        let staged = caught_now(|| self.stage(ReloadStage::Settling));
        let settled = self.settle("reload", &generation, sockets).await;
        exchanged.and(staged).and(settled).map_err(|why| {
            Error::Failed(format!("{why}; generation {} is in force", generation.number))
        })
    }

    /// Has all sessions take the new generation, which is in force, whatever panics before.
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
        let told = caught(self.tell_to_take_generation()).await;
        injected.and(allowed).and(opened).and(told)
    }

    fn stage(&self, stage: ReloadStage) {
        if let Some(RunningChange::Reload(reloading)) = &mut lock(&self.inner).change {
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
    ) -> ReloadRecord {
        let generation = self.shared.current.load();
        let record = ReloadRecord::of(by, duration, &generation, before, done, result);
        let outcome = ResultLabel { result: record.result };
        self.shared.metrics.reloads.get_or_create(&outcome).inc();
        record.log(result);
        remember(&mut lock(&self.inner).reloads, record.clone());
        record
    }

    /// Reloads for a SIGHUP. Several during a reload make one more reload.
    pub fn hang_up(self: &Arc<Self>) {
        if self.not_stopping().is_err() {
            return;
        }
        lock(&self.inner).again = true;
        tokio::spawn({
            let controller = self.clone();
            async move { controller.reload_again().await }
        });
    }

    /// Reloads if a SIGHUP asked for it, unless a reload is running: that comes here when it ends.
    pub(super) async fn reload_again(self: Arc<Self>) {
        let begins = {
            let mut inner = lock(&self.inner);
            inner.change.is_none() && std::mem::take(&mut inner.again)
        };
        if begins {
            // What comes of it is in the log, and in the status for systemd.
            let _ = self.reload(By::Signal, false).await;
        }
    }
}
