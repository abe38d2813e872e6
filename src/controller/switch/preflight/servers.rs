//! Whether the new server can have what the present one has: by its version, its size, its modules, and
//! what it keeps on its disk.

use super::super::facts::Facts;
use super::super::report::Report;
use super::subject::{Subject, follows};

pub(super) fn version(report: &mut Report, subject: &Subject<'_>) {
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

pub(super) fn databases(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
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

pub(super) fn memory(report: &mut Report, Subject { options, old, new, .. }: &Subject<'_>) {
    const NAME: &str = "memory";
    let used = old.info.number("used_memory");
    let limits = if options.copy_settings { old } else { new };
    let (Some(used), Some(limit)) = (used, limits.info.number("maxmemory")) else {
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

pub(super) fn connections(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
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

pub(super) fn modules(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
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

/// Clocks that differ by this many microseconds are warned of.
const APART: i64 = 1_000_000;

/// A time to live is replicated as the time at which it ends.
pub(super) fn clocks(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
    const NAME: &str = "clocks";
    let (Some(was), Some(is)) = (old.clock, new.clock) else {
        return report.unknown(NAME, "a server does not tell its time");
    };
    let ahead = is.ahead_of(was);
    let seconds = ahead.unsigned_abs() as f64 / 1e6;
    if ahead > APART {
        report.warn(
            NAME,
            format!(
                "the new uplink's clock is {seconds:.1} s ahead of the present one's: keys that have a \
                 time to live expire so much early; set the clocks right before"
            ),
        );
    } else if ahead < -APART {
        report.warn(
            NAME,
            format!(
                "the new uplink's clock is {seconds:.1} s behind the present one's: keys that have a \
                 time to live expire so much late; set the clocks right before"
            ),
        );
    } else {
        let within = (was.within + is.within) as f64 / 1e3;
        report.ok(NAME, format!("alike, as far as can be told within {within:.1} ms"));
    }
}

/// A server that comes back empty empties its replica, which the present one will be.
pub(super) fn persistence(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::clock::Clock;
    use super::super::super::options::SwitchOptions;
    use super::*;
    use crate::server::Info;

    /// Lines of INFO, parted by blanks.
    fn server(info: &str) -> Facts {
        Info::read(info.replace(' ', "\r\n").as_bytes()).into()
    }

    fn found(check: fn(&mut Report, &Subject<'_>), old: &Facts, new: &Facts) -> Value {
        let options = SwitchOptions::default();
        let mut report = Report::default();
        let subject = Subject {
            options: &options,
            old,
            new,
            source: None,
            identity: None,
            by_password: false,
            refused_keys: &[],
            by_sentinel: false,
            back: None,
        };
        check(&mut report, &subject);
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
    fn clocks_that_are_apart_are_warned_of_with_the_direction() {
        let at = |seconds: i64, within: i64| {
            let mut facts = server("");
            facts.clock = Some(Clock { ahead: seconds * 1_000_000, within: within * 1000 });
            facts
        };
        for (old, new, result, says) in [
            (at(0, 1), at(0, 1), "ok", "alike"),
            (at(0, 1), at(5, 1), "warning", "5.0 s ahead of the present one's"),
            (at(7, 1), at(5, 1), "warning", "2.0 s behind the present one's"),
            // A slow way is no wrong clock.
            (at(0, 2000), at(2, 2000), "ok", "alike"),
            (server(""), at(5, 1), "unknown", "does not tell"),
        ] {
            let check = found(clocks, &old, &new);
            assert_eq!(check["result"], result, "{check}");
            assert!(check.to_string().contains(says), "{check}");
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
