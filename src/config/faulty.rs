//! What can be verified of a block that has a fault: all faults of a file are told at once.

use std::path::PathBuf;

use super::address::Address;
use super::fields::{address, path};
use super::raw::RawListen;
use super::tls_fields::TlsFields;

/// A block that has a fault. Nothing of it is used; what it names is verified all the same.
#[derive(Debug)]
pub struct Faulty {
    /// The block's name.
    pub block: &'static str,
    /// Where it is to listen, if that is known.
    pub addr: Option<Address>,
    /// The block's TLS material, if it speaks TLS, or if that is not known.
    pub files: Files,
}

/// The files of a block.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The chain, own certificate first.
    pub certfile: Option<PathBuf>,
    /// The private key.
    pub keyfile: Option<PathBuf>,
    /// Authorities.
    pub cacertfile: Option<PathBuf>,
}

impl Files {
    /// Those that are given, of a block that speaks TLS, or for which that is not known.
    fn of(speaks_tls: bool, [certfile, keyfile, cacertfile]: [&Option<String>; 3]) -> Self {
        match speaks_tls {
            true => Files {
                certfile: path(certfile),
                keyfile: path(keyfile),
                cacertfile: path(cacertfile),
            },
            false => Files::default(),
        }
    }
}

impl Faulty {
    /// A block that says how servers are reached; it may speak TLS where its `tls` could not be read.
    pub(super) fn outgoing(block: &'static str, raw: &TlsFields<'_>, tls_is_unknown: bool) -> Self {
        let speaks_tls = raw.tls == Some(true) || tls_is_unknown;
        let mut files = Files::of(speaks_tls, [raw.certfile, raw.keyfile, raw.cacertfile]);
        files.cacertfile = files.cacertfile.filter(|_| raw.skipverify != Some(true));
        // It listens nowhere.
        Faulty { block, addr: None, files }
    }

    /// A listener; it may speak TLS where its `tls` could not be read.
    pub(super) fn listen(block: &'static str, raw: &RawListen, tls_is_unknown: bool) -> Self {
        let speaks_tls = raw.tls == Some(true) || tls_is_unknown;
        let files = Files::of(speaks_tls, [&raw.certfile, &raw.keyfile, &raw.cacertfile]);
        // What is wrong with the address is among the faults already.
        Faulty { block, addr: address(block, &raw.addr, &raw.network, &mut Vec::new()), files }
    }
}
