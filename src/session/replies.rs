//! Uplink -> client: replies are matched with what is owed, and sent down.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::blocking::Returned;
use super::close::Reason;
use super::link::{LinkState, Reads};
use super::protocol::expected::{Reply, Settled, is_published};
use super::protocol::frame_filter::{Meaning, Seen};
use super::protocol::pending::{Outcome, Timing, View};
use super::protocol::requested::Silence;
use super::refused::{Refused, Said};
use super::route::RESET;
use super::{Session, poll_read, yield_turn};
use crate::clock;
use crate::metrics::Recorder;
use crate::notices;
use crate::resp::encode;
use crate::resp::reply::{Step, short_reply};

/// The requests that one read of replies has answered.
struct Answered {
    /// When they were read.
    at: Instant,
    requests: u32,
    /// The time, in nanoseconds, that the proxy took to send them up, all added.
    delays: u64,
    /// The uplink is about to close the connection, and the client stays.
    uplink_closes: bool,
    /// So many bytes at the end begin with a refusal, and were not dealt with.
    refused: usize,
}

/// Replies that needed no more than to be counted.
struct PlainReplies {
    replies: u32,
    /// How many requests are over with them. Several replies may be the elements of one.
    over: u32,
}

impl Answered {
    fn begin() -> Self {
        Answered { at: clock::now(), requests: 0, delays: 0, uplink_closes: false, refused: 0 }
    }

    #[inline]
    fn add(&mut self, requests: u32, timing: Timing, recorder: &Recorder) {
        if requests == 0 {
            return;
        }
        self.requests += requests;
        self.delays += u64::from(requests) * u64::from(timing.delay);
        let duration = timing.sent.map_or(Duration::ZERO, |sent| self.at.duration_since(sent));
        recorder.durations.observe(duration, requests);
    }

    /// Records the delays, once the replies were written; each request gets the average of the batch.
    #[inline]
    fn end(&self, recorder: &Recorder) {
        if self.requests > 0 {
            recorder.requests.add(u64::from(self.requests));
            let up = Duration::from_nanos(self.delays / u64::from(self.requests));
            recorder.delays.observe(up + (clock::now() - self.at), self.requests);
        }
    }
}

impl Session {
    pub(super) fn poll_replies(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        loop {
            if !self.to_client.is_clear() {
                match self.to_client.poll_clear(&mut self.client, cx) {
                    Poll::Pending if !self.reads_ahead() => return,
                    Poll::Pending | Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(why)) => return self.lose_client(why),
                }
            }
            if self.replies.at_mark {
                // What comes after the mark is taken from the next uplink.
                return;
            }
            let LinkState::Live(stream) = &mut self.link.state else { return };
            if !self.replies.unread.is_empty() {
                let unread = std::mem::take(&mut self.replies.unread);
                self.on_replies(cx, &unread);
                continue;
            }
            let Some(most) = self.turn_down.read() else { return yield_turn(cx) };
            match poll_read(stream, cx, &mut scratch[..most]) {
                Poll::Pending => {
                    if let Some(reads) = &mut self.link.ends {
                        *reads = Reads::Nothing;
                    }
                    return;
                }
                Poll::Ready(Ok(0)) => return self.uplink_ends(Reason::UplinkClosed),
                Poll::Ready(Ok(read)) if self.replies.refused.is_some() => {
                    self.hear_refusals(cx, &scratch[..read]);
                }
                Poll::Ready(Ok(read)) => {
                    self.recorder.down.add(read as u64);
                    let begun = self.turn_down.matters(read).then(clock::now);
                    self.on_replies(cx, &scratch[..read]);
                    if let Some(begun) = begun {
                        self.turn_down.took(clock::now() - begun);
                    }
                }
                Poll::Ready(Err(why)) => return self.uplink_ends(Reason::UplinkLost(why)),
            }
        }
    }

    /// Replies have come of which the first one refuses a request, or may.
    fn hear_refusals(&mut self, cx: &mut Context<'_>, input: &[u8]) {
        let refused = match &mut self.replies.refused {
            Some(refused) => refused,
            none => {
                let owed = self.pending.requests();
                let requests = self.link.unanswered.last(owed).unwrap_or_default();
                none.insert(Box::new(Refused::new(requests)))
            }
        };
        match refused.hear(input, &self.pending) {
            Said::More => {}
            Said::Something => self.deliver_refusals(cx),
            Said::Nothing => self.doubt_refusals(),
        }
    }

    /// The client gets the replies as they are.
    pub(super) fn deliver_refusals(&mut self, cx: &mut Context<'_>) {
        if let Some(refused) = self.replies.refused.take() {
            self.replies.takes_refusals = true;
            self.on_replies(cx, &refused.bytes);
        }
    }

    /// True when the client has just taken all there was.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> bool {
        if self.to_client.is_clear() {
            return false;
        }
        match self.to_client.poll_clear(&mut self.client, cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(why)) => {
                self.lose_client(why);
                false
            }
        }
    }

    pub(super) fn on_replies(&mut self, cx: &mut Context<'_>, input: &[u8]) {
        let mut answered = Answered::begin();
        // Something comes for a client that sends no more.
        self.gone_by = None;
        let (tail, fault) = self.settle(input, &mut answered);
        // The passes go back before the client is written to: one that does not read must not
        // hold up a pause.
        let given_back = self.answered_before_its_end(answered.requests);
        self.release(answered.requests - given_back);
        if self.pending.is_empty() {
            self.replies.takes_refusals = false;
            self.link.unanswered.clear();
            self.pending.trim();
        }
        if self.requested.pinned_since.is_some() {
            self.unpin();
        }
        let sent = self.to_client.send(&mut self.client, cx, tail);
        answered.end(&self.recorder);
        if let Err(why) = sent {
            self.lose_client(why);
        } else if let Some(reason) = fault {
            self.lose_uplink(reason);
        } else if answered.uplink_closes {
            self.let_go();
        } else if answered.refused > 0 {
            self.hear_refusals(cx, &input[input.len() - answered.refused..]);
        }
    }

    /// Matches `input` with what is owed. Gives which part of it goes down after what was put
    /// into `to_client`, and what was wrong with the rest.
    fn settle<'a>(
        &mut self,
        input: &'a [u8],
        answered: &mut Answered,
    ) -> (&'a [u8], Option<Reason>) {
        let mut pos = 0;
        // Before this, everything was dealt with.
        let mut from = 0;
        while pos < input.len() {
            if !self.replies.scanner.in_frame() && self.taps.is_none() {
                let timing = self.pending.timing();
                let plain = self.settle_plain(input, &mut pos);
                if plain.replies > 0 {
                    answered.add(plain.over, timing, &self.recorder);
                    self.send_locals(input, &mut from, pos);
                    continue;
                }
            }
            let start = pos;
            if !self.replies.scanner.in_frame() {
                if input[pos] == b'-' && self.may_be_refused(&input[pos..]) {
                    self.replies.partial = false;
                    answered.refused = input.len() - pos;
                    return (&input[from..pos], None);
                }
                self.reply_begins(&input[pos..]);
                if self.replies.view != View::Shown {
                    self.to_client.push(&input[from..start]);
                    from = start;
                }
            }
            let step = self.replies.scanner.next(input, &mut pos);
            if let Some(taps) = &mut self.taps {
                taps.down.feed(&input[start..pos]);
            }
            let kind = match step {
                Ok(Step::End { kind }) => Some(kind),
                Ok(Step::More) => None,
                Err(why) => return (&input[from..start], Some(why.into())),
            };
            if self.replies.filter.is_some() && self.swallows(&input[start..pos], kind.is_some()) {
                from = pos;
                if self.replies.at_mark {
                    self.replies.unread = input[pos..].to_vec();
                    break;
                }
                self.send_locals(input, &mut from, pos);
                continue;
            }
            match self.replies.view {
                View::Kept => self.replies.keep(&input[start..pos]),
                View::Undecided => {
                    self.replies.keep(&input[start..pos]);
                    if kind.is_some() || self.replies.scanner.has_first_text() {
                        self.decide();
                        // What was kept is dealt with.
                        from = pos;
                    }
                }
                View::Shown | View::Hidden => {}
            }
            let Some(kind) = kind else { break };
            self.log_reply();
            if let Err(reason) = self.reply_ends(kind, &mut from, pos, answered) {
                return (&input[from..start], Some(reason));
            }
            self.send_locals(input, &mut from, pos);
        }
        if self.replies.at_mark {
            return (&[], None);
        }
        let hidden = self.replies.view != View::Shown && self.replies.scanner.in_frame();
        self.replies.partial =
            (self.replies.scanner.in_frame() && !hidden) || self.pending.is_unfolding();
        (if hidden { &[] } else { &input[from..] }, None)
    }

    /// Decides, by its beginning, what becomes of the next reply.
    fn reply_begins(&mut self, beginning: &[u8]) {
        self.replies.partial = false;
        self.replies.view = self.view_of(beginning);
        let looks_into = self.pending.looks_into(&self.state);
        let is_undecided = self.replies.view == View::Undecided;
        self.replies.scanner.set_peek(looks_into || is_undecided);
        self.replies.scanner.set_unfolds(looks_into && self.pending.unfolds());
        if let Some(filter) = &mut self.replies.filter {
            filter.begin();
            if filter.is_matching() && self.replies.view == View::Shown {
                self.replies.view = View::Hidden;
            }
        }
    }

    fn view_of(&self, beginning: &[u8]) -> View {
        if notices::may_be_of_maintenance(beginning) {
            return View::Undecided;
        }
        let kind = beginning[0];
        // A monitor's lines do not come in spite of CLIENT REPLY OFF.
        if kind == b'+' && self.state.monitor && self.requested.silence() == Silence::Always {
            return View::Undecided;
        }
        self.pending.view(kind, &self.state)
    }

    /// The first text of the present frame is here, or all of the frame: it goes down in spite of the
    /// client's silence, or not.
    fn decide(&mut self) {
        let kept = self.replies.take_kept().unwrap_or_default();
        let published = kept.starts_with(b"*") && is_published(self.replies.scanner.first_text());
        let heard = published
            || (kept.starts_with(b">") && !self.is_of_maintenance())
            || (kept.starts_with(b"+") && self.pending.is_heard() && !self.is_monitors_line());
        self.replies.view = if heard { View::Shown } else { View::Hidden };
        if heard {
            self.to_client.push(&kept);
        }
    }

    /// The uplink tells of its maintenance. That is for the proxy, to which the client stays connected: a client that
    /// is told MOVING would go to the address that this names.
    fn is_of_maintenance(&self) -> bool {
        let kind = notices::maintenance(self.replies.scanner.first_text());
        if let Some(kind) = kind {
            self.shared.hear_of_maintenance(kind);
        }
        kind.is_some()
    }

    fn is_monitors_line(&self) -> bool {
        self.replies.scanner.first_text().first().is_some_and(u8::is_ascii_digit)
    }

    /// Feeds more of the present frame to the filter; true if the client must not see it, or not yet.
    fn swallows(&mut self, bytes: &[u8], ends: bool) -> bool {
        let Some(filter) = &mut self.replies.filter else { return false };
        if !filter.is_matching() {
            return filter.drops || filter.is_foreign();
        }
        let drops = filter.drops;
        match filter.feed(bytes, ends) {
            Seen::Perhaps | Seen::Foreign => true,
            Seen::Other(_) if drops => true,
            Seen::Other(held) => {
                // It is looked at as if it began only now.
                let beginning = if held.is_empty() { bytes } else { &held };
                self.replies.view = self.view_of(beginning);
                match self.replies.view {
                    View::Shown => self.to_client.push(&held),
                    View::Kept | View::Undecided => self.replies.keep(&held),
                    View::Hidden => {}
                }
                false
            }
            Seen::Frame(meaning) => {
                if filter.is_over() {
                    self.replies.filter = None;
                }
                self.replies.at_mark |= meaning == Meaning::Mark && !drops;
                true
            }
        }
    }

    /// A reply is complete.
    fn reply_ends(
        &mut self,
        kind: u8,
        from: &mut usize,
        pos: usize,
        answered: &mut Answered,
    ) -> Result<(), Reason> {
        let reply = Reply {
            kind,
            text: self.replies.scanner.first_text(),
            number: self.replies.scanner.last_number(),
            null: self.replies.scanner.was_null(),
        };
        let timing = self.pending.timing();
        let reply_unblocks = reply.unblocked();
        let heard = self.pending.is_heard();
        let Outcome { settled, mut over } = self.pending.settle(reply, &mut self.state);
        if self.replies.view != View::Shown {
            *from = pos;
        }
        let kept = self.replies.take_kept();
        // What is kept goes down in another form, if the client is to hear it.
        let say = |session: &mut Session, reply: &[u8]| {
            if heard {
                session.send_local(reply);
            }
        };
        match settled {
            Settled::Fault => return Err(Reason::Unasked),
            Settled::Answered | Settled::Unasked | Settled::Own => {}
            Settled::Asked(question) => self.hear(question, &kept.unwrap_or_default()),
            Settled::Returned => {
                let returned = self.blocking.returned(reply_unblocks, clock::now());
                match returned {
                    Returned::Answered => {
                        if let Some(kept) = kept {
                            say(self, &kept);
                        }
                    }
                    Returned::Interrupted { frame, closing } => {
                        // It is in flight no more, and not answered either.
                        over = 0;
                        self.release(1);
                        if !heard && self.requested.silence() == Silence::No {
                            self.requested.set_silence(Silence::Next);
                        }
                        self.park_ahead(&frame);
                        answered.uplink_closes = closing;
                    }
                }
            }
            Settled::Ids(place) => {
                let kept = kept.unwrap_or_default();
                let reply = self.shared.ids.reply(place, &kept);
                say(self, &reply);
            }
            Settled::Unwatched => self.requested.fails = false,
            Settled::NotCaching => self.requested.set_one_shot(None),
            // The reply to a MULTI that is still to come tells.
            Settled::Surprise if self.pending.awaits_multi() => {}
            Settled::Surprise | Settled::Begun => self.reconsider_transaction(),
            Settled::Reset => {
                // It ends the silence that it was sent in, but not that of the next request alone.
                if self.requested.silence() == Silence::Always {
                    self.send_local(RESET);
                }
                self.was_reset();
            }
            Settled::Touched => {
                let null = self.timed_out();
                say(self, null);
            }
            Settled::Instead(text) => say(self, &encode::error(text)),
        }
        answered.add(over, timing, &self.recorder);
        Ok(())
    }

    /// The usual case: whole replies to plain requests, which need no more than to be counted.
    /// Stops before anything else.
    fn settle_plain(&mut self, input: &[u8], pos: &mut usize) -> PlainReplies {
        let plain = self.pending.plain(&self.state);
        let mut answered = 0;
        while answered < plain
            && let Some(len) = short_reply(&input[*pos..])
        {
            *pos += len;
            answered += 1;
        }
        if answered == 0 {
            return PlainReplies { replies: 0, over: 0 };
        }
        PlainReplies { replies: answered, over: self.pending.settle_plain(answered) }
    }

    /// Sends the local replies whose turn it is, after the bytes before `pos`.
    fn send_locals(&mut self, input: &[u8], from: &mut usize, pos: usize) {
        while let Some(local) = self.pending.take_local() {
            self.to_client.push(&input[*from..pos]);
            *from = pos;
            self.send_local(&local);
        }
    }
}
