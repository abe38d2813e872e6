//! What the process is told by signals.

use std::io;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tracing::info;

/// What a signal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Reload,
    /// SIGTERM, SIGINT
    Stop,
}

/// The signals that are heard. From its creation on, they do not end the process.
pub struct Signals(signal_hook_tokio::Signals);

impl Signals {
    /// Begins to listen.
    pub fn new() -> io::Result<Self> {
        Ok(Signals(signal_hook_tokio::Signals::new([SIGHUP, SIGTERM, SIGINT])?))
    }

    /// The next one. Several of a kind at once are one. Cancel safe.
    pub async fn next(&mut self) -> Signal {
        match self.0.next().await {
            Some(SIGHUP) => Signal::Reload,
            _ => Signal::Stop,
        }
    }

    /// Completes at a stop; reloads are passed over. Cancel safe.
    pub async fn stop(&mut self) {
        while self.next().await != Signal::Stop {
            info!("not running: no reload");
        }
    }
}
