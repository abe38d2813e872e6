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

use crate::config::{Address, Fault, Login, Uplink};
use crate::resp::encode;
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
    addr: Address,
    login: Option<Login>,
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
        Ok(Dialler { addr: uplink.addr, login: uplink.login, tls, time_limit })
    }

    /// The proxy's own AUTH, needed again after a RESET.
    pub fn auth(&self) -> Option<Vec<u8>> {
        let login = self.login.as_ref()?;
        let pass = login.pass.expose_secret();
        Some(match &login.user {
            Some(user) => encode::request(["AUTH", user, pass]),
            None => encode::request(["AUTH", pass]),
        })
    }

    /// Connects, with TLS and AUTH, and sends `setup`, each of which must be answered with
    /// `+OK`; all within the time limit.
    pub async fn dial(&self, setup: &[Vec<u8>]) -> Result<Stream, Error> {
        self.timed(async {
            let mut stream = self.transport().await?;
            if let Some(auth) = self.auth() {
                expect_ok(&mut stream, &auth).await?.map_err(|why| self.refused(&why))?;
            }
            for request in setup {
                expect_ok(&mut stream, request).await?.map_err(Error::Setup)?;
            }
            Ok(stream)
        })
        .await
    }

    /// A server that knows no AUTH repeats its arguments.
    fn refused(&self, answer: &str) -> Error {
        let secrets = self.login.iter().map(|login| login.pass.expose_secret());
        Error::Login(secrets.fold(answer.to_owned(), |text, pass| text.replace(pass, "[removed]")))
    }

    /// Connects with TLS, but leaves AUTH to the client.
    pub async fn dial_raw(&self) -> Result<Stream, Error> {
        self.timed(self.transport()).await
    }

    /// Connects as for a client, and asks whether the uplink is ready to serve.
    pub async fn verify(&self) -> Result<(), Fault> {
        let ping = async {
            let mut stream = self.dial(&[]).await?;
            match self.timed(ask(&mut stream, &encode::request(["PING"]))).await? {
                // A user without the right to PING is a user all the same.
                answer if answer == "+PONG" || answer.starts_with("-NOPERM") => Ok(()),
                answer => Err(Error::Ping(answer)),
            }
        };
        ping.await.map_err(|why| {
            let kind = if self.tls.is_some() { "TLS" } else { "non-TLS" };
            Fault::new(format!("could not connect to uplink: {} ({kind}): {why}", self.addr))
        })
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        timeout(self.time_limit, work).await.unwrap_or(Err(Error::TimeLimit(self.time_limit)))
    }

    async fn transport(&self) -> Result<Stream, Error> {
        let socket = connect(&self.addr, self.time_limit).await?;
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
            return Ok(Socket::Unix(UnixStream::connect(path).await.map_err(failed)?));
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
            Ok(socket) => return Ok(Socket::Tcp(socket)),
            Err(why) => failure = Error::Connect { at: at.to_string(), why },
        }
    }
    Err(failure)
}

/// The inner result is what the uplink says: nothing, or its error.
async fn expect_ok(stream: &mut Stream, request: &[u8]) -> Result<Result<(), String>, Error> {
    let answer = ask(stream, request).await?;
    Ok(if answer == "+OK" { Ok(()) } else { Err(answer) })
}

/// Sends one request, whose answer is a line and nothing after it.
async fn ask(stream: &mut Stream, request: &[u8]) -> Result<String, Error> {
    let exchange = async {
        stream.write_all(request).await?;
        stream.flush().await?;
        line(stream).await
    };
    exchange.await.map_err(Error::Lost)
}

async fn line(stream: &mut Stream) -> io::Result<String> {
    let mut answer = [0; 1024];
    let mut len = 0;
    loop {
        match stream.read(&mut answer[len..]).await? {
            0 if len == answer.len() => return Err(io::Error::other("the answer is no Redis's")),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => len += read,
        }
        if let Some(end) = memchr::memchr(b'\n', &answer[..len]) {
            if end + 1 < len {
                return Err(io::Error::other("more than the answer"));
            }
            return Ok(String::from_utf8_lossy(&answer[..len]).trim_end().to_owned());
        }
    }
}
