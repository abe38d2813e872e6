//! Connects to an address, with TLS where that is spoken there.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::Address;
#[cfg(test)]
use crate::transport::memory;
use crate::transport::{Socket, Stream, set_patience, set_tcp_options};

/// Why there is no connection.
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
}

/// For how many times as long as connecting may take an uplink may leave packets without an
/// acknowledgement, and for how long at least. A Redis that is busy, or stopped, does acknowledge what
/// its kernel has room for; one whose network is gone does not.
const PATIENCE: (u32, Duration) = (6, Duration::from_secs(30));

/// How TLS is spoken there.
#[derive(Debug)]
pub struct Tls {
    /// Whom to trust, and what to show.
    pub config: Arc<ClientConfig>,
    /// The name to send and to verify.
    pub name: ServerName<'static>,
}

impl Tls {
    /// An IP address is as good a name as a host's; `given` goes before the address. What is wrong
    /// is told.
    pub fn new(
        config: Arc<ClientConfig>,
        given: Option<&str>,
        addr: &Address,
    ) -> Result<Self, String> {
        let host = match (given, addr) {
            (Some(name), _) => name,
            (None, Address::Tcp { host, .. }) if !host.is_empty() => host,
            (None, Address::Tcp { .. } | Address::Unix(_) | Address::Sought(_)) => "localhost",
        };
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => Ok(Tls { config, name }),
            Err(_) => Err(format!("not a name to verify: {host:?}")),
        }
    }
}

/// The one of a name's addresses that is dialled: the first that has accepted. All connections lead to one server,
/// whatever becomes of the name.
pub type Pin = OnceLock<SocketAddr>;

/// Connects; `time_limit` is shared by the addresses of a name, and is not for the handshake.
pub async fn connect(
    addr: &Address,
    pin: &Pin,
    tls: Option<&Tls>,
    time_limit: Duration,
) -> Result<Stream, Error> {
    #[cfg(test)]
    if let Some(dialled) = memory::dial(&addr.to_string()) {
        let failed = |why| Error::Connect { at: addr.to_string(), why };
        return dialled.map(Stream::Memory).map_err(failed);
    }
    let socket = socket(addr, pin, time_limit).await?;
    let Some(Tls { config, name }) = tls else { return Ok(Stream::Plain(socket)) };
    let handshake = TlsConnector::from(config.clone()).connect(name.clone(), socket);
    let stream = handshake.await.map_err(Error::Tls)?;
    Ok(Stream::TlsClient(Box::new(stream)))
}

/// A host that does not answer at its first address must leave time for the others.
async fn socket(addr: &Address, pin: &Pin, time_limit: Duration) -> Result<Socket, Error> {
    if let Address::Unix(path) = addr {
        let failed = |why| Error::Connect { at: path.display().to_string(), why };
        return Ok(UnixStream::connect(path).await.map_err(failed)?.into());
    }
    let addrs = match pin.get() {
        Some(at) => vec![*at],
        None => resolve(addr).await?,
    };
    let share = time_limit / u32::try_from(addrs.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = unresolved(addr, io::Error::other("no address"));
    for at in addrs {
        let attempt = timeout(share, TcpStream::connect(at)).await;
        let attempt = attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let set_up = |socket: TcpStream| {
            set_tcp_options(&SockRef::from(&socket))?;
            set_patience(&SockRef::from(&socket), (time_limit * PATIENCE.0).max(PATIENCE.1))?;
            Ok(socket)
        };
        match attempt.and_then(set_up) {
            Ok(socket) if *pin.get_or_init(|| at) == at => return Ok(socket.into()),
            Ok(_) => {
                let why = io::Error::other("other connections lead to another address of the name");
                failure = Error::Connect { at: at.to_string(), why };
            }
            Err(why) => failure = Error::Connect { at: at.to_string(), why },
        }
    }
    Err(failure)
}

/// The addresses that a name stands for now.
pub async fn resolve(addr: &Address) -> Result<Vec<SocketAddr>, Error> {
    let (host, port) = match addr {
        Address::Tcp { host, port } if host.is_empty() => ("localhost", *port),
        Address::Tcp { host, port } => (host.as_str(), *port),
        Address::Unix(_) | Address::Sought(_) => {
            return Err(unresolved(addr, io::Error::other("nobody has told its address yet")));
        }
    };
    if let Some(found) = known_to_tests(host, port) {
        return Ok(found);
    }
    let found = lookup_host((host, port)).await.map_err(|why| unresolved(addr, why))?;
    Ok(found.collect())
}

/// The addresses of a name in the file that the environment names in `REDIS_PROXY_HOSTS`, with a line of a name and
/// its addresses for each: so tests see names that come to stand for another server.
#[cfg(debug_assertions)]
fn known_to_tests(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let hosts = std::fs::read_to_string(std::env::var_os("REDIS_PROXY_HOSTS")?).ok()?;
    let line = hosts.lines().find_map(|line| line.strip_prefix(host)?.strip_prefix(' '))?;
    line.split(' ').map(|ip| Some(SocketAddr::new(ip.parse().ok()?, port))).collect()
}

/// A release knows nothing of tests.
#[cfg(not(debug_assertions))]
fn known_to_tests(_host: &str, _port: u16) -> Option<Vec<SocketAddr>> {
    None
}

fn unresolved(addr: &Address, why: io::Error) -> Error {
    let host = match addr {
        Address::Tcp { host, .. } => host.clone(),
        Address::Unix(_) | Address::Sought(_) => addr.to_string(),
    };
    Error::Resolve { host, why }
}
