//! Clients that make room for others.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::clock;
use crate::strangers::Stranger;

/// How long a client may take to log in.
const LOGIN: Duration = Duration::from_secs(60);

/// A client that makes room for others: it has not logged in, or it has hung up.
pub(super) struct Dispensable {
    pub(super) sent_away: Pin<Box<WaitForCancellationFutureOwned>>,
    /// When it is given up.
    pub(super) until: Option<Instant>,
    _stranger: Stranger,
}

impl Dispensable {
    pub(super) fn not_logged_in(stranger: Stranger) -> Box<Self> {
        let sent_away = Box::pin(stranger.sent_away());
        let until = Some(clock::now() + LOGIN);
        Box::new(Dispensable { sent_away, until, _stranger: stranger })
    }

    pub(super) fn hung_up(stranger: Stranger) -> Box<Self> {
        Box::new(Dispensable { until: None, ..*Dispensable::not_logged_in(stranger) })
    }
}
