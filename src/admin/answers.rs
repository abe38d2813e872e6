//! Answers requests: who may ask what, what is carried out, and how an answer looks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tracing::info;

use super::callers::Caller;
use super::desk::Desk;
// The module alone: a macro has its name, too.
use super::info::{self, Uplink};
use super::routes::{self, ApiCommand, ApiRefusal, ApiRoute, Asset};
use super::{body, host};
use crate::changeover::Order;
use crate::config::{Fault, Listen};
use crate::controller::{By, Error, NotReloaded, NotSwitched, ProxyState, Report};
use crate::log;
use crate::metrics::as_plain_text;
use crate::transport::Peer;

/// Clients that are looked at together.
const REVIEWED: u32 = 64;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'";

type Answer = Response<Full<Bytes>>;

/// What a caller may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    Everything,
    /// The caller lacks the password: it may ask for probes alone.
    Probes,
    /// The caller may be a page whose site's name stands for this address: it may ask for figures, too.
    Figures,
}

impl Desk {
    pub(super) async fn answer(
        &self,
        peer: Peer,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Answer {
        let answer = self.try_answer(peer, caller, request).await.unwrap_or_else(refused);
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

    async fn try_answer(
        &self,
        peer: Peer,
        caller: &Caller,
        request: Request<Incoming>,
    ) -> Result<Answer, ApiRefusal> {
        let (head, body) = request.into_parts();
        let generation = self.shared.current.load();
        let config = generation.admin.as_ref().map(|admin| &admin.config);
        let permission = config.map_or(Permission::Probes, |it| permission(it, peer, &head));
        let route = routes::route(&head.method, head.uri.path());
        let is_probe = matches!(route, Ok(ApiRoute::Health | ApiRoute::Ready));
        if permission == Permission::Everything && !is_probe {
            caller.is_known();
        }
        Ok(match (route, permission) {
            (Ok(ApiRoute::Health), _) => text("text/plain; charset=utf-8", "ok\n"),
            (Ok(ApiRoute::Ready), _) => self.ready(permission)?,
            (Ok(ApiRoute::Metrics), Permission::Everything | Permission::Figures) => {
                self.metrics(&head.headers)
            }
            (_, Permission::Probes) => {
                return Err(ApiRefusal::new(StatusCode::UNAUTHORIZED, "no or wrong password"));
            }
            (_, Permission::Figures) => return Err(ApiRefusal::new(StatusCode::FORBIDDEN, NAMED)),
            (Err(refusal), Permission::Everything) => return Err(refusal),
            (Ok(ApiRoute::Page(asset)), Permission::Everything) => page(asset),
            (Ok(ApiRoute::Info), Permission::Everything) => {
                text("application/json", info::json(self))
            }
            (Ok(ApiRoute::Command), Permission::Everything) => {
                self.command(peer, caller, &head, body).await?
            }
        })
    }

    async fn command(
        &self,
        peer: Peer,
        caller: &Caller,
        head: &Parts,
        body: Incoming,
    ) -> Result<Answer, ApiRefusal> {
        if !host::is_same_origin(&head.headers) {
            let why = "a page of another origin may not send commands";
            return Err(ApiRefusal::new(StatusCode::FORBIDDEN, why));
        }
        let body = body::form(&head.headers, body::read(body).await?).await?;
        let command = routes::command(head.uri.query().unwrap_or_default(), &body)?;
        info!(client = %peer, ?command, "command");
        let _commanding = caller.commands();
        let told = self.carry_out(command).await?;
        Ok(text("application/json", outcome(true, told)))
    }

    /// Does what the command says. Gives what there is to be told, by its name.
    async fn carry_out(
        &self,
        command: ApiCommand,
    ) -> Result<Vec<(&'static str, Value)>, ApiRefusal> {
        let result = match command {
            ApiCommand::Reload { dry_run: true, force } => {
                let prediction = self.controller.predict(force).await.map_err(not_carried_out)?;
                let told = vec![("prediction", json!(prediction))];
                return match prediction.cancelled {
                    None => Ok(told),
                    Some(why) => Err(ApiRefusal { more: told, ..not_carried_out(why) }),
                };
            }
            ApiCommand::Reload { dry_run: false, force } => {
                let done = self.controller.clone().reload(By::Http, force).await;
                let told = Some(done.map_err(not_reloaded)?);
                let told = told.filter(|record| force || record.is_worth_telling());
                return Ok(told.map(|record| ("reload", json!(record))).into_iter().collect());
            }
            ApiCommand::Switch { dry_run: true, options } => {
                let report = self.controller.check_switch(&options).await;
                return would_switch(report.map_err(not_carried_out)?);
            }
            ApiCommand::Switch { dry_run: false, options } => {
                let done = self.controller.clone().switch(options, By::Http).await;
                return done.map_err(not_switched).map(|record| vec![("switch", json!(record))]);
            }
            ApiCommand::CancelSwitch => self.controller.cancel_switch().await,
            ApiCommand::Pause { wait: false, ttl } => self.controller.pause(ttl),
            ApiCommand::Pause { wait: true, ttl } => self.controller.pause_and_wait(ttl).await,
            ApiCommand::Unpause => self.controller.unpause(),
            ApiCommand::CloseUnauthorizedClients => return Ok(self.close_unauthorized().await),
            ApiCommand::TerminateRawConnections => {
                self.reception.raw().terminate();
                Ok(())
            }
        };
        result.map_err(not_carried_out).map(|()| Vec::new())
    }

    /// Closes the clients that would not be let in any more. They stay when a password or an authority is
    /// withdrawn that let them in.
    async fn close_unauthorized(&self) -> Vec<(&'static str, Value)> {
        let closed = Arc::<AtomicU64>::default();
        let review = |permit| Order::Review(closed.clone(), permit);
        self.shared.roster.tell_each(REVIEWED, || false, review).await;
        let generation = self.shared.current.load();
        let raw = self.reception.raw().close_unauthorized(generation.listen_raw.as_ref()).await;
        let clients = closed.load(Ordering::Relaxed);
        info!(clients, raw_connections = raw, "closed clients that are no longer authorized");
        vec![("clients_closed", json!(clients)), ("raw_connections_closed", json!(raw))]
    }

    /// Whether clients can be served. While the gate is shut, the answer is yes: clients wait, and to take
    /// all proxies out of a load balancer for a pause does more harm. A caller that may not ask everything
    /// is told no more than that the uplink is away, for the reason names its address.
    fn ready(&self, permission: Permission) -> Result<Answer, ApiRefusal> {
        let unready = |why: String| ApiRefusal::new(StatusCode::SERVICE_UNAVAILABLE, why);
        let remarks = match permission {
            Permission::Everything => self.controller.remarks(),
            Permission::Probes | Permission::Figures => Vec::new(),
        };
        let with_remarks = |word: String| [&[word], &remarks[..]].concat().join("; ");
        let body = with_remarks("ready".to_owned()) + "\n";
        let ready = Ok(text("text/plain; charset=utf-8", body));
        match self.controller.state() {
            ProxyState::Stopping => return Err(unready("stopping".to_owned())),
            ProxyState::Pausing | ProxyState::Paused => return ready,
            ProxyState::Running => {}
        }
        let uplink = Uplink::of(&self.shared);
        match (uplink.is_up, permission) {
            (Some(true), _) => ready,
            (_, Permission::Everything) => Err(unready(with_remarks(uplink.why))),
            (_, Permission::Probes | Permission::Figures) => {
                Err(unready("could not connect to uplink".to_owned()))
            }
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        const OPENMETRICS: &str = "application/openmetrics-text";
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let metrics = self.shared.metrics.encode(info::gauges(self), log::dropped());
        match accept.is_some_and(|accept| accept.contains(OPENMETRICS)) {
            true => text("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics),
            false => text("text/plain; version=0.0.4; charset=utf-8", as_plain_text(&metrics)),
        }
    }
}

const NAMED: &str = "without a password, only localhost or an IP address is taken as Host, for a name \
     may be an attacker's: ask by the address, or set admin.pass";

/// What a caller may ask. A name leads a browser here over TCP alone, and over TLS, the browser has verified
/// the name.
fn permission(config: &Listen, peer: Peer, head: &Parts) -> Permission {
    if !routes::is_authorized(&head.headers, config.login.as_deref()) {
        return Permission::Probes;
    }
    let is_apart = config.login.is_some() || peer == Peer::Unix || config.tls.is_some();
    match is_apart || host::has_no_foreign_name(&head.headers, &head.uri) {
        true => Permission::Everything,
        false => Permission::Figures,
    }
}

fn not_carried_out(why: Error) -> ApiRefusal {
    let status = match why {
        Error::Refused(_) => StatusCode::BAD_REQUEST,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::TimeLimit(_) | Error::RolledBack(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let refusal = ApiRefusal::new(status, why.to_string());
    let Error::Refused(faults) = why else { return refusal };
    ApiRefusal { faults: faults.iter().map(Fault::to_string).collect(), ..refusal }
}

fn not_reloaded(why: NotReloaded) -> ApiRefusal {
    let mut refusal = not_carried_out(why.error);
    refusal.more.extend(why.record.map(|record| ("reload", json!(record))));
    refusal
}

fn not_switched(why: NotSwitched) -> ApiRefusal {
    let mut refusal = not_carried_out(why.error);
    refusal.more.extend(why.report.map(|report| ("preflight", json!(report))));
    refusal.more.extend(why.record.map(|record| ("switch", json!(record))));
    refusal
}

fn would_switch(report: Report) -> Result<Vec<(&'static str, Value)>, ApiRefusal> {
    let faults = report.failures();
    let told = vec![("preflight", json!(report))];
    if faults.is_empty() {
        return Ok(told);
    }
    let text = format!("the switch would be refused: {}", faults.join("; "));
    Err(ApiRefusal { faults, more: told, ..ApiRefusal::new(StatusCode::BAD_REQUEST, text) })
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

/// The body of an answer, as the contract spells it: with a blank after each colon and comma of the first level.
fn outcome(ok: bool, told: Vec<(&'static str, Value)>) -> String {
    let told = told.iter().map(|(name, value)| format!(", \"{name}\": {value}"));
    format!("{{\"ok\": {ok}{}}}", told.collect::<String>())
}

fn refused(refusal: ApiRefusal) -> Answer {
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
