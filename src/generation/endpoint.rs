//! A place to listen: who is let in there, and with what TLS material.

use std::io;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::config::{Fault, Listen};
use crate::tls;
use crate::transport::{Socket, Stream};

/// A place to listen, its TLS material loaded.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// What the file says.
    pub config: Listen,
    /// TLS termination.
    tls: Option<tls::Server>,
}

/// What a client has shown to be let in, beside a password.
#[derive(Debug)]
pub enum Shown {
    /// It did not speak TLS.
    Nothing,
    /// It spoke TLS, and showed these certificates, its own first.
    Certificates(Vec<CertificateDer<'static>>),
}

impl Shown {
    /// On this connection.
    pub fn on(stream: &Stream) -> Self {
        match stream {
            Stream::Plain(_) | Stream::TlsClient(_) => Shown::Nothing,
            #[cfg(test)]
            Stream::Memory(_) => Shown::Nothing,
            Stream::TlsServer(stream) => {
                let certs = stream.get_ref().1.peer_certificates().unwrap_or_default();
                Shown::Certificates(certs.iter().map(|cert| cert.clone().into_owned()).collect())
            }
        }
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
        let acceptor = TlsAcceptor::from(tls.config.clone());
        match timeout(limit, Box::pin(acceptor.accept(socket))).await {
            Ok(Ok(stream)) => Ok(Stream::TlsServer(Box::new(stream))),
            Ok(Err(why)) => Err(HandshakeError::Failed(why)),
            Err(_) => Err(HandshakeError::TimeLimit(limit)),
        }
    }

    /// Whether a client that has shown this would be let in now; a password may be asked for, too.
    pub fn takes(&self, shown: &Shown) -> bool {
        match (&self.tls, shown) {
            (None, _) => true,
            (Some(_), Shown::Nothing) => false,
            (Some(tls), Shown::Certificates(certs)) => tls.takes(certs),
        }
    }

    pub(super) fn new(block: &str, config: Listen) -> Result<Self, Vec<Fault>> {
        let tls = config.tls.as_ref().map(|tls| tls::server(block, tls)).transpose()?;
        Ok(Endpoint { config, tls })
    }
}
