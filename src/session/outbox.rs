//! Bytes that one side of a session could not take at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use crate::transport::Stream;

/// What is still to be written to one stream. Holds no memory while that is nothing.
///
/// The session that fills it stops reading from the other side until it is clear; so it never holds more
/// than what one read brought and what the proxy adds to that.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: BytesMut,
    /// The TLS layer holds records of its own.
    unflushed: bool,
}

impl Outbox {
    /// Everything was handed to the kernel.
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// Bytes that are still to be written.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds without writing.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds before all that waits; nothing of it may have been written.
    pub(super) fn push_ahead(&mut self, bytes: &[u8]) {
        let rest = std::mem::replace(&mut self.bytes, bytes.into());
        self.push(&rest);
    }

    /// Forgets everything: the stream is lost.
    pub(super) fn clear(&mut self) {
        *self = Outbox::default();
    }

    /// Writes `bytes` after what waits already, and keeps what the stream did not take.
    #[inline]
    pub(super) fn send(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> io::Result<()> {
        if self.is_clear() {
            while !bytes.is_empty() {
                match Pin::new(&mut *stream).poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => break,
                    Poll::Ready(Ok(written)) => bytes = &bytes[written..],
                    Poll::Ready(Err(why)) => {
                        // It is known what was not sent.
                        self.push(bytes);
                        return Err(why);
                    }
                    Poll::Pending => break,
                }
            }
            self.unflushed = !matches!(stream, Stream::Plain(_));
        }
        self.push(bytes);
        match self.poll_clear(stream, cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when everything was handed to the kernel.
    #[inline]
    pub(super) fn poll_clear(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.bytes.advance(written),
            }
            self.unflushed = !matches!(stream, Stream::Plain(_));
            if self.bytes.is_empty() {
                self.bytes = BytesMut::new();
            }
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
