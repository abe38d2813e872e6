//! What an answer of the API comes to: what is said in the end, and the exit code.

use hyper::StatusCode;

use super::api::{Preflight, SwitchRecord};
use super::http::ApiAnswer;
use super::render;
use crate::cli::PASSWORD;
use crate::exit::Exit;

/// What is to be said in the end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) exit: Exit,
    /// The answer for scripts.
    pub(super) json: String,
    /// The answer for people.
    pub(super) lines: Vec<String>,
    /// Lines for standard error.
    pub(super) errors: Vec<String>,
}

impl Ended {
    /// The end of a command by the API's answer; `lines` are said if the answer is yes.
    pub(super) fn of(
        answer: ApiAnswer,
        lines: impl FnOnce(&serde_json::Value) -> Vec<String>,
    ) -> Self {
        let exit = exit(&answer);
        let lines = if exit == Exit::Done { lines(&answer.json) } else { Vec::new() };
        Ended { exit, errors: errors(&answer), json: answer.body, lines }
    }

    /// The end of a switch, or of its rehearsal, by the answer. If the proxy runs `here`, its configuration file is
    /// here, too: what it may not write there, this program may.
    pub(super) fn of_switch(answer: ApiAnswer, here: bool) -> Self {
        let mut lines = Preflight::of(&answer.json).map_or_else(Vec::new, |it| render::table(&it));
        let mut record = answer.json.get("switch").and_then(SwitchRecord::of);
        if here && let Some(record) = &mut record {
            record.name_uplink();
        }
        lines.extend(record.iter().flat_map(render::summary));
        let mut errors = errors(&answer);
        if record.is_some_and(|record| !record.faults.is_empty()) {
            // They are in the summary, one by one.
            errors = answer.error().into_iter().collect();
        }
        Ended { exit: exit(&answer), json: answer.body, lines, errors }
    }
}

/// Each fault on a line of its own, if there are any; the error is nothing but the faults in a line.
fn errors(answer: &ApiAnswer) -> Vec<String> {
    if answer.status == StatusCode::UNAUTHORIZED {
        return vec![format!(
            "no or wrong password: give it with --pass-file, {}, or in the configuration file",
            PASSWORD
        )];
    }
    match answer.faults() {
        faults if faults.is_empty() => answer.error().into_iter().collect(),
        faults => faults,
    }
}

fn exit(answer: &ApiAnswer) -> Exit {
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
