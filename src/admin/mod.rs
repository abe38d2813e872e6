//! The HTTP API and the status page.
//!
//! | Path | What |
//! | --- | --- |
//! | `POST /cmd/` | pause, unpause, reload, switch, cancel-switch, terminate-raw-connections |
//! | `/` | the page, for people |
//! | `/info.json` | the state |
//! | `/metrics` | for Prometheus |
//! | `/healthz`, `/readyz` | for probes |

mod callers;
mod info;
mod routes;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::ready;
use futures_util::stream;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info};

use self::callers::{Caller, Callers};
use self::routes::{Asset, Command, Refusal, Route};
use crate::config::Fault;
use crate::controller::{By, Controller, Error, NotDone, NotReloaded, Report, State};
use crate::listener::{Accepted, Bound, Listener};
use crate::metrics::as_plain_text;
use crate::reception::Reception;
use crate::session::Shared;
use crate::transport::Peer;

/// Callers at once.
const CALLERS: usize = 128;
/// For a caller to send its request's head, and its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// No caller needs one connection for longer; one that reads nothing must not keep it.
const LIFETIME: Duration = Duration::from_secs(300);
const MAX_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const MAX_BODY: usize = 16 * 1024;
/// How long an answer of the uplink is good for.
const PROBE: Duration = Duration::from_secs(1);

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

type Answer = Response<Full<Bytes>>;

/// What requests are answered from.
struct Desk {
    shared: Arc<Shared>,
    reception: Arc<Reception>,
    controller: Arc<Controller>,
    started: Instant,
    /// What the uplink answered last; held while it is asked, so that it is asked once.
    probe: Mutex<Option<(Instant, Result<(), String>)>>,
}

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
    let (started, probe) = (Instant::now(), Mutex::default());
    let desk = Arc::new(Desk { shared, reception, controller, started, probe });
    let callers = Callers::new(CALLERS);
    for bound in sockets {
        let Bound::New(listener) = bound else { continue };
        info!(block = "admin", addr = listener.addr(), "listening");
        let (tasks, closed) = (admin.tasks.clone(), admin.closed.clone());
        admin.tasks.spawn(accept(listener, desk.clone(), callers.clone(), tasks, closed));
    }
    admin
}

impl Admin {
    /// Answers what was asked, and ends.
    pub async fn close(self) {
        self.closed.cancel();
        self.tasks.close();
        // Whoever does not read its answer is cut off.
        let _ = timeout(Duration::from_secs(1), self.tasks.wait()).await;
    }
}

async fn accept(
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
                () = caller.sent_away() => debug!("an admin connection made room for another"),
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
            let answer = desk.answer(peer, request).await;
            if answer.status() != StatusCode::UNAUTHORIZED {
                caller.is_known();
            }
            Ok::<_, Infallible>(answer)
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

impl Desk {
    async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Answer {
        let answer = self.try_answer(peer, request).await.unwrap_or_else(refused);
        let (mut head, body) = answer.into_parts();
        let fixed = [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        for (name, value) in fixed {
            head.headers.insert(name, HeaderValue::from_static(value));
        }
        Response::from_parts(head, body)
    }

    async fn try_answer(&self, peer: Peer, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let generation = self.shared.current.load();
        let login = generation.admin.as_ref().and_then(|admin| admin.config.login.as_ref());
        if !routes::is_authorized(&head.headers, login) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "no or wrong password"));
        }
        Ok(match routes::route(&head.method, head.uri.path())? {
            Route::Page(asset) => page(asset),
            Route::Info => text("application/json", info::json(self)),
            Route::Metrics => self.metrics(&head.headers),
            Route::Health => text("text/plain; charset=utf-8", "ok\n"),
            Route::Ready => self.ready().await?,
            Route::Command => {
                if !routes::is_same_origin(&head.headers) {
                    let why = "a page of another origin may not send commands";
                    return Err(Refusal::new(StatusCode::FORBIDDEN, why));
                }
                let body = form(&head.headers, read(body).await?).await?;
                let command = routes::command(head.uri.query().unwrap_or_default(), &body)?;
                info!(client = %peer, ?command, "command");
                let told = self.carry_out(command).await?;
                text("application/json", outcome(true, told))
            }
        })
    }

    /// What there is to be told, by its name.
    async fn carry_out(&self, command: Command) -> Result<Vec<(&'static str, Value)>, Refusal> {
        let result = match command {
            Command::Reload { dry_run: true, force } => {
                let prediction = self.controller.predict(force).await.map_err(not_carried_out)?;
                let told = vec![("prediction", json!(prediction))];
                return match prediction.cancelled {
                    None => Ok(told),
                    Some(why) => Err(Refusal { more: told, ..not_carried_out(why) }),
                };
            }
            Command::Reload { dry_run: false, force } => {
                let done = self.controller.clone().reload(By::Http, force).await;
                let told = Some(done.map_err(not_reloaded)?);
                let told = told.filter(|record| force || record.is_worth_telling());
                return Ok(told.map(|record| ("reload", json!(record))).into_iter().collect());
            }
            Command::Switch { dry_run: true, options } => {
                let report = self.controller.check_switch(&options).await;
                return would_switch(report.map_err(not_carried_out)?);
            }
            Command::Switch { dry_run: false, options } => {
                let done = self.controller.clone().switch(options, By::Http).await;
                return done.map_err(not_switched).map(|record| vec![("switch", json!(record))]);
            }
            Command::CancelSwitch => self.controller.cancel_switch().await,
            Command::Pause { wait: false, ttl } => self.controller.pause(ttl),
            Command::Pause { wait: true, ttl } => self.controller.pause_and_wait(ttl).await,
            Command::Unpause => self.controller.unpause(),
            Command::TerminateRawConnections => {
                self.reception.raw().terminate();
                Ok(())
            }
        };
        result.map_err(not_carried_out).map(|()| Vec::new())
    }

    /// A reload's short pause does not count: whoever sends clients elsewhere for that would do
    /// more harm.
    async fn ready(&self) -> Result<Answer, Refusal> {
        let unready = |why: String| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
        if self.controller.state() == State::Stopping {
            return Err(unready("stopping".to_owned()));
        }
        if self.controller.paused().is_some() {
            return Err(unready(self.controller.state().to_string()));
        }
        let mut probe = self.probe.lock().await;
        let answer = match &*probe {
            Some((at, answer)) if at.elapsed() < PROBE => answer.clone(),
            _ => {
                let answer = self.shared.current.load().uplink.verify().await;
                let answer = answer.map_err(|why| why.to_string());
                *probe = Some((Instant::now(), answer.clone()));
                answer
            }
        };
        answer.map(|()| text("text/plain; charset=utf-8", "ready\n")).map_err(unready)
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        const OPENMETRICS: &str = "application/openmetrics-text";
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let metrics = self.shared.metrics.encode(info::gauges(self));
        match accept.is_some_and(|accept| accept.contains(OPENMETRICS)) {
            true => text("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics),
            false => text("text/plain; version=0.0.4; charset=utf-8", as_plain_text(&metrics)),
        }
    }
}

fn not_carried_out(why: Error) -> Refusal {
    let status = match why {
        Error::Refused(_) => StatusCode::BAD_REQUEST,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::TimeLimit(_) | Error::RolledBack(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let refusal = Refusal::new(status, why.to_string());
    let Error::Refused(faults) = why else { return refusal };
    Refusal { faults: faults.iter().map(Fault::to_string).collect(), ..refusal }
}

fn not_reloaded(why: NotReloaded) -> Refusal {
    let mut refusal = not_carried_out(why.error);
    refusal.more.extend(why.record.map(|record| ("reload", json!(record))));
    refusal
}

fn not_switched(why: NotDone) -> Refusal {
    let mut refusal = not_carried_out(why.error);
    refusal.more.extend(why.report.map(|report| ("preflight", json!(report))));
    refusal.more.extend(why.record.map(|record| ("switch", json!(record))));
    refusal
}

fn would_switch(report: Report) -> Result<Vec<(&'static str, Value)>, Refusal> {
    let faults = report.failures();
    let told = vec![("preflight", json!(report))];
    if faults.is_empty() {
        return Ok(told);
    }
    let text = format!("the switch would be refused: {}", faults.join("; "));
    Err(Refusal { faults, more: told, ..Refusal::new(StatusCode::BAD_REQUEST, text) })
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let whole = timeout(PATIENCE, Limited::new(body, MAX_BODY).collect());
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(why)) if why.is::<LengthLimitError>() => {
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"))
        }
        Ok(Err(why)) => Err(Refusal::new(StatusCode::BAD_REQUEST, why.to_string())),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come")),
    }
}

/// `curl -F` sends its fields in parts; what comes of it here is what `curl -d` sends.
async fn form(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(boundary) = kind.and_then(|kind| multer::parse_boundary(kind).ok()) else {
        return Ok(body);
    };
    let bad = |why: multer::Error| Refusal::new(StatusCode::BAD_REQUEST, why.to_string());
    let whole = stream::once(ready(Ok::<_, Infallible>(body)));
    let mut parts = multer::Multipart::new(whole, boundary);
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(bad)? {
        let name = part.name().unwrap_or_default().to_owned();
        fields.push((name, part.text().await.map_err(bad)?));
    }
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Ok(form.into())
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

fn page(asset: Asset) -> Answer {
    match asset {
        Asset::Html => text("text/html; charset=utf-8", include_str!("page/index.html")),
        Asset::Css => text("text/css; charset=utf-8", include_str!("page/page.css")),
        Asset::Js => text(SCRIPT, include_str!("page/page.js")),
        Asset::SwitchJs => text(SCRIPT, include_str!("page/switch.js")),
    }
}

fn text(kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// As the contract spells it, with a blank after each colon and comma of the first level.
fn outcome(ok: bool, told: Vec<(&'static str, Value)>) -> String {
    let told = told.iter().map(|(name, value)| format!(", \"{name}\": {value}"));
    format!("{{\"ok\": {ok}{}}}", told.collect::<String>())
}

fn refused(refusal: Refusal) -> Answer {
    let mut told = vec![("error", Value::from(refusal.text))];
    if !refusal.faults.is_empty() {
        told.push(("faults", Value::from(refusal.faults)));
    }
    told.extend(refusal.more);
    let mut answer = text("application/json", outcome(false, told));
    *answer.status_mut() = refusal.status;
    if let Some(allow) = refusal.allow {
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"redis-proxy\", charset=\"UTF-8\"");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    answer
}
