//! The uplink is exchanged for that of a new generation, or is let go.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::phase::{Handover, Leaving, Remains};
use super::standby::{Standby, StandbyLink};
use crate::clock;
use crate::session::close::Reason;
use crate::session::link::LinkState;
use crate::session::protocol::effect::Effect;
use crate::session::protocol::pending::View;
use crate::session::protocol::replay;
use crate::session::protocol::state::INVALIDATIONS;
use crate::session::reply_stream::ReplyStream;
use crate::session::{Earlier, Session, poll_read};
use crate::uplink::Fresh;

/// Messages of the old uplink that could not be delivered in time.
const UNREAD: &str = "messages that were not read in time";

impl Session {
    /// Takes the generation in force. The gate was quiet when it came, so this session is at a
    /// safe point, but for what [`Session::uncarried`] names.
    pub(in crate::session) fn take_generation(&mut self) {
        let generation = self.shared.current.load();
        let replaced = generation.uplink_since != self.generation.uplink_since;
        let before = std::mem::replace(&mut self.generation, generation);
        if !self.pending.is_empty() && self.earlier.is_none() {
            let replaced = clock::now();
            self.earlier = Some(Box::new(Earlier { generation: before, replaced }));
        }
        if self.generation.listen.config.login.is_none() {
            self.authenticate(true);
        }
        self.set_taps();
        if !replaced || self.link.is_lost() {
            return;
        }
        if let Some(what) = self.uncarried().filter(|_| self.link.is_connected()) {
            return self.lose_uncarried(what);
        }
        if self.may_leave() {
            self.exchange();
        } else {
            let Remains { standby, untouched, permit } = self.handover.end();
            let until = clock::now() + self.generation.settings.pause_time_limit;
            let leaving = Leaving { standby, untouched, until, permit };
            self.handover = Handover::Leaving(Box::new(leaving));
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
        if self.replies.scanner.in_frame() {
            return false;
        }
        let is_published = self
            .handover
            .standby()
            .is_some_and(|next| next.attempt.marker().is_none() || next.attempt.is_published());
        !(is_published && self.replies.awaits_mark() && self.link.is_connected())
    }

    /// True if the uplink was exchanged now.
    pub(in crate::session) fn poll_leave(&mut self, cx: &mut Context<'_>) -> bool {
        let Handover::Leaving(leaving) = &self.handover else { return false };
        let until = leaving.until;
        if self.may_leave() {
            self.exchange();
            return true;
        }
        if self.timer.poll(until, cx).is_ready() {
            self.lose_uncarried(UNREAD);
        }
        false
    }

    /// The present uplink is gone, or is let go; nothing is owed to the client.
    pub(in crate::session) fn let_go(&mut self) {
        self.part_from_uplink();
        if self.handover.is_leaving() {
            self.exchange();
        } else if self.hears_unasked()
            && let LinkState::Absent(absent) = &mut self.link.state
        {
            absent.revive = Some(self.shared.gate.wait());
        }
    }

    /// The present uplink is gone, or is let go, and the client stays. Requests that are owed a reply stay owed.
    pub(in crate::session) fn part_from_uplink(&mut self) {
        if !self.handover.is_leaving() {
            // The next one may be the same, and may have forgotten it all.
            self.drop_cache(false);
        }
        self.forget_uplink();
        if let Some(id) = self.id {
            self.shared.ids.lost(id);
        }
        // Nobody can be asked any more.
        self.touch(self.state.watching());
    }

    fn forget_uplink(&mut self) {
        if self.link.held() > 0 {
            // There is none, and what is owed is sent to the next.
            return;
        }
        // Requests may come before it is dialled, and change what is to be told.
        let restore = self.link.is_connected().then(|| self.restoring_script());
        if self.pending.is_for_the_proxy() {
            // What is still owed are replies to the proxy's own requests, and what waits behind them.
            for local in self.pending.take_locals() {
                self.send_local(&local);
            }
        }
        self.replies = ReplyStream::default();
        self.link.forget(restore);
    }

    /// An uplink may have something to say to this client that it did not ask for.
    fn hears_unasked(&self) -> bool {
        self.state.subscribed() || self.state.monitor || self.state.tracking().is_some()
    }

    fn exchange(&mut self) {
        let was_connected = self.link.is_connected();
        let Remains { standby, untouched, permit } = self.handover.end();
        self.note_touched(&untouched);
        self.forget_uplink();
        // Without one that is ready, the next request dials.
        let is_ready = |it: &Standby| Arc::ptr_eq(it.attempt.generation(), &self.generation);
        // Requests that are held are to be let in first.
        let ready = standby.filter(|it| is_ready(it) && self.link.held() == 0);
        let redirected = ready.as_ref().is_some_and(|standby| standby.redirected);
        if let Some(standby) = ready {
            self.take_standby(standby);
        }
        // Nobody watches until it is dialled.
        self.touch(self.state.watching() && !self.link.is_live());
        if was_connected {
            self.count_move();
        }
        self.drop_cache(redirected && self.link.is_live());
        if self.link.is_absent() && self.link.held() == 0 && self.hears_unasked() {
            self.dial();
        }
        self.link.was_exchanged = true;
        // The old uplink is let go, and this was counted.
        self.dismiss(permit);
    }

    fn take_standby(&mut self, standby: Standby) {
        let StandbyLink::Ready(mut fresh) = standby.link else { return };
        // Where the old uplink was lost in the pause, not everything could be told.
        let knows_all = standby.complete || !self.needs_more_than_told();
        let changed = replay::difference(&standby.primed, &self.state.carried());
        if !knows_all || !changed.is_some_and(|rest| rest.is_empty()) {
            return;
        }
        if read_ahead(&mut fresh).is_err() {
            return;
        }
        let (marker, unread) = (standby.marker, std::mem::take(&mut fresh.early));
        if let Some(listens) = standby.listens {
            self.replies.scanner = listens.scanner;
            self.replies.view = View::Hidden;
            self.replies.filter = Some(Box::new(listens.filter)).filter(|it| it.awaits_mark());
        }
        self.replies.marker = marker;
        self.link.outages = self.shared.outages.number();
        self.connect(*fresh);
        self.replies.unread = unread;
        self.unsubscribe_mark();
    }

    fn count_move(&self) {
        let Some(attempt) = self.shared.attempt() else { return };
        let (outcome, state) = (&attempt.outcome, &self.state);
        let watching = state.watching();
        for (counter, is_one) in [
            (&outcome.moved, true),
            (&outcome.made_ready, self.link.is_live()),
            (&outcome.transactions, self.requested.transaction().is_some()),
            (&outcome.watched, watching && !state.is_touched()),
            (&outcome.touched, state.is_touched()),
            (&outcome.blocked, self.blocking.is_at_gate()),
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

/// Reads what came since the connection was made ready.
///
/// # Errors
///
/// The connection was closed.
fn read_ahead(fresh: &mut Fresh) -> io::Result<()> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut chunk = [0; 1024];
    match poll_read(&mut fresh.stream, &mut cx, &mut chunk) {
        Poll::Pending => Ok(()),
        Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Poll::Ready(Ok(read)) => {
            fresh.early.extend_from_slice(&chunk[..read]);
            Ok(())
        }
        Poll::Ready(Err(why)) => Err(why),
    }
}
