//! Other clients, which could write to a server that is a replica.

use super::super::facts::{Facts, Right};
use super::super::fence::READ_ONLY;
use super::super::report::Report;
use super::subject::Subject;
use crate::server::Replication;

/// The warning of a new server whose writes by others cannot be prevented.
pub(in super::super) const NEW_TAKES_WRITES: &str = "the new uplink takes other clients' writes \
     although it is a replica: what they write there, the present one does not have; use CONFIG SET \
     replica-read-only yes there";

/// Whether a server takes writes as a replica; `None` if it does not tell.
fn is_writable(facts: &Facts) -> Option<bool> {
    READ_ONLY.iter().find_map(|name| facts.setting(name)).map(|value| value == "no")
}

pub(super) fn writers(report: &mut Report, subject: &Subject<'_>) {
    const NAME: &str = "writers";
    let Subject { options, old, new, .. } = subject;
    let before = report.len();
    let is = Replication::of(&new.info);
    if !is.is_master && is.takes_writes {
        report.warn(
            NAME,
            "the new uplink is a replica that takes writes (replica-read-only is no): \
             what others wrote there stays there; from now on, it will refuse them",
        );
    }
    if options.fence {
        match (is_writable(old), old.right("CONFIG SET")) {
            (Some(true), Right::Denied) => report.warn(
                NAME,
                "the present uplink's replica-read-only is no, and its user may not use CONFIG SET: \
                 it will take writes after the switch, which are lost; set it to yes there",
            ),
            (Some(true), Right::Granted | Right::Untold) => report.ok(
                NAME,
                "the present uplink's replica-read-only is no: it will be set to yes for the fence",
            ),
            (Some(false), _) => {}
            (None, _) => {
                report.unknown(NAME, "whether the present uplink takes writes as a replica");
            }
        }
    }
    if report.len() == before {
        report.ok(NAME, "a replica takes no writes");
    }
}
