//! The blocks of the configuration, and its top level, once they are valid.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::address::Address;

/// The `uplink` block: how the Redis behind the proxy is found, and spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkBlock {
    /// How it is found.
    pub lookup: Lookup,
    /// How the proxy authenticates there.
    pub login: Option<Login>,
    /// Whether and how to speak TLS.
    pub tls: Option<UplinkTls>,
}

/// How the uplink is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// `addr`: it is there. A name may come to stand for another server.
    Addr(Address),
    /// `addrs`: whichever is a master.
    Addrs(Vec<Address>),
    /// `sentinel`: Sentinels are asked.
    Sentinel(Box<Sentinel>),
}

/// Where Sentinels are, what they are asked for, and how they are spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinel {
    /// Where some of them are.
    pub addrs: Vec<Address>,
    /// The name of the master.
    pub master: String,
    /// How the proxy authenticates there.
    pub login: Option<Login>,
    /// Whether and how to speak TLS.
    pub tls: Option<UplinkTls>,
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lookup::Addr(addr) => addr.fmt(f),
            Lookup::Addrs(addrs) => write!(f, "the master among {}", listed(addrs)),
            Lookup::Sentinel(it) => {
                write!(f, "the master {} of the Sentinels {}", it.master, listed(&it.addrs))
            }
        }
    }
}

fn listed(addrs: &[Address]) -> String {
    addrs.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
}

/// The Redis behind the proxy, once it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// Where it is.
    pub addr: Address,
    /// How the proxy authenticates there.
    pub login: Option<Login>,
    /// Whether and how to speak TLS.
    pub tls: Option<UplinkTls>,
}

/// How the uplink's certificate is verified, and what the proxy shows for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkTls {
    /// The certificates to trust; `None` verifies nothing (`skipverify`).
    pub cacertfile: Option<PathBuf>,
    /// The proxy's own certificate.
    pub identity: Option<Identity>,
    /// The name to verify and to send, where it is not the host of the address.
    pub servername: Option<String>,
}

/// A place where the proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub addr: Address,
    /// What clients must know. A client that was let in by it keeps it.
    pub login: Option<Arc<Login>>,
    /// TLS termination.
    pub tls: Option<ListenTls>,
}

/// What is shown to TLS clients, and what is asked of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenTls {
    /// The proxy's certificate.
    pub identity: Identity,
    /// Clients must present a certificate from one of these.
    pub cacertfile: Option<PathBuf>,
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain, own certificate first.
    pub certfile: PathBuf,
    /// The private key.
    pub keyfile: PathBuf,
}

/// A password, with a user or for the default user. It cannot be printed.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user; `None` is the default user.
    pub user: Option<String>,
    /// The password.
    pub pass: SecretString,
}

/// Logins are compared for a reload to see what changed; what clients send is compared in constant time
/// elsewhere.
impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user && self.pass.expose_secret() == other.pass.expose_secret()
    }
}

impl Eq for Login {}

/// The fields of the top level.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `log_messages`
    pub log_messages: bool,
    /// `read_time_limit_ms`
    pub read_time_limit: Option<Duration>,
    /// `blocking_time_limit_ms`
    pub blocking_time_limit: Option<Duration>,
    /// `connect_time_limit_ms`
    pub connect_time_limit: Duration,
    /// `hold_time_limit_ms`
    pub hold_time_limit: Option<Duration>,
    /// `pause_time_limit_ms`
    pub pause_time_limit: Duration,
    /// `stop_time_limit_ms`
    pub stop_time_limit: Duration,
    /// `max_clients`
    pub max_clients: usize,
}
