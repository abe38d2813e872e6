//! One immutable, numbered, loaded configuration with its TLS material.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use crate::config::{Address, Draft, Fault, Listen, Login, Settings};
use crate::tls;
use crate::transport::{Socket, Stream};
use crate::uplink::Dialler;

/// What sessions and listeners hold on to.
#[derive(Debug)]
pub struct Generation {
    /// Counts from 1.
    pub number: u64,
    /// The way to the uplink.
    pub uplink: Dialler,
    /// Where clients connect.
    pub listen: Endpoint,
    /// Where unmanaged clients connect.
    pub listen_raw: Option<Endpoint>,
    /// Whether there is an admin block.
    pub admin: Option<Endpoint>,
    /// The top level.
    pub settings: Settings,
}

/// A place to listen, its TLS material loaded.
#[derive(Debug)]
pub struct Endpoint {
    /// Where.
    pub addr: Address,
    /// What clients must know.
    pub login: Option<Login>,
    /// TLS termination.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Loads what `draft` names and connects to the uplink, to report every fault at once.
pub async fn load(draft: Draft, number: u64) -> Result<Arc<Generation>, Vec<Fault>> {
    let Draft { uplink, listen, listen_raw, admin, settings, mut faults, warnings } = draft;
    for warning in warnings {
        warn!("{warning}");
    }
    let mut endpoint = |block, listen: Option<Listen>| {
        listen.and_then(|listen| note(Endpoint::new(block, listen), &mut faults))
    };
    let listen = endpoint("listen", listen);
    let listen_raw = endpoint("listen_raw", listen_raw);
    let admin = endpoint("admin", admin);
    let uplink = uplink
        .and_then(|uplink| note(Dialler::new(uplink, settings.connect_time_limit), &mut faults));
    if let Some(uplink) = &uplink {
        faults.extend(uplink.verify().await.err());
    }
    match (uplink, listen) {
        (Some(uplink), Some(listen)) if faults.is_empty() => {
            Ok(Arc::new(Generation { number, uplink, listen, listen_raw, admin, settings }))
        }
        _ => Err(faults),
    }
}

/// Why a client that connected cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It does not speak TLS, or not to our liking.
    #[error("the TLS handshake failed: {0}")]
    Failed(io::Error),
    /// It took too long.
    #[error("no TLS handshake within {} ms", .0.as_millis())]
    TimeLimit(Duration),
}

impl Endpoint {
    /// Performs the TLS handshake, where there is one to perform.
    pub async fn accept(&self, socket: Socket, limit: Duration) -> Result<Stream, HandshakeError> {
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(socket)) };
        // Boxed, for a handshake's state is large and a session's future must stay small.
        match timeout(limit, Box::pin(TlsAcceptor::from(tls.clone()).accept(socket))).await {
            Ok(Ok(stream)) => Ok(Stream::TlsServer(Box::new(stream))),
            Ok(Err(why)) => Err(HandshakeError::Failed(why)),
            Err(_) => Err(HandshakeError::TimeLimit(limit)),
        }
    }

    fn new(block: &str, listen: Listen) -> Result<Self, Vec<Fault>> {
        let tls = listen.tls.as_ref().map(|tls| tls::server(block, tls)).transpose()?;
        Ok(Endpoint { addr: listen.addr, login: listen.login, tls })
    }
}

fn note<T>(result: Result<T, Vec<Fault>>, faults: &mut Vec<Fault>) -> Option<T> {
    result.map_err(|more| faults.extend(more)).ok()
}
