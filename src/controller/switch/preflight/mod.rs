//! What could go wrong with a switch, looked at before anything is done. [`checks`] is pure.

mod rights;
mod servers;
mod settings;
mod subject;
mod users;
mod writers;

use super::identity::ServerIdentity;
use super::report::Report;
use super::source::Source;
use crate::server::Replication;

pub(super) use self::settings::wanted_replicas;
pub(super) use self::subject::Subject;
pub(super) use self::writers::NEW_TAKES_WRITES;

/// Judges what both servers say.
pub(super) fn checks(report: &mut Report, subject: &Subject<'_>) {
    roles(report, subject);
    source(report, subject);
    data(report, subject);
    servers::version(report, subject);
    servers::databases(report, subject);
    servers::memory(report, subject);
    servers::connections(report, subject);
    servers::modules(report, subject);
    settings::settings(report, subject);
    servers::clocks(report, subject);
    servers::persistence(report, subject);
    rights::rights(report, subject);
    users::users(report, subject);
    writers::writers(report, subject);
    files(report, subject);
}

fn roles(report: &mut Report, Subject { old, new, options, by_sentinel, .. }: &Subject<'_>) {
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
    if !by_sentinel && was.replicas.len() > usize::from(!is.is_master) {
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
        Some(source) => match subject.identity {
            Some(ServerIdentity::Other) => {
                report
                    .fail(NAME, format!("{source} is not the present uplink, but another server"));
            }
            Some(ServerIdentity::Unknown(why)) => {
                unknown_source(report, NAME, subject, source, why)
            }
            Some(ServerIdentity::Same) | None => {
                report.ok(NAME, format!("the new uplink will replicate from {source}"));
            }
        },
        None => report.fail(
            NAME,
            "how the new uplink reaches the present one cannot be told from their addresses: \
             replicate_from=host:port says so",
        ),
    }
}

/// Judges a source of which it is not known who is there: a password must not go to anybody else unasked.
fn unknown_source(
    report: &mut Report,
    name: &'static str,
    subject: &Subject<'_>,
    source: &Source,
    why: &str,
) {
    let unknown = format!("whether {source} is the present uplink is not known: {why}");
    match (subject.by_password, subject.options.force) {
        (false, _) => report.unknown(name, unknown),
        (true, true) => {
            report.warn(name, format!("{unknown}; the present uplink's password is sent there"));
        }
        (true, false) => report.fail(
            name,
            format!(
                "{unknown}; the present uplink's password would be sent there: say an address that \
                 the proxy reaches, too, or make the new uplink a replica yourself (prepared=true), \
                 or say force=true if you know who is there"
            ),
        ),
    }
}

/// Judges the new server's data, which must not be erased unasked.
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
