//! The configuration: typed, valid, and complete about what is wrong with it.
//!
//! [`parse`] gives a [`Draft`]: every block that is valid, a [`Fault`] for everything that is not,
//! and a [`Faulty`] with what can still be verified of a block that has one. Nothing is read but the text; files and networks are [`crate::generation`]'s.

mod address;
mod blocks;
mod edit;
mod fault;
mod faulty;
mod fields;
mod raw;
mod read;
mod tls_fields;
mod twice;
mod uplink;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub use self::address::Address;
pub use self::blocks::{
    Identity, Listen, ListenTls, Login, Lookup, Sentinel, Settings, Uplink, UplinkBlock, UplinkTls,
};
pub use self::edit::UplinkAddress;
pub use self::fault::Fault;
pub use self::faulty::{Faulty, Files};
use self::fields::{address, given, login, path, secret};
use self::raw::{RawConfig, RawListen, RawUplink};
use self::read::ReadConfig;
use self::tls_fields::TlsFields;
use crate::redact::REMOVED;

/// What a configuration file says, as far as it is valid.
#[derive(Debug)]
pub struct Draft {
    /// `uplink`; absent only with a fault: an uplink is not dialled by a half of what was meant.
    pub uplink: Option<UplinkBlock>,
    /// `listen`; absent only with a fault.
    pub listen: Option<Listen>,
    /// `listen_raw`
    pub listen_raw: Option<Listen>,
    /// `admin`
    pub admin: Option<Listen>,
    /// The blocks that have a fault.
    pub faulty: Vec<Faulty>,
    /// The top level.
    pub settings: Settings,
    /// Everything that is wrong.
    pub faults: Vec<Fault>,
    /// What is valid and perhaps not meant.
    pub warnings: Vec<String>,
    /// Passwords that are there and empty, which means none: the same, for whoever reloads, too.
    pub empty_passwords: Vec<String>,
    /// The file as it may be shown.
    pub shown: serde_json::Value,
}

/// Reads a configuration.
pub fn parse(text: &str) -> Draft {
    let mut read = read::read(text);
    let mut faults = std::mem::take(&mut read.faults);
    let (raw, mut faulty) = (&read.raw, Vec::new());
    let (no_uplink, nowhere) = (RawUplink::default(), RawListen::default());
    let uplink = {
        let raw = raw.uplink.as_ref().unwrap_or(&no_uplink);
        let valid = (!read.is_broken("uplink")).then(|| uplink::uplink(raw, &mut faults)).flatten();
        let valid = valid.filter(|_| !read.has_faults("uplink"));
        if valid.is_none() {
            faulty.push(Faulty::outgoing("uplink", &raw.into(), read.is_broken("uplink.tls")));
            let sentinel = raw.sentinel.as_ref();
            let is_broken = read.is_broken("uplink.sentinel.tls");
            faulty.extend(
                sentinel.map(|it| Faulty::outgoing("uplink.sentinel", &it.into(), is_broken)),
            );
        }
        valid
    };
    let mut listener = |name: &'static str, raw: &RawListen| {
        let valid = (!read.is_broken(name)).then(|| block(name, raw, &mut faults)).flatten();
        let valid = valid.filter(|_| !read.has_faults(name));
        if valid.is_none() {
            faulty.push(Faulty::listen(name, raw, read.is_broken(&format!("{name}.tls"))));
        }
        valid
    };
    let listen = listener("listen", raw.listen.as_ref().unwrap_or(&nowhere));
    let mut optional =
        |name, raw: &Option<RawListen>| listener(name, raw.as_ref().filter(|raw| !is_blank(raw))?);
    let (listen_raw, admin) =
        (optional("listen_raw", &raw.listen_raw), optional("admin", &raw.admin));
    let settings = settings(raw, &mut faults);
    let (warnings, empty_passwords, shown) = (without_tls(&read), empty_passwords(raw), shown(raw));
    Draft {
        uplink,
        listen,
        listen_raw,
        admin,
        faulty,
        settings,
        faults,
        warnings,
        empty_passwords,
        shown,
    }
}

impl Draft {
    /// Where `listen` is to be, as far as that is known; the block may have other faults.
    pub fn listen_addr(&self) -> Option<&Address> {
        self.addr("listen", self.listen.as_ref())
    }

    /// Where `listen_raw` is to be, as far as that is known; the block may have other faults.
    pub fn listen_raw_addr(&self) -> Option<&Address> {
        self.addr("listen_raw", self.listen_raw.as_ref())
    }

    fn addr<'a>(&'a self, block: &str, valid: Option<&'a Listen>) -> Option<&'a Address> {
        let faulty = self.faulty.iter().find(|faulty| faulty.block == block);
        let addr = valid.map(|valid| &valid.addr);
        addr.or_else(|| faulty.and_then(|faulty| faulty.addr.as_ref()))
    }
}

/// The file without its secrets; nobody can tell from it whether there is a password. Absent blocks
/// and texts are empty ones, as in the older program.
fn shown(raw: &RawConfig) -> serde_json::Value {
    let text = |text: &Option<String>| given(text).unwrap_or_default().to_owned();
    let empty = RawListen::default();
    let block = |listen: &Option<RawListen>| {
        let listen = listen.as_ref().unwrap_or(&empty);
        json!({
            "addr": text(&listen.addr), "network": text(&listen.network),
            "user": text(&listen.user), "pass": REMOVED,
            "tls": listen.tls == Some(true), "certfile": text(&listen.certfile),
            "keyfile": text(&listen.keyfile), "cacertfile": text(&listen.cacertfile),
        })
    };
    let nothing = RawUplink::default();
    let uplink = raw.uplink.as_ref().unwrap_or(&nothing);
    let sentinel = uplink.sentinel.as_ref().map(|it| {
        json!({
            "addrs": it.addrs, "master": text(&it.master),
            "user": text(&it.user), "pass": REMOVED,
            "tls": it.tls == Some(true), "certfile": text(&it.certfile),
            "keyfile": text(&it.keyfile), "cacertfile": text(&it.cacertfile),
            "skipverify": it.skipverify == Some(true), "servername": text(&it.servername),
        })
    });
    json!({
        "uplink": {
            "addr": text(&uplink.addr), "addrs": uplink.addrs, "sentinel": sentinel,
            "network": text(&uplink.network),
            "user": text(&uplink.user), "pass": REMOVED,
            "tls": uplink.tls == Some(true), "certfile": text(&uplink.certfile),
            "keyfile": text(&uplink.keyfile), "cacertfile": text(&uplink.cacertfile),
            "skipverify": uplink.skipverify == Some(true), "servername": text(&uplink.servername),
        },
        "listen": block(&raw.listen),
        "listen_raw": block(&raw.listen_raw),
        "admin": block(&raw.admin),
        "read_time_limit_ms": raw.read_time_limit_ms.unwrap_or(0),
        "log_messages": raw.log_messages == Some(true),
    })
}

/// Turning TLS off and leaving its fields is common; not knowing of it would be dangerous.
fn without_tls(read: &ReadConfig) -> Vec<String> {
    let raw = &read.raw;
    let mut warnings = Vec::new();
    let mut note = |block: &str, tls: Option<bool>, fields: &[(&str, bool)]| {
        let without = tls != Some(true) && !read.is_broken(&format!("{block}.tls"));
        let idle = fields.iter().filter(|(_, given)| *given && without);
        warnings
            .extend(idle.map(|(field, _)| format!("{block}.{field} has no effect without tls")));
    };
    let blocks = [("listen", &raw.listen), ("listen_raw", &raw.listen_raw), ("admin", &raw.admin)];
    for (name, block) in blocks {
        if let Some(it) = block {
            let files = [
                ("certfile", &it.certfile),
                ("keyfile", &it.keyfile),
                ("cacertfile", &it.cacertfile),
            ];
            note(name, it.tls, &files.map(|(field, file)| (field, given(file).is_some())));
        }
    }
    if let Some(it) = &raw.uplink {
        note("uplink", it.tls, &TlsFields::from(it).given());
        if let Some(it) = &it.sentinel {
            note("uplink.sentinel", it.tls, &TlsFields::from(it).given());
        }
    }
    warnings
}

/// Older files say so where they mean no password; others mean one that somebody forgot to fill in.
fn empty_passwords(raw: &RawConfig) -> Vec<String> {
    let is_empty =
        |it: &RawListen| !is_blank(it) && it.pass.is_some() && secret(&it.pass).is_none();
    let blocks = [("listen", &raw.listen), ("admin", &raw.admin)];
    let open = blocks.into_iter().filter(|(_, block)| block.as_ref().is_some_and(is_empty));
    open.map(|(name, _)| format!("{name}.pass is empty, which means that no password is needed"))
        .collect()
}

/// Turned off by leaving everything empty, as the older program's example file did.
fn is_blank(raw: &RawListen) -> bool {
    let texts = [&raw.addr, &raw.network, &raw.user, &raw.certfile, &raw.keyfile, &raw.cacertfile];
    texts.into_iter().all(|text| given(text).is_none())
        && secret(&raw.pass).is_none()
        && raw.tls != Some(true)
}

fn block(name: &str, raw: &RawListen, faults: &mut Vec<Fault>) -> Option<Listen> {
    let before = faults.len();
    let addr = address(name, &raw.addr, &raw.network, faults);
    if name == "listen_raw" && (given(&raw.user).is_some() || secret(&raw.pass).is_some()) {
        faults.push(Fault::new("listen_raw does not support in-proxy authentication"));
    }
    let login = login(name, &raw.user, &raw.pass, faults).map(Arc::new);
    let mut tls = None;
    if raw.tls == Some(true) {
        let (certfile, keyfile) = (path(&raw.certfile), path(&raw.keyfile));
        for (field, value) in [("certfile", &certfile), ("keyfile", &keyfile)] {
            if value.is_none() {
                faults.push(Fault::new(format!("{name}.tls requires {field}")));
            }
        }
        if let (Some(certfile), Some(keyfile)) = (certfile, keyfile) {
            let identity = Identity { certfile, keyfile };
            tls = Some(ListenTls { identity, cacertfile: path(&raw.cacertfile) });
        }
    }
    Some(Listen { addr: addr?, login, tls }).filter(|_| faults.len() == before)
}

fn settings(raw: &RawConfig, faults: &mut Vec<Fault>) -> Settings {
    let some_time = |ms: Option<u64>| ms.filter(|ms| *ms > 0).map(Duration::from_millis);
    let or_default = |ms: Option<u64>, default| Duration::from_millis(ms.unwrap_or(default));
    let read_time_limit = some_time(raw.read_time_limit_ms);
    if raw.connect_time_limit_ms == Some(0) {
        faults.push(Fault::new("connect_time_limit_ms: must be at least 1"));
    }
    if raw.max_clients == Some(0) {
        faults.push(Fault::new("max_clients: must be at least 1"));
    }
    Settings {
        log_messages: raw.log_messages == Some(true),
        read_time_limit,
        blocking_time_limit: match raw.blocking_time_limit_ms {
            None => read_time_limit,
            given => some_time(given),
        },
        // One that is refused must not make other faults.
        connect_time_limit: or_default(raw.connect_time_limit_ms.filter(|ms| *ms > 0), 5_000),
        hold_time_limit: some_time(Some(raw.hold_time_limit_ms.unwrap_or(5_000))),
        pause_time_limit: or_default(raw.pause_time_limit_ms, 10_000),
        stop_time_limit: or_default(raw.stop_time_limit_ms, 5_000),
        max_clients: raw.max_clients.map_or(10_000, |n| n as usize),
    }
}
