//! What an operator should know of the uplink while all goes on.

use super::state::Controller;
use crate::lock::lock;

impl Controller {
    /// What an operator should know of the uplink, in words; nothing of most.
    pub fn remarks(&self) -> Vec<String> {
        let replica = self.replica_remark();
        let inner = lock(&self.inner);
        let outdated = inner.outdated.as_ref().map(ToString::to_string);
        let unfound = inner.unfound.as_ref();
        let unfound = unfound.filter(|_| inner.outage.is_some() && inner.dispute.is_none());
        let unfound =
            unfound.map(|why| format!("no server is found that could be the uplink: {why}"));
        let all = [replica, inner.dispute.clone(), unfound, outdated];
        all.into_iter().flatten().collect()
    }

    /// What is to be said of an uplink that is a replica.
    pub(super) fn replica_remark(&self) -> Option<String> {
        let identity = lock(&self.inner).identity.clone();
        identity.filter(|it| it.is_master == Some(false)).map(|_| {
            let addr = &self.shared.current.load().uplink.config.addr;
            format!(
                "the uplink {addr} is a replica: what clients write is refused, or will be lost"
            )
        })
    }

    /// Whether several servers could be the uplink, and nobody can tell which.
    pub fn is_disputed(&self) -> bool {
        lock(&self.inner).dispute.is_some()
    }
}
