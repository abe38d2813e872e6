//! Settings that clients feel.

use super::super::facts::Facts;
use super::super::felt::FELT;
use super::super::report::Report;
use super::subject::Subject;
use crate::server::Replication;

const NAME: &str = "settings";

pub(super) fn settings(report: &mut Report, subject: &Subject<'_>) {
    let Subject { options, old, new, .. } = subject;
    let mut told = true;
    let before = report.len();
    for felt in FELT {
        let name = felt.name;
        match (old.setting(name), new.setting(name)) {
            (Some(was), Some(is)) if felt.meaning(was) != felt.meaning(is) => {
                let text = format!("{name} is {was:?} now, and then {is:?}");
                match (options.copy_settings && felt.is_copied, felt.is_copied) {
                    (true, _) => report.ok(NAME, format!("{name} will be {was:?}, as it is now")),
                    (false, true) => report.warn(NAME, format!("{text}; settings=copy keeps it")),
                    (false, false) => report.warn(NAME, text),
                }
            }
            (Some(_), Some(_)) => {}
            (None, _) | (_, None) => told = false,
        }
    }
    replicas(report, subject);
    match (told, report.len() == before) {
        (false, _) => report.unknown(NAME, "a server does not tell them"),
        (true, true) => report.ok(NAME, "alike, where they matter to clients"),
        (true, false) => {}
    }
}

/// How many replicas the new server must have before it takes a write.
pub(in super::super) fn wanted_replicas(new: &Facts) -> u64 {
    let number = |names: [&str; 2]| {
        names.iter().find_map(|name| new.setting(name)).and_then(|value| value.parse().ok())
    };
    let least = number(["min-replicas-to-write", "min-slaves-to-write"]);
    let lag = number(["min-replicas-max-lag", "min-slaves-max-lag"]);
    match (least, lag, new.info.number("min_slaves_good_slaves")) {
        // Either of them being 0 turns it off.
        (Some(0), _, _) | (_, Some(0), _) => 0,
        (Some(least), _, _) => least,
        // It counts them only if it wants some.
        (None, _, Some(_)) => 1,
        (None, _, None) => 0,
    }
}

/// A master that wants replicas refuses every write until it has them: the old one is its first.
fn replicas(report: &mut Report, subject: &Subject<'_>) {
    let Subject { options, new, .. } = subject;
    let wanted = wanted_replicas(new);
    let present = Replication::of(&new.info).replicas.len() as u64;
    let coming = present + u64::from(options.fence);
    if wanted == 0 {
        return;
    }
    if wanted <= coming {
        let wait =
            if wanted > present { ": clients wait until the present one is one" } else { "" };
        let text = format!("the new uplink takes no write without {wanted} replicas{wait}");
        return report.ok(NAME, format!("min-replicas-to-write: {text}"));
    }
    let text = format!(
        "min-replicas-to-write: the new uplink takes no write without {wanted} replicas, and will have \
         {coming}"
    );
    match options.force {
        true => report.warn(NAME, text),
        false => report.fail(NAME, format!("{text}: give it some, or say force=true")),
    }
}
