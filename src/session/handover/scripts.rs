//! What another uplink must be told before it can serve this client.

use crate::changeover::client_ids::At;
use crate::session::Session;
use crate::session::protocol::replay;
use crate::session::protocol::state::Carried;
use crate::uplink::Script;

impl Session {
    pub(in crate::session) fn finals(&self, at: At) -> replay::Finals<'_> {
        let redirect = self.state.tracking().and_then(|tracking| tracking.redirect);
        let ids = &self.shared.ids;
        replay::Finals {
            ids,
            at,
            state: &self.state,
            transaction: self.requested.transaction().filter(|_| !self.pending.awaits_multi()),
            queued: self.requested.transaction().map_or(0, |transaction| {
                transaction.frames().len().saturating_sub(self.pending.requests())
            }),
            watches: !self.state.is_touched()
                && !self.handover.cutover().is_some_and(|cutover| cutover.watches_too_many),
            aborted: self.pending.is_aborted(),
            one_shot: self.requested.one_shot(),
            redirect: redirect.and_then(|seen| match at {
                At::Present => ids.present(seen),
                At::Next => ids.next(seen),
            }),
            databases: self.generation.uplink.databases(),
        }
    }

    /// What a connection that nobody has used must be told, an open transaction included.
    pub(in crate::session) fn restoring_script(&self) -> Script {
        let mut script = self.whole_script(At::Present, |_| ());
        self.finals(At::Present).queue(&mut script);
        script
    }

    /// What a connection that nobody has used must be told, but for an open transaction. `mark` adds the
    /// subscription to the mark.
    pub(in crate::session) fn whole_script(
        &self,
        at: At,
        mark: impl FnOnce(&mut Script),
    ) -> Script {
        self.rest_script(&Carried::default(), at, mark).unwrap_or_default()
    }

    /// What a connection that was told `primed` must be told beyond that, but for an open transaction; `None`
    /// if it cannot be told any more.
    pub(in crate::session) fn rest_script(
        &self,
        primed: &Carried,
        at: At,
        mark: impl FnOnce(&mut Script),
    ) -> Option<Script> {
        let carried = self.state.carried();
        // In RESP2, nothing else can be told after subscriptions; and in a transaction, nothing at all.
        let first = match self.listens_only() && !primed.subscribed() {
            true => carried.without_channels(),
            false => carried.clone(),
        };
        let channels = replay::difference(&first, &carried)?;
        let mut script = replay::difference(primed, &first)?;
        if channels.is_empty() {
            mark(&mut script);
            self.finals(at).script(&mut script);
        } else {
            self.finals(at).script(&mut script);
            script.append(channels);
            mark(&mut script);
        }
        Some(script)
    }

    /// The uplink takes nothing from this client but subscriptions, and what ends them.
    pub(in crate::session) fn listens_only(&self) -> bool {
        !self.state.resp3 && self.state.subscribed()
    }

    /// Some state can only be sent in the cutover.
    pub(in crate::session) fn needs_more_than_told(&self) -> bool {
        self.finals(At::Next).is_needed()
    }
}
