//! A scripted uplink: it says what a test says, when the test says it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;

use super::client::{certificates, private_key};
use super::{Client, LOOK, PATIENCE, TellsToEnd};

/// It answers the PING of the proxy's start by itself, and leaves the rest to the test.
pub struct FakeUplink {
    listener: TcpListener,
}

impl FakeUplink {
    pub fn bind() -> FakeUplink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // A connection that never comes fails the test.
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        FakeUplink { listener }
    }

    pub fn addr(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// The next connection of the proxy; both sides are one kind of client here.
    pub fn accept(&self) -> Client {
        let accepted = self.listener.accept();
        let (stream, _) = accepted.unwrap_or_else(|why| panic!("nobody connected: {why}"));
        Client::of_uplink(stream)
    }

    /// A reload verifies it, and connects to it with a connection of its own, which may do nothing.
    pub fn accept_reload(&self) {
        let mut verified = self.accept();
        verified.expect("*1\r\n$4\r\nPING\r\n");
        self.go_on_with_reload(verified);
    }

    /// As [`FakeUplink::accept_reload`], from where its PING was read. The proxy goes on to watch the uplink over
    /// this connection.
    pub fn go_on_with_reload(&self, mut verified: Client) {
        verified.send("+PONG\r\n");
        // What commands it has; and who it is.
        refuse(verified, "-NOPERM\r\n");
        self.accept_side();
    }

    /// The next connection is a reload's own, and may do nothing.
    pub fn accept_side(&self) {
        refuse(self.accept(), "-NOPERM\r\n");
    }

    /// Runs `then` while further looks of a reload are answered in the background. There is one if
    /// clients were held for long: the new uplink may have died meanwhile. Whoever asks for something
    /// else is not answered.
    pub fn answering_looks<T>(&self, then: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        self.listener.set_nonblocking(true).unwrap();
        let outcome = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut connected = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let Ok((stream, _)) = self.listener.accept() else {
                        std::thread::sleep(LOOK);
                        continue;
                    };
                    let mut client = Client::over(stream);
                    if client.try_request().is_some_and(|asked| asked == ["PING"]) {
                        let _ = client.try_send(b"+PONG\r\n");
                    }
                    connected.push(client);
                }
            });
            let _over = TellsToEnd(&over);
            then()
        });
        self.listener.set_nonblocking(false).unwrap();
        outcome
    }

    /// Answers a start's PING in the background, while the caller starts the proxy, which goes on to watch the
    /// uplink over this connection.
    pub fn expect_start<T>(&self, start: impl FnOnce() -> T) -> T {
        self.expect_start_with(&[], start)
    }

    /// As [`FakeUplink::expect_start`], where the proxy has to log in with this request.
    pub fn expect_start_with<T>(&self, login: &[u8], start: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut verified = self.accept();
                if !login.is_empty() {
                    verified.expect(login).send("+OK\r\n");
                }
                verified.expect("*1\r\n$4\r\nPING\r\n").send("+PONG\r\n");
                // Whether CLIENT UNBLOCK is allowed; and who it is.
                refuse(verified, ":0\r\n");
            });
            start()
        })
    }

    /// Accepts one TLS connection with this certificate, and answers one PING on it. With
    /// `client_ca`, the proxy must show a certificate. `Err` is the handshake's failure.
    pub fn serve_tls(&self, identity: &str, client_ca: Option<&str>) -> Result<(), String> {
        self.serve_ping(tls_server(identity, client_ca)).map(|_| ())
    }

    /// As [`FakeUplink::serve_tls`]; tells whether a session was resumed.
    pub fn serve_ping(&self, config: Arc<ServerConfig>) -> Result<Option<HandshakeKind>, String> {
        let (stream, _) = self.listener.accept().map_err(|why| why.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        // A connection for a client is asked for its id before.
        let mut asked = Vec::new();
        while !asked.ends_with(b"PING\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(|why| why.to_string())?;
            asked.push(byte[0]);
        }
        let answer: &[u8] = if asked.len() > 14 { b":7\r\n+PONG\r\n" } else { b"+PONG\r\n" };
        stream.write_all(answer).map_err(|why| why.to_string())?;
        let kind = stream.conn.handshake_kind();
        // It stays open until the proxy closes it: that may go on to watch the uplink over it.
        std::thread::spawn(move || while matches!(stream.read(&mut [0; 512]), Ok(1..)) {});
        Ok(kind)
    }
}

/// Answers everything with `answer`, in the background, until the connection is closed.
fn refuse(mut client: Client, answer: &'static str) {
    std::thread::spawn(move || {
        while client.try_request().is_some() && client.try_send(answer.as_bytes()).is_ok() {}
    });
}

/// Shows this certificate; with `client_ca`, asks for one.
pub fn tls_server(identity: &str, client_ca: Option<&str>) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificates(ca).remove(0)).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = private_key(&format!("{identity}.key"));
    let certs = certificates(&format!("{identity}.pem"));
    Arc::new(builder.with_single_cert(certs, key).unwrap())
}
