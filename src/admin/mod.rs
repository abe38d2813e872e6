//! The HTTP API and the status page.
//!
//! | Path | What |
//! | --- | --- |
//! | `POST /cmd/` | pause, unpause, reload, switch, cancel-switch, terminate-raw-connections, close-unauthorized-clients |
//! | `/` | the page, for people |
//! | `/info.json` | the state |
//! | `/metrics` | for Prometheus |
//! | `/healthz`, `/readyz` | for probes |

mod answers;
mod body;
mod callers;
mod connection;
mod desk;
mod host;
mod info;
mod routes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use self::callers::Callers;
use self::desk::Desk;
use crate::controller::Controller;
use crate::listener::Bound;
use crate::reception::Reception;
use crate::shared::Shared;

/// Callers at once.
const CALLERS: usize = 128;

/// The running API.
#[derive(Debug)]
pub struct Admin {
    closed: CancellationToken,
    tasks: TaskTracker,
}

/// Serves on these sockets.
pub fn serve(
    sockets: Vec<Bound>,
    shared: Arc<Shared>,
    reception: Arc<Reception>,
    controller: Arc<Controller>,
) -> Admin {
    let admin = Admin { closed: CancellationToken::new(), tasks: TaskTracker::new() };
    let started = Instant::now();
    let desk = Arc::new(Desk { shared, reception, controller, started });
    let callers = Callers::new(CALLERS);
    for bound in sockets {
        let Bound::New(listener) = bound else { continue };
        info!(block = "admin", addr = listener.addr(), "listening");
        let (tasks, closed) = (admin.tasks.clone(), admin.closed.clone());
        admin.tasks.spawn(connection::accept(
            listener,
            desk.clone(),
            callers.clone(),
            tasks,
            closed,
        ));
    }
    admin
}

impl Admin {
    /// Answers what was asked, and ends.
    pub async fn close(self) {
        self.closed.cancel();
        self.tasks.close();
        // A caller that does not read its answer is cut off.
        let _ = timeout(Duration::from_secs(1), self.tasks.wait()).await;
    }
}
