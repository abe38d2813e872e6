//! A client that sends bytes and expects bytes.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use super::{PATIENCE, cert, request};

/// What a connection goes over.
enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Tls(tls) => Some(&tls.sock),
            Stream::Unix(_) => None,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            Stream::Tls(stream) => stream.read(into),
            Stream::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Tls(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.flush(),
            Stream::Tls(stream) => stream.flush(),
            Stream::Unix(stream) => stream.flush(),
        }
    }
}

/// One connection.
pub struct Client {
    stream: Stream,
    pub port: u16,
    /// It is a scripted uplink's, and was not asked for its id yet.
    asks_id: bool,
}

/// What every connection of the proxy for a client asks first.
const ID: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";

impl Client {
    pub fn connect(addr: &str) -> Client {
        Client::over(TcpStream::connect(addr).unwrap())
    }

    /// A connection that exists.
    pub fn over(tcp: TcpStream) -> Client {
        prepare(&tcp);
        let port = tcp.local_addr().unwrap().port();
        Client { stream: Stream::Tcp(tcp), port, asks_id: false }
    }

    /// The other side of one, which answers the question for its id by itself.
    pub fn of_uplink(tcp: TcpStream) -> Client {
        Client { asks_id: true, ..Client::over(tcp) }
    }

    /// Answers that question, if it is what comes first.
    pub fn answer_id(&mut self) {
        let Some(tcp) = self.stream.tcp().filter(|_| self.asks_id) else { return };
        self.asks_id = false;
        let mut peeked = [0; ID.len()];
        while let Ok(seen @ 1..) = tcp.peek(&mut peeked)
            && ID.starts_with(&peeked[..seen])
        {
            if seen == ID.len() {
                self.stream.read_exact(&mut peeked).unwrap();
                self.stream.write_all(b":7\r\n").unwrap();
                break;
            }
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.answer_id();
        loop {
            match self.stream.read(into) {
                // A signal for this process, as of a child that has ended.
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    fn read_exact(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match self.read(into)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => into = &mut into[read..],
            }
        }
        Ok(())
    }

    /// The next request, if the other side is a client; `None` if it closes.
    pub fn try_request(&mut self) -> Option<Vec<String>> {
        let mut line = || {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut byte = [0];
                self.read_exact(&mut byte).ok()?;
                line.push(byte[0]);
            }
            Some(String::from_utf8_lossy(&line).trim_end().to_owned())
        };
        let count: usize = line()?.strip_prefix('*')?.parse().ok()?;
        let mut args = Vec::new();
        for _ in 0..count {
            line()?;
            args.push(line()?);
        }
        Some(args)
    }

    pub fn connect_unix(path: &str) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream: Stream::Unix(stream), port: 0, asks_id: false }
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
        let mut stream = StreamOwned::new(connection.unwrap(), tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let kind = stream.conn.handshake_kind();
        Ok((Client { stream: Stream::Tls(Box::new(stream)), port, asks_id: false }, kind))
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

    /// Sends a request and takes the first line of its reply; `None` if the connection is lost.
    pub fn try_exchange(&mut self, request: &[u8]) -> Option<String> {
        self.try_send(request).ok()?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.try_take(1).ok()?);
        }
        Some(String::from_utf8_lossy(&line).trim_end().to_owned())
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
            match self.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => got.extend_from_slice(&chunk[..read]),
                Err(why) => panic!("{why}: got {:?}, wanted {:?}", show(&got), show(wanted)),
            }
            if !wanted.starts_with(&got) {
                break;
            }
        }
        let at = got.iter().zip(wanted).position(|(one, other)| one != other);
        if let Some(at) = at {
            let (got, wanted) = (&got[at..], &wanted[at..]);
            let some = |bytes: &[u8]| show(&bytes[..bytes.len().min(100)]);
            panic!("from byte {at} on: got {:?}, wanted {:?}", some(got), some(wanted));
        }
        assert_eq!(show(&got), show(wanted));
        self
    }

    /// One line, its end cut off.
    pub fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read_exact(&mut byte).unwrap_or_else(|why| panic!("{why}: {line:?}"));
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }

    /// A whole reply or push, in a form that is the same in RESP2 and RESP3: `OK`, `1`, `text`,
    /// `nil`, `[a, b]`, `>[a, b]` (a push), `-ERR ...`.
    pub fn reply(&mut self) -> String {
        let line = self.line();
        let (kind, rest) = line.split_at(1);
        let mut many = |count: usize| {
            let elements: Vec<String> = (0..count).map(|_| self.reply()).collect();
            format!("[{}]", elements.join(", "))
        };
        match kind {
            "+" | ":" | "," | "#" => rest.to_owned(),
            "_" => "nil".to_owned(),
            "$" | "*" if rest == "-1" => "nil".to_owned(),
            "$" | "=" => {
                let bytes = self.take(rest.parse().unwrap());
                self.take(2);
                let text = String::from_utf8(bytes).unwrap();
                // A verbatim string begins with its format.
                if kind == "=" { text[4..].to_owned() } else { text }
            }
            "*" | "~" => many(rest.parse().unwrap()),
            ">" => format!(">{}", many(rest.parse().unwrap())),
            "%" => many(rest.parse::<usize>().unwrap() * 2),
            _ => line,
        }
    }

    /// Sends a command, its words parted by spaces, and takes a reply.
    pub fn run(&mut self, command: &str) -> String {
        self.command(&command.split(' ').collect::<Vec<_>>()).reply()
    }

    /// Sends a command and takes a reply of one line.
    pub fn ask(&mut self, args: &[&str]) -> String {
        self.command(args).line()
    }

    /// Reads this many bytes, or tells what the kernel said.
    pub fn try_take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.read_exact(&mut bytes).map(|()| bytes)
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
        self.stream.tcp().unwrap().shutdown(Shutdown::Write).unwrap();
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
