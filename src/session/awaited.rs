//! What the next reply means, and what a session learns from it. Pure.

use super::state::State;
use crate::command::Channel;

/// What a transaction had queued that matters at its EXEC.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queued {
    /// Requests whose replies are not for the log.
    pub(super) secrets: bool,
    /// A SELECT.
    pub(super) selects: bool,
    /// CLIENT TRACKING ON.
    pub(super) tracks: bool,
    /// SUBSCRIBE and its kin: how many requests.
    pub(super) subscriptions: u32,
    /// And how many channels they name.
    pub(super) channels: u32,
}

impl Queued {
    pub(super) fn subscribe(&mut self, channels: u32) {
        self.subscriptions = self.subscriptions.saturating_add(1);
        self.channels = self.channels.saturating_add(channels);
    }

    /// In EXEC's reply, a subscribing request is one element by the header. What comes is, in
    /// RESP2, an array for each of its channels, and in RESP3 pushes, which are no elements.
    pub(super) fn more_elements(&self, resp3: bool) -> i64 {
        let requests = i64::from(self.subscriptions);
        if resp3 { -requests } else { i64::from(self.channels) - requests }
    }
}

/// What the next reply means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Awaited {
    /// One reply, nothing to learn from it.
    Plain,
    /// As plain, but not for the log.
    Secret,
    /// As plain, under the limit for blocking commands.
    Blocking,
    /// An error means that no transaction was begun.
    Multi,
    /// An array means that what was queued was executed.
    Exec(Queued),
    /// `+OK` makes this the database.
    Select(u32),
    /// A map or an array tells the protocol's version.
    Hello,
    /// `+OK` makes the next transaction depend on keys, or no more.
    Watch(bool),
    /// `+OK` turns client-side caching on, or off.
    Tracking(bool),
    /// `+OK` makes lines come that answer nothing.
    Monitor,
    /// `+RESET` clears the state.
    Reset,
    /// Confirmations of a SUBSCRIBE; this many.
    Subscribed(Channel, u32),
    /// Confirmations of an UNSUBSCRIBE: this many, or with 0 as many as there are subscriptions.
    Unsubscribed(Channel, u32),
    /// The proxy's own request: not for the client, and the reply must be no error.
    Own,
    /// Not for the client, who is told this instead.
    Instead(&'static str),
    /// Made by the proxy, to be sent when its turn comes.
    Local(Box<[u8]>),
}

/// A reply or a push, as far as the scanner looked into it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply<'a> {
    pub(super) kind: u8,
    /// Kept only where [`super::owed::Owed::looks_into`] says so.
    pub(super) text: &'a [u8],
    pub(super) number: i64,
}

/// What a reply was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// The oldest request is over.
    Answered,
    /// One of several confirmations for the oldest request.
    Confirmed,
    /// Something that answers nothing, as a published message.
    Unasked,
    /// MULTI was refused; the request is over.
    NoMulti,
    /// The client is told something else; the request is over.
    Instead(&'static str),
    /// The proxy's own request is over.
    Own,
    /// A reply that nobody asked for, or an error where none may be.
    Fault,
}

/// What `reply` means to a request that awaited this.
pub(super) fn learn(awaited: &Awaited, reply: Reply<'_>, state: &mut State) -> Settled {
    let ok = reply.kind == b'+' && reply.text == b"OK";
    match awaited {
        Awaited::Plain | Awaited::Secret | Awaited::Blocking => Settled::Answered,
        // An error, or +QUEUED, instead of the confirmations.
        Awaited::Subscribed(..) | Awaited::Unsubscribed(..) => Settled::Answered,
        Awaited::Select(db) => {
            if ok {
                state.db = *db;
                state.db_unknown = false;
            }
            Settled::Answered
        }
        Awaited::Watch(watching) => {
            if ok {
                state.watching = *watching;
            }
            Settled::Answered
        }
        Awaited::Tracking(on) => {
            if ok {
                state.tracking = *on;
            }
            Settled::Answered
        }
        Awaited::Hello => {
            if matches!(reply.kind, b'%' | b'*') {
                state.resp3 = reply.kind == b'%';
            }
            Settled::Answered
        }
        Awaited::Monitor => {
            state.monitor |= ok;
            Settled::Answered
        }
        Awaited::Reset => {
            if reply.kind == b'+' {
                state.reset();
            }
            Settled::Answered
        }
        Awaited::Multi if reply.kind == b'-' => Settled::NoMulti,
        Awaited::Multi => Settled::Answered,
        Awaited::Exec(queued) => {
            state.subscribed_by_exec |= queued.subscriptions > 0 && reply.kind == b'*';
            state.db_unknown |= queued.selects && reply.kind == b'*';
            state.tracking |= queued.tracks && reply.kind == b'*';
            // Executed or aborted, but not refused for being no transaction at all.
            state.watching &= reply.kind == b'-' && !reply.text.starts_with(b"EXECABORT");
            Settled::Answered
        }
        Awaited::Own if reply.kind != b'-' => Settled::Own,
        Awaited::Instead(text) if reply.kind == b'-' => Settled::Instead(text),
        Awaited::Own | Awaited::Instead(_) | Awaited::Local(_) => Settled::Fault,
    }
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
