//! ClientIds of clients: what a client has seen stays valid after a handover. Pure, but for its lock.
//!
//! At first, an id is the uplink's. A server that is put in its place, or restarted, counts from 1 again.
//! From then on, sessions keep the id that they had, and whoever comes later is given the uplink's plus
//! an offset, so that nobody has another's, and later ones are larger, as Redis promises. (The offset
//! leaves them exact in a double.)

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::command::{grammar, words};
use crate::lock::lock;
use crate::resp::encode;
use crate::server::DIRTY;

/// Between the ids of one uplink and those of the next.
const OFFSET: u64 = 1 << 40;
/// Nobody has this id.
const NOBODY: u64 = i64::MAX as u64;

/// Which uplink is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The uplink of the generation in force.
    Present,
    /// The uplink of the generation that is being prepared.
    Next,
}

/// What ids mean at the uplink in force.
#[derive(Debug)]
pub struct ClientIds {
    maps: Mutex<Maps>,
    /// Somebody's id is not the uplink's.
    differ: AtomicBool,
}

#[derive(Debug, Default)]
struct Maps {
    /// The generation that brought the uplink in force.
    uplink_since: u64,
    /// What is added to the ids of the server that runs now.
    offset: u64,
    /// A session was left by its uplink and stays: the server may be another when it is back.
    in_doubt: bool,
    /// Of all who are connected, by the id that clients have seen: the uplink's.
    present: HashMap<u64, u64>,
    /// Of all who are connected, by the uplink's id: the one that clients have seen.
    seen: HashMap<u64, u64>,
    /// By the id that clients have seen: the next uplink's.
    next: HashMap<u64, u64>,
    /// To these, as clients have seen them, so many others have redirected invalidations.
    targets: HashMap<u64, u32>,
    /// Keys were touched that these watch, as clients have seen them, and the uplink does not know it.
    touched: HashSet<u64>,
}

/// Where a reply has ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The reply is an id: CLIENT ID and GETREDIR.
    Number,
    /// Behind the text `id`: HELLO.
    Hello,
    /// Behind the text `redirect`: CLIENT TRACKINGINFO.
    Redirect,
    /// In lines of `name=value`: CLIENT LIST and INFO.
    Lines,
}

impl ClientIds {
    /// The ids of clients at the uplink that this generation has brought.
    pub fn new(uplink_since: u64) -> Self {
        let maps = Mutex::new(Maps { uplink_since, ..Maps::default() });
        ClientIds { maps, differ: AtomicBool::new(false) }
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        lock(&self.maps)
    }

    /// A session has a connection with this id at the uplink that this generation has brought; gives the
    /// id that its client has seen, or will see.
    pub fn connected(&self, uplink_since: u64, seen: Option<u64>, present: u64) -> u64 {
        let maps = &mut *self.maps();
        if std::mem::take(&mut maps.in_doubt) {
            maps.offset += OFFSET;
        }
        let seen = seen.unwrap_or(present + maps.offset);
        if seen != present || maps.offset > 0 {
            self.differ.store(true, Ordering::Relaxed);
        }
        // One that came too late for its uplink is about to be exchanged.
        if uplink_since == maps.uplink_since {
            maps.present.insert(seen, present);
            maps.seen.insert(present, seen);
        }
        seen
    }

    /// The uplink has left a session, which stays.
    pub fn lost(&self, seen: u64) {
        self.differ.store(true, Ordering::Relaxed);
        let maps = &mut *self.maps();
        maps.in_doubt = true;
        maps.leave(seen);
    }

    /// Whether all ids are those of the uplink.
    pub fn are_the_uplinks(&self) -> bool {
        !self.differ.load(Ordering::Relaxed)
    }

    /// A session has a connection at the next uplink, too.
    pub fn prepared(&self, seen: u64, next: u64) {
        self.maps().next.insert(seen, next);
    }

    /// Its id at the next uplink.
    pub fn next(&self, seen: u64) -> Option<u64> {
        self.maps().next.get(&seen).copied()
    }

    /// The connection that was prepared for this session is given up, and another is made.
    pub fn unprepared(&self, seen: u64) {
        self.maps().next.remove(&seen);
    }

    /// The next uplink will not come.
    pub fn abandon(&self) {
        self.maps().next = HashMap::new();
    }

    /// The next uplink is in force, brought by this generation.
    pub fn exchange(&self, uplink_since: u64) {
        self.differ.store(true, Ordering::Relaxed);
        let maps = &mut *self.maps();
        maps.uplink_since = uplink_since;
        maps.offset += OFFSET;
        maps.in_doubt = false;
        maps.present = std::mem::take(&mut maps.next);
        maps.seen = maps.present.iter().map(|(seen, present)| (*present, *seen)).collect();
    }

    /// A session is over.
    pub fn forget(&self, seen: u64) {
        let maps = &mut *self.maps();
        maps.leave(seen);
        maps.next.remove(&seen);
        maps.touched.remove(&seen);
    }

    /// Notes whether the client's next EXEC fails. CLIENT LIST shows that, as the uplink shows what it knows:
    /// another proxy that moves clients away from this one goes by it.
    pub fn touched(&self, seen: u64, touched: bool) {
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

    /// A session redirects its invalidations to another one than before, or does not any more.
    pub fn redirected(&self, before: Option<u64>, now: Option<u64>) {
        let maps = &mut *self.maps();
        if let Some(before) = before
            && let Entry::Occupied(mut count) = maps.targets.entry(before)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Some(now) = now {
            *maps.targets.entry(now).or_default() += 1;
        }
    }

    /// Whether invalidations of others are redirected to this one.
    pub fn is_target(&self, seen: u64) -> bool {
        self.maps().targets.contains_key(&seen)
    }

    /// The uplink's id for one that a client names.
    pub fn present(&self, seen: u64) -> Option<u64> {
        let maps = self.maps();
        let known = maps.present.get(&seen).copied();
        known.or_else(|| seen.checked_sub(maps.offset).filter(|id| *id < OFFSET))
    }

    /// What a client must be told for an id of the uplink's.
    fn seen(&self, present: u64) -> u64 {
        let maps = self.maps();
        maps.seen.get(&present).copied().unwrap_or(present + maps.offset)
    }

    /// A CLIENT request with the ids that it names replaced by those of an uplink; `None` if there are
    /// none to be replaced.
    pub fn request(&self, uplink: At, args: &[&[u8]]) -> Option<Vec<u8>> {
        if uplink == At::Present && self.are_the_uplinks() {
            return None;
        }
        let is_client = args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"CLIENT"));
        let ids = if is_client { grammar::client_ids(args) } else { Vec::new() };
        let replaced: Vec<Option<Vec<u8>>> = (0..args.len())
            .map(|at| {
                // The uplink has words for a number that can be nobody's.
                let id = number(args[at]).filter(|id| *id > 0 && ids.contains(&at))?;
                let there = match uplink {
                    At::Present => self.present(id),
                    At::Next => self.next(id),
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

    /// A whole reply with its ids replaced. A reply without ids stays as it is.
    pub fn reply(&self, place: Place, reply: &[u8]) -> Vec<u8> {
        match place {
            Place::Number => self.number_at(reply, 0),
            Place::Hello => self.number_after(reply, b"$2\r\nid\r\n"),
            Place::Redirect => self.number_after(reply, b"$8\r\nredirect\r\n"),
            Place::Lines => self.lines(reply),
        }
    }

    fn number_after(&self, reply: &[u8], key: &[u8]) -> Vec<u8> {
        match memchr::memmem::find(reply, key) {
            Some(at) => self.number_at(reply, at + key.len()),
            None => reply.to_vec(),
        }
    }

    /// `:N` at this place; numbers below 1 are no ids.
    fn number_at(&self, reply: &[u8], at: usize) -> Vec<u8> {
        let (before, rest) = reply.split_at(at);
        let Some(end) = memchr::memchr(b'\r', rest) else { return reply.to_vec() };
        match rest[..end].strip_prefix(b":").and_then(number).filter(|id| *id > 0) {
            Some(id) => [before, format!(":{}", self.seen(id)).as_bytes(), &rest[end..]].concat(),
            None => reply.to_vec(),
        }
    }

    fn lines(&self, reply: &[u8]) -> Vec<u8> {
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
                        let seen = self.seen(id);
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

impl Maps {
    /// A session is not connected any more.
    fn leave(&mut self, seen: u64) {
        // Somebody else may have its id there by now.
        if let Some(present) = self.present.remove(&seen)
            && self.seen.get(&present) == Some(&seen)
        {
            self.seen.remove(&present);
        }
    }
}

/// `flags=...` with the flag of a client whose next EXEC fails.
fn as_dirty(word: &[u8]) -> Vec<u8> {
    let (flags, end) = match word.strip_suffix(b" ") {
        Some(flags) => (flags, &b" "[..]),
        None => (word, &b""[..]),
    };
    match flags {
        b"flags=N" => [b"flags=", &[DIRTY][..], end].concat(),
        flags if flags.contains(&DIRTY) => word.to_vec(),
        flags => [flags, &[DIRTY], end].concat(),
    }
}

/// Where the reply to this CLIENT request, or to HELLO, has ids.
pub fn place(args: &[&[u8]]) -> Option<Place> {
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
pub fn number(text: &[u8]) -> Option<u64> {
    words::integer(text).and_then(|number| u64::try_from(number).ok())
}

#[cfg(test)]
mod tests;
