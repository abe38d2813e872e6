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
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use crate::config::{Fault, Identity, ListenTls, UplinkTls};

/// What is shown to clients of `block`, and asked of them.
pub fn server(block: &str, tls: &ListenTls) -> Result<Arc<ServerConfig>, Vec<Fault>> {
    let (mut identity, mut roots) = (None, None);
    collect([
        load_identity(block, &tls.identity).map(|it| identity = Some(it)),
        load_roots(block, tls.cacertfile.as_deref()).map(|it| roots = it),
    ])?;
    let Some((certs, key)) = identity else { return Err(Vec::new()) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let refused = |why: String| vec![Fault::new(format!("{block}.certfile: {why}"))];
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|why| refused(why.to_string()))?;
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.store.into(), provider)
                    .build()
                    .map_err(|why| vec![Fault::new(format!("{block}.cacertfile: {why}"))])?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(certs, key).map_err(|why| refused(reason(&why)))?;
    config.ticketer =
        aws_lc_rs::Ticketer::new().map_err(|why| refused(format!("no session tickets: {why}")))?;
    Ok(Arc::new(config))
}

/// How the uplink is verified.
pub fn client(tls: &UplinkTls) -> Result<Arc<ClientConfig>, Vec<Fault>> {
    let (mut identity, mut roots) = (None, None);
    let load = |identity| load_identity("uplink", identity);
    collect([
        tls.identity.as_ref().map(load).transpose().map(|it| identity = it),
        load_roots("uplink", tls.cacertfile.as_deref()).map(|it| roots = it),
    ])?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let refused = |field: &str, why: String| vec![Fault::new(format!("uplink.{field}: {why}"))];
    let trusted = roots
        .map(|roots| Trusted::new(roots, provider.clone()))
        .transpose()
        .map_err(|why| refused("cacertfile", why.to_string()))?;
    let verifier = Arc::new(Verifier { provider: provider.clone(), trusted });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|why| refused("tls", why.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match identity {
        Some((certs, key)) => builder
            .with_client_auth_cert(certs, key)
            .map_err(|why| refused("certfile", reason(&why)))?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

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

fn load_identity(block: &str, identity: &Identity) -> Result<Loaded, Vec<Fault>> {
    let (mut certs, mut key) = (None, None);
    collect([
        load(block, "certfile", &identity.certfile, certificates).map(|it| certs = Some(it)),
        load(block, "keyfile", &identity.keyfile, private_key).map(|it| key = Some(it)),
    ])?;
    certs.zip(key).ok_or_else(Vec::new)
}

struct Roots {
    store: RootCertStore,
    certs: Vec<CertificateDer<'static>>,
}

fn load_roots(block: &str, file: Option<&Path>) -> Result<Option<Roots>, Vec<Fault>> {
    let read = |pem: &mut BufReader<File>| {
        let certs = certificates(pem)?;
        let mut store = RootCertStore::empty();
        for cert in &certs {
            store.add(cert.clone()).map_err(io::Error::other)?;
        }
        Ok(Roots { store, certs })
    };
    file.map(|file| load(block, "cacertfile", file, read)).transpose()
}

fn load<T>(
    block: &str,
    field: &str,
    file: &Path,
    read: impl FnOnce(&mut BufReader<File>) -> io::Result<T>,
) -> Result<T, Vec<Fault>> {
    File::open(file).and_then(|pem| read(&mut BufReader::new(pem))).map_err(|why| {
        let file = file.display();
        vec![Fault::new(format!("could not load {block}.{field}: {file}: {why}"))]
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

/// How an uplink's certificate is verified. Its owner must hold the key in any case.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// `None`: any certificate will do (`skipverify`).
    trusted: Option<Trusted>,
}

/// The usual verification, and one certificate more: a self-signed one that stands in
/// `cacertfile` itself, which OpenSSL and Go accept and webpki alone does not.
#[derive(Debug)]
struct Trusted {
    usual: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn new(roots: Roots, provider: Arc<CryptoProvider>) -> Result<Self, VerifierBuilderError> {
        let usual =
            WebPkiServerVerifier::builder_with_provider(roots.store.into(), provider).build()?;
        Ok(Trusted { usual, pinned: roots.certs })
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
        let Some(Trusted { usual, pinned }) = &self.trusted else {
            return Ok(ServerCertVerified::assertion());
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
