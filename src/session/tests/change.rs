//! What the controller does to have all sessions change to the other server; it may change its mind at any time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout_at};

use super::random::Random;
use super::redis::World;
use crate::changeover::{Attempt, Marker, OldUplink, Order, facets};
use crate::generation::Generation;
use crate::shared::Shared;

/// How long clients may be held.
const LIMIT: Duration = Duration::from_millis(500);

/// Moves all sessions to this generation, whose uplink is the server of this number; with a channel of the
/// proxy's own, or without. False if it was given up.
pub async fn change(
    shared: Arc<Shared>,
    world: Rc<RefCell<World>>,
    next: Arc<Generation>,
    to: usize,
    has_channel: bool,
    seed: u64,
) -> bool {
    let mut random = Random::new(seed);
    let from = 1 - to;
    let since = next.uplink_since;
    let marker = Marker::new().filter(|_| has_channel);
    let attempt = Attempt::new(next, marker.clone(), true, false);
    let failed = || attempt.has_failed();
    let note = |what: &str| world.borrow_mut().events.push(what.to_owned());
    note("the other server is connected to");
    let roster = &shared.roster;
    roster.tell_each(2, failed, |permit| Order::Prepare(attempt.clone(), permit)).await;
    if failed() || random.one_in(6) {
        note("the handover is abandoned");
        abandon(&shared).await;
        return false;
    }
    note("the gate is shut");
    let hold = shared.gate.pause();
    let deadline = Instant::now() + LIMIT;
    if timeout_at(deadline, quiesce(&shared, &world, from, hold.quiesced())).await.is_err() {
        drop(hold);
        note("the handover is abandoned");
        abandon(&shared).await;
        return false;
    }
    note("nothing is in flight");
    for redirects in [0, facets::REDIRECTS] {
        let last =
            |bits: u32| bits & (facets::CUTOVER | facets::REDIRECTS) == facets::CUTOVER | redirects;
        let order = |permit| Order::Cutover(attempt.clone(), OldUplink::AskedForAll, permit);
        if timeout_at(deadline, roster.tell_some(last, 2, failed, order)).await.is_err() {
            panic!("the state of {:?} could not be handed over", attempt.unfinished());
        }
    }
    for watching in attempt.take_watching() {
        let untouched = world.borrow().is_untouched(from, watching.id);
        watching.untouched.store(untouched, Ordering::Relaxed);
    }
    if let Some(marker) = marker.filter(|_| attempt.is_listened()) {
        attempt.published();
        world.borrow_mut().publish_frame(&marker.publish());
    }
    note("the rest is told");
    let open = |bits: u32| bits & facets::TRANSACTION > 0;
    roster.tell_some(open, 2, failed, Order::Queue).await;
    if let Some(why) = attempt.fault() {
        panic!("a session could not be handed over: {why}");
    }
    if random.one_in(4) {
        note("the handover is abandoned");
        abandon(&shared).await;
        drop(hold);
        return false;
    }
    note("the uplink is exchanged");
    shared.ids.exchange(since);
    shared.exchange(&attempt);
    roster.announce();
    drop(hold);
    roster.tell_each(2, || false, Order::TakeGeneration).await;
    assert_eq!(attempt.outcome.closed.load(Ordering::Relaxed), 0, "{:?}", attempt.closed());
    true
}

async fn abandon(shared: &Shared) {
    shared.ids.abandon();
    shared.roster.tell_each(2, || false, Order::Abandon).await;
}

async fn quiesce(
    shared: &Shared,
    world: &RefCell<World>,
    at: usize,
    quiesced: impl Future<Output = ()>,
) {
    let mut quiesced = std::pin::pin!(quiesced);
    while quiesced.as_mut().now_or_never().is_none() {
        let (tell, mut told) = mpsc::unbounded_channel();
        let blocked = |bits: u32| bits & facets::BLOCKED > 0;
        let order = |permit| Order::Interrupt(tell.clone(), permit);
        shared.roster.tell_some(blocked, 2, || false, order).await;
        while let Ok(command) = told.try_recv() {
            let hit = world.borrow_mut().unblock(at, command.id);
            // The error and this answer come in any order.
            yield_now().await;
            command.ticket.answer(hit);
        }
        tokio::select! {
            biased;
            () = quiesced.as_mut() => return,
            () = sleep(Duration::from_millis(5)) => {}
        }
    }
}
