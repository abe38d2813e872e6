//! What of a handover can only be done while nothing is in flight: the gate is shut, the old uplink
//! has answered everything, and the new one is not in force yet. It can still be undone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::blocking;
use super::protocol::expected::{Expected, Question};
use super::protocol::frame_filter::Meaning;
use super::protocol::replay;
use super::protocol::state::Carried;
use super::standby::{self, Standby, StandbyLink};
use super::{Link, Session};
use crate::changeover::Ticket;
use crate::changeover::client_ids::{self as ids, At};
use crate::changeover::{Attempt, Interrupt, OldUplink, Watching};
use crate::resp::encode;
use crate::uplink::{Answer, Error, Script};

/// How far one session has come.
pub(super) struct Cutover {
    attempt: Arc<Attempt>,
    old: OldUplink,
    permit: Option<OwnedSemaphorePermit>,
    stage: Stage,
    /// Its watched keys are not watched any more.
    unwatched: bool,
    /// All clients together watch too many keys for this one's to be carried.
    watches_too_many: bool,
    /// Set by the controller, or by the old uplink's own answer: no watched key was touched.
    untouched: Option<Arc<AtomicBool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The old uplink answers what it must be asked first.
    Old,
    /// The new one is told.
    New,
    /// The old one is asked about watched keys, which the new one watches by now.
    Watched,
    /// The new one is to be told of the open transaction.
    Queue,
    /// It is being told.
    Queued,
    Done,
}

impl Session {
    fn finals(&self, at: At) -> replay::Finals<'_> {
        let redirect = self.state.tracking().and_then(|tracking| tracking.redirect);
        let ids = &self.shared.ids;
        replay::Finals {
            ids,
            at,
            state: &self.state,
            transaction: self.requested.transaction(),
            watches: !self.state.touched
                && !self.cutover.as_ref().is_some_and(|cutover| cutover.watches_too_many),
            aborted: self.pending.is_aborted(),
            one_shot: self.requested.one_shot(),
            redirect: redirect.and_then(|seen| match at {
                At::Present => ids.present(seen),
                At::Next => ids.next(seen),
            }),
            databases: self.generation.uplink.databases(),
        }
    }

    /// What a connection that nobody has used must be told, an open transaction included.
    pub(super) fn restoring_script(&self) -> Script {
        let mut script = self.whole_script(At::Present, |_| ());
        self.finals(At::Present).queue(&mut script);
        script
    }

    /// What a connection that nobody has used must be told, but for an open transaction. `mark` adds the
    /// subscription to the mark.
    fn whole_script(&self, at: At, mark: impl FnOnce(&mut Script)) -> Script {
        self.rest_script(&Carried::default(), at, mark).unwrap_or_default()
    }

    /// What a connection that was told `primed` must be told beyond that, but for an open transaction; `None`
    /// if it cannot be told any more.
    fn rest_script(
        &self,
        primed: &Carried,
        at: At,
        mark: impl FnOnce(&mut Script),
    ) -> Option<Script> {
        let carried = self.state.carried();
        // In RESP2, nothing else can be told after subscriptions; and in a transaction, nothing at all.
        let first = match self.listens_only() && !primed.subscribed() {
            true => carried.without_channels(),
            false => carried.clone(),
        };
        let channels = replay::difference(&first, &carried)?;
        let mut script = replay::difference(primed, &first)?;
        if channels.is_empty() {
            mark(&mut script);
            self.finals(at).script(&mut script);
        } else {
            self.finals(at).script(&mut script);
            script.append(channels);
            mark(&mut script);
        }
        Some(script)
    }

    /// Tries on a connection of its own whether the next uplink takes all that this client carries. The
    /// session itself does not wait for it.
    pub(super) fn rehearse(&self, attempt: Arc<Attempt>, permit: OwnedSemaphorePermit) {
        if !self.is_connected() || self.ending.is_some() || self.uncarried().is_some() {
            return;
        }
        let mut script = self.whole_script(At::Next, |_| ());
        script.ask("PING", &[], Answer::Pong);
        self.finals(At::Next).queue(&mut script);
        let (shared, client) = (self.shared.clone(), self.peer);
        tokio::spawn(async move {
            let result = shared.dial(attempt.generation(), script).await;
            attempt.rehearsed(client, result);
            drop(permit);
        });
    }

    /// The uplink takes nothing from this client but subscriptions, and what ends them.
    pub(super) fn listens_only(&self) -> bool {
        !self.state.resp3 && self.state.subscribed()
    }

    /// There is something that is told last.
    pub(super) fn needs_more_than_told(&self) -> bool {
        self.finals(At::Next).is_needed()
    }

    /// Whether there is something to be done while nothing is in flight.
    pub(super) fn needs_cutover(&self) -> bool {
        let subscribed = self.state.subscribed();
        self.needs_more_than_told()
            || match &self.standby {
                Some(standby) => {
                    let marker = standby.attempt.marker();
                    let marked = marker.is_some_and(|marker| self.is_marked_by(marker));
                    let marked = marked && !self.awaits_confirmation();
                    let is_told = standby.primed.is(&self.state) && !standby.is_refused();
                    !is_told || (subscribed && !marked)
                }
                None => subscribed || self.state.tracking().is_some(),
            }
    }

    /// The gate is shut, and quiet.
    pub(super) fn begin_cutover(
        &mut self,
        attempt: Arc<Attempt>,
        old: OldUplink,
        permit: OwnedSemaphorePermit,
    ) {
        let needed = self.needs_cutover();
        // What the new uplink did not take may be another thing by now.
        self.standby.take_if(|standby| standby.is_refused());
        let ends = self.ending.is_some() || self.uncarried().is_some();
        if ends || !matches!(self.uplink, Link::Live(_)) || !needed {
            return;
        }
        if old != OldUplink::Gone {
            self.ask_old(&attempt);
        }
        attempt.begin(self.peer);
        let watched = self.state.watched().filter(|_| !self.state.touched);
        let watches_too_many = watched.is_some_and(|it| !attempt.may_watch(it.keys.len()));
        self.cutover = Some(Box::new(Cutover {
            attempt,
            old,
            permit: Some(permit),
            stage: Stage::Old,
            unwatched: false,
            watches_too_many,
            untouched: None,
        }));
    }

    /// The old uplink has a last word for whoever is subscribed.
    fn ask_old(&mut self, attempt: &Attempt) {
        if self.state.subscribed() {
            match attempt.marker() {
                Some(marker) if self.is_marked_by(marker) => {}
                // Anything else would be queued. What comes before the answer to this is all that
                // was published before the gate was shut.
                _ if self.requested.transaction().is_some() => {
                    self.pending.push_own(Expected::Asked(Question::Barrier));
                    self.to_uplink.push(&encode::request(["MULTI"]));
                }
                Some(marker) => self.subscribe_mark(marker.clone()),
                None => self.ping_for_mark(),
            }
        }
    }

    /// Without a channel of the proxy's own, what comes before this answer is all that the old
    /// uplink has to say.
    fn ping_for_mark(&mut self) {
        let pong: &[u8] =
            if self.state.resp3 { b"+PONG\r\n" } else { b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" };
        self.to_uplink.push(&encode::request(["PING"]));
        self.filter.get_or_insert_default().expect(pong.to_vec(), Meaning::Mark);
    }

    pub(super) fn poll_cutover(&mut self) -> bool {
        let Some(cutover) = &self.cutover else { return false };
        match cutover.stage {
            Stage::Old => {
                if !self.pending.is_empty()
                    || self.awaits_confirmation()
                    || self.standby.as_ref().is_some_and(|it| it.is_busy())
                {
                    return false;
                }
                self.tell_the_rest();
                self.set_stage(Stage::New);
                true
            }
            Stage::New => match &self.standby {
                Some(standby) if matches!(standby.link, StandbyLink::Busy(_)) => false,
                Some(standby) if !standby.is_refused() => {
                    let stage = self.ask_watched();
                    self.set_stage(stage);
                    true
                }
                // What failed was told.
                Some(_) | None => {
                    self.set_stage(Stage::Done);
                    true
                }
            },
            Stage::Queue if self.standby.as_ref().is_none_or(|it| !it.is_busy()) => {
                self.tell_queue();
                self.set_stage(Stage::Queued);
                true
            }
            Stage::Queued if self.standby.as_ref().is_none_or(|it| !it.is_busy()) => {
                self.set_stage(Stage::Done);
                true
            }
            Stage::Watched if self.pending.is_empty() => {
                self.set_stage(Stage::Done);
                true
            }
            Stage::Watched | Stage::Queue | Stage::Queued | Stage::Done => false,
        }
    }

    fn set_stage(&mut self, stage: Stage) {
        if let Some(cutover) = &mut self.cutover {
            cutover.stage = stage;
            if stage == Stage::Done {
                cutover.attempt.end(self.peer);
                cutover.permit = None;
            }
        }
    }

    fn tell_the_rest(&mut self) {
        let Some(attempt) = self.cutover.as_ref().map(|cutover| cutover.attempt.clone()) else {
            return;
        };
        let primed = self.state.carried();
        let standby = self.standby.take().filter(|standby| self.can_be_told_the_rest(standby));
        if standby.is_none()
            && let Some(id) = self.id
        {
            self.shared.ids.unprepared(id);
        }
        let redirected = self.finals(At::Next).redirect.is_some();
        let subscribed = self.state.subscribed();
        let known = standby.as_ref().and_then(|standby| standby.marker.clone());
        let new = attempt.next_marker().filter(|_| subscribed && known.is_none());
        let mark = |script: &mut Script| match new {
            Some(new) => script.repeat(&new.subscribe(), "SSUBSCRIBE", Answer::Confirmations(1)),
            None if subscribed && attempt.marker().is_none() => {
                script.ask("PING", &[], Answer::Pong);
            }
            None => {}
        };
        let before = standby.as_ref().map(|standby| standby.primed.clone()).unwrap_or_default();
        let script = self.rest_script(&before, At::Next, mark).unwrap_or_default();
        let (fresh, listens) = match standby.map(|standby| (standby.link, standby.listens)) {
            Some((StandbyLink::Ready(fresh), listens)) => (Some(fresh), listens),
            _ => (None, None),
        };
        let listens = listens.or_else(|| standby::listens(&attempt, subscribed, self.state.resp3));
        let marker = known.or_else(|| new.cloned());
        let (shared, generation) = (self.shared.clone(), attempt.generation().clone());
        let link = StandbyLink::Busy(Box::pin(async move {
            match fresh {
                Some(mut fresh) => {
                    fresh.tell(script).await?;
                    Ok(*fresh)
                }
                None => shared.dial(&generation, script).await,
            }
        }));
        self.standby = Some(Box::new(Standby {
            attempt,
            primed,
            link,
            listens,
            marker,
            redirected,
            complete: self.requested.transaction().is_none(),
            permit: None,
        }));
    }

    /// Whether the standby can be told what is missing; otherwise, another connection is made.
    fn can_be_told_the_rest(&self, standby: &Standby) -> bool {
        let resp3 = self.state.resp3;
        // In RESP2, it listens to nothing but subscriptions.
        let is_deaf = standby.primed.subscribed() && !resp3 && self.needs_more_than_told();
        // The mark is matched in the encoding of one RESP version only.
        let marks_are_known = standby.marker.is_none() || standby.primed.resp3 == resp3;
        matches!(standby.link, StandbyLink::Ready(_))
            && !is_deaf
            && marks_are_known
            && replay::difference(&standby.primed, &self.state.carried()).is_some()
    }

    /// All sessions have told the rest, and the new uplink takes what writes.
    pub(super) fn begin_queue(&mut self, permit: OwnedSemaphorePermit) {
        let has_next = self.standby.as_ref().is_some_and(|standby| !standby.is_refused());
        let Some(cutover) = self.cutover.as_mut().filter(|_| has_next) else { return };
        if self.requested.transaction().is_some() {
            cutover.attempt.begin(self.peer);
            (cutover.permit, cutover.stage) = (Some(permit), Stage::Queue);
        }
    }

    fn tell_queue(&mut self) {
        let Some(mut standby) = self.standby.take().map(|standby| *standby) else { return };
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
        self.standby = Some(Box::new(Standby { link, complete: true, ..standby }));
    }

    /// The new uplink watches. Whether keys were touched before that, the old one knows.
    fn ask_watched(&mut self) -> Stage {
        let listens_only = self.listens_only();
        let Some(watched) = self.state.watched().filter(|_| !self.state.touched) else {
            return Stage::Done;
        };
        let Some(cutover) = self.cutover.as_mut().filter(|cutover| !cutover.watches_too_many)
        else {
            return Stage::Done;
        };
        let untouched = cutover.untouched.insert(Arc::default());
        let gone = cutover.old == OldUplink::Gone || !matches!(self.uplink, Link::Live(_));
        if watched.more || gone {
            return Stage::Done;
        }
        if let Some(id) = self.uplink_id.filter(|_| cutover.old == OldUplink::AskedForAll) {
            let watching =
                Watching { id, keys: watched.keys.clone(), untouched: untouched.clone() };
            cutover.attempt.watch(watching);
            return Stage::Done;
        }
        if self.requested.transaction().is_some() || listens_only {
            return Stage::Done;
        }
        cutover.unwatched = true;
        self.pending.push_own(Expected::Own);
        self.pending.push_own(Expected::Asked(Question::Touched));
        self.to_uplink.push(&encode::request(["MULTI"]));
        self.to_uplink.push(&encode::request(["EXEC"]));
        Stage::Watched
    }

    /// The old uplink has answered the proxy's own question.
    pub(super) fn hear(&mut self, question: Question, reply: &[u8]) {
        match question {
            Question::Position(at) => {
                if let Some(blocked) = &mut self.blocked {
                    blocked.resolve(at, blocking::position(reply));
                }
            }
            Question::Touched => {
                let untouched =
                    self.cutover.as_ref().and_then(|cutover| cutover.untouched.as_ref());
                if let Some(untouched) = untouched {
                    untouched.store(reply == b"*0\r\n", Ordering::Relaxed);
                }
            }
            Question::Barrier => {}
            Question::Id => self.learn_id(reply),
            Question::Flags => self.learn_flags(reply),
            Question::Silence(mode) => self.learn_silence(mode, reply),
        }
    }

    fn learn_id(&mut self, reply: &[u8]) {
        let id = reply.strip_prefix(b":").and_then(|line| line.strip_suffix(b"\r\n"));
        match id.and_then(ids::number) {
            Some(id) => self.is_known_as(id),
            // A user without the right to ask is a user all the same, and is served.
            None if reply.starts_with(b"-NOPERM") => {}
            None => self.refusal = reply.strip_prefix(b"-").map(Box::from),
        }
    }

    /// The new uplink could not be connected to, or would not have it.
    pub(super) fn cutover_failed(&mut self, why: &Error) {
        if let Some(cutover) = &self.cutover {
            cutover.attempt.not_carried(self.peer, why);
        }
    }

    /// The uplink is being exchanged. What nobody could be asked about counts as touched.
    pub(super) fn note_touched(&mut self) {
        if !self.state.watching() {
            return;
        }
        let untouched = self.cutover.as_ref().and_then(|cutover| cutover.untouched.as_ref());
        self.touch(!untouched.is_some_and(|it| it.load(Ordering::Relaxed)));
    }

    /// The next EXEC must fail, if this is so.
    pub(super) fn touch(&mut self, touched: bool) {
        self.state.touched |= touched;
        self.requested.fails |= touched;
    }

    /// The old uplink stays.
    pub(super) fn undo_cutover(&mut self) {
        let Some(cutover) = self.cutover.take() else { return };
        if !matches!(self.uplink, Link::Live(_)) {
            return;
        }
        // They are not watched any more, so nobody will know.
        self.touch(cutover.unwatched);
    }

    /// A blocking command that can be interrupted, and asked again.
    pub(super) fn can_be_interrupted(&self) -> bool {
        self.uplink_id.is_some()
            && self.pending.is_only_blocked()
            && self.blocked.as_ref().is_some_and(|blocked| blocked.can_be_repeated())
    }

    pub(super) fn ask_to_interrupt(&mut self, to: &mpsc::UnboundedSender<Interrupt>) {
        if !self.can_be_interrupted() {
            return;
        }
        let (Some(blocked), Some(id)) = (&mut self.blocked, self.uplink_id) else { return };
        if !blocked.is_to_be_asked() {
            return;
        }
        let ticket = Arc::<Ticket>::default();
        blocked.ticket = Some(ticket.clone());
        // Nobody listens any more: the pause is over.
        let _ = to.send(Interrupt { id, since: blocked.since, ticket });
    }
}
