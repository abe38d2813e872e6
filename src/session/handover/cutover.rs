//! What of a handover can only be done while nothing is in flight: the gate is shut, the old uplink
//! has answered everything, and the new one is not in force yet. It can still be undone.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::phase::{Cutover, CutoverStage as Stage, Handover, Untouched};
use super::standby::{Listens, Standby, StandbyLink};
use crate::changeover::client_ids::At;
use crate::changeover::{Attempt, OldUplink, Watching};
use crate::resp::encode;
use crate::session::Session;
use crate::session::protocol::expected::{Expected, Question};
use crate::shared::Hurry;
use crate::uplink::{Answer, Error, Script};

impl Session {
    /// The gate is shut, and quiet.
    pub(in crate::session) fn begin_cutover(
        &mut self,
        attempt: Arc<Attempt>,
        old: OldUplink,
        permit: OwnedSemaphorePermit,
    ) {
        if self.handover.is_leaving() {
            // Still with the uplink before the present one.
            return;
        }
        let needed = self.needs_cutover();
        // What the new uplink did not take may be another thing by now.
        if self.is_refused() {
            self.handover.drop_standby();
        }
        let ends = self.ending.is_some() || self.uncarried().is_some();
        if ends || !self.link.is_live() || !needed {
            return;
        }
        if old != OldUplink::Gone {
            self.ask_old(&attempt);
        }
        attempt.begin(self.peer);
        let watched = self.state.watched().filter(|_| !self.state.is_touched());
        let watches_too_many = watched.is_some_and(|it| !attempt.may_watch(it.keys.len()));
        let standby = self.handover.end().standby;
        self.handover = Handover::Cutover(Box::new(Cutover {
            attempt,
            old,
            permit: Some(permit),
            stage: Stage::Old,
            unwatched: false,
            watches_too_many,
            untouched: Untouched::default(),
            standby,
        }));
    }

    fn is_standby_busy(&self) -> bool {
        self.handover.standby().is_some_and(Standby::is_busy)
    }

    /// For a client with subscriptions, asks the old uplink for the mark, or for a barrier.
    fn ask_old(&mut self, attempt: &Attempt) {
        if self.state.subscribed() {
            match attempt.marker() {
                Some(marker) if self.replies.is_marked_by(marker) => {}
                // Anything else would be queued. What comes before the answer to this is all that
                // was published before the gate was shut.
                _ if self.requested.transaction().is_some() => {
                    self.pending.push_own(Expected::Asked(Question::Barrier));
                    self.link.out.push(&encode::request(["MULTI"]));
                }
                Some(marker) => self.subscribe_mark(marker.clone()),
                None => self.ping_for_mark(),
            }
        }
    }

    /// True if there is more to be done.
    pub(in crate::session) fn poll_cutover(&mut self) -> bool {
        let Some(cutover) = self.handover.cutover() else { return false };
        let next = match cutover.stage {
            Stage::Old => {
                if !self.pending.is_empty() || self.awaits_confirmation() || self.is_standby_busy()
                {
                    return false;
                }
                self.tell_the_rest();
                Stage::New
            }
            Stage::New => match &cutover.standby {
                Some(Standby { link: StandbyLink::Busy(_), .. }) => return false,
                Some(standby) if !standby.is_refused() => self.ask_watched(),
                // What failed was told.
                Some(_) | None => Stage::Done,
            },
            Stage::Queue if !self.is_standby_busy() => {
                self.tell_queue();
                Stage::Queued
            }
            Stage::Queued if !self.is_standby_busy() => Stage::Done,
            Stage::Watched if self.pending.is_empty() => Stage::Done,
            Stage::Watched | Stage::Queue | Stage::Queued | Stage::Done => return false,
        };
        if let Some(cutover) = self.handover.cutover_mut() {
            cutover.stage = next;
            if next == Stage::Done {
                cutover.attempt.end(self.peer);
                let permit = cutover.permit.take();
                self.dismiss(permit);
            }
        }
        true
    }

    fn tell_the_rest(&mut self) {
        let Some(cutover) = self.handover.cutover_mut() else { return };
        let (attempt, standby) = (cutover.attempt.clone(), cutover.standby.take());
        let subscribed = self.state.subscribed();
        let new_marker = attempt.next_marker().filter(|_| subscribed);
        let mark = |known: bool| {
            let has_marker = attempt.marker().is_some();
            move |script: &mut Script| match new_marker.filter(|_| !known) {
                Some(new) => {
                    script.repeat(&new.subscribe(), "SSUBSCRIBE", Answer::Confirmations(1))
                }
                None if subscribed && !has_marker => script.ask("PING", &[], Answer::Pong),
                None => {}
            }
        };
        let told = standby.filter(|standby| self.may_be_told_more(standby)).and_then(|standby| {
            let mark = mark(standby.marker.is_some());
            Some((self.rest_script(&standby.primed, At::Next, mark)?, standby))
        });
        let (shared, generation) = (self.shared.clone(), attempt.generation().clone());
        let (link, listens, marker) = match told {
            Some((
                script,
                Standby { link: StandbyLink::Ready(mut fresh), listens, marker, .. },
            )) => {
                let link = StandbyLink::Busy(Box::pin(async move {
                    fresh.tell(script).await?;
                    Ok(*fresh)
                }));
                (link, listens, marker)
            }
            _ => {
                if let Some(id) = self.id {
                    self.shared.ids.unprepared(id);
                }
                let mut script = self.whole_script(At::Next, mark(false));
                if script.is_empty() {
                    // Its id must be known before a transaction is begun, and it may be refused (`maxclients`).
                    script.ask("PING", &[], Answer::Pong);
                }
                let dial = async move { shared.dial(&generation, script, Hurry::Waits).await };
                (StandbyLink::Busy(Box::pin(dial)), None, None)
            }
        };
        let listens = listens.or_else(|| Listens::of(&attempt, subscribed, self.state.resp3));
        let standby = Standby {
            primed: self.state.carried(),
            link,
            listens,
            marker: marker.or_else(|| new_marker.cloned()),
            redirected: self.finals(At::Next).redirect.is_some(),
            complete: self.requested.transaction().is_none(),
            permit: None,
            attempt: attempt.clone(),
        };
        if let Some(cutover) = self.handover.cutover_mut() {
            cutover.standby = Some(standby);
        }
    }

    /// Whether anything can be told the standby yet. Otherwise, another connection is made.
    fn may_be_told_more(&self, standby: &Standby) -> bool {
        let resp3 = self.state.resp3;
        // In RESP2, it listens to nothing but subscriptions.
        let is_deaf = standby.primed.subscribed() && !resp3 && self.needs_more_than_told();
        // The mark is matched in the encoding of one RESP version only.
        let marks_are_known = standby.marker.is_none() || standby.primed.resp3 == resp3;
        matches!(standby.link, StandbyLink::Ready(_)) && !is_deaf && marks_are_known
    }

    /// All sessions have told the rest, and the new uplink takes what writes.
    pub(in crate::session) fn begin_queue(&mut self, permit: OwnedSemaphorePermit) {
        if self.requested.transaction().is_none() {
            return;
        }
        let Some(cutover) = self.handover.cutover_mut() else { return };
        if cutover.standby.as_ref().is_some_and(|standby| !standby.is_refused()) {
            cutover.attempt.begin(self.peer);
            (cutover.permit, cutover.stage) = (Some(permit), Stage::Queue);
        }
    }

    fn tell_queue(&mut self) {
        let Some(cutover) = self.handover.cutover_mut() else { return };
        let Some(mut standby) = cutover.standby.take() else { return };
        let mut script = Script::default();
        // The mark has come. What the transaction unsubscribes from must be the client's own.
        if let Some(marker) = standby.marker.take() {
            script.repeat(&marker.unsubscribe(), "SUNSUBSCRIBE", Answer::Confirmations(1));
        }
        self.finals(At::Next).queue(&mut script);
        let StandbyLink::Ready(mut fresh) = standby.link else { return };
        // What was published after the mark is for the client.
        let link = StandbyLink::Busy(Box::pin(async move {
            fresh.tell_and_keep(script).await?;
            Ok(*fresh)
        }));
        if let Some(cutover) = self.handover.cutover_mut() {
            cutover.standby = Some(Standby { link, complete: true, ..standby });
        }
    }

    /// Asks the old uplink whether watched keys were touched, now that the new one watches them.
    fn ask_watched(&mut self) -> Stage {
        let listens_only = self.listens_only();
        let Some(watched) = self.state.watched().filter(|_| !self.state.is_touched()) else {
            return Stage::Done;
        };
        let Some(cutover) = self.handover.cutover_mut().filter(|it| !it.watches_too_many) else {
            return Stage::Done;
        };
        let untouched = cutover.untouched.ask();
        let gone = cutover.old == OldUplink::Gone || !self.link.is_live();
        if watched.more || gone {
            return Stage::Done;
        }
        if let Some(id) = self.link.id.filter(|_| cutover.old == OldUplink::AskedForAll) {
            let watching =
                Watching { id, keys: watched.keys.clone(), untouched: untouched.clone() };
            cutover.attempt.watch(watching);
            return Stage::Done;
        }
        if self.requested.transaction().is_some() || listens_only {
            return Stage::Done;
        }
        cutover.unwatched = true;
        // A user may lack the right to MULTI. One that lacks the right to EXEC ends the transaction by asking.
        self.pending.push_own(Expected::Asked(Question::Barrier));
        self.pending.push_own(Expected::Asked(Question::Touched));
        self.link.out.push(&encode::request(["MULTI"]));
        self.link.out.push(&encode::request(["EXEC"]));
        Stage::Watched
    }

    /// The new uplink could not be connected to, or would not have it.
    pub(in crate::session) fn cutover_failed(&mut self, why: &Error) {
        if let Some(cutover) = self.handover.cutover() {
            cutover.attempt.not_carried(self.peer, why);
        }
    }

    /// The uplink is being exchanged. What nobody could be asked about counts as touched.
    pub(in crate::session) fn note_touched(&mut self, untouched: &Untouched) {
        self.touch(self.state.watching() && !untouched.is_certain());
    }

    /// The next EXEC must fail, if this is so.
    pub(in crate::session) fn touch(&mut self, touched: bool) {
        if touched {
            self.state.touch();
        }
        self.requested.fails |= touched;
    }

    /// The old uplink stays.
    pub(in crate::session) fn undo_cutover(&mut self) {
        let Some(cutover) = self.handover.cutover() else { return };
        // Where the keys are not watched any more, nobody will know.
        let unwatched = cutover.unwatched && self.link.is_live();
        self.handover = Handover::Idle;
        self.touch(unwatched);
    }
}
