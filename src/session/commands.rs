//! What becomes of each request: forwarded, looked at first, or answered by the proxy.

use super::Session;
use super::auth;
use super::awaited::Awaited;
use super::close::Reason;
use super::effect::Effect;
use super::replay::{self, OneShot};
use super::tap::Secrecy;
use super::transaction::Transaction;
use crate::command::Class;
use crate::resp::encode;

pub(super) const OK: &[u8] = b"+OK\r\n";
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
    /// EXEC of a transaction that must fail.
    Touched,
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
        if class == Class::Quit {
            return Some(Route::Discard(Verdict::Quit));
        }
        if class == Class::Reset {
            return Some(Route::Collect(class));
        }
        if intake.transaction.is_some() {
            return self.head_in_multi(class, args);
        }
        let awaited = match class {
            Class::Replication => {
                return Some(Route::Discard(Verdict::Refuse(unsupported(intake.scanner.name()))));
            }
            Class::Auth
            | Class::Hello
            | Class::Select
            | Class::Read
            | Class::Blocking(_)
            | Class::Client
            | Class::Watch
            | Class::Subscribe(_)
            | Class::Unsubscribe(_)
            | Class::Eval
            | Class::Script => return Some(Route::Collect(class)),
            Class::Secret => Awaited::Secret,
            Class::Wait => Awaited::Waiting,
            Class::Multi if args == 1 => Awaited::Multi,
            Class::Unwatch => Awaited::Effect(Box::new(Effect::Unwatch)),
            Class::Monitor => Awaited::Effect(Box::new(Effect::Monitor)),
            Class::Readonly(on) => Awaited::Effect(Box::new(Effect::Readonly(on))),
            Class::Plain
            | Class::CallScript
            | Class::Multi
            | Class::Exec
            | Class::Discard
            | Class::Asking
            | Class::Quit
            | Class::Reset
            | Class::Http => Awaited::Plain,
        };
        if !self.admit() {
            return None;
        }
        self.use_up_one_shot(class);
        match awaited {
            Awaited::Multi => {
                self.intake.transaction = Some(Box::default());
                self.mark();
            }
            _ if class == Class::Asking => self.intake.one_shot = Some(OneShot::Asking),
            _ if class == Class::Unwatch => self.intake.fails = false,
            _ => {}
        }
        let route = Route::Forward { owed: self.expect(awaited) };
        self.intake.is_ordinary = self.is_ordinary();
        Some(route)
    }

    /// The same while a transaction is open: most is queued.
    fn head_in_multi(&mut self, class: Class, args: u32) -> Option<Route> {
        let refusal = match class {
            Class::Auth | Class::Hello => Some(NOT_IN_MULTI),
            Class::Replication => Some(unsupported(self.intake.scanner.name())),
            _ => None,
        };
        let ends = matches!(class, Class::Exec | Class::Discard) && args == 1;
        let route = match refusal {
            Some(text) => Route::Discard(Verdict::RefuseInMulti(text)),
            None if class == Class::Exec && ends && self.intake.fails => {
                Route::Discard(Verdict::Touched)
            }
            None if ends => Route::Forward { owed: true },
            // What is too much to be kept need not wait here for its end.
            None if class == Class::Plain && self.is_pinned() => Route::Forward { owed: true },
            None => return Some(Route::Collect(class)),
        };
        if !self.admit() {
            return None;
        }
        if !matches!(route, Route::Forward { .. }) {
            return Some(route);
        }
        if !ends {
            return Some(self.queue_unkept());
        }
        self.use_up_one_shot(class);
        self.intake.fails = false;
        let transaction = self.intake.transaction.take().unwrap_or_default();
        let awaited = match class {
            Class::Discard => Awaited::Effect(Box::new(Effect::Unwatch)),
            _ => Awaited::Exec(Box::new(transaction.executed())),
        };
        let route = Route::Forward { owed: self.expect(awaited) };
        self.intake.is_ordinary = self.is_ordinary();
        self.mark();
        Some(route)
    }

    /// A request that goes up as it comes is queued there, and not kept here.
    pub(super) fn queue_unkept(&mut self) -> Route {
        self.push_queued(|transaction| transaction.push(None, None));
        Route::Forward { owed: self.expect(Awaited::Queued) }
    }

    pub(super) fn push_queued(&mut self, push: impl FnOnce(&mut Transaction)) {
        let Some(transaction) = &mut self.intake.transaction else { return };
        let was_pinned = transaction.pinned;
        push(transaction);
        if transaction.pinned && !was_pinned {
            // Until it is executed, it is in flight.
            self.passes.add(1);
            self.intake.keeps_pass = true;
        }
    }

    /// The transaction can only be finished by the uplink that it was begun on.
    fn is_pinned(&self) -> bool {
        self.intake.transaction.as_ref().is_some_and(|transaction| transaction.pinned)
    }

    /// What the next request alone was to have is over with it, or with its transaction.
    pub(super) fn use_up_one_shot(&mut self, class: Class) {
        let kept = matches!(class, Class::Client | Class::Asking | Class::Multi);
        if self.intake.one_shot.is_some() && !kept {
            self.intake.one_shot = None;
        }
    }

    /// The gate lets a request in. A new generation came before the gate opened, so whoever is let
    /// in sees it.
    pub(super) fn admit(&mut self) -> bool {
        if self.intake.admitted == 0 {
            if self.is_pinned() {
                self.passes.add(1);
            } else if !self.passes.enter() {
                return false;
            }
            if self.member.has_news() {
                self.read_news();
                if self.ending.is_some() || self.leaving {
                    self.passes.leave(self.passes.held().min(1));
                    return false;
                }
            }
        }
        self.intake.admitted += 1;
        true
    }

    /// The request that was admitted last needs nothing of the uplink.
    pub(super) fn take_back_admitted(&mut self) {
        self.intake.admitted -= 1;
        // The others were not counted at the gate yet.
        if self.intake.admitted == 0 {
            self.passes.leave(1);
        }
    }

    /// An admitted request, next to go up, will be answered, which is what this returns, or not.
    pub(super) fn expect(&mut self, awaited: Awaited) -> bool {
        if self.intake.silence == Silence::Next {
            self.to_uplink.push(&encode::request(["CLIENT", "REPLY", "SKIP"]));
        }
        // Confirmations are pushes, and come in spite of CLIENT REPLY OFF.
        let push = matches!(awaited, Awaited::Subscribed(..) | Awaited::Unsubscribed(..));
        if self.is_silent() && !push {
            self.intake.unanswered += 1;
            self.intake.unfenced = true;
            self.suppose(awaited);
            self.mark();
            return false;
        }
        self.intake.unfenced = false;
        self.owed.push(awaited, self.intake.scanner.name());
        true
    }

    /// A request without a reply is taken to have succeeded, until the uplink can be asked.
    fn suppose(&mut self, awaited: Awaited) {
        match awaited {
            Awaited::Effect(effect) => self.state.apply(*effect),
            Awaited::Multi => self.state.begin_queueing(),
            Awaited::Touched => self.state.apply(Effect::Unwatch),
            Awaited::Exec(executed) => {
                self.state.apply(Effect::Unwatch);
                executed.apply(&[], &mut self.state);
            }
            Awaited::Queued | Awaited::Instead(_) => {}
            _ => return,
        }
        self.state.unsure = true;
    }

    /// The next reply is suppressed; used up by asking, where it is for one request only.
    fn is_silent(&mut self) -> bool {
        match self.intake.silence {
            Silence::No => false,
            Silence::Always => true,
            Silence::Next => {
                self.intake.silence = Silence::No;
                self.intake.is_ordinary = self.is_ordinary();
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
                let refused = replay::refused();
                self.push_queued(|transaction| transaction.push(Some(&refused), None));
                self.expect(Awaited::Instead(text));
                self.to_uplink.push(&refused);
            }
            Verdict::Touched => {
                self.intake.transaction = None;
                self.intake.fails = false;
                self.expect(Awaited::Touched);
                self.to_uplink.push(&encode::request(["DISCARD"]));
                self.intake.is_ordinary = self.is_ordinary();
                self.mark();
            }
            Verdict::Http => self.end(Reason::SpeaksHttp),
            Verdict::Quit => {
                self.answer(OK.to_vec());
                self.end(Reason::Quit);
            }
        }
    }
}
