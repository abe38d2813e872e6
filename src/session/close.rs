//! Why a session ends: what the client is told, and how loudly it is logged.

use std::io;
use std::time::Duration;

use tracing::{debug, warn};

use crate::generation::HandshakeError;
use crate::log::RateLimit;
use crate::resp::{encode, reply, request};
use crate::transport::Peer;
use crate::uplink;

/// How long a client may take to read its last replies; and how long one that will send no more is
/// kept while nothing comes for it.
pub(super) const LAST_REPLIES: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Reason {
    #[error("the client closed the connection")]
    ClientClosed,
    #[error("the connection to the client is lost: {0}")]
    ClientLost(io::Error),
    #[error("the client sent QUIT")]
    Quit,
    #[error("the client broke the protocol: {0}")]
    Protocol(request::Error),
    #[error("the client speaks TLS to a listener without")]
    SpeaksTls,
    #[error("the client speaks HTTP")]
    SpeaksHttp,
    #[error("the client did not read its last replies")]
    Unread,
    #[error("the client did not send the rest of a request")]
    Unfinished,
    #[error("the client had not logged in, or had hung up, and made room for another")]
    MadeRoom,
    #[error("the client did not log in")]
    NoLogin,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error("the proxy stops")]
    Stopped,
    #[error("the uplink was replaced, and {0} cannot be carried over")]
    NotCarried(&'static str),
    #[error("what let the client in was withdrawn, and an operator had such clients closed")]
    Withdrawn,
    #[error("uplink unavailable: {0}")]
    UplinkUnavailable(#[from] uplink::Error),
    #[error("the uplink closed the connection")]
    UplinkClosed,
    #[error("the connection to the uplink is lost: {0}")]
    UplinkLost(io::Error),
    #[error("the uplink was lost for longer than hold_time_limit_ms: {0}")]
    OutageTooLong(String),
    #[error("the uplink was lost, and nobody knows what became of a request that was sent")]
    OutcomeUnknown,
    #[error("the uplink broke the protocol: {0}")]
    UplinkProtocol(#[from] reply::Error),
    #[error("the uplink sent a reply that nobody asked for")]
    Unasked,
    #[error("time limit of {} ms exceeded", .0.as_millis())]
    TimeLimit(Duration),
}

/// Whose doing it was.
enum Cause {
    /// Nobody's fault.
    Benign,
    /// What any remote can bring about, as often as it likes.
    Client,
    /// What an operator must know.
    Uplink,
}

impl Reason {
    /// The last words to a client that still awaits a reply; `None` where it knows already, or
    /// cannot hear.
    pub(super) fn last_words(&self) -> Option<Vec<u8>> {
        let text = match self {
            Reason::Protocol(why) => format!("ERR Protocol error: {why}"),
            Reason::TimeLimit(limit) => {
                format!("ERR redis-proxy: time limit of {} ms exceeded", limit.as_millis())
            }
            // What the uplink itself said.
            Reason::UplinkUnavailable(uplink::Error::Refused(text)) => text.clone(),
            Reason::UplinkUnavailable(_)
            | Reason::UplinkClosed
            | Reason::UplinkLost(_)
            | Reason::OutageTooLong(_)
            | Reason::OutcomeUnknown
            | Reason::UplinkProtocol(_)
            | Reason::Unasked
            | Reason::Unfinished
            | Reason::MadeRoom
            | Reason::NoLogin
            | Reason::ClientClosed
            | Reason::ClientLost(_)
            | Reason::Quit
            | Reason::SpeaksTls
            | Reason::SpeaksHttp
            | Reason::Unread
            | Reason::Handshake(_)
            | Reason::Stopped
            | Reason::Withdrawn
            | Reason::NotCarried(_) => return None,
        };
        Some(encode::error(&text))
    }

    /// For the count of closed sessions.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Reason::ClientClosed => "client_closed",
            Reason::ClientLost(_) => "client_lost",
            Reason::Quit => "quit",
            Reason::Protocol(_) => "client_protocol",
            Reason::SpeaksTls | Reason::SpeaksHttp | Reason::Handshake(_) => "other_protocol",
            Reason::Unread => "unread",
            Reason::Unfinished => "unfinished",
            Reason::MadeRoom | Reason::NoLogin => "no_login",
            Reason::Stopped => "stopped",
            Reason::Withdrawn => "withdrawn",
            Reason::NotCarried(_) => "not_carried",
            Reason::UplinkUnavailable(_) => "uplink_unavailable",
            Reason::UplinkClosed => "uplink_closed",
            Reason::UplinkLost(_) | Reason::OutageTooLong(_) | Reason::OutcomeUnknown => {
                "uplink_lost"
            }
            Reason::UplinkProtocol(_) | Reason::Unasked => "uplink_protocol",
            Reason::TimeLimit(_) => "time_limit",
        }
    }

    fn cause(&self) -> Cause {
        match self {
            Reason::ClientClosed | Reason::Quit | Reason::Stopped | Reason::Withdrawn => {
                Cause::Benign
            }
            Reason::ClientLost(_)
            | Reason::Protocol(_)
            | Reason::SpeaksTls
            | Reason::SpeaksHttp
            | Reason::Unread
            | Reason::Unfinished
            | Reason::MadeRoom
            | Reason::NoLogin
            | Reason::Handshake(_) => Cause::Client,
            Reason::UplinkUnavailable(_)
            | Reason::UplinkClosed
            | Reason::UplinkLost(_)
            | Reason::OutageTooLong(_)
            | Reason::OutcomeUnknown
            | Reason::UplinkProtocol(_)
            | Reason::Unasked
            | Reason::NotCarried(_)
            | Reason::TimeLimit(_) => Cause::Uplink,
        }
    }

    /// Whether the connection may hold bytes that the client has yet to read.
    pub(super) fn client_listens(&self) -> bool {
        match self.cause() {
            // One that sends no more may read, and expects TLS to be closed in order.
            Cause::Benign => true,
            Cause::Client => matches!(self, Reason::Protocol(_)),
            Cause::Uplink => true,
        }
    }

    /// One line for each session.
    pub(super) fn log(&self, client: Peer) {
        static UPLINK: RateLimit = RateLimit::one_a_second();
        match self.cause() {
            Cause::Benign | Cause::Client => debug!(%client, reason = %self, "session closed"),
            Cause::Uplink => match UPLINK.pass() {
                Some(suppressed) => {
                    warn!(%client, reason = %self, suppressed, "session closed");
                }
                None => debug!(%client, reason = %self, "session closed"),
            },
        }
    }
}
