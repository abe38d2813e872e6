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
        write!(f, "{} ({})", self.address(), if self.tls { "TLS" } else { "no TLS" })
    }
}

impl Source {
    /// How the server at `from` reaches the one at `to`, if that can be told from their addresses.
    pub(super) fn between(from: &Uplink, to: &Uplink) -> Option<Source> {
        let Address::Tcp { host, port } = &to.addr else { return None };
        // What is near to the proxy need not be near to the other server.
        if is_near(&to.addr) && !is_near(&from.addr) {
            return None;
        }
        let host = if host.is_empty() { "localhost" } else { host };
        Some(Source { host: host.to_owned(), port: *port, tls: to.tls.is_some() })
    }

    /// The address of the server.
    pub(super) fn address(&self) -> Address {
        Address::Tcp { host: self.host.clone(), port: self.port }
    }

    /// Whether the proxy finds the same server there as the server at `from` does.
    pub(super) fn is_for_all_alike(&self, from: &Uplink) -> bool {
        !is_this_machine(&self.host) || is_near(&from.addr)
    }
}

/// Whether an address is on the proxy's machine.
fn is_near(addr: &Address) -> bool {
    match addr {
        Address::Unix(_) => true,
        Address::Sought(_) => false,
        Address::Tcp { host, .. } => is_this_machine(host),
    }
}

fn is_this_machine(host: &str) -> bool {
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    host.is_empty() || host == "localhost" || is_loopback
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_the_same_only_on_one_machine() {
        let at = |host: &str| Uplink {
            addr: Address::Tcp { host: host.to_owned(), port: 6379 },
            login: None,
            tls: None,
        };
        let source = |host: &str| Source { host: host.to_owned(), port: 6379, tls: false };
        for (host, from, alike) in [
            ("127.0.0.1", "127.0.0.2", true),
            ("localhost", "10.0.0.2", false),
            ("::1", "10.0.0.2", false),
            ("10.0.0.1", "10.0.0.2", true),
            ("10.0.0.1", "127.0.0.1", true),
        ] {
            assert_eq!(source(host).is_for_all_alike(&at(from)), alike, "{host} {from}");
        }
    }
}
