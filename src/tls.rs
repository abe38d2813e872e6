//! From PEM files to rustls configurations: parsed once, shared by all connections.
//!
//! `rustls-pemfile` is archived, a thin wrapper over `rustls-pki-types`. It was asked for by the
//! project's first users, and this module alone knows it.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::config::{Fault, Files, Identity, ListenTls, UplinkTls};

/// What is shown to clients, and asked of them.
#[derive(Debug, Clone)]
pub struct Server {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// Whose certificates are taken; `None` if none is asked for.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Server {
    /// Whether a client that showed these, own certificate first, would be let in now.
    pub fn takes(&self, certs: &[CertificateDer<'_>]) -> bool {
        let Some(verifier) = &self.clients else { return true };
        let now = UnixTime::now();
        certs
            .split_first()
            .is_some_and(|(own, others)| verifier.verify_client_cert(own, others, now).is_ok())
    }
}

/// What is shown to clients of `block`, and asked of them.
pub fn server(block: &str, tls: &ListenTls) -> Result<Server, Vec<Fault>> {
    let [certfile, keyfile, cacertfile] =
        ["certfile", "keyfile", "cacertfile"].map(|field| format!("{block}.{field}"));
    let certfile = Named { name: &certfile, file: &tls.identity.certfile };
    let keyfile = Named { name: &keyfile, file: &tls.identity.keyfile };
    let cacertfile = tls.cacertfile.as_ref().map(|file| Named { name: &cacertfile, file });
    let (mut identity, mut roots) = (None, None);
    collect([
        load_identity(certfile, keyfile).map(|it| identity = Some(it)),
        cacertfile.map(load_roots).transpose().map(|it| roots = it),
    ])?;
    let Some((certs, key)) = identity else { return Err(Vec::new()) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let refused = |why: String| vec![Fault::new(format!("{block}.certfile: {why}"))];
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|why| refused(why.to_string()))?;
    let clients = match roots {
        None => None,
        Some(roots) => Some(
            WebPkiClientVerifier::builder_with_provider(roots.store.into(), provider)
                .build()
                .map_err(|why| vec![Fault::new(format!("{block}.cacertfile: {why}"))])?,
        ),
    };
    let builder = match &clients {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
    };
    let mut config = builder.with_single_cert(certs, key).map_err(|why| refused(reason(&why)))?;
    config.ticketer =
        aws_lc_rs::Ticketer::new().map_err(|why| refused(format!("no session tickets: {why}")))?;
    Ok(Server { config: Arc::new(config), clients })
}

/// How the servers of this block are verified.
pub fn client(block: &str, tls: &UplinkTls) -> Result<Arc<ClientConfig>, Vec<Fault>> {
    let names = ["certfile", "keyfile", "cacertfile"].map(|field| format!("{block}.{field}"));
    let [cert, key, authorities] = &names;
    let trust = match &tls.cacertfile {
        Some(file) => Trust::Authorities(Named { name: authorities, file }),
        None => Trust::Anyone,
    };
    let identity = tls.identity.as_ref().map(|identity| {
        let Identity { certfile, keyfile } = identity;
        (Named { name: cert, file: certfile }, Named { name: key, file: keyfile })
    });
    client_that(trust, identity)
}

/// What is wrong with the files of `block`, which has other faults, too.
pub fn verify_files(block: &str, files: &Files) -> Vec<Fault> {
    let names = ["certfile", "keyfile", "cacertfile"].map(|field| format!("{block}.{field}"));
    let paths = [&files.certfile, &files.keyfile, &files.cacertfile];
    let [certfile, keyfile, cacertfile] =
        std::array::from_fn(|at| paths[at].as_deref().map(|file| Named { name: &names[at], file }));
    let identity = match (certfile, keyfile) {
        (Some(certfile), Some(keyfile)) => {
            load_identity(certfile, keyfile).and_then(|(certs, key)| {
                CertifiedKey::from_der(certs, key, &aws_lc_rs::default_provider())
                    .map(drop)
                    .map_err(|why| vec![Fault::new(format!("{}: {}", certfile.name, reason(&why)))])
            })
        }
        (Some(certfile), None) => load(certfile, certificates).map(drop),
        (None, Some(keyfile)) => load(keyfile, private_key).map(drop),
        (None, None) => Ok(()),
    };
    let roots = cacertfile.map_or(Ok(()), |file| load_roots(file).map(drop));
    collect([identity, roots]).err().unwrap_or_default()
}

/// A file, and what faults call it.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// A field of the configuration, or an option.
    pub name: &'a str,
    /// Where it is.
    pub file: &'a Path,
}

/// Whose certificate a server may show. It must hold the key in any case.
#[derive(Debug, Clone, Copy)]
pub enum Trust<'a> {
    /// Anyone's (`skipverify`).
    Anyone,
    /// One that these vouch for, with the server's name.
    Authorities(Named<'a>),
    /// The first one in this file, and no other; what stands in it does not matter.
    Exactly(Named<'a>),
}

/// Trusts `trust`, and shows `identity` (certificate and key).
pub fn client_that(
    trust: Trust<'_>,
    identity: Option<(Named<'_>, Named<'_>)>,
) -> Result<Arc<ClientConfig>, Vec<Fault>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (mut loaded, mut trusted) = (None, None);
    collect([
        identity.map(|(cert, key)| load_identity(cert, key)).transpose().map(|it| loaded = it),
        Trusted::load(trust, &provider).map(|it| trusted = Some(it)),
    ])?;
    let Some(trusted) = trusted else { return Err(Vec::new()) };
    let verifier = Arc::new(Verifier { provider: provider.clone(), trusted });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| vec![Fault::new(format!("tls: {why}"))])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (loaded, identity) {
        (Some((certs, key)), Some((cert, _))) => builder
            .with_client_auth_cert(certs, key)
            .map_err(|why| vec![Fault::new(format!("{}: {}", cert.name, reason(&why)))])?,
        (None, _) | (_, None) => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Whether a handshake failed for the server's certificate is not the one of [`Trust::Exactly`].
pub fn is_another_certificate(why: &io::Error) -> bool {
    why.get_ref().and_then(|inner| inner.downcast_ref()) == Some(&Error::from(ANOTHER))
}

const ANOTHER: CertificateError = CertificateError::ApplicationVerificationFailure;

fn collect<const N: usize>(results: [Result<(), Vec<Fault>>; N]) -> Result<(), Vec<Fault>> {
    let faults: Vec<_> = results.into_iter().filter_map(Result::err).flatten().collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn reason(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(_) => "keyfile is not the key of this certificate".to_owned(),
        other => other.to_string(),
    }
}

type Loaded = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn load_identity(certfile: Named<'_>, keyfile: Named<'_>) -> Result<Loaded, Vec<Fault>> {
    let (mut certs, mut key) = (None, None);
    collect([
        load(certfile, certificates).map(|it| certs = Some(it)),
        load(keyfile, private_key).map(|it| key = Some(it)),
    ])?;
    certs.zip(key).ok_or_else(Vec::new)
}

struct Roots {
    store: RootCertStore,
    certs: Vec<CertificateDer<'static>>,
}

fn load_roots(file: Named<'_>) -> Result<Roots, Vec<Fault>> {
    load(file, |pem| {
        let certs = certificates(pem)?;
        let mut store = RootCertStore::empty();
        for cert in &certs {
            store.add(cert.clone()).map_err(io::Error::other)?;
        }
        Ok(Roots { store, certs })
    })
}

fn load<T>(
    Named { name, file }: Named<'_>,
    read: impl FnOnce(&mut BufReader<File>) -> io::Result<T>,
) -> Result<T, Vec<Fault>> {
    File::open(file).and_then(|pem| read(&mut BufReader::new(pem))).map_err(|why| {
        vec![Fault::new(format!("could not load {name}: {}: {why}", file.display()))]
    })
}

fn certificates(pem: &mut BufReader<File>) -> io::Result<Vec<CertificateDer<'static>>> {
    let certs = rustls_pemfile::certs(pem).collect::<Result<Vec<_>, _>>()?;
    if certs.is_empty() {
        return Err(io::Error::other("no certificate in this file"));
    }
    Ok(certs)
}

fn private_key(pem: &mut BufReader<File>) -> io::Result<PrivateKeyDer<'static>> {
    rustls_pemfile::private_key(pem)?
        .ok_or_else(|| io::Error::other("no private key in this file (is it encrypted?)"))
}

/// How a server's certificate is verified. Its owner must hold the key in any case.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trusted: Trusted,
}

/// [`Trust`], loaded.
#[derive(Debug)]
enum Trusted {
    Anyone,
    /// The usual verification, and one certificate more: a self-signed one that stands in the file
    /// itself, which OpenSSL and Go accept and webpki alone does not.
    Authorities {
        usual: Arc<WebPkiServerVerifier>,
        pinned: Vec<CertificateDer<'static>>,
    },
    Exactly(CertificateDer<'static>),
}

impl Trusted {
    fn load(trust: Trust<'_>, provider: &Arc<CryptoProvider>) -> Result<Self, Vec<Fault>> {
        match trust {
            Trust::Anyone => Ok(Trusted::Anyone),
            Trust::Authorities(file) => {
                let Roots { store, certs: pinned } = load_roots(file)?;
                WebPkiServerVerifier::builder_with_provider(store.into(), provider.clone())
                    .build()
                    .map(|usual| Trusted::Authorities { usual, pinned })
                    .map_err(|why| vec![Fault::new(format!("{}: {why}", file.name))])
            }
            Trust::Exactly(file) => Ok(Trusted::Exactly(load(file, certificates)?.swap_remove(0))),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (usual, pinned) = match &self.trusted {
            Trusted::Anyone => return Ok(ServerCertVerified::assertion()),
            Trusted::Exactly(wanted) if wanted == end_entity => {
                return Ok(ServerCertVerified::assertion());
            }
            Trusted::Exactly(_) => return Err(ANOTHER.into()),
            Trusted::Authorities { usual, pinned } => (usual, pinned),
        };
        match usual.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // webpki looks at the dates first; what is left is that a CA shows itself.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if pinned.contains(end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
