//! What a single field of a block says, and what of it is a fault.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::address::Address;
use super::blocks::Login;
use super::fault::Fault;

/// An empty text is as good as none, as it was in the older program.
pub(super) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

pub(super) fn path(text: &Option<String>) -> Option<PathBuf> {
    given(text).map(PathBuf::from)
}

pub(super) fn secret(pass: &Option<SecretString>) -> Option<&SecretString> {
    pass.as_ref().filter(|pass| !pass.expose_secret().is_empty())
}

pub(super) fn address(
    block: &str,
    addr: &Option<String>,
    network: &Option<String>,
    faults: &mut Vec<Fault>,
) -> Option<Address> {
    let Some(addr) = given(addr) else {
        faults.push(Fault::new(format!("Missing {block} address")));
        return None;
    };
    let address = match given(network) {
        None | Some("tcp") => Address::tcp(addr).map_err(|why| format!("addr: {why}")),
        Some("unix") => Ok(Address::Unix(addr.into())),
        Some(_) => Err(WRONG_NETWORK.to_owned()),
    };
    address.map_err(|why| faults.push(Fault::new(format!("{block}.{why}")))).ok()
}

const WRONG_NETWORK: &str = "network: expected \"tcp\" or \"unix\"";

/// One address of a list, or what is wrong with it.
pub(super) fn listed_address(
    addr: &str,
    network: &Option<String>,
) -> Result<Address, &'static str> {
    match given(network) {
        None | Some("tcp") => Address::server(addr),
        Some("unix") if addr.is_empty() => Err("expected a path"),
        Some("unix") => Ok(Address::Unix(addr.into())),
        Some(_) => Err(WRONG_NETWORK),
    }
}

pub(super) fn login(
    block: &str,
    user: &Option<String>,
    pass: &Option<SecretString>,
    faults: &mut Vec<Fault>,
) -> Option<Login> {
    let user = given(user).map(str::to_owned);
    match (user, secret(pass)) {
        (user, Some(pass)) => Some(Login { user, pass: pass.clone() }),
        // A name alone protects nothing, and a page's Basic user name may be any.
        (Some(_), None) => {
            faults.push(Fault::new(format!("{block}.user requires pass")));
            None
        }
        (None, None) => None,
    }
}
