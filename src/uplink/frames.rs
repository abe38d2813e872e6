//! What a connection sends that no client gets, frame by frame.

use std::io;
use std::ops::Range;

use tokio::io::AsyncReadExt;

use super::script::Heard;
use crate::resp::reply;
use crate::transport::Stream;

/// The frames that a connection sends, where no client gets them.
pub(super) struct Frames {
    scanner: reply::Scanner,
    read: Vec<u8>,
    /// The present frame, or the last one if that is complete, as far as it was looked at.
    frame: Range<usize>,
    complete: bool,
    /// The beginning of the present frame was given up, for the frame is too long.
    cut: bool,
}

impl Frames {
    const CHUNK: usize = 16 * 1024;
    /// The longest frame that is kept whole. Of a longer one, which may be anybody's message, only the end
    /// is kept.
    const KEPT: usize = 1024 * 1024;

    pub(super) fn new(read: Vec<u8>) -> Self {
        let mut scanner = reply::Scanner::default();
        scanner.set_peek(true);
        Frames { scanner, read, frame: 0..0, complete: true, cut: false }
    }

    pub(super) async fn read(&mut self, stream: &mut Stream) -> io::Result<usize> {
        self.read.drain(..self.frame.start);
        self.frame = 0..self.frame.len();
        if self.frame.len() > Frames::KEPT {
            self.read.clear();
            (self.frame, self.cut) = (0..0, true);
        }
        self.read.reserve(Frames::CHUNK);
        stream.read_buf(&mut self.read).await
    }

    /// Goes on to the end of a frame, and gives its type; `None` if more must be read for that.
    pub(super) fn next(&mut self) -> io::Result<Option<u8>> {
        if self.complete {
            self.frame.start = self.frame.end;
            (self.complete, self.cut) = (false, false);
        }
        let step = self.scanner.next(&self.read, &mut self.frame.end).map_err(io::Error::other)?;
        let reply::Step::End { kind } = step else { return Ok(None) };
        self.complete = true;
        Ok(Some(kind))
    }

    /// The frame that is complete; nothing if it was too long.
    pub(super) fn frame(&self) -> &[u8] {
        if self.cut { &[] } else { &self.read[self.frame.clone()] }
    }

    pub(super) fn heard(&self, kind: u8) -> Heard<'_> {
        let line = self.frame().split(|byte| *byte == b'\r').next().unwrap_or_default();
        let (text, number) = (self.scanner.first_text(), self.scanner.last_number());
        Heard { kind, text, number, line }
    }

    /// What was read after the last frame that is complete.
    pub(super) fn rest(mut self) -> Vec<u8> {
        let from = if self.complete { self.frame.end } else { self.frame.start };
        self.read.split_off(from)
    }
}
