//! The dialled side: connect, TLS, log in. It knows no clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use secrecy::ExposeSecret;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::{Address, Fault, Uplink};
use crate::resp::{encode, reply};
use crate::tls;
use crate::transport::{Socket, Stream, set_tcp_options};

/// Why there is no connection to the uplink.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's name has no address.
    #[error("could not resolve {host}: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        why: io::Error,
    },
    /// No address of the host accepted.
    #[error("could not connect to {at}: {why}")]
    Connect {
        /// The last address tried.
        at: String,
        /// What the system said.
        why: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    /// The uplink did not take the proxy's AUTH.
    #[error("AUTH failed: {0}")]
    Login(String),
    /// The uplink did not take the client's state.
    #[error("could not restore the connection's state: {0}")]
    Setup(String),
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

/// Dials the uplink of one generation.
#[derive(Debug)]
pub struct Dialler {
    /// What the file says.
    pub config: Uplink,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    time_limit: Duration,
}

impl Dialler {
    /// Loads the TLS material; connects nowhere.
    pub fn new(uplink: Uplink, time_limit: Duration) -> Result<Self, Vec<Fault>> {
        let tls = match &uplink.tls {
            None => None,
            Some(tls) => {
                let config = tls::client(tls)?;
                let name = server_name(tls.servername.as_deref(), &uplink.addr)?;
                Some((config, name))
            }
        };
        Ok(Dialler { config: uplink, tls, time_limit })
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

    /// Connects, with TLS and AUTH, and sends `setup`, of which nothing may be answered with an
    /// error; all within the time limit.
    pub async fn dial(&self, setup: &[Vec<u8>]) -> Result<Stream, Error> {
        self.timed(self.set_up(setup)).await
    }

    /// The same, and asks whether the uplink is ready to serve.
    pub async fn dial_alive(&self, setup: &[Vec<u8>]) -> Result<Stream, Error> {
        self.timed(async {
            let mut stream = self.set_up(setup).await?;
            let answer = ask(&mut stream, &[&encode::request(["PING"])]).await?.concat();
            // A user without the right to PING is a user all the same.
            let alive = answer == "+PONG" || answer.starts_with("-NOPERM");
            if alive { Ok(stream) } else { Err(Error::Ping(answer)) }
        })
        .await
    }

    async fn set_up(&self, setup: &[Vec<u8>]) -> Result<Stream, Error> {
        let mut stream = self.transport().await?;
        let auth = self.auth();
        let requests: Vec<&[u8]> =
            auth.iter().chain(setup).map(|request| request.as_slice()).collect();
        let answers = ask(&mut stream, &requests).await?;
        for (number, answer) in answers.into_iter().enumerate() {
            let Some(error) = answer.strip_prefix('-') else { continue };
            return Err(match &auth {
                Some(_) if number == 0 => self.refused(error),
                _ => Error::Setup(error.to_owned()),
            });
        }
        Ok(stream)
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

    /// Connects as for a client, and asks whether the uplink is ready to serve.
    pub async fn verify(&self) -> Result<(), Fault> {
        self.dial_alive(&[]).await.map(drop).map_err(|why| {
            let kind = if self.tls.is_some() { "TLS" } else { "non-TLS" };
            Fault::new(format!("could not connect to uplink: {} ({kind}): {why}", self.config.addr))
        })
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.time_limit, work).await.unwrap_or(Err(Error::TimeLimit(self.time_limit)))
    }

    async fn transport(&self) -> Result<Stream, Error> {
        let socket = connect(&self.config.addr, self.time_limit).await?;
        let Some((config, name)) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let handshake = TlsConnector::from(config.clone()).connect(name.clone(), socket);
        let stream = handshake.await.map_err(Error::Tls)?;
        Ok(Stream::TlsClient(Box::new(stream)))
    }
}

/// The name that the uplink's certificate must have; an IP address is as good as a host's name.
fn server_name(given: Option<&str>, addr: &Address) -> Result<ServerName<'static>, Vec<Fault>> {
    let host = match (given, addr) {
        (Some(name), _) => name,
        (None, Address::Tcp { host, .. }) if !host.is_empty() => host,
        (None, Address::Tcp { .. } | Address::Unix(_)) => "localhost",
    };
    ServerName::try_from(host.to_owned())
        .map_err(|_| vec![Fault::new(format!("uplink: not a name to verify: {host:?}"))])
}

/// A host that does not answer at its first address must leave time for the others.
async fn connect(addr: &Address, time_limit: Duration) -> Result<Socket, Error> {
    let (host, port) = match addr {
        Address::Unix(path) => {
            let failed = |why| Error::Connect { at: path.display().to_string(), why };
            return Ok(UnixStream::connect(path).await.map_err(failed)?.into());
        }
        Address::Tcp { host, port } if host.is_empty() => ("localhost", *port),
        Address::Tcp { host, port } => (host.as_str(), *port),
    };
    let resolve = |why| Error::Resolve { host: host.to_owned(), why };
    let addrs: Vec<_> = lookup_host((host, port)).await.map_err(resolve)?.collect();
    let share = time_limit / u32::try_from(addrs.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = resolve(io::Error::other("no address"));
    for at in addrs {
        let attempt = timeout(share, TcpStream::connect(at)).await;
        let attempt = attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match attempt.and_then(|socket| set_tcp_options(&SockRef::from(&socket)).map(|()| socket)) {
            Ok(socket) => return Ok(socket.into()),
            Err(why) => failure = Error::Connect { at: at.to_string(), why },
        }
    }
    Err(failure)
}

/// Sends these requests at once, and gives the first line of the answer to each.
async fn ask(stream: &mut Stream, requests: &[&[u8]]) -> Result<Vec<String>, Error> {
    let exchange = async {
        stream.write_all(&requests.concat()).await?;
        stream.flush().await?;
        answers(stream, requests.len()).await
    };
    match exchange.await.map_err(Error::Lost)? {
        answers if answers.len() == requests.len() => Ok(answers),
        cut_off => Err(match cut_off.last().and_then(|answer| answer.strip_prefix('-')) {
            Some(error) => Error::Refused(error.to_owned()),
            None => Error::Lost(io::ErrorKind::UnexpectedEof.into()),
        }),
    }
}

/// Fewer than `count` if the uplink closes before that.
async fn answers(stream: &mut Stream, count: usize) -> io::Result<Vec<String>> {
    /// What an uplink says before it serves is short.
    const MOST: usize = 64 * 1024;
    let mut answers = Vec::new();
    let mut scanner = reply::Scanner::default();
    let (mut read, mut pos, mut start) = (Vec::new(), 0, 0);
    while answers.len() < count {
        if read.len() > MOST {
            return Err(io::Error::other("the answer is no Redis's"));
        }
        if stream.read_buf(&mut read).await? == 0 {
            break;
        }
        while pos < read.len()
            && let reply::Step::End { kind } =
                scanner.next(&read, &mut pos).map_err(io::Error::other)?
        {
            let answer = String::from_utf8_lossy(&read[start..pos]);
            start = pos;
            // A push answers nothing.
            if kind != b'>' {
                answers.push(answer.lines().next().unwrap_or_default().to_owned());
            }
        }
    }
    if answers.len() > count || (answers.len() == count && start < read.len()) {
        return Err(io::Error::other("more than the answer"));
    }
    Ok(answers)
}
