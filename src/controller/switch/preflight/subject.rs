//! What the preflight judges.

use super::super::facts::Facts;
use super::super::identity::ServerIdentity;
use super::super::options::SwitchOptions;
use super::super::source::Source;
use crate::server::Replication;

/// Both servers, and what is wanted.
pub(in super::super) struct Subject<'a> {
    pub(in super::super) options: &'a SwitchOptions,
    pub(in super::super) old: &'a Facts,
    pub(in super::super) new: &'a Facts,
    /// Where the new server replicates from.
    pub(in super::super) source: Option<&'a Source>,
    /// Which server is at `source`, where only the caller says so.
    pub(in super::super) identity: Option<&'a ServerIdentity>,
    /// The new server logs in at the present one, by a password.
    pub(in super::super) by_password: bool,
    /// Keys that the new server's user may not use, where it was tried.
    pub(in super::super) refused_keys: &'a [String],
    /// Sentinels tell the other replicas of the new master.
    pub(in super::super) by_sentinel: bool,
    /// Where the old server will replicate from.
    pub(in super::super) back: Option<&'a Source>,
}

/// The new server is the present one's replica already.
pub(super) fn follows(Subject { old, new, .. }: &Subject<'_>) -> bool {
    let (was, is) = (Replication::of(&old.info), Replication::of(&new.info));
    !is.is_master && is.is_up && !is.history.id.is_empty() && is.history.id == was.history.id
}

impl Subject<'_> {
    /// The new server need not be made a replica.
    pub(in super::super) fn is_set_up(&self) -> bool {
        self.options.prepared || follows(self)
    }
}
