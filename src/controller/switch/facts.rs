//! What a server says of itself.

use std::collections::BTreeSet;

use super::clock::Clock;
use super::felt::FELT;
use super::fence::READ_ONLY;
use super::user::{Account, Categories, Description};
use crate::changeover::Marker;
use crate::resp::Args;
use crate::server::{Error, Info, Server, text, value};

/// What a server says of itself, as far as the proxy's user may ask.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) info: Info,
    /// Settings, by their names in [`SETTINGS`] and [`FELT`]; `None` if the server does not tell.
    settings: Vec<(&'static str, Option<String>)>,
    /// What the server's user may use, by the names in [`RIGHTS`].
    rights: Vec<(&'static str, Right)>,
    /// The server's clock.
    pub(super) clock: Option<Clock>,
    /// What the server's user may do.
    pub(super) account: Account,
    /// Commands that were called since the server was started; `None` if it does not tell.
    pub(super) called: Option<BTreeSet<String>>,
    /// How often the commands of each loaded module were called; `None` if it does not tell.
    pub(super) calls: Vec<(String, Option<u64>)>,
}

/// Whether the server's user may use a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Granted,
    Denied,
    /// The server does not tell.
    Untold,
}

/// What is compared, beside [`FELT`].
const SETTINGS: [&str; 9] = [
    READ_ONLY[0],
    READ_ONLY[1],
    "save",
    "databases",
    "maxclients",
    "min-replicas-to-write",
    "min-slaves-to-write",
    "min-replicas-max-lag",
    "min-slaves-max-lag",
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
    /// Facts of a server that tells nothing but INFO.
    fn from(info: Info) -> Self {
        Facts { info, ..Facts::default() }
    }
}

impl Facts {
    /// Asks a server for all facts.
    pub(super) async fn of(server: &mut Server) -> Result<Self, Error> {
        let mut facts = Facts::from(server.info().await?);
        facts.settings = settings(server).await?;
        facts.clock = allowed(Clock::of(server).await)?.flatten();
        let user = allowed(server.text(&["ACL", "WHOAMI"]).await)?;
        facts.rights = rights(server, user.as_deref()).await?;
        facts.account = account(server, &facts.info, user.as_deref()).await?;
        let statistics = allowed(server.sections(&["commandstats"]).await)?;
        // One that tells nothing has at least been asked for this.
        let called = statistics.as_ref().map(|it| it.called().collect::<BTreeSet<_>>());
        facts.called = called.filter(|called| !called.is_empty());
        facts.calls = calls(server, &facts.info.modules(), statistics.as_ref()).await?;
        Ok(facts)
    }

    /// How often a module's commands were called since the server was started.
    pub(super) fn calls(&self, module: &str) -> Option<u64> {
        self.calls.iter().find(|(it, _)| it == module)?.1
    }

    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|(it, _)| *it == name)?.1.as_deref()
    }

    pub(super) fn right(&self, name: &str) -> Right {
        self.rights.iter().find(|(it, _)| *it == name).map_or(Right::Untold, |(_, right)| *right)
    }

    pub(super) fn keys(&self) -> u64 {
        self.info.databases().map(|(_, keys)| keys).sum()
    }
}

async fn settings(server: &mut Server) -> Result<Vec<(&'static str, Option<String>)>, Error> {
    let names: Vec<_> = SETTINGS.into_iter().chain(FELT.map(|felt| felt.name)).collect();
    let questions: Vec<_> = names.iter().map(|name| ["CONFIG", "GET", name]).collect();
    let answers = each_allowed(server.ask_each(&questions).await?)?;
    let values = answers.iter().map(|answer| answer.as_deref().and_then(value));
    Ok(names.into_iter().zip(values).collect())
}

async fn rights(
    server: &mut Server,
    user: Option<&str>,
) -> Result<Vec<(&'static str, Right)>, Error> {
    let Some(user) = user else { return Ok(Vec::new()) };
    let dry_runs = RIGHTS.map(|(_, words)| [&["ACL", "DRYRUN", user], words].concat());
    let answers = each_allowed(server.ask_each(&dry_runs).await?)?;
    let rights = answers.iter().map(|answer| match answer {
        Some(answer) if text(answer) == "OK" => Right::Granted,
        Some(_) => Right::Denied,
        None => Right::Untold,
    });
    Ok(RIGHTS.map(|(name, _)| name).into_iter().zip(rights).collect())
}

/// The first version that can limit a user.
const FIRST_WITH_USERS: u32 = 6;

async fn account(server: &mut Server, info: &Info, user: Option<&str>) -> Result<Account, Error> {
    let version = info.text("redis_version").and_then(|version| version.split('.').next());
    if version.and_then(|major| major.parse().ok()).is_some_and(|it: u32| it < FIRST_WITH_USERS) {
        return Ok(Account::Unlimited);
    }
    let Some(user) = user else { return Ok(Account::Untold) };
    let reply = allowed(server.ask(&["ACL", "GETUSER", user]).await)?;
    let description = reply.and_then(|reply| Description::read(&reply));
    let Some(description) = description else { return Ok(Account::Untold) };
    let names = description.categories();
    let questions: Vec<_> = names.iter().map(|name| ["ACL", "CAT", name]).collect();
    let mut categories = Categories::new();
    let answers = each_allowed(server.ask_each(&questions).await?)?;
    for (name, answer) in names.iter().zip(answers) {
        let Some(reply) = answer else { return Ok(Account::Untold) };
        let commands = Args::new(&reply).map(|name| String::from_utf8_lossy(name).into_owned());
        categories.insert(name.clone(), commands.collect());
    }
    Ok(Account::Told(description.expand(&categories)))
}

/// Some of the present server's keys, as many as are looked at where a user's rights are not told.
const KEYS: usize = 10;

/// Keys of the present server that the new one's user may not use, where it does not tell that.
pub(super) async fn refused_keys(old: &mut Server, new: &mut Server) -> Result<Vec<String>, Error> {
    let mut refused = BTreeSet::new();
    for _ in 0..KEYS {
        let Some(key) = allowed(old.text(&["RANDOMKEY"]).await)? else { break };
        // There may be none, and one that is no text cannot be asked for here.
        if key.is_empty() || key == "$-1" || key.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        match new.ask(&["EXISTS", &key]).await {
            Err(Error::Refused { answer, .. }) if answer.starts_with("NOPERM") => {
                refused.insert(key);
            }
            Ok(_) | Err(Error::Refused { .. }) => {}
            Err(why) => return Err(why),
        }
    }
    Ok(refused.into_iter().collect())
}

async fn calls(
    server: &mut Server,
    modules: &BTreeSet<&str>,
    statistics: Option<&Info>,
) -> Result<Vec<(String, Option<u64>)>, Error> {
    let mut all = Vec::new();
    if modules.is_empty() {
        return Ok(all);
    }
    for module in modules {
        let list = server.ask(&["COMMAND", "LIST", "FILTERBY", "MODULE", module]).await;
        let calls = allowed(list)?.zip(statistics).map(|(list, statistics)| {
            let names: Vec<String> = Args::new(&list)
                .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
                .collect();
            statistics.calls().filter(|(name, _)| names.contains(name)).map(|it| it.1).sum()
        });
        all.push(((*module).to_owned(), calls));
    }
    Ok(all)
}

/// The answer; `None` if the server refuses to tell. It must answer, though.
fn allowed<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Refused { .. }) => Ok(None),
        Err(why) => Err(why),
    }
}

fn each_allowed<T>(answers: Vec<Result<T, Error>>) -> Result<Vec<Option<T>>, Error> {
    answers.into_iter().map(allowed).collect()
}
