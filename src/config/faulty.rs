//! What can be verified of a block that has a fault: all faults of a file are told at once.

use std::path::PathBuf;

use super::address::Address;
use super::fields::{address, path};
use super::raw::{RawListen, RawSentinel, RawUplink};

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

impl Faulty {
    /// `uplink`; it may speak TLS where its `tls` could not be read.
    pub(super) fn uplink(raw: &RawUplink, tls_is_unknown: bool) -> Self {
        let mut files = Files::default();
        if raw.tls == Some(true) || tls_is_unknown {
            let cacertfile = path(&raw.cacertfile).filter(|_| raw.skipverify != Some(true));
            let (certfile, keyfile) = (path(&raw.certfile), path(&raw.keyfile));
            files = Files { certfile, keyfile, cacertfile };
        }
        // It listens nowhere.
        Faulty { block: "uplink", addr: None, files }
    }

    /// `uplink.sentinel`; it may speak TLS where its `tls` could not be read.
    pub(super) fn sentinel(raw: &RawSentinel, tls_is_unknown: bool) -> Self {
        let mut files = Files::default();
        if raw.tls == Some(true) || tls_is_unknown {
            let cacertfile = path(&raw.cacertfile).filter(|_| raw.skipverify != Some(true));
            let (certfile, keyfile) = (path(&raw.certfile), path(&raw.keyfile));
            files = Files { certfile, keyfile, cacertfile };
        }
        Faulty { block: "uplink.sentinel", addr: None, files }
    }

    /// A listener; it may speak TLS where its `tls` could not be read.
    pub(super) fn listen(block: &'static str, raw: &RawListen, tls_is_unknown: bool) -> Self {
        let mut files = Files::default();
        if raw.tls == Some(true) || tls_is_unknown {
            let (certfile, keyfile) = (path(&raw.certfile), path(&raw.keyfile));
            files = Files { certfile, keyfile, cacertfile: path(&raw.cacertfile) };
        }
        // What is wrong with the address is among the faults already.
        Faulty { block, addr: address(block, &raw.addr, &raw.network, &mut Vec::new()), files }
    }
}
