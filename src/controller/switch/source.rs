//! How one of the two servers reaches the other.

use std::fmt;

use crate::config::{Address, Uplink};

/// How a server reaches another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = Address::Tcp { host: self.host.clone(), port: self.port };
        write!(f, "{addr} ({})", if self.tls { "TLS" } else { "no TLS" })
    }
}

impl Source {
    /// How the server at `from` reaches the one at `to`, if that can be told from their addresses.
    pub(super) fn between(from: &Uplink, to: &Uplink) -> Option<Source> {
        let Address::Tcp { host, port } = &to.addr else { return None };
        let near = |addr: &Address| match addr {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => is_this_machine(host),
        };
        // What is near to the proxy need not be near to the other server.
        if near(&to.addr) && !near(&from.addr) {
            return None;
        }
        let host = if host.is_empty() { "localhost" } else { host };
        Some(Source { host: host.to_owned(), port: *port, tls: to.tls.is_some() })
    }
}

fn is_this_machine(host: &str) -> bool {
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    host.is_empty() || host == "localhost" || is_loopback
}
