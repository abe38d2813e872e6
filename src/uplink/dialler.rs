//! Connects to the uplink of one generation, logs in, and asks what it can.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::timeout;
use tracing::warn;

use super::error::{Error, is_without_data};
use super::fresh::Fresh;
use super::script::{Answer, Script};
use super::unblock;
use crate::command::{Commands, Listed, STATEFUL};
use crate::config::{Address, Fault, Uplink};
use crate::dial::{self, Pin};
use crate::redact;
use crate::resp::{Args, encode};
use crate::tls;
use crate::transport::Stream;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// As it stands in the configuration, or as it was told.
    pub addr: Address,
    /// The one of a name's addresses that is meant; `None`: whichever accepts first.
    pub pin: Option<SocketAddr>,
}

impl From<&Address> for Place {
    /// Whichever of a name's addresses accepts first.
    fn from(addr: &Address) -> Self {
        Place { addr: addr.clone(), pin: None }
    }
}

/// Dials the uplink of one generation.
#[derive(Debug)]
pub struct Dialler {
    /// What the configuration file says of the uplink.
    pub config: Uplink,
    /// What commands mean at the uplink; learnt by the first look whether it serves.
    pub commands: Commands,
    databases: OnceLock<u32>,
    tls: Option<dial::Tls>,
    pin: Pin,
    /// How long connecting, TLS and AUTH may take, all together.
    pub time_limit: Duration,
}

impl Dialler {
    /// Loads the TLS material of this block; connects nowhere.
    pub fn new(block: &str, uplink: Uplink, time_limit: Duration) -> Result<Self, Vec<Fault>> {
        let tls = match &uplink.tls {
            None => None,
            Some(tls) => {
                let config = tls::client(block, tls)?;
                let tls = dial::Tls::new(config, tls.servername.as_deref(), &uplink.addr)
                    .map_err(|why| vec![Fault::new(format!("{block}: {why}"))])?;
                Some(tls)
            }
        };
        let (commands, databases) = (Commands::default(), OnceLock::new());
        Ok(Dialler { config: uplink, commands, databases, tls, pin: Pin::new(), time_limit })
    }

    /// The way to another place, by the same login and the same TLS material.
    pub fn at(&self, place: &Place) -> Result<Dialler, Fault> {
        let config = Uplink { addr: place.addr.clone(), ..self.config.clone() };
        let name = config.tls.as_ref().and_then(|tls| tls.servername.as_deref());
        let of = |tls: &dial::Tls| dial::Tls::new(tls.config.clone(), name, &config.addr);
        let tls = self.tls.as_ref().map(of).transpose();
        let tls = tls.map_err(|why| Fault::new(format!("uplink: {why}")))?;
        let pin = place.pin.map_or_else(Pin::new, Pin::from);
        let (commands, databases) = (Commands::default(), OnceLock::new());
        Ok(Dialler { config, commands, databases, tls, pin, time_limit: self.time_limit })
    }

    /// Where it leads.
    pub fn place(&self) -> Place {
        Place { addr: self.config.addr.clone(), pin: self.pin.get().copied() }
    }

    /// Whether this leads to the server to which `before` leads, by the same login and TLS. A name is looked up:
    /// it may have come to stand for another one.
    pub async fn goes_on(&self, before: &Dialler) -> bool {
        if self.config != before.config {
            return false;
        }
        let Some(pin) = before.pin.get() else { return true };
        if let Some(own) = self.pin.get() {
            return own == pin;
        }
        match timeout(self.time_limit, dial::resolve(&self.config.addr)).await {
            Ok(Ok(addrs)) if !addrs.contains(pin) => false,
            // As long as nothing else is known, too.
            _ => self.pin.set(*pin).is_ok(),
        }
    }

    /// How many databases the uplink has, if it has told.
    pub fn databases(&self) -> Option<u32> {
        self.databases.get().copied()
    }

    /// The proxy's own AUTH, needed again after a RESET.
    pub fn auth(&self) -> Option<Vec<u8>> {
        let login = self.config.login.as_ref()?;
        let pass = login.pass.expose_secret();
        Some(match &login.user {
            Some(user) => encode::request(["AUTH", user, pass]),
            None => encode::request(["AUTH", pass]),
        })
    }

    /// Connects, with TLS and AUTH, asks for the connection's id, and tells it `script`; all within
    /// the time limit. Where there is nothing else to be said, the id is left to be asked.
    pub async fn dial(&self, script: Script) -> Result<Fresh, Error> {
        let mut whole = self.login();
        if !(whole.is_empty() && script.is_empty()) {
            whole.ask("CLIENT ID", &[], Answer::Id);
        }
        whole.append(script);
        self.timed(self.set_up(whole)).await
    }

    async fn set_up(&self, script: Script) -> Result<Fresh, Error> {
        let mut fresh = Fresh::new(self.transport().await?);
        match fresh.tell(script).await {
            Ok(()) => Ok(fresh),
            Err(Error::Login(why)) => Err(self.refused(&why)),
            Err(why) => Err(why),
        }
    }

    fn login(&self) -> Script {
        let mut script = Script::default();
        if let Some(auth) = self.auth() {
            script.repeat(&auth, "AUTH", Answer::Login);
        }
        script
    }

    /// The error of an AUTH that was refused, without passwords: a server that knows no AUTH repeats its
    /// arguments.
    fn refused(&self, answer: &str) -> Error {
        let secrets = self.config.login.iter().map(|login| login.pass.expose_secret());
        Error::Login(redact::without(answer, secrets))
    }

    /// Connects with TLS, but leaves AUTH to the client.
    pub async fn dial_raw(&self) -> Result<Stream, Error> {
        self.timed(self.transport()).await
    }

    /// Connects to another address as if the uplink were there, with the uplink's TLS if `by_tls`, but
    /// says nothing: who is there need not be the uplink.
    pub async fn dial_without_login(&self, addr: &Address, by_tls: bool) -> Result<Fresh, Error> {
        let tls = self.tls.as_ref().filter(|_| by_tls);
        let pin = Pin::new();
        let dialled = dial::connect(addr, &pin, tls, self.time_limit);
        self.timed(async { Ok(Fresh::new(dialled.await?)) }).await
    }

    /// Connects as for a client, and asks whether the uplink is ready to serve.
    pub async fn verify(&self) -> Result<Fresh, Error> {
        let mut fresh = self.greet().await?;
        self.learn(&mut fresh).await;
        Ok(fresh)
    }

    /// As [`Dialler::verify`], with the words for a person.
    pub async fn serves(&self) -> Result<(), Fault> {
        self.verify().await.map(drop).map_err(|why| self.fault(&why))
    }

    /// Whether commands that wait for data may be interrupted over this connection.
    pub async fn may_unblock(&self, fresh: &mut Fresh) -> bool {
        let asked = timeout(self.time_limit, fresh.ask(&[unblock::rehearsal()])).await;
        match asked {
            Ok(Ok(answers)) => unblock::is_allowed(&answers.concat()),
            // A server that does not answer has not said no.
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Asks how many databases there are, which commands may wait, and which have to do with the
    /// connection, so that those are known that the table does not know. A server that does not tell
    /// (before Redis 7, or without the right to COMMAND LIST) has the table's meanings.
    pub async fn learn(&self, fresh: &mut Fresh) {
        if self.commands.are_learnt() {
            return;
        }
        let list = |category| encode::request(["COMMAND", "LIST", "FILTERBY", "ACLCAT", category]);
        let databases = encode::request(["CONFIG", "GET", "databases"]);
        let lists = STATEFUL.into_iter().chain(["blocking"]).map(list);
        let questions: Vec<_> = lists.chain([databases]).collect();
        let answers = match timeout(self.time_limit, fresh.ask(&questions)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        let mut listed = Listed::default();
        if let [stateful @ .., blocking, databases] = &answers[..] {
            let count = Args::new(databases).nth(1).map(String::from_utf8_lossy);
            if let Some(count) = count.and_then(|count| count.parse().ok()) {
                self.databases.get_or_init(|| count);
            }
            listed.blocking = Args::new(blocking).collect();
            listed.stateful = stateful.iter().flat_map(|answer| Args::new(answer)).collect();
        }
        self.commands.learn(&listed);
    }

    /// Connects as for a client to an uplink that is in use, and goes on being so. Only TLS material
    /// that was read anew can be at fault; that the uplink cannot be reached is told in the log.
    pub async fn verify_in_use(&self) -> Result<(), Error> {
        let Err(why) = self.greet().await else { return Ok(()) };
        match &why {
            // Other than that the connection was closed.
            Error::Dial(dial::Error::Tls(tls)) if tls.kind() == io::ErrorKind::InvalidData => {
                Err(why)
            }
            _ => {
                warn!(addr = %self.config.addr, %why, "the current uplink is not ready");
                Ok(())
            }
        }
    }

    /// Connects as for a client; the uplink may be loading its data yet. Gives a connection to one that serves.
    pub async fn verify_reachable(&self) -> Result<Option<Fresh>, Error> {
        match self.greet().await {
            Err(Error::Ping(answer)) if is_without_data(answer.as_bytes()) => Ok(None),
            greeted => greeted.map(Some),
        }
    }

    async fn greet(&self) -> Result<Fresh, Error> {
        let mut script = self.login();
        script.ask("PING", &[], Answer::Pong);
        self.timed(self.set_up(script)).await
    }

    /// What a person is told who wants to connect to it.
    pub fn fault(&self, why: &Error) -> Fault {
        let kind = if self.tls.is_some() { "TLS" } else { "non-TLS" };
        Fault::new(format!("could not connect to uplink: {} ({kind}): {why}", self.config.addr))
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.time_limit, work).await.unwrap_or(Err(Error::TimeLimit(self.time_limit)))
    }

    async fn transport(&self) -> Result<Stream, Error> {
        Ok(dial::connect(&self.config.addr, &self.pin, self.tls.as_ref(), self.time_limit).await?)
    }
}
