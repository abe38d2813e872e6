//! The watch: it looks after the uplink for all sessions. While the uplink is lost, clients are held at the
//! gate, up to the limit.
//!
//! - `discovery`: whether the uplink should be another server; clients are moved there, then
//! - `look`: the connection for that, and what is asked over it

mod discovery;
mod look;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::look::{Seen, Watched};
use super::panics::{caught, point};
use super::state::{Controller, Outage};
use super::uplink_identity::Change;
use crate::generation::Generation;
use crate::lock::lock;
use crate::outage::Look;
use crate::random;

/// Between two looks at an uplink that serves.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks at one that is lost, at first and at most: it doubles.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// How long after a client's connection that of the watch may break.
const GRACE: Duration = Duration::from_millis(100);
/// How often it is looked whether clients have been held for long enough.
const LIMIT_LOOK: Duration = Duration::from_millis(50);

impl Controller {
    /// Looks after the uplink until the process stops, whatever panics.
    pub async fn watch_always(self: Arc<Self>) {
        let instance = random::token().unwrap_or_default();
        let name = format!("redis-proxy:watch:{}", instance.get(..8).unwrap_or_default());
        while let Err(why) = caught(self.watch(&name)).await {
            error!(%why, "the watch of the uplink begins anew");
            // The next one may panic as well.
            sleep(EVERY).await;
        }
    }

    async fn watch(self: &Arc<Self>, name: &str) {
        let mut watched = Watched::of(&self.shared.current.load(), name);
        let mut again = AGAIN.0;
        loop {
            let look = self.shared.outages.looking();
            let generation = self.shared.current.load();
            if generation.uplink_since != watched.uplink_since {
                watched = Watched::of(&generation, name);
                let mut inner = lock(&self.inner);
                (inner.identity, inner.follows) = (None, None);
            }
            let seen = tokio::select! {
                biased;
                () = self.shared.stop.begun() => return,
                () = self.shared.current.exchanged(generation.number) => continue,
                seen = watched.look() => seen,
            };
            if let Some(kind) = watched.take_maintenance() {
                self.shared.hear_of_maintenance(kind);
            }
            let serves = self.judge(&look, &generation, seen);
            if serves {
                again = AGAIN.0;
                tokio::select! {
                    () = sleep(EVERY) => {}
                    () = self.shared.outages.asked_now() => {}
                    // A connection broke. They do not all break in the same instant.
                    () = self.shared.outages.asked() => tokio::select! {
                        () = sleep(GRACE) => {}
                        () = watched.ended() => {}
                        () = self.shared.stop.begun() => return,
                    },
                    () = self.shared.current.exchanged(generation.number) => {}
                    () = watched.ended() => {}
                    () = self.shared.stop.begun() => return,
                }
            } else {
                tokio::select! {
                    () = sleep(again) => {}
                    () = self.shared.current.exchanged(generation.number) => {}
                    () = self.shared.stop.begun() => return,
                }
                again = (again * 2).min(AGAIN.1);
            }
        }
    }

    /// Draws the consequences of a look at the uplink of this generation. True if it serves the watch.
    fn judge(self: &Arc<Self>, look: &Look, generation: &Generation, seen: Seen) -> bool {
        let (before, is_lost, is_changing) = {
            let inner = lock(&self.inner);
            (inner.identity.clone(), inner.outage.is_some(), inner.change.is_some())
        };
        let now = match seen {
            Seen::Serves(now) => now,
            // As long as nothing else is known. There is no connection that could tell of its end.
            Seen::Unknown(_) if !is_lost => {
                self.uplink_serves(look);
                return false;
            }
            Seen::Away(why) | Seen::Unknown(why) => {
                self.uplink_is_lost(look, &why);
                return false;
            }
        };
        lock(&self.inner).follows.clone_from(&now.follows);
        let change = before.as_ref().map_or(Change::None, |before| before.becomes(&now));
        // A switch demotes the old uplink itself.
        match change {
            Change::None | Change::Cut
                if generation.directory.wants_master() && now.is_master == Some(false) =>
            {
                self.uplink_is_lost(look, "it is a replica");
                return false;
            }
            Change::Demoted if !is_changing || is_lost => {
                self.uplink_is_lost(look, "it was a master, and is a replica now");
                return false;
            }
            Change::Restarted => self.uplink_is_lost(look, "it was restarted"),
            Change::Cut => self.shared.outages.all_are_cut(),
            Change::Demoted | Change::None => {}
        }
        if change != Change::Demoted {
            let mut inner = lock(&self.inner);
            if let Some(history) = now.history.clone() {
                inner.history = Some((generation.uplink_since, history));
            }
            inner.identity = Some(now);
        }
        if before.is_none()
            && let Some(remark) = self.replica_remark()
        {
            error!("{remark}");
        }
        self.uplink_serves(look);
        true
    }

    pub(super) fn uplink_is_lost(self: &Arc<Self>, look: &Look, why: &str) {
        point("watch:losing");
        let mut inner = lock(&self.inner);
        if inner.outage.is_some() {
            self.shared.outages.is_lost(look, why);
            return;
        }
        let generation = self.shared.current.load();
        let addr = &generation.uplink.config.addr;
        let over = CancellationToken::new();
        // The gate is shut before any session hears of it.
        let hold = self.shared.gate.pause();
        let limit = generation.settings.hold_time_limit;
        let failing_over = Some(self.shared.notices.failing_over(limit));
        inner.outage = Some(Outage { hold, failing_over, over: over.clone() });
        self.shared.outages.is_lost(look, why);
        drop(inner);
        self.shared.metrics.outages.inc();
        warn!(%addr, why, "the uplink is lost: clients are held");
        // Some hold on to connections that nobody has closed.
        self.shared.roster.wake_all();
        tokio::spawn(self.clone().limit_hold(over));
        self.changed.notify_one();
    }

    fn uplink_serves(&self, look: &Look) {
        let outage = lock(&self.inner).outage.take();
        let Some((loss, outage)) = self.shared.outages.is_up(look).zip(outage) else { return };
        outage.over.cancel();
        let lasted = loss.since.elapsed();
        self.shared.metrics.outage_durations.observe(lasted, 1);
        info!(lasted_ms = lasted.as_millis(), "the uplink serves again");
        drop(outage.hold);
        self.changed.notify_one();
    }

    /// Ends the waiting of clients when the limit is over. It does not count while an operator holds them, or
    /// while another uplink is put in force: they wait for that.
    async fn limit_hold(self: Arc<Self>, over: CancellationToken) {
        let mut since = Instant::now();
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                () = sleep(LIMIT_LOOK) => {}
            }
            let waits_for_more = {
                let inner = lock(&self.inner);
                inner.pause.is_some() || inner.change.as_ref().is_some_and(|it| !it.is_discovery())
            };
            if waits_for_more {
                since = Instant::now();
            }
            let limit = self.shared.current.load().settings.hold_time_limit;
            let is_over = limit.is_some_and(|limit| since.elapsed() >= limit);
            if is_over == self.shared.outages.given_up().is_some() {
                continue;
            }
            self.shared.outages.give_up(is_over);
            if let Some(outage) = &mut lock(&self.inner).outage {
                outage.failing_over = (!is_over).then(|| self.shared.notices.failing_over(limit));
            }
            if is_over {
                let waiting = self.shared.gate.waiting();
                error!(waiting, "hold_time_limit_ms is over: clients with requests are closed");
            }
            // Those that wait are closed; those that listen are told, also that clients are held again.
            self.shared.roster.wake_all();
        }
    }
}
