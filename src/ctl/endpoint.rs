//! Where the admin API is and how it is spoken to: options go before the environment, and that
//! before the configuration file.

use std::env;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::error::Error;
use crate::cli::{Connection, PASSWORD};
use crate::config::{self, Address, Fault, Listen};
use crate::dial::{self, Tls};
use crate::tls::{self, Named, Trust};
use crate::transport::Stream;

/// How long a connection may take, with TLS.
const CONNECTING: Duration = Duration::from_secs(5);

/// The configuration file, as far as it could be read.
#[derive(Debug)]
pub struct File<'a> {
    /// The path of the file.
    pub path: &'a Path,
    /// The text of the file.
    pub text: io::Result<String>,
}

/// A way to the admin API.
#[derive(Debug)]
pub(super) struct ApiEndpoint {
    addr: Address,
    tls: Option<Tls>,
    /// The header with the password, which hyper does not print.
    pub(super) authorization: Option<HeaderValue>,
    /// What may help where TLS fails.
    hint: Hint,
}

#[derive(Debug, Default)]
struct Hint {
    /// What may help where the server's certificate is not trusted.
    trust: String,
    /// What may help where the server wants a client certificate.
    identity: &'static str,
}

impl ApiEndpoint {
    /// Finds the API, and loads the TLS material; connects nowhere.
    pub(super) fn find(connection: &Connection, file: File<'_>) -> Result<Self, Error> {
        let given = connection.addr.as_deref().filter(|addr| !addr.is_empty()).map(given_address);
        let given = given.transpose().map_err(Error::Usage)?;
        let admin = admin(file, given.is_some())?;
        let addr = given.or_else(|| admin.as_ref().map(|admin| admin.addr.clone()));
        let addr = addr.map(reachable).ok_or_else(|| Error::Usage("no address".to_owned()))?;
        let (tls, hint) = encryption(connection, admin.as_ref(), &addr)?;
        let authorization = match password(connection, admin)? {
            Some(pass) => Some(basic(&pass)?),
            None => None,
        };
        Ok(ApiEndpoint { addr, tls, authorization, hint })
    }

    /// The value of the Host header. Where neither a password nor TLS tells this program from a browser on an
    /// attacker's page, no name but this is taken.
    pub(super) fn host(&self) -> String {
        let is_told_apart = self.authorization.is_some() || self.tls.is_some();
        match &self.addr {
            Address::Tcp { .. } if is_told_apart => self.addr.to_string(),
            Address::Tcp { .. } | Address::Unix(_) | Address::Sought(_) => "localhost".to_owned(),
        }
    }

    /// Whether the API is on this machine.
    pub(super) fn is_here(&self) -> bool {
        match &self.addr {
            Address::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Address::Unix(_) => true,
            Address::Sought(_) => false,
        }
    }

    /// Connects to the API.
    pub(super) async fn connect(&self) -> Result<Stream, Error> {
        let pin = dial::Pin::new();
        let dialled = dial::connect(&self.addr, &pin, self.tls.as_ref(), CONNECTING);
        match timeout(CONNECTING, dialled).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(dial::Error::Tls(why))) if tls::is_another_certificate(&why) => {
                let why = "another certificate is shown there";
                Err(self.unreachable(&format!("{why}{}", self.hint.trust)))
            }
            Ok(Err(why)) => Err(self.unreachable(&why.to_string())),
            Err(_) => {
                let limit = CONNECTING.as_secs();
                Err(self.unreachable(&format!("not connected within {limit} s")))
            }
        }
    }

    pub(super) fn unreachable(&self, why: &str) -> Error {
        Error::Unreachable(format!("no admin API at {}: {why}", self.addr))
    }

    /// The error of a connection that was lost, with what may be the cause.
    pub(super) fn lost(&self, why: &str, is_http: bool) -> Error {
        let hint = match &self.tls {
            Some(_) => self.hint.identity,
            None if !is_http => " (if it is TLS that is spoken there: --tls)",
            None => "",
        };
        self.unreachable(&format!("the connection was lost: {why}{hint}"))
    }
}

/// Reads an address. A fault is told without the text, which may have a password in it.
fn given_address(text: &str) -> Result<Address, String> {
    if text.contains('/') && !text.contains("://") {
        return Ok(Address::Unix(text.into()));
    }
    let why = "expected host:port, or the path of a unix socket (with a slash in it)";
    match Address::tcp(text) {
        Ok(addr) => Ok(addr),
        Err(_) if text.contains('/') => Err(format!("--addr: {why}, not a URL")),
        Err(_) => Err(format!("--addr: {why}")),
    }
}

/// The address to connect to: what listens everywhere is on this machine.
fn reachable(addr: Address) -> Address {
    let Address::Tcp { host, port } = addr else { return addr };
    let host = match host.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => "::1".to_owned(),
        Ok(_) | Err(_) => host,
    };
    Address::Tcp { host, port }
}

/// The file's `admin` block, which is not needed where there is an address. What is wrong with the rest of
/// the file does not matter here.
fn admin(file: File<'_>, has_address: bool) -> Result<Option<Listen>, Error> {
    let name = file.path.display();
    let text = match file.text {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound && has_address => return Ok(None),
        Err(why) => {
            let hint = if has_address { "" } else { "; --addr needs none" };
            let fault = format!("could not read {name}: {why}{hint}");
            return Err(Error::Configuration(vec![fault]));
        }
    };
    let draft = config::parse(&text);
    if draft.admin.is_some() {
        return Ok(draft.admin);
    }
    let faults: Vec<String> = draft.faults.iter().map(Fault::to_string).collect();
    let about_it = |fault: &String| fault.starts_with("admin") || fault == "Missing admin address";
    let of_it: Vec<_> = faults.iter().filter(|fault| about_it(fault)).cloned().collect();
    match (of_it.is_empty(), has_address) {
        (false, _) => Err(Error::Configuration(of_it)),
        // Another program's file may have this name.
        (true, true) => Ok(None),
        (true, false) => {
            let none = format!("{name} has no admin block that could be read; --addr needs none");
            Err(Error::Configuration([vec![none], faults].concat()))
        }
    }
}

/// How TLS is spoken, if it is, and what to do where that fails.
fn encryption(
    connection: &Connection,
    admin: Option<&Listen>,
    addr: &Address,
) -> Result<(Option<Tls>, Hint), Error> {
    let configured = admin.and_then(|admin| admin.tls.as_ref());
    let Connection { cacert, cert, key, servername, .. } = connection;
    let asked = connection.tls || cacert.is_some() || cert.is_some() || servername.is_some();
    if configured.is_none() && !asked {
        return Ok((None, Hint::default()));
    }
    let certfile = configured.map(|tls| tls.identity.certfile.as_path());
    let (trust, hint) = match (cacert, certfile) {
        (Some(cacert), _) => {
            (Trust::Authorities(Named { name: "--cacert", file: cacert }), String::new())
        }
        (None, Some(certfile)) => (
            Trust::Exactly(Named { name: "admin.certfile", file: certfile }),
            format!(
                " than admin.certfile, {}; if that was renewed and is not in force yet, pass --cacert \
                 with its authority, or have the proxy reload it with SIGHUP",
                certfile.display()
            ),
        ),
        (None, None) => {
            let why = "TLS needs --cacert, or a configuration file with admin.certfile";
            return Err(Error::Usage(why.to_owned()));
        }
    };
    let identity: Option<(&Path, &Path)> = cert.as_deref().zip(key.as_deref());
    let is_wanted = identity.is_none() && configured.is_some_and(|tls| tls.cacertfile.is_some());
    let ask = " (admin.cacertfile asks for a certificate: --cert and --key)";
    let hint = Hint { trust: hint, identity: if is_wanted { ask } else { "" } };
    let identity = identity.map(|(cert, key)| {
        (Named { name: "--cert", file: cert }, Named { name: "--key", file: key })
    });
    let config = tls::client_that(trust, identity)
        .map_err(|faults| Error::Configuration(faults.iter().map(Fault::to_string).collect()))?;
    let tls = Tls::new(config, servername.as_deref(), addr)
        .map_err(|why| Error::Usage(format!("{why} (--servername)")))?;
    Ok((Some(tls), hint))
}

fn password(connection: &Connection, admin: Option<Listen>) -> Result<Option<SecretString>, Error> {
    if let Some(file) = &connection.pass_file {
        let name = file.display();
        let text = fs::read_to_string(file).map(SecretString::from).map_err(|why| {
            Error::Configuration(vec![format!("could not read --pass-file {name}: {why}")])
        })?;
        let first = text.expose_secret().lines().next().unwrap_or_default();
        if first.is_empty() {
            let fault = format!("--pass-file {name}: no password in its first line");
            return Err(Error::Configuration(vec![fault]));
        }
        return Ok(Some(first.into()));
    }
    match env::var(PASSWORD) {
        Ok(pass) if !pass.is_empty() => Ok(Some(pass.into())),
        Ok(_) | Err(env::VarError::NotPresent) => {
            Ok(admin.and_then(|admin| admin.login).map(|login| login.pass.clone()))
        }
        Err(env::VarError::NotUnicode(_)) => {
            Err(Error::Usage(format!("{PASSWORD}: expected UTF-8")))
        }
    }
}

/// The header with the password: `Basic` takes any password, `Bearer` does not.
fn basic(pass: &SecretString) -> Result<HeaderValue, Error> {
    let credentials = STANDARD.encode(format!(":{}", pass.expose_secret()));
    let mut value = HeaderValue::try_from(format!("Basic {credentials}"))
        .map_err(|_| Error::Usage("the password cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialled(text: &str) -> String {
        given_address(text).map(reachable).expect(text).to_string()
    }

    #[test]
    fn what_listens_everywhere_is_dialled_here() {
        for (listens, dials) in [
            (":7011", ":7011"),
            ("0.0.0.0:7011", "127.0.0.1:7011"),
            ("[::]:7011", "[::1]:7011"),
            ("10.0.0.1:7011", "10.0.0.1:7011"),
            ("proxy:7011", "proxy:7011"),
            ("./admin.sock", "./admin.sock"),
        ] {
            assert_eq!(dialled(listens), dials);
        }
    }

    #[test]
    fn a_url_is_refused_without_the_password_in_it() {
        for text in ["http://u:secret@h:7011/", "secret", "[::1:7011"] {
            let why = given_address(text).expect_err(text);
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
