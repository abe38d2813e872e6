//! The next uplink: it is connected to, and told what the client carries, while the present one
//! serves.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

use super::phase::Handover;
use super::standby::{Listens, Standby, StandbyLink};
use crate::changeover::Attempt;
use crate::changeover::client_ids::At;
use crate::session::protocol::replay;
use crate::session::{Session, poll_read};
use crate::shared::Hurry;
use crate::uplink::{Answer, Error, Fresh, Id};

impl Session {
    /// Tries on a connection of its own whether the next uplink takes all that this client carries. The
    /// session itself does not wait for it.
    pub(in crate::session) fn rehearse(&self, attempt: Arc<Attempt>, permit: OwnedSemaphorePermit) {
        if !self.link.is_connected() || self.ending.is_some() || self.uncarried().is_some() {
            return;
        }
        let mut script = self.whole_script(At::Next, |_| ());
        script.ask("PING", &[], Answer::Pong);
        self.finals(At::Next).queue(&mut script);
        let (shared, client) = (self.shared.clone(), self.peer);
        tokio::spawn(async move {
            let result = shared.dial(attempt.generation(), script, Hurry::Idle).await;
            attempt.rehearsed(client, result);
            drop(permit);
        });
    }

    pub(in crate::session) fn prepare(
        &mut self,
        attempt: Arc<Attempt>,
        permit: OwnedSemaphorePermit,
    ) {
        match &self.handover {
            // Still with the uplink before the present one.
            Handover::Leaving(_) => return,
            // An earlier change that did not come.
            Handover::Idle | Handover::Prepared(_) | Handover::Cutover(_) => {
                self.handover = Handover::Idle;
            }
        }
        let ends = self.ending.is_some() || self.uncarried().is_some();
        if !self.link.is_connected() || ends {
            return;
        }
        let mut primed = self.state.carried();
        if self.listens_only() && self.needs_more_than_told() {
            // Afterwards, that could not be told any more.
            primed = primed.without_channels();
        }
        let mut script = replay::prepared(&primed);
        let subscribed = primed.subscribed();
        let marker = attempt.next_marker().filter(|_| subscribed).cloned();
        if let Some(marker) = &marker {
            script.repeat(&marker.subscribe(), "SSUBSCRIBE", Answer::Confirmations(1));
        }
        let listens = Listens::of(&attempt, subscribed, primed.resp3);
        if let Some(marker) = attempt.marker().filter(|_| self.state.subscribed())
            && self.may_subscribe_mark()
        {
            self.subscribe_mark(marker.clone());
        }
        // One that says nothing may be refused all the same (`maxclients`).
        script.ask("PING", &[], Answer::Pong);
        let (shared, ready) = (self.shared.clone(), attempt.clone());
        let link = StandbyLink::Busy(Box::pin(async move {
            let result = shared.dial(ready.generation(), script, Hurry::Idle).await;
            ready.connected(&result);
            result
        }));
        self.handover = Handover::Prepared(Box::new(Standby {
            attempt,
            primed,
            link,
            listens,
            marker,
            redirected: false,
            complete: false,
            permit: Some(permit),
        }));
    }

    /// What will be the uplink. True if there is more to be done, for the present one, too.
    pub(in crate::session) fn poll_standby(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> bool {
        if self.handover.standby().is_some() {
            self.poll_standby_link(cx, scratch);
        }
        self.poll_cutover()
    }

    fn poll_standby_link(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        let Some(standby) = self.handover.standby_mut() else { return };
        if let StandbyLink::Busy(dial) = &mut standby.link {
            let Poll::Ready(result) = dial.as_mut().poll(cx) else { return };
            let permit = standby.permit.take();
            self.standby_answers(result);
            // Not before its id is known to all.
            self.dismiss(permit);
        }
        self.listen_to_standby(cx, scratch);
    }

    /// The next uplink has said whether it takes what this client carries.
    fn standby_answers(&mut self, result: Result<Fresh, Error>) {
        let Some(standby) = self.handover.standby_mut() else { return };
        match result {
            Ok(mut fresh) => {
                if let (Some(seen), Id::Is(id)) = (self.id, fresh.id) {
                    self.shared.ids.prepared(seen, id);
                }
                let early = std::mem::take(&mut fresh.early);
                standby.link = StandbyLink::Ready(Box::new(fresh));
                if standby.overhear(&early).is_err() {
                    self.handover.drop_standby();
                }
            }
            Err(why) if standby.attempt.costs_one_client(&why) => {
                warn!(client = %self.peer, %why, "the new uplink does not take this client");
                standby.link = StandbyLink::Refused;
            }
            Err(why) => {
                self.cutover_failed(&why);
                self.handover.drop_standby();
            }
        }
    }

    fn listen_to_standby(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) {
        let Some(standby) = self.handover.standby_mut() else { return };
        while let StandbyLink::Ready(fresh) = &mut standby.link
            && standby.listens.is_some()
        {
            match poll_read(&mut fresh.stream, cx, scratch) {
                Poll::Pending => break,
                Poll::Ready(Ok(read)) if read > 0 && standby.overhear(&scratch[..read]).is_ok() => {
                }
                Poll::Ready(_) => return self.handover.drop_standby(),
            }
        }
    }
}
