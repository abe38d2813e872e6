//! Whether the uplink answers. It is asked when somebody wants to know: by one connection for all
//! who do, at most once in an interval, and to the end, whether or not they still wait for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::config::Fault;
use crate::shared::Shared;

/// Between an answer and the next question.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer is worth telling, where nobody asks again.
const GOOD_FOR: Duration = Duration::from_secs(5);

/// Asks the uplink in force.
pub(super) struct Probe {
    shared: Arc<Shared>,
    state: watch::Sender<ProbeState>,
}

#[derive(Default)]
struct ProbeState {
    asked: Option<ProbeQuestion>,
    known: Option<ProbeAnswer>,
}

#[derive(Clone, Copy)]
pub(super) struct ProbeQuestion {
    number: u64,
    /// The generation that put the uplink in force.
    uplink: u64,
    at: Instant,
}

struct ProbeAnswer {
    to: ProbeQuestion,
    at: Instant,
    result: Result<(), String>,
}

/// What is known without a question to the uplink.
#[derive(Debug)]
pub(super) struct Look {
    /// `None`: nobody has asked lately, or the answer has not come yet.
    pub(super) is_up: Option<bool>,
    /// Why the uplink is not up, or not known to be; empty where there is nothing to be said.
    pub(super) why: String,
}

impl ProbeState {
    /// The last question, while its answer has not come.
    fn pending(&self) -> Option<ProbeQuestion> {
        self.asked.filter(|asked| !self.has_answer(asked))
    }

    /// Whether an answer to this question has come, or to a later one.
    fn has_answer(&self, question: &ProbeQuestion) -> bool {
        self.known.as_ref().is_some_and(|known| known.to.number >= question.number)
    }

    /// The last question, if another one would tell no more.
    fn good_enough(&self, uplink: u64) -> Option<ProbeQuestion> {
        let is_new = |known: &ProbeAnswer| known.at.elapsed() < EVERY;
        let asked = self.asked.filter(|asked| asked.uplink == uplink)?;
        let is_good = self.pending().is_some() || self.known.as_ref().is_some_and(is_new);
        is_good.then_some(asked)
    }
}

impl Probe {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Probe { shared, state: watch::Sender::default() })
    }

    /// What the uplink answers, or why it does not; within `connect_time_limit_ms`. Cancel safe.
    pub(super) async fn answer(self: &Arc<Self>) -> Result<(), String> {
        let mut states = self.state.subscribe();
        let question = self.ask();
        let answered = states.wait_for(|state| state.has_answer(&question)).await;
        let known =
            answered.ok().and_then(|state| state.known.as_ref().map(|it| it.result.clone()));
        // The sender lives as long as this does.
        known.unwrap_or_else(|| Err("it was not asked".to_owned()))
    }

    /// Asks, unless the last question is good enough, and waits for nothing.
    pub(super) fn ask(self: &Arc<Self>) -> ProbeQuestion {
        let generation = self.shared.current.load();
        let uplink = generation.uplink_since;
        let mut is_new = false;
        let mut question = ProbeQuestion { number: 1, uplink, at: Instant::now() };
        self.state.send_if_modified(|state| {
            match (state.good_enough(uplink), state.asked) {
                (Some(last), _) => question = last,
                (None, last) => {
                    question.number = last.map_or(1, |last| last.number + 1);
                    state.asked = Some(question);
                    is_new = true;
                }
            }
            // Only answers are waited for.
            false
        });
        if is_new {
            // A task of its own: those who wait hear of its panic, too.
            let verifying = tokio::spawn(async move { generation.uplink.verify().await });
            tokio::spawn(self.clone().hear(question, verifying));
        }
        question
    }

    async fn hear(
        self: Arc<Self>,
        question: ProbeQuestion,
        verifying: JoinHandle<Result<(), Fault>>,
    ) {
        let result = match verifying.await {
            Ok(verified) => verified.map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        self.state.send_if_modified(|state| {
            // An answer of an uplink that was replaced may be late.
            let is_last = !state.has_answer(&question);
            if is_last {
                let before = state.known.as_ref().map(|known| known.result.is_ok());
                log(before, &result);
                state.known = Some(ProbeAnswer { to: question, at: Instant::now(), result });
            }
            is_last
        });
    }

    /// What is known, without asking.
    pub(super) fn look(&self) -> Look {
        let state = self.state.borrow();
        let uplink = self.shared.current.load().uplink_since;
        let pending = state.pending().filter(|it| it.uplink == uplink).map(|it| it.at.elapsed());
        let known = state.known.as_ref().filter(|known| {
            known.to.uplink == uplink && (pending.is_some() || known.at.elapsed() < GOOD_FOR)
        });
        match (known.map(|known| &known.result), pending) {
            (Some(Err(why)), _) => Look { is_up: Some(false), why: why.clone() },
            (_, Some(since)) if since > EVERY => {
                let why = format!("no answer yet, for {:.1} s", since.as_secs_f64());
                Look { is_up: None, why }
            }
            (Some(Ok(())), _) => Look { is_up: Some(true), why: String::new() },
            (None, _) => Look { is_up: None, why: String::new() },
        }
    }
}

/// Logs whether the uplink answers, if that has changed.
fn log(was_up: Option<bool>, result: &Result<(), String>) {
    match (was_up, result) {
        (None | Some(true), Err(why)) => warn!(why, "the uplink does not answer"),
        (Some(false), Ok(())) => info!("the uplink answers again"),
        (Some(false), Err(_)) | (None | Some(true), Ok(())) => {}
    }
}
