//! How to switch.

use std::time::Duration;

use crate::config::{Address, Lookup};

/// How long a switch may take, if the caller says nothing.
const TIMEOUT: Duration = Duration::from_secs(3600);

/// What the new uplink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchTo {
    /// What the configuration file names.
    File,
    /// The server at this address, which the file names afterwards.
    Address(Address),
    /// A replica that is there already: a failover. The one at this address, or the best.
    Replica(Option<Address>),
}

impl SwitchTo {
    /// Whether Sentinels promote the new uplink, where the present one is found in this way.
    pub(super) fn is_by_sentinel(&self, lookup: &Lookup) -> bool {
        matches!((self, lookup), (SwitchTo::Replica(_), Lookup::Sentinel(_)))
    }

    /// The address, where the caller gave one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            SwitchTo::File => None,
            SwitchTo::Address(addr) => Some(addr),
            SwitchTo::Replica(addr) => addr.as_ref(),
        }
    }
}

/// How to switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchOptions {
    /// How long everything up to the promotion may take.
    pub timeout: Duration,
    /// How long clients may be held; `None`: `pause_time_limit_ms`.
    pub pause_limit: Option<Duration>,
    /// What the new uplink is.
    pub to: SwitchTo,
    /// The new uplink is a replica already.
    pub prepared: bool,
    /// How the new uplink reaches the present one, where that is not its address.
    pub replicate_from: Option<Address>,
    /// The present uplink becomes a replica of the new one.
    pub fence: bool,
    /// What clients feel of the present uplink's settings is set at the new one.
    pub copy_settings: bool,
    /// What the new uplink has may be erased, and what is doubtful may be done.
    pub force: bool,
    /// Clients that hold everybody up for longer than the limit are closed.
    pub force_clients: bool,
}

impl Default for SwitchOptions {
    fn default() -> Self {
        SwitchOptions {
            timeout: TIMEOUT,
            pause_limit: None,
            to: SwitchTo::File,
            prepared: false,
            replicate_from: None,
            fence: true,
            copy_settings: false,
            force: false,
            force_clients: false,
        }
    }
}
