//! How far the client's requests were read.

use std::time::{Duration, Instant};

use super::tap::Secrecy;
use super::turn::Turn;
use crate::clock;
use crate::command::{Brought, Class};
use crate::gate::{GateShut, Waiting};
use crate::resp::Args;
use crate::resp::request::{Limits, Scanner};
use crate::scripts::Coming;

/// How long the rest of a request may stay out before the client is given up.
pub(super) const GIVEN_UP: Duration = Duration::from_secs(60);
/// A request that takes longer than that must have come at this many bytes a second.
const SLOWEST: u64 = 1024;

/// How far the client's requests were read, and what they change.
pub(super) struct Intake {
    pub(super) scanner: Scanner,
    /// What becomes of the present request.
    pub(super) route: Route,
    /// The beginning of a request of which nothing has gone up.
    pub(super) held: Vec<u8>,
    /// Memory reserved for the long script that is being received.
    pub(super) long_script: Option<Coming>,
    /// Where no more could be taken in.
    pub(super) parked: Option<Box<Parked>>,
    /// Nothing more is taken in before all is answered.
    pub(super) awaits_reply: bool,
    /// What of the present request is for the log.
    pub(super) secrecy: Secrecy,
    /// Something was read.
    pub(super) begun: bool,
    /// The request of which only a part has come.
    pub(super) arriving: Option<Arriving>,
    /// The client has sent no more than was read.
    pub(super) is_dry: bool,
    /// The pass of a request that goes up as it comes was given back, for its client sends no more.
    pub(super) stalled: bool,
    /// Requests admitted from the present input.
    pub(super) admitted: u32,
    /// When the present input was read.
    pub(super) arrived: Instant,
    /// Reads left in this turn.
    pub(super) turn: Turn,
}

impl Intake {
    pub(super) fn new(authenticated: bool) -> Self {
        Intake {
            scanner: Scanner::new(limits(authenticated)),
            route: Route::None,
            held: Vec::new(),
            long_script: None,
            parked: None,
            awaits_reply: false,
            secrecy: Secrecy::All,
            begun: false,
            arriving: None,
            is_dry: false,
            stalled: false,
            admitted: 0,
            arrived: clock::now(),
            turn: Turn::default(),
        }
    }

    /// Some of a request has gone up, and its end was not read yet.
    pub(super) fn is_incomplete(&self) -> bool {
        self.route == Route::Stream && self.scanner.in_frame()
    }

    /// Counts `bytes` that came at `now`; `was_arriving` says that they continue an earlier request.
    pub(super) fn note_arriving(&mut self, was_arriving: bool, bytes: usize, now: Instant) {
        if !self.scanner.in_frame() {
            self.arriving = None;
            return;
        }
        // One that begins behind another does not begin with the input.
        let before = self.arriving.filter(|_| was_arriving && self.scanner.frame_start() == 0);
        let mut arriving = before.unwrap_or(Arriving { since: now, bytes: 0 });
        arriving.bytes += bytes as u64;
        self.arriving = Some(arriving);
    }

    /// Since when the client owes the rest of a request is for the caller to know.
    pub(super) fn awaits_rest(&self) -> bool {
        self.is_dry && self.scanner.in_frame() && self.parked.is_none()
    }

    /// Whether the first argument of the request that is held is like this.
    pub(super) fn begins_with(&self, like: fn(&[u8]) -> bool) -> bool {
        Args::new(&self.held).nth(1).is_some_and(like)
    }

    /// The request that is held brings a script that has not come yet.
    pub(super) fn awaits_script(&self, class: Class) -> bool {
        Brought::by(class, Args::new(&self.held)) == Some(Brought::Coming)
    }

    pub(super) fn set_limits(&mut self, authenticated: bool) {
        self.scanner.set_limits(limits(authenticated));
    }
}

fn limits(authenticated: bool) -> Limits {
    if authenticated { Limits::FULL } else { Limits::UNAUTHENTICATED }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Not known yet.
    None,
    /// Held until it is complete, with its class and argument count. As the answer of `head`: its arguments
    /// are to be inspected.
    Held(Class, u32),
    /// It is here, and goes up.
    Forward,
    /// It goes up as it comes.
    Stream,
    /// Skipped; the verdict is applied at its end.
    Discard(Verdict),
}

/// Why a request is not taken in yet. It is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotYet {
    /// The gate is shut, or the session is to move first.
    GateShut,
    /// What becomes of it depends on replies that are still owed.
    RepliesOwed,
}

impl From<GateShut> for NotYet {
    fn from(GateShut: GateShut) -> Self {
        NotYet::GateShut
    }
}

/// What happens at the end of a request that does not go up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An error reply.
    Refuse(&'static str),
    /// As an error while queueing, which makes EXEC fail: the uplink is made to see one.
    RefuseInMulti(&'static str),
    /// EXEC of a transaction that must fail.
    Touched,
    /// It was refused before.
    Refused,
    Quit,
    /// Closed without a word.
    Http,
}

/// What parked input waits for.
pub(super) enum Waits {
    /// The gate.
    Gate(Waiting),
    /// Replies to what is before it.
    Reply,
}

/// Input that waits.
pub(super) struct Parked {
    pub(super) waits: Waits,
    pub(super) since: Instant,
    /// What was read and not taken in.
    pub(super) input: Vec<u8>,
}

/// A request of which only a part has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arriving {
    /// When its first byte came.
    pub(super) since: Instant,
    /// Bytes that have come since then.
    pub(super) bytes: u64,
}

impl Arriving {
    /// When its client is given up, however it goes on.
    pub(super) fn until(self) -> Instant {
        self.since + GIVEN_UP + Duration::from_secs(self.bytes / SLOWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_too_slowly_is_given_up_however_it_goes_on() {
        let since = Instant::now();
        let seconds = |bytes| (Arriving { since, bytes }.until() - since).as_secs();
        // A byte every few seconds is no excuse; what comes as fast as a modem's may take its time.
        assert_eq!(seconds(20), 60);
        assert_eq!(seconds(512 * 1024 * 1024), 60 + 512 * 1024);
    }
}
