//! What the next reply means, and what a session learns from it. Pure.

use std::vec;

use super::effect::{Effect, effect};
use super::queue::{Awaited, Queue};
use super::state::{Confirmation, Confirmed, State, Subscription};
use crate::changeover::client_ids::{self as ids, Place};
use crate::command::{Channel, Class};

/// What the next reply means.
#[derive(Debug)]
pub enum Expected {
    /// One reply, nothing to learn from it.
    Plain,
    /// As plain, but not for the log.
    Secret,
    /// As plain, under the limit for blocking commands. Nothing is sent behind it before it is
    /// answered.
    Blocking,
    /// As blocking, but others may be sent behind it.
    MayBlock,
    /// MULTI: an error means that no transaction was begun.
    Multi,
    /// MULTI, sent while a transaction seemed to be open: it is accepted if that was wrong.
    Nested,
    /// Sent while a transaction seemed to be open. `+QUEUED` puts off what it means until EXEC; after any
    /// other reply, it was executed at once, or refused. `None` stands for plain.
    Queued(Option<Box<Expected>>),
    /// EXEC: an array's header says that what was queued was executed.
    Exec,
    /// The rest of EXEC's array: the replies to what was queued.
    Executed(Box<Queue<Expected>>),
    /// DISCARD.
    Discard,
    /// EXEC, after something that aborts the transaction: the client must be told that it failed.
    Touched,
    /// `+OK`, or a number, makes this happen.
    Effect(Box<Effect>),
    /// CLIENT CACHING: after an error, the next request is like any other.
    Caching,
    /// HELLO: a map or an array tells the protocol's version; and the client has this name, if any.
    Hello(Option<Box<[u8]>>),
    /// `+RESET` clears the state.
    Reset,
    /// Confirmations of a SUBSCRIBE.
    Subscribed(Channel, Box<Names>),
    /// Confirmations of an UNSUBSCRIBE.
    Unsubscribed(Channel, Box<Names>),
    /// Something that has ids of clients in its reply.
    Ids(Place, Box<Expected>),
    /// The proxy's own request: not for the client, and the reply must be no error.
    Own,
    /// The proxy's own question: not for the client, and what it is answered with matters.
    Asked(Question),
    /// Not for the client, who is told this instead.
    Instead(&'static str),
    /// Made by the proxy, to be sent when its turn comes.
    Local(Box<[u8]>),
}

/// What the proxy asks the uplink in a client's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// XINFO STREAM: what `$` means in an XREAD, of the streams that it names at this place.
    Position(usize),
    /// An EXEC of nothing: whether a watched key was touched.
    Touched,
    /// Something that is refused at once: everything before it has come.
    Barrier,
    /// CLIENT ID.
    Id,
    /// CLIENT INFO: which flags a RESET has left.
    Flags,
    /// A HELLO that fails in the end, for what it does before that.
    Failure,
    /// CLIENT GETNAME: whether a HELLO that failed has given a name.
    Name,
    /// CLIENT INFO: whether a HELLO that failed has given a name.
    NameInInfo,
    /// CLIENT REPLY ON, in the place of the client's own CLIENT REPLY: whether it may ask for this.
    Silence(Mode),
}

impl Question {
    /// It stands for a request of the client's.
    pub fn has_pass(self) -> bool {
        match self {
            Question::Silence(_) => true,
            Question::Position(_)
            | Question::Touched
            | Question::Barrier
            | Question::Id
            | Question::Flags
            | Question::Failure
            | Question::Name
            | Question::NameInInfo => false,
        }
    }
}

/// What a client asks for with CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    On,
    Off,
    Skip,
}

impl Mode {
    /// The mode that a CLIENT request asks for; `None` if it is no valid CLIENT REPLY.
    pub fn of(args: &[&[u8]]) -> Option<Mode> {
        let [_, reply, mode] = args else { return None };
        if !reply.eq_ignore_ascii_case(b"REPLY") {
            return None;
        }
        match &mode.to_ascii_uppercase()[..] {
            b"ON" => Some(Mode::On),
            b"OFF" => Some(Mode::Off),
            b"SKIP" => Some(Mode::Skip),
            _ => None,
        }
    }
}

/// Channels whose confirmations are awaited.
#[derive(Debug)]
pub struct Names {
    /// 0 for as many as there are subscriptions.
    pub left: u32,
    /// `None` if they were not looked at.
    pub names: Option<vec::IntoIter<Box<[u8]>>>,
    /// How many there were.
    all: u32,
    /// Bytes that the names take.
    size: usize,
}

impl Names {
    fn of(args: &[&[u8]]) -> Box<Self> {
        let names: Vec<Box<[u8]>> = args.iter().map(|name| Box::from(*name)).collect();
        let size = names.iter().map(|name| name.len() + NAME).sum();
        let left = u32::try_from(names.len()).unwrap_or(u32::MAX);
        Box::new(Names { left, names: Some(names.into_iter()), all: left, size })
    }

    /// Of so many channels that nobody looked at.
    pub fn unknown(count: u32) -> Box<Self> {
        Box::new(Names { left: count, names: None, all: count, size: 0 })
    }

    /// Nothing was confirmed yet.
    pub fn are_all_left(&self) -> bool {
        self.left == self.all
    }

    pub fn next(&mut self) -> Confirmed {
        match &mut self.names {
            Some(names) => names.next().map_or(Confirmed::OneOfAll, Confirmed::Is),
            None => Confirmed::Unknown,
        }
    }
}

/// What an allocation costs beside its bytes, with the pointer to it.
const NAME: usize = 32;

impl Expected {
    /// What the reply to a request of this class means; `args` are all arguments, the name included.
    /// With `ids`, the uplink's ids of clients are not those that clients know.
    pub fn of(class: Class, args: &[&[u8]], ids: bool) -> Expected {
        let names = args.get(1..).unwrap_or_default();
        let awaited = match class {
            Class::Secret => Expected::Secret,
            Class::Wait | Class::Unknown { waits: true } => Expected::MayBlock,
            Class::Subscribe(_) if names.is_empty() => Expected::Plain,
            Class::Subscribe(channel) => Expected::Subscribed(channel, Names::of(names)),
            Class::Unsubscribe(channel) => Expected::Unsubscribed(channel, Names::of(names)),
            _ => effect(class, args).map_or(Expected::Plain, Expected::effect),
        };
        match ids::place(args).filter(|_| ids && class == Class::Client) {
            Some(place) => Expected::Ids(place, Box::new(awaited)),
            None => awaited,
        }
    }

    pub fn effect(effect: Effect) -> Expected {
        Expected::Effect(Box::new(effect))
    }

    /// As if ids were those of the uplink.
    pub fn without_ids(&self) -> &Expected {
        match self {
            Expected::Ids(_, inner) => inner,
            other => other,
        }
    }

    /// Whether the request may wait for long.
    pub fn is_blocking(&self) -> bool {
        match self {
            Expected::Blocking | Expected::MayBlock => true,
            Expected::Queued(Some(inner)) => inner.is_blocking(),
            _ => false,
        }
    }
}

impl Awaited for Expected {
    #[inline]
    fn is_plain(&self) -> bool {
        matches!(self, Expected::Plain)
    }

    #[inline]
    fn is_like(&self, other: &Expected) -> bool {
        matches!(
            (self, other),
            (Expected::Plain, Expected::Plain) | (Expected::Queued(None), Expected::Queued(None))
        )
    }

    fn again(&self) -> Expected {
        match self {
            Expected::Queued(_) => Expected::Queued(None),
            _ => Expected::Plain,
        }
    }

    fn size(&self) -> usize {
        match self {
            Expected::Plain
            | Expected::Secret
            | Expected::Blocking
            | Expected::MayBlock
            | Expected::Multi
            | Expected::Nested
            | Expected::Exec
            | Expected::Discard
            | Expected::Touched
            | Expected::Reset
            | Expected::Caching
            | Expected::Own
            | Expected::Asked(_)
            | Expected::Instead(_)
            | Expected::Hello(None)
            | Expected::Queued(None) => 0,
            Expected::Queued(Some(inner)) | Expected::Ids(_, inner) => {
                size_of::<Expected>() + inner.size()
            }
            Expected::Executed(queue) => queue.size(),
            Expected::Effect(effect) => effect.size(),
            Expected::Hello(Some(name)) => name.len() + NAME,
            Expected::Subscribed(_, names) | Expected::Unsubscribed(_, names) => {
                size_of::<Names>() + names.size
            }
            Expected::Local(reply) => reply.len(),
        }
    }
}

/// A reply or a push, as far as the scanner looked into it.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    pub kind: u8,
    /// Kept only where [`super::pending::Pending::looks_into`] says so.
    pub text: &'a [u8],
    /// Of EXEC's array, its elements.
    pub number: i64,
    pub null: bool,
}

impl Reply<'_> {
    fn is_ok(&self) -> bool {
        self.kind == b'+' && self.text == b"OK"
    }

    pub fn is_queued(&self) -> bool {
        self.kind == b'+' && self.text == b"QUEUED"
    }

    /// An error that ends a transaction, whatever the request was.
    pub fn is_abort(&self) -> bool {
        self.kind == b'-' && self.text.starts_with(b"EXECABORT")
    }

    /// An error that says that no transaction is open.
    pub fn is_without_multi(&self) -> bool {
        self.kind == b'-'
            && (self.text.starts_with(b"ERR EXEC without")
                || self.text.starts_with(b"ERR DISCARD without"))
    }

    /// What this confirms of a subscription.
    pub fn confirmation(&self, state: &State) -> Option<Confirmation> {
        let can_be = self.kind == b'>' || (self.kind == b'*' && !state.resp3);
        confirmation(self.text).filter(|_| can_be)
    }

    /// Why a blocking command was told to stop waiting.
    pub fn unblocked(&self) -> Option<Unblocking> {
        if self.kind != b'-' || !self.text.starts_with(b"UNBLOCKED") {
            return None;
        }
        Some(match self.text.starts_with(b"UNBLOCKED client") {
            true => Unblocking::Asked,
            false => Unblocking::RoleChange,
        })
    }
}

/// Why a blocking command was told to stop waiting. It has taken nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unblocking {
    /// By CLIENT UNBLOCK.
    Asked,
    /// The server has become a replica.
    RoleChange,
}

/// What a reply was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// An answer, or a part of one, for the client as it is.
    Answered,
    /// The answer to the request that was blocking.
    Returned,
    /// The reply is to be shown with the ids that the client knows.
    Ids(Place),
    /// Something that answers nothing, as a published message.
    Unasked,
    /// Whether a transaction is open is not what it seemed when the requests were sent.
    Surprise,
    /// A transaction was begun by a MULTI that was sent while another one seemed to be open.
    Begun,
    /// No key is watched any more.
    Unwatched,
    /// The next request alone is to be treated like any other.
    NotCaching,
    /// The connection's state was cleared.
    Reset,
    /// The transaction was discarded for the client, who is told that it failed.
    Touched,
    /// The client is told something else.
    Instead(&'static str),
    /// The answer to a request of the proxy's own.
    Own,
    /// The answer to a question of the proxy's own.
    Asked(Question),
    /// A reply that nobody asked for, or one that cannot be: nothing after it can be trusted.
    Fault,
}

/// What `reply` means to a request that awaited this, outside of transactions.
pub fn learn(awaited: Expected, reply: Reply<'_>, state: &mut State) -> Settled {
    match awaited {
        Expected::Plain | Expected::Secret | Expected::MayBlock => Settled::Answered,
        Expected::Caching if reply.kind == b'-' => Settled::NotCaching,
        Expected::Caching => Settled::Answered,
        Expected::Blocking => Settled::Returned,
        Expected::Subscribed(..) | Expected::Unsubscribed(..) => match reply.kind {
            b'-' => Settled::Answered,
            _ => Settled::Fault,
        },
        Expected::Effect(effect) => {
            // HIMPORT DISCARD tells how many there were.
            if reply.is_ok() || reply.kind == b':' {
                state.apply(*effect);
            }
            Settled::Answered
        }
        Expected::Hello(name) => {
            if matches!(reply.kind, b'%' | b'*') {
                state.hello(reply.kind == b'%', name);
            }
            Settled::Answered
        }
        Expected::Reset if reply.kind == b'+' => {
            state.reset();
            Settled::Reset
        }
        Expected::Reset if reply.kind == b'-' => Settled::Answered,
        Expected::Ids(place, awaited) => match learn(*awaited, reply, state) {
            Settled::Answered => Settled::Ids(place),
            other => other,
        },
        Expected::Own if reply.kind != b'-' => Settled::Own,
        Expected::Asked(question) => Settled::Asked(question),
        Expected::Instead(text) if reply.kind == b'-' => Settled::Instead(text),
        // Of a transaction, and dealt with before.
        Expected::Multi
        | Expected::Nested
        | Expected::Queued(_)
        | Expected::Exec
        | Expected::Executed(_)
        | Expected::Discard
        | Expected::Touched => Settled::Fault,
        Expected::Reset | Expected::Own | Expected::Instead(_) | Expected::Local(_) => {
            Settled::Fault
        }
    }
}

fn confirmation(text: &[u8]) -> Option<Confirmation> {
    let (channel, subscription) = match text {
        b"subscribe" => (Channel::Name, Subscription::Begun),
        b"unsubscribe" => (Channel::Name, Subscription::Ended),
        b"psubscribe" => (Channel::Pattern, Subscription::Begun),
        b"punsubscribe" => (Channel::Pattern, Subscription::Ended),
        b"ssubscribe" => (Channel::Shard, Subscription::Begun),
        b"sunsubscribe" => (Channel::Shard, Subscription::Ended),
        _ => return None,
    };
    Some(Confirmation { channel, subscription })
}

fn is_message(text: &[u8]) -> bool {
    matches!(text, b"message" | b"pmessage" | b"smessage")
}

/// Whether an array in RESP2 that begins with this text comes in spite of CLIENT REPLY OFF.
pub fn is_published(text: &[u8]) -> bool {
    is_message(text) || confirmation(text).is_some()
}

/// Whether this answers nothing.
pub fn is_unasked(reply: Reply<'_>, state: &State, confirmation: bool) -> bool {
    match reply.kind {
        b'>' => true,
        b'*' if state.subscribed() && !state.resp3 => confirmation || is_message(reply.text),
        // A monitor's line begins with the time; no status does.
        b'+' if state.monitor => reply.text.first().is_some_and(u8::is_ascii_digit),
        _ => false,
    }
}
