//! `log_messages`: what goes by, for the log; secrets removed, each cut to a sane length.

use tracing::info;

use crate::redact::REMOVED;
use crate::transport::Peer;

/// Bytes of one request or reply that are kept.
const KEPT: usize = 512;

/// What of a request is not for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    None,
    /// All but the command's name.
    Arguments,
    All,
}

/// One direction's present frame.
#[derive(Debug)]
pub(super) struct Tap {
    head: Vec<u8>,
    len: usize,
    /// The frame's beginning went by unseen, so nobody knows which of the rest is a secret.
    beheaded: bool,
}

impl Tap {
    /// Possibly in the middle of a frame.
    pub(super) fn begin(in_frame: bool) -> Self {
        Tap { head: Vec::new(), len: 0, beheaded: in_frame }
    }

    /// More bytes of the present frame.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.len += bytes.len();
    }

    /// The present frame was a request.
    pub(super) fn request(&mut self, client: Peer, secrecy: Secrecy) {
        let secrecy = if self.beheaded { Secrecy::All } else { secrecy };
        let request = arguments(&self.head, self.len > self.head.len(), secrecy);
        info!(target: "redis_proxy::messages", %client, bytes = self.len, request);
        self.restart();
    }

    /// The present frame was a reply.
    pub(super) fn reply(&mut self, client: Peer, secret: bool) {
        let reply = if secret || self.beheaded {
            REMOVED.to_owned()
        } else {
            let more = if self.len > self.head.len() { "..." } else { "" };
            format!("{}{more}", self.head.escape_ascii())
        };
        info!(target: "redis_proxy::messages", %client, bytes = self.len, reply);
        self.restart();
    }

    /// The bytes so far were no frame of their own.
    pub(super) fn restart(&mut self) {
        self.head.clear();
        self.len = 0;
        self.beheaded = false;
    }
}

/// The frames of both directions.
pub(super) struct Taps {
    pub(super) up: Tap,
    pub(super) down: Tap,
}

/// The arguments of the beginning of a request, as MONITOR shows them.
fn arguments(mut frame: &[u8], cut: bool, secrecy: Secrecy) -> String {
    let mut text = String::new();
    if secrecy == Secrecy::All {
        return REMOVED.to_owned();
    }
    while let Some(end) = memchr::memchr(b'\n', frame) {
        let (line, rest) = frame.split_at(end + 1);
        frame = rest;
        let len = line.strip_prefix(b"$").and_then(|len| std::str::from_utf8(len).ok());
        let Some(len) = len.and_then(|len| len.trim_end().parse::<usize>().ok()) else { continue };
        if !text.is_empty() {
            text.push(' ');
            if secrecy == Secrecy::Arguments {
                return text + REMOVED;
            }
        }
        let arg = &frame[..len.min(frame.len())];
        text.push_str(&format!("\"{}\"", arg.escape_ascii()));
        frame = frame.get(len + 2..).unwrap_or_default();
    }
    if cut { text + "..." } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_monitor_shows_them() {
        let frame = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\n\"\r\n";
        assert_eq!(arguments(frame, false, Secrecy::None), r#""SET" "k" "a\r\n\"""#);
        assert_eq!(arguments(&frame[..20], true, Secrecy::None), r#""SET" "k"..."#);
    }

    #[test]
    fn of_a_secret_request_only_the_name_is_shown() {
        let frame = b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n";
        assert_eq!(arguments(frame, false, Secrecy::Arguments), r#""AUTH" [removed]"#);
        assert_eq!(arguments(frame, false, Secrecy::All), "[removed]");
    }
}
