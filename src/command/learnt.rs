//! Commands that the table does not know, and their uplink does: what the proxy makes of them.

use std::sync::OnceLock;

use super::table::{Class, LENGTHS, class, is_among};
use super::words;

/// Names of commands that may be learnt of one uplink.
const MAX_NAMES: usize = 256;
/// A longer name is looked at by nobody.
const MAX_NAME: usize = 24;

/// What commands mean to one uplink.
#[derive(Debug, Default)]
pub struct Commands(OnceLock<Learnt>);

#[derive(Debug)]
struct Learnt {
    /// As [`LENGTHS`], with the names below.
    lengths: [u32; 26],
    names: Vec<(Box<[u8]>, Class)>,
    /// Subcommands of CLIENT.
    client: Vec<Box<[u8]>>,
}

/// What a server lists of its commands, of which those of a container are called
/// `container|subcommand`.
#[derive(Debug, Default, Clone)]
pub struct Listed<'a> {
    /// Commands of the category `blocking`.
    pub blocking: Vec<&'a [u8]>,
    /// Commands of the categories [`STATEFUL`].
    pub stateful: Vec<&'a [u8]>,
}

/// Categories of commands of which some change the connection that they come on.
pub const STATEFUL: [&str; 3] = ["connection", "pubsub", "transaction"];

/// Commands of these categories that leave the connection as it was.
const STATELESS: [&str; 6] = ["command", "echo", "ping", "publish", "pubsub", "spublish"];

/// Subcommands of CLIENT that are dealt with, or that leave the connection as it was.
const CLIENT: [&str; 22] = [
    "caching",
    "capa",
    "count",
    "getname",
    "getredir",
    "help",
    "id",
    "import-source",
    "info",
    "kill",
    "list",
    "maint_notifications",
    "no-evict",
    "no-touch",
    "pause",
    "reply",
    "setinfo",
    "setname",
    "tracking",
    "trackinginfo",
    "unblock",
    "unpause",
];

impl Commands {
    /// The uplink was asked.
    pub fn are_learnt(&self) -> bool {
        self.0.get().is_some()
    }

    /// Remembers what of this is not in the table; the first time counts.
    pub fn learn(&self, listed: &Listed<'_>) {
        self.0.get_or_init(|| Learnt::new(listed));
    }

    /// What a command means; `name` is in lower case and shorter than 32 bytes.
    #[inline(always)]
    pub fn class(&self, name: &[u8]) -> Class {
        match self.0.get() {
            None => class(name),
            Some(learnt) if is_among(&learnt.lengths, name) => learnt.class(name),
            Some(_) => Class::Plain,
        }
    }

    /// The uplink has this subcommand of CLIENT, and nothing is known of it here.
    pub fn is_unknown_of_client(&self, sub: &[u8]) -> bool {
        let sub = words::until_nul(sub);
        self.0.get().is_some_and(|it| it.client.iter().any(|name| sub.eq_ignore_ascii_case(name)))
    }
}

impl Learnt {
    fn new(listed: &Listed<'_>) -> Self {
        let mut learnt = Learnt { lengths: LENGTHS, names: Vec::new(), client: Vec::new() };
        for name in &listed.stateful {
            match parts(name) {
                (b"client", Some(sub)) => learnt.add_client(sub),
                (name, _) => learnt.add(name, Class::Unknown { waits: false }),
            }
        }
        for name in &listed.blocking {
            learnt.add(parts(name).0, Class::Wait);
        }
        learnt
    }

    fn add(&mut self, name: &[u8], class: Class) {
        if self::class(name) != Class::Plain || is_one_of(&STATELESS, name) {
            return;
        }
        let is_usual = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
        let Some(letter @ b'a'..=b'z') = name.first() else { return };
        if name.len() > MAX_NAME || !name.iter().all(is_usual) {
            return;
        }
        let known = self.names.iter_mut().find(|(known, _)| **known == *name);
        if let Some((_, known)) = known {
            if class == Class::Wait && *known != Class::Wait {
                *known = Class::Unknown { waits: true };
            }
        } else if self.names.len() < MAX_NAMES {
            self.lengths[usize::from(letter - b'a')] |= 1 << name.len();
            self.names.push((name.into(), class));
        }
    }

    fn add_client(&mut self, sub: &[u8]) {
        if !is_one_of(&CLIENT, sub) && sub.len() <= MAX_NAME && self.client.len() < MAX_NAMES {
            self.client.push(sub.into());
        }
    }

    fn class(&self, name: &[u8]) -> Class {
        let known = self.names.iter().find(|(known, _)| **known == *name);
        known.map_or_else(|| class(name), |(_, class)| *class)
    }
}

/// A container and its subcommand.
fn parts(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'|', name) {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

fn is_one_of(names: &[&str], name: &[u8]) -> bool {
    names.iter().any(|known| known.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(blocking: &[&'static str], stateful: &[&'static str]) -> Commands {
        let bytes = |names: &[&'static str]| names.iter().map(|name| name.as_bytes()).collect();
        let commands = Commands::default();
        commands.learn(&Listed { blocking: bytes(blocking), stateful: bytes(stateful) });
        commands
    }

    #[test]
    fn what_the_table_knows_is_as_it_was() {
        let before = Commands::default();
        let after = commands(&["blpop", "bnew"], &["client|id", "ping", "select", "pubsub|numsub"]);
        for name in ["blpop", "client", "ping", "select", "pubsub", "get", "publish", "x", ""] {
            assert_eq!(before.class(name.as_bytes()), class(name.as_bytes()), "{name}");
            assert_eq!(after.class(name.as_bytes()), class(name.as_bytes()), "{name}");
        }
        assert!(!after.is_unknown_of_client(b"ID") && !after.is_unknown_of_client(b"x"));
        assert!(!before.are_learnt() && after.are_learnt());
    }

    #[test]
    fn what_it_does_not_know_is_waited_for_or_noted() {
        let learnt = commands(&["bnew", "both", "queue|take"], &["both", "newstate", "client|new"]);
        for (name, wanted) in [
            ("bnew", Class::Wait),
            ("queue", Class::Wait),
            ("both", Class::Unknown { waits: true }),
            ("newstate", Class::Unknown { waits: false }),
            ("bnex", Class::Plain),
        ] {
            assert_eq!(learnt.class(name.as_bytes()), wanted, "{name}");
        }
        assert!(learnt.is_unknown_of_client(b"NEW") && learnt.is_unknown_of_client(b"new\0x"));
    }

    #[test]
    fn no_server_can_make_it_learn_without_end() {
        let names: Vec<String> = (0..10_000).map(|at| format!("new{at}")).collect();
        let subs: Vec<String> = (0..10_000).map(|at| format!("client|new{at}")).collect();
        let long = "b".repeat(MAX_NAME + 1);
        let mut blocking: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        blocking.extend([long.as_bytes(), b"", b"{x", b"B", b"a b", b"|"]);
        let stateful = subs.iter().map(|name| name.as_bytes()).collect();
        let learnt = Learnt::new(&Listed { blocking, stateful });
        assert_eq!((learnt.names.len(), learnt.client.len()), (MAX_NAMES, MAX_NAMES));
        let nothing = Learnt::new(&Listed { blocking: vec![long.as_bytes()], stateful: vec![] });
        assert_eq!(nothing.names.len(), 0);
    }
}
