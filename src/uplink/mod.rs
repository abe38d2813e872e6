//! The dialled side: connect, log in, restore a state. It knows no clients.

mod script;

use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tracing::warn;

pub use self::script::{Answer, Heard, Script};
use crate::command::{Commands, Listed, STATEFUL};
use crate::config::{Address, Fault, Uplink};
use crate::dial;
use crate::resp::{Args, encode, reply};
use crate::tls;
use crate::transport::Stream;

/// Why there is no connection to the uplink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection, or no TLS.
    #[error(transparent)]
    Dial(#[from] dial::Error),
    /// The uplink did not take the proxy's AUTH.
    #[error("AUTH failed: {0}")]
    Login(String),
    /// The uplink did not take the client's state.
    #[error("could not restore the connection's state: {request}: {answer}")]
    Setup {
        /// What it was told.
        request: String,
        /// What it said to that.
        answer: String,
        /// Not for what it lacks for all clients: databases, or rights of its user.
        is_about_one_client: bool,
    },
    /// The uplink said no, and closed.
    #[error("refused by the uplink: {0}")]
    Refused(String),
    /// The connection was lost before it was ready.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The uplink answered PING with something else than PONG.
    #[error("unexpected answer to PING: {0}")]
    Ping(String),
    /// All of it took too long.
    #[error("not connected within {} ms", .0.as_millis())]
    TimeLimit(Duration),
}

impl Error {
    /// Nothing came, not even a refusal.
    pub fn is_silence(&self) -> bool {
        match self {
            Error::TimeLimit(_) => true,
            Error::Dial(dial::Error::Connect { why, .. }) => why.kind() == io::ErrorKind::TimedOut,
            Error::Dial(dial::Error::Resolve { .. } | dial::Error::Tls(_))
            | Error::Login(_)
            | Error::Setup { .. }
            | Error::Refused(_)
            | Error::Lost(_)
            | Error::Ping(_) => false,
        }
    }

    /// There is nobody who could have said anything.
    pub fn is_absence(&self) -> bool {
        match self {
            Error::Dial(dial::Error::Resolve { .. } | dial::Error::Connect { .. })
            | Error::TimeLimit(_) => true,
            Error::Dial(dial::Error::Tls(_))
            | Error::Login(_)
            | Error::Setup { .. }
            | Error::Refused(_)
            | Error::Lost(_)
            | Error::Ping(_) => false,
        }
    }

    /// No process listens there: whatever was there has ended.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::Dial(dial::Error::Connect { why, .. }) => {
                matches!(why.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
            }
            Error::Dial(dial::Error::Resolve { .. } | dial::Error::Tls(_))
            | Error::TimeLimit(_)
            | Error::Login(_)
            | Error::Setup { .. }
            | Error::Refused(_)
            | Error::Lost(_)
            | Error::Ping(_) => false,
        }
    }
}

/// What a server says that reads its data from a file, or gets them from its master.
const LOADING: &str = "-LOADING";
/// What a replica says whose master is away.
const WITHOUT_MASTER: &str = "-MASTERDOWN";

/// Dials the uplink of one generation.
#[derive(Debug)]
pub struct Dialler {
    /// What the file says.
    pub config: Uplink,
    /// What commands mean there; learnt by the first look whether it serves.
    pub commands: Commands,
    databases: OnceLock<u32>,
    tls: Option<dial::Tls>,
    time_limit: Duration,
}

impl Dialler {
    /// Loads the TLS material; connects nowhere.
    pub fn new(uplink: Uplink, time_limit: Duration) -> Result<Self, Vec<Fault>> {
        let tls = match &uplink.tls {
            None => None,
            Some(tls) => {
                let config = tls::client(tls)?;
                let tls = dial::Tls::new(config, tls.servername.as_deref(), &uplink.addr)
                    .map_err(|why| vec![Fault::new(format!("uplink: {why}"))])?;
                Some(tls)
            }
        };
        let (commands, databases) = (Commands::default(), OnceLock::new());
        Ok(Dialler { config: uplink, commands, databases, tls, time_limit })
    }

    /// How many databases it has, if it has told.
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

    /// A server that knows no AUTH repeats its arguments.
    fn refused(&self, answer: &str) -> Error {
        let secrets = self.config.login.iter().map(|login| login.pass.expose_secret());
        Error::Login(secrets.fold(answer.to_owned(), |text, pass| text.replace(pass, "[removed]")))
    }

    /// Connects with TLS, but leaves AUTH to the client.
    pub async fn dial_raw(&self) -> Result<Stream, Error> {
        self.timed(self.transport()).await
    }

    /// Connects to another address as if the uplink were there, with the uplink's TLS if `by_tls`, but
    /// says nothing: who is there need not be the uplink.
    pub async fn dial_without_login(&self, addr: &Address, by_tls: bool) -> Result<Fresh, Error> {
        let tls = self.tls.as_ref().filter(|_| by_tls);
        let dialled = dial::connect(addr, tls, self.time_limit);
        self.timed(async { Ok(Fresh::new(dialled.await?)) }).await
    }

    /// Connects as for a client, and asks whether the uplink is ready to serve.
    pub async fn verify(&self) -> Result<(), Fault> {
        let mut fresh = self.verified().await?;
        self.learn(&mut fresh).await;
        Ok(())
    }

    /// The same; tells whether commands that wait for data could be interrupted.
    pub async fn verify_rights(&self) -> Result<bool, Fault> {
        let mut fresh = self.verified().await?;
        self.learn(&mut fresh).await;
        let asked = timeout(self.time_limit, fresh.ask(&[unblock(0)])).await;
        // Whoever does not answer has not said no.
        let denied = |answer: &Vec<u8>| answer.starts_with(b"-");
        Ok(!matches!(asked, Ok(Ok(answers)) if answers.iter().any(denied)))
    }

    /// Asks how many databases there are, which commands may wait, and which have to do with the
    /// connection, so that those are known that the table does not know. A server that does not tell
    /// (before Redis 7, or without the right to COMMAND LIST) has the table's meanings.
    async fn learn(&self, fresh: &mut Fresh) {
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
    pub async fn verify_in_use(&self) -> Result<(), Fault> {
        let Err(why) = self.greet().await else { return Ok(()) };
        match &why {
            // Other than that the connection was closed.
            Error::Dial(dial::Error::Tls(tls)) if tls.kind() == io::ErrorKind::InvalidData => {
                Err(self.fault(&why))
            }
            _ => {
                warn!(addr = %self.config.addr, %why, "the uplink, which stays, does not serve");
                Ok(())
            }
        }
    }

    /// Connects as for a client; the uplink may be loading its data yet.
    pub async fn verify_reachable(&self) -> Result<(), Fault> {
        match self.greet().await {
            Err(Error::Ping(answer)) if answer.starts_with(LOADING) => Ok(()),
            Err(Error::Ping(answer)) if answer.starts_with(WITHOUT_MASTER) => Ok(()),
            greeted => greeted.map(drop).map_err(|why| self.fault(&why)),
        }
    }

    async fn verified(&self) -> Result<Fresh, Fault> {
        self.greet().await.map_err(|why| self.fault(&why))
    }

    async fn greet(&self) -> Result<Fresh, Error> {
        let mut script = self.login();
        script.ask("PING", &[], Answer::Pong);
        self.timed(self.set_up(script)).await
    }

    fn fault(&self, why: &Error) -> Fault {
        let kind = if self.tls.is_some() { "TLS" } else { "non-TLS" };
        Fault::new(format!("could not connect to uplink: {} ({kind}): {why}", self.config.addr))
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.time_limit, work).await.unwrap_or(Err(Error::TimeLimit(self.time_limit)))
    }

    async fn transport(&self) -> Result<Stream, Error> {
        Ok(dial::connect(&self.config.addr, self.tls.as_ref(), self.time_limit).await?)
    }
}

/// Has the command that this connection waits with interrupted; it is answered with an error, for
/// what looks like the end of its time could be taken for that.
pub fn unblock(id: u64) -> Vec<u8> {
    encode::request(["CLIENT", "UNBLOCK", &id.to_string(), "ERROR"])
}

/// A connection that no client uses yet.
#[derive(Debug)]
pub struct Fresh {
    /// The connection.
    pub stream: Stream,
    /// Its id there.
    pub id: Id,
    /// What came after the last answer.
    pub early: Vec<u8>,
}

/// What the server calls a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// This.
    Is(u64),
    /// It would not tell.
    Secret,
    /// It was not asked.
    Unasked,
}

impl Fresh {
    fn new(stream: Stream) -> Self {
        Fresh { stream, id: Id::Unasked, early: Vec::new() }
    }

    /// Sends a script, and checks the answers. What comes unasked meanwhile is passed over.
    pub async fn tell(&mut self, script: Script) -> Result<(), Error> {
        self.tell_and_hear(script, |_| ()).await
    }

    /// The same, but what comes unasked is kept as what came early.
    pub async fn tell_and_keep(&mut self, script: Script) -> Result<(), Error> {
        // What came early may end in the middle of a frame, and is heard first.
        let mut kept = Vec::new();
        let mut is_whole = true;
        let told = self.tell_and_hear(script, |frame| {
            is_whole &= !frame.is_empty();
            kept.extend_from_slice(frame);
        });
        told.await?;
        if !is_whole {
            return Err(Error::Lost(io::Error::other("a message that is too long to be kept")));
        }
        kept.append(&mut self.early);
        self.early = kept;
        Ok(())
    }

    async fn tell_and_hear(
        &mut self,
        mut script: Script,
        mut unasked: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let mut frames = Frames::new(std::mem::take(&mut self.early));
        let exchange = async {
            let sent = self.send(&script.take_bytes()).await;
            while !script.is_over() {
                if let Some(kind) = frames.next()? {
                    if !script.hear(frames.heard(kind)) {
                        unasked(frames.frame());
                    }
                } else if frames.read(&mut self.stream).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            // Whoever closes before it has read everything may have said why.
            sent
        };
        let lost = exchange.await.err();
        self.id = script.id().unwrap_or(self.id);
        self.early = frames.rest();
        match (lost, script.last_error(), &self.early[..]) {
            (Some(_), Some(error), _) => Err(Error::Refused(error.to_owned())),
            (Some(why), None, _) => Err(Error::Lost(why)),
            _ if script.has_failed() => script.failure().map_or(Ok(()), Err),
            // What may come unasked are messages, pushes, and a monitor's lines.
            (None, _, [] | [b'*' | b'>' | b'+', ..]) => Ok(()),
            (None, ..) => Err(Error::Lost(io::Error::other("more than the answer"))),
        }
    }

    /// Sends requests, and gives the whole reply to each.
    pub async fn ask(&mut self, requests: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        self.send(&requests.concat()).await?;
        self.frames(requests.len(), |frame| frame.first() != Some(&b'>')).await
    }

    /// Waits for this frame, and passes over all others.
    pub async fn await_frame(&mut self, wanted: &[u8]) -> io::Result<()> {
        self.frames(1, |frame| frame == wanted).await.map(drop)
    }

    /// The next few frames of those that are wanted.
    async fn frames(
        &mut self,
        count: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Frames::new(std::mem::take(&mut self.early));
        let mut found = Vec::new();
        while found.len() < count {
            if frames.next()?.is_some() {
                let frame = frames.frame();
                if wanted(frame) {
                    found.push(frame.to_vec());
                }
            } else if frames.read(&mut self.stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.early = frames.rest();
        Ok(found)
    }

    /// Sends requests whose replies nobody waits for.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}

/// The frames that a connection sends, where no client gets them.
struct Frames {
    scanner: reply::Scanner,
    read: Vec<u8>,
    /// The present frame, or the last one if that is complete, as far as it was looked at.
    frame: Range<usize>,
    complete: bool,
    /// Its beginning was given up, for it is too long.
    cut: bool,
}

impl Frames {
    const CHUNK: usize = 16 * 1024;
    /// Of a longer frame, which may be anybody's message, only the end is kept.
    const KEPT: usize = 1024 * 1024;

    fn new(read: Vec<u8>) -> Self {
        let mut scanner = reply::Scanner::default();
        scanner.set_peek(true);
        Frames { scanner, read, frame: 0..0, complete: true, cut: false }
    }

    async fn read(&mut self, stream: &mut Stream) -> io::Result<usize> {
        self.read.drain(..self.frame.start);
        self.frame = 0..self.frame.len();
        if self.frame.len() > Frames::KEPT {
            self.read.clear();
            (self.frame, self.cut) = (0..0, true);
        }
        self.read.reserve(Frames::CHUNK);
        stream.read_buf(&mut self.read).await
    }

    /// Goes on to the end of a frame, and gives its type; `None` if more must be read for that.
    fn next(&mut self) -> io::Result<Option<u8>> {
        if self.complete {
            self.frame.start = self.frame.end;
            (self.complete, self.cut) = (false, false);
        }
        let step = self.scanner.next(&self.read, &mut self.frame.end).map_err(io::Error::other)?;
        let reply::Step::End { kind } = step else { return Ok(None) };
        self.complete = true;
        Ok(Some(kind))
    }

    /// The frame that is complete; nothing if it was too long.
    fn frame(&self) -> &[u8] {
        if self.cut { &[] } else { &self.read[self.frame.clone()] }
    }

    fn heard(&self, kind: u8) -> Heard<'_> {
        let line = self.frame().split(|byte| *byte == b'\r').next().unwrap_or_default();
        let (text, number) = (self.scanner.first_text(), self.scanner.last_number());
        Heard { kind, text, number, line }
    }

    /// What was read after the last frame that is complete.
    fn rest(mut self) -> Vec<u8> {
        let from = if self.complete { self.frame.end } else { self.frame.start };
        self.read.split_off(from)
    }
}
