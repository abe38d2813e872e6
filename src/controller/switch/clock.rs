//! A server's clock, by which it lets keys expire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::resp::Args;
use crate::server::{Error, Server};

/// How often a server is asked for its time: the answer that comes soonest is the most exact.
const ASKED: usize = 3;

/// What a clock says, beside the proxy's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// By how many microseconds the server's clock is ahead.
    pub(super) ahead: i64,
    /// By how many microseconds the difference may be wrong.
    pub(super) within: i64,
}

impl Clock {
    /// Asks a server; `None` if it does not tell.
    pub(super) async fn of(server: &mut Server) -> Result<Option<Clock>, Error> {
        let mut best: Option<Clock> = None;
        for _ in 0..ASKED {
            let sent = now();
            let reply = server.ask(&["TIME"]).await?;
            let Some(told) = read(&reply) else { return Ok(None) };
            let heard = now();
            let within = (heard - sent).max(0) / 2;
            let clock = Clock { ahead: told - (sent + within), within };
            best = best.filter(|best| best.within <= within).or(Some(clock));
        }
        Ok(best)
    }

    /// By how many microseconds this one is ahead of the other, for certain; negative if it is behind.
    pub(super) fn ahead_of(self, other: Clock) -> i64 {
        let difference = self.ahead.saturating_sub(other.ahead);
        let unknown = self.within.saturating_add(other.within);
        difference.signum() * (difference.saturating_abs() - unknown).max(0)
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// Seconds, and microseconds.
fn read(reply: &[u8]) -> Option<i64> {
    let mut numbers = Args::new(reply).map(|text| std::str::from_utf8(text).ok()?.parse().ok());
    let (seconds, micros): (i64, i64) = (numbers.next()??, numbers.next()??);
    seconds.checked_mul(1_000_000)?.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_clock_is_ahead_of_another_as_far_as_both_are_known() {
        let clock = |ahead, within| Clock { ahead, within };
        for (one, other, expected) in [
            (clock(5_000, 0), clock(0, 0), 5_000),
            (clock(0, 0), clock(5_000, 0), -5_000),
            (clock(5_000, 1_000), clock(0, 500), 3_500),
            (clock(-5_000, 1_000), clock(0, 500), -3_500),
            (clock(5_000, 3_000), clock(0, 3_000), 0),
        ] {
            assert_eq!(one.ahead_of(other), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_reply_is_a_time_or_nothing() {
        assert_eq!(read(b"*2\r\n$2\r\n12\r\n$3\r\n345\r\n"), Some(12_000_345));
        assert_eq!(read(b"*1\r\n$2\r\n12\r\n"), None);
        assert_eq!(read(b"*2\r\n$2\r\nab\r\n$3\r\n345\r\n"), None);
    }
}
