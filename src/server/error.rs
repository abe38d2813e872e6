//! Why a server was not asked or told.

use std::io;
use std::time::Duration;

use crate::uplink;

/// Why a server was not asked or told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection.
    #[error("{0}")]
    Connect(#[from] uplink::Error),
    /// The connection was lost before the answer: whether it was done is not known.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// There was no answer in time, nor is it known whether it was done.
    #[error("no answer within {} ms", .0.as_millis())]
    TimeLimit(Duration),
    /// The server said no.
    #[error("{request}: {answer}")]
    Refused {
        /// The request's first words.
        request: String,
        /// What the server said.
        answer: String,
    },
}

impl Error {
    /// The server has ended. One that hangs may come back.
    pub fn is_end(&self) -> bool {
        match self {
            Error::Connect(why) => why.is_refusal(),
            Error::Lost(_) | Error::TimeLimit(_) | Error::Refused { .. } => false,
        }
    }
}
