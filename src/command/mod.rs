//! Which commands the proxy must know, and why. One table; all others are [`Class::Plain`].
//!
//! - `table`: the table, and what a command means by it
//! - [`grammar`]: where options, names and numbers stand among a command's arguments
//! - [`words`]: how Redis reads those
//! - [`Commands`]: the table with what the uplink knows better

pub mod grammar;
mod learnt;
mod table;
pub mod words;

pub use self::learnt::{Commands, Listed, STATEFUL};
pub use self::table::{Channel, Class, Timeout, class, only_reads};

/// The script that a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brought<'a> {
    /// EVAL has this one executed.
    Evaluated(&'a [u8]),
    /// SCRIPT LOAD brings this one.
    Loaded(&'a [u8]),
    /// A script is among the arguments that have not come yet.
    Coming,
}

impl<'a> Brought<'a> {
    /// The script that a request of this class brings, of which these arguments have come, the name
    /// included; `None` if it brings none.
    pub fn by(class: Class, args: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut args = args.into_iter().skip(1);
        match class {
            Class::Eval => Some(args.next().map_or(Brought::Coming, Brought::Evaluated)),
            Class::Script if args.next().is_some_and(|sub| words::is(sub, "LOAD")) => {
                Some(args.next().map_or(Brought::Coming, Brought::Loaded))
            }
            _ => None,
        }
    }
}

/// Whether an XREAD or XREADGROUP may wait. One with options that are not known here may.
pub fn blocks<'a>(args: impl Iterator<Item = &'a [u8]>) -> bool {
    let args: Vec<&[u8]> = args.collect();
    grammar::Read::new(&args).is_none_or(|read| read.block.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xread_waits_only_with_the_option_block() {
        let blocks = |line: &str| blocks(line.split(' ').map(str::as_bytes));
        assert!(blocks("XREAD COUNT 1 block 0 STREAMS s $"));
        assert!(blocks("XREADGROUP GROUP g c BLOCK 5 STREAMS s >"));
        assert!(!blocks("XREAD COUNT 1 STREAMS block 0"));
        assert!(!blocks("XREADGROUP GROUP block 1 STREAMS s >"));
        assert!(blocks("XREAD LATER 7 BLOCK 0 STREAMS s 0"), "an option of a later server");
    }
}
