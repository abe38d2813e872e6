//! Blocking commands: for how long they wait, and how to ask again for the time that is left. Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::changeover::{Ticket, Unblocked};
use crate::command::grammar::Read;
use crate::command::{Timeout, words};
use crate::resp::{Args, encode};

/// The error by which a command that was interrupted is known.
pub(super) const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// A blocking command that is owed a reply.
#[derive(Debug)]
pub(super) struct Blocked {
    /// The request, as the client sent it.
    frame: Vec<u8>,
    pub(super) since: Instant,
    /// When it will have waited long enough; `None` for never.
    pub(super) until: Option<Instant>,
    /// Where an XREAD says `$`, and what that meant when it was sent.
    positions: Vec<(usize, Option<Box<[u8]>>)>,
    /// Here the controller tells what came of the last CLIENT UNBLOCK for it.
    pub(super) ticket: Option<Arc<Ticket>>,
}

impl Blocked {
    /// `None` if the server will not take it.
    pub(super) fn new(frame: &[u8], timeout: Timeout, now: Instant) -> Option<Self> {
        let args: Vec<&[u8]> = Args::new(frame).collect();
        let wait = wait(timeout, &args)?;
        let until = (!wait.is_zero()).then(|| now.checked_add(wait)).flatten();
        let positions = new_entries(&args).into_iter().map(|(at, _)| (at, None)).collect();
        Some(Blocked { frame: frame.to_vec(), since: now, until, positions, ticket: None })
    }

    /// What `$` at this place meant is known.
    pub(super) fn resolve(&mut self, at: usize, position: Option<Box<[u8]>>) {
        if let Some((_, known)) = self.positions.iter_mut().find(|(place, _)| *place == at) {
            *known = position;
        }
    }

    /// Nobody is about to have it interrupted, or it was not waiting then. Where it *was* interrupted,
    /// the error may be on its way: it must not be taken for another client's.
    pub(super) fn is_to_be_asked(&self) -> bool {
        let Some(ticket) = &self.ticket else { return true };
        match ticket.answered() {
            Unblocked::No => true,
            Unblocked::Yes => false,
            // The controller has given up, and will tell nothing any more.
            Unblocked::Perhaps => Arc::strong_count(ticket) == 1,
        }
    }

    /// It can be asked again without a change of its meaning.
    pub(super) fn can_be_repeated(&self) -> bool {
        self.positions.iter().all(|(_, position)| position.is_some())
    }

    /// The same request with `$` replaced by what it meant.
    pub(super) fn request(&self) -> Vec<u8> {
        let mut args: Vec<&[u8]> = Args::new(&self.frame).collect();
        for (at, position) in &self.positions {
            if let (Some(arg), Some(position)) = (args.get_mut(*at), position) {
                *arg = position;
            }
        }
        encode::request(args)
    }
}

/// The request, for the time that is left; `None` if none is.
pub(super) fn with_time_left(frame: &[u8], timeout: Timeout, left: Duration) -> Option<Vec<u8>> {
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
pub(super) fn new_entries<'a>(args: &[&'a [u8]]) -> Vec<(usize, &'a [u8])> {
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
        let frame = encode::request(["BLPOP", "k", "0"]);
        let mut blocked = Blocked::new(&frame, Timeout::Last, Instant::now()).expect("it waits");
        assert!(blocked.is_to_be_asked());
        let ticket = Arc::<Ticket>::default();
        blocked.ticket = Some(ticket.clone());
        assert!(!blocked.is_to_be_asked(), "it is on its way");
        ticket.answer(false);
        assert!(blocked.is_to_be_asked(), "it was not waiting yet");
        ticket.answer(true);
        assert!(!blocked.is_to_be_asked(), "the error is on its way");
        // Another one, of whom nothing will be heard.
        let ticket = Arc::<Ticket>::default();
        blocked.ticket = Some(ticket.clone());
        assert!(!blocked.is_to_be_asked());
        drop(ticket);
        assert!(blocked.is_to_be_asked());
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
            let blocked = Blocked::new(&frame(line), timeout, now)?;
            Some(blocked.until.map(|until| until - now))
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
        let mut blocked =
            Blocked::new(&frame(line), Timeout::Block, Instant::now()).expect("valid");
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
        assert_eq!(text(&blocked.request()), "XREAD BLOCK 0 STREAMS a b c 0-0 5-1 7-2");
        assert_eq!(position(b"-WRONGTYPE\r\n"), None);
    }
}
