//! AUTH and HELLO: the proxy checks the password, and the uplink sees no more than the rest.

use super::Session;
use super::protocol::auth;
use super::protocol::expected::{Expected, Question};
use super::route::OK;
use crate::changeover::client_ids as ids;
use crate::command::Class;
use crate::gate::GateShut;
use crate::resp::encode;

impl Session {
    /// AUTH: the proxy answers it.
    pub(super) fn auth(&mut self, args: &[&[u8]]) {
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

    /// HELLO: it goes up without its password.
    pub(super) fn hello(&mut self, args: &[&[u8]]) -> Result<(), GateShut> {
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
                self.link.push(&hello.request, &self.pending);
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
        // The user may lack the right to one of them.
        for (request, question) in [
            (hello, Question::Failure),
            (&encode::request(["CLIENT", "GETNAME"]), Question::Name),
            (&encode::request(["CLIENT", "INFO"]), Question::NameInInfo),
        ] {
            self.pending.push_own(Expected::Asked(question));
            self.link.out.push(request);
        }
        self.take_back_admitted();
        Ok(())
    }

    /// What a reply that may have ids in it means: after a switch, they are not those of the uplink any more.
    fn with_ids(&self, args: &[&[u8]], awaited: Expected) -> Expected {
        let replaced = !self.shared.ids.are_the_uplinks();
        match ids::place(args).filter(|_| replaced) {
            Some(place) => Expected::Ids(place, Box::new(awaited)),
            None => awaited,
        }
    }
}

/// What Redis says where it takes nothing but subscriptions.
fn only_subscribed(command: &str) -> Vec<u8> {
    encode::error(&format!(
        "ERR Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context"
    ))
}
