//! Requests whose arguments matter: they were held until their end.

use std::time::Instant;

use super::Session;
use super::auth;
use super::awaited::{Awaited, Names, Question};
use super::blocking::{self, Blocked};
use super::commands::{OK, Route, Silence, Verdict};
use super::effect::{Effect, effect};
use super::ids;
use super::replay::OneShot;
use crate::command::{self, Channel, Class, Timeout};
use crate::resp::{Args, encode};

const REPLY_IN_MULTI: &str = "ERR CLIENT REPLY is not allowed inside a transaction";
const TOO_LONG: &str = "ERR redis-proxy: request too long";

impl Session {
    /// A collected request is complete; false if the gate is shut to it.
    pub(super) fn collected(&mut self, class: Class, frame: &[u8]) -> bool {
        let args: Vec<&[u8]> = Args::new(frame).collect();
        let taken = match class {
            Class::Reset => self.reset(frame, args.len() == 1),
            _ if self.intake.transaction.is_some() => self.collected_in_multi(class, frame, &args),
            Class::Auth => {
                match auth::auth(self.generation.listen.config.login.as_deref(), &args) {
                    Ok(()) => {
                        self.let_in();
                        self.answer(OK.to_vec());
                    }
                    Err(text) => self.answer(encode::error(text)),
                }
                true
            }
            Class::Hello => self.hello(&args),
            Class::Client => self.client_command(frame, &args),
            Class::Blocking(timeout) => self.block(frame, timeout),
            Class::Read if command::blocks(args.iter().copied()) => {
                self.block(frame, Timeout::Block)
            }
            Class::Subscribe(_) | Class::Unsubscribe(_) => {
                let names: Vec<_> = args[1..].iter().map(|name| Box::from(*name)).collect();
                self.subscribe(class, frame, u32::try_from(names.len()).unwrap_or(0), Some(names))
            }
            Class::Eval | Class::Script => {
                let taken = self.forward(frame, Awaited::Plain);
                if taken {
                    self.note_script(class, &args);
                }
                taken
            }
            _ => {
                let awaited = effect(class, &args).map_or(Awaited::Plain, effect_of);
                self.forward(frame, awaited)
            }
        };
        self.intake.is_ordinary = self.is_ordinary();
        taken
    }

    fn collected_in_multi(&mut self, class: Class, frame: &[u8], args: &[&[u8]]) -> bool {
        if !self.admit() {
            return false;
        }
        // These are refused there, without any consequence in most versions.
        if matches!(class, Class::Multi | Class::Watch) {
            self.push_queued(|transaction| transaction.push_refused(Some(frame)));
            self.expect(Awaited::Plain);
            self.to_uplink.push(frame);
            return true;
        }
        // In Redis, it would leave EXEC's reply without its end, for which everybody waits.
        if class == Class::Client && args.get(1).is_some_and(|it| it.eq_ignore_ascii_case(b"REPLY"))
        {
            self.discarded(Verdict::RefuseInMulti(REPLY_IN_MULTI));
            return true;
        }
        self.note_script(class, args);
        let epoch = self.generation.epoch;
        let place = if class == Class::Client { ids::place(args) } else { None };
        let effect = effect(class, args);
        if !self.intake.transaction.as_ref().is_some_and(|it| it.can_note(effect.as_ref())) {
            self.discarded(Verdict::RefuseInMulti(TOO_LONG));
            return true;
        }
        self.note_redirect(effect.as_ref());
        self.push_queued(|transaction| {
            transaction.push(Some(frame), effect);
            if let Some(place) = place {
                transaction.note_ids(place);
            }
            if class == Class::Secret {
                transaction.note_secret();
            }
        });
        self.expect(Awaited::Queued);
        match self.shared.ids.request(Some(epoch), if class == Class::Client { args } else { &[] })
        {
            Some(request) => self.to_uplink.push(&request),
            None => self.to_uplink.push(frame),
        }
        true
    }

    /// A request that was collected is longer than may be held.
    pub(super) fn too_long(&mut self, class: Class) {
        let args = self.intake.scanner.args();
        let in_multi = self.intake.transaction.is_some();
        let route = match class {
            Class::Auth | Class::Hello | Class::Client if !in_multi => {
                Route::Discard(Verdict::Refuse(TOO_LONG))
            }
            Class::Subscribe(_) | Class::Unsubscribe(_) | Class::Client if in_multi => {
                if !self.admit() {
                    return self.park(Some((class, args)), &[]);
                }
                Route::Discard(Verdict::RefuseInMulti(TOO_LONG))
            }
            _ if !self.admit() => return self.park(Some((class, args)), &[]),
            _ if in_multi => self.queue_unkept(),
            Class::Subscribe(channel) => {
                let names = Box::new(Names { left: args - 1, names: None });
                Route::Forward { owed: self.expect(Awaited::Subscribed(channel, names)) }
            }
            Class::Unsubscribe(channel) => {
                let names = Box::new(Names { left: args - 1, names: None });
                Route::Forward { owed: self.expect(Awaited::Unsubscribed(channel, names)) }
            }
            // It may have BLOCK, further on.
            Class::Read | Class::Blocking(_) => {
                Route::Forward { owed: self.expect(Awaited::Waiting) }
            }
            Class::Watch => {
                let many = Awaited::Effect(Box::new(Effect::WatchMany));
                Route::Forward { owed: self.expect(many) }
            }
            _ => Route::Forward { owed: self.expect(Awaited::Plain) },
        };
        self.begin(route);
        self.intake.is_ordinary = self.is_ordinary();
    }

    fn forward(&mut self, frame: &[u8], awaited: Awaited) -> bool {
        if !self.admit() {
            return false;
        }
        self.use_up_one_shot(Class::Plain);
        self.expect(awaited);
        self.to_uplink.push(frame);
        true
    }

    /// Sends a command that may wait for data. Nothing goes up behind it before its reply is here:
    /// so it can be interrupted, and asked again elsewhere, and what comes after it stays behind.
    fn block(&mut self, frame: &[u8], timeout: Timeout) -> bool {
        if !self.admit() {
            return false;
        }
        let args: Vec<&[u8]> = Args::new(frame).collect();
        let new_entries = !blocking::new_entries(&args).is_empty();
        // A request of the proxy's own ahead of it would use that up.
        let alone = self.intake.one_shot.is_some() && new_entries;
        self.use_up_one_shot(Class::Plain);
        let now = Instant::now();
        let resumed = self.intake.resumed.take();
        let left = resumed.as_ref().and_then(|resumed| resumed.until);
        let shortened = left.map(|until| {
            blocking::with_time_left(frame, timeout, until.saturating_duration_since(now))
        });
        let frame = match &shortened {
            None => frame,
            Some(Some(shortened)) => shortened,
            Some(None) => {
                // It was admitted, and is over.
                self.take_back_admitted();
                self.answer(self.timed_out().to_vec());
                return true;
            }
        };
        let silent = self.intake.silence != Silence::No;
        let waits = Blocked::new(frame, timeout, now).filter(|_| !silent && !alone);
        let Some(mut blocked) = waits else {
            self.expect(Awaited::Waiting);
            self.to_uplink.push(frame);
            return true;
        };
        if let Some(resumed) = resumed {
            // The time between does not count.
            blocked.since = resumed.since + (now - resumed.interrupted);
        }
        let args: Vec<&[u8]> = Args::new(frame).collect();
        for (at, stream) in blocking::new_entries(&args) {
            self.owed.push(Awaited::Asked(Question::Position(at)), b"");
            self.to_uplink.push(&encode::request([b"XINFO", &b"STREAM"[..], stream]));
        }
        self.expect(Awaited::Blocking);
        self.to_uplink.push(frame);
        self.blocked = Some(Box::new(blocked));
        self.mark();
        true
    }

    /// What a blocking command answers when it has waited long enough.
    pub(super) fn timed_out(&self) -> &'static [u8] {
        if self.state.resp3 { b"_\r\n" } else { b"*-1\r\n" }
    }

    fn subscribe(
        &mut self,
        class: Class,
        frame: &[u8],
        left: u32,
        names: Option<Vec<Box<[u8]>>>,
    ) -> bool {
        let names = Box::new(Names { left, names: names.map(Vec::into_iter) });
        let awaited = match class {
            Class::Subscribe(_) if left == 0 => Awaited::Plain,
            Class::Subscribe(channel) => Awaited::Subscribed(channel, names),
            Class::Unsubscribe(channel) => Awaited::Unsubscribed(channel, names),
            _ => Awaited::Plain,
        };
        if !self.admit() {
            return false;
        }
        // In RESP2, with the proxy's own channel left, the client would not be let out of its
        // subscriptions; and its shard channels are counted.
        if !matches!(class, Class::Subscribe(Channel::Name | Channel::Pattern)) {
            self.unsubscribe_mark();
        }
        self.use_up_one_shot(class);
        self.expect(awaited);
        self.to_uplink.push(frame);
        true
    }

    fn note_script(&mut self, class: Class, args: &[&[u8]]) {
        match (class, args) {
            (Class::Eval, [_, script, ..]) => self.shared.scripts.evaluated(script),
            (Class::Script, [_, sub, script]) if sub.eq_ignore_ascii_case(b"LOAD") => {
                self.shared.scripts.loaded(script);
            }
            (Class::Script, [_, sub, ..]) if sub.eq_ignore_ascii_case(b"FLUSH") => {
                self.shared.scripts.flushed();
            }
            _ => {}
        }
    }

    fn hello(&mut self, args: &[&[u8]]) -> bool {
        match auth::hello(self.generation.listen.config.login.as_deref(), args) {
            Err(text) => self.answer(encode::error(text)),
            Ok(hello) if !hello.authenticated && !self.intake.authenticated => {
                self.answer(encode::error(auth::NOAUTH));
            }
            Ok(hello) => {
                if !self.admit() {
                    return false;
                }
                self.unsubscribe_mark();
                self.use_up_one_shot(Class::Hello);
                let awaited = self.with_ids(args, Awaited::Hello(hello.name));
                self.expect(awaited);
                self.to_uplink.push(&hello.request);
                if hello.authenticated {
                    self.let_in();
                }
            }
        }
        true
    }

    /// The client has shown the password that is in force.
    fn let_in(&mut self) {
        self.intake.authenticate(true);
        self.let_in_by.clone_from(&self.generation.listen.config.login);
    }

    /// After a switch, ids are not those of the uplink any more.
    fn with_ids(&self, args: &[&[u8]], awaited: Awaited) -> Awaited {
        let replaced = !self.shared.ids.are_the_uplinks(self.generation.epoch);
        match ids::place(args).filter(|_| replaced) {
            Some(place) => Awaited::Ids(place, Box::new(awaited)),
            None => awaited,
        }
    }

    /// RESET logs the uplink connection out, and the client too.
    fn reset(&mut self, frame: &[u8], valid: bool) -> bool {
        if !valid {
            return self.forward(frame, Awaited::Plain);
        }
        if !self.admit() {
            return false;
        }
        self.forget_mark();
        self.intake.fails = false;
        self.intake.transaction = None;
        self.intake.one_shot = None;
        self.intake.silence = Silence::No;
        self.to_uplink.push(frame);
        self.expect(Awaited::Reset);
        let generation = self.generation.clone();
        if let Some(auth) = generation.uplink.auth() {
            self.to_uplink.push(&auth);
            self.owed.push(Awaited::Own, b"");
        }
        self.intake.authenticate(generation.listen.config.login.is_none());
        self.mark();
        true
    }

    fn client_command(&mut self, frame: &[u8], args: &[&[u8]]) -> bool {
        let silence = match args {
            [_, reply, mode] if reply.eq_ignore_ascii_case(b"REPLY") => {
                match (&mode.to_ascii_uppercase()[..], self.intake.silence) {
                    (b"ON", _) => Some(Silence::No),
                    (b"OFF", _) | (b"SKIP", Silence::Always) => Some(Silence::Always),
                    (b"SKIP", _) => Some(Silence::Next),
                    _ => None,
                }
            }
            _ => None,
        };
        if silence == Some(Silence::Next) {
            self.intake.silence = Silence::Next;
            return true;
        }
        if !self.admit() {
            return false;
        }
        // CLIENT REPLY has no reply of its own but for ON. It is refused where only subscriptions are
        // listened to.
        let refused = !self.state.resp3 && self.owed.will_be_subscribed(&self.state);
        if let Some(silence) = silence {
            self.intake.silence = if refused { self.intake.silence } else { silence };
            self.expect(Awaited::Plain);
            self.to_uplink.push(frame);
            self.mark();
            return true;
        }
        if let [_, caching, on] = args
            && caching.eq_ignore_ascii_case(b"CACHING")
        {
            self.intake.one_shot = Some(OneShot::Caching(on.eq_ignore_ascii_case(b"YES")));
        }
        let effect = effect(Class::Client, args);
        self.note_redirect(effect.as_ref());
        let awaited = effect.map_or(Awaited::Plain, effect_of);
        let awaited = self.with_ids(args, awaited);
        self.expect(awaited);
        match self.shared.ids.request(Some(self.generation.epoch), args) {
            Some(request) => self.to_uplink.push(&request),
            None => self.to_uplink.push(frame),
        }
        true
    }

    fn note_redirect(&self, effect: Option<&Effect>) {
        if let Some(Effect::Track(tracking)) = effect
            && let Some(target) = tracking.redirect
        {
            self.shared.ids.redirected(target);
        }
    }
}

fn effect_of(effect: Effect) -> Awaited {
    Awaited::Effect(Box::new(effect))
}
