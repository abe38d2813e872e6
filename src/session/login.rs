//! Passwords that a client gave.

use std::sync::Arc;
use std::time::Instant;

use crate::config::Login;

/// What a client has shown, and how often it was wrong.
#[derive(Debug, Default)]
pub(super) struct LoginAttempts {
    /// The login that let the client in.
    pub(super) by: Option<Arc<Login>>,
    /// Wrong passwords so far.
    pub(super) failed: u32,
    /// The client is not read before this.
    pub(super) slowed_until: Option<Instant>,
    /// What the client is told then.
    pub(super) late_reply: Option<Vec<u8>>,
}
