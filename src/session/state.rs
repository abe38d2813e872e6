//! What the connection to the uplink carries, learnt from its replies. Pure.

use crate::command::Channel;

/// The state of one client's connection to Redis.
#[derive(Debug, Default)]
pub(super) struct State {
    /// HELLO 3 was accepted.
    pub(super) resp3: bool,
    /// The database that SELECT chose.
    pub(super) db: u32,
    /// MONITOR was accepted.
    pub(super) monitor: bool,
    /// WATCH was accepted, and nothing since has ended it.
    pub(super) watching: bool,
    /// CLIENT TRACKING was turned on.
    pub(super) tracking: bool,
    /// A transaction held a SELECT, and whether that succeeded is not known.
    pub(super) db_unknown: bool,
    /// A transaction subscribed; how often is not known until the next confirmation.
    pub(super) subscribed_by_exec: bool,
    channels: i64,
    patterns: i64,
    shards: i64,
}

/// What a handover carries to another uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    pub(super) resp3: bool,
    pub(super) db: u32,
}

impl State {
    /// What a handover carries.
    pub(super) fn carried(&self) -> Carried {
        Carried { resp3: self.resp3, db: self.db }
    }

    /// What a handover would lose.
    pub(super) fn uncarried(&self) -> Option<&'static str> {
        if self.watching {
            Some("watched keys")
        } else if self.subscribed() {
            Some("subscriptions")
        } else if self.monitor {
            Some("MONITOR")
        } else if self.tracking {
            Some("client-side caching")
        } else if self.db_unknown {
            Some("a SELECT inside a transaction")
        } else {
            None
        }
    }

    /// In RESP2, published messages come as arrays that answer nothing.
    pub(super) fn subscribed(&self) -> bool {
        self.subscribed_by_exec || self.channels + self.patterns + self.shards > 0
    }

    /// How many subscriptions of a kind there are.
    pub(super) fn subscriptions(&self, channel: Channel) -> i64 {
        match channel {
            Channel::Name => self.channels,
            Channel::Pattern => self.patterns,
            Channel::Shard => self.shards,
        }
    }

    /// A confirmation came; it tells how many subscriptions there are now: those to shard
    /// channels alone, or those to channels and patterns together.
    pub(super) fn confirmed(&mut self, channel: Channel, now: i64) {
        match channel {
            Channel::Name => self.channels = now - self.patterns,
            Channel::Pattern => self.patterns = now - self.channels,
            Channel::Shard => self.shards = now,
        }
    }

    /// RESET was accepted.
    pub(super) fn reset(&mut self) {
        *self = State::default();
    }
}
