//! Replies that the proxy makes itself, at their place among those of the uplink.

use super::Session;
use super::protocol::expected::Expected;
use super::protocol::pending::Audience;
use super::protocol::requested::Silence;

impl Session {
    /// Gives a reply of the proxy's own, which keeps its place behind those owed by the uplink.
    pub(super) fn answer(&mut self, reply: Vec<u8>) {
        if self.take_audience() == Audience::Nobody {
            return;
        }
        if self.pending.is_empty() && !self.replies.scanner.in_frame() {
            self.send_local(&reply);
        } else {
            self.pending.push_own(Expected::Local(reply.into_boxed_slice()));
        }
    }

    /// Sends a reply of the proxy's own down now.
    pub(super) fn send_local(&mut self, reply: &[u8]) {
        if let Some(taps) = &mut self.taps {
            taps.down.restart();
            taps.down.feed(reply);
            taps.down.reply(self.peer, false);
        }
        self.to_client.push(reply);
    }

    /// Whether the client hears the reply; uses up CLIENT REPLY SKIP.
    pub(super) fn take_audience(&mut self) -> Audience {
        match self.requested.silence() {
            Silence::No => Audience::Client,
            Silence::Always => Audience::Nobody,
            Silence::Next => {
                self.requested.set_silence(Silence::No);
                Audience::Nobody
            }
        }
    }

    /// What a blocking command answers when it has waited long enough.
    pub(super) fn timed_out(&self) -> &'static [u8] {
        if self.state.resp3 { b"_\r\n" } else { b"*-1\r\n" }
    }
}
