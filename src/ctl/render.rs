//! What the API says, in plain words. Pure.

use serde_json::Value;

use super::api::{Closed, HeldUp, Prediction, Preflight, ProxyInfo, ReloadRecord, SwitchRecord};
use super::progress::detail;
use super::units::{bytes, count, seconds, time};

/// What the API's answers call its parameters and commands, and what those are for `ctl`. A name that
/// begins another one comes after it.
const OPTIONS: [(&str, &str); 15] = [
    ("force_clients=true", "--force-clients"),
    ("force=true", "--force"),
    ("prepared=true", "--prepared"),
    ("fence=false", "--no-fence"),
    ("dry_run=true", "--dry-run"),
    ("wait=true", "--wait"),
    ("settings=copy", "--settings copy"),
    ("replicate_from=", "--replicate-from "),
    ("replicate_from", "--replicate-from"),
    ("timeout_ms", "--timeout-ms"),
    ("pause_limit_ms", "--pause-limit-ms"),
    ("ttl_ms", "--ttl-ms"),
    ("cmd=reload", "`redis-proxy ctl reload`"),
    ("cmd=switch", "`redis-proxy ctl switch`"),
    ("cmd=cancel-switch", "`redis-proxy ctl cancel-switch`"),
];

/// What the API says, in the words of who used `ctl`: the one place where its parameters become
/// options.
pub(super) fn in_options(text: &str) -> String {
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    let is_part = |it: char| it.is_alphanumeric() || it == '_' || it == '-';
    while let Some(next) = rest.chars().next() {
        let begins = !said.ends_with(is_part);
        let named = OPTIONS.iter().find(|(name, _)| {
            let after = rest.strip_prefix(name);
            // A value follows its name at once; anything else must be a word of its own.
            begins && after.is_some_and(|it| name.ends_with('=') || !it.starts_with(is_part))
        });
        match named {
            Some((name, option)) => {
                said.push_str(option);
                rest = &rest[name.len()..];
            }
            None => {
                said.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    said
}

/// What the proxy is doing; `now` is in seconds since 1970.
pub(super) fn status(info: &ProxyInfo, now: f64) -> Vec<String> {
    let (version, up) = (&info.version, seconds(info.uptime_seconds));
    let but = match (info.uplink_up, info.uplink_error.as_str()) {
        (Some(false), _) => ", but the uplink does not answer",
        (None, why) if !why.is_empty() => ", but the uplink has not answered yet",
        (Some(true) | None, _) => "",
    };
    let state = &info.state_str;
    let mut lines = vec![format!("{state}{but}; version {version}, up for {up}")];
    if let Some(since) = info.paused_seconds {
        let end = match info.pause_ends_in_seconds {
            Some(left) => format!("; it ends by itself in {}", seconds(left)),
            None => String::new(),
        };
        lines.push(format!("paused by an operator for {}{end}", seconds(since)));
    }
    if let Some(it) = &info.reloading {
        let (by, stage, since) = (&it.by, &it.stage, seconds(it.seconds));
        lines.push(format!("reloading for {since}, asked by {by}: {stage}"));
    }
    if let Some(it) = &info.switching {
        let (by, stage, since) = (&it.by, &it.stage, seconds(it.seconds));
        let detail = match detail(it) {
            detail if detail.is_empty() => detail,
            detail => format!(": {detail}"),
        };
        let (from, to) = (&it.from, &it.to);
        lines.push(format!("switching for {since}, asked by {by}, {from} -> {to}"));
        lines.push(format!("  {stage}{detail}"));
    }
    let tls = if info.config.uplink.tls { " (TLS)" } else { "" };
    let (uplink, generation) = (&info.config.uplink.addr, info.generation);
    lines.push(format!("uplink: {uplink}{tls}, generation {generation}"));
    lines
        .extend(Some(format!("  {}", info.uplink_error)).filter(|_| !info.uplink_error.is_empty()));
    lines.extend(info.remarks.iter().map(|remark| format!("  {remark}")));
    lines.push(format!(
        "{}, {} raw; {} in flight, {} waiting at the gate",
        count(info.clients, "client"),
        info.raw_connections,
        count(info.active_requests, "request"),
        count(info.waiting_requests, "client"),
    ));
    let ago = |at: f64| seconds((now - at).max(0.0));
    match info.reloads.first() {
        Some(it) => {
            let (at, by) = (ago(it.at_unix_seconds), &it.by);
            lines.push(format!("last reload, {at} ago by {by}: {}", reload(it)));
            lines.extend(reload_details(it));
        }
        None => lines.push("last reload: none".to_owned()),
    }
    match info.switches.first().and_then(SwitchRecord::of) {
        Some(it) => {
            let (at, by) = (ago(it.at_unix_seconds), &it.by);
            lines.push(format!("last switch, {at} ago by {by}: {}", result(&it)));
            // The faults say it, one by one.
            let reason = Some(&it.reason).filter(|why| it.faults.is_empty() && !why.is_empty());
            lines.extend(reason.map(|why| format!("  {why}")));
            lines.extend(to_be_minded(&it).iter().map(|line| format!("  {line}")));
        }
        None => lines.push("last switch: none".to_owned()),
    }
    lines
}

/// What a reload did.
fn reload(it: &ReloadRecord) -> String {
    let took = time(it.duration_ms);
    if it.result != "done" {
        let faults = match it.faults.is_empty() {
            true => String::new(),
            false => format!(": {}", it.faults.join("; ")),
        };
        return format!("{} after {took}{faults}", it.result);
    }
    let held = it.pause_ms.map(|ms| format!(", clients held for {}", time(ms))).unwrap_or_default();
    let moved = match (it.sessions_moved, it.sessions_closed) {
        (0, 0) => String::new(),
        (moved, closed) => format!(", {} moved, {closed} closed", count(moved, "client")),
    };
    let (uplink, generation) = (&it.uplink, it.generation);
    format!("done in {took}{held}{moved}; uplink {uplink}, generation {generation}")
}

/// What a reload did, with its details each on a line of its own.
pub(super) fn reload_lines(it: &ReloadRecord) -> Vec<String> {
    std::iter::once(reload(it)).chain(reload_details(it)).collect()
}

/// What held a reload up, who was closed, and what is to be minded.
fn reload_details(it: &ReloadRecord) -> Vec<String> {
    let held_up = it.held_up_by.iter().map(|HeldUp { command, client, seconds }| {
        format!("  held up by: {command} of {client}, running for {seconds:.1} s")
    });
    let warnings = it.warnings.iter().map(|warning| format!("  warning: {warning}"));
    held_up.chain(it.closed.iter().map(closed)).chain(warnings).collect()
}

/// Whom `close-unauthorized-clients` has closed.
pub(super) fn closed_unauthorized(answer: &Value) -> String {
    let [clients, raw] = ["clients_closed", "raw_connections_closed"]
        .map(|field| answer[field].as_u64().unwrap_or(0));
    format!("closed: {}, {}", count(clients, "client"), count(raw, "raw connection"))
}

/// What a reload would do.
pub(super) fn prediction(it: &Prediction) -> Vec<String> {
    let clients = count(it.clients, "client");
    if !it.uplink_changes {
        let uplink = &it.uplink;
        return vec![format!("the uplink stays {uplink}: {clients} would notice nothing")];
    }
    let role = if it.replica { ", a replica of the present one, which is waited for" } else { "" };
    let closed = it.closed.len();
    let mut lines = vec![
        format!("the new uplink would be {}{role}", it.uplink),
        format!("of {clients}, {} would be moved and {closed} closed", it.moved),
    ];
    lines.extend(it.closed.iter().map(self::closed));
    lines.extend(it.uncertain.iter().map(uncertain));
    lines.extend(it.held_up_by.iter().map(|it| {
        let command = it.command.to_ascii_uppercase();
        format!("  in the way: {command} of {}, running for {}", it.client, seconds(it.seconds))
    }));
    if it.waited_for > 0 {
        let waited_for = count(it.waited_for, "command");
        lines.push(format!("{waited_for} would be waited for, which cannot be interrupted"));
    }
    for (may, right) in [(it.may_unblock, "CLIENT UNBLOCK"), (it.may_list, "CLIENT LIST")] {
        if !may {
            lines.push(format!("the present uplink's user may not use {right}"));
        }
    }
    if !it.exact_messages {
        lines.push("messages of publishers elsewhere may be lost or doubled".to_owned());
    }
    if it.unknown_scripts > 0 {
        let (scripts, calls) =
            (count(it.unknown_scripts, "script"), count(it.unknown_script_calls, "time"));
        lines.push(format!(
            "{scripts}, called by EVALSHA {calls}, would be NOSCRIPT: the proxy has not seen what they are"
        ));
    }
    lines.extend(it.warnings.iter().map(|text| format!("warning: {text}")));
    lines
}

fn closed(it: &Closed) -> String {
    format!("  closed: {}: {}", it.client, it.reason)
}

fn uncertain(it: &Closed) -> String {
    format!("  uncertain: {}: {}", it.client, it.reason)
}

fn result(it: &SwitchRecord) -> String {
    let (from, to, took) = (&it.from, &it.to, time(it.duration_ms));
    match it.result.as_str() {
        "done" => format!("done in {took}: {from} -> {to}"),
        result if to.is_empty() => format!("{result} after {took}: clients are at {from}"),
        result => format!("{result} after {took}: clients are at {from}, not at {to}"),
    }
}

/// What a switch did; why it failed is left to whoever tells of the error.
pub(super) fn summary(it: &SwitchRecord) -> Vec<String> {
    let mut lines = vec![format!("switch {}", result(it))];
    lines.extend(it.sync_bytes.map(|copied| format!("data copied: {}", bytes(copied))));
    lines.extend(it.held_ms.map(|ms| format!("clients were held for {}", time(ms))));
    if it.result == "done" || it.sessions_moved + it.sessions_closed > 0 {
        let (moved, closed) = (it.sessions_moved, it.sessions_closed);
        lines.push(format!("sessions: {moved} moved, {closed} closed"));
    }
    lines.extend(it.closed.iter().map(closed));
    if it.result == "done" {
        let word = if it.fenced { "is" } else { "is not" };
        lines.push(format!("the old uplink {word} fenced off"));
    }
    lines.extend(it.named.iter().map(|it| format!("{} names {} now", it.file.display(), it.to)));
    lines.extend(to_be_minded(it));
    lines
}

fn to_be_minded(it: &SwitchRecord) -> Vec<String> {
    let lists = [("warning", &it.warnings), ("fault", &it.faults), ("not undone", &it.not_undone)];
    let named = |(what, list): (&str, &Vec<String>)| -> Vec<String> {
        list.iter().map(|text| format!("{what}: {text}")).collect()
    };
    lists.into_iter().flat_map(named).collect()
}

/// The checks, with their names and results under one another.
pub(super) fn table(it: &Preflight) -> Vec<String> {
    let width = |text: fn(&super::api::Check) -> &str| {
        it.checks.iter().map(|check| text(check).chars().count()).max().unwrap_or(0)
    };
    let (name, result) = (width(|check| &check.name), width(|check| &check.result));
    let line = |check: &super::api::Check| {
        let line = format!("{:name$}  {:result$}  {}", check.name, check.result, check.detail);
        line.trim_end().to_owned()
    };
    it.checks.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_of_the_api_are_told_as_options() {
        for (said, told) in [
            ("3 keys, which would be erased: force=true", "3 keys, which would be erased: --force"),
            ("replicate_from=host:port says so", "--replicate-from host:port says so"),
            ("replicate_from: expected a port", "--replicate-from: expected a port"),
            ("(prepared=true), or say force=true.", "(--prepared), or say --force."),
            ("timeout_ms is over", "--timeout-ms is over"),
            ("go on: cmd=reload. The", "go on: `redis-proxy ctl reload`. The"),
            // Names of their own.
            ("pause_time_limit_ms, idle_timeout_ms", "pause_time_limit_ms, idle_timeout_ms"),
            ("enforce=true, force=trueish", "enforce=true, force=trueish"),
            ("äöü force=true", "äöü --force"),
        ] {
            assert_eq!(in_options(said), told);
        }
    }

    #[test]
    fn the_summary_says_everything_that_matters() {
        let record = SwitchRecord::of(&json!({
            "result": "done", "from": "a:1", "to": "b:2", "duration_ms": 2000, "held_ms": 3.5,
            "sync_bytes": 2048, "lag_ms": null, "fenced": true, "warnings": ["mind the gap"],
            "sessions_moved": 7, "sessions_closed": 1,
            "closed": [{ "client": "c:3", "reason": "too large" }],
        }));
        let wanted = [
            "switch done in 2.0 s: a:1 -> b:2",
            "data copied: 2.00 KiB",
            "clients were held for 3.5 ms",
            "sessions: 7 moved, 1 closed",
            "  closed: c:3: too large",
            "the old uplink is fenced off",
            "warning: mind the gap",
        ];
        assert_eq!(summary(&record.expect("a record")), wanted);
    }

    #[test]
    fn the_summary_of_a_failure_says_where_clients_are() {
        let record = SwitchRecord::of(&json!({
            "result": "rolled back", "from": "a:1", "to": "b:2", "duration_ms": 50,
            "reason": "left to others", "faults": ["no disk"], "not_undone": ["b:2 is a replica"],
        }));
        let wanted = [
            "switch rolled back after 50.0 ms: clients are at a:1, not at b:2",
            "fault: no disk",
            "not undone: b:2 is a replica",
        ];
        assert_eq!(summary(&record.expect("a record")), wanted);
    }

    #[test]
    fn the_state_says_that_the_uplink_is_away_and_why_something_failed() {
        let info = ProxyInfo::of(&json!({
            "state_str": "running", "version": "1", "uplink_up": false,
            "uplink_error": "could not connect to uplink: a:1 (non-TLS): refused",
            "reloads": [{
                "result": "cancelled", "held_up_by":
                    [{ "command": "WAIT", "client": "c:3", "seconds": 12.34 }],
            }],
            "switches": [{
                "result": "rolled back", "from": "a:1", "to": "b:2", "reason": "it took too long",
                "faults": [], "not_undone": ["b:2 is a replica"],
            }],
        }));
        let said = status(&info.expect("a state"), 0.0);
        for wanted in [
            "running, but the uplink does not answer; version 1, up for 0.00 ms",
            "  could not connect to uplink: a:1 (non-TLS): refused",
            "  held up by: WAIT of c:3, running for 12.3 s",
            "  it took too long",
            "  not undone: b:2 is a replica",
        ] {
            assert!(said.iter().any(|line| line == wanted), "{wanted}: {said:#?}");
        }
    }

    #[test]
    fn an_empty_state_is_no_fault() {
        let info = ProxyInfo::of(&json!({ "switches": null, "reloading": null })).expect("a state");
        assert!(status(&info, 0.0).iter().any(|line| line == "last switch: none"));
    }
}
