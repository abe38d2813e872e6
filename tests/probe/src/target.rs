//! Where the clients connect, and how.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, Connection, ConnectionAddr, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, TlsCertificates,
};
use secrecy::{ExposeSecret, SecretString};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(20);

/// An address, and what is needed to be let in there.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// `host:port`.
    pub addr: String,
    /// With TLS?
    pub tls: Option<Tls>,
    /// Empty: the default user.
    pub user: Option<String>,
    /// The user's password.
    pub pass: Option<SecretString>,
}

/// How TLS is spoken.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Whom to trust; without it, whom this machine trusts.
    pub cacert: Option<PathBuf>,
    /// Trust anybody.
    pub skip_verify: bool,
    /// The client's own certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not `host:port`.
    #[error("{0}: not host:port")]
    Address(String),
    /// A certificate or key.
    #[error("could not read {0}: {1}")]
    File(PathBuf, #[source] std::io::Error),
    /// The library does not take it.
    #[error("{0}")]
    Library(#[from] RedisError),
}

/// Opens connections. Every other one speaks RESP3.
#[derive(Debug)]
pub struct Dialler {
    resp2: Client,
    resp3: Client,
}

impl Dialler {
    /// Reads the files, and connects to nothing yet.
    pub fn new(target: &Target) -> Result<Self, TargetError> {
        Ok(Dialler {
            resp2: client(target, ProtocolVersion::RESP2)?,
            resp3: client(target, ProtocolVersion::RESP3)?,
        })
    }

    /// A connection for this client.
    pub fn dial(&self, number: usize) -> Result<Connection, RedisError> {
        let client = if number.is_multiple_of(2) { &self.resp2 } else { &self.resp3 };
        client.get_connection_with_timeout(CONNECT)
    }
}

fn client(target: &Target, protocol: ProtocolVersion) -> Result<Client, TargetError> {
    let wrong = || TargetError::Address(target.addr.clone());
    let (host, port) = target.addr.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    // Brackets around an IPv6 address are not part of it.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let host = if host.is_empty() { "localhost".to_owned() } else { host };
    let mut info = RedisConnectionInfo::default().set_protocol(protocol);
    if let Some(user) = &target.user {
        info = info.set_username(user);
    }
    if let Some(pass) = &target.pass {
        info = info.set_password(pass.expose_secret());
    }
    let Some(tls) = &target.tls else {
        let addr = ConnectionAddr::Tcp(host, port).into_connection_info()?;
        return Ok(Client::open(addr.set_redis_settings(info))?);
    };
    let read = |file: &PathBuf| fs::read(file).map_err(|why| TargetError::File(file.clone(), why));
    let client_tls = match &tls.identity {
        Some((cert, key)) => {
            Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
        }
        None => None,
    };
    let root_cert = tls.cacert.as_ref().map(read).transpose()?;
    let addr = ConnectionAddr::TcpTls { host, port, insecure: tls.skip_verify, tls_params: None };
    let addr = addr.into_connection_info()?.set_redis_settings(info);
    Ok(Client::build_with_tls(addr, TlsCertificates { client_tls, root_cert })?)
}
