//! The state, for `/info.json` and as gauges.

use std::time::Duration;

use serde_json::json;

use super::desk::Desk;
use crate::shared::Shared;

/// How long the uplink may owe an answer before it is not known any more whether it is there.
const SILENT: Duration = Duration::from_secs(1);

/// Whether the uplink is there.
pub(super) struct Uplink {
    /// `None`: it has owed an answer for a while.
    pub(super) is_up: Option<bool>,
    /// Why it is not up, or not known to be; empty where there is nothing to be said.
    pub(super) why: String,
    /// For how long it has been lost.
    lost_for: Option<Duration>,
}

impl Uplink {
    /// As the watch knows it.
    pub(super) fn of(shared: &Shared) -> Self {
        if let Some(loss) = shared.outages.loss() {
            let lost_for = Some(loss.since.elapsed());
            return Uplink { is_up: Some(false), why: loss.why, lost_for };
        }
        let (is_up, why) = match shared.outages.silent_for().filter(|since| *since > SILENT) {
            None => (Some(true), String::new()),
            Some(since) => (None, format!("no answer yet, for {:.1} s", since.as_secs_f64())),
        };
        Uplink { is_up, why, lost_for: None }
    }
}

/// The state as `/info.json` shows it.
pub(super) fn json(desk: &Desk) -> String {
    let generation = desk.shared.current.load();
    let (state, paused) = (desk.controller.state(), desk.controller.paused());
    let reloading = desk.controller.reloading().map(|reloading| {
        json!({
            "by": reloading.by,
            "stage": reloading.stage,
            "seconds": reloading.since.elapsed().as_secs_f64(),
        })
    });
    let Uplink { is_up, why, lost_for } = Uplink::of(&desk.shared);
    let info = json!({
        "state": state as u8,
        "state_str": state.to_string(),
        "active_requests": desk.shared.gate.in_flight(),
        "waiting_requests": desk.shared.gate.waiting(),
        "clients": desk.reception.clients(),
        "raw_connections": desk.reception.raw().count(),
        "uplink_up": is_up,
        "uplink_error": why,
        "remarks": desk.controller.remarks(),
        "uplink_lost_seconds": lost_for.map(|time| time.as_secs_f64()),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": desk.started.elapsed().as_secs_f64(),
        "generation": generation.number,
        "paused_seconds": paused.map(|paused| paused.since.as_secs_f64()),
        "pause_ends_in_seconds":
            paused.and_then(|paused| paused.ends_in).map(|left| left.as_secs_f64()),
        "carrying": desk.controller.carried(),
        "reloading": reloading,
        "reloads": desk.controller.history(),
        "switching": desk.controller.switching().map(|switching| switching.json()),
        "switches": desk.controller.switches(),
        "config": generation.shown,
    });
    info.to_string()
}

/// The state as gauges for Prometheus: name, help, value.
pub(super) fn gauges(desk: &Desk) -> Vec<(&'static str, &'static str, i64)> {
    let number = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    let gate = &desk.shared.gate;
    let carried = desk.controller.carried();
    let clients = |count: usize| number(count as u64);
    [
        (
            "redis_proxy_clients_in_transaction",
            "Clients with an open transaction",
            clients(carried.transactions),
        ),
        (
            "redis_proxy_clients_blocked",
            "Clients with a command that waits for data",
            clients(carried.blocked),
        ),
        (
            "redis_proxy_clients_subscribed",
            "Clients with subscriptions",
            clients(carried.subscribed),
        ),
        (
            "redis_proxy_clients_tracking",
            "Clients with client-side caching",
            clients(carried.tracking),
        ),
        (
            "redis_proxy_uplink_up",
            "Whether the uplink is there, as far as is known",
            i64::from(Uplink::of(&desk.shared).is_up == Some(true)),
        ),
        (
            "redis_proxy_uplink_disputed",
            "Whether several servers could be the uplink, and nobody can tell which",
            i64::from(desk.controller.is_disputed()),
        ),
        ("rproxy_active_requests", "Requests in flight", number(gate.in_flight())),
        ("redis_proxy_waiting_requests", "Clients that wait at the gate", number(gate.waiting())),
        (
            "redis_proxy_clients",
            "Clients of the managed listener",
            number(desk.reception.clients() as u64),
        ),
        (
            "redis_proxy_raw_connections",
            "Connections made through listen_raw",
            number(desk.reception.raw().count() as u64),
        ),
        (
            "redis_proxy_state",
            "2 running, 3 pausing, 4 paused, 5 stopping",
            desk.controller.state() as i64,
        ),
        (
            "redis_proxy_generation",
            "Number of the configuration in force",
            number(desk.shared.current.number()),
        ),
    ]
    .into()
}
