//! Uplink -> client: replies are matched with what is owed, and sent down.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::awaited::{Reply, Settled};
use super::close::Reason;
use super::owed::Timing;
use super::{Link, Session, poll_read};
use crate::metrics::Recorder;
use crate::resp::encode;
use crate::resp::reply::{Step, short_reply};

/// The requests that one read of replies has answered.
struct Answered {
    /// When they were read.
    at: Instant,
    requests: u32,
    /// The time, in nanoseconds, that the proxy took to send them up, all added.
    delays: u64,
}

impl Answered {
    fn begin() -> Self {
        Answered { at: Instant::now(), requests: 0, delays: 0 }
    }

    #[inline]
    fn add(&mut self, requests: u32, timing: Timing, recorder: &Recorder) {
        self.requests += requests;
        self.delays += u64::from(requests) * u64::from(timing.delay);
        let duration = timing.sent.map_or(Duration::ZERO, |sent| self.at.duration_since(sent));
        recorder.durations.observe(duration, requests);
    }

    /// Their replies were written. Each is taken to have been delayed by what all were on average.
    #[inline]
    fn end(self, recorder: &Recorder) {
        if self.requests > 0 {
            recorder.requests.add(u64::from(self.requests));
            let up = Duration::from_nanos(self.delays / u64::from(self.requests));
            recorder.delays.observe(up + self.at.elapsed(), self.requests);
        }
    }
}

impl Session {
    pub(super) fn poll_replies(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        loop {
            if !self.to_client.is_clear() {
                match self.to_client.poll_clear(&mut self.client, cx) {
                    Poll::Pending => return,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(why)) => return self.lose_client(why),
                }
            }
            let Link::Live(stream) = &mut self.uplink else { return };
            match poll_read(stream, cx, scratch) {
                Poll::Pending => return,
                Poll::Ready(Ok(0)) => return self.uplink_ends(Reason::UplinkClosed),
                Poll::Ready(Ok(read)) => {
                    self.recorder.down.add(read as u64);
                    self.on_replies(cx, &scratch[..read]);
                }
                Poll::Ready(Err(why)) => return self.uplink_ends(Reason::UplinkLost(why)),
            }
        }
    }

    /// During a pause, an uplink that goes away is one that is being replaced: a client to whom
    /// nothing is owed waits for the next.
    fn uplink_ends(&mut self, reason: Reason) {
        let waits = !self.shared.gate.is_open() && self.ending.is_none();
        let safe = self.owed.is_empty() && !self.replies.in_frame() && self.to_uplink.is_clear();
        if waits && safe && self.passes.held() == 0 && self.uncarried().is_none() {
            self.uplink = Link::Absent;
        } else {
            self.lose_uplink(reason);
        }
    }

    fn on_replies(&mut self, cx: &mut Context<'_>, input: &[u8]) {
        let mut answered = Answered::begin();
        let (tail, fault) = self.settle(input, &mut answered);
        // The pass goes back before the client is written to: one that does not read must not
        // hold up a pause.
        if answered.requests > 0 {
            self.passes.leave(answered.requests);
            self.owed.trim();
        }
        let sent = self.to_client.send(&mut self.client, cx, tail);
        answered.end(&self.recorder);
        if let Err(why) = sent {
            self.lose_client(why);
        } else if let Some(reason) = fault {
            self.lose_uplink(reason);
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
            if !self.replies.in_frame() && self.taps.is_none() {
                let timing = self.owed.timing();
                let plain = self.settle_plain(input, &mut pos);
                if plain > 0 {
                    answered.add(plain, timing, &self.recorder);
                    self.send_locals(input, &mut from, pos);
                    continue;
                }
            }
            let start = pos;
            if !self.replies.in_frame() {
                self.partial = false;
                self.hiding = self.owed.hides(input[pos]);
                if self.hiding {
                    self.to_client.push(&input[from..start]);
                    from = start;
                }
                let looks_into = self.owed.looks_into(&self.state);
                self.replies.set_peek(looks_into);
                if looks_into && input[pos] == b'*' {
                    self.replies.set_more_elements(self.owed.more_elements(&self.state));
                }
            }
            let step = self.replies.next(input, &mut pos);
            if let Some(taps) = &mut self.taps {
                taps.down.feed(&input[start..pos]);
            }
            let kind = match step {
                Ok(Step::End { kind }) => kind,
                Ok(Step::More) => break,
                Err(why) => return (&input[from..start], Some(why.into())),
            };
            self.log_reply();
            let reply =
                Reply { kind, text: self.replies.first_text(), number: self.replies.last_number() };
            let timing = self.owed.timing();
            match self.owed.settle(reply, &mut self.state) {
                Settled::Answered => answered.add(1, timing, &self.recorder),
                Settled::Confirmed | Settled::Unasked => {}
                Settled::NoMulti => {
                    answered.add(1, timing, &self.recorder);
                    self.intake.queued = None;
                }
                Settled::Own => from = pos,
                Settled::Instead(text) => {
                    answered.add(1, timing, &self.recorder);
                    from = pos;
                    self.send_local(&encode::error(text));
                }
                Settled::Fault => return (&input[from..start], Some(Reason::Unasked)),
            }
            self.send_locals(input, &mut from, pos);
        }
        let hidden = self.hiding && self.replies.in_frame();
        self.partial = self.replies.in_frame() && !hidden;
        (if hidden { &[] } else { &input[from..] }, None)
    }

    /// The usual case: whole replies to plain requests, which need no more than to be counted.
    /// Stops before anything else.
    fn settle_plain(&mut self, input: &[u8], pos: &mut usize) -> u32 {
        let plain = self.owed.plain(&self.state);
        let mut answered = 0;
        while answered < plain
            && let Some(len) = short_reply(&input[*pos..])
        {
            *pos += len;
            answered += 1;
        }
        if answered > 0 {
            self.owed.settle_plain(answered);
        }
        answered
    }

    /// Those whose turn has come, after what goes down before `pos`.
    fn send_locals(&mut self, input: &[u8], from: &mut usize, pos: usize) {
        while let Some(local) = self.owed.take_local() {
            self.to_client.push(&input[*from..pos]);
            *from = pos;
            self.send_local(&local);
        }
    }

    /// A reply of the proxy's own goes down now.
    pub(super) fn send_local(&mut self, reply: &[u8]) {
        if let Some(taps) = &mut self.taps {
            taps.down.restart();
            taps.down.feed(reply);
            taps.down.reply(self.peer, false);
        }
        self.to_client.push(reply);
    }

    fn log_reply(&mut self) {
        if let Some(taps) = &mut self.taps {
            taps.down.reply(self.peer, self.hiding || self.owed.is_secret());
        }
    }
}
