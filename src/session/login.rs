//! Who is let in: passwords that a client gave, and what follows from a wrong one.

use std::task::Context;
use std::time::Duration;

use tracing::warn;

use super::Session;
use super::protocol::auth;
use crate::clock;
use crate::generation::Shown;
use crate::log::RateLimit;
use crate::resp::encode;

/// How long a client that has not logged in waits after what it has sent was read.
pub(super) const STRANGERS_PACE: Duration = Duration::from_millis(1);
/// How long a client waits after a wrong password, for each that it gave so far; and at most.
const FAILED_LOGIN: Duration = Duration::from_millis(20);
const LONGEST_PENALTY: Duration = Duration::from_secs(1);

impl Session {
    /// Notes whether the client has logged in, and sets how long its requests may be.
    pub(super) fn authenticate(&mut self, authenticated: bool) {
        self.requested.set_authenticated(authenticated);
        self.intake.set_limits(authenticated);
    }

    /// The login succeeded: the client counts as a stranger no more, and keeps its place.
    fn logged_in(&mut self) {
        self.authenticate(true);
        self.dispensable = None;
    }

    /// The client has shown the password that is in force.
    pub(super) fn let_in(&mut self) {
        self.logged_in();
        self.login.by.clone_from(&self.generation.listen.config.login);
    }

    /// Whether what the client has shown lets it in today. Before AUTH, it has yet to show that.
    pub(super) fn would_be_let_in(&self) -> bool {
        let listen = &self.generation.listen;
        let login = &listen.config.login;
        let is_known =
            login.is_none() || !self.requested.is_authenticated() || self.login.by == *login;
        is_known && listen.takes(&Shown::on(&self.client))
    }

    /// A login that is refused here; a wrong password has consequences.
    pub(super) fn refuse_login(&mut self, text: &str) {
        let reply = encode::error(text);
        match text == auth::WRONGPASS {
            true => self.login_failed(reply),
            false => self.answer(reply),
        }
    }

    /// The client gave a wrong password, and is told so late. Each makes the next take longer, and all clients
    /// together are told of so many in a second only.
    fn login_failed(&mut self, reply: Vec<u8>) {
        static FAILED: RateLimit = RateLimit::one_a_second();
        self.shared.metrics.logins_failed.inc();
        if let Some(suppressed) = FAILED.pass() {
            warn!(client = %self.peer, suppressed, "a client gave a wrong password, or user");
        }
        self.login.failed = self.login.failed.saturating_add(1);
        let now = clock::now();
        let own = (FAILED_LOGIN * self.login.failed).min(LONGEST_PENALTY);
        let of_all = self.shared.strangers.failed_login(now) - now;
        self.slow_down(own.max(of_all));
        self.login.late_reply = Some(reply);
    }

    /// Stops reading the client for at least this time.
    pub(super) fn slow_down(&mut self, time: Duration) {
        let until = clock::now() + time;
        self.login.slowed_until = self.login.slowed_until.max(Some(until));
    }

    /// Whether the client is not read for now: one that guesses passwords, or floods before it has logged in, is read
    /// slowly. At the end of that time, the client is told of its wrong password.
    pub(super) fn slowed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.login.slowed_until else { return false };
        if self.timer.poll(until, cx).is_pending() {
            return true;
        }
        self.login.slowed_until = None;
        if let Some(reply) = self.login.late_reply.take() {
            self.answer(reply);
        }
        false
    }
}
