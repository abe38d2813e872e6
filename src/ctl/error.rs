//! Why a running proxy did not answer, and the exit code for it.

use std::io;

use crate::exit::Exit;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something on the command line or in the environment means nothing.
    #[error("{0}")]
    Usage(String),
    /// What the command line or the configuration file says cannot be used; one thing each.
    #[error("{}", .0.join("; "))]
    Configuration(Vec<String>),
    /// The API is not there, or not any more.
    #[error("{0}")]
    Unreachable(String),
    /// The program was interrupted.
    #[error("{0}")]
    Interrupted(String),
    /// The API says what it should not.
    #[error("{0}")]
    Unknown(String),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<&Error> for Exit {
    fn from(why: &Error) -> Self {
        match why {
            Error::Usage(_) => Exit::Usage,
            Error::Configuration(_) => Exit::Refused,
            Error::Unreachable(_) => Exit::Unavailable,
            Error::Interrupted(_) | Error::Unknown(_) | Error::System(_) => Exit::Failed,
        }
    }
}
