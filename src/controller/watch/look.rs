//! The watch's own connection to the uplink: whether it answers, and what it says of itself.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::uplink_identity::{Identity, refusal};
use crate::generation::Generation;
use crate::notices;
use crate::resp::encode;
use crate::server::{Info, OwnConnection};
use crate::uplink::{Answer, Error, Script};

/// How long a server may be silent that has answered before: one that executes a slow command answers nobody.
const BUSY: Duration = Duration::from_secs(5);

/// What a look at the uplink tells.
#[derive(Debug)]
pub(super) enum Seen {
    Serves(Identity),
    /// It is not there, or has no data; and why.
    Away(String),
    /// It does not let the watch in: it is full, or refuses the password, or this process has no descriptors
    /// left. Whether it serves clients is not known.
    Unknown(String),
}

/// The watch's own connection to the uplink of one generation.
#[derive(Debug)]
pub(super) struct Watched {
    connection: OwnConnection,
    /// The generation since which it is the uplink.
    pub(super) uplink_since: u64,
    /// The name of its connections.
    name: String,
    /// The run of the server that answers on this connection.
    run_id: Option<String>,
    /// The server knows the connection's name.
    is_named: bool,
    /// The server has answered, over this connection or one before.
    has_answered: bool,
    /// The server was asked to tell of its maintenance.
    listens: bool,
    /// The kind of maintenance that it has told of.
    maintenance: Option<&'static str>,
}

impl Watched {
    /// Goes on with the connection over which the generation was verified, if it was.
    pub(super) fn of(generation: &Generation, name: &str) -> Self {
        let greeted = generation.take_greeted();
        let connection = OwnConnection::over(generation.uplink.clone(), greeted);
        Watched {
            connection,
            uplink_since: generation.uplink_since,
            name: name.to_owned(),
            run_id: None,
            is_named: false,
            has_answered: false,
            listens: false,
            maintenance: None,
        }
    }

    /// Asks the uplink; over a new connection if there is none, or if it does not answer.
    pub(super) async fn look(&mut self) -> Seen {
        let limit = self.connection.dialler.time_limit;
        if !self.connection.is_lost()
            && let Some(seen) = self.ask(limit.max(BUSY)).await
        {
            return seen;
        }
        let (begun, had_answered) = (Instant::now(), self.has_answered);
        while let Err(why) = self.connection.dial(self.naming()).await {
            if matches!(why, Error::TimeLimit(_)) && begun.elapsed() < BUSY {
                continue;
            }
            let text = self.connection.dialler.fault(&why).to_string();
            return if why.is_outage() { Seen::Away(text) } else { Seen::Unknown(text) };
        }
        (self.is_named, self.listens, self.run_id) = (true, false, None);
        let silent = || Seen::Away(format!("no answer within {} ms", limit.as_millis()));
        match self.ask(limit).await.unwrap_or_else(silent) {
            Seen::Serves(identity) => Seen::Serves(Identity { is_anew: had_answered, ..identity }),
            other => other,
        }
    }

    /// Completes when the uplink has closed the connection. Cancel safe.
    pub(super) async fn ended(&mut self) {
        self.connection.ended().await;
    }

    fn naming(&self) -> Script {
        let mut script = Script::default();
        // For people, and for other proxies: a server without names does without.
        script.ask("CLIENT SETNAME", &[self.name.as_bytes()], Answer::Anything);
        script
    }

    /// The kind of maintenance that the uplink has told of since this was asked last. Of several, the last.
    pub(super) fn take_maintenance(&mut self) -> Option<&'static str> {
        self.maintenance.take()
    }

    /// Asks a managed service to tell of its maintenance. Other servers refuse that. In RESP3, lists have another
    /// form: what is to be learnt was asked before.
    async fn listen(&mut self, limit: Duration) {
        if self.listens {
            return;
        }
        self.listens = true;
        // It need not say where it moves to: that is looked up.
        let requests = [
            encode::request(["HELLO", "3"]),
            encode::request([
                "CLIENT",
                "MAINT_NOTIFICATIONS",
                "ON",
                "moving-endpoint-type",
                "none",
            ]),
        ];
        // The next look finds out what it means that there is no answer.
        self.put(&requests, limit).await;
    }

    /// Sends requests, and gives the answers; `None` if the connection is lost with it. What the uplink tells of its
    /// maintenance meanwhile is noted.
    async fn put(&mut self, requests: &[Vec<u8>], limit: Duration) -> Option<Vec<Vec<u8>>> {
        let maintenance = &mut self.maintenance;
        let heard = |push: &[u8]| *maintenance = notices::maintenance_of(push).or(*maintenance);
        timeout(limit, self.connection.ask_and_hear(requests, heard)).await.ok()?.ok()
    }

    /// Asks over the connection that there is; `None` if that is lost with it.
    async fn ask(&mut self, limit: Duration) -> Option<Seen> {
        // A server without its data answers PING, or not, but never DBSIZE.
        let mut requests = vec![
            encode::request(["PING"]),
            encode::request(["DBSIZE"]),
            encode::request(["INFO", "replication"]),
        ];
        if !self.is_named {
            requests.push(encode::request(["CLIENT", "SETNAME", &self.name]));
        }
        if self.run_id.is_none() {
            requests.push(encode::request(["INFO", "server"]));
        }
        let answers = self.put(&requests, limit).await?;
        self.is_named = true;
        if let Some(why) = answers.iter().find_map(|answer| refusal(answer)) {
            return Some(Seen::Away(why));
        }
        self.connection.learn().await;
        self.listen(limit).await;
        let info = Info::read(&answers.concat());
        let identity = Identity::read(&info, self.run_id.take(), self.connection.id());
        self.run_id.clone_from(&identity.run_id);
        self.has_answered = true;
        Some(Seen::Serves(identity))
    }
}
