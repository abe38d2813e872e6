//! Requests whose arguments matter: they were held until their end.

use super::Session;
use super::blocking::Sending;
use super::intake::{NotYet, Verdict};
use super::protocol::auth;
use super::protocol::effect::Effect;
use super::protocol::expected::{Expected, Mode, Question};
use super::protocol::pending::Audience;
use super::protocol::queue::Awaited;
use super::protocol::replay::OneShot;
use super::protocol::transaction::Fate;
use super::route::{NOT_YOURS, OK, TOO_LONG};
use crate::changeover::Marker;
use crate::changeover::client_ids::{self as ids, At};
use crate::clock;
use crate::command::{self, Brought, Channel, Class, Timeout, words};
use crate::gate::GateShut;
use crate::resp::{Args, encode};

const REPLY_IN_MULTI: &str = "ERR CLIENT REPLY is not allowed inside a transaction";

impl Session {
    /// A request whose arguments matter is complete.
    pub(super) fn inspect(&mut self, class: Class, frame: &[u8]) -> Result<(), NotYet> {
        let args: Vec<&[u8]> = Args::new(frame).collect();
        self.requested.unknown |= class == Class::Client
            && args
                .get(1)
                .is_some_and(|it| self.generation.uplink.commands.is_unknown_of_client(it));
        let taken: Result<(), GateShut> = match class {
            Class::Reset if args.len() == 1 => self.reset(frame),
            _ if self.requested.transaction().is_some() => {
                self.inspect_in_multi(class, frame, &args)
            }
            // What is answered here depends on what is outstanding, as on a subscription.
            Class::Auth | Class::Hello if self.pending.may_change_the_state() => {
                self.intake.awaits_reply = true;
                return Err(NotYet::RepliesOwed);
            }
            Class::Auth => {
                self.auth(&args);
                Ok(())
            }
            Class::Hello => self.hello(&args),
            Class::Client => self.client_command(frame, &args),
            Class::Blocking(timeout) => self.block(frame, timeout),
            Class::Read if command::blocks(args.iter().copied()) => {
                self.block(frame, Timeout::Block)
            }
            Class::Subscribe(_) | Class::Publish if names_own_channel(class, &args) => {
                self.answer(encode::error(NOT_YOURS));
                Ok(())
            }
            Class::Subscribe(_) | Class::Unsubscribe(_) => self.subscribe(class, frame, &args),
            Class::Eval | Class::Script => {
                let taken = self.forward(frame, Expected::Plain);
                if taken.is_ok() {
                    self.note_script(class, &args);
                }
                taken
            }
            _ => self.forward(frame, Expected::of(class, &args, false)),
        };
        Ok(taken?)
    }

    fn inspect_in_multi(
        &mut self,
        class: Class,
        frame: &[u8],
        args: &[&[u8]],
    ) -> Result<(), GateShut> {
        self.admit()?;
        let awaited = match class {
            // These are refused there, without any consequence in most versions.
            Class::Multi if args.len() == 1 => Some(Expected::Nested),
            Class::Watch if args.len() > 1 => Some(Expected::of(class, args, false)),
            _ => None,
        };
        if let Some(awaited) = awaited {
            self.push_queued(|transaction| transaction.push(Some(frame), Fate::Refused));
            self.expect(awaited);
            self.link.out.push(frame);
            return Ok(());
        }
        let awaited = Expected::of(class, args, true);
        let refusal = if Mode::of(args).is_some_and(|_| class == Class::Client) {
            // In Redis, it would leave EXEC's reply without its end, for which everybody waits.
            Some(REPLY_IN_MULTI)
        } else if names_own_channel(class, args) {
            Some(NOT_YOURS)
        } else if !self.note_queued(&awaited) {
            Some(TOO_LONG)
        } else {
            None
        };
        if let Some(text) = refusal {
            self.discarded(Verdict::RefuseInMulti(text));
            return Ok(());
        }
        self.note_script(class, args);
        self.push_queued(|transaction| transaction.push(Some(frame), Fate::Queued));
        self.expect(Expected::Queued(match awaited {
            Expected::Plain => None,
            awaited => Some(Box::new(awaited)),
        }));
        match self.shared.ids.request(At::Present, if class == Class::Client { args } else { &[] })
        {
            Some(request) => self.link.out.push(&request),
            None => self.link.out.push(frame),
        }
        Ok(())
    }

    /// Remembers what a request in a transaction means; false if that is too much.
    fn note_queued(&mut self, awaited: &Expected) -> bool {
        let Some(transaction) = self.requested.transaction_mut() else { return true };
        if let Expected::Effect(effect) = awaited
            && let Effect::Select(db) = **effect
        {
            transaction.note_database(db);
        }
        transaction.note(awaited.size())
    }

    fn forward(&mut self, frame: &[u8], awaited: Expected) -> Result<(), GateShut> {
        self.admit()?;
        self.use_up_one_shot(Class::Plain);
        self.expect(awaited);
        self.link.out.push(frame);
        Ok(())
    }

    fn auth(&mut self, args: &[&[u8]]) {
        let login = self.generation.listen.config.login.as_deref();
        let answer = auth::auth(login, args);
        match answer {
            _ if self.listens_only() && args.len() > 1 => self.answer(only_subscribed("auth")),
            Ok(()) => {
                self.let_in();
                self.answer(OK.to_vec());
            }
            Err(text) => self.refuse_login(text),
        }
    }

    /// Sends a command that may wait for data. Nothing goes up behind it before its reply is here:
    /// so it can be interrupted, and asked again elsewhere, and what comes after it stays behind.
    fn block(&mut self, frame: &[u8], timeout: Timeout) -> Result<(), GateShut> {
        self.admit()?;
        let one_shot = self.requested.one_shot().is_some();
        self.use_up_one_shot(Class::Plain);
        match self.blocking.send(frame, timeout, one_shot, clock::now()) {
            Sending::Waits(streams) => {
                for (at, stream) in streams {
                    self.pending.push_own(Expected::Asked(Question::Position(at)));
                    self.link.out.push(&encode::request([b"XINFO", &b"STREAM"[..], &stream]));
                }
                self.expect(Expected::Blocking);
                self.link.out.push(self.blocking.frame());
            }
            Sending::Stays(frame) => {
                self.expect(Expected::Waiting);
                self.link.out.push(&frame);
            }
            Sending::TimedOut => {
                // It was admitted, and is over.
                self.take_back_admitted();
                self.answer(self.timed_out().to_vec());
            }
        }
        self.publish_facets();
        Ok(())
    }

    /// What a blocking command answers when it has waited long enough.
    pub(super) fn timed_out(&self) -> &'static [u8] {
        if self.state.resp3 { b"_\r\n" } else { b"*-1\r\n" }
    }

    fn subscribe(&mut self, class: Class, frame: &[u8], args: &[&[u8]]) -> Result<(), GateShut> {
        self.admit()?;
        // In RESP2, with the proxy's own channel left, the client would not be let out of its
        // subscriptions; and its shard channels are counted.
        if !matches!(class, Class::Subscribe(Channel::Name | Channel::Pattern)) {
            self.unsubscribe_mark();
        }
        self.use_up_one_shot(class);
        self.expect(Expected::of(class, args, false));
        self.link.out.push(frame);
        Ok(())
    }

    /// Remembers the script that a whole request brings, if the server will look at it.
    fn note_script(&self, class: Class, args: &[&[u8]]) {
        let is_taken = match (class, args) {
            (Class::Eval, [_, _, count, keys @ ..]) => words::integer(count)
                .and_then(|it| usize::try_from(it).ok())
                .is_some_and(|count| count <= keys.len()),
            (Class::Script, [_, sub, ..]) if words::is(sub, "FLUSH") => {
                return self.shared.scripts.flushed();
            }
            (Class::Script, [_, _, _]) => true,
            _ => false,
        };
        if is_taken {
            self.note_brought(class, args.iter().copied());
        }
    }

    /// Remembers the script that a request brings, of which these arguments have come.
    pub(super) fn note_brought<'a>(&self, class: Class, args: impl Iterator<Item = &'a [u8]>) {
        match Brought::by(class, args) {
            Some(Brought::Evaluated(script)) => self.shared.scripts.evaluated(script),
            Some(Brought::Loaded(script)) => self.shared.scripts.loaded(script),
            Some(Brought::Coming) | None => {}
        }
    }

    /// A login that is refused here; a wrong password has consequences.
    fn refuse_login(&mut self, text: &str) {
        let reply = encode::error(text);
        match text == auth::WRONGPASS {
            true => self.login_failed(reply),
            false => self.answer(reply),
        }
    }

    fn hello(&mut self, args: &[&[u8]]) -> Result<(), GateShut> {
        match auth::hello(self.generation.listen.config.login.as_deref(), args) {
            _ if self.listens_only() => self.answer(only_subscribed("hello")),
            Err(refusal) => {
                if let Some(request) = refusal.behind_name
                    && self.requested.is_authenticated()
                {
                    self.fail_at_uplink(&request)?;
                }
                self.refuse_login(refusal.text);
            }
            Ok(hello) if !hello.authenticated && !self.requested.is_authenticated() => {
                self.answer(encode::error(auth::NOAUTH));
            }
            Ok(hello) => {
                self.admit()?;
                self.unsubscribe_mark();
                self.use_up_one_shot(Class::Hello);
                let awaited = self.with_ids(args, Expected::Hello(hello.name));
                self.expect(awaited);
                self.link.out.push(&hello.request);
                if hello.authenticated {
                    self.let_in();
                }
            }
        }
        Ok(())
    }

    /// Sends a HELLO that fails behind a name, and asks which name the client has then. The client
    /// hears neither answer.
    fn fail_at_uplink(&mut self, hello: &[u8]) -> Result<(), GateShut> {
        self.admit()?;
        for (request, question) in
            [(hello, Question::Failure), (&encode::request(["CLIENT", "GETNAME"]), Question::Name)]
        {
            self.pending.push_own(Expected::Asked(question));
            self.link.out.push(request);
        }
        self.take_back_admitted();
        Ok(())
    }

    /// The client has shown the password that is in force.
    fn let_in(&mut self) {
        self.logged_in();
        self.login.by.clone_from(&self.generation.listen.config.login);
    }

    /// After a switch, ids are not those of the uplink any more.
    fn with_ids(&self, args: &[&[u8]], awaited: Expected) -> Expected {
        let replaced = !self.shared.ids.are_the_uplinks();
        match ids::place(args).filter(|_| replaced) {
            Some(place) => Expected::Ids(place, Box::new(awaited)),
            None => awaited,
        }
    }

    /// Sends RESET, and takes in nothing more before it is known whether the uplink knows it.
    fn reset(&mut self, frame: &[u8]) -> Result<(), GateShut> {
        self.admit()?;
        self.expect(Expected::Reset);
        self.intake.awaits_reply = true;
        self.link.out.push(frame);
        Ok(())
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
        self.publish_facets();
    }

    fn client_command(&mut self, frame: &[u8], args: &[&[u8]]) -> Result<(), GateShut> {
        self.admit()?;
        if let Some(mode) = Mode::of(args) {
            // The uplink goes on to answer, but it is asked whether the client may have this.
            self.pending.push(
                Expected::Asked(Question::Silence(mode)),
                b"client",
                Audience::Client,
            );
            self.link.out.push(&encode::request(["CLIENT", "REPLY", "ON"]));
            self.intake.awaits_reply = true;
            return Ok(());
        }
        if let [_, caching, on] = args
            && caching.eq_ignore_ascii_case(b"CACHING")
        {
            let yes = on.eq_ignore_ascii_case(b"YES");
            self.requested.set_one_shot(Some(OneShot::Caching(yes)));
            self.expect(Expected::Caching);
        } else {
            let replaced = !self.shared.ids.are_the_uplinks();
            self.expect(Expected::of(Class::Client, args, replaced));
        }
        match self.shared.ids.request(At::Present, args) {
            Some(request) => self.link.out.push(&request),
            None => self.link.out.push(frame),
        }
        Ok(())
    }
}

/// What Redis says where it takes nothing but subscriptions.
fn only_subscribed(command: &str) -> Vec<u8> {
    encode::error(&format!(
        "ERR Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context"
    ))
}

/// Whether one of the names is a channel of the proxy's own.
fn names_own_channel(class: Class, args: &[&[u8]]) -> bool {
    match class {
        Class::Subscribe(_) => args.iter().skip(1).any(|name| Marker::is_own(name)),
        Class::Publish => args.get(1).is_some_and(|name| Marker::is_own(name)),
        _ => false,
    }
}
