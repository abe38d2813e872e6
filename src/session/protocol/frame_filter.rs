//! Frames that are known to the byte, and not for the client. Pure.
//!
//! Where a client is subscribed, its old uplink and the next send it the same messages. A mark
//! among them tells where the one is left for the other: what came before the mark is taken from
//! the old one, what comes after it from the next. The mark is a message to a channel of the
//! proxy's own, which passes through replication as all others do; or, where the uplink's user may
//! not have such a channel, the answer to a PING.

use std::collections::VecDeque;

/// What a frame is to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It needs no more than to be kept from the client.
    Noise,
    /// Here the old uplink is left for the next.
    Mark,
    /// A mark that nobody needs any more, and that may not come.
    Stale,
}

/// What the bytes of the present frame are.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Perhaps the frame: they are held.
    Perhaps,
    /// It is another one. These, of what was held before, belong to it.
    Other(Vec<u8>),
    /// It is a message of the proxy's own channel that the proxy did not publish.
    Foreign,
    /// The frame is complete.
    Frame(Meaning),
}

/// Frames that are expected, in this order, with any others between.
#[derive(Debug, Default)]
pub struct FrameFilter {
    expected: VecDeque<(Vec<u8>, Meaning)>,
    /// The beginning of the present frame, which may be the first one.
    held: Vec<u8>,
    /// The present frame may be the first one.
    matching: bool,
    /// What messages of the proxy's own channel begin with.
    own_channel: Vec<u8>,
    /// The present frame is such a message, and not the mark.
    foreign: bool,
    /// Until the mark, everything else is dropped, too.
    pub drops: bool,
}

impl FrameFilter {
    /// Nothing goes by before this mark.
    pub fn until(mark: Vec<u8>) -> Self {
        let mut filter = FrameFilter { drops: true, ..FrameFilter::default() };
        filter.expect(mark, Meaning::Mark);
        filter
    }

    pub fn expect(&mut self, frame: Vec<u8>, meaning: Meaning) {
        self.expected.push_back((frame, meaning));
    }

    /// Messages that begin like this are of the proxy's own channel. A client that may run scripts can publish
    /// there, but nobody else is subscribed to it.
    pub fn keep_back(&mut self, beginning: Vec<u8>) {
        self.own_channel = beginning;
    }

    /// Nothing more is expected.
    pub fn is_over(&self) -> bool {
        self.expected.is_empty()
    }

    /// The mark did not come yet.
    pub fn awaits_mark(&self) -> bool {
        self.expected.iter().any(|(_, meaning)| *meaning == Meaning::Mark)
    }

    /// Something else than the mark did not come yet.
    pub fn awaits_noise(&self) -> bool {
        self.expected.iter().any(|(_, meaning)| *meaning == Meaning::Noise)
    }

    /// The mark may not come; if it does, it is before anything that is expected from now on.
    pub fn forget_mark(&mut self) {
        self.give_up(Meaning::Stale);
    }

    /// The mark, when it comes, means nothing any more.
    pub fn ignore_mark(&mut self) {
        self.give_up(Meaning::Noise);
    }

    fn give_up(&mut self, now: Meaning) {
        // The mark up to which everything is dropped comes in any case.
        let sure = usize::from(self.drops);
        let marks = self.expected.iter_mut().filter(|(_, meaning)| *meaning == Meaning::Mark);
        marks.skip(sure).for_each(|(_, meaning)| *meaning = now);
    }

    /// A frame begins.
    pub fn begin(&mut self) {
        self.matching = !self.expected.is_empty();
        self.foreign = false;
        self.held.clear();
    }

    /// The present frame may still be the one.
    pub fn is_matching(&self) -> bool {
        self.matching
    }

    /// The present frame is not for the client.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }

    /// Whether what has come of the present frame is a message of the proxy's own channel; `None` if that
    /// is not known yet.
    fn looks_foreign(&self, bytes: &[u8]) -> Option<bool> {
        let (held, own) = (&self.held[..], &self.own_channel[..]);
        if own.is_empty() {
            return Some(false);
        }
        let Some(rest) = own.strip_prefix(held) else { return Some(held.starts_with(own)) };
        match rest.strip_prefix(bytes) {
            Some(_) => None,
            None => Some(bytes.starts_with(rest)),
        }
    }

    /// More bytes of the present frame; with `ends`, the last.
    pub fn feed(&mut self, bytes: &[u8], ends: bool) -> Seen {
        let seen = self.candidates().find_map(|(at, frame, meaning)| {
            let rest = frame.strip_prefix(&self.held[..])?.strip_prefix(bytes)?;
            match rest {
                [] if ends => Some((Some(at), meaning)),
                [_, ..] if !ends => Some((None, meaning)),
                _ => None,
            }
        });
        match seen {
            Some((Some(at), meaning)) => {
                // What may have come before it did not.
                self.expected.drain(..=at);
                self.matching = false;
                self.held = Vec::new();
                self.drops &= meaning != Meaning::Mark;
                Seen::Frame(meaning)
            }
            Some((None, _)) => {
                self.held.extend_from_slice(bytes);
                Seen::Perhaps
            }
            None => match self.looks_foreign(bytes) {
                None if !ends => {
                    self.held.extend_from_slice(bytes);
                    Seen::Perhaps
                }
                Some(true) => {
                    (self.matching, self.foreign) = (false, true);
                    self.held = Vec::new();
                    Seen::Foreign
                }
                None | Some(false) => {
                    self.matching = false;
                    Seen::Other(std::mem::take(&mut self.held))
                }
            },
        }
    }

    /// Frames that may come next: those that may not come at all, and the first one that will.
    fn candidates(&self) -> impl Iterator<Item = (usize, &[u8], Meaning)> {
        let sure = self.expected.iter().position(|(_, meaning)| *meaning != Meaning::Stale);
        let count = sure.map_or(self.expected.len(), |at| at + 1);
        let frames = self.expected.iter().take(count).enumerate();
        frames.map(|(at, (frame, meaning))| (at, &frame[..], *meaning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a frame in pieces; gives what is not held in the end, and what the frame was.
    fn feed(filter: &mut FrameFilter, frame: &[u8], split: usize) -> (Vec<u8>, Option<Meaning>) {
        filter.begin();
        let mut out = Vec::new();
        let pieces = [&frame[..split], &frame[split..]];
        let pieces: Vec<&[u8]> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        for (at, piece) in pieces.iter().enumerate() {
            if !filter.is_matching() {
                out.extend_from_slice(piece);
                continue;
            }
            match filter.feed(piece, at + 1 == pieces.len()) {
                Seen::Perhaps => {}
                Seen::Other(held) => {
                    out.extend(held);
                    out.extend_from_slice(piece);
                }
                Seen::Foreign => return (out, None),
                Seen::Frame(meaning) => return (out, Some(meaning)),
            }
        }
        (out, None)
    }

    #[test]
    fn expected_frames_are_found_among_others_at_any_split() {
        let (noise, mark) = (b"*1\r\n:1\r\n".to_vec(), b"*1\r\n:22\r\n".to_vec());
        let others = [&b"*1\r\n:2\r\n"[..], b"*1\r\n:223\r\n", b"+OK\r\n"];
        for split in 0..8 {
            let mut filter = FrameFilter::default();
            filter.expect(noise.clone(), Meaning::Noise);
            filter.expect(mark.clone(), Meaning::Mark);
            for other in others {
                let split = split.min(other.len());
                assert_eq!(feed(&mut filter, other, split), (other.to_vec(), None));
            }
            assert_eq!(feed(&mut filter, &noise, split).1, Some(Meaning::Noise));
            assert!(filter.awaits_mark() && !filter.awaits_noise());
            for other in others {
                let split = split.min(other.len());
                assert_eq!(feed(&mut filter, other, split), (other.to_vec(), None));
            }
            assert_eq!(feed(&mut filter, &mark, split).1, Some(Meaning::Mark));
            assert!(filter.is_over());
        }
    }

    #[test]
    fn what_others_publish_on_the_proxys_own_channel_is_kept_back_at_any_split() {
        let mark = b"*3\r\n$1\r\ns\r\n$2\r\nch\r\n$6\r\nsecret\r\n";
        let forged = b"*3\r\n$1\r\ns\r\n$2\r\nch\r\n$6\r\nforged\r\n";
        let other = b"*3\r\n$1\r\ns\r\n$2\r\ncx\r\n$6\r\nforged\r\n";
        for split in 0..forged.len() {
            let mut filter = FrameFilter::default();
            filter.expect(mark.to_vec(), Meaning::Mark);
            filter.keep_back(b"*3\r\n$1\r\ns\r\n$2\r\nch\r\n".to_vec());
            assert_eq!(feed(&mut filter, forged, split), (Vec::new(), None));
            assert!(filter.is_foreign());
            assert_eq!(feed(&mut filter, other, split), (other.to_vec(), None));
            assert_eq!(feed(&mut filter, mark, split), (Vec::new(), Some(Meaning::Mark)));
        }
    }

    #[test]
    fn a_mark_that_nobody_needs_is_kept_from_the_client_whether_it_comes_or_not() {
        let (mark, noise) = (b"*1\r\n:22\r\n", b"*1\r\n:1\r\n");
        for comes in [false, true] {
            let mut filter = FrameFilter::default();
            filter.expect(mark.to_vec(), Meaning::Mark);
            filter.forget_mark();
            filter.expect(noise.to_vec(), Meaning::Noise);
            assert!(!filter.awaits_mark());
            if comes {
                assert_eq!(feed(&mut filter, mark, 6), (Vec::new(), Some(Meaning::Stale)));
            }
            assert_eq!(feed(&mut filter, b"+OK\r\n", 2), (b"+OK\r\n".to_vec(), None));
            assert_eq!(feed(&mut filter, noise, 6), (Vec::new(), Some(Meaning::Noise)));
            assert!(filter.is_over());
        }
    }
}
