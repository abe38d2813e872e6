//! `cmd=reload&dry_run=true`: everything that can be said of a reload before there is one.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::cutover::{Moment, few_descriptors, given_up_for, held_up};
use super::error::{Error, refused};
use super::links::{Links, OldIs};
use super::outcome::{Closed, HeldUp};
use super::sessions::CarriedCounts;
use super::state::Controller;
use crate::changeover::Running;
use crate::config::Fault;
use crate::generation::{Generation, Readiness};

/// Why a client may lose something.
const UNKNOWN: &str = "has used a command that the proxy does not know, and that has to do with the \
     connection: what it changed there is lost";

/// What a reload would do now.
#[derive(Debug, Serialize)]
pub struct Prediction {
    uplink: String,
    /// The file names another uplink; if not, uplink connections are kept.
    uplink_changes: bool,
    clients: usize,
    /// Clients that would be moved to another uplink connection.
    moved: usize,
    carrying: CarriedCounts,
    closed: Vec<Closed>,
    /// Clients that would be moved, and that may lose something that the proxy does not know.
    uncertain: Vec<Closed>,
    /// Requests for which the reload would be cancelled, before anybody is held.
    held_up_by: Vec<HeldUp>,
    /// Why the reload would be cancelled; `None` if it would not.
    #[serde(skip)]
    pub cancelled: Option<Error>,
    /// Commands that wait, and would be waited for.
    waited_for: usize,
    /// The present uplink's user may use CLIENT UNBLOCK.
    may_unblock: bool,
    /// The present uplink's user may use CLIENT LIST.
    may_list: bool,
    /// No message would be lost or doubled for subscribers, whoever publishes.
    exact_messages: bool,
    /// The new uplink is a replica of the present one: it would be waited for.
    replica: bool,
    /// Scripts that clients call by their hashes, that the present uplink knows, and that neither the
    /// proxy nor the new one does. How often they were called.
    unknown_scripts: usize,
    unknown_script_calls: u64,
    warnings: Vec<String>,
}

impl Controller {
    /// Verifies the configuration file as a reload would, and says what that would do. Nothing is
    /// changed. With `force`, clients that would hold it up would be closed.
    pub async fn predict(&self, force: bool) -> Result<Prediction, Error> {
        let before = self.shared.current.load();
        let (generation, sockets) = self.verify(&before, Readiness::Serving).await?;
        // They were bound to see whether they can be.
        drop(sockets);
        let uplink_changes = generation.uplink_since != before.uplink_since;
        let prospects = self.prospects().await;
        let moving = || prospects.iter().filter(|it| uplink_changes && it.connected);
        let closed: Vec<Closed> = moving().filter_map(Closed::of).collect();
        let uncertain = moving().filter(|it| it.unknown && it.closed_for.is_none());
        let uncertain = uncertain.map(|it| Closed::named(it, UNKNOWN)).collect();
        let mut prediction = Prediction {
            uplink: generation.uplink.config.addr.to_string(),
            uplink_changes,
            clients: prospects.len(),
            moved: moving().count() - closed.len(),
            carrying: self.carried(),
            closed,
            uncertain,
            held_up_by: Vec::new(),
            cancelled: None,
            waited_for: moving().filter(|it| it.waits).count(),
            may_unblock: true,
            may_list: true,
            exact_messages: true,
            replica: false,
            unknown_scripts: 0,
            unknown_script_calls: 0,
            warnings: Vec::new(),
        };
        if !uplink_changes {
            return Ok(prediction);
        }
        few_descriptors(self.shared.roster.len()).map_or(Ok(()), |fault| Err(refused(fault)))?;
        let mut links =
            Links::open(&before, &generation, OldIs::InUse, force).await.map_err(refused)?;
        let deepest = moving().max_by_key(|it| it.db);
        if let (Some(deepest), Some(databases)) = (deepest, generation.uplink.databases())
            && deepest.db >= databases
            && !force
        {
            return Err(refused(Fault::new(format!(
                "client {} uses database {}, and uplink: {} has {databases}",
                deepest.client, deepest.db, prediction.uplink
            ))));
        }
        if !links.rights.may_unblock {
            prediction.waited_for = prediction.carrying.blocked.max(prediction.waited_for);
        }
        (prediction.may_unblock, prediction.may_list) =
            (links.rights.may_unblock, links.rights.may_list);
        (prediction.exact_messages, prediction.replica) =
            (links.has_exact_messages(), links.is_replica());
        prediction.warnings.extend(links.warning().cloned());
        let unknown = self.shared.scripts.unknown();
        let shas: Vec<String> = unknown.iter().map(|(sha, _)| sha.text()).collect();
        let missed = links.missed(&shas, generation.settings.connect_time_limit).await;
        let missed = || unknown.iter().zip(&missed).filter(|(_, missed)| **missed);
        prediction.unknown_scripts = missed().count();
        prediction.unknown_script_calls = missed().map(|((_, calls), _)| calls).sum();
        let rehearsal = self.rehearse(&generation, force).await?;
        prediction.closed.extend(rehearsal.closed().iter().map(Closed::from));
        let lost = rehearsal.outcome.closed.load(Ordering::Relaxed);
        prediction.moved = prediction.moved.saturating_sub(usize::try_from(lost).unwrap_or(0));
        let in_the_way = self.in_the_way(before.settings.pause_time_limit, &links).await;
        prediction.count_in(&in_the_way, &before, &links, force);
        Ok(prediction)
    }
}

impl Prediction {
    /// Counts in the requests that would hold up everybody: their clients are closed with `force`,
    /// and otherwise the reload is cancelled.
    fn count_in(
        &mut self,
        in_the_way: &[Running],
        before: &Generation,
        links: &Links,
        force: bool,
    ) {
        let limit = before.settings.pause_time_limit;
        if force {
            let reason = given_up_for(links);
            let closed =
                in_the_way.iter().map(|it| Closed { client: it.client.to_string(), reason });
            self.closed.extend(closed);
            self.moved = self.moved.saturating_sub(in_the_way.len());
        } else if !in_the_way.is_empty() {
            self.held_up_by = in_the_way.iter().map(HeldUp::from).collect();
            let why = held_up("reload", Moment::Ahead, limit, before, links, in_the_way);
            self.cancelled = Some(why);
        }
    }
}
