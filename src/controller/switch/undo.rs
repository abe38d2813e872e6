//! What a switch has done to the servers, to be undone if it does not come to an end.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep};

use super::super::panics::{caught, point};
use crate::server::{Error, Server};

/// How long undoing is tried if there is no answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long undoing is tried if the server says that it is busy.
const BUSY: Duration = Duration::from_secs(600);
/// How long to wait before undoing is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// One thing to be done to a server.
#[derive(Debug)]
pub(super) enum Undo {
    /// The server gets this master back, or none.
    Follow(Option<(String, u16)>),
    /// A setting gets this value back, which may be a password.
    Set(&'static str, SecretString),
    /// The server serves writers again.
    Unpause,
}

impl Undo {
    pub(super) async fn on(&self, server: &mut Server) -> Result<(), Error> {
        match self {
            Undo::Follow(master) => follow(server, master.as_ref()).await,
            Undo::Set(name, value) => set(server, name, value).await,
            Undo::Unpause => server.tell(&["CLIENT", "UNPAUSE"]).await.map(drop),
        }
    }

    fn what(&self) -> String {
        match self {
            Undo::Follow(None) => "REPLICAOF NO ONE".to_owned(),
            Undo::Follow(Some((host, port))) => format!("REPLICAOF {host} {port}"),
            Undo::Set(name, _) => format!("CONFIG SET {name}, to what it was"),
            Undo::Unpause => "CLIENT UNPAUSE".to_owned(),
        }
    }
}

/// Makes a server a replica, or a master.
pub(super) async fn follow(
    server: &mut Server,
    master: Option<&(String, u16)>,
) -> Result<(), Error> {
    match master {
        Some((host, port)) => server.tell(&["REPLICAOF", host, &port.to_string()]).await.map(drop),
        None => server.tell(&["REPLICAOF", "NO", "ONE"]).await.map(drop),
    }
}

/// Changes a setting of a server.
pub(super) async fn set(
    server: &mut Server,
    name: &str,
    value: &SecretString,
) -> Result<(), Error> {
    let value = value.expose_secret();
    server.tell(&["CONFIG", "SET", name, value]).await.map(drop)
}

fn is_busy(answer: &str) -> bool {
    answer.starts_with("LOADING") || answer.starts_with("BUSY")
}

/// Undoes these things, the last one first, and tells which could not be undone.
pub(super) async fn undo(server: &mut Server, things: Vec<Undo>) -> Vec<String> {
    let begun = Instant::now();
    let mut failed = Vec::new();
    for thing in things.into_iter().rev() {
        let why = match caught(undo_one(server, &thing, begun)).await {
            Ok(Ok(())) => continue,
            Ok(Err(why)) => why.to_string(),
            Err(why) => why.to_string(),
        };
        let (addr, what) = (server.addr(), thing.what());
        failed.push(format!("on {addr}, {what}: {why}"));
    }
    failed
}

async fn undo_one(server: &mut Server, thing: &Undo, begun: Instant) -> Result<(), Error> {
    point("switch:undoing");
    loop {
        let Err(why) = thing.on(server).await else { return Ok(()) };
        let limit = match &why {
            // A server that loads what it received does not let it go before.
            Error::Refused { answer, .. } if is_busy(answer) => BUSY,
            // It will not change its mind.
            Error::Refused { .. } => Duration::ZERO,
            // What it was told has ended with it.
            why if why.is_end() => Duration::ZERO,
            Error::Connect(_) | Error::Lost(_) | Error::TimeLimit(_) => LIMIT,
        };
        if begun.elapsed() >= limit {
            return Err(why);
        }
        sleep(AGAIN).await;
    }
}
