//! `redis-proxy ctl`: asks a running proxy for something through its admin API, and says what came
//! of it.
//!
//! What is asked for is answered once: on standard output in words or, for scripts, as the API's
//! own JSON document; what went wrong is on standard error, one thing a line; and the exit code
//! says which kind of end it was.

mod api;
mod display;
mod ended;
mod endpoint;
mod error;
mod http;
mod progress;
mod render;
mod switch;
mod units;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde_json::json;

use self::api::{Prediction, ProxyInfo};
use self::ended::Ended;
use self::endpoint::ApiEndpoint;
pub use self::endpoint::File;
pub use self::error::Error;
use self::http::{ApiAnswer, Line, TIME_LIMIT};
use crate::cli::{Action, Ctl};
use crate::exit::{Exit, say};

/// Carries out a command, and says what came of it.
pub async fn run(ctl: &Ctl, file: File<'_>) -> ExitCode {
    let ended = match ApiEndpoint::find(&ctl.connection, file) {
        Ok(endpoint) => carry_out(ctl, &endpoint).await,
        Err(why) => Err(why),
    };
    let ended = ended.unwrap_or_else(|why| Ended {
        exit: Exit::from(&why),
        json: json!({ "ok": false, "error": why.to_string() }).to_string(),
        lines: Vec::new(),
        errors: match why {
            Error::Configuration(faults) => faults,
            why => vec![why.to_string()],
        },
    });
    match ctl.json {
        true => say(&mut io::stdout(), &ended.json),
        false => {
            let lines = ended.lines.iter().map(|line| render::in_options(line));
            lines.for_each(|line| say(&mut io::stdout(), &line));
        }
    }
    let errors = ended.errors.iter().map(|line| render::in_options(line));
    errors.for_each(|line| say(&mut io::stderr(), &line));
    ended.exit.into()
}

async fn carry_out(ctl: &Ctl, endpoint: &ApiEndpoint) -> Result<Ended, Error> {
    let ask = async |fields: &[(&str, String)], limit| {
        Line::connect(endpoint).await?.post(fields, limit).await
    };
    let cmd = |name: &str| ("cmd", name.to_owned());
    match &ctl.action {
        Action::Status => {
            let mut line = Line::connect(endpoint).await?;
            line.probe().await;
            status(line.info().await?)
        }
        Action::Pause(pause) => {
            let mut fields = vec![cmd("pause")];
            fields.extend(pause.wait.then(|| ("wait", "true".to_owned())));
            fields.extend(pause.ttl_ms.map(|ms| ("ttl_ms", ms.to_string())));
            let limit = (!pause.wait).then_some(TIME_LIMIT);
            let said = if pause.wait { "paused: no request runs" } else { "new requests are held" };
            let said = match pause.ttl_ms {
                Some(ms) => format!("{said}, for {} at most", units::time(ms as f64)),
                None => said.to_owned(),
            };
            Ok(Ended::of(ask(&fields, limit).await?, |_| vec![said]))
        }
        Action::Unpause => {
            let answer = ask(&[cmd("unpause")], Some(TIME_LIMIT)).await?;
            Ok(Ended::of(answer, |_| vec!["requests pass".to_owned()]))
        }
        Action::Reload(reload) => {
            let mut fields = vec![cmd("reload")];
            let flags = [("dry_run", reload.dry_run), ("force", reload.force)];
            let given = flags.into_iter().filter(|(_, given)| *given);
            fields.extend(given.map(|(name, _)| (name, "true".to_owned())));
            let answer = ask(&fields, None).await?;
            // Also where it would be cancelled.
            let lines = match (Prediction::of(&answer.json), answer.status) {
                (Some(prediction), _) => render::prediction(&prediction),
                (None, StatusCode::OK) => reloaded(endpoint).await,
                (None, _) => Vec::new(),
            };
            Ok(Ended { lines, ..Ended::of(answer, |_| Vec::new()) })
        }
        Action::Switch(asked) => switch::run(endpoint, asked.into(), ctl.json).await,
        Action::Failover(asked) => switch::run(endpoint, asked.into(), ctl.json).await,
        Action::CancelSwitch => {
            let answer = ask(&[cmd("cancel-switch")], None).await?;
            Ok(Ended::of(answer, |_| vec!["the switch is cancelled and rolled back".to_owned()]))
        }
        Action::TerminateRawConnections => {
            let answer = ask(&[cmd("terminate-raw-connections")], Some(TIME_LIMIT)).await?;
            Ok(Ended::of(answer, |_| vec!["raw connections are closed".to_owned()]))
        }
        Action::CloseUnauthorizedClients => {
            let answer = ask(&[cmd("close-unauthorized-clients")], None).await?;
            Ok(Ended::of(answer, |answer| vec![render::closed_unauthorized(answer)]))
        }
    }
}

fn status(answer: ApiAnswer) -> Result<Ended, Error> {
    if answer.status != StatusCode::OK {
        return Ok(Ended::of(answer, |_| Vec::new()));
    }
    let info = ProxyInfo::of(&answer.json)
        .map_err(|why| Error::Unknown(format!("info.json is not understood: {why}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let lines = render::status(&info, now.as_secs_f64());
    Ok(Ended { exit: Exit::Done, json: answer.body, lines, errors: Vec::new() })
}

/// What the reload did, if it can still be found out.
async fn reloaded(endpoint: &ApiEndpoint) -> Vec<String> {
    let info =
        Line::new(endpoint).info().await.ok().and_then(|answer| ProxyInfo::of(&answer.json).ok());
    let lines = info.and_then(|info| info.reloads.first().map(render::reload_lines));
    lines.unwrap_or_else(|| vec!["reloaded".to_owned()])
}
