//! Whether an address is the server that it is said to be, found out before a password goes there.
//!
//! A server that wants a password says nothing before it has one. But the known one can be asked
//! about the connection to the other address, which is made without a word that is secret: it lists
//! its clients with the bytes that wait of each. If that number is what was sent there, twice and by
//! chance, then whoever listens there is the known server, or passes everything on to it.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::source::Source;
use crate::resp::encode;
use crate::server::{Error, Info, Server, clients};
use crate::uplink::Fresh;

/// How often the known server is asked.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that are sent at once, at least and at most: so few that every server keeps them.
const SENT: (u64, u64) = (1000, 5000);
/// Clients that are looked at, at most, for an answer must not be too long.
const CLIENTS: u64 = 2000;

/// Who is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerIdentity {
    /// The known server.
    Same,
    /// Another server.
    Other,
    /// Who it is cannot be told, and why.
    Unknown(String),
}

impl ServerIdentity {
    /// Who is at `source`: `known`, as somebody else at `from` would find it there? A password that
    /// `known` wants is not sent.
    pub(super) async fn at(source: &Source, known: &mut Server, from: &Server) -> ServerIdentity {
        if !source.is_for_all_alike(&from.dialler().config) {
            let host = &source.host;
            return ServerIdentity::Unknown(format!(
                "{host} is another machine for {}",
                from.addr()
            ));
        }
        let dialler = known.dialler();
        let needs_proof = dialler.config.login.is_some();
        let address = source.address();
        let before = newest_client(known).await;
        let mut stranger = match dialler.dial_without_login(&address, source.tls).await {
            Ok(stranger) => stranger,
            Err(why) => {
                return ServerIdentity::Unknown(format!("the proxy cannot reach {source}: {why}"));
            }
        };
        let limit = known.dialler().time_limit;
        let question = [encode::request(["INFO", "server"])];
        let said = match tokio::time::timeout(limit, stranger.ask(&question)).await {
            Ok(Ok(said)) => Info::read(&said.concat()),
            Ok(Err(why)) => return ServerIdentity::Unknown(format!("{source}: {why}")),
            Err(_) => return ServerIdentity::Unknown(format!("{source} does not answer")),
        };
        match (said.text("run_id"), known.sections(&["server"]).await) {
            (Some(said), Ok(info)) if info.text("run_id").is_some_and(|own| own != said) => {
                return ServerIdentity::Other;
            }
            (Some(_), Ok(_)) if !needs_proof => return ServerIdentity::Same,
            // Anybody can say that name. A server that wants no password cannot be given one.
            (_, Ok(_)) => {}
            (_, Err(why)) => return ServerIdentity::Unknown(format!("{}: {why}", known.addr())),
        }
        let proved = match before {
            Ok(before) => prove(known, before, &mut stranger, limit).await,
            Err(why) => Err(why.to_string()),
        };
        match proved {
            Ok(()) => ServerIdentity::Same,
            Err(why) => ServerIdentity::Unknown(why),
        }
    }
}

/// The id of the newest connection, which is made to ask for it.
async fn newest_client(known: &Server) -> Result<u64, Error> {
    let mut server = Server::new(known.dialler().clone());
    let id = server.ask(&["CLIENT", "ID"]).await?;
    let id = String::from_utf8_lossy(&id);
    Ok(id.trim_start_matches(':').trim_end().parse().unwrap_or(0))
}

/// Proves that `known` sees what is sent on this connection, which it got after that of the id `before`;
/// or tells why that is not proved.
async fn prove(
    known: &mut Server,
    before: u64,
    stranger: &mut Fresh,
    limit: Duration,
) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let failed = |why: Error| why.to_string();
    let (mut sent, mut found) = (0, None);
    for round in 0..2_u8 {
        let (least, most) = SENT;
        let more = least + RandomState::new().hash_one(round) % (most - least);
        // A line that does not end is no request: it waits.
        let line = vec![b'x'; usize::try_from(more).unwrap_or_default()];
        stranger.send(&line).await.map_err(|why| why.to_string())?;
        sent += more;
        let id = loop {
            let after = newest_client(known).await.map_err(failed)?;
            let list = list(known, before, after).await.map_err(failed)?;
            let waits = clients(&list).filter(|client| client.number("qbuf") == Some(sent));
            let same = |id: &u64| found.is_none_or(|found| found == *id);
            if let Some(id) = waits.filter_map(|client| client.number("id")).find(same) {
                break id;
            }
            if Instant::now() >= deadline {
                let addr = known.addr();
                return Err(format!("{addr} does not list a connection that the proxy made there"));
            }
            sleep(LOOK).await;
        };
        found = Some(id);
    }
    Ok(())
}

/// CLIENT LIST of the clients whose ids are between these.
async fn list(known: &mut Server, before: u64, after: u64) -> Result<String, Error> {
    let last = after.min(before + CLIENTS);
    let ids: Vec<String> = (before + 1..=last).map(|id| id.to_string()).collect();
    let mut words = vec!["CLIENT", "LIST", "ID"];
    words.extend(ids.iter().map(String::as_str));
    match known.text(&words).await {
        // Before version 6.2, it lists all or none.
        Err(Error::Refused { .. }) => known.text(&["CLIENT", "LIST"]).await,
        listed => listed,
    }
}
