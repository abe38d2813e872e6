//! Why a command was not carried out.

use crate::config::Fault;

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// In conflict with what is running.
    #[error("{0}")]
    Conflict(String),
    /// The configuration is refused.
    #[error("the configuration is refused: {}", joined(.0))]
    Refused(Vec<Fault>),
    /// Running requests did not end in time.
    #[error("{0}")]
    TimeLimit(String),
    /// A switch did not come to an end.
    #[error("the switch is rolled back: {0}")]
    RolledBack(String),
    /// A fault of the proxy's own.
    #[error("failed: {0}")]
    Failed(String),
}

/// All faults in a line.
pub(super) fn joined(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}

/// The error of what comes while the process stops.
pub(super) fn stopping() -> Error {
    Error::Conflict("the proxy is stopping".to_owned())
}

/// The error of what is refused for one fault.
pub(super) fn refused(fault: Fault) -> Error {
    Error::Refused(vec![fault])
}
