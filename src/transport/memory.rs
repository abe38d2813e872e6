//! Connections within a test: two ends, and a network of listeners for one thread.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    /// How many bytes it takes before the writer must wait.
    room: usize,
    /// The writer has said that no more comes.
    is_closed: bool,
    /// Nobody reads any more.
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
}

/// A connection of which each direction takes so many bytes at a time.
pub fn pair(room: usize) -> (End, End) {
    let pipe = || Arc::new(Mutex::new(Pipe { room, ..Pipe::default() }));
    let (one, other) = (pipe(), pipe());
    let near = End { incoming: one.clone(), outgoing: other.clone() };
    (near, End { incoming: other, outgoing: one })
}

fn lock(pipe: &Mutex<Pipe>) -> MutexGuard<'_, Pipe> {
    pipe.lock().expect("no panic")
}

impl End {
    /// Writes what there is room for; gives how much that was, or an error if nobody reads.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = lock(&self.outgoing);
        if pipe.is_broken || pipe.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let len = bytes.len().min(pipe.room - pipe.bytes.len());
        pipe.bytes.extend(&bytes[..len]);
        if let Some(reader) = pipe.reader.take_if(|_| len > 0) {
            reader.wake();
        }
        Ok(len)
    }

    /// Takes all that has come; `None` if no more will.
    pub fn read(&self) -> Option<Vec<u8>> {
        let mut pipe = lock(&self.incoming);
        if pipe.bytes.is_empty() && pipe.is_closed {
            return None;
        }
        let has_room = !pipe.bytes.is_empty();
        if let Some(writer) = pipe.writer.take_if(|_| has_room) {
            writer.wake();
        }
        Some(pipe.bytes.drain(..).collect())
    }

    /// Says that no more comes.
    pub fn close(&self) {
        let mut pipe = lock(&self.outgoing);
        pipe.is_closed = true;
        pipe.wake();
    }

    pub(super) fn poll_hangup(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pipe = lock(&self.incoming);
        if pipe.is_closed {
            return Poll::Ready(());
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
        let mut pipe = lock(&self.incoming);
        pipe.is_broken = true;
        pipe.wake();
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.incoming);
        if pipe.bytes.is_empty() && !pipe.is_closed {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = buf.remaining().min(pipe.bytes.len());
        let bytes: Vec<u8> = pipe.bytes.drain(..len).collect();
        buf.put_slice(&bytes);
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.write(bytes) {
            Ok(0) if !bytes.is_empty() => {
                lock(&self.outgoing).writer = Some(cx.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

/// Takes the far end of a connection that was dialled, or refuses it.
pub type Accept = Box<dyn Fn(End) -> io::Result<()>>;

thread_local! {
    static NETWORK: RefCell<HashMap<String, (usize, Accept)>> = RefCell::default();
}

/// From now on, who dials this address on this thread is accepted by this, with a connection of which each
/// direction takes so many bytes at a time.
pub fn listen(addr: &str, room: usize, accept: Accept) {
    NETWORK.with_borrow_mut(|network| network.insert(addr.to_owned(), (room, accept)));
}

/// Dials; `None` if the address is not one of a test.
pub fn dial(addr: &str) -> Option<io::Result<End>> {
    NETWORK.with_borrow(|network| {
        let (room, accept) = network.get(addr)?;
        let (near, far) = pair(*room);
        Some(accept(far).map(|()| near))
    })
}
