//! An operator's pause.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::error::{Error, stopping};
use super::sessions::named;
use super::state::{Controller, OperatorPause};
use crate::lock::lock;

impl Controller {
    /// Holds new requests, for `ttl` if there is one. A pause that is on already is joined: the
    /// longer time to live counts, and none is the longest.
    pub fn pause(self: &Arc<Self>, ttl: Option<Duration>) -> Result<(), Error> {
        // One too long to be a time is for ever.
        let until = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        let mut inner = lock(&self.inner);
        self.not_stopping()?;
        match &mut inner.pause {
            Some(pause) => pause.until = pause.until.zip(until).map(|(one, other)| one.max(other)),
            none => {
                let released = CancellationToken::new();
                let hold = self.shared.gate.pause();
                *none = Some(OperatorPause {
                    hold,
                    since: Instant::now(),
                    until,
                    released: released.clone(),
                });
                info!(ttl_ms = ttl.map(|ttl| ttl.as_millis()), "paused by an operator");
                tokio::spawn(self.clone().interrupt_for_pause(released.clone()));
                if let Some(until) = until {
                    tokio::spawn(self.clone().expire(until, released));
                }
            }
        }
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Like [`Controller::pause`], and completes when no request runs any more.
    pub async fn pause_and_wait(self: &Arc<Self>, ttl: Option<Duration>) -> Result<(), Error> {
        self.pause(ttl)?;
        let limit = self.shared.current.load().settings.pause_time_limit;
        let released_meanwhile = || Error::Conflict("the pause was released meanwhile".to_owned());
        let (quiesced, released) = match &lock(&self.inner).pause {
            Some(pause) => (pause.hold.quiesced_by(Instant::now() + limit), pause.released.clone()),
            None => return Err(released_meanwhile()),
        };
        let quiesced = tokio::select! {
            biased;
            () = released.cancelled() => return Err(released_meanwhile()),
            () = self.shared.stop.begun() => return Err(stopping()),
            quiesced = quiesced => quiesced,
        };
        if quiesced {
            return Ok(());
        }
        let running = named(&self.running().await);
        let limit = limit.as_millis();
        Err(Error::TimeLimit(format!(
            "not paused within {limit} ms, the pause stays; still running: {running}"
        )))
    }

    /// Ends the operator's pause, if there is one.
    pub fn unpause(&self) -> Result<(), Error> {
        self.not_stopping()?;
        if let Some(pause) = lock(&self.inner).pause.take() {
            self.release(pause, "unpaused by an operator");
        }
        Ok(())
    }

    /// Waits until the pause ends by itself. A pause that joins this one may change when that is.
    async fn expire(self: Arc<Self>, mut until: Instant, released: CancellationToken) {
        loop {
            tokio::select! {
                () = released.cancelled() => return,
                () = sleep_until(until) => {}
            }
            let pause = &mut lock(&self.inner).pause;
            // Another pause can only begin after this one was released.
            match pause.as_ref().and_then(|pause| pause.until) {
                _ if released.is_cancelled() => return,
                None => return,
                Some(later) if later > until => until = later,
                Some(_) => {
                    if let Some(pause) = pause.take() {
                        self.release(pause, "the pause's time to live is over");
                    }
                    return;
                }
            }
        }
    }

    fn release(&self, pause: OperatorPause, why: &str) {
        pause.released.cancel();
        drop(pause.hold);
        let lasted = pause.since.elapsed();
        self.shared.metrics.operator_pauses.observe(lasted, 1);
        info!(lasted_ms = lasted.as_millis(), "{why}");
        self.changed.notify_one();
    }
}
