//! What the proxy's own users may do at both servers.

use super::super::facts::Right;
use super::super::report::Report;
use super::subject::Subject;

/// What comes of a right that is missing.
#[derive(Clone, Copy)]
enum Lack {
    /// There can be no switch.
    Fails,
    Warns(&'static str),
    Nothing,
}

pub(super) fn rights(report: &mut Report, subject: &Subject<'_>) {
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
            (Right::Granted, _) | (Right::Denied, Lack::Nothing) => {}
            (Right::Denied, Lack::Fails) => report.fail(NAME, format!("{whom} may not use {name}")),
            (Right::Denied, Lack::Warns(what)) => {
                report.warn(NAME, format!("{whom} may not use {name}: {what}"));
            }
            (Right::Untold, _) => report.unknown(NAME, format!("whether {whom} may use {name}")),
        }
    }
    if report.len() == before {
        report.ok(NAME, "both users may do what is needed");
    }
}
