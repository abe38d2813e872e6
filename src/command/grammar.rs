//! Where options and their values stand among a command's arguments: they are read in order, as the
//! server reads them, for a value may be spelt like an option.

use std::ops::Range;

use super::words::{integer, is};

/// What stands behind an option's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// So many arguments, whatever they are.
    Values(usize),
    /// As many whole numbers as there are.
    Numbers,
    /// All the rest.
    Rest,
}

use Takes::{Numbers, Rest, Values};

/// The options of a command.
#[derive(Debug)]
struct Grammar {
    /// Where the first option stands, or the second word of a command that has two.
    from: usize,
    options: &'static [(&'static str, Takes)],
    /// What is taken by a word that is not listed; `None` where the server refuses it.
    others: Option<Takes>,
}

const XREAD: Grammar = Grammar {
    from: 1,
    options: &[("BLOCK", Values(1)), ("COUNT", Values(1)), ("STREAMS", Rest)],
    others: None,
};

const XREADGROUP: Grammar = Grammar {
    from: 1,
    options: &[
        ("BLOCK", Values(1)),
        ("CLAIM", Values(1)),
        ("COUNT", Values(1)),
        ("GROUP", Values(2)),
        ("NOACK", Values(0)),
        ("STREAMS", Rest),
    ],
    others: None,
};

/// CLIENT KILL, LIST and COUNT: all other filters have one value.
const CLIENT_FILTERS: Grammar =
    Grammar { from: 2, options: &[("ID", Numbers), ("NOT-ID", Numbers)], others: Some(Values(1)) };

/// Behind CLIENT TRACKING ON.
const CLIENT_TRACKING: Grammar = Grammar {
    from: 3,
    options: &[("PREFIX", Values(1)), ("REDIRECT", Values(1))],
    others: Some(Values(0)),
};

/// An option that was found, by the word in the table, and the places of what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// `None` for a word that is not listed.
    word: Option<&'static str>,
    values: Range<usize>,
}

impl Grammar {
    /// All options, in order; `None` if the server refuses them, or knows more than this table.
    fn read(&self, args: &[&[u8]]) -> Option<Vec<Found>> {
        let (mut found, mut at) = (Vec::new(), self.from);
        while let Some(arg) = args.get(at) {
            let known = self.options.iter().find(|(word, _)| is(arg, word));
            let (word, takes) = match known {
                Some((word, takes)) => (Some(*word), *takes),
                None => (None, self.others?),
            };
            at += 1;
            let count = match takes {
                Values(count) => count,
                Numbers => args[at..].iter().take_while(|arg| integer(arg).is_some()).count(),
                Rest => args.len() - at,
            };
            if at + count > args.len() {
                return None;
            }
            found.push(Found { word, values: at..at + count });
            at += count;
        }
        Some(found)
    }
}

/// What an XREAD or XREADGROUP says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Where the time is for which it may wait; of several, the last counts.
    pub block: Option<usize>,
    /// Where the names of its streams are. As many positions come behind them.
    pub streams: Range<usize>,
    /// XREADGROUP.
    pub is_group: bool,
}

impl Read {
    /// `args` are all arguments, the name included. `None` if the server refuses it, or knows
    /// options that are not known here.
    pub fn new(args: &[&[u8]]) -> Option<Self> {
        let is_group = args.first()?.len() == "XREADGROUP".len();
        let mut read = Read { block: None, streams: 0..0, is_group };
        let grammar = if is_group { &XREADGROUP } else { &XREAD };
        let mut has_group = false;
        for found in grammar.read(args)? {
            match found.word {
                Some("GROUP") => has_group = true,
                Some("BLOCK") => read.block = Some(found.values.start),
                Some("STREAMS") => {
                    let (from, count) = (found.values.start, found.values.len());
                    if count == 0 || !count.is_multiple_of(2) {
                        return None;
                    }
                    read.streams = from..from + count / 2;
                }
                _ => {}
            }
        }
        (!read.streams.is_empty() && has_group == is_group).then_some(read)
    }

    /// Places of the positions, each with that of its stream.
    pub fn positions(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = self.streams.len();
        self.streams.clone().map(move |stream| (stream + count, stream))
    }
}

/// Where ids of clients are in a CLIENT request; `args` are all arguments, the name included.
pub fn client_ids(args: &[&[u8]]) -> Vec<usize> {
    let is = |word| args.get(1).is_some_and(|sub| is(sub, word));
    if is("UNBLOCK") {
        return if args.len() > 2 { vec![2] } else { Vec::new() };
    }
    let grammar = if is("TRACKING") {
        &CLIENT_TRACKING
    } else if is("KILL") || is("LIST") || is("COUNT") {
        &CLIENT_FILTERS
    } else {
        return Vec::new();
    };
    let found = grammar.read(args).unwrap_or_default();
    let names_ids = |found: &Found| matches!(found.word, Some("ID" | "NOT-ID" | "REDIRECT"));
    found.into_iter().filter(names_ids).flat_map(|it| it.values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    fn read(line: &str) -> Option<(Option<usize>, Range<usize>)> {
        Read::new(&words(line)).map(|read| (read.block, read.streams))
    }

    #[test]
    fn a_reads_options_are_not_its_names() {
        for (line, wanted) in [
            ("XREAD STREAMS s 0", (None, 2..3)),
            ("XREAD COUNT 1 block 0 STREAMS s $", (Some(4), 6..7)),
            ("XREAD BLOCK 1 BLOCK 2 COUNT 3 streams a b 0 $", (Some(4), 8..10)),
            ("XREAD COUNT 1 STREAMS block 0", (None, 4..5)),
            ("XREAD COUNT block BLOCK 0 STREAMS s 0", (Some(4), 6..7)),
            ("XREADGROUP GROUP block 100000 BLOCK 0 STREAMS s >", (Some(5), 7..8)),
            ("XREADGROUP GROUP streams streams STREAMS s >", (None, 5..6)),
            ("XREADGROUP BLOCK 7 GROUP streams block STREAMS streams >", (Some(2), 7..8)),
            ("XREADGROUP NOACK GROUP g claim CLAIM 5 BLOCK 7 STREAMS s >", (Some(8), 10..11)),
            ("XREADGROUP GROUP g c STREAMS block streams > >", (None, 5..7)),
        ] {
            assert_eq!(read(line), Some(wanted), "{line}");
        }
    }

    #[test]
    fn what_the_server_refuses_is_nothing() {
        for line in [
            "XREAD",
            "XREAD BLOCK",
            "XREAD BLOCK 0",
            "XREAD STREAMS",
            "XREAD STREAMS s",
            "XREAD STREAMS a b 0",
            "XREAD NOACK STREAMS s 0",
            "XREAD GROUP g c STREAMS s 0",
            "XREAD LATER 1 STREAMS s 0",
            "XREADGROUP GROUP STREAMS s >",
            "XREADGROUP STREAMS s >",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }

    #[test]
    fn ids_of_clients_are_where_options_put_them() {
        for (line, wanted) in [
            ("CLIENT KILL ID 5 ADDR x", &[3][..]),
            ("CLIENT KILL ADDR id LADDR 5", &[]),
            ("CLIENT KILL USER id ID 7", &[5]),
            ("CLIENT KILL user ID id 7 SKIPME no", &[5]),
            ("CLIENT KILL NOT-ID 5 6 TYPE normal", &[3, 4]),
            ("CLIENT KILL 5", &[]),
            ("CLIENT LIST ID 1 2 3", &[3, 4, 5]),
            ("CLIENT LIST TYPE normal ID 5", &[5]),
            ("CLIENT LIST NAME id NOT-ID 8 ID 9", &[5, 7]),
            ("CLIENT LIST ID x 5", &[]),
            ("CLIENT COUNT ID 4", &[3]),
            ("CLIENT UNBLOCK 5 ERROR", &[2]),
            ("CLIENT UNBLOCK", &[]),
            ("CLIENT TRACKING ON REDIRECT 5 PREFIX redirect PREFIX 7 BCAST", &[4]),
            ("CLIENT TRACKING ON PREFIX redirect BCAST REDIRECT 5", &[7]),
            ("CLIENT TRACKING ON PREFIX redirect", &[]),
            ("CLIENT SETNAME 5", &[]),
            ("CLIENT", &[]),
        ] {
            assert_eq!(client_ids(&words(line)), wanted, "{line}");
        }
    }
}
