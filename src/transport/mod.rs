//! Byte streams: what can be dialled or accepted, plain or TLS, behind one static type.

#[cfg(test)]
pub mod memory;

use std::fmt;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::poll_proceed;
use tokio_rustls::{client, server};

/// A connection as the kernel gives it.
#[derive(Debug)]
pub struct Socket {
    kind: StreamKind,
    /// Bytes may wait in the kernel of which the runtime was told to forget, so that it tells of
    /// what comes after them: see [`Socket::poll_hangup`].
    unread: bool,
}

#[derive(Debug)]
enum StreamKind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection as a session uses it.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(Socket),
    /// A client behind TLS.
    TlsServer(Box<server::TlsStream<Socket>>),
    /// An uplink behind TLS.
    TlsClient(Box<client::TlsStream<Socket>>),
    /// For tests: no socket at all.
    #[cfg(test)]
    Memory(memory::End),
}

/// Who is on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket, where peers have no address.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => addr.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// Sets what every TCP connection of the proxy has: no delay, and probes that find a dead peer
/// within two minutes.
pub fn set_tcp_options(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

/// Sets how long what was sent to a peer may stay without an acknowledgement before it is taken for
/// dead, as one is from which packets do not come any more; probes find that out where nothing is sent.
pub fn set_patience(socket: &SockRef<'_>, patience: Duration) -> io::Result<()> {
    let probes = 3;
    let keepalive = TcpKeepalive::new()
        .with_time(patience / 2)
        .with_interval(patience / (2 * probes))
        .with_retries(probes);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(patience))
}

/// Lets the peer read what was written last, then closes.
///
/// A socket that is closed while unread bytes wait in it sends a reset, which may overtake the
/// reply that tells the peer why.
pub async fn close_gently(mut stream: Stream) {
    const PATIENCE: Duration = Duration::from_secs(1);
    const MOST: u64 = 1024 * 1024;
    let drained = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST), &mut tokio::io::sink()).await
    };
    // Whatever comes of it, the stream is dropped now.
    let _ = tokio::time::timeout(PATIENCE, drained).await;
}

impl From<TcpStream> for Socket {
    fn from(socket: TcpStream) -> Self {
        Socket { kind: StreamKind::Tcp(socket), unread: false }
    }
}

impl From<UnixStream> for Socket {
    fn from(socket: UnixStream) -> Self {
        Socket { kind: StreamKind::Unix(socket), unread: false }
    }
}

impl Socket {
    /// Ready when the peer has closed its direction, though bytes before that are not read yet.
    fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let seen = match &self.kind {
                StreamKind::Tcp(socket) => match ready!(socket.poll_read_ready(cx)) {
                    Ok(()) => socket.ready(Interest::READABLE).now_or_never(),
                    Err(_) => None,
                },
                StreamKind::Unix(socket) => match ready!(socket.poll_read_ready(cx)) {
                    Ok(()) => socket.ready(Interest::READABLE).now_or_never(),
                    Err(_) => None,
                },
            };
            let Some(Ok(seen)) = seen else { return Poll::Ready(()) };
            if seen.is_read_closed() {
                return Poll::Ready(());
            }
            // Bytes came. They stay where they are; what is wanted is the next event.
            self.unread = true;
            let forget = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            // Always that error, which is what makes the runtime forget.
            let _ = match &self.kind {
                StreamKind::Tcp(socket) => socket.try_io(Interest::READABLE, forget),
                StreamKind::Unix(socket) => socket.try_io(Interest::READABLE, forget),
            };
        }
    }

    /// Reads past the runtime, which would wait for an event that has been.
    #[cold]
    fn read_unread(&self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let socket = match &self.kind {
            StreamKind::Tcp(socket) => SockRef::from(socket),
            StreamKind::Unix(socket) => SockRef::from(socket),
        };
        let read = (&*socket).read(buf.initialize_unfilled())?;
        buf.advance(read);
        Ok(())
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread {
            // What the runtime does not see is not for nothing.
            let budget = ready!(poll_proceed(cx));
            budget.made_progress();
            match this.read_unread(buf) {
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => this.unread = false,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                result => return Poll::Ready(result),
            }
        }
        match &mut this.kind {
            StreamKind::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            StreamKind::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            StreamKind::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            StreamKind::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            StreamKind::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            StreamKind::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}

impl Stream {
    /// Ready when the peer is gone, or has said that it will send no more, though what it sent
    /// before is not read. For one who is not reading for now.
    pub fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Plain(socket) => socket.poll_hangup(cx),
            Stream::TlsServer(stream) => stream.get_mut().0.poll_hangup(cx),
            Stream::TlsClient(stream) => stream.get_mut().0.poll_hangup(cx),
            #[cfg(test)]
            Stream::Memory(end) => end.poll_hangup(cx),
        }
    }
}

/// Calls a method of whatever stream this is.
macro_rules! poll {
    ($stream:expr, $method:ident($($arg:expr),*)) => {
        match $stream.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).$method($($arg),*),
            Stream::TlsServer(stream) => Pin::new(stream.as_mut()).$method($($arg),*),
            Stream::TlsClient(stream) => Pin::new(stream.as_mut()).$method($($arg),*),
            #[cfg(test)]
            Stream::Memory(end) => Pin::new(end).$method($($arg),*),
        }
    };
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll!(self, poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll!(self, poll_write(cx, buf))
    }

    /// Needed behind TLS alone, where a write may leave records in the TLS layer.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll!(self, poll_shutdown(cx))
    }
}
