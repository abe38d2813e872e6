//! A failover through Sentinel: it promotes the replica, which has the last byte, while clients are held. Sentinel
//! cuts all connections to the replica then, so clients are moved when it is a master.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::super::cutover::{Held, Swap};
use super::super::error::{Error, refused};
use super::super::links::{Links, OldIs};
use super::super::panics::{caught, point};
use super::super::reload::Target;
use super::plan::SwitchPlan;
use super::progress::SwitchStage;
use super::replication::{CaughtUp, LOOK, Pair};
use super::run::{FENCED_WITHIN, FOR_EVER, LAST_BYTE, SwitchRun, step};
use super::undo::Undo;
use crate::changeover::Attempt;
use crate::config::Address;
use crate::discovery::{Finder, KnownReplica};
use crate::server::{self, Replication, Server};

/// How long Sentinels may take to see that a replica is not to be chosen: they look every ten seconds.
const STEERED_WITHIN: Duration = Duration::from_secs(30);

/// So many looks in succession at Sentinels that know of no failover show that there is none.
const GIVEN_UP: u32 = 10;

/// Replicas that Sentinels would choose in the place of the one that is meant, and their priorities.
#[derive(Default)]
struct Steered(Vec<(Server, u64)>);

impl SwitchRun<'_> {
    /// Has the Sentinels promote the replica, and moves the clients there.
    pub(super) async fn run_by_sentinel(&mut self, plan: &mut SwitchPlan) -> Result<(), Error> {
        let mut steered = Steered::default();
        let done = self.stages_by_sentinel(plan, &mut steered).await;
        self.progress.warnings.extend(steered.restore().await);
        done
    }

    async fn stages_by_sentinel(
        &mut self,
        plan: &mut SwitchPlan,
        steered: &mut Steered,
    ) -> Result<(), Error> {
        let (controller, switching) = (self.controller, self.switching);
        let SwitchPlan { before, generation, sockets, pair, .. } = plan;
        let limit = self.options.pause_limit.unwrap_or(before.settings.pause_time_limit);
        let limit = limit.min(FOR_EVER);
        let mut finder = Finder::new(before.directory.clone());
        let preparing = async {
            switching.stage(SwitchStage::Replicating, "the replica catches up");
            pair.synchronise(switching, limit).await.map_err(Error::RolledBack)?;
            switching.stage(SwitchStage::Ready, "the Sentinels learn which replica is meant");
            steered.steer(&mut finder, pair).await.map_err(Error::RolledBack)?;
            pair.synchronise(switching, limit).await.map_err(Error::RolledBack)?;
            Links::open(before, generation, OldIs::InUse, false).await.map_err(refused)
        };
        let mut links = step(switching, self.revocable.run(preparing)).await?;
        let force = self.options.force_clients;
        let attempt = Attempt::new(generation.clone(), None, false, force);
        let swap = Swap { by: "switch", limit, force, before, sockets, attempt };
        let holding = async {
            switching.stage(SwitchStage::Paused, "running requests end");
            controller.hold(&swap, &mut links, &mut self.progress.done).await
        };
        let held = step(switching, self.revocable.run(holding)).await?;
        let promoted = step(switching, self.promote_by_sentinel(&swap, &held, pair, &mut finder));
        let copied = match promoted.await {
            Ok(copied) => copied,
            Err(why) => {
                held.release(&mut self.progress.done);
                return Err(why);
            }
        };
        // From here on, it goes forward only.
        let ways = pair.ways_back(&copied.replicas);
        let place = generation.uplink.place();
        self.notes_history(pair, generation);
        let target = Target::Uplink { place, number: before.number, old: OldIs::Paused };
        let moving = controller.steps(target, switching.by, force, &mut self.progress.done);
        let moved = caught(moving).await;
        held.release(&mut self.progress.done);
        switching.stage(SwitchStage::Resumed, "clients take the new uplink");
        if self.options.fence {
            self.fence(pair, &ways, &copied).await;
        }
        // Writers past the proxy must not go on there, whatever came of that.
        self.progress.undo_old.clear();
        let failed = |why: String| {
            let addr = pair.new.addr();
            Error::Failed(format!(
                "{addr} is promoted, but clients could not be moved there: {why}; they follow as soon as they can"
            ))
        };
        match moved {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(failed(why.to_string())),
            Err(why) => Err(failed(why.to_string())),
        }
    }

    /// Waits, while clients are held, until the replica has everything, and is a master.
    async fn promote_by_sentinel(
        &mut self,
        swap: &Swap<'_>,
        held: &Held,
        pair: &mut Pair,
        finder: &mut Finder,
    ) -> Result<Replication, Error> {
        self.switching.stage(SwitchStage::CatchingUp, "the replica applies what was written last");
        let deadline = held.deadline.min(Instant::now() + LAST_BYTE);
        let revocable = self.revocable;
        let copying = revocable.run(self.copy_the_last(swap, deadline, pair));
        let CaughtUp { old, .. } = copying.await?;
        self.switching.commit()?;
        self.switching.stage(SwitchStage::Promoting, "the Sentinels promote the replica");
        finder.fail_over().await.map_err(Error::RolledBack)?;
        point("switch:promoted");
        let (present, addr) = (pair.old.dialler().config.addr.clone(), pair.new.addr());
        let promoted = async {
            tokio::select! {
                promoted = pair.becomes_master(&old) => promoted.map_err(NotPromoted::Unknown),
                other = ended_otherwise(finder, &present) => Err(other),
            }
        };
        match timeout_at(deadline, promoted).await {
            Ok(Ok(())) => Ok(old),
            Ok(Err(NotPromoted::GivenUp)) => {
                Err(Error::RolledBack(format!("the Sentinels gave up to promote {addr}")))
            }
            Ok(Err(NotPromoted::Unknown(why))) => Err(self.unfinished(&why)),
            Err(_) => Err(self.unfinished(&format!("{addr} was not promoted in time"))),
        }
    }

    /// The error of a failover that the Sentinels may yet finish. Until they have, nobody writes to the old uplink.
    fn unfinished(&mut self, why: &str) -> Error {
        self.progress.undo_old.retain(|it| !matches!(it, Undo::Unpause));
        self.progress.warnings.push(format!(
            "the present uplink holds all writes (CLIENT PAUSE) for up to {} s more, for the Sentinels may yet promote \
             another server, and clients will follow; CLIENT UNPAUSE there ends that",
            FENCED_WITHIN.as_secs()
        ));
        Error::RolledBack(why.to_owned())
    }
}

/// Why the replica that is meant was not promoted.
enum NotPromoted {
    /// The Sentinels have given up: the master is who it was.
    GivenUp,
    /// Who is the master is not known.
    Unknown(String),
}

/// Waits until the Sentinels have ended the failover in another way than they should.
async fn ended_otherwise(finder: &mut Finder, present: &Address) -> NotPromoted {
    let mut same = 0;
    loop {
        sleep(LOOK).await;
        match finder.outcome().await {
            // A failover that has just been asked for may not be told yet.
            Ok(Some(addr)) if addr == *present => same += 1,
            Ok(_) | Err(_) => same = 0,
        }
        if same >= GIVEN_UP {
            return NotPromoted::GivenUp;
        }
    }
}

impl Steered {
    /// Sees to it that Sentinels choose this replica.
    async fn steer(&mut self, finder: &mut Finder, pair: &Pair) -> Result<(), String> {
        let meant = pair.new.dialler().config.addr.clone();
        let known = finder.replicas(&pair.old.dialler().config.addr).await?;
        let others = known.fit.iter().filter(|it| it.place.addr != meant && it.priority > 0);
        for KnownReplica { place, priority, .. } in others {
            let mut server = finder.server(place)?;
            server
                .tell(&["CONFIG", "SET", "replica-priority", "0"])
                .await
                .map_err(|why| format!("{}: {why}", place.addr))?;
            self.0.push((server, *priority));
        }
        if self.0.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + STEERED_WITHIN;
        loop {
            let eligible = finder.eligible().await?;
            if eligible.iter().all(|addr| *addr == meant) && !eligible.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!(
                    "the Sentinels did not take {meant} for the only choice in time"
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// Gives replicas back their priorities; gives what could not be undone.
    async fn restore(self) -> Vec<String> {
        let mut failed = Vec::new();
        for (mut replica, priority) in self.0 {
            let set = ["CONFIG", "SET", "replica-priority", &priority.to_string()];
            let mut told = replica.tell(&set).await;
            if matches!(told, Err(server::Error::Lost(_))) {
                // The Sentinels cut all connections of a replica that follows another master.
                told = replica.tell(&set).await;
            }
            if let Err(why) = told {
                failed.push(format!(
                    "{}: replica-priority is 0, and was {priority}: {why}",
                    replica.addr()
                ));
            }
        }
        failed
    }
}
