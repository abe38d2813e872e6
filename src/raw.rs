//! The unmanaged listener: bytes between a client and the uplink, both ways, nothing understood.
//!
//! The client authenticates itself at the uplink; the gate does not hold it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use slab::Slab;
use tokio::io::copy_bidirectional;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::generation::{Current, Endpoint, Shown};
use crate::lock::lock;
use crate::log::RateLimit;
use crate::metrics::Metrics;
use crate::transport::{Peer, Socket};

/// The connections made through `listen_raw`.
#[derive(Debug, Default)]
pub struct RawConnections {
    open: AtomicUsize,
    /// Cancels those that exist; replaced by a fresh one then.
    token: Mutex<CancellationToken>,
    /// Those that were let in.
    members: Mutex<Slab<Arc<Raw>>>,
}

/// A connection that was let in.
#[derive(Debug)]
struct Raw {
    shown: Shown,
    closed: CancellationToken,
}

impl RawConnections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Closes those that there are; new ones may come.
    pub fn terminate(&self) {
        let mut token = lock(&self.token);
        std::mem::take(&mut *token).cancel();
    }

    /// Closes those that there are and those that may be on their way.
    pub fn close(&self) {
        lock(&self.token).cancel();
    }

    /// Closes those who would not be let in by `endpoint`; by none, nobody would. Tells how many.
    pub async fn close_unauthorized(&self, endpoint: Option<&Endpoint>) -> usize {
        let members: Vec<Arc<Raw>> =
            lock(&self.members).iter().map(|(_, raw)| raw.clone()).collect();
        let mut closed = 0;
        for raw in members {
            if !endpoint.is_some_and(|endpoint| endpoint.takes(&raw.shown)) {
                raw.closed.cancel();
                closed += 1;
            }
            // Looking at a certificate takes a while.
            yield_now().await;
        }
        closed
    }

    fn let_in(&self, shown: Shown, closed: CancellationToken) -> MemberGuard<'_> {
        let key = lock(&self.members).insert(Arc::new(Raw { shown, closed }));
        MemberGuard { connections: self, key }
    }

    fn enter(&self) -> (CancellationToken, OpenGuard<'_>) {
        self.open.fetch_add(1, Ordering::Relaxed);
        let token = lock(&self.token).child_token();
        (token, OpenGuard(&self.open))
    }
}

struct OpenGuard<'a>(&'a AtomicUsize);

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct MemberGuard<'a> {
    connections: &'a RawConnections,
    key: usize,
}

impl Drop for MemberGuard<'_> {
    fn drop(&mut self) {
        lock(&self.connections.members).remove(self.key);
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
        () = serve(socket, peer, endpoint, current, metrics, (connections, &terminated)) => {}
    }
}

async fn serve(
    socket: Socket,
    peer: Peer,
    endpoint: &Endpoint,
    current: &Current,
    metrics: &Metrics,
    (connections, terminated): (&RawConnections, &CancellationToken),
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
    let _member = connections.let_in(Shown::on(&client), terminated.clone());
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
