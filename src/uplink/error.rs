//! Why there is no connection to the uplink, and what follows from that.

use std::io;
use std::time::Duration;

use crate::dial;

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
        /// What the uplink was told.
        request: String,
        /// What the uplink answered.
        answer: String,
        /// The fault is this client's alone. It is not where the uplink lacks databases, or its user rights.
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
    /// To dial, log in and restore the state took too long.
    #[error("not connected within {} ms", .0.as_millis())]
    TimeLimit(Duration),
}

impl Error {
    /// Whether nothing came from the uplink, not even a refusal.
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

    /// Whether there is nobody who could have said anything.
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

    /// Whether no process listens there: the server that was there has ended.
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
