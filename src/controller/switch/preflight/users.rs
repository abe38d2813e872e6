//! What clients may do at the new server: there, all of them are its user.

use std::collections::BTreeSet;

use super::super::report::Report;
use super::super::user::{Account, Lacks};
use super::subject::Subject;

const NAME: &str = "users";
/// Commands or patterns that an answer names.
const NAMED: usize = 8;
/// What the proxy itself asks of a server: that it was called says nothing of clients. Whether it is
/// allowed is looked at for itself.
const OWN: [&str; 19] = [
    "acl|cat",
    "acl|dryrun",
    "acl|getuser",
    "acl|whoami",
    "client|id",
    "client|info",
    "client|list",
    "client|pause",
    "client|unblock",
    "client|unpause",
    "command|list",
    "config|get",
    "config|set",
    "psync",
    "replconf",
    "replicaof",
    "info",
    "spublish",
    "ssubscribe",
];

pub(super) fn users(report: &mut Report, subject: &Subject<'_>) {
    match (&subject.old.account, &subject.new.account) {
        (_, Account::Unlimited) => report.ok(NAME, "the new uplink knows no limits"),
        (_, Account::Untold) => untold(report, subject),
        (Account::Told(old), Account::Told(new)) => {
            let before = report.len();
            told(report, subject, &old.lacks(new));
            if report.len() == before {
                report.ok(NAME, "the new uplink's may do what the present one's may");
            }
        }
        (Account::Unlimited, Account::Told(new)) => {
            let before = report.len();
            told(report, subject, &new.unlimited().lacks(new));
            if report.len() == before {
                report.ok(NAME, "the new uplink's may do everything");
            }
        }
        (Account::Untold, Account::Told(new)) if new.unlimited().lacks(new).is_empty() => {
            report.ok(NAME, "the new uplink's may do everything");
        }
        (Account::Untold, Account::Told(_)) => report.unknown(
            NAME,
            "the present uplink does not tell what its user may do, and the new one's may not do \
             everything",
        ),
    }
}

/// Judges a user whose rights are not told: only what was tried is known.
fn untold(report: &mut Report, subject: &Subject<'_>) {
    if subject.refused_keys.is_empty() {
        report.unknown(NAME, "the new uplink does not tell what its user may do");
        return;
    }
    let keys = subject.refused_keys.iter().map(|key| format!("{key:?}")).collect();
    refuse(report, subject, &format!("the key {}", named(&keys)));
}

fn told(report: &mut Report, subject: &Subject<'_>, lacks: &Lacks) {
    if !lacks.keys.is_empty() {
        refuse(report, subject, &format!("all of the keys {}", named(&lacks.keys)));
    }
    if !lacks.channels.is_empty() {
        refuse(report, subject, &format!("all of the channels {}", named(&lacks.channels)));
    }
    if lacks.commands.is_empty() {
        return;
    }
    let Some(called) = &subject.old.called else {
        let names = named(&lacks.commands);
        return report.warn(
            NAME,
            format!(
                "the new uplink's may not use {names}, as the present one's may; whether clients do is \
                 not known"
            ),
        );
    };
    // A server before version 7 counts the parts of a command as one.
    let is_called = |name: &String| {
        let whole = name.split('|').next().unwrap_or_default();
        !OWN.contains(&name.as_str()) && (called.contains(name) || called.contains(whole))
    };
    let (used, unused): (BTreeSet<_>, BTreeSet<_>) =
        lacks.commands.iter().cloned().partition(is_called);
    if !used.is_empty() {
        refuse(report, subject, &format!("{}, which clients have called", named(&used)));
    }
    if !unused.is_empty() {
        let names = named(&unused);
        report.warn(
            NAME,
            format!("the new uplink's may not use {names}, as the present one's may; nobody did"),
        );
    }
}

/// Refuses the switch for what the new user may not do; with `force=true`, warns of it.
fn refuse(report: &mut Report, subject: &Subject<'_>, what: &str) {
    let text = format!("the new uplink's may not use {what}, as the present one's may");
    match subject.options.force {
        true => report.warn(NAME, text),
        false => report.fail(NAME, format!("{text}: give it those rights, or say force=true")),
    }
}

/// Names the first few.
fn named(names: &BTreeSet<String>) -> String {
    let first: Vec<_> = names.iter().take(NAMED).map(String::as_str).collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
