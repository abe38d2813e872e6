//! CLIENT TRACKING: what a connection asked for. Pure.

use std::collections::BTreeSet;

/// CLIENT TRACKING ON.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tracking {
    /// The options, but for these two.
    pub options: Vec<Box<[u8]>>,
    pub prefixes: BTreeSet<Box<[u8]>>,
    /// The id that the client named.
    pub redirect: Option<u64>,
}

impl Tracking {
    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|it| it.eq_ignore_ascii_case(option.as_bytes()))
    }
}
