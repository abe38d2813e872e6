//! Requests whose arguments matter: they were held until their end.

use super::Session;
use super::blocking::Sending;
use super::intake::{NotYet, Verdict};
use super::listening::{NOT_IN_MULTI, asks_for_notices};
use super::protocol::expected::{Expected, Mode, Question};
use super::protocol::pending::Audience;
use super::protocol::replay::OneShot;
use super::protocol::transaction::{Fate, TooMuch};
use super::route::{NOT_YOURS, TOO_LONG};
use crate::changeover::Marker;
use crate::changeover::client_ids::At;
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
            Class::Client if asks_for_notices(&args) => {
                if !self.pending.is_empty() {
                    self.intake.awaits_reply = true;
                    return Err(NotYet::RepliesOwed);
                }
                self.listen(&args);
                Ok(())
            }
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
            self.link.push(frame, &self.pending);
            return Ok(());
        }
        let awaited = Expected::of(class, args, true);
        let refusal = if Mode::of(args).is_some_and(|_| class == Class::Client) {
            // In Redis, it would leave EXEC's reply without its end, for which everybody waits.
            Some(REPLY_IN_MULTI)
        } else if class == Class::Client && asks_for_notices(args) {
            Some(NOT_IN_MULTI)
        } else if names_own_channel(class, args) {
            Some(NOT_YOURS)
        } else {
            self.note_queued(&awaited).err().map(|TooMuch| TOO_LONG)
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
            // It names clients by ids of this run of the server.
            Some(request) => self.link.push_once(&request),
            None => self.link.push(frame, &self.pending),
        }
        Ok(())
    }

    fn forward(&mut self, frame: &[u8], awaited: Expected) -> Result<(), GateShut> {
        self.admit()?;
        self.use_up_one_shot(Class::Plain);
        self.expect(awaited);
        self.link.push(frame, &self.pending);
        Ok(())
    }

    /// Sends a command that may wait for data. Nothing goes up behind it before its reply is here:
    /// so it can be interrupted, and asked again elsewhere, and what comes after it stays behind.
    fn block(&mut self, frame: &[u8], timeout: Timeout) -> Result<(), GateShut> {
        self.admit()?;
        let one_shot = self.requested.one_shot().is_some();
        self.use_up_one_shot(Class::Plain);
        match self.blocking.send(frame, timeout, one_shot, clock::now()) {
            Sending::Interruptible(streams) => {
                for (at, stream) in streams {
                    self.pending.push_own(Expected::Asked(Question::Position(at)));
                    self.link.out.push(&encode::request([b"XINFO", &b"STREAM"[..], &stream]));
                }
                self.expect(Expected::Blocking);
                self.link.push(self.blocking.frame(), &self.pending);
            }
            Sending::Uninterruptible(frame) => {
                self.expect(Expected::MayBlock);
                self.link.push(&frame, &self.pending);
            }
            Sending::TimedOut => {
                // It was admitted, and is over.
                self.take_back_admitted();
                self.answer(self.timed_out().to_vec());
            }
        }
        Ok(())
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
        self.link.push(frame, &self.pending);
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

    /// Sends RESET, and takes in nothing more before it is known whether the uplink knows it.
    fn reset(&mut self, frame: &[u8]) -> Result<(), GateShut> {
        self.admit()?;
        self.expect(Expected::Reset);
        self.intake.awaits_reply = true;
        self.link.push(frame, &self.pending);
        Ok(())
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
            self.link.push(&encode::request(["CLIENT", "REPLY", "ON"]), &self.pending);
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
            // It names clients by ids of this run of the server.
            Some(request) => self.link.push_once(&request),
            None => self.link.push(frame, &self.pending),
        }
        Ok(())
    }
}

/// Whether one of the names is a channel of the proxy's own.
fn names_own_channel(class: Class, args: &[&[u8]]) -> bool {
    match class {
        Class::Subscribe(_) => args.iter().skip(1).any(|name| Marker::is_own(name)),
        Class::Publish => args.get(1).is_some_and(|name| Marker::is_own(name)),
        _ => false,
    }
}
