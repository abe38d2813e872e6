//! From a request to what it asks for, or to why it is refused. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::Value;
use subtle::ConstantTimeEq;

use crate::config::{Address, Login};
use crate::controller::{SwitchOptions, SwitchTo};

/// What the API can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiRoute {
    Page(Asset),
    Info,
    Metrics,
    Health,
    Ready,
    Command,
}

/// A part of the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asset {
    Html,
    Css,
    Js,
    SwitchJs,
}

/// What `/cmd/` can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ApiCommand {
    Pause { wait: bool, ttl: Option<Duration> },
    Unpause,
    Reload { dry_run: bool, force: bool },
    Switch { dry_run: bool, options: SwitchOptions },
    CancelSwitch,
    TerminateRawConnections,
    CloseUnauthorizedClients,
}

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiRefusal {
    pub(super) status: StatusCode,
    pub(super) text: String,
    /// Each fault on its own, where there are several.
    pub(super) faults: Vec<String>,
    /// What else there is to be told, by its name.
    pub(super) more: Vec<(&'static str, Value)>,
    /// The value of the `Allow` header.
    pub(super) allow: Option<&'static str>,
}

impl ApiRefusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        ApiRefusal { status, text: text.into(), faults: Vec::new(), more: Vec::new(), allow: None }
    }
}

/// Finds what a path means.
pub(super) fn route(method: &Method, path: &str) -> Result<ApiRoute, ApiRefusal> {
    let (route, allow) = match path {
        "/" => (ApiRoute::Page(Asset::Html), "GET, HEAD"),
        "/page.css" => (ApiRoute::Page(Asset::Css), "GET, HEAD"),
        "/page.js" => (ApiRoute::Page(Asset::Js), "GET, HEAD"),
        "/switch.js" => (ApiRoute::Page(Asset::SwitchJs), "GET, HEAD"),
        "/info.json" => (ApiRoute::Info, "GET, HEAD"),
        "/metrics" | "/metrics/" => (ApiRoute::Metrics, "GET, HEAD"),
        "/healthz" => (ApiRoute::Health, "GET, HEAD"),
        "/readyz" => (ApiRoute::Ready, "GET, HEAD"),
        "/cmd" | "/cmd/" => (ApiRoute::Command, "POST"),
        _ => return Err(ApiRefusal::new(StatusCode::NOT_FOUND, "not found")),
    };
    if allow.split(", ").any(|allowed| allowed == method.as_str()) {
        return Ok(route);
    }
    let text = format!("method not allowed; use {allow}");
    Err(ApiRefusal { allow: Some(allow), ..ApiRefusal::new(StatusCode::METHOD_NOT_ALLOWED, text) })
}

/// Whether the password is right, as Basic with any user name or as Bearer. The comparison takes the same time
/// whatever is wrong, but for the lengths.
pub(super) fn is_authorized(headers: &HeaderMap, login: Option<&Login>) -> bool {
    let Some(login) = login else { return true };
    let given = headers.get(AUTHORIZATION).and_then(|value| password(value.as_bytes()));
    given.is_some_and(|given| given.ct_eq(login.pass.expose_secret().as_bytes()).into())
}

fn password(authorization: &[u8]) -> Option<Vec<u8>> {
    let space = authorization.iter().position(|byte| *byte == b' ')?;
    let (scheme, credentials) = authorization.split_at(space);
    let credentials = credentials.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(credentials.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = STANDARD.decode(credentials).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(decoded[colon + 1..].to_vec())
}

/// Every parameter, and the commands that know it.
const PARAMETERS: [(&str, &[&str]); 12] = [
    ("wait", &["pause"]),
    ("ttl_ms", &["pause"]),
    ("dry_run", &["reload", "switch", "failover"]),
    ("timeout_ms", &["switch", "failover"]),
    ("pause_limit_ms", &["switch", "failover"]),
    ("to", &["switch", "failover"]),
    ("prepared", &["switch"]),
    ("replicate_from", &["switch"]),
    ("fence", &["switch", "failover"]),
    ("settings", &["switch"]),
    ("force", &["reload", "switch", "failover"]),
    ("force_clients", &["switch", "failover"]),
];

/// Reads a command from the form in `body`, or from the query.
pub(super) fn command(query: &str, body: &[u8]) -> Result<ApiCommand, ApiRefusal> {
    let fields = form_urlencoded::parse(body).chain(form_urlencoded::parse(query.as_bytes()));
    let mut given = Given::default();
    for (name, value) in fields {
        let known = PARAMETERS.iter().any(|(known, _)| *known == name) || name == "cmd";
        if !known {
            return Err(bad(format!("unknown parameter: {name}")));
        }
        // As in the older program, the form comes before the query.
        given.0.entry(name.into_owned()).or_insert(value.into_owned());
    }
    let cmd = given.0.remove("cmd").ok_or_else(|| bad("missing cmd".to_owned()))?;
    for (name, of) in PARAMETERS {
        if given.0.contains_key(name) && !of.contains(&cmd.as_str()) {
            return Err(bad(format!("{name} is for cmd={}", of.join(" and cmd="))));
        }
    }
    Ok(match cmd.as_str() {
        "pause" => {
            ApiCommand::Pause { wait: given.flag("wait", false)?, ttl: given.duration("ttl_ms")? }
        }
        "unpause" => ApiCommand::Unpause,
        "reload" => ApiCommand::Reload {
            dry_run: given.flag("dry_run", false)?,
            force: given.flag("force", false)?,
        },
        "switch" => {
            ApiCommand::Switch { dry_run: given.flag("dry_run", false)?, options: given.options()? }
        }
        "failover" => {
            let options = given.options()?;
            let to = SwitchTo::Replica(options.to.address().cloned());
            let options = SwitchOptions { to, prepared: true, ..options };
            ApiCommand::Switch { dry_run: given.flag("dry_run", false)?, options }
        }
        "cancel-switch" => ApiCommand::CancelSwitch,
        "terminate-raw-connections" => ApiCommand::TerminateRawConnections,
        "close-unauthorized-clients" => ApiCommand::CloseUnauthorizedClients,
        _ => return Err(bad(format!("unknown cmd: {cmd}"))),
    })
}

/// Parameters, by their names.
#[derive(Default)]
struct Given(BTreeMap<String, String>);

impl Given {
    fn flag(&self, name: &str, default: bool) -> Result<bool, ApiRefusal> {
        match self.0.get(name).map(String::as_str) {
            None => Ok(default),
            Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(format!("{name}: expected true or false"))),
        }
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>, ApiRefusal> {
        match self.0.get(name).map(|value| value.parse()) {
            None => Ok(None),
            Some(Ok(ms @ 1..)) => Ok(Some(Duration::from_millis(ms))),
            Some(_) => Err(bad(format!("{name}: expected a whole number, at least 1"))),
        }
    }

    fn options(&self) -> Result<SwitchOptions, ApiRefusal> {
        let default = SwitchOptions::default();
        let server = |name: &str| {
            let given = self.0.get(name).map(|addr| Address::server(addr)).transpose();
            given.map_err(|why| bad(format!("{name}: {why}")))
        };
        Ok(SwitchOptions {
            timeout: self.duration("timeout_ms")?.unwrap_or(default.timeout),
            pause_limit: self.duration("pause_limit_ms")?,
            to: server("to")?.map_or(SwitchTo::File, SwitchTo::Address),
            prepared: self.flag("prepared", default.prepared)?,
            replicate_from: server("replicate_from")?,
            fence: self.flag("fence", default.fence)?,
            copy_settings: match self.0.get("settings").map(String::as_str) {
                None => default.copy_settings,
                Some("copy") => true,
                Some(_) => return Err(bad("settings: expected copy".to_owned())),
            },
            force: self.flag("force", default.force)?,
            force_clients: self.flag("force_clients", default.force_clients)?,
        })
    }
}

fn bad(text: String) -> ApiRefusal {
    ApiRefusal::new(StatusCode::BAD_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let parsed = |(name, value): &(&'static str, &str)| {
            (name.parse().expect("a header's name"), value.parse().expect("a header's value"))
        };
        list.iter().map(parsed).collect()
    }

    #[test]
    fn commands_come_in_the_form_or_in_the_query() {
        let pause = ApiCommand::Pause { wait: false, ttl: None };
        assert_eq!(command("", b"cmd=pause"), Ok(pause.clone()));
        assert_eq!(command("cmd=pause", b""), Ok(pause.clone()));
        assert_eq!(command("cmd=unpause", b"cmd=pause"), Ok(pause), "the form counts");
        assert_eq!(
            command("", b"cmd=reload&dry_run=true"),
            Ok(ApiCommand::Reload { dry_run: true, force: false })
        );
        let ttl = Some(Duration::from_millis(1500));
        assert_eq!(
            command("wait=true", b"cmd=pause&ttl_ms=1500"),
            Ok(ApiCommand::Pause { wait: true, ttl })
        );
        assert_eq!(
            command(
                "",
                b"cmd=switch&replicate_from=db:6379&fence=false&settings=copy&pause_limit_ms=50"
            ),
            Ok(ApiCommand::Switch {
                dry_run: false,
                options: SwitchOptions {
                    replicate_from: Some(Address::Tcp { host: "db".to_owned(), port: 6379 }),
                    fence: false,
                    copy_settings: true,
                    pause_limit: Some(Duration::from_millis(50)),
                    ..SwitchOptions::default()
                }
            })
        );
        assert_eq!(
            command("", b"cmd=terminate-raw-connections"),
            Ok(ApiCommand::TerminateRawConnections)
        );
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_reason() {
        for (body, why) in [
            ("", "missing cmd"),
            ("pause", "unknown parameter: pause"),
            ("cmd=stop", "unknown cmd: stop"),
            ("cmd=pause&tll_ms=5", "unknown parameter: tll_ms"),
            ("cmd=pause&ttl_ms=0", "ttl_ms: expected a whole number, at least 1"),
            ("cmd=pause&ttl_ms=1s", "ttl_ms: expected a whole number, at least 1"),
            ("cmd=pause&wait=yes", "wait: expected true or false"),
            ("cmd=reload&wait=true", "wait is for cmd=pause"),
            ("cmd=pause&dry_run=true", "dry_run is for cmd=reload and cmd=switch and cmd=failover"),
            ("cmd=pause&force=true", "force is for cmd=reload and cmd=switch and cmd=failover"),
            ("cmd=reload&force_clients=true", "force_clients is for cmd=switch and cmd=failover"),
            ("cmd=switch&timeout_ms=soon", "timeout_ms: expected a whole number, at least 1"),
            ("cmd=switch&replicate_from=a", "replicate_from: expected host:port"),
            ("cmd=switch&replicate_from=a:0", "replicate_from: expected a port"),
            ("cmd=switch&replicate_from=:6379", "replicate_from: expected a host, too"),
            ("cmd=switch&to=a", "to: expected host:port"),
            ("cmd=failover&prepared=true", "prepared is for cmd=switch"),
            ("cmd=reload&to=a:1", "to is for cmd=switch and cmd=failover"),
            ("cmd=switch&settings=keep", "settings: expected copy"),
            ("cmd=reload&dry_run=1", "dry_run: expected true or false"),
        ] {
            let refusal = command("", body.as_bytes()).expect_err(body);
            assert_eq!((refusal.status, refusal.text.as_str()), (StatusCode::BAD_REQUEST, why));
        }
    }

    #[test]
    fn the_password_comes_as_basic_or_bearer() {
        let login = Login { user: None, pass: "se:cret".into() };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (value, right) in [
            (basic("anybody:se:cret"), true),
            (basic(":se:cret"), true),
            (basic("se:cret"), false),
            (basic("anybody:se:cre"), false),
            ("bearer se:cret".to_owned(), true),
            ("Bearer se:cre".to_owned(), false),
            ("Digest se:cret".to_owned(), false),
            ("se:cret".to_owned(), false),
        ] {
            let headers = headers(&[("authorization", &value)]);
            assert_eq!(is_authorized(&headers, Some(&login)), right, "{value}");
        }
        assert!(!is_authorized(&HeaderMap::new(), Some(&login)));
        assert!(is_authorized(&HeaderMap::new(), None));
    }

    #[test]
    fn paths_and_methods_are_told_apart() {
        assert_eq!(route(&Method::GET, "/metrics/"), Ok(ApiRoute::Metrics));
        assert_eq!(route(&Method::HEAD, "/info.json"), Ok(ApiRoute::Info));
        assert_eq!(route(&Method::POST, "/cmd"), Ok(ApiRoute::Command));
        let refusal = route(&Method::GET, "/cmd/").expect_err("a GET changes nothing");
        assert_eq!(refusal.allow, Some("POST"));
        let refusal = route(&Method::DELETE, "/").expect_err("there is nothing to delete");
        assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        let refusal = route(&Method::GET, "/cmd/x").expect_err("no such path");
        assert_eq!(refusal.status, StatusCode::NOT_FOUND);
    }
}
