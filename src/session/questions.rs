//! What the uplink answers to questions of the proxy's own.

use super::Session;
use super::blocking;
use super::protocol::effect::Effect;
use super::protocol::expected::{Expected, Mode, Question};
use super::protocol::requested::Silence;
use super::route::OK;
use crate::changeover::client_ids as ids;
use crate::resp::encode;

impl Session {
    /// The old uplink has answered the proxy's own question.
    pub(super) fn hear(&mut self, question: Question, reply: &[u8]) {
        match question {
            Question::Position(at) => self.blocking.resolve(at, blocking::position(reply)),
            Question::Touched => {
                if let Some(cutover) = self.handover.cutover() {
                    cutover.untouched.answer(reply == b"*0\r\n");
                }
            }
            Question::Barrier | Question::Failure => {}
            Question::Id => self.learn_id(reply),
            Question::Flags => self.learn_flags(reply),
            Question::Name => self.learn_name(reply),
            Question::NameInInfo => {
                if let Some(name) = field(reply, b"name=") {
                    self.state.apply(Effect::Name(name.into()));
                }
            }
            Question::Silence(mode) => self.learn_silence(mode, reply),
        }
    }

    fn learn_id(&mut self, reply: &[u8]) {
        let id = reply.strip_prefix(b":").and_then(|line| line.strip_suffix(b"\r\n"));
        match id.and_then(ids::number) {
            Some(id) => self.is_known_as(id),
            // A user without the right to ask is a user all the same, and is served.
            None if reply.starts_with(b"-NOPERM") => {}
            None => self.link.refusal = reply.strip_prefix(b"-").map(Box::from),
        }
    }

    /// The name that the client has, as far as it may be asked for.
    fn learn_name(&mut self, reply: &[u8]) {
        let bulk = reply.strip_prefix(b"$").and_then(|rest| rest.strip_suffix(b"\r\n"));
        if let Some(end) = bulk.and_then(|rest| memchr::memchr(b'\n', rest)) {
            self.state.apply(Effect::Name(Box::from(&bulk.unwrap_or_default()[end + 1..])));
        }
    }

    /// RESET has logged the uplink connection out, and the client too.
    pub(super) fn was_reset(&mut self) {
        self.forget_mark();
        let generation = self.generation.clone();
        if let Some(auth) = generation.uplink.auth() {
            self.link.out.push(&auth);
            self.pending.push_own(Expected::Own);
        }
        if self.state.take_kept_flags() {
            self.link.out.push(&encode::request(["CLIENT", "INFO"]));
            self.pending.push_own(Expected::Asked(Question::Flags));
        }
        let authenticated = generation.listen.config.login.is_none();
        self.requested.reset(authenticated);
        self.intake.set_limits(authenticated);
    }

    /// Some versions keep these flags through RESET.
    pub(super) fn learn_flags(&mut self, info: &[u8]) {
        let flags = field(info, b"flags=").unwrap_or_default();
        for (flag, effect) in [(b'e', Effect::NoEvict(true)), (b'T', Effect::NoTouch(true))] {
            if flags.contains(&flag) {
                self.state.apply(effect);
            }
        }
    }

    /// Whether the client may have the silence that it asked for.
    pub(super) fn learn_silence(&mut self, mode: Mode, reply: &[u8]) {
        if reply.starts_with(b"-") {
            return match self.requested.silence() {
                Silence::No => self.send_local(reply),
                Silence::Next => self.requested.set_silence(Silence::No),
                Silence::Always => {}
            };
        }
        match (mode, self.requested.silence()) {
            (Mode::On, _) => {
                self.requested.set_silence(Silence::No);
                self.send_local(OK);
            }
            (Mode::Off, _) | (Mode::Skip, Silence::Always) => {
                self.requested.set_silence(Silence::Always)
            }
            (Mode::Skip, Silence::No | Silence::Next) => self.requested.set_silence(Silence::Next),
        }
    }
}

/// A field of CLIENT INFO; `name` ends with `=`.
fn field<'a>(info: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut words = info.split(|byte| byte.is_ascii_whitespace());
    words.find_map(|word| word.strip_prefix(name))
}
