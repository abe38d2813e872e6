//! Client -> uplink: requests are told apart, admitted, and sent on.

use std::ops::{ControlFlow, Range};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::close::Reason;
use super::intake::{NotYet, Route, Waits};
use super::login::STRANGERS_PACE;
use super::{STRANGERS_READ, Session, poll_read, yield_turn};
use crate::clock;
use crate::command::Class;
use crate::resp::request::{self, Step};
use crate::resp::{Args, encode, inline};

/// Bytes of local replies that may queue before no more is read of the client.
const MAX_UNSENT: usize = 64 * 1024;

/// Whether a client is read.
enum Intaking {
    Yes,
    /// Earlier input must be sent or answered first; a hang-up cancels it.
    Waits,
    /// What it has sent already is being worked off.
    Full,
}

impl Session {
    pub(super) fn poll_requests(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        self.intake.is_dry = false;
        loop {
            if !self.link.out.is_clear() {
                self.send_up(cx, &[]);
            }
            self.give_back_room();
            if self.ending.is_some() {
                return;
            }
            match self.may_take_in(cx) {
                Intaking::Yes => {}
                Intaking::Waits => {
                    if self.client.poll_hangup(cx).is_ready() {
                        self.end(Reason::ClientClosed);
                    }
                    return;
                }
                Intaking::Full => {
                    if self.client.poll_hangup(cx).is_ready() {
                        self.is_leaving_us();
                    }
                    return;
                }
            }
            if self.slowed(cx) {
                return;
            }
            if self.intake.parked.is_some() {
                if let Some(input) = self.unpark() {
                    self.on_input(cx, &input);
                }
                continue;
            }
            let Some(most) = self.intake.turn.read() else { return yield_turn(cx) };
            let most = if self.requested.is_authenticated() { most } else { STRANGERS_READ };
            match poll_read(&mut self.client, cx, &mut scratch[..most]) {
                Poll::Pending => {
                    self.intake.is_dry = true;
                    return;
                }
                Poll::Ready(Ok(0)) => self.end(Reason::ClientClosed),
                Poll::Ready(Ok(read)) => {
                    self.recorder.up.add(read as u64);
                    self.on_input(cx, &scratch[..read]);
                    if self.intake.turn.matters(read) {
                        self.intake.turn.took(clock::now() - self.intake.arrived);
                    }
                    if !self.requested.is_authenticated() {
                        self.slow_down(STRANGERS_PACE);
                    }
                }
                Poll::Ready(Err(why)) => self.lose_client(why),
            }
        }
    }

    fn may_take_in(&mut self, cx: &mut Context<'_>) -> Intaking {
        if self.link.is_between_uplinks() || self.replies.refused.is_some() {
            return Intaking::Waits;
        }
        if !self.link.out.is_clear() || self.pending.is_full() || self.to_client.len() > MAX_UNSENT
        {
            return Intaking::Full;
        }
        self.intake.awaits_reply &= !self.pending.is_empty();
        if self.blocking.is_at_uplink()
            || self.intake.awaits_reply
            || self.handover.is_leaving()
            || self.handover.cutover().is_some()
        {
            return Intaking::Waits;
        }
        match self.intake.parked.as_mut().map(|parked| &mut parked.waits) {
            Some(Waits::Gate(opened)) => match Pin::new(opened).poll(cx) {
                Poll::Ready(()) => Intaking::Yes,
                Poll::Pending => Intaking::Waits,
            },
            Some(Waits::Reply) | None => Intaking::Yes,
        }
    }

    fn on_input(&mut self, cx: &mut Context<'_>, input: &[u8]) {
        self.intake.arrived = clock::now();
        // What was read before is on its way: a client that has sent all it has is not given up.
        self.gone_by = None;
        if !self.intake.begun {
            self.intake.begun = true;
            // A TLS handshake record; no command begins like that.
            if input.starts_with(&[0x16, 0x03]) {
                return self.end(Reason::SpeaksTls);
            }
        }
        if self.intake.stalled
            && let Err(shut) = self.readmit()
        {
            return self.park(shut.into(), &[input]);
        }
        let was_arriving = self.intake.scanner.in_frame();
        let taken = self.take_in(input);
        self.intake.note_arriving(was_arriving, input.len(), self.intake.arrived);
        let admitted = std::mem::take(&mut self.intake.admitted);
        if admitted > 1 {
            self.passes.add(admitted - 1);
        }
        match taken {
            Ok(tail) => {
                let tail = &input[tail];
                if !tail.is_empty() || !self.link.out.is_clear() {
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

    /// Reads `input`, and says which part of it goes up after what was put into `link.out`.
    fn take_in(&mut self, input: &[u8]) -> Result<Range<usize>, request::Error> {
        let mut pos = 0;
        // Before this, everything was dealt with.
        let mut from = 0;
        self.intake.scanner.new_input();
        self.stream_long();
        if self.intake.parked.is_some() {
            self.hold(input);
            return Ok(0..0);
        }
        loop {
            let before = pos;
            let step = self.intake.scanner.next(input, &mut pos);
            if let Ok(Step::Head { .. }) = step
                && self.is_fast()
                && self.class() == Class::Plain
            {
                self.intake.admitted += 1;
                self.pending.push_plain(self.intake.scanner.name());
                self.intake.route = Route::Forward;
                continue;
            }
            if let Some(taps) = &mut self.taps {
                taps.up.feed(&input[before..pos]);
            }
            let start = self.intake.scanner.frame_start().max(from);
            let step = match step {
                Ok(step) => step,
                Err(why) => {
                    self.link.push(&input[from..start], &self.pending);
                    self.disown_half();
                    return Err(why);
                }
            };
            match step {
                Step::More => break,
                Step::Head { args } => {
                    let class = self.class();
                    self.intake.route = Route::Held(class, args);
                    self.intake.scanner.report_end();
                }
                Step::End => {
                    if self.request_ends(input, &mut from, start, pos).is_break() {
                        return Ok(pos..pos);
                    }
                }
                Step::Empty => {
                    self.link.push(&input[from..start], &self.pending);
                    self.intake.held.clear();
                    self.pass_over();
                    from = pos;
                }
                Step::Inline => {
                    self.link.push(&input[from..start], &self.pending);
                    from = pos;
                    self.take_line(&input[start..pos])?;
                    if let Some(parked) = &mut self.intake.parked {
                        parked.input.extend_from_slice(&input[pos..]);
                        return Ok(pos..pos);
                    }
                    if self.goes_on(&input[pos..]).is_break() {
                        return Ok(pos..pos);
                    }
                }
            }
        }
        Ok(self.rest(input, from))
    }

    /// An EVALSHA calls a script.
    fn note_call(&self, frame: &[u8]) {
        if let Some(sha) = Args::new(frame).nth(1) {
            self.shared.scripts.called(sha);
        }
    }

    /// Handles the end, at `pos`, of a request that is not on the fast path. Breaks where no more may be taken in.
    fn request_ends(
        &mut self,
        input: &[u8],
        from: &mut usize,
        start: usize,
        pos: usize,
    ) -> ControlFlow<()> {
        match self.intake.route {
            Route::None | Route::Forward | Route::Stream => {}
            Route::Discard(verdict) => {
                *from = pos;
                self.discarded(verdict);
            }
            Route::Held(class, args) => {
                self.link.push(&input[*from..start], &self.pending);
                *from = start;
                let mut held = std::mem::take(&mut self.intake.held);
                let is_whole = held.is_empty();
                if !is_whole {
                    held.extend_from_slice(&input[start..pos]);
                }
                let frame = if is_whole { &input[start..pos] } else { &held };
                if class == Class::CallScript && self.requested.is_authenticated() {
                    self.note_call(frame);
                }
                self.unsubscribe_late();
                let taken = match self.head(class, args) {
                    Err(shut) => Err(shut.into()),
                    Ok(Route::Forward) if is_whole => Ok(()),
                    Ok(route) => {
                        *from = pos;
                        self.whole(route, frame)
                    }
                };
                if let Err(why) = taken {
                    *from = pos;
                    self.restart_tap();
                    self.park(why, &[frame, &input[pos..]]);
                    return ControlFlow::Break(());
                }
            }
        }
        self.intake.route = Route::None;
        if let Some(taps) = &mut self.taps {
            taps.up.request(self.peer, self.intake.secrecy);
        }
        self.goes_on(&input[pos..])
    }

    /// A request is here from its first byte to its last one.
    fn whole(&mut self, route: Route, frame: &[u8]) -> Result<(), NotYet> {
        match route {
            Route::None | Route::Stream => {}
            Route::Forward => self.link.push(frame, &self.pending),
            Route::Held(class, _) => self.inspect(class, frame)?,
            Route::Discard(verdict) => self.discarded(verdict),
        }
        Ok(())
    }

    /// Breaks where no more may be taken in; what was read already is parked then.
    fn goes_on(&mut self, input: &[u8]) -> ControlFlow<()> {
        let is_late = self.login.late_reply.is_some();
        if self.blocking.is_at_uplink() || self.intake.awaits_reply || is_late {
            self.park_behind(input);
            return ControlFlow::Break(());
        }
        match self.ending {
            None => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(()),
        }
    }

    /// Sends the complete requests, and holds the partial last one, unless it goes up as it comes or is
    /// discarded. Gives the part of `input` that is still to go up.
    fn rest(&mut self, input: &[u8], from: usize) -> Range<usize> {
        let end = input.len();
        if !self.intake.scanner.in_frame() {
            return from..end;
        }
        let start = self.intake.scanner.frame_start().max(from);
        match self.intake.route {
            // It is the one before that the route is about.
            _ if self.intake.scanner.undecided() => self.intake.route = Route::None,
            Route::Stream => return from..end,
            Route::Discard(_) => return end..end,
            Route::Forward => {
                self.disown_half();
                self.intake.route = Route::Held(Class::Plain, self.intake.scanner.args());
                self.intake.scanner.report_end();
            }
            Route::None | Route::Held(..) => {}
        }
        self.link.push(&input[from..start], &self.pending);
        self.hold(&input[start..]);
        self.stream_long();
        end..end
    }

    /// Removes the last request, of which only a part was read, from the admitted count.
    fn disown_half(&mut self) {
        let intake = &mut self.intake;
        if intake.route == Route::Forward
            && intake.scanner.in_frame()
            && !intake.scanner.undecided()
        {
            intake.admitted -= 1;
            self.pending.take_back();
        }
    }

    fn hold(&mut self, input: &[u8]) {
        self.intake.held.extend_from_slice(input);
    }

    /// What the present request's command means to this uplink.
    #[inline(always)]
    fn class(&self) -> Class {
        self.generation.uplink.commands.class(self.intake.scanner.name())
    }

    /// A plain request, like those before it, needs no more than to be counted.
    #[inline]
    fn is_fast(&self) -> bool {
        self.intake.admitted > 0
            && self.requested.is_ordinary()
            && self.intake.held.is_empty()
            && self.taps.is_none()
    }

    /// An inline command goes up as an array, so that the uplink sees the words that were seen
    /// here, whatever its own quoting rules are.
    fn take_line(&mut self, line: &[u8]) -> Result<(), request::Error> {
        self.restart_tap();
        let mut whole = std::mem::take(&mut self.intake.held);
        whole.extend_from_slice(line);
        let args = inline::split(whole.strip_suffix(b"\n").unwrap_or(&whole))?;
        if args.is_empty() {
            self.pass_over();
            return Ok(());
        }
        let frame = encode::request(args);
        let tail = self.take_in(&frame)?;
        self.link.push(&frame[tail], &self.pending);
        Ok(())
    }

    /// An empty request gets no reply, but uses up CLIENT REPLY SKIP.
    fn pass_over(&mut self) {
        self.restart_tap();
        self.take_audience();
    }
}
