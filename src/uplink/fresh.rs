//! A connection that no client uses yet: it is told a state, or asked on the proxy's own behalf.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::Error;
use super::frames::Frames;
use super::script::{Id, Script};
use crate::transport::Stream;

/// A connection that no client uses yet.
#[derive(Debug)]
pub struct Fresh {
    /// The connection.
    pub stream: Stream,
    /// The connection's id there.
    pub id: Id,
    /// What came after the last answer.
    pub early: Vec<u8>,
}

impl Fresh {
    pub(super) fn new(stream: Stream) -> Self {
        Fresh { stream, id: Id::Unasked, early: Vec::new() }
    }

    /// Sends a script, and checks the answers. What comes unasked meanwhile is passed over.
    pub async fn tell(&mut self, script: Script) -> Result<(), Error> {
        self.tell_and_hear(script, |_| ()).await
    }

    /// Sends a script, and checks the answers. What comes unasked meanwhile is kept as what came early.
    pub async fn tell_and_keep(&mut self, script: Script) -> Result<(), Error> {
        // What came early may end in the middle of a frame, and is heard first.
        let mut kept = Vec::new();
        let mut is_whole = true;
        let told = self.tell_and_hear(script, |frame| {
            is_whole &= !frame.is_empty();
            kept.extend_from_slice(frame);
        });
        told.await?;
        if !is_whole {
            return Err(Error::Lost(io::Error::other("a message that is too long to be kept")));
        }
        kept.append(&mut self.early);
        self.early = kept;
        Ok(())
    }

    async fn tell_and_hear(
        &mut self,
        mut script: Script,
        mut unasked: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let mut frames = Frames::new(std::mem::take(&mut self.early));
        let talk = async {
            let sent = self.send(&script.take_bytes()).await;
            while !script.is_over() {
                if let Some(kind) = frames.next()? {
                    if !script.hear(frames.heard(kind)) {
                        unasked(frames.frame());
                    }
                } else if frames.read(&mut self.stream).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            // A server that closes before it has read everything may have said why.
            sent
        };
        let lost = talk.await.err();
        self.id = script.id().unwrap_or(self.id);
        self.early = frames.rest();
        match (lost, script.last_error(), &self.early[..]) {
            (Some(_), Some(error), _) => Err(Error::Refused(error.to_owned())),
            (Some(why), None, _) => Err(Error::Lost(why)),
            _ if script.has_failed() => script.failure().map_or(Ok(()), Err),
            // What may come unasked are messages, pushes, and a monitor's lines.
            (None, _, [] | [b'*' | b'>' | b'+', ..]) => Ok(()),
            (None, ..) => Err(Error::Lost(io::Error::other("more than the answer"))),
        }
    }

    /// Sends requests, and gives the whole reply to each.
    pub async fn ask(&mut self, requests: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
        self.ask_and_hear(requests, |_| ()).await
    }

    /// As [`Fresh::ask`]; `heard` is given each push that comes meanwhile.
    pub async fn ask_and_hear(
        &mut self,
        requests: &[Vec<u8>],
        mut heard: impl FnMut(&[u8]),
    ) -> io::Result<Vec<Vec<u8>>> {
        self.send(&requests.concat()).await?;
        let is_reply = |frame: &[u8]| {
            let is_push = frame.first() == Some(&b'>');
            if is_push {
                heard(frame);
            }
            !is_push
        };
        self.frames(requests.len(), is_reply).await
    }

    /// Waits for a frame that is wanted, and passes over all others.
    pub async fn await_frame(&mut self, wanted: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        self.frames(1, wanted).await.map(drop)
    }

    /// The next few frames of those that are wanted.
    async fn frames(
        &mut self,
        count: usize,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Frames::new(std::mem::take(&mut self.early));
        let mut found = Vec::new();
        while found.len() < count {
            if frames.next()?.is_some() {
                let frame = frames.frame();
                if wanted(frame) {
                    found.push(frame.to_vec());
                }
            } else if frames.read(&mut self.stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.early = frames.rest();
        Ok(found)
    }

    /// Completes when the server has closed the connection. What comes before that is kept as what came early.
    /// Cancel safe.
    pub async fn ended(&mut self) {
        let mut chunk = [0; 512];
        while let Ok(read @ 1..) = self.stream.read(&mut chunk).await {
            self.early.extend_from_slice(&chunk[..read]);
        }
    }

    /// Sends requests whose replies nobody waits for.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }
}
