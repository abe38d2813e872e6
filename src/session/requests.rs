//! Client -> uplink: requests are told apart, admitted, and sent on.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::blocking::{Blocked, Ticket, UNBLOCKED, Unblocked};
use super::close::Reason;
use super::commands::{Route, Silence};
use super::replay::OneShot;
use super::tap::Secrecy;
use super::transaction::Transaction;
use super::{Session, poll_read};
use crate::command::{self, Class};
use crate::gate::Waiting;
use crate::resp::request::{self, Limits, Scanner, Step};
use crate::resp::{encode, inline};

/// The longest request that is held to look at its arguments.
const MAX_HELD: usize = 64 * 1024;
/// Replies of the proxy's own that may wait for a client to read before no more is taken in.
const MAX_WAITING: usize = 64 * 1024;

/// How far the client's requests were read, and what they change.
pub(super) struct Intake {
    pub(super) scanner: Scanner,
    /// What becomes of the present request.
    pub(super) route: Route,
    /// The beginning of a request that is not decided yet, or all of one that is collected.
    held: Vec<u8>,
    /// Where no more could be taken in.
    parked: Option<Box<Parked>>,
    /// What is parked begins with a blocking command that was interrupted.
    pub(super) resumed: Option<Box<Resumed>>,
    pub(super) authenticated: bool,
    /// What of the present request is for the log.
    pub(super) secrecy: Secrecy,
    /// Something was read.
    begun: bool,
    /// After MULTI: what was queued.
    pub(super) transaction: Option<Box<Transaction>>,
    /// The next request is to be treated in a way of its own.
    pub(super) one_shot: Option<OneShot>,
    /// A watched key was touched before a handover: the next EXEC must fail. Other than in the
    /// state, it is over when that is sent.
    pub(super) fails: bool,
    /// Requests were sent that nothing answered that was sent after them.
    pub(super) unfenced: bool,
    pub(super) silence: Silence,
    /// Nothing of the above keeps a plain request from just being counted.
    pub(super) is_ordinary: bool,
    /// One pass more is held, for a transaction that is too large to be carried.
    pub(super) keeps_pass: bool,
    /// Requests admitted from the present input.
    pub(super) admitted: u32,
    /// Those that nobody answers, and that are not on their way yet.
    pub(super) unanswered: u32,
}

/// What more that was read waits for.
enum Waits {
    /// The gate.
    Gate(Waiting),
    /// The reply to the blocking command before it.
    Reply,
}

/// Input that waits.
struct Parked {
    waits: Waits,
    since: Instant,
    /// What the present request was found to be; its bytes so far are in `held`.
    head: Option<(Class, u32)>,
    /// What was read after that.
    input: Vec<u8>,
}

/// A blocking command that was interrupted.
pub(super) struct Resumed {
    /// When it will have waited long enough; `None` for never.
    pub(super) until: Option<Instant>,
    /// Since when it has waited at an uplink, and up to when.
    pub(super) since: Instant,
    pub(super) interrupted: Instant,
    /// Its bytes.
    len: usize,
    ticket: Option<Arc<Ticket>>,
}

impl Intake {
    pub(super) fn new(authenticated: bool) -> Self {
        Intake {
            scanner: Scanner::new(limits(authenticated)),
            route: Route::None,
            held: Vec::new(),
            parked: None,
            resumed: None,
            authenticated,
            secrecy: Secrecy::All,
            begun: false,
            transaction: None,
            one_shot: None,
            fails: false,
            unfenced: false,
            silence: Silence::No,
            is_ordinary: authenticated,
            keeps_pass: false,
            admitted: 0,
            unanswered: 0,
        }
    }

    /// A request was begun to be sent on, and is owed, and its end was not read yet.
    pub(super) fn is_incomplete(&self) -> bool {
        self.is_in(Route::Forward { owed: true })
    }

    /// Some of a request has gone up, and its end was not read yet.
    pub(super) fn is_in_forwarded(&self) -> bool {
        self.is_incomplete() || self.is_in(Route::Forward { owed: false })
    }

    /// Takes those that nobody answers, and that are on their way now.
    pub(super) fn take_unanswered(&mut self) -> u32 {
        let incomplete = u32::from(self.is_in(Route::Forward { owed: false }));
        let kept = self.unanswered.min(incomplete);
        std::mem::replace(&mut self.unanswered, kept) - kept
    }

    fn is_in(&self, route: Route) -> bool {
        self.scanner.in_frame() && !self.scanner.undecided() && self.route == route
    }

    pub(super) fn authenticate(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
        self.scanner.set_limits(limits(authenticated));
        self.is_ordinary = false;
    }
}

fn limits(authenticated: bool) -> Limits {
    if authenticated { Limits::FULL } else { Limits::UNAUTHENTICATED }
}

impl Session {
    pub(super) fn poll_requests(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        loop {
            if !self.to_uplink.is_clear() {
                self.send_up(cx, &[]);
                if !self.to_uplink.is_clear() {
                    return;
                }
            }
            if self.ending.is_some() {
                return;
            }
            if self.owed.is_full() || self.to_client.len() > MAX_WAITING {
                return;
            }
            let waits = self.blocked.is_some() || self.leaving || self.last.is_some();
            let waits = waits
                || match self.intake.parked.as_mut().map(|parked| &mut parked.waits) {
                    Some(Waits::Gate(opened)) => Pin::new(opened).poll(cx).is_pending(),
                    Some(Waits::Reply) | None => false,
                };
            if waits {
                if self.client.poll_hangup(cx).is_ready() {
                    self.end(Reason::ClientClosed);
                }
                return;
            }
            if self.intake.parked.is_some() {
                self.resume(cx);
                continue;
            }
            match poll_read(&mut self.client, cx, scratch) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => self.end(Reason::ClientClosed),
                Poll::Ready(Ok(read)) => {
                    self.recorder.up.add(read as u64);
                    self.on_input(cx, &scratch[..read]);
                }
                Poll::Ready(Err(why)) => self.lose_client(why),
            }
        }
    }

    /// The last request will not be completed: nobody answers it.
    pub(super) fn drop_incomplete(&mut self) {
        if self.intake.is_incomplete() {
            // Unless the uplink did not wait for its end to answer.
            if self.owed.take_back() {
                self.passes.leave(1);
            }
            self.intake.route = Route::None;
        }
        self.intake.parked = None;
        self.intake.resumed = None;
    }

    fn resume(&mut self, cx: &mut Context<'_>) {
        self.refuse_interrupted();
        let Some(parked) = self.intake.parked.take() else { return };
        let Parked { waits, since, head, input } = *parked;
        if matches!(waits, Waits::Gate(_)) {
            self.recorder.parked.observe(since.elapsed(), 1);
        }
        if let Some((class, args)) = head {
            match self.head(class, args) {
                Some(route) => self.begin(route),
                None => return self.park(head, &[&input]),
            }
        }
        self.on_input(cx, &input);
    }

    pub(super) fn park(&mut self, head: Option<(Class, u32)>, input: &[&[u8]]) {
        self.intake.route = Route::None;
        if self.ending.is_some() {
            // It was not the gate that refused.
            return;
        }
        self.park_until(Waits::Gate(self.shared.gate.wait()), head, input);
    }

    fn park_until(&mut self, waits: Waits, head: Option<(Class, u32)>, input: &[&[u8]]) {
        let since = Instant::now();
        self.intake.parked = Some(Box::new(Parked { waits, since, head, input: input.concat() }));
    }

    /// A blocking command waits: what came behind it does, too.
    fn park_behind(&mut self, input: &[u8]) {
        if !input.is_empty() {
            self.park_until(Waits::Reply, None, &[input]);
        }
    }

    /// A blocking command was interrupted: it comes to the gate again, ahead of what is behind it.
    pub(super) fn interrupted(&mut self, blocked: Blocked) {
        let frame = blocked.request();
        let behind = self.intake.parked.take().map(|parked| parked.input).unwrap_or_default();
        let Blocked { until, since, ticket, .. } = blocked;
        let (interrupted, len) = (Instant::now(), frame.len());
        self.intake.resumed = Some(Box::new(Resumed { until, since, interrupted, len, ticket }));
        self.park(None, &[&frame, &behind]);
    }

    /// It was another client that had it interrupted.
    fn refuse_interrupted(&mut self) {
        let resumed = self.intake.resumed.as_ref();
        let ticket = resumed.and_then(|resumed| resumed.ticket.as_ref());
        if ticket.is_some_and(|ticket| ticket.answered() == Unblocked::No) {
            self.end_interrupted(&encode::error(UNBLOCKED));
        }
    }

    /// One that was interrupted has waited long enough.
    pub(super) fn end_interrupted(&mut self, reply: &[u8]) {
        let Some(resumed) = self.intake.resumed.take() else { return };
        if let Some(mut parked) = self.intake.parked.take() {
            parked.input.drain(..resumed.len);
            if !parked.input.is_empty() {
                self.intake.parked = Some(parked);
            }
        }
        self.answer(reply.to_vec());
        self.mark();
    }

    /// A blocking command that was interrupted waits at the gate.
    pub(super) fn is_interrupted(&self) -> bool {
        self.intake.resumed.is_some()
    }

    fn on_input(&mut self, cx: &mut Context<'_>, input: &[u8]) {
        self.arrived = Instant::now();
        if !self.intake.begun {
            self.intake.begun = true;
            // A TLS handshake record; no command begins like that.
            if input.starts_with(&[0x16, 0x03]) {
                return self.end(Reason::SpeaksTls);
            }
        }
        let taken = self.take_in(input);
        let admitted = std::mem::take(&mut self.intake.admitted);
        if admitted > 1 {
            self.passes.add(admitted - 1);
        }
        match taken {
            Ok(tail) => {
                let tail = &input[tail];
                if !tail.is_empty() || !self.to_uplink.is_clear() {
                    self.send_up(cx, tail);
                }
            }
            Err(why) => {
                self.send_up(cx, &[]);
                self.drop_incomplete();
                let reason = Reason::Protocol(why);
                if let Some(words) = reason.last_words() {
                    self.answer(words);
                }
                self.end(reason);
            }
        }
    }

    /// Reads `input`, and says which part of it goes up after what was put into `to_uplink`.
    fn take_in(&mut self, input: &[u8]) -> Result<Range<usize>, request::Error> {
        let mut pos = 0;
        // Before this, everything was dealt with.
        let mut from = 0;
        self.intake.scanner.new_input();
        loop {
            let before = pos;
            let step = self.intake.scanner.next(input, &mut pos);
            if let Ok(Step::Head { .. }) = step
                && self.is_fast()
                && command::class(self.intake.scanner.name()) == Class::Plain
            {
                self.intake.admitted += 1;
                self.owed.push_plain(self.intake.scanner.name());
                self.intake.route = Route::Forward { owed: true };
                continue;
            }
            if let Some(taps) = &mut self.taps {
                taps.up.feed(&input[before..pos]);
            }
            let start = self.intake.scanner.frame_start().max(from);
            let step = match step {
                Ok(step) => step,
                Err(why) => {
                    self.to_uplink.push(&input[from..start]);
                    return Err(why);
                }
            };
            match step {
                Step::More => break,
                Step::Head { args } => {
                    // The proxy may have something to say ahead of it.
                    if self.swallow.is_some() || self.marker.is_some() {
                        self.to_uplink.push(&input[from..start]);
                        from = start;
                        self.unsubscribe_late();
                    }
                    let class = command::class(self.intake.scanner.name());
                    if class == Class::CallScript && self.intake.authenticated {
                        self.note_call(&input[pos..]);
                    }
                    let Some(route) = self.head(class, args) else {
                        self.to_uplink.push(&input[from..start]);
                        self.intake.held.extend_from_slice(&input[start..pos]);
                        self.park(Some((class, args)), &[&input[pos..]]);
                        return Ok(pos..pos);
                    };
                    if !matches!(route, Route::Forward { .. }) {
                        self.to_uplink.push(&input[from..start]);
                        from = start;
                    }
                    self.begin(route);
                }
                Step::End => {
                    if !self.request_ends(input, &mut from, pos) {
                        return Ok(pos..pos);
                    }
                }
                Step::Empty => {
                    self.to_uplink.push(&input[from..start]);
                    self.intake.held.clear();
                    self.restart_tap();
                    from = pos;
                }
                Step::Inline => {
                    self.to_uplink.push(&input[from..start]);
                    from = pos;
                    self.take_line(&input[start..pos])?;
                    if let Some(parked) = &mut self.intake.parked {
                        parked.input.extend_from_slice(&input[pos..]);
                        return Ok(pos..pos);
                    }
                    if self.blocked.is_some() {
                        self.park_behind(&input[pos..]);
                        return Ok(pos..pos);
                    }
                    if self.ending.is_some() {
                        return Ok(pos..pos);
                    }
                }
            }
        }
        Ok(self.rest(input, from))
    }

    /// An EVALSHA begins, of which this is what comes after its name. A hash that is cut in two, by the
    /// way that input happens to come, is passed over: it only matters how often each is used.
    fn note_call(&self, rest: &[u8]) {
        const DIGITS: usize = 40;
        if let Some(sha) = rest.strip_prefix(b"$40\r\n").and_then(|rest| rest.get(..DIGITS)) {
            self.shared.scripts.called(sha);
        }
    }

    /// A request that was not just passed on ends at `pos`. False if no more may be taken in.
    fn request_ends(&mut self, input: &[u8], from: &mut usize, pos: usize) -> bool {
        match self.intake.route {
            Route::None | Route::Forward { .. } => {}
            Route::Collect(class) => {
                self.intake.held.extend_from_slice(&input[*from..pos]);
                *from = pos;
                let frame = std::mem::take(&mut self.intake.held);
                if !self.collected(class, &frame) {
                    self.restart_tap();
                    self.park(None, &[&frame, &input[pos..]]);
                    return false;
                }
            }
            Route::Discard(verdict) => {
                *from = pos;
                self.discarded(verdict);
            }
        }
        if let Some(taps) = &mut self.taps {
            taps.up.request(self.peer, self.intake.secrecy);
        }
        if self.blocked.is_some() {
            self.park_behind(&input[pos..]);
            return false;
        }
        self.ending.is_none()
    }

    /// The input is read. Its last request may not be complete: what goes up now?
    fn rest(&mut self, input: &[u8], from: usize) -> Range<usize> {
        let end = input.len();
        let intake = &mut self.intake;
        if !intake.scanner.in_frame() {
            return from..end;
        }
        if intake.scanner.undecided() {
            let start = intake.scanner.frame_start().max(from);
            self.to_uplink.push(&input[from..start]);
            intake.held.extend_from_slice(&input[start..]);
            return end..end;
        }
        match intake.route {
            Route::None | Route::Forward { .. } => from..end,
            Route::Discard(_) => end..end,
            Route::Collect(class) => {
                intake.held.extend_from_slice(&input[from..]);
                let room = intake.transaction.as_ref().map_or(0, |transaction| transaction.room());
                if intake.held.len() > MAX_HELD.max(room) {
                    self.too_long(class);
                }
                end..end
            }
        }
    }

    /// A plain request, like those before it, needs no more than to be counted.
    #[inline]
    fn is_fast(&self) -> bool {
        self.intake.admitted > 0
            && self.intake.is_ordinary
            && self.intake.held.is_empty()
            && self.taps.is_none()
    }

    /// Plain requests change nothing, and nothing is to be done for them.
    pub(super) fn is_ordinary(&self) -> bool {
        self.intake.authenticated
            && self.intake.silence == Silence::No
            && self.intake.transaction.is_none()
            && self.intake.one_shot.is_none()
    }

    /// Deals with the bytes of the present request so far, where they came in an earlier input.
    pub(super) fn begin(&mut self, route: Route) {
        self.intake.route = route;
        match route {
            Route::None => {}
            Route::Forward { .. } => {
                if self.taps.is_some() {
                    self.intake.scanner.report_end();
                }
                self.to_uplink.push(&self.intake.held);
                self.intake.held = Vec::new();
            }
            Route::Collect(_) => self.intake.scanner.report_end(),
            Route::Discard(_) => {
                self.intake.scanner.report_end();
                self.intake.held = Vec::new();
            }
        }
    }

    /// An inline command goes up as an array, so that the uplink sees the words that were seen
    /// here, whatever its own quoting rules are.
    fn take_line(&mut self, line: &[u8]) -> Result<(), request::Error> {
        self.restart_tap();
        let mut whole = std::mem::take(&mut self.intake.held);
        whole.extend_from_slice(line);
        let args = inline::split(whole.strip_suffix(b"\n").unwrap_or(&whole))?;
        if !args.is_empty() {
            let frame = encode::request(args);
            let tail = self.take_in(&frame)?;
            self.to_uplink.push(&frame[tail]);
        }
        Ok(())
    }

    fn restart_tap(&mut self) {
        if let Some(taps) = &mut self.taps {
            taps.up.restart();
        }
    }
}
