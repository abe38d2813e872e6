//! Sentinels: each is asked for the master's address, and listened to.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::choice::{Told, Untold};
use crate::config::{Address, Sentinel};
use crate::resp::{Args, encode};
use crate::server::{Error, OwnConnection, Server, within};
use crate::uplink::{self, Dialler, Place, Script};

/// How long a server, a Sentinel or a resolver may take to answer, where all are asked again before long.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_millis(500);
/// The most addresses of a name, and the most Sentinels, that are asked.
pub(super) const MOST: usize = 32;
/// How soon a Sentinel that could not be listened to is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The Sentinels that are known.
#[derive(Debug)]
pub(super) struct Sentinels {
    master: String,
    base: Arc<Dialler>,
    /// Those that the configuration names.
    configured: Vec<Address>,
    known: Vec<KnownSentinel>,
    /// One has told of another master.
    pub(super) told: Arc<Notify>,
    /// Somebody waits for that.
    listens: bool,
}

#[derive(Debug)]
struct KnownSentinel {
    addr: Address,
    server: Server,
    /// Hears of another master, if somebody waits for that.
    listener: Option<AbortOnDropHandle<()>>,
}

impl Sentinels {
    /// Those of the configuration, and those that were learnt. They know of the others.
    pub(super) fn new(config: &Sentinel, learnt: Vec<Address>, base: &Dialler) -> Self {
        let base = base.at(&base.place()).map(Arc::new);
        let mut sentinels = Sentinels {
            master: config.master.clone(),
            // A name was found good for TLS before.
            base: base.expect("it was made in the same way"),
            configured: config.addrs.clone(),
            known: Vec::new(),
            told: Arc::default(),
            listens: false,
        };
        for addr in config.addrs.iter().cloned().chain(learnt) {
            sentinels.add(addr);
        }
        sentinels
    }

    /// Where they are.
    pub(super) fn addrs(&self) -> Vec<Address> {
        self.known.iter().map(|it| it.addr.clone()).collect()
    }

    fn add(&mut self, addr: Address) {
        let is_known = self.known.iter().any(|it| it.addr == addr);
        if is_known || self.known.len() >= MOST {
            return;
        }
        if let Ok(dialler) = self.base.at(&Place::from(&addr)) {
            let mut known =
                KnownSentinel { addr, server: Server::new(Arc::new(dialler)), listener: None };
            if self.listens {
                known.listen(&self.master, &self.told);
            }
            self.known.push(known);
        }
    }

    /// Hears of it from now on when one of them names another master.
    pub(super) fn listen(&mut self) {
        self.listens = true;
        self.known.iter_mut().for_each(|it| it.listen(&self.master, &self.told));
    }

    /// Asks all of them at once.
    pub(super) async fn ask(&mut self, patience: Duration) -> Vec<Told> {
        let master = self.master.clone();
        let asked = self.known.iter_mut().map(async |KnownSentinel { addr, server, .. }| {
            let questions = [
                vec!["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &master],
                vec!["SENTINEL", "MASTER", &master],
                vec!["SENTINEL", "SENTINELS", &master],
            ];
            let mut answers = match within(patience, server.ask_each(&questions)).await {
                Ok(answers) => answers.into_iter(),
                Err(why) => return (untold(addr, why), Vec::new()),
            };
            let mut next = || answers.next().unwrap_or_else(|| Ok(Vec::new()));
            let (address, state, others) = (next(), next(), next());
            // A user may be allowed to ask for the address alone.
            let epoch = state.ok().and_then(|it| field(&it, "config-epoch")?.parse().ok());
            let others = others.map(|it| sentinels_in(&it)).unwrap_or_default();
            let told = match address {
                Ok(answer) => Told {
                    by: addr.clone(),
                    master: address_in(&answer).ok_or(Untold::UnknownName),
                    epoch: epoch.unwrap_or(0),
                },
                Err(why) => untold(addr, why),
            };
            (told, others)
        });
        let (told, others): (Vec<Told>, Vec<Vec<Address>>) =
            join_all(asked).await.into_iter().unzip();
        let listed: Vec<Address> = others.into_iter().flatten().collect();
        let answered = |addr: &Address| {
            told.iter().any(|it| it.by == *addr && !matches!(it.master, Err(Untold::Away(_))))
        };
        if told.iter().any(|it| it.master.is_ok()) {
            // Those that are gone for good must not take the places of others.
            self.known.retain(|KnownSentinel { addr, .. }| {
                self.configured.contains(addr) || listed.contains(addr) || answered(addr)
            });
        }
        for addr in listed {
            self.add(addr);
        }
        told
    }
}

impl KnownSentinel {
    fn listen(&mut self, master: &str, told: &Arc<Notify>) {
        let dialler = self.server.dialler().clone();
        let listening = listen(dialler, master.to_owned(), told.clone());
        self.listener = Some(AbortOnDropHandle::new(tokio::spawn(listening)));
    }
}

/// A replica, as a Sentinel sees it.
#[derive(Debug)]
pub(super) struct SeenReplica {
    pub(super) addr: Address,
    /// The Sentinel would promote it.
    pub(super) is_eligible: bool,
}

impl Sentinels {
    /// The replicas of the master, as the first Sentinel that answers sees them.
    pub(super) async fn replicas(&mut self) -> Result<Vec<SeenReplica>, String> {
        let master = self.master.clone();
        let answer = self.first(&["SENTINEL", "REPLICAS", &master]).await?;
        Ok(listed_in(&answer).iter().filter_map(|it| seen_replica(it.as_bytes())).collect())
    }

    /// Has the first Sentinel that answers begin a failover.
    pub(super) async fn fail_over(&mut self) -> Result<(), String> {
        let master = self.master.clone();
        self.first(&["SENTINEL", "FAILOVER", &master]).await.map(drop)
    }

    /// Where the master is, as the Sentinel says that was told to begin a failover; `None` while that goes on.
    pub(super) async fn outcome(&mut self) -> Result<Option<Address>, String> {
        let master = self.master.clone();
        let state = self.first(&["SENTINEL", "MASTER", &master]).await?;
        let flags = field(&state, "flags").unwrap_or_default();
        if flags.split(',').any(|flag| flag == "failover_in_progress") {
            return Ok(None);
        }
        let named = self.first(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &master]).await?;
        Ok(address_in(&named))
    }

    /// The answer of the first Sentinel that does not refuse.
    async fn first(&mut self, words: &[&str]) -> Result<Vec<u8>, String> {
        let mut refused = Vec::new();
        for KnownSentinel { addr, server, .. } in &mut self.known {
            match within(ANSWERS_WITHIN, server.ask(words)).await {
                Ok(answer) => return Ok(answer),
                Err(why) => refused.push(format!("Sentinel {addr}: {why}")),
            }
        }
        Err(refused.join("; "))
    }
}

fn seen_replica(answer: &[u8]) -> Option<SeenReplica> {
    let addr = address(&field(answer, "ip")?, &field(answer, "port")?)?;
    let flags = field(answer, "flags").unwrap_or_default();
    let is_down = ["s_down", "o_down", "disconnected"].iter().any(|flag| flags.contains(flag));
    let is_last = field(answer, "slave-priority").is_some_and(|priority| priority == "0");
    Some(SeenReplica { addr, is_eligible: !is_down && !is_last })
}

fn untold(by: &Address, why: Error) -> Told {
    let text = why.to_string();
    let master = match why {
        Error::Refused { .. } | Error::Connect(uplink::Error::Login(_)) => Untold::Refused(text),
        Error::Connect(_) | Error::Lost(_) | Error::TimeLimit(_) => Untold::Away(text),
    };
    Told { by: by.clone(), master: Err(master), epoch: 0 }
}

/// The address in an answer of a host and a port.
fn address_in(answer: &[u8]) -> Option<Address> {
    let mut args = Args::new(answer).map(String::from_utf8_lossy);
    address(&args.next()?, &args.next()?)
}

fn address(host: &str, port: &str) -> Option<Address> {
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
    is_host.then(|| Address::Tcp { host: host.to_owned(), port })
}

/// The value of a field in an answer of names and values.
fn field(answer: &[u8], name: &str) -> Option<String> {
    let mut args = Args::new(answer);
    while let (Some(key), Some(value)) = (args.next(), args.next()) {
        if key == name.as_bytes() {
            return Some(String::from_utf8_lossy(value).into_owned());
        }
    }
    None
}

/// The other Sentinels, in an answer that is a list of such answers.
fn sentinels_in(answer: &[u8]) -> Vec<Address> {
    let addr = |it: &String| address(&field(it.as_bytes(), "ip")?, &field(it.as_bytes(), "port")?);
    listed_in(answer).iter().filter_map(addr).take(MOST).collect()
}

/// Each answer of names and values in a list of such.
fn listed_in(answer: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answer);
    text.split("\r\n*").skip(1).map(|it| format!("*{it}\r\n")).collect()
}

/// Wakes `told` for each message of another master, for ever.
async fn listen(dialler: Arc<Dialler>, master: String, told: Arc<Notify>) {
    loop {
        let mut connection = OwnConnection::new(dialler.clone());
        if connection.dial(Script::default()).await.is_ok() {
            let subscribe = encode::request(["SUBSCRIBE", "+switch-master"]);
            let mut sent = connection.send(&subscribe).await.is_ok();
            while sent {
                let is_news = |frame: &[u8]| is_switch(frame, &master);
                sent = connection.await_frame(is_news).await.is_ok();
                if sent {
                    debug!(sentinel = %dialler.config.addr, master, "a Sentinel tells of another master");
                }
                told.notify_one();
            }
        }
        sleep(AGAIN).await;
    }
}

/// Whether this is a message of another master of this name: `name old-host old-port new-host new-port`.
fn is_switch(frame: &[u8], master: &str) -> bool {
    let mut parts = Args::new(frame);
    parts.next() == Some(b"message")
        && parts
            .nth(1)
            .is_some_and(|text| text.split(|it| *it == b' ').next() == Some(master.as_bytes()))
}
