//! CLIENT UNBLOCK: how a command that waits for data is interrupted, and what the answer says. Pure.

use crate::resp::encode;

/// The request to interrupt the command that the connection with this id waits with. That command is
/// answered with an error: a reply of no data could be taken for the end of its time.
pub fn request(id: u64) -> Vec<u8> {
    encode::request(["CLIENT", "UNBLOCK", &id.to_string(), "ERROR"])
}

/// The request that finds out whether the user may use CLIENT UNBLOCK: no connection has the id 0.
pub fn rehearsal() -> Vec<u8> {
    request(0)
}

/// Whether the answer to [`rehearsal`] says that the user may use CLIENT UNBLOCK.
pub fn is_allowed(answer: &[u8]) -> bool {
    answer.starts_with(b":")
}

/// Whether the answer to [`request`] says that the command was interrupted.
pub fn has_interrupted(answer: &[u8]) -> bool {
    answer == b":1\r\n"
}
