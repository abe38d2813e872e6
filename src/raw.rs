//! The unmanaged listener: bytes between a client and the uplink, both ways, nothing understood.
//!
//! The client authenticates itself at the uplink; the gate does not hold it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::io::copy_bidirectional;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::generation::{Current, Endpoint};
use crate::log::RateLimit;
use crate::metrics::Metrics;
use crate::transport::{Peer, Socket};

/// The connections made through `listen_raw`.
#[derive(Debug, Default)]
pub struct RawConnections {
    open: AtomicUsize,
    /// Cancels those that exist; replaced by a fresh one then.
    token: Mutex<CancellationToken>,
}

impl RawConnections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes those that there are; new ones may come.
    pub fn terminate(&self) {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *token).cancel();
    }

    /// Closes those that there are and those that may be on their way.
    pub fn close(&self) {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    fn enter(&self) -> (CancellationToken, Open<'_>) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (token, Open(&self.open))
    }
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one client until either side, or [`RawConnections::terminate`], ends it.
pub async fn run(
    socket: Socket,
    peer: Peer,
    endpoint: &Endpoint,
    current: &Current,
    metrics: &Metrics,
    connections: &RawConnections,
) {
    let (terminated, _open) = connections.enter();
    tokio::select! {
        () = terminated.cancelled() => debug!(client = %peer, "raw connection terminated"),
        () = serve(socket, peer, endpoint, current, metrics) => {}
    }
}

async fn serve(
    socket: Socket,
    peer: Peer,
    endpoint: &Endpoint,
    current: &Current,
    metrics: &Metrics,
) {
    static UPLINK: RateLimit = RateLimit::one_a_second();
    let limit = current.load().settings.connect_time_limit;
    let mut client = match endpoint.accept(socket, limit).await {
        Ok(client) => client,
        Err(why) => {
            metrics.handshakes_failed.inc();
            return debug!(client = %peer, %why, "raw connection closed");
        }
    };
    // Of what is in force by now, wherever the client came in.
    let uplink = current.load().uplink.dial_raw().await;
    metrics.count_connect(&uplink);
    let mut uplink = match uplink {
        Ok(uplink) => uplink,
        Err(why) => {
            if let Some(suppressed) = UPLINK.pass() {
                warn!(client = %peer, %why, suppressed, "raw: uplink unavailable");
            }
            return;
        }
    };
    match copy_bidirectional(&mut client, &mut uplink).await {
        Ok((up, down)) => debug!(client = %peer, up, down, "raw connection closed"),
        Err(why) => debug!(client = %peer, %why, "raw connection lost"),
    }
}
