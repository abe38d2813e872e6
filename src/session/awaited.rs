//! What the next reply means, and what a session learns from it. Pure.

use std::vec;

use super::effect::Effect;
use super::ids::Place;
use super::state::State;
use super::transaction::Executed;
use crate::command::Channel;

/// What the next reply means.
#[derive(Debug)]
pub(super) enum Awaited {
    /// One reply, nothing to learn from it.
    Plain,
    /// As plain, but not for the log.
    Secret,
    /// As plain, under the limit for blocking commands. Nothing is sent behind it before it is
    /// answered.
    Blocking,
    /// The same, but others may be behind it.
    Waiting,
    /// An error means that no transaction was begun.
    Multi,
    /// An error means that the transaction will not be executed.
    Queued,
    /// An array means that what was queued was executed.
    Exec(Box<Executed>),
    /// The uplink was told to discard the transaction: the client must be told that it failed.
    Touched,
    /// `+OK`, or a number, makes this happen.
    Effect(Box<Effect>),
    /// A map or an array tells the protocol's version; and the client has this name, if any.
    Hello(Option<Box<[u8]>>),
    /// `+RESET` clears the state.
    Reset,
    /// Confirmations of a SUBSCRIBE.
    Subscribed(Channel, Box<Names>),
    /// Confirmations of an UNSUBSCRIBE.
    Unsubscribed(Channel, Box<Names>),
    /// Something that has ids of clients in its reply.
    Ids(Place, Box<Awaited>),
    /// The proxy's own request: not for the client, and the reply must be no error.
    Own,
    /// The same; what it is answered with matters.
    Asked(Question),
    /// Not for the client, who is told this instead.
    Instead(&'static str),
    /// Made by the proxy, to be sent when its turn comes.
    Local(Box<[u8]>),
}

/// What the proxy asks the uplink in a client's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// XINFO STREAM: what `$` means in an XREAD, of the streams that it names at this place.
    Position(usize),
    /// An EXEC of nothing: whether a watched key was touched.
    Touched,
    /// Something that is refused at once: everything before it has come.
    Barrier,
    /// CLIENT INFO: what became of requests without replies.
    Info,
    /// CLIENT ID.
    Id,
}

/// Channels whose confirmations are awaited.
#[derive(Debug)]
pub(super) struct Names {
    /// 0 for as many as there are subscriptions.
    pub(super) left: u32,
    /// `None` if they were not looked at.
    pub(super) names: Option<vec::IntoIter<Box<[u8]>>>,
}

/// Whose subscription was confirmed.
#[derive(Debug)]
pub(super) enum Confirmed {
    Is(Box<[u8]>),
    /// That of one of all channels, which all end.
    OneOfAll,
    /// It was not looked at.
    Unknown,
}

impl Names {
    pub(super) fn next(&mut self) -> Confirmed {
        match &mut self.names {
            Some(names) => names.next().map_or(Confirmed::OneOfAll, Confirmed::Is),
            None => Confirmed::Unknown,
        }
    }
}

/// A reply or a push, as far as the scanner looked into it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply<'a> {
    pub(super) kind: u8,
    /// Kept only where [`super::owed::Owed::looks_into`] says so.
    pub(super) text: &'a [u8],
    pub(super) number: i64,
    pub(super) null: bool,
    /// Places of errors among its elements.
    pub(super) errors: &'a [u32],
}

impl Reply<'_> {
    fn is_ok(&self) -> bool {
        self.kind == b'+' && self.text == b"OK"
    }

    /// A blocking command was told to stop waiting.
    pub(super) fn is_unblocked(&self) -> bool {
        self.kind == b'-' && self.text.starts_with(b"UNBLOCKED")
    }
}

/// What a reply was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The oldest request is over.
    Answered,
    /// So is the one that was blocking.
    Returned,
    /// The same; its reply is to be shown with the ids that the client knows.
    Ids(Place),
    /// EXEC's reply, with ids in some of its elements.
    IdsInExec,
    /// One of several confirmations for the oldest request.
    Confirmed,
    /// Something that answers nothing, as a published message.
    Unasked,
    /// MULTI was refused; the request is over.
    NoMulti,
    /// The transaction was discarded for the client, who is told that it failed.
    Touched,
    /// The client is told something else; the request is over.
    Instead(&'static str),
    /// The proxy's own request is over.
    Own,
    /// So is this one, and was answered.
    Asked(Question),
    /// A reply that nobody asked for, or an error where none may be.
    Fault,
}

/// What `reply` means to a request that awaited this.
pub(super) fn learn(awaited: Awaited, reply: Reply<'_>, state: &mut State) -> Settled {
    match awaited {
        Awaited::Plain | Awaited::Secret | Awaited::Waiting => {}
        Awaited::Blocking => return Settled::Returned,
        // An error, or +QUEUED, instead of the confirmations.
        Awaited::Subscribed(..) | Awaited::Unsubscribed(..) => {}
        Awaited::Effect(effect) => {
            // HIMPORT DISCARD tells how many there were.
            if reply.is_ok() || reply.kind == b':' {
                state.apply(*effect);
            }
        }
        Awaited::Hello(name) => {
            if matches!(reply.kind, b'%' | b'*') {
                state.hello(reply.kind == b'%', name);
            }
        }
        Awaited::Reset => {
            if reply.kind == b'+' {
                state.reset();
            }
        }
        Awaited::Multi if reply.kind == b'-' => return Settled::NoMulti,
        Awaited::Multi => state.begin_queueing(),
        Awaited::Queued => state.queued(reply.kind != b'-'),
        Awaited::Exec(executed) => {
            // Executed or aborted, but not refused for being no transaction at all.
            if reply.kind != b'-' || reply.text.starts_with(b"EXECABORT") {
                state.apply(Effect::Unwatch);
            }
            let has_ids = !executed.ids.is_empty();
            if reply.kind == b'*' && !reply.null {
                executed.apply(reply.errors, state);
            }
            return if has_ids { Settled::IdsInExec } else { Settled::Answered };
        }
        Awaited::Touched => {
            state.apply(Effect::Unwatch);
            return Settled::Touched;
        }
        Awaited::Ids(place, awaited) => {
            return match learn(*awaited, reply, state) {
                Settled::Answered => Settled::Ids(place),
                other => other,
            };
        }
        Awaited::Own if reply.kind != b'-' => return Settled::Own,
        Awaited::Asked(question) => return Settled::Asked(question),
        Awaited::Instead(text) if reply.kind == b'-' => {
            state.queued(false);
            return Settled::Instead(text);
        }
        Awaited::Own | Awaited::Instead(_) | Awaited::Local(_) => return Settled::Fault,
    }
    Settled::Answered
}

/// The kind of a subscription's confirmation, and whether it was begun or ended.
pub(super) fn confirmation(text: &[u8]) -> Option<(Channel, bool)> {
    match text {
        b"subscribe" => Some((Channel::Name, true)),
        b"unsubscribe" => Some((Channel::Name, false)),
        b"psubscribe" => Some((Channel::Pattern, true)),
        b"punsubscribe" => Some((Channel::Pattern, false)),
        b"ssubscribe" => Some((Channel::Shard, true)),
        b"sunsubscribe" => Some((Channel::Shard, false)),
        _ => None,
    }
}

/// Whether this answers nothing.
pub(super) fn is_unasked(reply: Reply<'_>, state: &State, confirmation: bool) -> bool {
    match reply.kind {
        b'>' => true,
        b'*' if state.subscribed() && !state.resp3 => {
            confirmation || matches!(reply.text, b"message" | b"pmessage" | b"smessage")
        }
        // A monitor's line begins with the time; no status does.
        b'+' if state.monitor => reply.text.first().is_some_and(u8::is_ascii_digit),
        _ => false,
    }
}
