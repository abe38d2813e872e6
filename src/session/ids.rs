//! Ids of clients: what a client has seen stays valid after a handover. Pure, but for its lock.
//!
//! Before the first switch, an id is the uplink's. After it, sessions keep the id that they had,
//! and whoever comes later is given the uplink's plus an offset, so that nobody has another's, and
//! later ones are larger, as Redis promises. (The offset leaves them exact in a double.)

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::command::{grammar, words};
use crate::resp::encode;
use crate::resp::reply::{Scanner, Step};

/// Between the ids of one uplink and those of the next.
const OFFSET: u64 = 1 << 40;
/// Nobody has this id.
const NOBODY: u64 = i64::MAX as u64;

/// What ids mean at the uplink in force.
#[derive(Debug, Default)]
pub struct Ids {
    maps: Mutex<Maps>,
    /// Somebody's id is not the uplink's.
    differ: AtomicBool,
}

#[derive(Debug, Default)]
struct Maps {
    /// By the id that clients have seen: the uplink's.
    present: HashMap<u64, u64>,
    /// The other way round.
    seen: HashMap<u64, u64>,
    /// By the id that clients have seen: the next uplink's.
    next: HashMap<u64, u64>,
    /// To these, as clients have seen them, others have redirected invalidations.
    targets: HashSet<u64>,
    /// Keys were touched that these watch, as clients have seen them, and the uplink does not know it.
    touched: HashSet<u64>,
}

/// Where a reply has ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is one: CLIENT ID and GETREDIR.
    Number,
    /// Behind the text `id`: HELLO.
    Hello,
    /// Behind the text `redirect`: CLIENT TRACKINGINFO.
    Redirect,
    /// In lines of `name=value`: CLIENT LIST and INFO.
    Lines,
}

impl Ids {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has a connection with this id at the uplink of this epoch; gives the id that its
    /// client has seen, or will see.
    pub(super) fn connected(&self, epoch: u64, seen: Option<u64>, present: u64) -> u64 {
        let usual = present + epoch * OFFSET;
        let seen = seen.unwrap_or(usual);
        if seen != usual {
            self.differ.store(true, Ordering::Relaxed);
            let mut maps = self.maps();
            maps.present.insert(seen, present);
            maps.seen.insert(present, seen);
        }
        seen
    }

    /// Ids are those of the uplink, as long as nobody has had to connect again.
    pub(super) fn are_the_uplinks(&self, epoch: u64) -> bool {
        epoch == 0 && !self.differ.load(Ordering::Relaxed)
    }

    /// It has one at the next uplink, too.
    pub(super) fn prepared(&self, seen: u64, next: u64) {
        self.maps().next.insert(seen, next);
    }

    /// Its id at the next uplink.
    pub(super) fn next(&self, seen: u64) -> Option<u64> {
        self.maps().next.get(&seen).copied()
    }

    /// The next uplink will not come.
    pub fn abandon(&self) {
        self.maps().next = HashMap::new();
    }

    /// The next uplink is in force.
    pub fn exchange(&self) {
        let mut maps = self.maps();
        maps.present = std::mem::take(&mut maps.next);
        maps.seen = maps.present.iter().map(|(seen, present)| (*present, *seen)).collect();
    }

    /// A session is over.
    pub(super) fn forget(&self, seen: u64) {
        let mut maps = self.maps();
        if let Some(present) = maps.present.remove(&seen) {
            maps.seen.remove(&present);
        }
        maps.next.remove(&seen);
        maps.targets.remove(&seen);
        maps.touched.remove(&seen);
    }

    /// Its next EXEC must fail, or need not any more. CLIENT LIST shows that, as the uplink does of
    /// what it knows: whoever moves clients from this proxy to elsewhere goes by it.
    pub(super) fn touched(&self, seen: u64, touched: bool) {
        self.differ.store(true, Ordering::Relaxed);
        let mut maps = self.maps();
        match touched {
            true => maps.touched.insert(seen),
            false => maps.touched.remove(&seen),
        };
    }

    fn is_touched(&self, seen: u64) -> bool {
        self.maps().touched.contains(&seen)
    }

    /// Somebody has redirected invalidations to this one.
    pub(super) fn redirected(&self, seen: u64) {
        self.maps().targets.insert(seen);
    }

    pub(super) fn is_target(&self, seen: u64) -> bool {
        self.maps().targets.contains(&seen)
    }

    /// The uplink's id for one that a client names.
    pub(super) fn present(&self, epoch: u64, seen: u64) -> Option<u64> {
        let known = self.maps().present.get(&seen).copied();
        known.or_else(|| seen.checked_sub(epoch * OFFSET).filter(|id| *id < OFFSET))
    }

    /// What a client must be told for an id of the uplink's.
    fn seen(&self, epoch: u64, present: u64) -> u64 {
        self.maps().seen.get(&present).copied().unwrap_or(present + epoch * OFFSET)
    }

    /// A CLIENT request with the ids that it names replaced by those of the uplink of this epoch;
    /// `None` is the next.
    pub(super) fn request(&self, epoch: Option<u64>, args: &[&[u8]]) -> Option<Vec<u8>> {
        if epoch.is_some_and(|epoch| self.are_the_uplinks(epoch)) {
            return None;
        }
        let is_client = args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"CLIENT"));
        let ids = if is_client { grammar::client_ids(args) } else { Vec::new() };
        let replaced: Vec<Option<Vec<u8>>> = (0..args.len())
            .map(|at| {
                let id = number(args[at]).filter(|_| ids.contains(&at))?;
                let there = match epoch {
                    Some(epoch) => self.present(epoch, id),
                    None => self.next(id),
                };
                Some(there.unwrap_or(NOBODY).to_string().into_bytes())
            })
            .collect();
        replaced.iter().any(Option::is_some).then(|| {
            let new = args.iter().zip(&replaced);
            let new: Vec<&[u8]> =
                new.map(|(old, new)| new.as_ref().map_or(*old, |new| new)).collect();
            encode::request(new)
        })
    }

    /// A whole reply with its ids replaced. Whatever has none is as it was.
    pub(super) fn reply(&self, epoch: u64, place: Place, reply: &[u8]) -> Vec<u8> {
        match place {
            Place::Number => self.number_at(epoch, reply, 0),
            Place::Hello => self.number_after(epoch, reply, b"$2\r\nid\r\n"),
            Place::Redirect => self.number_after(epoch, reply, b"$8\r\nredirect\r\n"),
            Place::Lines => self.lines(epoch, reply),
        }
    }

    /// The reply to EXEC: those of its elements that have ids.
    pub(super) fn replies(&self, epoch: u64, places: &[(u32, Place)], reply: &[u8]) -> Vec<u8> {
        let Some(head) = memchr::memchr(b'\n', reply).filter(|_| reply.starts_with(b"*")) else {
            return reply.to_vec();
        };
        let mut out = reply[..=head].to_vec();
        let (mut scanner, mut pos, mut element) = (Scanner::default(), head + 1, 0);
        while pos < reply.len() {
            let start = pos;
            let Ok(Step::End { kind }) = scanner.next(reply, &mut pos) else {
                out.extend_from_slice(&reply[start..]);
                break;
            };
            let whole = &reply[start..pos];
            match places.iter().find(|(at, _)| *at == element && kind != b'>') {
                Some((_, place)) => out.extend(self.reply(epoch, *place, whole)),
                None => out.extend_from_slice(whole),
            }
            element += u32::from(kind != b'>');
        }
        out
    }

    fn number_after(&self, epoch: u64, reply: &[u8], key: &[u8]) -> Vec<u8> {
        match memchr::memmem::find(reply, key) {
            Some(at) => self.number_at(epoch, reply, at + key.len()),
            None => reply.to_vec(),
        }
    }

    /// `:N` at this place; numbers below 1 are no ids.
    fn number_at(&self, epoch: u64, reply: &[u8], at: usize) -> Vec<u8> {
        let (before, rest) = reply.split_at(at);
        let Some(end) = memchr::memchr(b'\r', rest) else { return reply.to_vec() };
        match rest[..end].strip_prefix(b":").and_then(number).filter(|id| *id > 0) {
            Some(id) => {
                [before, format!(":{}", self.seen(epoch, id)).as_bytes(), &rest[end..]].concat()
            }
            None => reply.to_vec(),
        }
    }

    fn lines(&self, epoch: u64, reply: &[u8]) -> Vec<u8> {
        let (kind, prefix): (u8, &[u8]) = match reply.first() {
            Some(b'$') => (b'$', b""),
            Some(b'=') => (b'=', b"txt:"),
            _ => return reply.to_vec(),
        };
        let body = memchr::memchr(b'\n', reply).map(|end| &reply[end + 1..]);
        let body = body.and_then(|body| body.strip_prefix(prefix)?.strip_suffix(b"\r\n"));
        let Some(body) = body else { return reply.to_vec() };
        let mut text = prefix.to_vec();
        for line in body.split_inclusive(|byte| *byte == b'\n') {
            let mut touched = false;
            for word in line.split_inclusive(|byte| *byte == b' ') {
                let (name, value) = match word.iter().position(|byte| *byte == b'=') {
                    Some(at) => word.split_at(at + 1),
                    None => (word, &[][..]),
                };
                let end = value.iter().position(|byte| !byte.is_ascii_digit());
                let (digits, rest) = value.split_at(end.unwrap_or(value.len()));
                let id = number(digits).filter(|id| *id > 0);
                match id.filter(|_| name == b"id=" || name == b"redir=") {
                    Some(id) => {
                        let seen = self.seen(epoch, id);
                        touched |= name == b"id=" && self.is_touched(seen);
                        text.extend_from_slice(name);
                        text.extend_from_slice(seen.to_string().as_bytes());
                        text.extend_from_slice(rest);
                    }
                    None if touched && name == b"flags=" => text.extend(as_dirty(word)),
                    None => text.extend_from_slice(word),
                }
            }
        }
        let head = format!("{}{}\r\n", char::from(kind), text.len());
        [head.as_bytes(), &text, b"\r\n"].concat()
    }
}

/// `flags=...` with the flag for a transaction that must fail.
fn as_dirty(word: &[u8]) -> Vec<u8> {
    let (flags, end) = match word.strip_suffix(b" ") {
        Some(flags) => (flags, &b" "[..]),
        None => (word, &b""[..]),
    };
    match flags {
        b"flags=N" => [b"flags=d", end].concat(),
        flags if flags.contains(&b'd') => word.to_vec(),
        flags => [flags, b"d", end].concat(),
    }
}

/// Where the reply to this CLIENT request, or to HELLO, has ids.
pub(super) fn place(args: &[&[u8]]) -> Option<Place> {
    match args {
        [name, ..] if name.eq_ignore_ascii_case(b"HELLO") => Some(Place::Hello),
        [_, sub, ..] => match &sub.to_ascii_uppercase()[..] {
            b"ID" | b"GETREDIR" => Some(Place::Number),
            b"TRACKINGINFO" => Some(Place::Redirect),
            b"LIST" | b"INFO" => Some(Place::Lines),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number that may be an id.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    words::integer(text).and_then(|number| u64::try_from(number).ok())
}

/// The value of a field in a line of CLIENT INFO or LIST.
pub(super) fn field<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    words.find_map(|word| word.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Args;

    fn request(ids: &Ids, epoch: u64, line: &str) -> String {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let frame = ids.request(Some(epoch), &args).unwrap_or_else(|| encode::request(&args));
        let text = Args::new(&frame).map(String::from_utf8_lossy).collect::<Vec<_>>();
        text.join(" ")
    }

    #[test]
    fn an_id_that_was_seen_means_the_same_client_after_a_switch() {
        let ids = Ids::default();
        assert_eq!(ids.connected(0, None, 5), 5);
        assert_eq!(request(&ids, 0, "CLIENT KILL ID 5"), "CLIENT KILL ID 5");
        ids.prepared(5, 90);
        assert_eq!(request(&ids, 0, "CLIENT UNBLOCK 5"), "CLIENT UNBLOCK 5", "not yet");
        ids.exchange();
        assert_eq!(ids.connected(1, Some(5), 90), 5);
        let late = ids.connected(1, None, 5);
        assert_eq!(late, OFFSET + 5, "no second 5");
        for (line, there) in [
            ("CLIENT KILL ID 5 SKIPME no", "CLIENT KILL ID 90 SKIPME no".to_owned()),
            ("CLIENT UNBLOCK 5 ERROR", "CLIENT UNBLOCK 90 ERROR".to_owned()),
            (&format!("CLIENT LIST ID 5 {late}"), "CLIENT LIST ID 90 5".to_owned()),
            (
                "client tracking on redirect 5 noloop",
                "client tracking on redirect 90 noloop".into(),
            ),
            ("CLIENT KILL ID 6", format!("CLIENT KILL ID {NOBODY}")),
            ("CLIENT SETNAME 5", "CLIENT SETNAME 5".to_owned()),
            ("CLIENT KILL USER id ID 5", "CLIENT KILL USER id ID 90".to_owned()),
            ("CLIENT KILL USER id NOT-ID 5 6", format!("CLIENT KILL USER id NOT-ID 90 {NOBODY}")),
            ("CLIENT LIST NAME id ID 05", "CLIENT LIST NAME id ID 05".to_owned()),
            (
                "CLIENT TRACKING ON REDIRECT 5 PREFIX redirect PREFIX 7 BCAST",
                "CLIENT TRACKING ON REDIRECT 90 PREFIX redirect PREFIX 7 BCAST".to_owned(),
            ),
            ("LPUSH list id 5", "LPUSH list id 5".to_owned()),
            ("SET unblock 5", "SET unblock 5".to_owned()),
        ] {
            assert_eq!(request(&ids, 1, line), there);
        }
        ids.forget(5);
        assert_eq!(request(&ids, 1, "CLIENT KILL ID 5"), format!("CLIENT KILL ID {NOBODY}"));
    }

    #[test]
    fn replies_show_what_was_seen() {
        let ids = Ids::default();
        ids.connected(1, Some(5), 90);
        let later = OFFSET + 91;
        let of = |place, text: &str| {
            String::from_utf8_lossy(&ids.reply(1, place, text.as_bytes())).into_owned()
        };
        assert_eq!(of(Place::Number, ":90\r\n"), ":5\r\n");
        assert_eq!(of(Place::Number, ":-1\r\n"), ":-1\r\n");
        assert_eq!(of(Place::Number, "-NOPERM\r\n"), "-NOPERM\r\n");
        let hello = "%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:90\r\n";
        assert_eq!(of(Place::Hello, hello), hello.replace("90", "5"));
        let list = "id=90 addr=a name=id=90 redir=91\nid=91 name= redir=-1\n";
        let wanted = format!("id=5 addr=a name=id=90 redir={later}\nid={later} name= redir=-1\n");
        let frame = |kind, prefix, text: &str| {
            format!("{kind}{}\r\n{prefix}{text}\r\n", text.len() + str::len(prefix))
        };
        assert_eq!(of(Place::Lines, &frame('$', "", list)), frame('$', "", &wanted));
        assert_eq!(of(Place::Lines, &frame('=', "txt:", list)), frame('=', "txt:", &wanted));
        for (flags, dirty) in [("N", "d"), ("x", "xd"), ("xd", "xd")] {
            ids.touched(5, true);
            let line = |id: u64, flags: &str| format!("id={id} addr=a flags={flags} db=0\n");
            let list = line(90, flags) + &line(91, "N");
            let wanted = line(5, dirty) + &line(later, "N");
            assert_eq!(of(Place::Lines, &frame('$', "", &list)), frame('$', "", &wanted));
            ids.touched(5, false);
            let wanted = line(5, flags) + &line(later, "N");
            assert_eq!(of(Place::Lines, &frame('$', "", &list)), frame('$', "", &wanted));
        }
        let exec = ids.replies(1, &[(1, Place::Number)], b"*2\r\n:90\r\n>1\r\n:1\r\n:90\r\n");
        assert_eq!(exec, b"*2\r\n:90\r\n>1\r\n:1\r\n:5\r\n");
    }
}
