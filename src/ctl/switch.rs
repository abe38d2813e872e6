//! `ctl switch`: one connection waits for the answer, another looks how far it is.
//!
//! A switch may take an hour, and a connection may be lost in that time. The switch goes on then,
//! and what came of it is found where the proxy remembers it.

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api::{ProxyInfo, SwitchRecord};
use super::display::Display;
use super::ended::Ended;
use super::endpoint::ApiEndpoint;
use super::error::Error;
use super::http::{ApiAnswer, Line};
use crate::cli::{Failover, Switch};
use crate::config::Address;
use crate::signal::Signals;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);
/// How long the API may be out of reach, once the connection with the answer is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many looks that find nothing make sure that there is nothing.
const LOOKS: u32 = 5;

/// Switches, and tells how far that is, unless `silent`.
pub(super) async fn run(
    endpoint: &ApiEndpoint,
    asked: Asked,
    silent: bool,
) -> Result<Ended, Error> {
    let Asked { fields, dry_run } = asked;
    if dry_run {
        let answer = Line::connect(endpoint).await?.post(&fields, None).await?;
        return Ok(Ended::of_switch(answer, endpoint.is_here()));
    }
    let mut line = Line::new(endpoint);
    let answer = line.info().await?;
    if answer.status != StatusCode::OK {
        return Ok(Ended::of(answer, |_| Vec::new()));
    }
    let mut watch = SwitchWatch {
        before: Before::of(&answer.json),
        display: Display::new(silent),
        lost: None,
        seen: Instant::now(),
        in_vain: 0,
    };
    let post = Line::connect(endpoint).await?;
    // From here on, an interruption leaves a switch behind.
    let mut signals = Signals::new()?;
    let mut answer = pin!(post.post(&fields, None));
    let mut looks = pin!(stream::unfold(line, |mut line| async move {
        sleep(EVERY).await;
        Some((line.info().await, line))
    }));
    let ended = loop {
        tokio::select! {
            biased;
            _ = signals.next() => break Err(interrupted()),
            answer = &mut answer, if watch.lost.is_none() => match answer {
                Ok(answer) => break Ok(answer),
                Err(why) => {
                    watch.lost = Some(why);
                    watch.seen = Instant::now();
                }
            },
            Some(looked) = looks.next() => if let Some(end) = watch.looked(looked) {
                break end;
            },
        }
    };
    let record = ended.as_ref().ok().and_then(|answer| SwitchRecord::of(&answer.json["switch"]));
    watch.display.end(record.as_ref());
    ended.map(|answer| Ended::of_switch(answer, endpoint.is_here()))
}

/// What the proxy is asked for.
pub(super) struct Asked {
    fields: Vec<(&'static str, String)>,
    dry_run: bool,
}

impl From<&Switch> for Asked {
    fn from(it: &Switch) -> Self {
        let mut asked = Asked::new("switch", it.to.as_ref(), it.timeout_ms, it.pause_limit_ms);
        let from = it.replicate_from.iter().map(|at| ("replicate_from", at.to_string()));
        asked.fields.extend(from);
        asked.fields.extend(it.settings.iter().map(|how| ("settings", how.clone())));
        asked.flag(it.prepared, "prepared", "true");
        asked.flag(it.no_fence, "fence", "false");
        asked.flag(it.force, "force", "true");
        asked.flag(it.force_clients, "force_clients", "true");
        asked.dry_run(it.dry_run)
    }
}

impl From<&Failover> for Asked {
    fn from(it: &Failover) -> Self {
        let mut asked = Asked::new("failover", it.to.as_ref(), it.timeout_ms, it.pause_limit_ms);
        asked.flag(it.no_fence, "fence", "false");
        asked.flag(it.force, "force", "true");
        asked.flag(it.force_clients, "force_clients", "true");
        asked.dry_run(it.dry_run)
    }
}

impl Asked {
    /// What a switch and a failover have in common.
    fn new(
        cmd: &str,
        to: Option<&Address>,
        timeout_ms: Option<u64>,
        pause_limit_ms: Option<u64>,
    ) -> Self {
        let mut fields = vec![("cmd", cmd.to_owned())];
        fields.extend(timeout_ms.map(|ms| ("timeout_ms", ms.to_string())));
        fields.extend(pause_limit_ms.map(|ms| ("pause_limit_ms", ms.to_string())));
        fields.extend(to.map(|at| ("to", at.to_string())));
        Asked { fields, dry_run: false }
    }

    fn flag(&mut self, given: bool, name: &'static str, value: &str) {
        self.fields.extend(given.then(|| (name, value.to_owned())));
    }

    fn dry_run(mut self, dry_run: bool) -> Self {
        self.flag(dry_run, "dry_run", "true");
        Asked { dry_run, ..self }
    }
}

fn interrupted() -> Error {
    let goes_on =
        "interrupted, but the switch goes on: `redis-proxy ctl status` shows how far it is";
    Error::Interrupted(format!("{goes_on}, `redis-proxy ctl cancel-switch` cancels it"))
}

/// What is known of a switch whose answer is waited for.
struct SwitchWatch {
    before: Before,
    display: Display,
    /// Why the answer will not come.
    lost: Option<Error>,
    /// When there was a look that succeeded.
    seen: Instant,
    /// Looks without the answer that found nothing.
    in_vain: u32,
}

impl SwitchWatch {
    /// Notes what a look has shown. Gives the end of the wait; `None` while the answer may come.
    fn looked(&mut self, looked: Result<ApiAnswer, Error>) -> Option<Result<ApiAnswer, Error>> {
        let state = looked.and_then(|answer| match answer.error() {
            Some(why) => Err(Error::Unknown(why)),
            None => ProxyInfo::of(&answer.json).map_err(|why| Error::Unknown(why.to_string())),
        });
        let info = match (state, &self.lost) {
            (Ok(info), _) => info,
            (Err(_), None) => return None,
            (Err(_), Some(_)) if self.seen.elapsed() < PATIENCE => return None,
            (Err(why), Some(_)) => {
                let goes_on = "the switch may go on, `redis-proxy ctl status` tells";
                return Some(Err(Error::Unreachable(format!("{why}; {goes_on}"))));
            }
        };
        self.seen = Instant::now();
        if let Some(switching) = &info.switching {
            self.display.update(switching);
        }
        let lost = self.lost.as_ref()?;
        match self.before.compare(&info) {
            SwitchOutcome::Running => {
                self.in_vain = 0;
                None
            }
            SwitchOutcome::Ended(record) => Some(Ok(answer(record))),
            SwitchOutcome::Restarted => Some(Err(Error::Unreachable(format!(
                "{lost}; the proxy was started again meanwhile, and does not know what came of the \
                 switch"
            )))),
            SwitchOutcome::Nothing => {
                self.in_vain += 1;
                let text = || format!("{lost}; the proxy knows of no switch since");
                (self.in_vain >= LOOKS).then(|| Err(Error::Unreachable(text())))
            }
        }
    }
}

/// What the API would have answered.
fn answer(record: Value) -> ApiAnswer {
    let read = SwitchRecord::of(&record).unwrap_or_default();
    let (status, error) = match read.result.as_str() {
        "done" => (StatusCode::OK, None),
        "refused" => (StatusCode::BAD_REQUEST, Some(read.reason)),
        "rolled back" => (StatusCode::SERVICE_UNAVAILABLE, Some(read.reason)),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, Some(read.reason)),
    };
    let json = match error {
        None => json!({ "ok": true, "switch": record }),
        Some(error) => json!({ "ok": false, "error": error, "switch": record }),
    };
    ApiAnswer { status, body: json.to_string(), json }
}

/// What was there before the switch.
#[derive(Debug)]
struct Before {
    uptime: f64,
    /// The switch that was the last to end.
    last: Option<Value>,
    /// Another switch was running.
    busy: bool,
}

#[derive(Debug, PartialEq)]
enum SwitchOutcome {
    Running,
    Ended(Value),
    Restarted,
    Nothing,
}

impl Before {
    fn of(info: &Value) -> Self {
        Before {
            uptime: info["uptime_seconds"].as_f64().unwrap_or(0.0),
            last: info["switches"].get(0).cloned(),
            busy: !info["switching"].is_null(),
        }
    }

    /// Finds the switch that began since. By its place, not by its time: this machine's clock need
    /// not be the proxy's.
    fn compare(&self, now: &ProxyInfo) -> SwitchOutcome {
        if now.uptime_seconds < self.uptime {
            return SwitchOutcome::Restarted;
        }
        let is_new = |record: &&Value| Some(*record) != self.last.as_ref();
        let since: Vec<&Value> = now.switches.iter().take_while(is_new).collect();
        // The oldest: somebody may have begun another one since.
        let own = since.iter().rev().nth(usize::from(self.busy));
        match (own, &now.switching) {
            (Some(record), _) => SwitchOutcome::Ended((*record).clone()),
            (None, Some(_)) => SwitchOutcome::Running,
            (None, None) => SwitchOutcome::Nothing,
        }
    }
}
