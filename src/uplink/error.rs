//! Why there is no connection to the uplink, and what follows from that.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

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

/// What a server says that reads its data from a file, or gets them from its master.
const LOADING: &[u8] = b"-LOADING";
/// What a replica says whose master is away.
const WITHOUT_MASTER: &[u8] = b"-MASTERDOWN";
/// What a server says that has run one script for too long.
const BUSY: &str = "-BUSY";
/// What a server says that has as many clients as it takes.
const FULL: &str = "ERR max number of clients";

/// Whether this answer is that of a server that has no data to serve yet, or any more.
pub fn is_without_data(answer: &[u8]) -> bool {
    answer.starts_with(LOADING) || answer.starts_with(WITHOUT_MASTER)
}

impl Error {
    /// The uplink cannot be reached now, and may be later: nothing is wrong with how it was asked.
    pub fn is_away(&self) -> bool {
        match self {
            Error::Dial(dial::Error::Resolve { .. } | dial::Error::Connect { .. })
            | Error::TimeLimit(_)
            | Error::Lost(_) => true,
            Error::Dial(dial::Error::Tls(why)) => matches!(
                why.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
            ),
            Error::Refused(answer) => answer.starts_with(FULL),
            Error::Ping(answer) => is_without_data(answer.as_bytes()) || answer.starts_with(BUSY),
            Error::Login(_) | Error::Setup { .. } => false,
        }
    }

    /// Whether the server, or the way to it, is gone; not if this process lacks what it takes to connect.
    pub fn is_outage(&self) -> bool {
        let is_own = match self {
            Error::Dial(dial::Error::Connect { why, .. } | dial::Error::Resolve { why, .. }) => {
                let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
                let own = own.into_iter().chain([Errno::ADDRNOTAVAIL]);
                why.raw_os_error()
                    .is_some_and(|code| own.map(Errno::raw_os_error).any(|it| it == code))
            }
            _ => false,
        };
        let is_full = matches!(self, Error::Refused(_));
        self.is_away() && !is_own && !is_full
    }

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
