//! What a server says of itself.

use std::collections::BTreeSet;

use super::super::server::{Error, Info, Server};
use super::fence::READ_ONLY;
use crate::resp::Args;
use crate::session::Marker;

/// As far as it is allowed to.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) info: Info,
    /// By their names in [`SETTINGS`]; `None` if it does not tell.
    settings: Vec<(&'static str, Option<String>)>,
    /// By their names in [`RIGHTS`]; `None` if it does not tell.
    rights: Vec<(&'static str, Option<bool>)>,
    /// How often the commands of each loaded module were called; `None` if it does not tell.
    pub(super) calls: Vec<(String, Option<u64>)>,
}

/// What is compared.
const SETTINGS: [&str; 8] = [
    READ_ONLY[0],
    READ_ONLY[1],
    "save",
    "databases",
    "maxclients",
    "notify-keyspace-events",
    "maxmemory-policy",
    "min-replicas-to-write",
];

/// What may have to be asked of a server.
const RIGHTS: [(&str, &[&str]); 11] = [
    ("REPLICAOF", &["REPLICAOF", "NO", "ONE"]),
    ("CONFIG GET", &["CONFIG", "GET", "masterauth"]),
    ("CONFIG SET", &["CONFIG", "SET", "masterauth", ""]),
    ("CLIENT PAUSE", &["CLIENT", "PAUSE", "1", "WRITE"]),
    ("CLIENT UNPAUSE", &["CLIENT", "UNPAUSE"]),
    ("CLIENT UNBLOCK", &["CLIENT", "UNBLOCK", "0", "ERROR"]),
    ("CLIENT LIST", &["CLIENT", "LIST", "ID", "0"]),
    ("SPUBLISH", &["SPUBLISH", Marker::PREFIX, ""]),
    ("SSUBSCRIBE", &["SSUBSCRIBE", Marker::PREFIX]),
    ("PSYNC", &["PSYNC", "?", "-1"]),
    ("REPLCONF", &["REPLCONF", "ACK", "0"]),
];

impl From<Info> for Facts {
    /// Nothing else is told.
    fn from(info: Info) -> Self {
        Facts { info, ..Facts::default() }
    }
}

impl Facts {
    /// Asks for all of it.
    pub(super) async fn of(server: &mut Server) -> Result<Self, Error> {
        let mut facts = Facts::from(server.info().await?);
        for name in SETTINGS {
            facts.settings.push((name, allowed(server.setting(name).await)?.flatten()));
        }
        let user = allowed(server.text(&["ACL", "WHOAMI"]).await)?;
        for (name, words) in RIGHTS {
            let right = match &user {
                Some(user) => {
                    let dry_run = [&["ACL", "DRYRUN", user], words].concat();
                    allowed(server.text(&dry_run).await)?.map(|answer| answer == "OK")
                }
                None => None,
            };
            facts.rights.push((name, right));
        }
        facts.calls = calls(server, &facts.info.modules()).await?;
        Ok(facts)
    }

    /// How often a module's commands were called since the server was started.
    pub(super) fn calls(&self, module: &str) -> Option<u64> {
        self.calls.iter().find(|(it, _)| it == module)?.1
    }

    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(it, _)| *it == name)?.1.as_deref()
    }

    pub(super) fn right(&self, name: &str) -> Option<bool> {
        self.rights.iter().find(|(it, _)| *it == name)?.1
    }

    pub(super) fn keys(&self) -> u64 {
        self.info.databases().map(|(_, keys)| keys).sum()
    }
}

async fn calls(
    server: &mut Server,
    modules: &BTreeSet<&str>,
) -> Result<Vec<(String, Option<u64>)>, Error> {
    let mut all = Vec::new();
    if modules.is_empty() {
        return Ok(all);
    }
    let statistics = allowed(server.sections(&["commandstats"]).await)?;
    for module in modules {
        let list = server.ask(&["COMMAND", "LIST", "FILTERBY", "MODULE", module]).await;
        let calls = allowed(list)?.zip(statistics.as_ref()).map(|(list, statistics)| {
            let names: Vec<String> = Args::new(&list)
                .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
                .collect();
            statistics.calls().filter(|(name, _)| names.contains(name)).map(|it| it.1).sum()
        });
        all.push(((*module).to_owned(), calls));
    }
    Ok(all)
}

/// What it would not tell is not known; but it must answer.
fn allowed<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Refused { .. }) => Ok(None),
        Err(why) => Err(why),
    }
}
