//! `redis-proxy ctl`: asks a running proxy for something through its admin API, and says what came
//! of it.
//!
//! What is asked for is answered once: on standard output in words or, for scripts, as the API's
//! own JSON document; what went wrong is on standard error, one thing a line; and the exit code
//! says which kind of end it was.

mod api;
mod display;
mod endpoint;
mod http;
mod progress;
mod render;
mod switch;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde_json::json;

use self::api::{Info, Prediction, Preflight, Record};
use self::endpoint::Place;
use self::http::{Answer, Line, TIME_LIMIT};
use crate::cli::{Action, Ctl};
use crate::exit::{Exit, say};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something on the command line or in the environment means nothing.
    #[error("{0}")]
    Usage(String),
    /// What the command line or the configuration file says cannot be used; one thing each.
    #[error("{}", .0.join("; "))]
    Configuration(Vec<String>),
    /// The API is not there, or not any more.
    #[error("{0}")]
    Unreachable(String),
    /// It was interrupted.
    #[error("{0}")]
    Interrupted(String),
    /// The API says what it should not.
    #[error("{0}")]
    Unknown(String),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<&Error> for Exit {
    fn from(why: &Error) -> Self {
        match why {
            Error::Usage(_) => Exit::Usage,
            Error::Configuration(_) => Exit::Refused,
            Error::Unreachable(_) => Exit::Unavailable,
            Error::Interrupted(_) | Error::Unknown(_) | Error::System(_) => Exit::Failed,
        }
    }
}

/// What is to be said in the end.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    /// For scripts.
    json: String,
    /// For people.
    lines: Vec<String>,
    /// For standard error.
    errors: Vec<String>,
}

/// The configuration file, as far as it could be read.
#[derive(Debug)]
pub struct File<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// What it says.
    pub text: io::Result<String>,
}

/// Carries it out, and says what came of it.
pub async fn run(ctl: &Ctl, file: File<'_>) -> ExitCode {
    let ended = match Place::find(&ctl.connection, file) {
        Ok(place) => carry_out(ctl, &place).await,
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

async fn carry_out(ctl: &Ctl, place: &Place) -> Result<Ended, Error> {
    let ask = async |fields: &[(&str, String)], limit| {
        Line::connect(place).await?.post(fields, limit).await
    };
    let cmd = |name: &str| ("cmd", name.to_owned());
    match &ctl.action {
        Action::Status => {
            let mut line = Line::connect(place).await?;
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
                Some(ms) => format!("{said}, for {} at most", render::time(ms as f64)),
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
                (None, StatusCode::OK) => reloaded(place).await,
                (None, _) => Vec::new(),
            };
            Ok(Ended { lines, ..Ended::of(answer, |_| Vec::new()) })
        }
        Action::Switch(switch) => switch::run(place, switch, ctl.json).await,
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

fn status(answer: Answer) -> Result<Ended, Error> {
    if answer.status != StatusCode::OK {
        return Ok(Ended::of(answer, |_| Vec::new()));
    }
    let info = Info::of(&answer.json)
        .map_err(|why| Error::Unknown(format!("info.json is not understood: {why}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let lines = render::status(&info, now.as_secs_f64());
    Ok(Ended { exit: Exit::Done, json: answer.body, lines, errors: Vec::new() })
}

/// What the reload did, if it can still be found out.
async fn reloaded(place: &Place) -> Vec<String> {
    let info = Line::new(place).info().await.ok().and_then(|answer| Info::of(&answer.json).ok());
    let lines = info.and_then(|info| info.reloads.first().map(render::reload_lines));
    lines.unwrap_or_else(|| vec!["reloaded".to_owned()])
}

impl Ended {
    /// The API's answer; `lines` are for one that says yes.
    fn of(answer: Answer, lines: impl FnOnce(&serde_json::Value) -> Vec<String>) -> Self {
        let exit = exit(&answer);
        let lines = if exit == Exit::Done { lines(&answer.json) } else { Vec::new() };
        Ended { exit, errors: errors(&answer), json: answer.body, lines }
    }

    /// The answer to a switch, or to its rehearsal.
    fn of_switch(answer: Answer) -> Self {
        let mut lines = Preflight::of(&answer.json).map_or_else(Vec::new, |it| render::table(&it));
        let record = answer.json.get("switch").and_then(Record::of);
        lines.extend(record.iter().flat_map(render::summary));
        let mut errors = errors(&answer);
        if record.is_some_and(|record| !record.faults.is_empty()) {
            // They are in the summary, one by one.
            errors = answer.error().into_iter().collect();
        }
        Ended { exit: exit(&answer), json: answer.body, lines, errors }
    }
}

/// Each fault, if there are any, for the error is nothing but these in a line.
fn errors(answer: &Answer) -> Vec<String> {
    if answer.status == StatusCode::UNAUTHORIZED {
        return vec![format!(
            "no or wrong password: give it with --pass-file, {}, or in the configuration file",
            crate::cli::PASSWORD
        )];
    }
    match answer.faults() {
        faults if faults.is_empty() => answer.error().into_iter().collect(),
        faults => faults,
    }
}

fn exit(answer: &Answer) -> Exit {
    match answer.status {
        StatusCode::OK if answer.error().is_none() => Exit::Done,
        StatusCode::UNAUTHORIZED => Exit::Denied,
        // Without these, it is the request that was wrong: the proxy is of another version.
        StatusCode::BAD_REQUEST
            if !answer.faults().is_empty()
                || ["preflight", "switch"].iter().any(|it| !answer.json[it].is_null()) =>
        {
            Exit::Refused
        }
        StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE => Exit::NotNow,
        _ => Exit::Failed,
    }
}
