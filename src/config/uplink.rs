//! The `uplink` block: how the uplink is found, and how it, and the Sentinels, are spoken to.

use super::address::Address;
use super::blocks::{Identity, Lookup, Sentinel, UplinkBlock, UplinkTls};
use super::fault::Fault;
use super::fields::{address, given, listed_address, login, path};
use super::raw::{RawSentinel, RawUplink};
use super::tls_fields::TlsFields;

/// The most addresses that are taken in one list: each is asked all the time.
const MOST_ADDRS: usize = 32;

/// Reads the block.
pub(super) fn uplink(raw: &RawUplink, faults: &mut Vec<Fault>) -> Option<UplinkBlock> {
    let before = faults.len();
    let lookup = lookup(raw, faults);
    let login = login("uplink", &raw.user, &raw.pass, faults);
    let tls = tls("uplink", TlsFields::from(raw), faults);
    let is_unix = match &lookup {
        Some(Lookup::Addr(addr)) => is_unix(addr),
        Some(Lookup::Addrs(addrs)) => addrs.iter().any(is_unix),
        Some(Lookup::Sentinel(_)) | None => false,
    };
    if is_unix && tls.as_ref().is_some_and(lacks_name) {
        faults.push(Fault::new("uplink.tls over a unix socket requires servername"));
    }
    Some(UplinkBlock { lookup: lookup?, login, tls }).filter(|_| faults.len() == before)
}

fn is_unix(addr: &Address) -> bool {
    matches!(addr, Address::Unix(_))
}

/// The certificate is verified, and no name is given.
fn lacks_name(tls: &UplinkTls) -> bool {
    tls.cacertfile.is_some() && tls.servername.is_none()
}

fn lookup(raw: &RawUplink, faults: &mut Vec<Fault>) -> Option<Lookup> {
    let addr = given(&raw.addr).is_some();
    let count = [addr, raw.addrs.is_some(), raw.sentinel.is_some()];
    if count.into_iter().filter(|given| *given).count() > 1 {
        faults.push(Fault::new("uplink: only one of addr, addrs and sentinel can be given"));
        return None;
    }
    match (&raw.addrs, &raw.sentinel) {
        (Some(addrs), _) => {
            let addrs = addresses("uplink.addrs", addrs, &raw.network, faults)?;
            Some(Lookup::Addrs(addrs))
        }
        (None, Some(it)) => {
            if given(&raw.network).is_some_and(|network| network != "tcp") {
                faults.push(Fault::new("uplink.network: Sentinels tell TCP addresses alone"));
            }
            sentinel(it, faults).map(Box::new).map(Lookup::Sentinel)
        }
        (None, None) => address("uplink", &raw.addr, &raw.network, faults).map(Lookup::Addr),
    }
}

fn sentinel(raw: &RawSentinel, faults: &mut Vec<Fault>) -> Option<Sentinel> {
    const NAME: &str = "uplink.sentinel";
    let addrs = raw.addrs.as_deref().unwrap_or_default();
    let addrs = addresses("uplink.sentinel.addrs", addrs, &None, faults);
    let master = given(&raw.master);
    if master.is_none() {
        faults.push(Fault::new("uplink.sentinel.master: the name of the master is missing"));
    }
    let login = login(NAME, &raw.user, &raw.pass, faults);
    let tls = tls(NAME, TlsFields::from(raw), faults);
    Some(Sentinel { addrs: addrs?, master: master?.to_owned(), login, tls })
}

fn addresses(
    field: &str,
    addrs: &[String],
    network: &Option<String>,
    faults: &mut Vec<Fault>,
) -> Option<Vec<Address>> {
    if addrs.is_empty() || addrs.len() > MOST_ADDRS {
        faults.push(Fault::new(format!("{field}: from 1 to {MOST_ADDRS} addresses are needed")));
        return None;
    }
    let before = faults.len();
    let mut read = Vec::new();
    for (at, addr) in addrs.iter().enumerate() {
        match listed_address(addr, network) {
            Ok(addr) if read.contains(&addr) => {
                faults.push(Fault::new(format!("{field}[{at}]: {addr} is there twice")));
            }
            Ok(addr) => read.push(addr),
            Err(why) => faults.push(Fault::new(format!("{field}[{at}]: {why}"))),
        }
    }
    Some(read).filter(|_| faults.len() == before)
}

fn tls(block: &str, raw: TlsFields<'_>, faults: &mut Vec<Fault>) -> Option<UplinkTls> {
    if raw.tls != Some(true) {
        return None;
    }
    let cacertfile = path(raw.cacertfile);
    let verify = raw.skipverify != Some(true);
    if verify && cacertfile.is_none() {
        faults.push(Fault::new(format!("{block}.tls requires cacertfile or skipverify")));
    }
    let servername = given(raw.servername).map(str::to_owned);
    let identity = match (path(raw.certfile), path(raw.keyfile)) {
        (Some(certfile), Some(keyfile)) => Some(Identity { certfile, keyfile }),
        (Some(_), None) => {
            faults.push(Fault::new(format!("{block}.certfile requires keyfile")));
            None
        }
        (None, Some(_)) => {
            faults.push(Fault::new(format!("{block}.keyfile requires certfile")));
            None
        }
        (None, None) => None,
    };
    Some(UplinkTls { cacertfile: cacertfile.filter(|_| verify), identity, servername })
}
