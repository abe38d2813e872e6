//! A bounded number of callers. Nobody can lock the others out by keeping a connection: whoever
//! waits between two requests makes room for the next caller, and before them whoever has not shown
//! that it may ask anything.

use std::sync::Arc;
use std::time::Duration;

use crate::crowd::{Crowd, Guest};

/// How long a caller may take to send its request's head, counted from its last answer, and its body.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The callers that are connected now.
#[derive(Debug)]
pub(super) struct Callers {
    most: usize,
    crowd: Arc<Crowd<Standing>>,
}

/// Who makes room: the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Standing {
    /// The caller has asked nothing but what anybody may ask.
    #[default]
    Stranger,
    /// The caller was answered something that not everybody may ask.
    Known,
    /// A command of the caller is running. The caller keeps its place.
    Commands,
}

/// One caller's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Caller(Guest<Standing>);

/// A command is running for as long as this lives.
#[derive(Debug)]
pub(super) struct Commanding<'a>(&'a Caller);

impl Callers {
    /// Room for so many callers.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Callers { most, crowd: Arc::default() })
    }

    /// A place for one caller more. If there is none, the first caller that may be sent away makes room;
    /// `None` if there is no such caller.
    pub(super) fn enter(&self) -> Option<Caller> {
        self.crowd.enter_among(self.most, |rank| rank != Standing::Commands).map(Caller)
    }
}

impl Caller {
    /// Notes that the caller was answered something that not everybody may ask.
    pub(super) fn is_known(&self) {
        self.0.rank(Standing::Known);
    }

    /// Notes that a command of the caller begins.
    pub(super) fn commands(&self) -> Commanding<'_> {
        self.0.rank(Standing::Commands);
        Commanding(self)
    }

    /// Completes when its place is needed for another. Cancel safe.
    pub(super) async fn sent_away(&self) {
        self.0.sent_away().await;
    }
}

impl Drop for Commanding<'_> {
    fn drop(&mut self) {
        self.0.is_known();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn is_sent_away(caller: &Caller) -> bool {
        caller.sent_away().now_or_never().is_some()
    }

    #[test]
    fn strangers_make_room_before_callers_that_were_answered() {
        let callers = Callers::new(2);
        let [stranger, known] = [(); 2].map(|()| callers.enter().expect("room"));
        known.is_known();
        let _next = callers.enter().expect("room");
        assert!(is_sent_away(&stranger) && !is_sent_away(&known));
    }

    #[test]
    fn a_caller_with_a_command_keeps_its_place() {
        let callers = Callers::new(2);
        let [one, two] = [(); 2].map(|()| callers.enter().expect("room"));
        let (commanding, _other) = (one.commands(), two.commands());
        assert!(callers.enter().is_none(), "commands are running");
        drop(commanding);
        let _next = callers.enter().expect("room");
        assert!(is_sent_away(&one) && !is_sent_away(&two));
    }
}
