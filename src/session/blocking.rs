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
    Waits(Vec<(usize, Box<[u8]>)>),
    /// This request goes up, and cannot be interrupted.
    Stays(Vec<u8>),
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
            return Sending::Stays(frame);
        };
        let until = (!wait.is_zero()).then(|| now.checked_add(wait)).flatten();
        let positions = streams.iter().map(|(at, _)| Position { at: *at, id: None }).collect();
        let waits = AtUplink { frame, since, until, positions, ticket: None };
        *self = Blocking::AtUplink(Box::new(waits));
        Sending::Waits(streams)
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
mod tests {
    use super::*;

    #[test]
    fn a_command_that_was_interrupted_is_not_asked_for_again_before_its_error_is_here() {
        let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
        let (_, ticket) = blocking.ask().expect("nobody has asked");
        assert!(blocking.ask().is_none(), "it is on its way");
        ticket.answer(false);
        let (_, ticket) = blocking.ask().expect("it was not waiting yet");
        ticket.answer(true);
        assert!(blocking.ask().is_none(), "the error is on its way");
        // Another one, of whom nothing will be heard.
        let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
        let (_, ticket) = blocking.ask().expect("nobody has asked");
        assert!(blocking.ask().is_none());
        drop(ticket);
        assert!(blocking.ask().is_some());
    }

    #[test]
    fn the_two_notices_of_an_interruption_may_come_in_any_order() {
        let error = Some(Unblocking::Asked);
        // The error comes before the controller has heard what its CLIENT UNBLOCK did.
        for (hit, refused) in [(true, false), (false, true)] {
            let now = Instant::now();
            let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
            let (_, ticket) = blocking.ask().expect("nobody has asked");
            assert!(matches!(blocking.returned(error, now), Returned::Interrupted { .. }));
            assert!(!blocking.is_refused(), "nobody knows yet");
            ticket.answer(hit);
            assert_eq!(blocking.is_refused(), refused, "another client's, unless it has hit");
        }
        // Nobody has asked: it is another client's.
        let mut blocking = at_uplink("BLPOP k 0", Timeout::Last);
        assert_eq!(blocking.returned(error, Instant::now()), Returned::Answered);
        assert!(blocking.is_none());
    }

    fn at_uplink(line: &str, timeout: Timeout) -> Blocking {
        let mut blocking = Blocking::None;
        let sending = blocking.send(&frame(line), timeout, false, Instant::now());
        assert!(matches!(sending, Sending::Waits(_)), "{line}");
        blocking
    }

    fn frame(line: &str) -> Vec<u8> {
        encode::request(line.split(' ').collect::<Vec<_>>())
    }

    fn text(frame: &[u8]) -> String {
        let args: Vec<_> = Args::new(frame).map(String::from_utf8_lossy).collect();
        args.join(" ")
    }

    #[test]
    fn the_time_that_is_left_is_asked_for() {
        let left = Duration::from_micros(1_234_567);
        for (line, timeout, wanted) in [
            ("BLPOP a b 0.5", Timeout::Last, "BLPOP a b 1.234"),
            ("BLMPOP 3 1 a LEFT", Timeout::At(1), "BLMPOP 1.234 1 a LEFT"),
            (
                "XREAD COUNT 2 block 9 STREAMS s 0",
                Timeout::Block,
                "XREAD COUNT 2 block 1234 STREAMS s 0",
            ),
            (
                "XREADGROUP GROUP block 100000 BLOCK 0 BLOCK 9 STREAMS s >",
                Timeout::Block,
                "XREADGROUP GROUP block 100000 BLOCK 0 BLOCK 1234 STREAMS s >",
            ),
            ("BLMOVEM a b LEFT LEFT 0 COUNT 2 OBO", Timeout::At(5), {
                "BLMOVEM a b LEFT LEFT 1.234 COUNT 2 OBO"
            }),
        ] {
            let asked = with_time_left(&frame(line), timeout, left).expect("time is left");
            assert_eq!(text(&asked), wanted);
        }
        let (pop, nothing) = (frame("BLPOP a 1"), Duration::from_micros(900));
        assert_eq!(with_time_left(&pop, Timeout::Last, nothing), None, "0 would be for ever");
    }

    #[test]
    fn a_timeout_is_seconds_or_milliseconds_and_0_is_for_ever() {
        let now = Instant::now();
        let until = |line: &str, timeout| {
            let mut blocking = Blocking::None;
            match blocking.send(&frame(line), timeout, false, now) {
                Sending::Waits(_) => Some(blocking.until_at_uplink().map(|until| until - now)),
                _ => None,
            }
        };
        assert_eq!(until("BLPOP a 1.5", Timeout::Last), Some(Some(Duration::from_millis(1500))));
        assert_eq!(until("BLPOP a 0", Timeout::Last), Some(None));
        assert_eq!(
            until("XREAD BLOCK 7 STREAMS a 0", Timeout::Block),
            Some(Some(Duration::from_millis(7)))
        );
        for (line, millis) in [("BLPOP a 0x1", 1000), ("BLPOP a 1e-1", 100), ("BLPOP a .0001", 1)] {
            let wait = Some(Some(Duration::from_millis(millis)));
            assert_eq!(until(line, Timeout::Last), wait, "{line}");
        }
        assert_eq!(until("BLPOP a -0.0001", Timeout::Last), Some(None), "as Redis has it");
        for wrong in ["BLPOP a -1", "BLPOP a x", "BLPOP", "BLPOP a nan"] {
            assert_eq!(until(wrong, Timeout::Last), None, "{wrong}");
        }
    }

    #[test]
    fn new_entries_are_those_after_the_position_at_the_time() {
        let line = "XREAD BLOCK 0 STREAMS a b c $ 5-1 $";
        let mut blocked = at_uplink(line, Timeout::Block);
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        assert_eq!(new_entries(&args), [(7, &b"a"[..]), (9, b"c")]);
        for none in ["BLPOP streams a $ 5", "XREADGROUP GROUP g c BLOCK 0 STREAMS s $"] {
            let args: Vec<&[u8]> = none.split(' ').map(str::as_bytes).collect();
            assert_eq!(new_entries(&args), [], "{none}");
        }
        let last: Vec<&[u8]> = "XREAD BLOCK 0 STREAMS $ +".split(' ').map(str::as_bytes).collect();
        assert_eq!(new_entries(&last), [(5, &b"$"[..])]);
        assert!(!blocked.can_be_repeated());
        blocked.resolve(7, position(b"-ERR no such key\r\n"));
        let info = b"*4\r\n$6\r\nlength\r\n:1\r\n$17\r\nlast-generated-id\r\n$3\r\n7-2\r\n";
        blocked.resolve(9, position(info));
        assert!(blocked.can_be_repeated());
        let returned = blocked.returned(Some(Unblocking::RoleChange), Instant::now());
        let Returned::Interrupted { frame, closing: true } = returned else {
            panic!("{returned:?}")
        };
        assert_eq!(text(&frame), "XREAD BLOCK 0 STREAMS a b c 0-0 5-1 7-2");
        assert_eq!(position(b"-WRONGTYPE\r\n"), None);
    }
}
