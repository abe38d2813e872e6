//! A switch: the data are moved by Redis's own replication, then the clients. Until the new server is
//! promoted, everything is undone on the old one's side if anything fails; afterwards it goes
//! forward only.
//!
//! | Stage | What is done | If it fails |
//! | --- | --- | --- |
//! | preflight | both servers are looked at | refused, nothing was done |
//! | replicating | the new one becomes a replica, and is waited for | it is what it was before |
//! | ready | each client's connection to it is made | the same |
//! | paused | the gate is shut; blocked commands are interrupted | the same, and clients go on |
//! | catching up | all that clients carry is told; writers past the proxy are held; the last byte is waited for | the same |
//! | promoting | it becomes a master, and is seen to be one | the same: nobody has written to it |
//! | resumed | clients use it | |
//! | fencing | the old one becomes its replica | told as a warning |
//!
//! A panic is a failure like others: before the promotion, all is undone; after it, each of the other
//! steps is carried out, and the answer warns of what panicked.

mod by_sentinel;
mod changes;
mod clock;
mod facts;
mod failover;
mod felt;
mod fence;
mod glob;
mod identity;
mod options;
mod plan;
mod preflight;
pub(super) mod progress;
pub(super) mod replication;
mod report;
mod run;
mod source;
mod undo;
mod user;
mod watch;

use std::sync::Arc;

use self::changes::SwitchProgress;
pub use self::options::{SwitchOptions, SwitchTo};
use self::plan::plan;
pub use self::progress::{SwitchRecord, Switching};
pub use self::report::Report;
use self::run::SwitchRun;
use super::error::Error;
use super::outcome::{By, milliseconds};
use super::panics::broken_off;
use super::state::{Controller, RunningChange, remember};
use crate::config::{Address, Fault, Lookup};
use crate::config_file::Outdated;
use crate::lock::lock;
use crate::metrics::ResultLabel;

/// A switch that was not done.
#[derive(Debug)]
pub struct NotSwitched {
    /// Why.
    pub error: Error,
    /// What became of it, if it began.
    pub record: Option<Box<SwitchRecord>>,
    /// What was found, if it came to that.
    pub report: Option<Report>,
}

impl From<Error> for NotSwitched {
    fn from(error: Error) -> Self {
        NotSwitched { error, record: None, report: None }
    }
}

impl Controller {
    /// Looks for what could go wrong with a switch. Nothing is changed.
    pub async fn check_switch(&self, options: &SwitchOptions) -> Result<Report, Error> {
        plan(self, options).await.map(|plan| plan.report)
    }

    /// Moves the data and the clients to the uplink in the configuration file. Goes on if the
    /// caller does not wait for it.
    pub async fn switch(
        self: Arc<Self>,
        options: SwitchOptions,
        by: By,
    ) -> Result<SwitchRecord, NotSwitched> {
        let from = self.shared.current.load().uplink.config.addr.to_string();
        let switching = Arc::new(Switching::new(by, from));
        let busy = self.begin(RunningChange::Switch(switching.clone()))?;
        let running = tokio::spawn(async move {
            // Callers that wait for its end must not wait for ever, even if it panics.
            let _ended = switching.ended.clone().drop_guard();
            let result = busy.0.run_switch(options, &switching).await;
            drop(busy);
            result
        });
        running.await.unwrap_or_else(|why| Err(broken_off(why).into()))
    }

    /// Calls off the switch that is running; completes when everything is undone.
    pub async fn cancel_switch(&self) -> Result<(), Error> {
        let Some(switching) = self.switching() else {
            return Err(Error::Conflict("no switch is running".to_owned()));
        };
        switching.cancel()?;
        switching.ended.cancelled().await;
        match lock(&self.inner).switches.front().map(|record| record.not_undone.join("; ")) {
            Some(left) if !left.is_empty() => {
                Err(Error::RolledBack(format!("cancelled, but not undone: {left}")))
            }
            _ => Ok(()),
        }
    }

    async fn run_switch(
        self: &Arc<Self>,
        options: SwitchOptions,
        switching: &Switching,
    ) -> Result<SwitchRecord, NotSwitched> {
        let mut run = SwitchRun::new(self, &options, switching);
        let (result, report) = run.execute().await;
        let label = match &result {
            Ok(()) => "done",
            Err(Error::Refused(_)) => "refused",
            Err(_) => "rolled back",
        };
        let mut progress = std::mem::take(&mut run.progress);
        let outdated = match &options.to {
            SwitchTo::Address(to) if result.is_ok() => {
                self.name_switched(&switching.from(), to, &mut progress).await
            }
            SwitchTo::Address(_) | SwitchTo::File | SwitchTo::Replica(_) => None,
        };
        let mut record = SwitchRecord::of(switching, label);
        record.outdated = outdated;
        let record = self.record_switch(record, progress, &result);
        match result {
            Ok(()) => Ok(record),
            Err(error) => Err(NotSwitched { error, record: Some(Box::new(record)), report }),
        }
    }

    /// Has the file name the new uplink, where it names one.
    async fn name_switched(
        self: &Arc<Self>,
        from: &str,
        to: &Address,
        progress: &mut SwitchProgress,
    ) -> Option<Outdated> {
        if !matches!(self.shared.current.load().directory.lookup, Lookup::Addr(_)) {
            return None;
        }
        let outdated = self.name_uplink(from, to).await;
        progress.warnings.extend(outdated.as_ref().map(ToString::to_string));
        outdated
    }

    fn record_switch(
        &self,
        mut record: SwitchRecord,
        progress: SwitchProgress,
        result: &Result<(), Error>,
    ) -> SwitchRecord {
        record.generation = self.shared.current.load().number;
        record.held_ms = progress.done.pause.map(milliseconds);
        (record.fenced, record.warnings) = (progress.fenced, progress.warnings);
        record.not_undone = progress.not_undone;
        record.moved = progress.done.moved();
        if let Err(why) = result {
            record.reason = why.to_string();
            if let Error::Refused(faults) = why {
                record.faults = faults.iter().map(Fault::to_string).collect();
            }
        }
        let outcome = ResultLabel { result: record.result };
        self.shared.metrics.switches.get_or_create(&outcome).inc();
        record.log();
        remember(&mut lock(&self.inner).switches, record.clone());
        record
    }
}
