//! A session's next uplink connection: what it was told, and where its messages begin to be for the client.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::changeover::{Attempt, Marker};
use crate::resp::reply::{self, Scanner, Step};
use crate::session::link::Dial;
use crate::session::protocol::frame_filter::{FrameFilter, Meaning, Seen};
use crate::session::protocol::state::Carried;
use crate::uplink::Fresh;

/// A session's next uplink connection.
pub struct Standby {
    /// The attempt that this connection was made for.
    pub attempt: Arc<Attempt>,
    /// What it was told.
    pub primed: Carried,
    pub link: StandbyLink,
    /// Its messages are not for the client until the mark.
    pub listens: Option<Box<Listens>>,
    /// It is subscribed to the mark.
    pub marker: Option<Arc<Marker>>,
    /// It was told whom to send invalidations to, if that is another connection.
    pub redirected: bool,
    /// It was told what can only be told last.
    pub complete: bool,
    /// Somebody waits until it is made.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// How far the next connection is.
pub enum StandbyLink {
    Busy(Dial),
    Ready(Box<Fresh>),
    /// It does not take what the client carries.
    Refused,
}

impl Standby {
    /// Still dialling, or inside a frame.
    pub fn is_busy(&self) -> bool {
        let in_frame = self.listens.as_ref().is_some_and(|listens| listens.scanner.in_frame());
        in_frame || matches!(self.link, StandbyLink::Busy(_))
    }

    pub fn is_refused(&self) -> bool {
        matches!(self.link, StandbyLink::Refused)
    }

    /// Feeds input from the connection. Messages before the mark come from the present uplink, too.
    ///
    /// # Errors
    ///
    /// The input breaks the protocol.
    pub fn overhear(&mut self, input: &[u8]) -> Result<(), reply::Error> {
        let StandbyLink::Ready(fresh) = &mut self.link else { return Ok(()) };
        let Some(listens) = &mut self.listens else {
            fresh.early.extend_from_slice(input);
            return Ok(());
        };
        if let Some(after) = listens.feed(input)? {
            fresh.early = after;
            self.listens = None;
        }
        Ok(())
    }
}

/// Looks for the mark.
pub struct Listens {
    pub scanner: Scanner,
    pub filter: FrameFilter,
}

impl Listens {
    /// Without a mark, everything is passed over until the connection is in use.
    fn new(mark: Option<Vec<u8>>) -> Box<Self> {
        let mut scanner = Scanner::default();
        scanner.set_peek(true);
        Box::new(Listens { scanner, filter: mark.map(FrameFilter::until).unwrap_or_default() })
    }

    /// How a connection is listened to whose client has subscriptions, or not.
    pub fn of(attempt: &Attempt, subscribed: bool, resp3: bool) -> Option<Box<Listens>> {
        if !subscribed || attempt.marker().is_none() {
            return None;
        }
        attempt.listen();
        Some(Listens::new(attempt.next_marker().map(|marker| marker.message(resp3))))
    }

    /// Passes over everything before the mark; gives what comes after it once that is found.
    fn feed(&mut self, input: &[u8]) -> Result<Option<Vec<u8>>, reply::Error> {
        let mut pos = 0;
        while pos < input.len() {
            let start = pos;
            if !self.scanner.in_frame() {
                self.filter.begin();
            }
            let ends = matches!(self.scanner.next(input, &mut pos)?, Step::End { .. });
            if self.filter.is_matching()
                && self.filter.feed(&input[start..pos], ends) == Seen::Frame(Meaning::Mark)
            {
                return Ok(Some(input[pos..].to_vec()));
            }
        }
        Ok(None)
    }
}
