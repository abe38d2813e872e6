//! A client that sends bytes and expects bytes.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use super::{PATIENCE, cert, request};

trait Duplex: Read + Write + Send {}

impl<T: Read + Write + Send> Duplex for T {}

/// One connection.
pub struct Client {
    stream: Box<dyn Duplex>,
    tcp: Option<TcpStream>,
    pub port: u16,
}

impl Client {
    pub fn connect(addr: &str) -> Client {
        Client::over(TcpStream::connect(addr).unwrap())
    }

    /// A connection that exists.
    pub fn over(tcp: TcpStream) -> Client {
        prepare(&tcp);
        let port = tcp.local_addr().unwrap().port();
        Client { stream: Box::new(tcp.try_clone().unwrap()), tcp: Some(tcp), port }
    }

    pub fn connect_unix(path: &str) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream: Box::new(stream), tcp: None, port: 0 }
    }

    /// TLS, trusting the test CA; `identity` names a certificate of the client's own.
    pub fn connect_tls(addr: &str, identity: Option<&str>) -> io::Result<Client> {
        Client::connect_with(addr, Arc::new(tls_config(identity))).map(|(client, _)| client)
    }

    /// TLS with a configuration that remembers sessions; tells whether one was resumed.
    pub fn connect_with(
        addr: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<(Client, Option<HandshakeKind>)> {
        let tcp = TcpStream::connect(addr).unwrap();
        prepare(&tcp);
        let port = tcp.local_addr().unwrap().port();
        let connection = ClientConnection::new(config, ServerName::try_from("localhost").unwrap());
        let mut stream = StreamOwned::new(connection.unwrap(), tcp.try_clone().unwrap());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let kind = stream.conn.handshake_kind();
        Ok((Client { stream: Box::new(stream), tcp: Some(tcp), port }, kind))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
        self
    }

    /// Sends, and tells what the kernel said.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn command(&mut self, args: &[&str]) -> &mut Self {
        self.send(request(args))
    }

    /// Exactly these bytes come next.
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let wanted = bytes.as_ref();
        let mut got = Vec::new();
        while got.len() < wanted.len() {
            let mut chunk = vec![0; wanted.len() - got.len()];
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => got.extend_from_slice(&chunk[..read]),
                Err(why) => panic!("{why}: got {:?}, wanted {:?}", show(&got), show(wanted)),
            }
            if !wanted.starts_with(&got) {
                break;
            }
        }
        assert_eq!(show(&got), show(wanted));
        self
    }

    /// One line, its end cut off.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap_or_else(|why| panic!("{why}: {line:?}"));
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }

    /// Sends a command and takes a reply of one line.
    pub fn ask(&mut self, args: &[&str]) -> String {
        self.command(args).line()
    }

    /// Reads this many bytes, or tells what the kernel said.
    pub fn try_take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).map(|()| bytes)
    }

    /// Reads this many bytes.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        self.try_take(count).unwrap()
    }

    /// What comes until the proxy closes; a reset is a close too.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(why)
                if matches!(
                    why.kind(),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
                ) => {}
            Err(why) => panic!("{why}, after {:?}", show(&bytes)),
        }
        show(&bytes)
    }

    /// What comes until the proxy closes, or why that is not in order.
    pub fn try_rest(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).map(|_| bytes)
    }

    /// The proxy closes without another byte.
    pub fn expect_closed(&mut self) {
        assert_eq!(self.rest(), "");
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&mut self) -> &mut Self {
        self.tcp.as_ref().unwrap().shutdown(Shutdown::Write).unwrap();
        self
    }
}

fn prepare(tcp: &TcpStream) {
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_nodelay(true).unwrap();
}

/// Trusts the test CA.
pub fn tls_config(identity: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in certificates("ca.pem") {
        roots.add(root).unwrap();
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    match identity {
        None => config.with_no_client_auth(),
        Some(name) => {
            let key = private_key(&format!("{name}.key"));
            config.with_client_auth_cert(certificates(&format!("{name}.pem")), key).unwrap()
        }
    }
}

pub(super) fn certificates(name: &str) -> Vec<CertificateDer<'static>> {
    let pem = fs::read(cert(name)).unwrap();
    rustls_pemfile::certs(&mut BufReader::new(&pem[..])).map(Result::unwrap).collect()
}

pub(super) fn private_key(name: &str) -> PrivateKeyDer<'static> {
    let pem = fs::read(cert(name)).unwrap();
    rustls_pemfile::private_key(&mut BufReader::new(&pem[..])).unwrap().unwrap()
}

fn show(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() > 2000 { format!("{} bytes", text.len()) } else { text.into_owned() }
}
