//! What a connection is told before a client may use it, and what it must answer. Pure.

use std::collections::VecDeque;

use super::error::Error;
use crate::redact::without_arguments;
use crate::resp::encode;

/// What a server refuses for a reason that other clients may meet as well.
const OF_ALL: [&str; 2] = ["NOPERM", "ERR DB index is out of range"];

/// Requests of the proxy's own, sent at once, and the answer that each must get.
#[derive(Debug, Default)]
pub struct Script {
    bytes: Vec<u8>,
    wanted: VecDeque<Wanted>,
    failure: Option<Error>,
    /// The last error that was heard, wanted or not.
    last_error: Option<String>,
    id: Option<Id>,
}

/// What a request must be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// `+OK` to the proxy's AUTH.
    Login,
    /// Anything but an error.
    NoError,
    /// Anything but an error. An error is about this client alone, whatever it says.
    NoErrorOfItsOwn,
    /// `+QUEUED`.
    Queued,
    /// An error.
    Error,
    /// Anything: a server that does not know the request does without.
    Anything,
    /// The connection's id. A user without the right to ask for it is a user all the same.
    Id,
    /// `+PONG` of a server that serves. A user without the right to PING is served all the same.
    Pong,
    /// So many confirmations of subscriptions.
    Confirmations(u32),
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
struct Wanted {
    answer: Answer,
    /// The request's first words.
    request: String,
    /// An error must not repeat its arguments.
    secret: bool,
}

/// What the server calls a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// The server calls it by this number.
    Is(u64),
    /// The server would not tell.
    Secret,
    /// The server was not asked.
    Unasked,
}

/// A frame that came, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// The frame's type byte.
    pub kind: u8,
    /// The frame's first text, or the beginning of that.
    pub text: &'a [u8],
    /// The frame's last number.
    pub number: i64,
    /// The frame's first line.
    pub line: &'a [u8],
}

impl Script {
    /// Adds a request: its name, which may have a second word, and the other arguments.
    pub fn ask(&mut self, name: &str, args: &[&[u8]], answer: Answer) {
        /// Bytes of an argument that a fault shows.
        const SHOWN: usize = 64;
        let words: Vec<&[u8]> = name.split(' ').map(str::as_bytes).chain(args.to_vec()).collect();
        let shown = args.first().map(|arg| String::from_utf8_lossy(&arg[..arg.len().min(SHOWN)]));
        let request = shown.map_or(name.to_owned(), |shown| format!("{name} {shown}"));
        self.add(&encode::request(words), request, answer);
    }

    /// Adds a request that is encoded already; `request` is what it is called in a fault.
    pub fn repeat(&mut self, frame: &[u8], request: &str, answer: Answer) {
        self.add(frame, request.to_owned(), answer);
        if let Some(wanted) = self.wanted.back_mut() {
            wanted.secret = true;
        }
    }

    fn add(&mut self, frame: &[u8], request: String, answer: Answer) {
        self.bytes.extend_from_slice(frame);
        if answer != Answer::Nothing {
            self.wanted.push_back(Wanted { answer, request, secret: false });
        }
    }

    /// Adds another script after this one.
    pub fn append(&mut self, mut other: Script) {
        self.bytes.append(&mut other.bytes);
        self.wanted.append(&mut other.wanted);
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes to be sent.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes the bytes to be sent; the script goes on to hear the answers.
    pub(super) fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Everything was answered.
    pub(super) fn is_over(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The connection's id, if that was among the answers.
    pub(super) fn id(&self) -> Option<Id> {
        self.id
    }

    /// What was wrong with the answers, the first one counting.
    pub(super) fn failure(self) -> Option<Error> {
        self.failure
    }

    /// Why the connection may have been closed before everything was answered.
    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// An answer was wrong.
    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Looks at a frame that came. False if it answers nothing, as a published message.
    pub(super) fn hear(&mut self, heard: Heard<'_>) -> bool {
        let Some(wanted) = self.wanted.front_mut() else { return false };
        let confirmation = matches!(heard.kind, b'>' | b'*') && heard.text.ends_with(b"subscribe");
        if let Answer::Confirmations(left) = &mut wanted.answer {
            if confirmation {
                *left -= 1;
                if *left == 0 {
                    self.wanted.pop_front();
                }
                return true;
            }
        } else if confirmation {
            return false;
        }
        let message = matches!(heard.text, b"message" | b"pmessage" | b"smessage");
        let monitored = heard.kind == b'+' && heard.text.first().is_some_and(u8::is_ascii_digit);
        if heard.kind == b'>' || (heard.kind == b'*' && message) || monitored {
            return false;
        }
        let Some(Wanted { answer, request, secret }) = self.wanted.pop_front() else {
            return false;
        };
        let line = String::from_utf8_lossy(heard.line);
        let whole = line.strip_prefix('-');
        let error = match secret && answer != Answer::Login {
            true => whole.map(without_arguments),
            false => whole,
        };
        if let Some(error) = error {
            self.last_error = Some(error.to_owned());
        }
        let failure = match (answer, error) {
            (Answer::Anything | Answer::Nothing, _)
            | (Answer::NoError | Answer::NoErrorOfItsOwn | Answer::Login, None)
            | (Answer::Error, Some(_)) => None,
            (Answer::Id, _) => {
                let id = u64::try_from(heard.number).ok().filter(|_| heard.kind == b':');
                self.id = Some(id.map_or(Id::Secret, Id::Is));
                None
            }
            (Answer::Login, Some(error)) => Some(Error::Login(error.to_owned())),
            (Answer::Queued, None) if heard.text == b"QUEUED" => None,
            (Answer::Pong, None) if heard.text.eq_ignore_ascii_case(b"PONG") => None,
            (Answer::Pong, Some(error)) if error.starts_with("NOPERM") => None,
            (Answer::Pong, _) => Some(Error::Ping(line.clone().into_owned())),
            (_, Some(error)) => Some(Error::Setup {
                request,
                is_about_one_client: answer == Answer::NoErrorOfItsOwn
                    || !OF_ALL.iter().any(|of_all| error.starts_with(of_all)),
                answer: error.to_owned(),
            }),
            (_, None) => Some(Error::Setup {
                request,
                answer: format!("unexpected answer {line}"),
                is_about_one_client: true,
            }),
        };
        // Nothing that follows is of use.
        if matches!(failure, Some(Error::Login(_))) {
            self.wanted.clear();
        }
        if self.failure.is_none() {
            self.failure = failure;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(script: &mut Script, line: &str) {
        let (kind, text) = (line.as_bytes()[0], &line.as_bytes()[1..]);
        let number = line[1..].parse().unwrap_or(0);
        script.hear(Heard { kind, text, number, line: line.as_bytes() });
    }

    fn script(answers: &[Answer]) -> Script {
        let mut script = Script::default();
        for answer in answers {
            script.ask("SELECT", &[b"9"], *answer);
        }
        script
    }

    #[test]
    fn an_error_where_none_may_be_is_told_with_the_request() {
        let mut script = script(&[Answer::NoError, Answer::NoError]);
        hear(&mut script, "-ERR DB index is out of range");
        assert!(!script.is_over(), "all answers are waited for");
        hear(&mut script, "+OK");
        assert!(script.is_over());
        let failure = script.failure().expect("the first answer").to_string();
        assert!(failure.contains("SELECT 9: ERR DB index is out of range"), "{failure}");
    }

    #[test]
    fn what_nobody_asked_for_is_passed_over() {
        let mut script = script(&[Answer::Confirmations(2), Answer::NoError, Answer::Id]);
        for line in
            [">message", "*subscribe", "*message", ">psubscribe", ">invalidate", "*pmessage"]
        {
            hear(&mut script, line);
        }
        hear(&mut script, "+OK");
        hear(&mut script, ":12");
        assert!(script.is_over());
        assert_eq!(script.id(), Some(Id::Is(12)));
        assert!(script.failure().is_none());
    }

    #[test]
    fn a_queue_that_is_refused_is_no_queue() {
        let mut script = script(&[Answer::Queued]);
        hear(&mut script, "-ERR unknown command");
        assert!(script.failure().is_some());
    }
}
