//! Accepting: bind, accept, tell errors apart. It knows neither RESP nor the gate.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Address;
use crate::log::RateLimit;
use crate::transport::{Peer, Socket, set_tcp_options};

/// Enough for ten thousand clients that come back at once; the kernel cuts it to `somaxconn`.
const BACKLOG: i32 = 16 * 1024;
/// When file descriptors or memory have run out.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Why a listener cannot be, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{block}.addr: cannot listen on {addr}: {why}")]
pub struct Error {
    block: &'static str,
    addr: String,
    why: io::Error,
}

/// A bound, listening socket.
#[derive(Debug)]
pub struct Listener {
    block: &'static str,
    kind: SocketKind,
    addr: String,
    id: SocketId,
}

/// What tells one listening socket from another, however its address is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketId {
    /// Over TCP.
    Tcp(SocketAddr),
    /// The device and inode of a unix socket's file.
    Unix(u64, u64),
}

/// What [`bind`] gives for each address.
#[derive(Debug)]
pub enum Bound {
    /// A socket that listens already.
    Held(SocketId),
    /// Another one.
    New(Listener),
}

#[derive(Debug)]
enum SocketKind {
    Tcp(TcpListener),
    Unix {
        /// Removed while the socket still listens: one who finds it must not take it for stale.
        _file: SocketFile,
        listener: UnixListener,
    },
}

/// A connection that was accepted, and is not yet part of a runtime.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP.
    Tcp(std::net::TcpStream, SocketAddr),
    /// Over a unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    /// Who it is.
    pub fn peer(&self) -> Peer {
        match self {
            Accepted::Tcp(_, addr) => Peer::Tcp(*addr),
            Accepted::Unix(_) => Peer::Unix,
        }
    }

    /// Makes it part of the present runtime.
    pub fn into_socket(self) -> io::Result<Socket> {
        Ok(match self {
            Accepted::Tcp(socket, _) => TcpStream::from_std(socket)?.into(),
            Accepted::Unix(socket) => UnixStream::from_std(socket)?.into(),
        })
    }
}

/// Binds every address that `addr`, that of `block`, stands for, but those that are `held`
/// already. Call it inside a runtime.
pub async fn bind(
    block: &'static str,
    addr: &Address,
    held: &[SocketId],
) -> Result<Vec<Bound>, Error> {
    let failed = |why| Error { block, addr: addr.to_string(), why };
    match addr {
        Address::Sought(_) => Err(failed(io::ErrorKind::InvalidInput.into())),
        Address::Unix(path) => {
            let id =
                path.symlink_metadata().ok().map(|meta| SocketId::Unix(meta.dev(), meta.ino()));
            Ok(vec![match id.filter(|id| held.contains(id)) {
                Some(id) => Bound::Held(id),
                None => Bound::New(bind_unix(block, path).map_err(failed)?),
            }])
        }
        Address::Tcp { host, port } => {
            let addrs = resolve(host, *port).await.map_err(failed)?;
            bind_tcp(block, &addrs, held).map_err(failed)
        }
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        // Every interface: IPv6 with IPv4 in it, or IPv4 alone where there is no IPv6.
        return Ok(vec![([0; 16], port).into(), ([0; 4], port).into()]);
    }
    let mut addrs: Vec<_> = lookup_host((host, port)).await?.collect();
    // A port that the kernel chooses would be another one on each address.
    addrs.truncate(if port == 0 { 1 } else { usize::MAX });
    Ok(addrs)
}

/// A name may have addresses that this machine lacks (IPv6 turned off): one must do.
fn bind_tcp(
    block: &'static str,
    addrs: &[SocketAddr],
    held: &[SocketId],
) -> io::Result<Vec<Bound>> {
    let mut listeners: Vec<Bound> = Vec::new();
    let mut lacking = io::Error::other("the name has no address");
    for &addr in addrs {
        let wildcard_done = addr.ip().is_unspecified() && !listeners.is_empty();
        if wildcard_done {
            break;
        }
        if held.contains(&SocketId::Tcp(addr)) {
            listeners.push(Bound::Held(SocketId::Tcp(addr)));
            continue;
        }
        match bind_one(block, addr) {
            Ok(listener) => listeners.push(Bound::New(listener)),
            Err(why) if is_lacking(&why) => lacking = why,
            Err(why) => return Err(why),
        }
    }
    if listeners.is_empty() { Err(lacking) } else { Ok(listeners) }
}

fn is_lacking(why: &io::Error) -> bool {
    matches!(Errno::from_io_error(why), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

fn bind_one(block: &'static str, addr: SocketAddr) -> io::Result<Listener> {
    let socket = RawSocket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&addr.into())?;
    start(&socket)?;
    let listener = TcpListener::from_std(socket.into())?;
    let addr = listener.local_addr()?;
    let id = SocketId::Tcp(addr);
    Ok(Listener { block, kind: SocketKind::Tcp(listener), addr: addr.to_string(), id })
}

fn bind_unix(block: &'static str, path: &Path) -> io::Result<Listener> {
    clear_stale(path)?;
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    start(&socket)?;
    let id = SocketId::Unix(file.id.0, file.id.1);
    let kind = SocketKind::Unix { listener: UnixListener::from_std(socket.into())?, _file: file };
    Ok(Listener { block, kind, addr: path.display().to_string(), id })
}

fn start(socket: &RawSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)
}

/// Removes a socket that nobody listens on any more; never anything else.
fn clear_stale(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(why),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::other("the file exists and is no socket"));
        }
        Ok(_) => {}
    }
    let probe = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    // A live listener with a full backlog must not be waited for.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            info!(path = %path.display(), "removing a stale socket");
            std::fs::remove_file(path)
        }
        Err(why) if why.kind() != io::ErrorKind::WouldBlock => Err(why),
        _ => Err(io::Error::other("another process listens on this socket")),
    }
}

/// A unix socket's file, removed in the end if it is still the one that was made here.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let meta = path.symlink_metadata()?;
        Ok(SocketFile { path: path.to_owned(), id: (meta.dev(), meta.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let meta = self.path.symlink_metadata();
        if meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id) {
            // Nothing depends on it: the next start removes a stale one.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What is to be done about an error of accept.
#[derive(Debug, PartialEq, Eq)]
enum Severity {
    /// That one connection is gone.
    Passing,
    /// Wait for file descriptors or memory.
    Exhausted,
    Fatal,
}

fn severity(why: &io::Error) -> Severity {
    match Errno::from_io_error(why) {
        Some(
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NONET,
        ) => Severity::Passing,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Severity::Exhausted,
        _ => Severity::Fatal,
    }
}

impl Listener {
    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Which one it is.
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// Accepts until `closed`, and then those who have connected by then; or until an error that
    /// no waiting can mend. Cancel safe.
    pub async fn run(
        self,
        closed: CancellationToken,
        mut serve: impl FnMut(Accepted),
    ) -> Result<(), Error> {
        static EXHAUSTED: RateLimit = RateLimit::one_a_second();
        let mut back_off = BACK_OFF.0;
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = self.accept() => accepted,
                () = closed.cancelled() => {
                    self.drain(serve);
                    return Ok(());
                }
            };
            let why = match accepted {
                Ok(accepted) => {
                    back_off = BACK_OFF.0;
                    serve(accepted);
                    continue;
                }
                Err(why) => why,
            };
            match severity(&why) {
                Severity::Passing => {}
                Severity::Exhausted => {
                    if let Some(suppressed) = EXHAUSTED.pass() {
                        warn!(addr = self.addr, %why, suppressed, "accept failed; retrying");
                    }
                    // A task that wants the listener closed does not wait for descriptors.
                    let _ = timeout(back_off, closed.cancelled()).await;
                    if closed.is_cancelled() {
                        return Ok(());
                    }
                    back_off = (back_off * 2).min(BACK_OFF.1);
                }
                Severity::Fatal => return Err(Error { block: self.block, addr: self.addr, why }),
            }
        }
    }

    /// Takes in those who have connected, past the runtime, which hears of them later.
    fn drain(self, mut serve: impl FnMut(Accepted)) {
        /// More than any backlog.
        const MOST: usize = 64 * 1024;
        match self.kind {
            SocketKind::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                for (socket, addr) in (0..MOST).map_while(|_| listener.accept().ok()) {
                    let _ = set_tcp_options(&SockRef::from(&socket));
                    if socket.set_nonblocking(true).is_ok() {
                        serve(Accepted::Tcp(socket, addr));
                    }
                }
            }
            SocketKind::Unix { listener, _file } => {
                let Ok(listener) = listener.into_std() else { return };
                for (socket, _) in (0..MOST).map_while(|_| listener.accept().ok()) {
                    if socket.set_nonblocking(true).is_ok() {
                        serve(Accepted::Unix(socket));
                    }
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        // The runtime of the listener lets go of the socket: a worker's will serve it.
        Ok(match &self.kind {
            SocketKind::Tcp(listener) => {
                let (socket, addr) = listener.accept().await?;
                // Fails only on a connection that is gone already, as reading will find.
                let _ = set_tcp_options(&SockRef::from(&socket));
                Accepted::Tcp(socket.into_std()?, addr)
            }
            SocketKind::Unix { listener, .. } => {
                Accepted::Unix(listener.accept().await?.0.into_std()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_told_apart() {
        for (errno, wanted) in [
            (Errno::CONNABORTED, Severity::Passing),
            (Errno::MFILE, Severity::Exhausted),
            (Errno::NFILE, Severity::Exhausted),
            (Errno::NOBUFS, Severity::Exhausted),
            (Errno::NOMEM, Severity::Exhausted),
            (Errno::BADF, Severity::Fatal),
            (Errno::INVAL, Severity::Fatal),
        ] {
            assert_eq!(severity(&errno.into()), wanted, "{errno}");
        }
    }
}
