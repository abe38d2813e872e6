//! HIMPORT: names of fields that a connection has prepared for the hashes that it imports. Pure.

use std::collections::BTreeMap;

use crate::command::words::is;
use crate::uplink::{Answer, Script};

/// Bytes of names that are remembered of one client.
const MAX_BYTES: usize = 1024 * 1024;
/// What a name costs beyond its bytes.
const OVERHEAD: usize = 32;

/// The fieldsets of a connection.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fieldsets {
    sets: BTreeMap<Box<[u8]>, Vec<Box<[u8]>>>,
    bytes: usize,
    /// There are more than are remembered.
    more: bool,
}

/// What a HIMPORT changes in the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// PREPARE: the fieldset's name, and its fields.
    Prepare(Box<[u8]>, Vec<Box<[u8]>>),
    /// A PREPARE that was too long to be looked at.
    PrepareLong,
    /// DISCARD of one.
    Discard(Box<[u8]>),
    /// DISCARDALL.
    DiscardAll,
}

impl Change {
    /// `args` are those behind HIMPORT. SET changes keys, and nothing here.
    pub fn new(args: &[&[u8]]) -> Option<Self> {
        let (sub, rest) = args.split_first()?;
        match rest {
            [name, fields @ ..] if is(sub, "PREPARE") => {
                let fields = fields.iter().map(|field| Box::from(*field)).collect();
                Some(Change::Prepare((*name).into(), fields))
            }
            [name] if is(sub, "DISCARD") => Some(Change::Discard((*name).into())),
            [] if is(sub, "DISCARDALL") => Some(Change::DiscardAll),
            _ => None,
        }
    }

    /// About how much memory it takes.
    pub fn size(&self) -> usize {
        match self {
            Change::Prepare(name, fields) => size(name, fields),
            Change::Discard(name) => name.len(),
            Change::PrepareLong | Change::DiscardAll => 0,
        }
    }
}

fn size(name: &[u8], fields: &[Box<[u8]>]) -> usize {
    name.len() + fields.iter().map(|field| field.len() + OVERHEAD).sum::<usize>() + OVERHEAD
}

impl Fieldsets {
    /// A HIMPORT has succeeded.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Prepare(name, fields) => {
                self.discard(&name);
                self.bytes += size(&name, &fields);
                self.sets.insert(name, fields);
                if self.bytes > MAX_BYTES {
                    *self = Fieldsets { more: true, ..Fieldsets::default() };
                }
            }
            Change::PrepareLong => self.more = true,
            Change::Discard(name) => self.discard(&name),
            Change::DiscardAll => *self = Fieldsets::default(),
        }
    }

    fn discard(&mut self, name: &[u8]) {
        if let Some(fields) = self.sets.remove(name) {
            self.bytes -= size(name, &fields);
        }
    }

    /// There are more than are remembered.
    pub fn are_too_many(&self) -> bool {
        self.more
    }

    /// Tells a connection that has `before` what it lacks. A server without HIMPORT will refuse the
    /// client's next, too.
    pub fn tell(&self, script: &mut Script, before: &Fieldsets) {
        for name in before.sets.keys().filter(|name| !self.sets.contains_key(*name)) {
            script.ask("HIMPORT DISCARD", &[name], Answer::Anything);
        }
        for (name, fields) in
            self.sets.iter().filter(|(name, it)| before.sets.get(*name) != Some(it))
        {
            let args: Vec<&[u8]> =
                std::iter::once(name).chain(fields).map(|arg| &arg[..]).collect();
            script.ask("HIMPORT PREPARE", &args, Answer::Anything);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Args;

    fn applied(lines: &[&str]) -> Fieldsets {
        let mut fieldsets = Fieldsets::default();
        for line in lines {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            Change::new(&args).into_iter().for_each(|change| fieldsets.apply(change));
        }
        fieldsets
    }

    fn told(now: &Fieldsets, before: &Fieldsets) -> Vec<String> {
        let mut script = Script::default();
        now.tell(&mut script, before);
        let bytes = script.into_bytes();
        let starts = memchr::memmem::find_iter(&bytes, b"*").map(|at| &bytes[at..]);
        starts
            .map(|frame| {
                let count = usize::from(frame[1] - b'0');
                let args: Vec<_> =
                    Args::new(frame).take(count).map(String::from_utf8_lossy).collect();
                args.join(" ")
            })
            .collect()
    }

    #[test]
    fn what_was_prepared_is_told_and_what_was_discarded_is_not() {
        let nothing = Fieldsets::default();
        let one = applied(&["prepare u name age", "PREPARE o id", "SET k u a 1", "DISCARD none"]);
        assert_eq!(told(&one, &nothing), ["HIMPORT PREPARE o id", "HIMPORT PREPARE u name age"]);
        let two =
            applied(&["PREPARE u name age", "PREPARE o id total", "PREPARE x y", "DISCARD x"]);
        assert_eq!(told(&two, &one), ["HIMPORT PREPARE o id total"]);
        let none = applied(&["PREPARE u name age", "DISCARDALL"]);
        assert_eq!(none, nothing);
        assert_eq!(told(&none, &one), ["HIMPORT DISCARD o", "HIMPORT DISCARD u"]);
        assert_eq!(applied(&["PREPARE", "DISCARD", "DISCARDALL x", "SET k u 1"]), nothing);
    }

    #[test]
    fn no_more_is_remembered_than_the_bound() {
        let field = "f".repeat(10_000);
        let lines: Vec<String> = (0..200).map(|at| format!("PREPARE u{at} {field}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert!(!applied(&lines[..100]).are_too_many());
        let many = applied(&lines);
        assert!(many.are_too_many() && many.bytes <= MAX_BYTES);
        let same: Vec<&str> = lines[..1].repeat(1000);
        assert!(!applied(&same).are_too_many(), "the last of a name counts");
    }
}
