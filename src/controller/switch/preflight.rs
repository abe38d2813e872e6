//! What could go wrong with a switch, looked at before anything is done. [`checks`] is pure.

use std::fmt;

use super::super::server::Replication;
use super::Options;
use super::facts::Facts;
use super::report::Report;
use crate::config::{Address, Uplink};

/// How a server reaches another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = Address::Tcp { host: self.host.clone(), port: self.port };
        write!(f, "{addr} ({})", if self.tls { "TLS" } else { "no TLS" })
    }
}

impl Source {
    /// How the server at `from` reaches the one at `to`, if that can be told from their addresses.
    pub(super) fn between(from: &Uplink, to: &Uplink) -> Option<Source> {
        let Address::Tcp { host, port } = &to.addr else { return None };
        let near = |addr: &Address| match addr {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => is_this_machine(host),
        };
        // What is near to the proxy need not be near to the other server.
        if near(&to.addr) && !near(&from.addr) {
            return None;
        }
        let host = if host.is_empty() { "localhost" } else { host };
        Some(Source { host: host.to_owned(), port: *port, tls: to.tls.is_some() })
    }
}

fn is_this_machine(host: &str) -> bool {
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    host.is_empty() || host == "localhost" || is_loopback
}

/// Both servers, and what is wanted.
pub(super) struct Subject<'a> {
    pub(super) options: &'a Options,
    pub(super) old: &'a Facts,
    pub(super) new: &'a Facts,
    /// Where the new server replicates from.
    pub(super) source: Option<&'a Source>,
    /// Where the old one will replicate from.
    pub(super) back: Option<&'a Source>,
}

/// What can be told from what both say.
pub(super) fn checks(report: &mut Report, subject: &Subject<'_>) {
    roles(report, subject);
    source(report, subject);
    data(report, subject);
    version(report, subject);
    databases(report, subject);
    memory(report, subject);
    connections(report, subject);
    modules(report, subject);
    settings(report, subject);
    persistence(report, subject);
    rights(report, subject);
    files(report, subject);
}

/// The new server is the present one's replica already.
fn follows(Subject { old, new, .. }: &Subject<'_>) -> bool {
    let (was, is) = (Replication::of(&old.info), Replication::of(&new.info));
    !is.is_master && is.is_up && !is.history.id.is_empty() && is.history.id == was.history.id
}

impl Subject<'_> {
    /// The new server need not be made a replica.
    pub(super) fn is_set_up(&self) -> bool {
        self.options.prepared || follows(self)
    }
}

fn roles(report: &mut Report, Subject { old, new, options, .. }: &Subject<'_>) {
    const OLD: &str = "present uplink";
    const NEW: &str = "new uplink";
    let (was, is) = (Replication::of(&old.info), Replication::of(&new.info));
    for (name, facts) in [(OLD, old), (NEW, new)] {
        if facts.info.number("cluster_enabled") == Some(1) {
            report.fail(name, "is part of a cluster, which knows no REPLICAOF");
        }
        if facts.info.text("role").is_none() {
            report.unknown(name, "does not tell whether it is a master");
        }
    }
    if !was.is_master {
        report.fail(OLD, "is a replica itself: what is written to its master would be lost");
    } else {
        report.ok(OLD, "is a master");
    }
    if was.replicas.len() > usize::from(!is.is_master) {
        let count = was.replicas.len();
        report.warn(OLD, format!("has {count} replicas; others than the new uplink stay with it"));
    }
    if old.info.text("run_id").is_some() && old.info.text("run_id") == new.info.text("run_id") {
        report.fail(NEW, "is the present one, by another address");
    } else if options.prepared && is.is_up && is.history.id != was.history.id {
        report.fail(NEW, "is a replica, but not of the present one");
    } else if let (false, Some((host, port))) = (is.is_master, &is.master) {
        report.ok(NEW, format!("is a replica of {host}:{port}"));
    } else if options.prepared {
        report.fail(NEW, "is a master, and with prepared=true it must be a replica already");
    } else {
        report.ok(NEW, "is a master, to be made a replica");
    }
}

fn source(report: &mut Report, subject: &Subject<'_>) {
    const NAME: &str = "replication";
    let Subject { options, source, back, .. } = subject;
    if options.fence && back.is_none() {
        report.warn(
            NAME,
            "how the present uplink will reach the new one cannot be told from their addresses: by \
             that under which it knows its replica, if it has no other",
        );
    }
    match source {
        _ if subject.is_set_up() => report.ok(NAME, "is set up already"),
        Some(source) => report.ok(NAME, format!("the new uplink will replicate from {source}")),
        None => report.fail(
            NAME,
            "how the new uplink reaches the present one cannot be told from their addresses: \
             replicate_from=host:port says so",
        ),
    }
}

/// It must not be erased unasked.
fn data(report: &mut Report, subject: &Subject<'_>) {
    let Subject { options, old, new, .. } = subject;
    const NAME: &str = "data";
    let (was, is) = (Replication::of(&old.info), Replication::of(&new.info));
    // A server before version 7 has no functions.
    let functions = new.info.number("number_of_functions").unwrap_or(0);
    let keys = new.keys();
    let what = match functions {
        0 => format!("{keys} keys"),
        _ => format!("{keys} keys and {functions} functions"),
    };
    if new.info.number("loading") == Some(1) && !subject.is_set_up() {
        return report.fail(NAME, "the new uplink is loading data of its own: wait until it has");
    }
    if let (true, Some(refused @ 1..)) = (subject.is_set_up(), new.info.refused()) {
        report.warn(
            NAME,
            format!(
                "the new uplink refused {refused} of the commands that it was to repeat since it was \
                 started: compare what both have"
            ),
        );
    } else if subject.is_set_up() {
        report.ok(NAME, "the new uplink has it already, or will");
    } else if keys == 0 && functions == 0 {
        report.ok(NAME, "the new uplink is empty");
    } else if is.is_part_of(&was) {
        let detail = format!("the {what} of the new uplink are what the present one had");
        report.ok(NAME, detail);
    } else if options.force {
        report.warn(NAME, format!("the {what} of the new uplink will be erased"));
    } else {
        let detail = format!("the new uplink has {what}, which would be erased: force=true");
        report.fail(NAME, detail);
    }
}

fn version(report: &mut Report, subject: &Subject<'_>) {
    const NAME: &str = "version";
    let Subject { old, new, .. } = subject;
    // Valkey says the version of Redis that it is like, too.
    let valkey = |facts: &Facts| facts.info.text("valkey_version").is_some();
    if valkey(old) != valkey(new) {
        return report.warn(
            NAME,
            "one is Redis, the other Valkey: whether it can read its data \
             shows in the replication only",
        );
    }
    let number = |facts: &Facts| -> Option<(String, Vec<u32>)> {
        let text = facts.info.text("valkey_version").or(facts.info.text("redis_version"))?;
        let numbers = text.split('.').map_while(|number| number.parse().ok()).collect();
        Some((text.to_owned(), numbers))
    };
    let (Some((was, before)), Some((is, after))) = (number(old), number(new)) else {
        return report.unknown(NAME, "a server does not tell its version");
    };
    let series = |version: &[u32]| version.iter().copied().take(2).collect::<Vec<_>>();
    let detail = format!("{was}, then {is}");
    if series(&after) < series(&before)
        && follows(subject)
        && new.info.refused().is_none_or(|it| it == 0)
    {
        // As after a switch to the newer one.
        report
            .warn(NAME, format!("{detail}: it is older, and has everything as long as it follows"));
    } else if series(&after) < series(&before) {
        report.fail(NAME, format!("{detail}: an older one cannot read a newer one's data"));
    } else if after < before {
        report.warn(NAME, format!("{detail}: it is older"));
    } else {
        report.ok(NAME, detail);
    }
}

fn databases(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
    const NAME: &str = "databases";
    let count = |facts: &Facts| facts.setting("databases").and_then(|it| it.parse::<u32>().ok());
    let used = old.info.databases().map(|(db, _)| db).max();
    let (was, Some(is)) = (count(old), count(new)) else {
        return report.unknown(NAME, "the new uplink does not tell how many it has");
    };
    if let Some(used) = used.filter(|used| *used >= is) {
        report.fail(NAME, format!("database {used} is in use, and the new uplink has {is}"));
    } else if was.is_some_and(|was| was > is) {
        report.warn(NAME, format!("the new uplink has {is}, the present one more"));
    } else {
        report.ok(NAME, format!("the new uplink has {is}"));
    }
}

fn memory(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
    const NAME: &str = "memory";
    let used = old.info.number("used_memory");
    let (Some(used), Some(limit)) = (used, new.info.number("maxmemory")) else {
        return report.unknown(NAME, "a server does not tell");
    };
    let mb = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
    let (total, used_mb) = (new.info.number("total_system_memory"), mb(used));
    if limit != 0 && limit < used {
        let limit = mb(limit);
        report
            .fail(NAME, format!("{used_mb} are in use, and the new uplink's maxmemory is {limit}"));
    } else if let Some(total) = total.filter(|total| *total < used) {
        let total = mb(total);
        report
            .fail(NAME, format!("{used_mb} are in use, and the new uplink's machine has {total}"));
    } else {
        report.ok(NAME, format!("{used_mb} are in use"));
    }
}

fn connections(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
    const NAME: &str = "connections";
    let limit = new.info.number("maxclients").or_else(|| new.setting("maxclients")?.parse().ok());
    let (Some(limit), Some(used)) = (limit, new.info.number("connected_clients")) else {
        return report.unknown(NAME, "the new uplink does not tell how many it takes");
    };
    let needed = old.info.number("connected_clients").unwrap_or(0);
    if limit < used + needed {
        report.fail(
            NAME,
            format!(
                "{needed} are in use, and the new uplink's maxclients is {limit} ({used} used)"
            ),
        );
    } else {
        report.ok(NAME, format!("{needed} are in use, the new uplink takes {limit}"));
    }
}

fn modules(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
    const NAME: &str = "modules";
    let (was, is) = (old.info.modules(), new.info.modules());
    // Valkey calls its engine for scripts a module.
    let missing = was.difference(&is).filter(|module| **module != "lua");
    let before = report.len();
    for module in missing {
        match old.calls(module) {
            Some(0) => report.warn(
                NAME,
                format!("the new uplink lacks {module}, of which no command was called"),
            ),
            Some(calls) => report.fail(
                NAME,
                format!("the new uplink lacks {module}, whose commands were called {calls} times"),
            ),
            None => report.fail(NAME, format!("the new uplink lacks {module}")),
        }
    }
    if report.len() == before {
        report.ok(NAME, if was.is_empty() { "none" } else { "the new uplink has them all" });
    }
}

fn settings(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
    const NAME: &str = "settings";
    let mut told = true;
    let mut same = true;
    for name in ["notify-keyspace-events", "maxmemory-policy"] {
        match (old.setting(name), new.setting(name)) {
            (Some(was), Some(is)) if was != is => {
                report.warn(NAME, format!("{name} is {was:?} now, and then {is:?}"));
                same = false;
            }
            (Some(_), Some(_)) => {}
            _ => told = false,
        }
    }
    if new.setting("min-replicas-to-write").is_some_and(|least| least != "0") {
        report.warn(NAME, "min-replicas-to-write: the new uplink takes no write without replicas");
        same = false;
    }
    match (told, same) {
        (false, _) => report.unknown(NAME, "a server does not tell them"),
        (true, true) => report.ok(NAME, "alike, where they matter to clients"),
        (true, false) => {}
    }
}

/// A server that comes back empty empties its replica, which the present one will be.
fn persistence(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
    const NAME: &str = "persistence";
    let keeps = |facts: &Facts| {
        let log = facts.info.number("aof_enabled").map(|on| on == 1);
        let snapshots = facts.setting("save").map(|save| !save.is_empty());
        match (log, snapshots) {
            (Some(true), _) => Some(2),
            (_, Some(true)) => Some(1),
            (Some(false), Some(false)) => Some(0),
            _ => None,
        }
    };
    let words = ["nothing", "snapshots", "a log of every write"];
    match (keeps(old), keeps(new)) {
        (Some(was), Some(is)) if is < was => report.warn(
            NAME,
            format!(
                "the present uplink keeps {} on its disk, the new one {}: what that loses when it is \
                 restarted, its replica loses, too",
                words[was], words[is]
            ),
        ),
        (Some(_), Some(is)) => report.ok(NAME, format!("the new uplink keeps {}", words[is])),
        _ => report.unknown(NAME, "a server does not tell what it keeps on its disk"),
    }
}

/// What comes of a right that is missing.
#[derive(Clone, Copy)]
enum Lack {
    /// There can be no switch.
    Fails,
    Warns(&'static str),
    Nothing,
}

fn rights(report: &mut Report, subject: &Subject<'_>) {
    const NAME: &str = "rights";
    let Subject { old, new, options, .. } = subject;
    let before = report.len();
    let set_up = if subject.is_set_up() { Lack::Nothing } else { Lack::Fails };
    let fence = match options.fence {
        true => Lack::Warns("who writes past the proxy is not kept out"),
        false => Lack::Nothing,
    };
    let unblock = Lack::Warns("commands that wait for data are waited for");
    let list = Lack::Warns("watched keys count as touched where a transaction is open");
    let mark = Lack::Warns("messages in flight may be lost or doubled");
    for (server, facts, name, lack) in [
        ("new", new, "REPLICAOF", Lack::Fails),
        ("new", new, "CONFIG GET", set_up),
        ("new", new, "CONFIG SET", set_up),
        ("new", new, "SSUBSCRIBE", mark),
        ("present", old, "PSYNC", set_up),
        ("present", old, "REPLCONF", set_up),
        ("present", old, "REPLICAOF", fence),
        ("present", old, "CONFIG GET", fence),
        ("present", old, "CONFIG SET", fence),
        ("present", old, "CLIENT PAUSE", fence),
        ("present", old, "CLIENT UNPAUSE", fence),
        ("present", old, "CLIENT UNBLOCK", unblock),
        ("present", old, "CLIENT LIST", list),
        ("present", old, "SPUBLISH", mark),
        ("present", old, "SSUBSCRIBE", mark),
    ] {
        let whom = format!("the {server} uplink's user");
        match (facts.right(name), lack) {
            (Some(true), _) | (Some(false), Lack::Nothing) => {}
            (Some(false), Lack::Fails) => report.fail(NAME, format!("{whom} may not use {name}")),
            (Some(false), Lack::Warns(what)) => {
                report.warn(NAME, format!("{whom} may not use {name}: {what}"));
            }
            (None, _) => report.unknown(NAME, format!("whether {whom} may use {name}")),
        }
    }
    if report.len() == before {
        report.ok(NAME, "both users may do what is needed");
    }
}

fn files(report: &mut Report, Subject { new, .. }: &Subject<'_>) {
    const NAME: &str = "configuration file";
    match new.info.text("config_file") {
        Some("") => report.ok(NAME, "the new uplink has none that could contradict"),
        Some(_) if !Replication::of(&new.info).is_master => report.warn(
            NAME,
            "the new uplink's may make it a replica again when it is restarted: use CONFIG REWRITE \
             there afterwards",
        ),
        Some(_) => report.ok(NAME, "the new uplink's is left as it is"),
        None => report.unknown(NAME, "the new uplink does not tell"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::server::Info;
    use super::*;

    /// Lines of INFO, parted by blanks.
    fn server(info: &str) -> Facts {
        Info::read(info.replace(' ', "\r\n").as_bytes()).into()
    }

    fn found(check: fn(&mut Report, &Subject<'_>), old: &Facts, new: &Facts) -> Value {
        let options = Options::default();
        let mut report = Report::default();
        check(&mut report, &Subject { options: &options, old, new, source: None, back: None });
        json!(report)["checks"][0].take()
    }

    #[test]
    fn an_older_server_takes_over_only_if_it_has_followed_and_taken_everything() {
        let old = server("role:master redis_version:8.0.6 master_replid:abc");
        let follower = "role:slave master_link_status:up master_replid:abc";
        for (new, expected) in [
            ("role:master redis_version:7.0.15 master_replid:xyz".to_owned(), "failed"),
            ("role:master redis_version:8.0.2 master_replid:xyz".to_owned(), "warning"),
            ("role:master redis_version:8.2.0 master_replid:xyz".to_owned(), "ok"),
            (format!("{follower} redis_version:7.0.15"), "warning"),
            (format!("{follower} redis_version:7.0.15 unexpected_error_replies:0"), "warning"),
            (format!("{follower} redis_version:7.0.15 unexpected_error_replies:1"), "failed"),
            (format!("{follower} redis_version:7.0.15").replace("abc", "xyz"), "failed"),
            (format!("{follower} redis_version:7.0.15").replace("up", "down"), "failed"),
            ("role:master redis_version:7.2.4 valkey_version:9.0.0".to_owned(), "warning"),
        ] {
            assert_eq!(found(version, &old, &server(&new))["result"], expected, "{new}");
        }
    }

    #[test]
    fn a_module_is_missed_if_it_is_used_or_may_be() {
        let mut old = server("module:name=lua,ver=1");
        assert_eq!(found(modules, &old, &server(""))["result"], "ok");
        old = server("module:name=search,ver=1");
        for (calls, expected) in [(None, "failed"), (Some(3), "failed"), (Some(0), "warning")] {
            old.calls = vec![("search".to_owned(), calls)];
            let check = found(modules, &old, &server("module:name=other,ver=1"));
            assert_eq!(check["result"], expected, "{calls:?}");
            assert!(check.to_string().contains("lacks search"), "{check}");
        }
        assert_eq!(found(modules, &old, &server("module:name=search,ver=2"))["result"], "ok");
    }
}
