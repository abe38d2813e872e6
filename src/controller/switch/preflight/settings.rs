//! Settings that clients feel.

use super::super::report::Report;
use super::Subject;

pub(super) fn settings(report: &mut Report, Subject { old, new, .. }: &Subject<'_>) {
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
