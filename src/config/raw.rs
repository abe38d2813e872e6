//! The configuration file as it is written: the serde mirror, nothing decided yet.

use secrecy::SecretString;
use serde::Deserialize;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) uplink: Option<RawUplink>,
    pub(super) listen: Option<RawListen>,
    pub(super) listen_raw: Option<RawListen>,
    pub(super) admin: Option<RawListen>,
    pub(super) log_messages: Option<bool>,
    pub(super) read_time_limit_ms: Option<u64>,
    pub(super) blocking_time_limit_ms: Option<u64>,
    pub(super) connect_time_limit_ms: Option<u64>,
    pub(super) hold_time_limit_ms: Option<u64>,
    pub(super) pause_time_limit_ms: Option<u64>,
    pub(super) stop_time_limit_ms: Option<u64>,
    pub(super) max_clients: Option<u32>,
}

/// `uplink`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUplink {
    pub(super) addr: Option<String>,
    pub(super) addrs: Option<Vec<String>>,
    pub(super) sentinel: Option<RawSentinel>,
    pub(super) network: Option<String>,
    pub(super) user: Option<String>,
    pub(super) pass: Option<SecretString>,
    pub(super) tls: Option<bool>,
    pub(super) cacertfile: Option<String>,
    pub(super) skipverify: Option<bool>,
    pub(super) certfile: Option<String>,
    pub(super) keyfile: Option<String>,
    pub(super) servername: Option<String>,
}

/// `uplink.sentinel`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSentinel {
    pub(super) addrs: Option<Vec<String>>,
    pub(super) master: Option<String>,
    pub(super) user: Option<String>,
    pub(super) pass: Option<SecretString>,
    pub(super) tls: Option<bool>,
    pub(super) cacertfile: Option<String>,
    pub(super) skipverify: Option<bool>,
    pub(super) certfile: Option<String>,
    pub(super) keyfile: Option<String>,
    pub(super) servername: Option<String>,
}

/// `listen`, `listen_raw`, `admin`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawListen {
    pub(super) addr: Option<String>,
    pub(super) network: Option<String>,
    pub(super) user: Option<String>,
    pub(super) pass: Option<SecretString>,
    pub(super) tls: Option<bool>,
    pub(super) certfile: Option<String>,
    pub(super) keyfile: Option<String>,
    pub(super) cacertfile: Option<String>,
}
