//! The fields that say whether and how TLS is spoken to servers, in whichever block they stand.

use super::fields::given;
use super::raw::{RawSentinel, RawUplink};

/// The fields that say whether and how TLS is spoken.
pub(super) struct TlsFields<'a> {
    pub(super) tls: Option<bool>,
    pub(super) skipverify: Option<bool>,
    pub(super) cacertfile: &'a Option<String>,
    pub(super) certfile: &'a Option<String>,
    pub(super) keyfile: &'a Option<String>,
    pub(super) servername: &'a Option<String>,
}

impl<'a> From<&'a RawUplink> for TlsFields<'a> {
    fn from(raw: &'a RawUplink) -> Self {
        TlsFields {
            tls: raw.tls,
            skipverify: raw.skipverify,
            cacertfile: &raw.cacertfile,
            certfile: &raw.certfile,
            keyfile: &raw.keyfile,
            servername: &raw.servername,
        }
    }
}

impl<'a> From<&'a RawSentinel> for TlsFields<'a> {
    fn from(raw: &'a RawSentinel) -> Self {
        TlsFields {
            tls: raw.tls,
            skipverify: raw.skipverify,
            cacertfile: &raw.cacertfile,
            certfile: &raw.certfile,
            keyfile: &raw.keyfile,
            servername: &raw.servername,
        }
    }
}

impl TlsFields<'_> {
    /// Whether each of those that need TLS is there.
    pub(super) fn given(&self) -> [(&'static str, bool); 5] {
        let has = |text: &Option<String>| given(text).is_some();
        [
            ("cacertfile", has(self.cacertfile)),
            ("certfile", has(self.certfile)),
            ("keyfile", has(self.keyfile)),
            ("servername", has(self.servername)),
            ("skipverify", self.skipverify == Some(true)),
        ]
    }
}
