//! What becomes of each request: forwarded, looked at first, or answered by the proxy.

use super::Session;
use super::close::Reason;
use super::intake::{Route, Verdict};
use super::protocol::auth;
use super::protocol::effect::Effect;
use super::protocol::expected::{Expected, Names, Question};
use super::protocol::fieldsets::Change;
use super::protocol::replay::{self, OneShot};
use super::protocol::transaction::Fate;
use super::tap::Secrecy;
use crate::changeover::Marker;
use crate::command::{Class, words};
use crate::gate::GateShut;
use crate::resp::encode;

pub(super) const OK: &[u8] = b"+OK\r\n";
pub(super) const RESET: &[u8] = b"+RESET\r\n";
pub(super) const TOO_LONG: &str = "ERR redis-proxy: request too long";
pub(super) const NOT_YOURS: &str = "ERR redis-proxy: this channel is the proxy's own";
const NOT_IN_MULTI: &str = "ERR Command not allowed inside a transaction";

/// The commands of [`Class::Replication`].
fn unsupported(name: &[u8]) -> &'static str {
    match name {
        b"sync" => "ERR SYNC is not supported by redis-proxy on this listener; use listen_raw",
        b"psync" => "ERR PSYNC is not supported by redis-proxy on this listener; use listen_raw",
        _ => "ERR REPLCONF is not supported by redis-proxy on this listener; use listen_raw",
    }
}

/// The subcommand of HIMPORT that changes the connection.
fn prepares(sub: &[u8]) -> bool {
    words::is(sub, "PREPARE")
}

impl Session {
    /// Decides what becomes of a whole request.
    pub(super) fn head(&mut self, class: Class, args: u32) -> Result<Route, GateShut> {
        if let Some(route) = self.answered_here(class, args) {
            return Ok(route);
        }
        self.requested.unknown |= matches!(class, Class::Unknown { .. });
        if self.requested.transaction().is_some() {
            return self.head_in_multi(class, args);
        }
        let awaited = match class {
            Class::Auth
            | Class::Hello
            | Class::Select
            | Class::Read
            | Class::Blocking(_)
            | Class::Client
            | Class::Watch
            | Class::Subscribe(_)
            | Class::Unsubscribe(_)
            | Class::Publish
            | Class::Eval
            | Class::Script
            | Class::Import
            | Class::Reset => return Ok(Route::Held(class, args)),
            Class::Secret => Expected::Secret,
            Class::Wait | Class::Unknown { waits: true } => Expected::MayBlock,
            Class::Multi if args == 1 => Expected::Multi,
            Class::Exec => Expected::Exec,
            Class::Unwatch => Expected::effect(Effect::Unwatch),
            Class::Monitor => Expected::effect(Effect::Monitor),
            Class::Readonly(on) => Expected::effect(Effect::Readonly(on)),
            Class::Plain
            | Class::CallScript
            | Class::Multi
            | Class::Discard
            | Class::Asking
            | Class::Quit
            | Class::Replication
            | Class::Unknown { waits: false }
            | Class::Http => Expected::Plain,
        };
        self.admit()?;
        self.use_up_one_shot(class);
        match awaited {
            Expected::Multi => {
                self.unsubscribe_mark();
                self.requested.set_transaction(Some(Box::default()));
            }
            _ if class == Class::Asking => self.requested.set_one_shot(Some(OneShot::Asking)),
            _ if class == Class::Unwatch => self.requested.fails = false,
            _ => {}
        }
        self.expect(awaited);
        Ok(Route::Forward)
    }

    /// What becomes of a request of which the uplink hears nothing, whatever the connection's state is.
    fn answered_here(&mut self, class: Class, args: u32) -> Option<Route> {
        let authenticated = self.requested.is_authenticated();
        self.intake.secrecy = match class {
            Class::Auth | Class::Hello | Class::Secret => Secrecy::Arguments,
            // Perhaps a password where a command should be.
            _ if !authenticated => Secrecy::All,
            _ => Secrecy::None,
        };
        let verdict = match class {
            Class::Http => Verdict::Http,
            Class::Quit => Verdict::Quit,
            Class::Auth | Class::Hello if !authenticated => {
                return Some(Route::Held(class, args));
            }
            _ if !authenticated => Verdict::Refuse(auth::NOAUTH),
            Class::Replication if self.requested.transaction().is_none() => {
                Verdict::Refuse(unsupported(self.intake.scanner.name()))
            }
            _ => return None,
        };
        Some(Route::Discard(verdict))
    }

    /// Decides what becomes of a request that is longer than may be held.
    pub(super) fn long_head(&mut self, class: Class, args: u32) -> Result<Route, GateShut> {
        if let Some(route) = self.answered_here(class, args) {
            return Ok(match route {
                Route::Held(..) => Route::Discard(Verdict::Refuse(TOO_LONG)),
                route => route,
            });
        }
        let in_multi = self.requested.transaction().is_some();
        let refusal = match class {
            Class::Auth | Class::Hello if in_multi => Some(NOT_IN_MULTI),
            Class::Auth | Class::Hello | Class::Client => Some(TOO_LONG),
            Class::Subscribe(_) | Class::Unsubscribe(_) if in_multi => Some(TOO_LONG),
            Class::Publish if self.intake.begins_with(Marker::is_own) => Some(NOT_YOURS),
            Class::Import if in_multi && self.intake.begins_with(prepares) => Some(TOO_LONG),
            Class::Replication => Some(unsupported(self.intake.scanner.name())),
            _ => None,
        };
        if let Some(text) = refusal {
            if !in_multi {
                return Ok(Route::Discard(Verdict::Refuse(text)));
            }
            self.admit()?;
            // At once: its end may never come.
            self.discarded(Verdict::RefuseInMulti(text));
            return Ok(Route::Discard(Verdict::Refused));
        }
        self.admit()?;
        let awaited = match class {
            _ if in_multi => {
                self.push_queued(|transaction| transaction.push(None, Fate::Queued));
                Expected::Queued(None)
            }
            Class::Subscribe(channel) => Expected::Subscribed(channel, Names::unknown(args - 1)),
            Class::Unsubscribe(channel) => {
                Expected::Unsubscribed(channel, Names::unknown(args - 1))
            }
            // It may have BLOCK, further on.
            Class::Read | Class::Blocking(_) | Class::Wait | Class::Unknown { waits: true } => {
                Expected::MayBlock
            }
            Class::Watch => Expected::effect(Effect::WatchMany),
            Class::Import if self.intake.begins_with(prepares) => {
                Expected::effect(Effect::Fieldsets(Change::PrepareLong))
            }
            Class::Secret => Expected::Secret,
            _ => Expected::Plain,
        };
        self.use_up_one_shot(class);
        self.expect(awaited);
        Ok(Route::Stream)
    }

    /// Decides what becomes of a whole request while a transaction seems to be open: most is queued.
    fn head_in_multi(&mut self, class: Class, args: u32) -> Result<Route, GateShut> {
        let refusal = match class {
            Class::Auth | Class::Hello => Some(NOT_IN_MULTI),
            Class::Replication => Some(unsupported(self.intake.scanner.name())),
            _ => None,
        };
        let ends = matches!(class, Class::Exec | Class::Discard) && args == 1;
        if refusal.is_none() && !ends {
            return Ok(Route::Held(class, args));
        }
        self.admit()?;
        if let Some(text) = refusal {
            return Ok(Route::Discard(Verdict::RefuseInMulti(text)));
        }
        if class == Class::Exec && self.requested.fails {
            return Ok(Route::Discard(Verdict::Touched));
        }
        self.use_up_one_shot(class);
        self.requested.fails = false;
        self.requested.set_transaction(None);
        self.expect(if class == Class::Discard { Expected::Discard } else { Expected::Exec });
        Ok(Route::Forward)
    }

    /// Clears what concerned the next request alone (ASKING, CACHING), or its transaction.
    pub(super) fn use_up_one_shot(&mut self, class: Class) {
        let kept = matches!(class, Class::Client | Class::Asking | Class::Multi);
        if self.requested.one_shot().is_some() && !kept {
            self.requested.set_one_shot(None);
        }
    }

    pub(super) fn discarded(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Refuse(text) => self.answer(encode::error(text)),
            Verdict::RefuseInMulti(text) => {
                let refused = replay::refused();
                self.push_queued(|transaction| transaction.push(Some(&refused), Fate::Queued));
                self.expect(Expected::Instead(text));
                self.link.push(&refused, &self.pending);
            }
            Verdict::Touched => {
                self.requested.set_transaction(None);
                self.requested.fails = false;
                // A user with the right to EXEC may lack the right to DISCARD.
                self.pending.push_own(Expected::Asked(Question::Barrier));
                self.link.out.push(&replay::refused());
                self.expect(Expected::Touched);
                self.link.push(&encode::request(["EXEC"]), &self.pending);
            }
            Verdict::Refused => {}
            Verdict::Http => self.end(Reason::SpeaksHttp),
            Verdict::Quit => {
                self.answer(OK.to_vec());
                self.end(Reason::Quit);
            }
        }
    }
}
