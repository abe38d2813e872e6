//! Addresses as they stand in the configuration.

use std::fmt;
use std::path::PathBuf;

/// Where to listen, or where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, with brackets around an IPv6 host.
    Tcp {
        /// A name or an IP address, without brackets. Empty: every interface, or this machine.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a socket.
    Unix(PathBuf),
    /// Nobody has told it yet; what is looked for, in words.
    Sought(String),
}

impl Address {
    /// Reads `host:port`. What is wrong is told without the text, which may be a URL with a
    /// password in it.
    pub fn tcp(text: &str) -> Result<Address, &'static str> {
        const WRONG: &str = "expected host:port";
        if text.contains('/') {
            return Err("expected host:port, not a URL (and a path needs \"network\": \"unix\")");
        }
        let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').ok_or(WRONG)?,
            None if host.contains(':') => {
                return Err("an IPv6 address needs brackets, as in [::1]:6379");
            }
            None => host,
        };
        let port = port.parse().map_err(|_| "expected a port number after the last colon")?;
        Ok(Address::Tcp { host: host.to_owned(), port })
    }

    /// Reads the `host:port` of another server, where neither part is left out.
    pub fn server(text: &str) -> Result<Address, &'static str> {
        match Address::tcp(text)? {
            Address::Tcp { host, .. } if host.is_empty() => Err("expected a host, too"),
            Address::Tcp { host, .. } if host.contains(char::is_whitespace) => {
                Err("expected a host without blanks")
            }
            Address::Tcp { port: 0, .. } => Err("expected a port"),
            address => Ok(address),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Sought(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_addresses_read_and_print_alike() {
        for text in ["localhost:6379", "127.0.0.1:0", "[::1]:65535", ":7001", "[fe80::1%eth0]:1"] {
            assert_eq!(Address::tcp(text).expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_host_and_port_is_refused_with_the_reason() {
        for text in
            ["", "localhost", "::1:80", "[::1:80", "h:", "h:65536", "h:-1", "h:x", "redis://:p@h:1"]
        {
            let why = Address::tcp(text).expect_err(text);
            assert!(!why.is_empty());
        }
        for text in [":1", "h:0", "a b:1", "h"] {
            Address::server(text).expect_err(text);
        }
        Address::server("h:1").expect("a server");
    }
}
