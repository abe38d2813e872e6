//! Where files are, and what TLS needs.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

use probe::target::Tls as ClientTls;
use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::options::Options;
use crate::process::Trouble;

/// Files with certificates.
pub struct Tls {
    /// The authority.
    pub ca: String,
    /// Of every server.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// A directory for configurations and logs.
pub struct Place {
    /// With TLS?
    pub tls: Option<Tls>,
    dir: PathBuf,
    /// Removes itself.
    _removed: Option<TempDir>,
}

impl Place {
    /// Makes the directory, and looks for the certificates.
    pub fn new(options: &Options) -> Result<Self, Trouble> {
        let file = |path: &Path, why| Trouble::File(path.display().to_string(), why);
        let tls = match options.tls {
            false => None,
            true => {
                // Servers have other working directories.
                let found = |name: &str| {
                    let path = options.certs.join(name);
                    let path = fs::canonicalize(&path).map_err(|why| file(&path, why))?;
                    Ok::<_, Trouble>(path.display().to_string())
                };
                let (ca, cert, key) =
                    (found("ca.pem")?, found("server.pem")?, found("server.key")?);
                Some(Tls { ca, cert, key })
            }
        };
        let (dir, _removed) = match &options.dir {
            Some(dir) => {
                fs::create_dir_all(dir).map_err(|why| file(dir, why))?;
                (fs::canonicalize(dir).map_err(|why| file(dir, why))?, None)
            }
            None => {
                let dir = TempDir::new().map_err(|why| file(&std::env::temp_dir(), why))?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        Ok(Place { tls, dir, _removed })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A password for this run.
    pub fn new_pass(&self) -> SecretString {
        // Seeded by the system each time.
        SecretString::from(format!("{:016x}", RandomState::new().hash_one(std::process::id())))
    }

    /// What a client needs.
    pub fn client_tls(&self) -> Option<ClientTls> {
        let tls = self.tls.as_ref()?;
        Some(ClientTls { cacert: Some(PathBuf::from(&tls.ca)), ..ClientTls::default() })
    }

    /// Adds to an `uplink` whom to trust.
    pub fn trust(&self, uplink: &mut Value) {
        if let Some(tls) = &self.tls {
            uplink["tls"] = json!(true);
            uplink["cacertfile"] = json!(tls.ca);
        }
    }

    /// Adds to a `listen` what to show.
    pub fn show(&self, listen: &mut Value) {
        if let Some(tls) = &self.tls {
            listen["tls"] = json!(true);
            listen["certfile"] = json!(tls.cert);
            listen["keyfile"] = json!(tls.key);
        }
    }
}
