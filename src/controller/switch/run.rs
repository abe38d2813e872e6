//! One switch, from the preflight to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::warn;

use super::super::cutover::{Held, Swap};
use super::super::error::{Error, joined, refused, stopping};
use super::super::links::{Links, OldIs};
use super::super::panics::{caught, caught_now, point};
use super::super::state::Controller;
use super::changes::SwitchProgress;
use super::fence::OldFollows;
use super::options::SwitchOptions;
use super::plan::{SwitchPlan, plan};
use super::preflight;
use super::progress::{SwitchStage, Switching, called_off};
use super::replication::{CaughtUp, Pair};
use super::report::Report;
use super::source::Source;
use super::undo::Undo;
use crate::changeover::Attempt;
use crate::config::Fault;
use crate::generation::Generation;
use crate::lock::lock;
use crate::server::Replication;

/// Longer than anybody waits, and short enough to be added to a time.
pub(super) const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long the last byte is waited for, at most, once writers past the proxy are held: if the
/// proxy dies, that must not be for ever.
pub(super) const LAST_BYTE: Duration = Duration::from_secs(30);
/// Writers past the proxy are held for this much longer, so that they are fenced before they go on.
pub(super) const FENCED_WITHIN: Duration = Duration::from_secs(10);
/// How long open transactions may hold up everybody, once there is no way back.
const QUEUED_WITHIN: Duration = Duration::from_secs(1);

const LATE: &str = "the new uplink has not caught up in time";

/// A switch on its way.
pub(super) struct SwitchRun<'a> {
    pub(super) controller: &'a Controller,
    pub(super) options: &'a SwitchOptions,
    pub(super) switching: &'a Switching,
    pub(super) revocable: Revocable<'a>,
    pub(super) progress: SwitchProgress,
}

/// What is called off if an operator, a stop or the time limit says so.
#[derive(Clone, Copy)]
pub(super) struct Revocable<'a> {
    controller: &'a Controller,
    switching: &'a Switching,
    /// The new server must be promoted by then.
    until: Instant,
}

/// Each client's connection to the new uplink is made.
struct Ready {
    links: Links,
    attempt: Arc<Attempt>,
}

/// Everything is at the new server.
struct Copied {
    /// The old server as it was when everything was copied.
    old: Replication,
    /// The new server must be promoted by then, for writers past the proxy are not held for ever.
    deadline: Instant,
}

impl Revocable<'_> {
    /// Does this work, which ends early if the switch is called off, the process stops, or time is over.
    pub(super) async fn run<T>(
        self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.switching.cancelled.cancelled() => Err(called_off()),
            () = self.controller.shared.stop.begun() => Err(stopping()),
            () = sleep_until(self.until) => Err(Error::TimeLimit(
                "the switch is rolled back: timeout_ms is over".to_owned(),
            )),
            result = work => result,
        }
    }
}

impl<'a> SwitchRun<'a> {
    pub(super) fn new(
        controller: &'a Controller,
        options: &'a SwitchOptions,
        switching: &'a Switching,
    ) -> Self {
        let until = switching.since + options.timeout.min(FOR_EVER);
        let revocable = Revocable { controller, switching, until };
        SwitchRun { controller, options, switching, revocable, progress: SwitchProgress::default() }
    }

    /// Switches: either the clients use the new uplink afterwards, or everything is as it was. A preflight
    /// that refuses the switch gives its report.
    pub(super) async fn execute(&mut self) -> (Result<(), Error>, Option<Report>) {
        let planning = async {
            point("switch:preflight");
            plan(self.controller, self.options).await
        };
        let planned = step(self.switching, self.revocable.run(planning)).await;
        let mut plan = match planned {
            Ok(plan) => plan,
            Err(why) => return (Err(why), None),
        };
        self.switching.target(plan.pair.new.addr());
        let (result, report) = self.carry_out(&mut plan).await;
        let not_reached = result.is_err().then(|| plan.generation.uplink.config.clone());
        lock(&self.controller.inner).not_reached = not_reached;
        (result, report)
    }

    async fn carry_out(&mut self, plan: &mut SwitchPlan) -> (Result<(), Error>, Option<Report>) {
        let failures = plan.report.failures();
        if !failures.is_empty() {
            let faults = failures.into_iter().map(Fault::new).collect();
            return (Err(Error::Refused(faults)), Some(std::mem::take(&mut plan.report)));
        }
        self.progress.warnings = plan.report.warnings();
        let run = match self.options.to.is_by_sentinel(&plan.before.directory.lookup) {
            true => self.run_by_sentinel(plan).await,
            false => self.run_stages(plan).await,
        };
        let Err(why) = run else { return (Ok(()), None) };
        let staged = caught_now(|| self.switching.roll_back());
        self.progress.roll_back(&mut plan.pair).await;
        self.progress.note(staged, "");
        let advice = plan.pair.advice(self.options.to.address()).await;
        let why = match why {
            // The configuration was good; it is the switch that failed.
            Error::Refused(faults) => Error::RolledBack(joined(&faults) + &advice),
            Error::RolledBack(why) => Error::RolledBack(why + &advice),
            Error::TimeLimit(why) => Error::TimeLimit(why + &advice),
            Error::Conflict(why) => Error::Conflict(why + &advice),
            Error::Failed(why) => Error::Failed(why + &advice),
        };
        (Err(why), None)
    }

    async fn run_stages(&mut self, plan: &mut SwitchPlan) -> Result<(), Error> {
        let SwitchPlan { before, generation, sockets, pair, source, replicas, .. } = plan;
        let controller = self.controller;
        let limit = self.options.pause_limit.unwrap_or(before.settings.pause_time_limit);
        let limit = limit.min(FOR_EVER);
        let switching = self.switching;
        let generations = (&**before, &*generation);
        let making = self.revocable.run(self.make_ready(generations, pair, source.as_ref(), limit));
        let ready = step(switching, making).await;
        let Ready { mut links, attempt } = controller.or_abandon(ready).await?;
        self.progress.done.attempt = Some(attempt.clone());
        let force = self.options.force_clients;
        let swap = Swap { by: "switch", limit, force, before, sockets, attempt };
        let revocable = self.revocable;
        let holding = async {
            switching.stage(SwitchStage::Paused, "running requests end");
            controller.hold(&swap, &mut links, &mut self.progress.done).await
        };
        let held = step(switching, revocable.run(holding)).await;
        let held = controller.or_abandon(held).await?;
        let promoted = step(switching, self.promote(&swap, &mut links, &held, pair)).await;
        let copied = match controller.or_abandon(promoted).await {
            Ok(copied) => copied,
            Err(why) => {
                held.release(&mut self.progress.done);
                return Err(why);
            }
        };
        // From here on, it goes forward only: whatever panics, the rest is done.
        let ways = pair.ways_back(&copied.old.replicas);
        let mut is_fenced_first = false;
        if *replicas > 0 {
            let fencing = timeout_at(copied.deadline, self.fence(pair, &ways, &copied.old));
            is_fenced_first = fencing.await.is_ok();
            let replicated = caught(async {
                switching.waits_for("the new uplink has replicas, without which it takes no write");
                self.progress.await_replicas(pair, *replicas, copied.deadline).await;
            });
            let replicated = replicated.await;
            self.progress
                .note(replicated, "see that the new uplink has the replicas that it wants");
        }
        let queued = caught(self.queue(&swap, copied.deadline)).await;
        self.progress.note(queued, "open transactions are begun again with their next requests");
        self.notes_history(pair, generation);
        let exchanged = controller.exchange(&swap, held, &mut self.progress.done);
        self.progress.note(exchanged, "");
        let resumed = || switching.stage(SwitchStage::Resumed, "clients take the new uplink");
        self.progress.note(caught_now(resumed), "");
        if self.options.fence && !is_fenced_first {
            self.fence(pair, &ways, &copied.old).await;
        }
        let settled = controller.settle("switch", generation, std::mem::take(sockets)).await;
        self.progress.note(settled, "see that new addresses are listened on, or reload");
        if self.progress.fenced {
            let follows = caught(pair.old_follows(&ways)).await;
            if matches!(follows, Ok(OldFollows::NotYet)) {
                let text = "the old uplink has not connected to the new one yet";
                self.progress.warnings.push(text.to_owned());
            }
            self.progress.note(follows, "see that the old uplink follows the new one");
        }
        Ok(())
    }

    /// Notes the history of the new uplink's data, before anybody has looked at it: whoever has the old one's alone lacks
    /// what is written from now on.
    pub(super) fn notes_history(&self, pair: &Pair, generation: &Generation) {
        let promoted = pair.promoted.clone().map(|history| (generation.uplink_since, history));
        lock(&self.controller.inner).history = promoted;
    }

    async fn queue(&self, swap: &Swap<'_>, deadline: Instant) {
        point("switch:queueing");
        let deadline = deadline.min(Instant::now() + QUEUED_WITHIN);
        if let Err(why) = self.controller.queue(swap, deadline).await {
            // Who has an open transaction begins it again with its next request.
            warn!(%why, "open transactions were not carried over ahead");
        }
    }

    pub(super) async fn fence(&mut self, pair: &mut Pair, ways: &[Source], copied: &Replication) {
        let fencing = "the old uplink becomes a replica of the new one";
        let staged = caught_now(|| self.switching.stage(SwitchStage::Fencing, fencing));
        self.progress.note(staged, "");
        let remains = format!("make {} a replica of {}", pair.old.addr(), pair.new.addr());
        let fenced = caught(self.progress.fence(pair, ways, copied)).await;
        self.progress.note(fenced, &remains);
    }

    /// Has the data copied, but for what is written just now, and each client's connection made.
    async fn make_ready(
        &mut self,
        (before, generation): (&Generation, &Arc<Generation>),
        pair: &mut Pair,
        source: Option<&Source>,
        limit: Duration,
    ) -> Result<Ready, Error> {
        let switching = self.switching;
        switching.stage(SwitchStage::Replicating, "the new uplink is made a replica");
        let failed = |pair: &Pair, why| Error::RolledBack(format!("{}: {why}", pair.new.addr()));
        let closed = pair.refuse_writes_at_new(&mut self.progress.undo_new).await;
        closed.map_err(|why| failed(pair, why))?;
        if self.options.copy_settings {
            let copied = pair.copy_settings(&mut self.progress.undo_new).await;
            self.progress.warnings.extend(copied.map_err(|why| failed(pair, why))?);
        }
        if let Some(source) = source {
            let set_up = pair.set_up(source, &mut self.progress.undo_new).await;
            set_up.map_err(|why| failed(pair, why))?;
        }
        pair.synchronise(switching, limit).await.map_err(Error::RolledBack)?;
        if pair.new_takes_writes().await {
            self.progress.warnings.push(preflight::NEW_TAKES_WRITES.to_owned());
        }
        switching.stage(SwitchStage::Ready, "each client's connection to the new uplink is made");
        let mut links =
            Links::open(before, generation, OldIs::InUse, false).await.map_err(refused)?;
        if links.old_is_lost() {
            return Err(Error::RolledBack(format!("lost the present uplink: {}", pair.old.addr())));
        }
        if !links.is_replica() {
            let addr = pair.new.addr();
            return Err(Error::RolledBack(format!("{addr} is no replica of the present uplink")));
        }
        let attempt =
            self.controller.prepare(generation, &mut links, self.options.force_clients).await?;
        // That may have taken a while.
        pair.synchronise(switching, limit).await.map_err(Error::RolledBack)?;
        links.rehearse().await.map_err(Error::RolledBack)?;
        Ok(Ready { links, attempt })
    }

    /// Waits, while clients are held, until the new server has everything, and makes it a master.
    async fn promote(
        &mut self,
        swap: &Swap<'_>,
        links: &mut Links,
        held: &Held,
        pair: &mut Pair,
    ) -> Result<Copied, Error> {
        self.switching
            .stage(SwitchStage::CatchingUp, "the new uplink applies what was written last");
        let copied = self.revocable.run(self.copy_the_rest(swap, links, held, pair)).await?;
        self.switching.commit()?;
        self.switching.stage(SwitchStage::Promoting, "the new uplink becomes a master");
        let addr = pair.new.addr();
        let promoted = timeout_at(copied.deadline, pair.promote(&copied.old)).await;
        promoted
            .unwrap_or_else(|_| Err(format!("whether {addr} is promoted is not known in time")))
            .map_err(Error::RolledBack)?;
        Ok(copied)
    }

    async fn copy_the_rest(
        &mut self,
        swap: &Swap<'_>,
        links: &mut Links,
        held: &Held,
        pair: &mut Pair,
    ) -> Result<Copied, Error> {
        let caught_up = swap.in_time(held.deadline, LATE, catch_up(pair));
        self.controller.finish(swap, links, held, caught_up).await?;
        let deadline = held.deadline.min(Instant::now() + LAST_BYTE);
        let CaughtUp { old, new } = self.copy_the_last(swap, deadline, pair).await?;
        // Whether it is promoted may never be known.
        if !self.progress.undo_new.iter().any(|it| matches!(it, Undo::Follow(_))) {
            self.progress.undo_new.push(Undo::Follow(new.master));
        }
        Ok(Copied { old, deadline })
    }

    /// Has writers past the proxy held, if they are to be fenced, and waits for the last byte.
    pub(super) async fn copy_the_last(
        &mut self,
        swap: &Swap<'_>,
        deadline: Instant,
        pair: &mut Pair,
    ) -> Result<CaughtUp, Error> {
        if self.options.fence {
            // Not before: the mark for subscribers would have to wait, too.
            let time = deadline.saturating_duration_since(Instant::now()) + FENCED_WITHIN;
            let pausing = pair.pause_writers(time, &mut self.progress.undo_old);
            let paused = swap.in_time(deadline, LATE, async { Ok(pausing.await) });
            if let Err(why) = paused.await? {
                let addr = pair.old.addr();
                let text = format!("{addr}: who writes past the proxy was not held: {why}");
                self.progress.warnings.push(text);
            }
        }
        swap.in_time(deadline, LATE, catch_up(pair)).await
    }
}

pub(super) async fn catch_up(pair: &mut Pair) -> Result<CaughtUp, Error> {
    pair.catch_up().await.map_err(Error::RolledBack)
}

/// Does a step that comes before the promotion: if it panics, the switch is rolled back.
pub(super) async fn step<T>(
    switching: &Switching,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    caught(work).await.unwrap_or_else(|why| {
        let stage = switching.at().name();
        Err(Error::RolledBack(format!("at the stage {stage}, {why}")))
    })
}
