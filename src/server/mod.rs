//! A Redis server, asked and told by the proxy itself: not for a client, but about its data.
//!
//! - `connection`: one connection, which is given up once an answer did not come
//! - `info`: what a server says (pure)

mod connection;
mod error;
mod info;

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::timeout;

pub use self::connection::OwnConnection;
pub use self::error::Error;
pub use self::info::{DIRTY, History, Info, ListedClient, Replication, clients, text, value};
use crate::redact;
use crate::resp::encode;
use crate::uplink::{Dialler, Script};

/// A server; connected to when it is needed.
#[derive(Debug)]
pub struct Server {
    connection: OwnConnection,
}

/// Asks a server, which may take so long to answer.
pub async fn within<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, asking).await.unwrap_or(Err(Error::TimeLimit(limit)))
}

impl Server {
    /// The server that this dialler leads to.
    pub fn new(dialler: Arc<Dialler>) -> Self {
        Server { connection: OwnConnection::new(dialler) }
    }

    /// The server's address, as it stands in the configuration.
    pub fn addr(&self) -> String {
        self.dialler().config.addr.to_string()
    }

    /// The way to it.
    pub fn dialler(&self) -> &Arc<Dialler> {
        &self.connection.dialler
    }

    /// Sends requests, over a new connection if there is none, and gives their answers.
    async fn once(&mut self, requests: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Error> {
        let limit = self.dialler().time_limit;
        if self.connection.is_lost() {
            self.connection.dial(Script::default()).await?;
        }
        let answers = timeout(limit, self.connection.ask(requests)).await;
        Ok(answers.map_err(|_| Error::TimeLimit(limit))??)
    }

    /// Sends a command that changes something, and gives what is not an error.
    pub async fn tell(&mut self, words: &[&str]) -> Result<Vec<u8>, Error> {
        let answers = self.once(&[encode::request(words)]).await?;
        self.accepted(words, answers.into_iter().next().unwrap_or_default())
    }

    /// Sends a question, again if the connection was lost.
    pub async fn ask(&mut self, words: &[&str]) -> Result<Vec<u8>, Error> {
        Ok(self.ask_all(&[words]).await?.concat())
    }

    /// Sends several questions at once, and gives their answers, if none is an error.
    async fn ask_all<'a, Words: AsRef<[&'a str]>>(
        &mut self,
        questions: &[Words],
    ) -> Result<Vec<Vec<u8>>, Error> {
        self.ask_each(questions).await?.into_iter().collect()
    }

    /// Sends several questions at once, and gives what came of each.
    pub async fn ask_each<'a, Words: AsRef<[&'a str]>>(
        &mut self,
        questions: &[Words],
    ) -> Result<Vec<Result<Vec<u8>, Error>>, Error> {
        let requests: Vec<_> =
            questions.iter().map(|words| encode::request(words.as_ref())).collect();
        let had_connection = !self.connection.is_lost();
        let answers = match self.once(&requests).await {
            Err(Error::Lost(_)) if had_connection => self.once(&requests).await?,
            other => other?,
        };
        let answers = questions.iter().zip(answers);
        Ok(answers.map(|(words, answer)| self.accepted(words.as_ref(), answer)).collect())
    }

    /// Sends a question whose answer is one text.
    pub async fn text(&mut self, words: &[&str]) -> Result<String, Error> {
        Ok(text(&self.ask(words).await?))
    }

    fn accepted(&self, words: &[&str], answer: Vec<u8>) -> Result<Vec<u8>, Error> {
        let Some(error) = answer.strip_prefix(b"-") else { return Ok(answer) };
        let text = String::from_utf8_lossy(error);
        let text = redact::without_arguments(&text);
        // A server that does not like a setting's value repeats it.
        let own = self.dialler().config.login.iter().map(|login| login.pass.expose_secret());
        let answer = redact::without(text, own.chain(words.iter().skip(3).copied()));
        let request = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        Err(Error::Refused { request, answer })
    }

    /// What the server says of itself.
    pub async fn info(&mut self) -> Result<Info, Error> {
        Ok(Info::read(&self.ask(&["INFO"]).await?))
    }

    /// What the server says of itself in these sections.
    pub async fn sections(&mut self, names: &[&str]) -> Result<Info, Error> {
        // One each: before version 7, it takes no more.
        let questions: Vec<_> = names.iter().map(|name| ["INFO", name]).collect();
        Ok(Info::read(&self.ask_all(&questions).await?.concat()))
    }

    /// What the server says of replication.
    pub async fn replication(&mut self) -> Result<Replication, Error> {
        Ok(Replication::of(&self.sections(&["replication"]).await?))
    }

    /// The value of a setting; `None` if the server has none of that name.
    pub async fn setting(&mut self, name: &str) -> Result<Option<String>, Error> {
        Ok(value(&self.ask(&["CONFIG", "GET", name]).await?))
    }
}
