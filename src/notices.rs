//! What is told of maintenance, in the pushes of Redis's managed services. Clients that have sent
//! `CLIENT MAINT_NOTIFICATIONS ON` *listen*: they are told that they are held, and that this is over, and wait longer
//! for replies in between. An uplink may tell the proxy the like.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::lock::lock;

/// For how long clients are told that they may be held where there is no limit.
const NO_LIMIT: Duration = Duration::from_secs(60);
/// The uplink will be at another address soon.
pub const MOVING: &str = "MOVING";
/// Kinds of maintenance: what a push about it begins with.
const MAINTENANCE: [&str; 7] =
    [MOVING, "MIGRATING", "MIGRATED", "FAILING_OVER", "FAILED_OVER", "SMIGRATING", "SMIGRATED"];

/// What clients that listen are to know.
#[derive(Debug, Default)]
pub struct Notices {
    known: Mutex<Known>,
    over: Notify,
}

#[derive(Debug, Default)]
struct Known {
    last: Notice,
    /// How many [`FailingOver`] there are.
    failing_over: usize,
}

/// One thing that clients that listen are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notice {
    /// Each notice has a number that is one higher; 0 is no notice.
    number: u64,
    /// For how many seconds clients may be held; `None` if they are not held any more.
    seconds: Option<u64>,
}

/// While this lives, clients that listen are to know that they are held. They hear of the end however that comes.
#[derive(Debug)]
pub struct FailingOver(Arc<Notices>);

impl Notices {
    /// Clients are held from now on, for this time at most, if there is a limit. Of what overlaps, clients hear once.
    /// The caller wakes the sessions.
    pub fn failing_over(self: &Arc<Self>, limit: Option<Duration>) -> FailingOver {
        let mut known = lock(&self.known);
        known.failing_over += 1;
        if known.failing_over == 1 {
            let limit = limit.unwrap_or(NO_LIMIT);
            let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
            known.next(Some(seconds.max(1)));
        }
        FailingOver(self.clone())
    }

    /// The last notice.
    pub fn last(&self) -> Notice {
        lock(&self.known).last
    }

    /// Completes when clients are not held any more, since the last time or while this waits. Cancel safe.
    pub async fn over(&self) {
        self.over.notified().await;
    }
}

impl Known {
    fn next(&mut self, seconds: Option<u64>) {
        self.last = Notice { number: self.last.number + 1, seconds };
    }
}

impl Drop for FailingOver {
    fn drop(&mut self) {
        let mut known = lock(&self.0.known);
        known.failing_over -= 1;
        if known.failing_over == 0 {
            known.next(None);
            self.0.over.notify_one();
        }
    }
}

impl Notice {
    /// The pushes that a client needs which was told `before` last: each FAILING_OVER is followed by a FAILED_OVER,
    /// and what is over already is passed over.
    pub fn after(self, before: Notice) -> Vec<u8> {
        if self.number == before.number {
            return Vec::new();
        }
        match self.seconds {
            // Clients were not held between the two.
            Some(seconds) => {
                [before.end(self.number - 1), failing_over(self.number, seconds)].concat()
            }
            None => before.end(self.number),
        }
    }

    /// The push with this number that ends what the client was told, if that needs an end.
    fn end(self, number: u64) -> Vec<u8> {
        match self.seconds {
            Some(_) => format!(">2\r\n$11\r\nFAILED_OVER\r\n:{number}\r\n").into_bytes(),
            None => Vec::new(),
        }
    }

    /// The end of what the client was told, ahead of time.
    pub fn ended(self) -> Vec<u8> {
        self.end(self.number)
    }
}

fn failing_over(number: u64, seconds: u64) -> Vec<u8> {
    format!(">3\r\n$12\r\nFAILING_OVER\r\n:{number}\r\n:{seconds}\r\n").into_bytes()
}

/// Whether a frame of the uplink that begins like this may be a push about maintenance. Their first text is in
/// capitals; that of messages and invalidations is not.
pub fn may_be_of_maintenance(frame: &[u8]) -> bool {
    if frame.first() != Some(&b'>') {
        return false;
    }
    let after_line = |bytes| memchr::memchr(b'\n', bytes).map(|at| &bytes[at + 1..]);
    let text = match after_line(frame) {
        Some([b'$', rest @ ..]) => after_line(rest),
        Some([_, rest @ ..]) => Some(rest),
        Some([]) | None => None,
    };
    text.and_then(<[u8]>::first).is_none_or(u8::is_ascii_uppercase)
}

/// The kind of maintenance that a push is about which has this as its first text.
pub fn maintenance(text: &[u8]) -> Option<&'static str> {
    MAINTENANCE.into_iter().find(|kind| kind.as_bytes() == text)
}

/// The kind of maintenance that a whole frame is about, if it is such a push.
pub fn maintenance_of(push: &[u8]) -> Option<&'static str> {
    let mut lines = push.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).skip(1);
    let first = lines.next()?;
    maintenance(first.strip_prefix(b"+").or_else(|| lines.next())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pushes: Vec<u8>) -> String {
        String::from_utf8(pushes).expect("text").replace("\r\n", " ")
    }

    #[test]
    fn what_overlaps_is_one_notice_and_its_end_another() {
        let notices = Arc::<Notices>::default();
        let start = notices.last();
        let outage = notices.failing_over(Some(Duration::from_millis(4001)));
        let switch = notices.failing_over(None);
        let held = notices.last();
        assert_eq!(text(held.after(start)), ">3 $12 FAILING_OVER :1 :5 ");
        drop(outage);
        assert_eq!(notices.last(), held);
        drop(switch);
        assert_eq!(text(notices.last().after(held)), ">2 $11 FAILED_OVER :2 ");
        assert!(notices.last().after(start).is_empty(), "what is over already");
        assert!(notices.last().after(notices.last()).is_empty());
    }

    #[test]
    fn whoever_missed_an_end_hears_of_it_before_the_next_notice() {
        let notices = Arc::<Notices>::default();
        let start = notices.last();
        drop(notices.failing_over(Some(Duration::ZERO)));
        let again = notices.failing_over(Some(Duration::ZERO));
        let first = Notice { number: 1, seconds: Some(1) };
        let both = ">2 $11 FAILED_OVER :2 >3 $12 FAILING_OVER :3 :1 ";
        assert_eq!(text(notices.last().after(first)), both);
        assert_eq!(text(notices.last().after(start)), ">3 $12 FAILING_OVER :3 :1 ");
        drop(again);
        let long = notices.failing_over(None);
        assert_eq!(text(notices.last().after(start)), ">3 $12 FAILING_OVER :5 :60 ");
        assert_eq!(text(notices.last().ended()), ">2 $11 FAILED_OVER :5 ");
        drop(long);
        assert!(notices.last().ended().is_empty());
    }

    #[test]
    fn the_uplinks_word_of_its_maintenance_is_known_by_its_first_text() {
        for (frame, kind) in [
            (">4\r\n$6\r\nMOVING\r\n:1\r\n:15\r\n$3\r\nh:1\r\n", Some("MOVING")),
            (">2\r\n+MIGRATED\r\n:1\r\n", Some("MIGRATED")),
            (">2\r\n$10\r\nUNHEARD_OF\r\n:1\r\n", None),
            (">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$6\r\nMOVING\r\n", None),
            (">1\r\n:1\r\n", None),
            (">0\r\n", None),
        ] {
            assert_eq!(maintenance_of(frame.as_bytes()), kind, "{frame:?}");
            if kind.is_some() {
                let all =
                    (1..=frame.len()).all(|end| may_be_of_maintenance(&frame.as_bytes()[..end]));
                assert!(all, "{frame:?}");
            }
        }
        for other in ["*1\r\n$6\r\nMOVING\r\n", ">3\r\n$7\r\nm", ">2\r\n+i", "+MOVING\r\n", ""] {
            assert!(!may_be_of_maintenance(other.as_bytes()), "{other:?}");
        }
    }
}
