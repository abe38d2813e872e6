//! A new generation: the uplink is exchanged at a safe point, for one that was made ready before.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::close::Reason;
use super::outbox::Outbox;
use super::protocol::effect::Effect;
use super::protocol::pending::View;
use super::protocol::replay;
use super::protocol::requested::Silence;
use super::protocol::state::INVALIDATIONS;
use super::standby::{Standby, StandbyLink};
use super::{Link, Session, poll_read};
use crate::changeover::{Attempt, Awaits, GiveUp, NOT_TAKEN, Order, Prospect, Running, facets};
use crate::generation::Shown;
use crate::resp::reply;
use crate::uplink::Fresh;

/// Messages of the old uplink that could not be delivered in time.
const UNREAD: &str = "messages that were not read in time";
/// Only the uplink that has queued it can execute it.
const TOO_LARGE: &str = "a transaction that is too large to be carried";

impl Session {
    /// A stop, a new generation, an order.
    pub(super) fn read_news(&mut self) {
        let orders = self.member.read_news();
        if self.shared.stop.is_stopping() {
            self.end(Reason::Stopped);
        }
        if self.shared.current.number() != self.generation.number {
            self.take_generation();
        }
        for order in orders {
            match order {
                Order::Prepare(attempt, permit) => self.prepare(attempt, permit),
                Order::Rehearse(attempt, permit) => self.rehearse(attempt, permit),
                Order::Interrupt(to, _permit) => self.ask_to_interrupt(&to),
                Order::Cutover(attempt, old, permit) => self.begin_cutover(attempt, old, permit),
                Order::Queue(permit) => self.begin_queue(permit),
                Order::Abandon(_permit) => self.abandon(),
                Order::Settle(permit) => self.settling = self.leaving.then_some(permit),
                Order::Report(to, _permit) => {
                    if let Some(running) = self.running() {
                        // Nobody listens any more: it is too late for the answer.
                        let _ = to.send(running);
                    }
                }
                Order::GiveUp(attempt, which, reason, _permit) => {
                    self.give_up(&attempt, which, reason);
                }
                Order::Predict(to, _permit) => {
                    // As above.
                    let _ = to.send(self.prospect());
                }
                Order::Review(closed, _permit) => {
                    if !self.would_be_let_in() {
                        closed.fetch_add(1, Ordering::Relaxed);
                        self.lose_uplink(Reason::Withdrawn);
                    }
                }
            }
        }
    }

    /// Whether what the client has shown lets it in today. Before AUTH, it has yet to show that.
    fn would_be_let_in(&self) -> bool {
        let listen = &self.generation.listen;
        let login = &listen.config.login;
        let is_known =
            login.is_none() || !self.requested.is_authenticated() || self.let_in_by == *login;
        is_known && listen.takes(&Shown::on(&self.client))
    }

    fn running(&self) -> Option<Running> {
        if self.passes.held() == 0 {
            return None;
        }
        let (command, since, awaits) =
            match (self.requested.pinned_since, self.pending.oldest_admitted()) {
                (Some(since), _) => ("multi".to_owned(), since, Awaits::Exec),
                (None, Some((name, Some(sent)))) => (name.text(), sent, Awaits::Reply),
                (None, Some((name, None))) => match self.intake.arriving {
                    Some(arriving) if self.intake.is_incomplete() => {
                        (name.text(), arriving.since, Awaits::Rest)
                    }
                    // The uplink has not taken all of it.
                    _ => (name.text(), self.arrived, Awaits::Reply),
                },
                (None, None) => (String::new(), self.arrived, Awaits::Reply),
            };
        Some(Running {
            command,
            client: self.peer,
            since,
            awaits,
            unread: !self.to_client.is_clear(),
            interruptible: self.can_be_interrupted(),
            until: self.blocked.as_ref().and_then(|blocked| blocked.until),
        })
    }

    /// The others are not to wait for this one.
    fn give_up(&mut self, attempt: &Attempt, which: GiveUp, reason: &'static str) {
        let is_one = self.running().is_some_and(|running| match which {
            GiveUp::Running => true,
            GiveUp::Slow { limit, may_unblock } => running.is_slow(limit, may_unblock),
        });
        if is_one {
            attempt.close(self.peer, reason);
            self.lose_uplink(Reason::NotCarried(reason));
        }
    }

    fn prospect(&self) -> Prospect {
        Prospect {
            client: self.peer,
            db: self.state.db,
            connected: self.is_connected(),
            closed_for: self.uncarried().filter(|_| self.is_connected()),
            waits: self.pending.is_blocked() && !self.can_be_interrupted(),
            unknown: self.requested.unknown,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.uplink, Link::Live(_) | Link::Dialling(_))
    }

    /// The connection to which this one redirects its invalidations has to drop its cache at a handover.
    fn note_target(&mut self) {
        let target = self.state.tracking().and_then(|tracking| tracking.redirect);
        if target != self.target {
            self.shared.ids.redirected(self.target, target);
            self.target = target;
        }
    }

    /// Tells those who look for such sessions what this one is like.
    pub(super) fn mark(&mut self) {
        self.note_target();
        let state = &self.state;
        let bits = [
            (self.requested.transaction().is_some(), facets::TRANSACTION),
            (state.watching(), facets::WATCHING),
            (self.blocked.is_some() || self.intake.resumed.is_some(), facets::BLOCKED),
            (state.subscribed(), facets::SUBSCRIBED),
            (state.tracking().is_some(), facets::TRACKING),
            (state.monitor, facets::MONITOR),
            (self.requested.silence() == Silence::Always, facets::SILENT),
            (self.needs_cutover(), facets::CUTOVER),
            (state.touched, facets::TOUCHED),
            (state.tracking().is_some_and(|it| it.redirect.is_some()), facets::REDIRECTS),
        ];
        let set = bits.iter().filter(|(is, _)| *is);
        let before = self.member.set_facets(set.fold(0, |facets, (_, bit)| facets | bit));
        if (before & facets::TOUCHED > 0) != state.touched
            && let Some(id) = self.id
        {
            self.shared.ids.touched(id, state.touched);
        }
    }

    /// What a handover would lose.
    pub(super) fn uncarried(&self) -> Option<&'static str> {
        // Also one that the uplink answered before its end: nobody may hear of the rest.
        if self.intake.is_incomplete() && (self.intake.stalled || self.passes.held() == 0) {
            return Some("a long request of which only a part has come");
        }
        if self.is_pinned() && self.requested.pinned_since.is_none() {
            return Some(TOO_LARGE);
        }
        if self.standby.as_ref().is_some_and(|next| next.is_refused()) {
            return Some(NOT_TAKEN);
        }
        self.state.uncarried()
    }

    fn abandon(&mut self) {
        self.standby = None;
        self.undo_cutover();
        // It may be on its way.
        let sure = self.marker.is_none();
        self.filter.iter_mut().for_each(|swallow| match sure {
            true => swallow.ignore_mark(),
            false => swallow.forget_mark(),
        });
        self.unsubscribe_mark();
        // What came after the mark is for the client now.
        self.marked = false;
        self.mark();
    }

    /// Takes the generation in force. The gate was quiet when it came, so this session is at a
    /// safe point, but for what [`Session::uncarried`] names.
    fn take_generation(&mut self) {
        let generation = self.shared.current.load();
        let replaced = generation.uplink_since != self.generation.uplink_since;
        let before = std::mem::replace(&mut self.generation, generation);
        if !self.pending.is_empty() && self.earlier.is_none() {
            self.earlier = Some(Box::new((Instant::now(), before)));
        }
        if self.generation.listen.config.login.is_none() {
            self.authenticate(true);
        }
        self.set_taps();
        if !replaced || matches!(self.uplink, Link::Lost) {
            return;
        }
        if let Some(what) = self.uncarried().filter(|_| self.is_connected()) {
            return self.lose_uncarried(what);
        }
        if self.may_leave() {
            self.exchange();
        } else {
            self.leaving = true;
            self.leave_by = Some(Instant::now() + self.generation.settings.pause_time_limit);
        }
    }

    /// The uplink is replaced, and this cannot be carried over.
    fn lose_uncarried(&mut self, what: &'static str) {
        if let Some(attempt) = self.shared.attempt() {
            attempt.close(self.peer, what);
        }
        self.lose_uplink(Reason::NotCarried(what));
    }

    /// The old uplink has said all that it has to say.
    fn may_leave(&self) -> bool {
        let awaits_mark = self.filter.as_ref().is_some_and(|swallow| swallow.awaits_mark());
        let published = self
            .standby
            .as_ref()
            .is_some_and(|next| next.attempt.marker().is_none() || next.attempt.is_published());
        !(self.replies.in_frame() || (awaits_mark && published && self.is_connected()))
    }

    /// True if the uplink was exchanged now.
    pub(super) fn poll_leave(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.leaving {
            return false;
        }
        if self.may_leave() {
            self.exchange();
            return true;
        }
        if self.leave_by.is_some_and(|at| self.poll_timer(at, cx).is_ready()) {
            self.lose_uncarried(UNREAD);
        }
        false
    }

    /// The present uplink is gone, or is let go; nothing is owed to the client.
    pub(super) fn let_go(&mut self) {
        if !self.leaving {
            // The next one may be the same, and may have forgotten it all.
            self.drop_cache(false);
        }
        self.forget_uplink();
        if let Some(id) = self.id {
            self.shared.ids.lost(id);
        }
        // Nobody can be asked any more.
        self.touch(self.state.watching());
        if self.leaving {
            self.exchange();
        } else if self.hears_unasked() {
            self.revive = Some(self.shared.gate.wait());
        }
        self.mark();
    }

    fn forget_uplink(&mut self) {
        if self.is_connected() {
            // Requests may come before it is dialled, and change what is to be told.
            let script = self.restoring_script();
            self.restore = Some(Box::new(script)).filter(|script| !script.is_empty());
        }
        // What is still owed are replies to the proxy's own requests, and what waits behind them.
        for local in self.pending.take_locals() {
            self.send_local(&local);
        }
        self.to_uplink = Outbox::default();
        self.replies = reply::Scanner::default();
        (self.view, self.kept, self.partial) = (View::Shown, None, false);
        (self.filter, self.marker, self.marked) = (None, None, false);
        self.unread = Vec::new();
        (self.uplink, self.uplink_id) = (Link::Absent, None);
    }

    /// An uplink may have something to say to this client that it did not ask for.
    fn hears_unasked(&self) -> bool {
        self.state.subscribed() || self.state.monitor || self.state.tracking().is_some()
    }

    fn exchange(&mut self) {
        let was_connected = self.is_connected();
        (self.leaving, self.leave_by, self.revive) = (false, None, None);
        self.note_touched();
        self.forget_uplink();
        self.settling = None;
        // Without one that is ready, the next request will dial.
        let next = self.standby.take();
        let made_ready = next.filter(|it| Arc::ptr_eq(it.attempt.generation(), &self.generation));
        let redirected = made_ready.as_ref().is_some_and(|next| next.redirected);
        if let Some(next) = made_ready {
            self.take_standby(*next);
        }
        self.cutover = None;
        // Nobody watches until it is dialled.
        self.touch(self.state.watching() && !matches!(self.uplink, Link::Live(_)));
        if was_connected {
            self.count_move();
        }
        self.drop_cache(redirected && matches!(self.uplink, Link::Live(_)));
        if matches!(self.uplink, Link::Absent) && self.hears_unasked() {
            self.dial();
        }
        self.exchanged = true;
        self.mark();
    }

    fn take_standby(&mut self, next: Standby) {
        let StandbyLink::Ready(mut fresh) = next.link else { return };
        // Where the old uplink was lost in the pause, not everything could be told.
        let knows_all = next.complete || !self.needs_more_than_told();
        let changed = replay::difference(&next.primed, &self.state.carried());
        if !knows_all || !changed.is_some_and(|rest| rest.is_empty()) {
            return;
        }
        if !read_ahead(&mut fresh) {
            return;
        }
        let early = std::mem::take(&mut fresh.early);
        self.connect(*fresh);
        self.restore = None;
        match next.listens {
            Some(listens) => {
                self.replies = listens.scanner;
                self.view = View::Hidden;
                self.filter = Some(Box::new(listens.filter)).filter(|it| it.awaits_mark());
            }
            None => self.view = View::Shown,
        }
        self.unread = early;
        self.marker = next.marker;
        self.unsubscribe_mark();
    }

    fn count_move(&self) {
        let Some(attempt) = self.shared.attempt() else { return };
        let (outcome, state) = (&attempt.outcome, &self.state);
        let watching = state.watching();
        for (counter, is_one) in [
            (&outcome.moved, true),
            (&outcome.made_ready, matches!(self.uplink, Link::Live(_))),
            (&outcome.transactions, self.requested.transaction().is_some()),
            (&outcome.watched, watching && !state.touched),
            (&outcome.touched, state.touched),
            (&outcome.blocked, self.is_interrupted()),
            (&outcome.subscribed, state.subscribed()),
            (&outcome.tracking, state.tracking().is_some()),
            (&outcome.monitors, state.monitor),
        ] {
            counter.fetch_add(u64::from(is_one), Ordering::Relaxed);
        }
    }

    /// What the client has cached, the new uplink knows nothing of.
    fn drop_cache(&mut self, redirected: bool) {
        let redirect = self.state.tracking().map(|tracking| tracking.redirect);
        if let Some(Some(target)) = redirect.filter(|_| !redirected) {
            // As Redis does when the other connection is gone.
            if self.state.resp3 {
                let broken = format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{target}\r\n");
                self.send_local(broken.as_bytes());
            }
            self.state.apply(Effect::NoTracking);
        }
        let is_target = self.id.is_some_and(|id| self.shared.ids.is_target(id));
        if self.state.resp3 && (redirect == Some(None) || is_target) {
            self.send_local(b">2\r\n$10\r\ninvalidate\r\n_\r\n");
        } else if self.state.hears_invalidations() {
            let (channel, len) = (String::from_utf8_lossy(INVALIDATIONS), INVALIDATIONS.len());
            let all = format!("*3\r\n$7\r\nmessage\r\n${len}\r\n{channel}\r\n*-1\r\n");
            self.send_local(all.as_bytes());
        }
    }
}

/// Reads what came since it was made ready; false if it was closed.
fn read_ahead(fresh: &mut Fresh) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let mut chunk = [0; 1024];
    match poll_read(&mut fresh.stream, &mut cx, &mut chunk) {
        Poll::Pending => true,
        Poll::Ready(Ok(read)) if read > 0 => {
            fresh.early.extend_from_slice(&chunk[..read]);
            true
        }
        Poll::Ready(_) => false,
    }
}
