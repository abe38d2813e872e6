//! The old server after the switch: nobody can write there.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::identity::ServerIdentity;
use super::replication::{LOOK, Pair, log_in};
use super::source::Source;
use super::undo::{Undo, follow, set, undo};
use crate::server::{Error, Server};

/// How long the old server may take to follow the new one.
const FOLLOWS: Duration = Duration::from_secs(3);

/// The setting by which a replica refuses its clients' writes. Before version 5, it has the second
/// name alone.
pub(super) const READ_ONLY: [&str; 2] = ["replica-read-only", "slave-read-only"];

impl Pair {
    /// Makes the old server a replica of the new one, so that nobody can write there. `Err` says what
    /// is to be done instead.
    pub(super) async fn fence(
        &mut self,
        by: &[Source],
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let (old_addr, new_addr) = (self.old.addr(), self.new.addr());
        let source = by.first().ok_or_else(|| {
            format!("how {old_addr} reaches {new_addr} is not known; tell it REPLICAOF yourself")
        })?;
        // An empty server that came back in the place of the new one would erase the last copy.
        match self.new.replication().await {
            Ok(new) if new.is_master && Some(&new.history.id) == self.promoted.as_ref() => {}
            Ok(_) => return Err(format!("{new_addr} is not what was promoted any more")),
            Err(why) => return Err(format!("lost {new_addr}: {why}")),
        }
        let mut changed = Vec::new();
        let told = self.turn(source, &mut changed, warnings).await;
        // Only what it says itself counts: an answer may be lost, and a replica may take writes.
        match self.old.replication().await {
            Ok(old) if old.is_master => {
                let why = told.err().unwrap_or_else(|| "it stays a master".to_owned());
                let left = undo(&mut self.old, changed).await;
                let left = left.iter().map(|what| format!("; not undone: {what}"));
                let left: String = left.collect();
                Err(format!("{old_addr}: {why}; tell it REPLICAOF yourself, or stop it{left}"))
            }
            Ok(old) if old.takes_writes => Err(format!(
                "{old_addr} follows the new one, but takes writes, which are lost: use CONFIG SET \
                 replica-read-only yes there"
            )),
            Ok(_) => Ok(()),
            Err(why) => Err(format!("whether {old_addr} is a replica is not known: {why}")),
        }
    }

    /// Whether the old server would find the new one there, and nobody else: no password may go to another
    /// server, and the data of another server must not erase the last copy.
    async fn is_new_at(&mut self, source: &Source) -> Result<(), String> {
        let (old, new) = (&self.old.dialler().config, &self.new.dialler().config);
        let by_password = new.login.is_some();
        if Source::between(old, new).as_ref() == Some(source) {
            return Ok(());
        }
        match ServerIdentity::at(source, &mut self.new, &self.old).await {
            ServerIdentity::Same => Ok(()),
            ServerIdentity::Other => Err(format!("{source} is not {}", self.new.addr())),
            ServerIdentity::Unknown(why) if by_password => Err(format!(
                "its password is not sent to {source}, for whether {} is there is not known: {why}",
                self.new.addr()
            )),
            ServerIdentity::Unknown(_) => Ok(()),
        }
    }

    /// Has the old server replicate by this way. `undo` gets what is needed if it stays a master.
    async fn turn(
        &mut self,
        source: &Source,
        undo: &mut Vec<Undo>,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        self.is_new_at(source).await?;
        refuse_writes(&mut self.old, undo).await.map_err(|why| why.to_string())?;
        let login = self.new.dialler().config.login.clone();
        match log_in(&mut self.old, source, login.as_ref(), undo).await {
            Ok(()) => {}
            // A replica that cannot log in takes no writes all the same.
            Err(Error::Refused { request, answer }) => warnings.push(format!(
                "the old uplink could not be told how to log in at the new one: {request}: {answer}"
            )),
            Err(why) => return Err(why.to_string()),
        }
        let master = (source.host.clone(), source.port);
        follow(&mut self.old, Some(&master)).await.map_err(|why| why.to_string())
    }

    /// Has the new server refuse other clients' writes while it is a replica.
    pub(super) async fn refuse_writes_at_new(&mut self, undo: &mut Vec<Undo>) -> Result<(), Error> {
        refuse_writes(&mut self.new, undo).await
    }

    /// Other clients could have written to the new server while it was a replica.
    pub(super) async fn new_takes_writes(&mut self) -> bool {
        let new = self.new.replication().await;
        new.is_ok_and(|new| !new.is_master && new.takes_writes)
    }

    /// How the old server may reach the new one, the likeliest first. `known` are the addresses by
    /// which it knew its replicas: those speak TLS as their link to it does.
    pub(super) fn ways_back(&self, known: &[(String, u16)]) -> Vec<Source> {
        let (old, new) = (&self.old.dialler().config, &self.new.dialler().config);
        let known = match known {
            [(host, port)] if *port > 0 => {
                Some(Source { host: host.clone(), port: *port, tls: old.tls.is_some() })
            }
            _ => None,
        };
        let mut ways: Vec<Source> = Source::between(old, new).into_iter().chain(known).collect();
        ways.dedup();
        ways
    }

    /// Waits for a while until the old server follows the new one, by one way or another.
    pub(super) async fn old_follows(&mut self, by: &[Source]) -> OldFollows {
        for (number, source) in by.iter().enumerate() {
            if number > 0 && self.turn_again(source).await.is_err() {
                return OldFollows::NotYet;
            }
            let deadline = Instant::now() + FOLLOWS;
            while Instant::now() < deadline {
                match self.old.replication().await {
                    // And nobody else.
                    Ok(old) if old.is_up && Some(&old.history.id) == self.promoted.as_ref() => {
                        return OldFollows::Yes;
                    }
                    Ok(_) => sleep(LOOK).await,
                    Err(_) => return OldFollows::NotYet,
                }
            }
        }
        // It may be on its way, if that is long.
        if let [likeliest, _, ..] = by
            && let Err(why) = self.turn_again(likeliest).await
        {
            warn!(%why, "could not send REPLICAOF to the old uplink again");
        }
        OldFollows::NotYet
    }

    /// Has the old server, which is a replica already, replicate by another way.
    async fn turn_again(&mut self, source: &Source) -> Result<(), String> {
        self.turn(source, &mut Vec::new(), &mut Vec::new()).await
    }
}

/// Whether the old server, which was made a replica, is connected to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldFollows {
    Yes,
    NotYet,
}

/// Has a server refuse its clients' writes for as long as it is a replica. Where that may not be
/// asked or set, what it does is seen in its INFO once it is one.
async fn refuse_writes(server: &mut Server, undo: &mut Vec<Undo>) -> Result<(), Error> {
    for name in READ_ONLY {
        match server.setting(name).await {
            Ok(None) => {}
            Ok(Some(present)) if present == "yes" => return Ok(()),
            Ok(Some(present)) => {
                undo.push(Undo::Set(name, present.into()));
                let set = set(server, name, &"yes".to_owned().into()).await;
                if matches!(set, Err(Error::Refused { .. })) {
                    undo.pop();
                    return Ok(());
                }
                return set;
            }
            Err(Error::Refused { .. }) => return Ok(()),
            Err(why) => return Err(why),
        }
    }
    Ok(())
}
