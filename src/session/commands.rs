//! What becomes of each request: forwarded, looked at first, or answered by the proxy.

use super::Session;
use super::auth;
use super::awaited::{Awaited, Queued};
use super::close::Reason;
use super::tap::Secrecy;
use crate::command::{self, Class};
use crate::resp::{Args, encode};

const OK: &[u8] = b"+OK\r\n";
const NOT_IN_MULTI: &str = "ERR Command not allowed inside a transaction";

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Not decided yet.
    None,
    /// It goes up as it comes; with `owed`, a reply will come.
    Forward { owed: bool },
    /// It is held until its end.
    Collect(Class),
    /// It is passed over, and at its end this happens.
    Discard(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An error reply.
    Refuse(&'static str),
    /// As an error while queueing, which makes EXEC fail: the uplink is made to see one.
    RefuseInMulti(&'static str),
    Quit,
    /// Closed without a word.
    Http,
}

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    No,
    /// No reply to the next request. The uplink hears of it together with that request, which
    /// may be one that the proxy answers.
    Next,
    /// No replies.
    Always,
}

/// The commands of [`Class::Replication`].
fn unsupported(name: &[u8]) -> &'static str {
    match name {
        b"sync" => "ERR SYNC is not supported by redis-proxy on this listener; use listen_raw",
        b"psync" => "ERR PSYNC is not supported by redis-proxy on this listener; use listen_raw",
        _ => "ERR REPLCONF is not supported by redis-proxy on this listener; use listen_raw",
    }
}

impl Session {
    /// Decides what becomes of a request; `None` if the gate is shut to it.
    pub(super) fn head(&mut self, class: Class, args: u32) -> Option<Route> {
        let intake = &mut self.intake;
        intake.route = Route::None;
        intake.secrecy = match class {
            Class::Auth | Class::Hello | Class::Secret => Secrecy::Arguments,
            // Perhaps a password where a command should be.
            _ if !intake.authenticated => Secrecy::All,
            _ => Secrecy::None,
        };
        if class == Class::Http {
            return Some(Route::Discard(Verdict::Http));
        }
        if !intake.authenticated {
            return Some(match class {
                Class::Auth | Class::Hello => Route::Collect(class),
                Class::Quit => Route::Discard(Verdict::Quit),
                _ => Route::Discard(Verdict::Refuse(auth::NOAUTH)),
            });
        }
        let queueing = intake.queued.is_some();
        let refusal = match class {
            Class::Auth | Class::Hello if queueing => Some(NOT_IN_MULTI),
            Class::Replication => Some(unsupported(intake.scanner.name())),
            _ => None,
        };
        match refusal {
            None => {}
            Some(text) if !queueing => return Some(Route::Discard(Verdict::Refuse(text))),
            Some(text) => {
                return self.admit().then_some(Route::Discard(Verdict::RefuseInMulti(text)));
            }
        }
        let awaited = match class {
            Class::Quit => return Some(Route::Discard(Verdict::Quit)),
            Class::Auth
            | Class::Hello
            | Class::Select
            | Class::Read
            | Class::Client
            | Class::Reset => return Some(Route::Collect(class)),
            Class::Secret => Awaited::Secret,
            Class::Multi if !queueing && args == 1 => Awaited::Multi,
            Class::Exec if args == 1 => intake.queued.map_or(Awaited::Plain, Awaited::Exec),
            Class::Discard if queueing => Awaited::Watch(false),
            Class::Watch if !queueing => Awaited::Watch(true),
            Class::Unwatch if !queueing => Awaited::Watch(false),
            Class::Blocking if !queueing => Awaited::Blocking,
            Class::Subscribe(channel) if !queueing && args > 1 => {
                Awaited::Subscribed(channel, args - 1)
            }
            Class::Unsubscribe(channel) if !queueing => Awaited::Unsubscribed(channel, args - 1),
            Class::Monitor => Awaited::Monitor,
            Class::Plain
            | Class::Multi
            | Class::Exec
            | Class::Discard
            | Class::Watch
            | Class::Unwatch
            | Class::Blocking
            | Class::Subscribe(_)
            | Class::Unsubscribe(_)
            | Class::Replication
            | Class::Http => Awaited::Plain,
        };
        if !self.admit() {
            return None;
        }
        self.queue(class, args);
        Some(Route::Forward { owed: self.expect(awaited) })
    }

    /// A transaction begins, ends, or has one request more.
    fn queue(&mut self, class: Class, args: u32) {
        match (&mut self.intake.queued, class) {
            (queued @ None, Class::Multi) if args == 1 => *queued = Some(Queued::default()),
            (queued, Class::Exec | Class::Discard) if args == 1 => *queued = None,
            (Some(queued), Class::Secret) => queued.secrets = true,
            (Some(queued), Class::Subscribe(_)) if args > 1 => queued.subscribe(args - 1),
            // Without arguments, as many as there are by then: one, for want of knowledge.
            (Some(queued), Class::Unsubscribe(_)) => queued.subscribe((args - 1).max(1)),
            _ => {}
        }
    }

    /// The gate lets a request in. A new generation came before the gate opened, so whoever is let
    /// in sees it.
    fn admit(&mut self) -> bool {
        if self.intake.admitted == 0 {
            if !self.passes.enter() {
                return false;
            }
            if self.member.has_news() {
                self.read_news();
                if self.ending.is_some() {
                    self.passes.leave(self.passes.held().min(1));
                    return false;
                }
            }
        }
        self.intake.admitted += 1;
        true
    }

    /// An admitted request, next to go up, will be answered, which is what this returns, or not.
    fn expect(&mut self, awaited: Awaited) -> bool {
        if self.intake.silence == Silence::Next {
            self.to_uplink.push(&encode::request(["CLIENT", "REPLY", "SKIP"]));
        }
        // Confirmations are pushes, and come in spite of CLIENT REPLY OFF.
        let push = matches!(awaited, Awaited::Subscribed(..) | Awaited::Unsubscribed(..));
        if self.is_silent() && !push {
            self.intake.unanswered += 1;
            return false;
        }
        self.owed.push(awaited, self.intake.scanner.name());
        true
    }

    /// The next reply is suppressed; used up by asking, where it is for one request only.
    fn is_silent(&mut self) -> bool {
        match self.intake.silence {
            Silence::No => false,
            Silence::Always => true,
            Silence::Next => {
                self.intake.silence = Silence::No;
                true
            }
        }
    }

    /// The proxy's own reply, which keeps its place behind those owed by the uplink.
    pub(super) fn answer(&mut self, reply: Vec<u8>) {
        if self.is_silent() {
            return;
        }
        if self.owed.is_empty() && !self.replies.in_frame() {
            self.send_local(&reply);
        } else {
            self.owed.push(Awaited::Local(reply.into_boxed_slice()), b"");
        }
    }

    pub(super) fn discarded(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Refuse(text) => self.answer(encode::error(text)),
            Verdict::RefuseInMulti(text) => {
                // An AUTH without arguments: wrong everywhere, and so the transaction is aborted.
                self.expect(Awaited::Instead(text));
                self.to_uplink.push(&encode::request(["AUTH"]));
            }
            Verdict::Http => self.end(Reason::SpeaksHttp),
            Verdict::Quit => {
                self.answer(OK.to_vec());
                self.end(Reason::Quit);
            }
        }
    }

    /// A collected request is complete; false if the gate is shut to it.
    pub(super) fn collected(&mut self, class: Class, frame: &[u8]) -> bool {
        let args: Vec<&[u8]> = Args::new(frame).collect();
        match class {
            Class::Auth => {
                match auth::auth(self.generation.listen.config.login.as_ref(), &args) {
                    Ok(()) => {
                        self.intake.authenticate(true);
                        self.answer(OK.to_vec());
                    }
                    Err(text) => self.answer(encode::error(text)),
                }
                true
            }
            Class::Hello => self.hello(&args),
            Class::Reset => self.reset(frame, args.len() == 1),
            Class::Client => self.client_command(frame, &args),
            _ => {
                let awaited = self.awaited(class, &args);
                self.forward(frame, awaited)
            }
        }
    }

    fn awaited(&mut self, class: Class, args: &[&[u8]]) -> Awaited {
        let number = |arg: &[u8]| std::str::from_utf8(arg).ok()?.parse().ok();
        if let Some(queued) = &mut self.intake.queued {
            queued.selects |= class == Class::Select;
            return Awaited::Plain;
        }
        match (class, args) {
            (Class::Select, [_, db]) => number(db).map_or(Awaited::Plain, Awaited::Select),
            (Class::Read, _) if command::blocks(args.iter().copied()) => Awaited::Blocking,
            _ => Awaited::Plain,
        }
    }

    fn forward(&mut self, frame: &[u8], awaited: Awaited) -> bool {
        if !self.admit() {
            return false;
        }
        self.expect(awaited);
        self.to_uplink.push(frame);
        true
    }

    fn hello(&mut self, args: &[&[u8]]) -> bool {
        match auth::hello(self.generation.listen.config.login.as_ref(), args) {
            Err(text) => self.answer(encode::error(text)),
            Ok(hello) if !hello.authenticated && !self.intake.authenticated => {
                self.answer(encode::error(auth::NOAUTH));
            }
            Ok(hello) => {
                if !self.forward(&hello.request, Awaited::Hello) {
                    return false;
                }
                self.intake.authenticate(true);
            }
        }
        true
    }

    /// RESET logs the uplink connection out, and the client too.
    fn reset(&mut self, frame: &[u8], valid: bool) -> bool {
        if !valid {
            return self.forward(frame, Awaited::Plain);
        }
        if !self.admit() {
            return false;
        }
        self.intake.queued = None;
        self.intake.silence = Silence::No;
        self.to_uplink.push(frame);
        self.expect(Awaited::Reset);
        let generation = self.generation.clone();
        if let Some(auth) = generation.uplink.auth() {
            self.to_uplink.push(&auth);
            self.owed.push(Awaited::Own, b"");
        }
        self.intake.authenticate(generation.listen.config.login.is_none());
        true
    }

    /// CLIENT REPLY has no reply of its own but for ON.
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
        match silence {
            Some(silence) if self.intake.queued.is_none() => {
                if silence == Silence::Next {
                    self.intake.silence = silence;
                    return true;
                }
                if !self.admit() {
                    return false;
                }
                self.intake.silence = silence;
                self.expect(Awaited::Plain);
                self.to_uplink.push(frame);
                true
            }
            _ => {
                let tracking = match args {
                    [_, tracking, on, ..] if tracking.eq_ignore_ascii_case(b"TRACKING") => {
                        Some(on.eq_ignore_ascii_case(b"ON"))
                    }
                    _ => None,
                };
                let awaited = match (tracking, &mut self.intake.queued) {
                    (Some(on), None) => Awaited::Tracking(on),
                    (Some(on), Some(queued)) => {
                        queued.tracks |= on;
                        Awaited::Plain
                    }
                    (None, _) => Awaited::Plain,
                };
                self.forward(frame, awaited)
            }
        }
    }
}
