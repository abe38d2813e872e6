//! Limits in time: of requests, of clients that do not read, and of those that let others wait.

use std::task::Context;
use std::time::Instant;

use super::Session;
use super::close::{LAST_REPLIES, Reason};
use crate::clock;

impl Session {
    /// Looks at all limits, and has the task woken for the first of them.
    pub(super) fn poll_deadlines(&mut self, cx: &mut Context<'_>) {
        let oldest = self.pending.oldest();
        // A request that runs keeps the limit that it began with.
        let is_earlier =
            |replaced: Instant| oldest.is_some_and(|it| it.sent.is_none_or(|at| at < replaced));
        self.earlier.take_if(|earlier| !is_earlier(earlier.replaced));
        let earlier = self.earlier.as_ref().map(|earlier| &earlier.generation);
        let generation = earlier.unwrap_or(&self.generation);
        let settings = &generation.settings;
        let request = oldest.and_then(|oldest| {
            let limit = match oldest.blocking {
                true => settings.blocking_time_limit,
                false => settings.read_time_limit,
            }?;
            // One that was interrupted has waited before.
            let waits_since = self.blocking.since().filter(|_| oldest.blocking);
            Some((waits_since.unwrap_or(oldest.sent?) + limit, limit))
        });
        if let Some((at, limit)) = request
            && self.timer.poll(at, cx).is_ready()
        {
            self.lose_uplink(Reason::TimeLimit(limit));
            self.poll_flush(cx);
        }
        if let Some(until) = self.blocking.until_at_gate()
            && self.timer.poll(until, cx).is_ready()
        {
            self.end_interrupted(self.timed_out());
            self.poll_flush(cx);
        }
        self.poll_patience(cx);
        if self.ending.is_some() && self.pending.is_empty() && !self.to_client.is_clear() {
            let at = *self.read_by.get_or_insert_with(|| clock::now() + LAST_REPLIES);
            if self.timer.poll(at, cx).is_ready() {
                self.ending = Some(Reason::Unread);
            }
        }
    }
}
