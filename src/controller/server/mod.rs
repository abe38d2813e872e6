//! One of the two servers, asked and told by the proxy itself: not for a client, but about its data.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::timeout;

use crate::generation::Generation;
use crate::redact;
use crate::resp::{Args, encode};
use crate::uplink::{self, Fresh, Script};

/// Why a server was not asked or told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is no connection.
    #[error("{0}")]
    Connect(#[from] uplink::Error),
    /// The connection was lost before the answer: whether it was done is not known.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// There was no answer in time, nor is it known whether it was done.
    #[error("no answer within {} ms", .0.as_millis())]
    TimeLimit(Duration),
    /// It said no.
    #[error("{request}: {answer}")]
    Refused {
        /// The request's first words.
        request: String,
        /// What it said.
        answer: String,
    },
}

impl Error {
    /// The server has ended. One that hangs may come back.
    pub(super) fn is_end(&self) -> bool {
        match self {
            Error::Connect(why) => why.is_refusal(),
            Error::Lost(_) | Error::TimeLimit(_) | Error::Refused { .. } => false,
        }
    }
}

/// A server; connected to when it is needed.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) generation: Arc<Generation>,
    link: Option<Fresh>,
}

impl Server {
    /// The uplink of this generation.
    pub(super) fn new(generation: Arc<Generation>) -> Self {
        Server { generation, link: None }
    }

    /// Its address, as it stands in the configuration.
    pub(super) fn addr(&self) -> String {
        self.generation.uplink.config.addr.to_string()
    }

    /// The same; for whom the connection that was there may be lost, and another not.
    async fn once(&mut self, requests: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, Error> {
        let limit = self.generation.settings.connect_time_limit;
        let mut link = match self.link.take() {
            Some(link) => link,
            None => self.generation.uplink.dial(Script::default()).await?,
        };
        let answers = timeout(limit, link.ask(requests)).await;
        let answers = answers.map_err(|_| Error::TimeLimit(limit))??;
        self.link = Some(link);
        Ok(answers)
    }

    /// Sends a command that changes something, and gives what is not an error.
    pub(super) async fn tell(&mut self, words: &[&str]) -> Result<Vec<u8>, Error> {
        let answers = self.once(&[encode::request(words)]).await?;
        self.accepted(words, answers.into_iter().next().unwrap_or_default())
    }

    /// Sends a question, again if the connection was lost.
    pub(super) async fn ask(&mut self, words: &[&str]) -> Result<Vec<u8>, Error> {
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
    pub(super) async fn ask_each<'a, Words: AsRef<[&'a str]>>(
        &mut self,
        questions: &[Words],
    ) -> Result<Vec<Result<Vec<u8>, Error>>, Error> {
        let requests: Vec<_> =
            questions.iter().map(|words| encode::request(words.as_ref())).collect();
        let had_link = self.link.is_some();
        let answers = match self.once(&requests).await {
            Err(Error::Lost(_)) if had_link => self.once(&requests).await?,
            other => other?,
        };
        let answers = questions.iter().zip(answers);
        Ok(answers.map(|(words, answer)| self.accepted(words.as_ref(), answer)).collect())
    }

    /// Sends a question whose answer is one text.
    pub(super) async fn text(&mut self, words: &[&str]) -> Result<String, Error> {
        Ok(text(&self.ask(words).await?))
    }

    fn accepted(&self, words: &[&str], answer: Vec<u8>) -> Result<Vec<u8>, Error> {
        let Some(error) = answer.strip_prefix(b"-") else { return Ok(answer) };
        let text = String::from_utf8_lossy(error);
        let text = redact::without_arguments(&text);
        // A server that does not like a setting's value repeats it.
        let own =
            self.generation.uplink.config.login.iter().map(|login| login.pass.expose_secret());
        let answer = redact::without(text, own.chain(words.iter().skip(3).copied()));
        let request = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        Err(Error::Refused { request, answer })
    }

    /// What it says of itself.
    pub(super) async fn info(&mut self) -> Result<Info, Error> {
        Ok(Info::read(&self.ask(&["INFO"]).await?))
    }

    /// The same, of some sections only.
    pub(super) async fn sections(&mut self, names: &[&str]) -> Result<Info, Error> {
        // One each: before version 7, it takes no more.
        let questions: Vec<_> = names.iter().map(|name| ["INFO", name]).collect();
        Ok(Info::read(&self.ask_all(&questions).await?.concat()))
    }

    /// What it says of replication.
    pub(super) async fn replication(&mut self) -> Result<Replication, Error> {
        Ok(Replication::of(&self.sections(&["replication"]).await?))
    }

    /// A setting; `None` if there is none of that name.
    pub(super) async fn setting(&mut self, name: &str) -> Result<Option<String>, Error> {
        Ok(value(&self.ask(&["CONFIG", "GET", name]).await?))
    }
}

/// An answer that is one text.
pub(super) fn text(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let text = match text.strip_prefix('$').and_then(|bulk| bulk.split_once("\r\n")) {
        Some((_, text)) => text,
        None => text.strip_prefix('+').unwrap_or(&text),
    };
    text.trim_end().to_owned()
}

/// An answer that is a setting's name and its value.
pub(super) fn value(answer: &[u8]) -> Option<String> {
    Args::new(answer).nth(1).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What INFO says: `name:value`, a line each.
#[derive(Debug, Clone, Default)]
pub(super) struct Info(Vec<(String, String)>);

impl Info {
    /// From one reply, or several.
    pub(super) fn read(reply: &[u8]) -> Self {
        let text = String::from_utf8_lossy(reply);
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Info(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// A field.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Each database that has keys, and how many.
    pub(super) fn databases(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().filter_map(|(name, value)| {
            let keys = value.strip_prefix("keys=")?.split(',').next()?;
            Some((name.strip_prefix("db")?.parse().ok()?, keys.parse().ok()?))
        })
    }

    /// How many commands it refused that its master, or its log, had executed: what it has is not
    /// what that has. Not every server counts them.
    pub(super) fn refused(&self) -> Option<u64> {
        self.number("unexpected_error_replies")
    }

    /// How often each command was called, in the section of that name.
    pub(super) fn calls(&self) -> impl Iterator<Item = (String, u64)> {
        self.0.iter().filter_map(|(name, value)| {
            let calls = value.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
            // A subcommand is the command, too.
            let name = name.strip_prefix("cmdstat_")?.split('|').next()?;
            Some((name.to_ascii_lowercase(), calls))
        })
    }

    /// Commands that were called, in the section that counts them, by their full names.
    pub(super) fn called(&self) -> impl Iterator<Item = String> {
        let counted = self.0.iter().filter(|(_, value)| !value.starts_with("calls=0,"));
        counted.filter_map(|(name, _)| Some(name.strip_prefix("cmdstat_")?.to_ascii_lowercase()))
    }

    /// Names of loaded modules.
    pub(super) fn modules(&self) -> BTreeSet<&str> {
        let loaded = self.0.iter().filter(|(name, _)| name == "module");
        loaded.filter_map(|(_, value)| value.strip_prefix("name=")?.split(',').next()).collect()
    }
}

/// A place in a stream of writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    /// Names the stream: a master's and its replicas' is the same.
    pub(super) id: String,
    pub(super) offset: u64,
}

/// What a server says of replication.
#[derive(Debug, Clone)]
pub(super) struct Replication {
    pub(super) is_master: bool,
    /// As a master: what it has written.
    pub(super) history: History,
    /// What it was before that, and up to where, if it was promoted.
    pub(super) earlier: Option<History>,
    /// As a replica: what it has applied, not only received.
    pub(super) applied: u64,
    /// It is connected to its master, and synchronised.
    pub(super) is_up: bool,
    pub(super) master: Option<(String, u16)>,
    pub(super) is_syncing: bool,
    /// As a replica: its clients may write, which its master never learns.
    pub(super) takes_writes: bool,
    /// Of the first synchronisation; the total is not always known.
    pub(super) read_bytes: u64,
    pub(super) total_bytes: Option<u64>,
    /// Its own replicas, by the addresses that it knows.
    pub(super) replicas: Vec<(String, u16)>,
}

impl Replication {
    pub(super) fn of(info: &Info) -> Self {
        let number = |name| info.number(name).unwrap_or(0);
        let id = |name| info.text(name).unwrap_or_default().to_owned();
        // It says -1 where there is none.
        let earlier = info.number("second_repl_offset");
        let host = info.text("master_host").map(str::to_owned);
        let port = info.number("master_port").and_then(|port| u16::try_from(port).ok());
        Replication {
            is_master: info.text("role") == Some("master"),
            history: History { id: id("master_replid"), offset: number("master_repl_offset") },
            earlier: earlier
                .map(|end| History { id: id("master_replid2"), offset: end.saturating_sub(1) }),
            applied: number("slave_repl_offset"),
            is_up: info.text("master_link_status") == Some("up"),
            master: host.zip(port),
            is_syncing: number("master_sync_in_progress") == 1,
            takes_writes: info.number("slave_read_only") == Some(0),
            read_bytes: number("master_sync_read_bytes"),
            total_bytes: info.number("master_sync_total_bytes").filter(|total| *total > 0),
            replicas: (0..).map_while(|n| replica(info.text(&format!("slave{n}"))?)).collect(),
        }
    }

    /// As a replica: what comes is what is written now.
    pub(super) fn is_synchronised(&self) -> bool {
        self.is_up && !self.is_syncing
    }

    /// Everything that it has, the other one has, too.
    pub(super) fn is_part_of(&self, other: &Replication) -> bool {
        let ends = |history: &History, at: &History| {
            !history.id.is_empty() && history.id == at.id && history.offset <= at.offset
        };
        let earlier = |of: &Replication| of.earlier.clone();
        // It was promoted, and nothing has been written since.
        let before = earlier(self).filter(|it| it.offset == self.history.offset);
        [Some(self.history.clone()), before].iter().flatten().any(|mine| {
            ends(mine, &other.history) || earlier(other).is_some_and(|its| ends(mine, &its))
        })
    }
}

fn replica(line: &str) -> Option<(String, u16)> {
    let field = |name| line.split(',').find_map(|field| field.strip_prefix(name));
    Some((field("ip=")?.to_owned(), field("port=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replication(text: &str) -> Replication {
        Replication::of(&Info::read(text.replace(' ', "\r\n").as_bytes()))
    }

    #[test]
    fn a_replica_tells_how_far_it_is() {
        let it = replication(
            "$900 role:slave master_host:::1 master_port:6379 master_link_status:down \
             master_sync_in_progress:1 slave_repl_offset:7 master_sync_total_bytes:0 \
             master_sync_read_bytes:5 second_repl_offset:-1 master_replid:abc",
        );
        assert_eq!(it.master, Some(("::1".to_owned(), 6379)));
        assert!(!it.is_master && !it.is_up && it.is_syncing && it.earlier.is_none());
        assert_eq!((it.applied, it.read_bytes, it.total_bytes), (7, 5, None));
    }

    #[test]
    fn a_master_tells_who_follows_it_and_what_it_has() {
        let text = "# Keyspace\r\ndb0:keys=3,expires=0\r\ndb12:keys=4,expires=1\r\n\
                    slave0:ip=10.0.0.1,port=6380,state=online\r\nmodule:name=search,ver=1\r\n";
        let info = Info::read(text.as_bytes());
        assert_eq!(info.databases().collect::<Vec<_>>(), [(0, 3), (12, 4)]);
        assert_eq!(info.modules().into_iter().collect::<Vec<_>>(), ["search"]);
        assert_eq!(Replication::of(&info).replicas, [("10.0.0.1".to_owned(), 6380)]);
    }

    #[test]
    fn a_subcommand_is_counted_as_its_command() {
        let text = "cmdstat_FT.SEARCH:calls=3,usec=1\r\ncmdstat_config|get:calls=2,usec=1\r\n\
                    cmdstat_del:calls=0,usec=0\r\nerrorstat_ERR:count=1\r\n";
        let calls: Vec<_> = Info::read(text.as_bytes()).calls().collect();
        let counted = [("ft.search", 3), ("config", 2), ("del", 0)];
        assert_eq!(calls, counted.map(|(name, calls)| (name.to_owned(), calls)));
        let called: Vec<_> = Info::read(text.as_bytes()).called().collect();
        assert_eq!(called, ["ft.search", "config|get"]);
    }

    #[test]
    fn what_another_server_has_too_is_told_by_their_histories() {
        let server = |id: &str, offset: u64, earlier: &str, end: i64| {
            replication(&format!(
                "role:master master_replid:{id} master_repl_offset:{offset} \
                 master_replid2:{earlier} second_repl_offset:{end}"
            ))
        };
        let present = server("new", 500, "old", 301);
        for (other, is_part) in [
            (server("old", 300, "0", -1), true),
            // Something was written there afterwards.
            (server("old", 301, "0", -1), false),
            (server("new", 500, "0", -1), true),
            (server("unknown", 0, "0", -1), false),
            // A replica of it that was promoted, and was not written to.
            (server("other", 400, "new", 401), true),
            (server("other", 410, "new", 401), false),
        ] {
            assert_eq!(other.is_part_of(&present), is_part, "{other:?}");
        }
    }
}
