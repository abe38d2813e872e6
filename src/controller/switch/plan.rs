//! Everything that can be found wrong before a switch, and what is known if nothing is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::cutover::few_descriptors;
use super::super::error::{Error, refused};
use super::super::links::OldIs;
use super::super::reload::Target;
use super::super::sessions::named;
use super::super::state::Controller;
use super::facts::{self, Facts};
use super::failover;
use super::identity::ServerIdentity;
use super::options::{SwitchOptions, SwitchTo};
use super::preflight::{self, Subject};
use super::replication::Pair;
use super::report::Report;
use super::source::Source;
use super::user::Account;
use crate::changeover::Prospect;
use crate::config::{Address, Fault, Lookup};
use crate::generation::{Generation, Readiness};
use crate::lock::lock;
use crate::reception::Sockets;
use crate::server::{self, Server};
use crate::uplink::Place;

/// What is known once nothing speaks against it.
pub(super) struct SwitchPlan {
    pub(super) before: Arc<Generation>,
    pub(super) generation: Arc<Generation>,
    pub(super) sockets: Sockets,
    pub(super) pair: Pair,
    pub(super) report: Report,
    /// `None` if the new uplink is a replica already.
    pub(super) source: Option<Source>,
    /// How many replicas the new uplink must have before it takes writes.
    pub(super) replicas: u64,
}

/// Everything that can be found wrong before anything is done.
pub(super) async fn plan(
    controller: &Controller,
    options: &SwitchOptions,
) -> Result<SwitchPlan, Error> {
    let before = controller.shared.current.load();
    let target = target(controller, &before, options).await?;
    let (generation, sockets) = controller.load(target, &before, Readiness::Reachable).await?;
    if generation.uplink_since == before.uplink_since {
        let which = if options.to.address().is_some() { "this" } else { "the uplink in the file" };
        let text = format!("{which} is the present one: there is nothing to switch to");
        return Err(refused(Fault::new(text)));
    }
    let (new_config, old_config) = (&generation.uplink.config, &before.uplink.config);
    let source = match &options.replicate_from {
        Some(Address::Tcp { host, port }) => {
            let tls = old_config.tls.is_some();
            Some(Source { host: host.clone(), port: *port, tls })
        }
        Some(Address::Unix(_) | Address::Sought(_)) => None,
        None => Source::between(new_config, old_config),
    };
    let mut report = Report::default();
    report.ok("configuration", "valid");
    let limit = options.pause_limit.unwrap_or(before.settings.pause_time_limit);
    check_clients(controller, limit, &mut report).await;
    let mut pair =
        Pair::new(Server::new(before.uplink.clone()), Server::new(generation.uplink.clone()));
    let unreachable =
        |addr: String, why: server::Error| refused(Fault::new(format!("uplink: {addr}: {why}")));
    let (new, old) = tokio::join!(Facts::of(&mut pair.new), Facts::of(&mut pair.old));
    let new = new.map_err(|why| unreachable(pair.new.addr(), why))?;
    let old = match old {
        Ok(old) => old,
        Err(why) => {
            let (addr, advice) = (pair.old.addr(), pair.advice(options.to.address()).await);
            return Err(refused(Fault::new(format!("uplink: {addr}: {why}{advice}"))));
        }
    };
    pair.counts_from(&new.info);
    let back = Source::between(old_config, new_config);
    let refused_keys = match new.account {
        Account::Untold => facts::refused_keys(&mut pair.old, &mut pair.new).await,
        Account::Told(_) | Account::Unlimited => Ok(Vec::new()),
    };
    let refused_keys = refused_keys.map_err(|why| refused(Fault::new(format!("uplink: {why}"))))?;
    let mut subject = Subject {
        options,
        old: &old,
        new: &new,
        source: source.as_ref(),
        identity: None,
        by_password: old_config.login.is_some(),
        refused_keys: &refused_keys,
        by_sentinel: options.to.is_by_sentinel(&before.directory.lookup),
        back: back.as_ref(),
    };
    let identity = match (&source, &options.replicate_from) {
        (Some(source), Some(_)) if !subject.is_set_up() => {
            Some(ServerIdentity::at(source, &mut pair.old, &pair.new).await)
        }
        _ => None,
    };
    subject.identity = identity.as_ref();
    preflight::checks(&mut report, &subject);
    let is_set_up = subject.is_set_up();
    let source = source.filter(|_| !is_set_up);
    // Those that are missing can only come by the fence.
    let replicas = if options.fence { preflight::wanted_replicas(&new) } else { 0 };
    Ok(SwitchPlan { before, generation, sockets, pair, report, source, replicas })
}

/// Where the new uplink is.
async fn target(
    controller: &Controller,
    before: &Generation,
    options: &SwitchOptions,
) -> Result<Target, Error> {
    let to = match &options.to {
        SwitchTo::File => return Ok(Target::File),
        SwitchTo::Address(to) => to,
        SwitchTo::Replica(to) => {
            let history = lock(&controller.inner).history_of(before);
            let place = failover::choose(before, history, to.as_ref()).await?;
            return Ok(Target::Uplink { place, number: before.number, old: OldIs::InUse });
        }
    };
    let why = match &before.directory.lookup {
        Lookup::Addr(Address::Tcp { .. }) => None,
        Lookup::Addrs(addrs) if addrs.contains(to) => None,
        Lookup::Addrs(_) => Some("is not among uplink.addrs: add it there, and reload, first"),
        Lookup::Addr(_) => Some(
            "is another kind of address than uplink.addr, a socket's path: put it into the file",
        ),
        Lookup::Sentinel(_) => Some(
            "would be a surprise for the Sentinels, which say where the uplink is: cmd=failover",
        ),
    };
    match why {
        Some(why) => Err(refused(Fault::new(format!("to: {to} {why}")))),
        None => {
            let place = Place::from(to);
            Ok(Target::Uplink { place, number: before.number, old: OldIs::InUse })
        }
    }
}

async fn check_clients(controller: &Controller, limit: Duration, report: &mut Report) {
    const NAME: &str = "clients";
    let clients = controller.shared.roster.len();
    if let Some(fault) = few_descriptors(clients) {
        report.fail(NAME, fault.to_string());
    }
    let prospects = controller.prospects().await;
    for (reason, count) in closed(&prospects) {
        report.warn(NAME, format!("{count} will be closed: {reason}"));
    }
    let waits = prospects.iter().filter(|it| it.waits).count();
    if waits > 0 {
        report.warn(NAME, format!("{waits} commands that wait will be waited for"));
    }
    let mut slow = controller.running().await;
    slow.retain(|running| running.is_slow(limit, true));
    if !slow.is_empty() {
        let text = "requests have been running for longer than clients may be held, and would be in the \
                    way (force_clients closes their clients)";
        report.warn(NAME, format!("{text}: {}", named(&slow)));
    }
    let raw = controller.reception.raw().count();
    if raw > 0 {
        report.warn(NAME, format!("{raw} raw connections stay with the present uplink"));
    }
    report.ok(NAME, format!("{clients} will be moved"));
}

/// Why clients will be closed, and how many.
fn closed(prospects: &[Prospect]) -> BTreeMap<&'static str, usize> {
    let mut closed = BTreeMap::new();
    for reason in prospects.iter().filter_map(|it| it.closed_for) {
        *closed.entry(reason).or_default() += 1;
    }
    closed
}
