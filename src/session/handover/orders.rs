//! What a session is told by the controller, and what it answers.

use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use super::phase::Handover;
use crate::changeover::{Attempt, Awaits, GiveUp, Interrupt, Order, Prospect, Running};
use crate::session::Session;
use crate::session::close::Reason;

impl Session {
    /// A stop, a new generation, an order.
    pub(in crate::session) fn read_news(&mut self) {
        let orders = self.member.read_news();
        if self.shared.stop.is_stopping() {
            self.end(Reason::Stopped);
        }
        if self.shared.current.number() != self.generation.number {
            self.take_generation();
        }
        self.hear_of_outages();
        self.hear_of_notices();
        for order in orders {
            match order {
                Order::Prepare(attempt, permit) => self.prepare(attempt, permit),
                Order::Rehearse(attempt, permit) => self.rehearse(attempt, permit),
                Order::Interrupt(to, _permit) => self.ask_to_interrupt(&to),
                Order::Cutover(attempt, old, permit) => self.begin_cutover(attempt, old, permit),
                Order::Queue(permit) => self.begin_queue(permit),
                Order::Abandon(permit) => {
                    self.abandon();
                    self.dismiss(Some(permit));
                }
                Order::TakeGeneration(permit) => {
                    if let Handover::Leaving(leaving) = &mut self.handover {
                        leaving.permit = Some(permit);
                    }
                }
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
                    // Nobody listens any more: it is too late for the answer.
                    let _ = to.send(self.prospect());
                }
                Order::Notify(permit) => drop(permit),
                Order::Review(closed, _permit) => {
                    if !self.would_be_let_in() {
                        closed.fetch_add(1, Ordering::Relaxed);
                        self.lose_uplink(Reason::Withdrawn);
                    }
                }
            }
        }
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
                    _ => (name.text(), self.intake.arrived, Awaits::Reply),
                },
                (None, None) => (String::new(), self.intake.arrived, Awaits::Reply),
            };
        Some(Running {
            command,
            client: self.peer,
            since,
            awaits,
            unread: !self.to_client.is_clear(),
            interruptible: self.can_be_interrupted(),
            until: self.blocking.until_at_uplink(),
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
            connected: self.link.is_connected(),
            closed_for: self.uncarried().filter(|_| self.link.is_connected()),
            waits: self.pending.is_blocked() && !self.can_be_interrupted(),
            unknown: self.requested.unknown,
        }
    }

    fn abandon(&mut self) {
        if self.handover.is_leaving() {
            // It is another change that does not come.
            return;
        }
        self.undo_cutover();
        self.handover = Handover::Idle;
        self.keep_uplink_in_spite_of_mark();
    }

    /// The blocking command that waits can be interrupted, and asked again.
    pub(in crate::session) fn can_be_interrupted(&self) -> bool {
        self.link.id.is_some() && self.pending.is_only_blocked() && self.blocking.can_be_repeated()
    }

    fn ask_to_interrupt(&mut self, to: &mpsc::UnboundedSender<Interrupt>) {
        if !self.can_be_interrupted() {
            return;
        }
        let Some(id) = self.link.id else { return };
        if let Some((since, ticket)) = self.blocking.ask() {
            // Nobody listens any more: the pause is over.
            let _ = to.send(Interrupt { id, since, ticket });
        }
    }
}
