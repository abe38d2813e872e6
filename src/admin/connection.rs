//! Callers' connections: how many there are, and how long each may take.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use super::callers::{Caller, Callers, PATIENCE};
use super::desk::Desk;
use crate::listener::{Accepted, Listener};

/// No caller needs one connection for longer; one that reads nothing must not keep it.
const LIFETIME: Duration = Duration::from_secs(300);
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// Takes in callers until `closed`.
pub(super) async fn accept(
    listener: Listener,
    desk: Arc<Desk>,
    callers: Arc<Callers>,
    tasks: TaskTracker,
    closed: CancellationToken,
) {
    let serve = |accepted| {
        let Some(caller) = callers.enter() else { return };
        let (desk, closed) = (desk.clone(), closed.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = connection(accepted, desk, &caller, closed) => {}
                () = caller.sent_away() => debug!("closed to make room for another caller"),
            }
        });
    };
    if let Err(why) = listener.run(closed.clone(), serve).await {
        error!(%why, "the admin API is lost");
    }
}

async fn connection(
    accepted: Accepted,
    desk: Arc<Desk>,
    caller: &Caller,
    closed: CancellationToken,
) {
    let peer = accepted.peer();
    let generation = desk.shared.current.load();
    let Some(endpoint) = &generation.admin else { return };
    let limit = generation.settings.connect_time_limit;
    let stream = match accepted.into_socket() {
        Ok(socket) => endpoint.accept(socket, limit).await.map_err(|why| {
            desk.shared.metrics.handshakes_failed.inc();
            why.to_string()
        }),
        Err(why) => Err(why.to_string()),
    };
    let stream = match stream {
        Ok(stream) => TokioIo::new(stream),
        Err(why) => return debug!(client = %peer, why, "admin connection closed"),
    };
    let answering = TaskTracker::new();
    let service = service_fn(|request| {
        let (desk, answering) = (desk.clone(), answering.token());
        async move {
            let _answering = answering;
            Ok::<_, Infallible>(desk.answer(peer, caller, request).await)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(stream, service)
    );
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(why) = result {
                debug!(client = %peer, %why, "admin connection lost");
            }
            return;
        }
        () = sleep(LIFETIME) => {}
        () = closed.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    answering.close();
    // A command may be running, for as long as it takes; one answer more, then it ends.
    tokio::select! {
        _ = connection => {}
        () = async { answering.wait().await; sleep(PATIENCE).await } => {}
    }
}
