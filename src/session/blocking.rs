//! A blocking command: it waits at the uplink; it is interrupted, and waits at the gate; it is sent again for
//! the time that is left. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::protocol::expected::Unblocking;
use crate::changeover::{Ticket, Unblocked};
use crate::command::grammar::Read;
use crate::command::{Timeout, words};
use crate::resp::{Args, encode};

/// The error by which a command that was interrupted is known.
pub(super) const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// A client's blocking command, from when it is sent until the client has the answer.
#[derive(Debug, Default)]
pub(super) enum Blocking {
    /// No command waits for data.
    #[default]
    None,
    /// The command waits at the uplink.
    AtUplink(Box<AtUplink>),
    /// The command was interrupted. It waits at the gate, ahead of all that is parked.
    AtGate(Box<AtGate>),
}

/// A blocking command that is owed a reply.
#[derive(Debug)]
pub(super) struct AtUplink {
    /// The request, as the client sent it.
    frame: Vec<u8>,
    /// Since when it waits at an uplink; the time at the gate does not count.
    since: Instant,
    /// When it will have waited long enough; `None` for never.
    until: Option<Instant>,
    /// The arguments `$` of an XREAD.
    positions: Vec<Position>,
    /// Where the controller reports the last CLIENT UNBLOCK.
    ticket: Option<Arc<Ticket>>,
}

/// An argument `$` of an XREAD.
#[derive(Debug)]
struct Position {
    /// Its place among the arguments.
    at: usize,
    /// The id that it stood for, once the uplink has told.
    id: Option<Box<[u8]>>,
}

/// A blocking command that was interrupted.
#[derive(Debug)]
pub(super) struct AtGate {
    /// When it will have waited long enough; `None` for never.
    until: Option<Instant>,
    /// Since when it has waited at an uplink, and up to when.
    since: Instant,
    interrupted: Instant,
    /// Length of its frame, which is at the start of the parked input.
    len: usize,
    ticket: Option<Arc<Ticket>>,
}

/// What becomes of a blocking command that is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// [`Blocking::frame`] goes up. Before it, the uplink is asked for the last entry of these streams, which
    /// are the arguments at these places.
    Interruptible(Vec<(usize, Box<[u8]>)>),
    /// This request goes up, and cannot be interrupted.
    Uninterruptible(Vec<u8>),
    /// No time is left.
    TimedOut,
}

/// What a reply to a blocking command says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Returned {
    /// The client gets it.
    Answered,
    /// The command was interrupted, and nothing was taken. It is to be sent again, like this.
    Interrupted {
        /// The request, which is parked.
        frame: Vec<u8>,
        /// The uplink is about to close the connection.
        closing: bool,
    },
}

impl Blocking {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Blocking::None)
    }

    pub(super) fn is_at_uplink(&self) -> bool {
        matches!(self, Blocking::AtUplink(_))
    }

    pub(super) fn is_at_gate(&self) -> bool {
        matches!(self, Blocking::AtGate(_))
    }

    /// A blocking command is about to be sent, perhaps one that was interrupted before. `one_shot` says that
    /// the client has sent something that concerns the next request alone.
    pub(super) fn send(
        &mut self,
        frame: &[u8],
        timeout: Timeout,
        one_shot: bool,
        now: Instant,
    ) -> Sending {
        let before = match std::mem::take(self) {
            Blocking::AtGate(before) => Some(before),
            Blocking::None | Blocking::AtUplink(_) => None,
        };
        let frame = match before.as_ref().and_then(|before| before.until) {
            None => frame.to_vec(),
            Some(until) => {
                let left = until.saturating_duration_since(now);
                match with_time_left(frame, timeout, left) {
                    Some(shortened) => shortened,
                    None => return Sending::TimedOut,
                }
            }
        };
        // The time between does not count.
        let since = before.map_or(now, |before| before.since + (now - before.interrupted));
        let args: Vec<&[u8]> = Args::new(&frame).collect();
        let streams: Vec<(usize, Box<[u8]>)> =
            new_entries(&args).into_iter().map(|(at, stream)| (at, stream.into())).collect();
        // A question ahead of it would be the next request.
        let is_alone = one_shot && !streams.is_empty();
        let Some(wait) = wait(timeout, &args).filter(|_| !is_alone) else {
            return Sending::Uninterruptible(frame);
        };
        let until = (!wait.is_zero()).then(|| now.checked_add(wait)).flatten();
        let positions = streams.iter().map(|(at, _)| Position { at: *at, id: None }).collect();
        let waits = AtUplink { frame, since, until, positions, ticket: None };
        *self = Blocking::AtUplink(Box::new(waits));
        Sending::Interruptible(streams)
    }

    /// The request that waits at the uplink.
    pub(super) fn frame(&self) -> &[u8] {
        match self {
            Blocking::AtUplink(it) => &it.frame,
            Blocking::None | Blocking::AtGate(_) => &[],
        }
    }

    /// Records the id that `$` stood for at this place.
    pub(super) fn resolve(&mut self, at: usize, position: Option<Box<[u8]>>) {
        if let Blocking::AtUplink(it) = self
            && let Some(known) = it.positions.iter_mut().find(|known| known.at == at)
        {
            known.id = position;
        }
    }

    /// The uplink has answered; `unblocking` tells why it stopped waiting, if it did not answer the request.
    pub(super) fn returned(&mut self, unblocking: Option<Unblocking>, now: Instant) -> Returned {
        let Blocking::AtUplink(it) = std::mem::take(self) else { return Returned::Answered };
        let closing = match unblocking {
            None => return Returned::Answered,
            // Another client asked for that.
            Some(Unblocking::Asked) if it.ticket.is_none() => return Returned::Answered,
            Some(why) => why == Unblocking::RoleChange,
        };
        let frame = it.request();
        let AtUplink { until, since, ticket, .. } = *it;
        let len = frame.len();
        *self = Blocking::AtGate(Box::new(AtGate { until, since, interrupted: now, len, ticket }));
        Returned::Interrupted { frame, closing }
    }

    /// Sending the command again would mean the same.
    pub(super) fn can_be_repeated(&self) -> bool {
        match self {
            Blocking::AtUplink(it) => it.positions.iter().all(|position| position.id.is_some()),
            Blocking::None | Blocking::AtGate(_) => false,
        }
    }

    /// The controller is to have it interrupted; gives since when it waits, and where to tell what came of
    /// that. `None` if the last CLIENT UNBLOCK for it may have hit: its error may be on its way, and must
    /// not be taken for another client's.
    pub(super) fn ask(&mut self) -> Option<(Instant, Arc<Ticket>)> {
        let Blocking::AtUplink(it) = self else { return None };
        if !it.is_to_be_asked() {
            return None;
        }
        Some((it.since, it.ticket.insert(Arc::default()).clone()))
    }

    /// The interruption came from another client.
    pub(super) fn is_refused(&self) -> bool {
        let Blocking::AtGate(it) = self else { return false };
        it.ticket.as_ref().is_some_and(|ticket| ticket.answered() == Unblocked::No)
    }

    /// It will not be sent again; gives how many parked bytes are its own.
    pub(super) fn end_at_gate(&mut self) -> Option<usize> {
        match std::mem::take(self) {
            Blocking::AtGate(it) => Some(it.len),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Since when it waits at the uplink.
    pub(super) fn since(&self) -> Option<Instant> {
        match self {
            Blocking::AtUplink(it) => Some(it.since),
            Blocking::None | Blocking::AtGate(_) => None,
        }
    }

    /// When it will have waited long enough at the uplink, which answers then.
    pub(super) fn until_at_uplink(&self) -> Option<Instant> {
        match self {
            Blocking::AtUplink(it) => it.until,
            Blocking::None | Blocking::AtGate(_) => None,
        }
    }

    /// When it will have waited long enough at the gate, where the proxy must answer then.
    pub(super) fn until_at_gate(&self) -> Option<Instant> {
        match self {
            Blocking::AtGate(it) => it.until,
            Blocking::None | Blocking::AtUplink(_) => None,
        }
    }
}

impl AtUplink {
    /// No CLIENT UNBLOCK for this command is outstanding.
    fn is_to_be_asked(&self) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        match ticket.answered() {
            Unblocked::No => true,
            Unblocked::Yes => false,
            // The controller has given up, and will tell nothing any more.
            Unblocked::Perhaps => Arc::strong_count(ticket) == 1,
        }
    }

    /// The request with `$` replaced by what it meant.
    fn request(&self) -> Vec<u8> {
        let mut args: Vec<&[u8]> = Args::new(&self.frame).collect();
        for position in &self.positions {
            if let (Some(arg), Some(id)) = (args.get_mut(position.at), &position.id) {
                *arg = id;
            }
        }
        encode::request(args)
    }
}

/// The request, for the time that is left; `None` if none is.
fn with_time_left(frame: &[u8], timeout: Timeout, left: Duration) -> Option<Vec<u8>> {
    // In full milliseconds, of which a part is none: 0 would mean for ever.
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return None;
    }
    let text = match timeout {
        Timeout::At(_) | Timeout::Last => format!("{}.{:03}", millis / 1000, millis % 1000),
        Timeout::Block => millis.to_string(),
    };
    let mut args: Vec<&[u8]> = Args::new(frame).collect();
    let at = place(timeout, &args)?;
    args[at] = text.as_bytes();
    Some(encode::request(args))
}

/// Where the timeout is.
fn place(timeout: Timeout, args: &[&[u8]]) -> Option<usize> {
    let at = match timeout {
        Timeout::At(at) => at,
        Timeout::Last => args.len().checked_sub(1)?,
        Timeout::Block => Read::new(args)?.block?,
    };
    (at > 0 && at < args.len()).then_some(at)
}

/// For how long the server lets it wait, 0 for ever; `None` if the server does not take the number.
fn wait(timeout: Timeout, args: &[&[u8]]) -> Option<Duration> {
    let number = args[place(timeout, args)?];
    let millis = match timeout {
        Timeout::At(_) | Timeout::Last => words::seconds(number)?,
        Timeout::Block => u64::try_from(words::integer(number)?).ok()?,
    };
    Some(Duration::from_millis(millis))
}

/// Where an XREAD begins after what is there already, and of which stream: `$`. A `+` that has to
/// wait found an empty stream, so it means the same then.
fn new_entries<'a>(args: &[&'a [u8]]) -> Vec<(usize, &'a [u8])> {
    let is_read = args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"XREAD"));
    let Some(read) = Read::new(args).filter(|_| is_read) else { return Vec::new() };
    let is_new = |at: usize| matches!(words::until_nul(args[at]), b"$" | b"+");
    read.positions().filter(|(at, _)| is_new(*at)).map(|(at, key)| (at, args[key])).collect()
}

/// What `$` means, by the answer to an XINFO STREAM that was sent ahead.
pub(super) fn position(reply: &[u8]) -> Option<Box<[u8]>> {
    const NAME: &[u8] = b"$17\r\nlast-generated-id\r\n";
    if reply.starts_with(b"-ERR no such key") {
        return Some(b"0-0".as_slice().into());
    }
    let at = memchr::memmem::find(reply, NAME)? + NAME.len();
    let mut lines = reply[at..].split(|byte| *byte == b'\n');
    let id = lines.nth(1)?.strip_suffix(b"\r")?;
    let digits = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
    (!id.is_empty() && id.iter().all(digits)).then(|| id.into())
}

#[cfg(test)]
mod tests;
