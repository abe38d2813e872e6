//! Connects to an address, with TLS where that is spoken there.

use std::io;
use std::sync::Arc;
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
            (None, Address::Tcp { .. } | Address::Unix(_)) => "localhost",
        };
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => Ok(Tls { config, name }),
            Err(_) => Err(format!("not a name to verify: {host:?}")),
        }
    }
}

/// Connects; `time_limit` is shared by the addresses of a name, and is not for the handshake.
pub async fn connect(
    addr: &Address,
    tls: Option<&Tls>,
    time_limit: Duration,
) -> Result<Stream, Error> {
    #[cfg(test)]
    if let Some(dialled) = memory::dial(&addr.to_string()) {
        let failed = |why| Error::Connect { at: addr.to_string(), why };
        return dialled.map(Stream::Memory).map_err(failed);
    }
    let socket = socket(addr, time_limit).await?;
    let Some(Tls { config, name }) = tls else { return Ok(Stream::Plain(socket)) };
    let handshake = TlsConnector::from(config.clone()).connect(name.clone(), socket);
    let stream = handshake.await.map_err(Error::Tls)?;
    Ok(Stream::TlsClient(Box::new(stream)))
}

/// A host that does not answer at its first address must leave time for the others.
async fn socket(addr: &Address, time_limit: Duration) -> Result<Socket, Error> {
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
        let set_up = |socket: TcpStream| {
            set_tcp_options(&SockRef::from(&socket))?;
            set_patience(&SockRef::from(&socket), (time_limit * PATIENCE.0).max(PATIENCE.1))?;
            Ok(socket)
        };
        match attempt.and_then(set_up) {
            Ok(socket) => return Ok(socket.into()),
            Err(why) => failure = Error::Connect { at: at.to_string(), why },
        }
    }
    Err(failure)
}
