//! The part of a reload that clients could feel: they are moved to another uplink.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};

use super::error::{Error, refused};
use super::following::Following;
use super::interrupting::LOOK;
use super::links::Links;
use super::outcome::Done;
use super::panics::{Panicked, caught, caught_now, point};
use super::sessions::{NAMED, WOKEN, named};
use super::state::Controller;
use crate::changeover::{Attempt, GiveUp, OldUplink, Order, Running, facets};
use crate::config::Fault;
use crate::gate::Hold;
use crate::generation::Generation;
use crate::limits;
use crate::notices::FailingOver;
use crate::reception::Sockets;
use crate::transport::Peer;

/// Connections to the new uplink that are made at once.
const CONNECTS: u32 = 8;
/// Sessions that tell the new uplink the rest at once.
const FINISHED: u32 = 256;
/// How long an answer of the new uplink shows that it lives.
const FRESH: Duration = Duration::from_millis(100);
/// How long running requests are waited for at an uplink that does not answer.
const SILENT: Duration = Duration::from_millis(100);
/// How long clients that are given up may take to be closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

const NOT_CAUGHT_UP: &str =
    "the new uplink, a replica of the old one, has not caught up with it in time";

/// One change from the old uplink to the new one.
pub(super) struct Swap<'a> {
    /// Who makes the change: a reload, or a switch.
    pub(super) by: &'static str,
    /// How long clients may be held.
    pub(super) limit: Duration,
    /// Clients that hold up the change for longer are closed.
    pub(super) force: bool,
    pub(super) before: &'a Arc<Generation>,
    pub(super) sockets: &'a Sockets,
    pub(super) attempt: Arc<Attempt>,
}

/// The gate is shut for an exchange, and nothing is in flight.
pub(super) struct Held {
    hold: Hold,
    /// Clients are to know that they are held.
    failing_over: FailingOver,
    pub(super) begun: Instant,
    pub(super) deadline: Instant,
    /// No operator's pause was on.
    was_open: bool,
}

impl Held {
    /// Opens the gate, unless an operator's pause keeps it shut.
    pub(super) fn release(self, done: &mut Done) {
        drop(self.hold);
        drop(self.failing_over);
        done.pause = self.was_open.then(|| self.begun.elapsed());
    }
}

impl Swap<'_> {
    /// Gives the result of `work`. If that does not end by the deadline, the change is cancelled, and `late`
    /// says why.
    pub(super) async fn in_time<T>(
        &self,
        deadline: Instant,
        late: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        timeout_at(deadline, work).await.unwrap_or_else(|_| Err(self.late(late)))
    }

    fn late(&self, what: &str) -> Error {
        late(self.by, what, "")
    }

    fn held_up(&self, moment: Moment, links: &Links, running: &[Running]) -> Error {
        held_up(self.by, moment, self.limit, self.before, links, running)
    }
}

fn late(by: &str, what: &str, more: &str) -> Error {
    Error::TimeLimit(format!("{what}; the {by} is cancelled and the old uplink goes on{more}"))
}

/// When running requests were found to be in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before anybody was held.
    Ahead,
    /// After everybody was held for as long as they may be.
    AtTheLimit,
}

/// The error of a change that running requests hold up.
pub(super) fn held_up(
    by: &str,
    moment: Moment,
    limit: Duration,
    before: &Generation,
    links: &Links,
    running: &[Running],
) -> Error {
    let (limit, addr) = (limit.as_millis(), &before.uplink.config.addr);
    let what = match links.old_is_silent() {
        true => format!("the present uplink: {addr} does not answer"),
        false => match moment {
            Moment::Ahead => format!("a request has been running for longer than {limit} ms"),
            Moment::AtTheLimit => format!("not paused within {limit} ms"),
        },
    };
    let why = links.cannot_ask().filter(|_| !links.old_is_silent());
    let why = why.map_or_else(String::new, |why| {
        format!("; blocking commands cannot be interrupted: no connection to {addr}: {why}")
    });
    late(by, &what, &format!("; still running: {}{why}", named(running)))
}

/// The reason to close a client so that the others need not wait.
pub(super) fn given_up_for(links: &Links) -> &'static str {
    match links.old_is_silent() {
        true => "a request that the old uplink did not answer",
        false => "a request that was running for longer than the limit",
    }
}

/// The fault of a change for which a connection to the new uplink could not be made.
fn not_for_all(attempt: &Attempt, why: &str) -> Fault {
    let (addr, ready) = (&attempt.generation().uplink.config.addr, attempt.ready());
    Fault::new(format!(
        "could not connect to uplink: {addr} for all clients ({ready} connected): {why}"
    ))
}

/// The fault of a process with too few file descriptors: each session needs one more while it is moved.
pub(super) fn few_descriptors(sessions: usize) -> Option<Fault> {
    let needed = sessions + limits::SPARE;
    let left = limits::descriptors_left().filter(|left| *left < needed)?;
    Some(Fault::new(format!(
        "too few file descriptors to connect all clients to the new uplink: {needed} are needed, \
         {left} are left (ulimit -n)"
    )))
}

impl Controller {
    /// Every session that has an uplink connection makes one to the new uplink, while the old one
    /// still serves. A client is closed if the new uplink refuses what that client alone has brought about;
    /// with `force`, if it refuses anything.
    pub(super) async fn prepare(
        &self,
        generation: &Arc<Generation>,
        links: &mut Links,
        force: bool,
    ) -> Result<Arc<Attempt>, Error> {
        if let Some(fault) = few_descriptors(self.shared.roster.len()) {
            return Err(refused(fault));
        }
        links.loading.ahead(&self.shared).await;
        let attempt =
            Attempt::new(generation.clone(), links.marker.clone(), links.are_related(), force);
        let failed = || attempt.has_failed();
        let prepare = |permit| Order::Prepare(attempt.clone(), permit);
        self.shared.roster.tell_each(CONNECTS, failed, prepare).await;
        if let Some(why) = attempt.fault() {
            return Err(refused(not_for_all(&attempt, &why)));
        }
        // That may have taken a while.
        links.loading.ahead(&self.shared).await;
        // The new uplink may have died since it was verified.
        generation.uplink.serves().await.map_err(refused)?;
        Ok(attempt)
    }

    /// Tries whether the new uplink takes what the clients carry, on connections that are let go afterwards.
    /// The attempt knows which clients would be closed.
    pub(super) async fn rehearse(
        &self,
        generation: &Arc<Generation>,
        force: bool,
    ) -> Result<Arc<Attempt>, Error> {
        let attempt = Attempt::new(generation.clone(), None, false, force);
        let order = |permit| Order::Rehearse(attempt.clone(), permit);
        self.shared.roster.tell_each(CONNECTS, || attempt.has_failed(), order).await;
        match attempt.fault() {
            Some(why) => Err(refused(not_for_all(&attempt, &why))),
            None => Ok(attempt),
        }
    }

    /// Does what the clients feel: running requests end, the new uplink is told the rest of what clients
    /// carry, and one pointer is exchanged. The inner result tells what panicked after that.
    pub(super) async fn swap(
        &self,
        swap: &Swap<'_>,
        links: &mut Links,
        following: &mut Following,
        done: &mut Done,
    ) -> Result<Result<(), Panicked>, Error> {
        let held = self.or_abandon(self.hold(swap, links, done).await).await?;
        let told = caught(async {
            point("reload:telling");
            let caught_up = swap.in_time(held.deadline, NOT_CAUGHT_UP, following.catch_up());
            self.finish(swap, links, &held, caught_up).await?;
            point("reload:queueing");
            self.queue(swap, held.deadline).await?;
            if held.begun.elapsed() > FRESH {
                // It may have died while a running request was waited for.
                swap.attempt.generation().uplink.serves().await.map_err(refused)?;
            }
            Ok(())
        });
        let told = match told.await {
            Ok(told) => told,
            Err(why) => Err(self.end_panicked(swap.before.number, &why).await),
        };
        self.or_abandon(told).await?;
        done.warnings.extend(links.loading.warnings());
        Ok(self.exchange(swap, held, done))
    }

    /// The running requests that would hold everybody up in vain.
    pub(super) async fn in_the_way(&self, limit: Duration, links: &Links) -> Vec<Running> {
        let (silent, may_unblock) = (links.old_is_silent(), links.rights.may_unblock);
        let mut running = self.running().await;
        running.retain(|it| silent || it.is_slow(limit, may_unblock));
        running
    }

    /// What cannot succeed is found out while clients are served: requests that have been running for
    /// longer than anybody may be held for, and requests at an uplink that does not answer.
    async fn make_way(&self, swap: &Swap<'_>, links: &Links, done: &mut Done) -> Result<(), Error> {
        let in_the_way = self.in_the_way(swap.limit, links).await;
        if in_the_way.is_empty() {
            return Ok(());
        }
        if swap.force {
            let which = match links.old_is_silent() {
                true => GiveUp::Running,
                false => GiveUp::Slow { limit: swap.limit, may_unblock: links.rights.may_unblock },
            };
            self.give_up(swap, which, links).await;
            return Ok(());
        }
        let why = swap.held_up(Moment::Ahead, links, &in_the_way);
        done.held_up_by = in_the_way;
        Err(why)
    }

    async fn give_up(&self, swap: &Swap<'_>, which: GiveUp, links: &Links) {
        let reason = given_up_for(links);
        let order = |permit| Order::GiveUp(swap.attempt.clone(), which, reason, permit);
        self.shared.roster.tell_each(WOKEN, || false, order).await;
    }

    /// Shuts the gate, and waits until nothing is in flight. Clients that listen are told before, while they are served.
    pub(super) async fn hold(
        &self,
        swap: &Swap<'_>,
        links: &mut Links,
        done: &mut Done,
    ) -> Result<Held, Error> {
        let failing_over = self.shared.notices.failing_over(Some(swap.limit));
        self.tell_listeners_ahead().await;
        self.make_way(swap, links, done).await?;
        let was_open = self.shared.gate.is_open();
        let begun = Instant::now();
        let limit = if links.old_is_silent() { swap.limit.min(SILENT) } else { swap.limit };
        let hold = self.shared.gate.pause();
        if self.quiesce(hold.quiesced_by(begun + limit), links, begun + limit).await {
            let deadline = begun + swap.limit;
            return Ok(Held { hold, failing_over, begun, deadline, was_open });
        }
        let running = self.running().await;
        if swap.force {
            self.give_up(swap, GiveUp::Running, links).await;
            let now = Instant::now();
            if hold.quiesced_by(now + CLOSED_WITHIN).await {
                // The others have the whole time for what is left to be done.
                let deadline = now + swap.limit;
                return Ok(Held { hold, failing_over, begun, deadline, was_open });
            }
        }
        let why = swap.held_up(Moment::AtTheLimit, links, &running);
        done.held_up_by = running;
        Err(why)
    }

    /// Puts the new uplink in force: from here on, clients use it. Whatever panics here, the gate does not
    /// open to the old uplink.
    pub(super) fn exchange(
        &self,
        swap: &Swap<'_>,
        held: Held,
        done: &mut Done,
    ) -> Result<(), Panicked> {
        let injected = caught_now(|| point(&format!("{}:exchanging", swap.by)));
        let retired = caught_now(|| self.reception.retire(swap.sockets, swap.before));
        let since = swap.attempt.generation().uplink_since;
        let renumbered = caught_now(|| self.shared.ids.exchange(since));
        let scripts = caught_now(|| self.shared.scripts.moved());
        self.shared.exchange(&swap.attempt);
        // Before the gate opens: whoever is let in must see it.
        self.shared.roster.announce();
        held.release(done);
        if let Some(pause) = done.pause {
            self.shared.metrics.reload_pauses.observe(pause, 1);
        }
        injected.and(retired).and(renumbered).and(scripts)
    }

    /// Waits until nothing is in flight. Commands that wait for data are not waited for: they are
    /// interrupted, and asked again later.
    async fn quiesce(
        &self,
        quiesced: impl Future<Output = bool>,
        links: &mut Links,
        deadline: Instant,
    ) -> bool {
        tokio::pin!(quiesced);
        loop {
            if let Some(quiesced) = quiesced.as_mut().now_or_never() {
                return quiesced;
            }
            // An answer that was not waited for would be taken for the next one.
            self.interrupt(links, deadline).await;
            tokio::select! {
                biased;
                quiesced = quiesced.as_mut() => return quiesced,
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn interrupt(&self, links: &mut Links, deadline: Instant) {
        if !links.rights.may_unblock {
            return;
        }
        let commands = self.blocked(deadline).await;
        if !commands.is_empty() {
            links.interrupt(commands, deadline).await;
        }
    }

    /// Tells the new uplink, once it has caught up, what could not be told before nothing was in flight, but
    /// for open transactions. Up to the end of this, everything can be undone.
    pub(super) async fn finish<T>(
        &self,
        swap: &Swap<'_>,
        links: &mut Links,
        held: &Held,
        caught_up: impl Future<Output = Result<T, Error>>,
    ) -> Result<(), Error> {
        // What was written to keys before they are watched there is no touch.
        caught_up.await?;
        let (attempt, deadline) = (&swap.attempt, held.deadline);
        let addr = &attempt.generation().uplink.config.addr;
        let old = match links.rights.may_list {
            _ if links.old_is_gone() => OldUplink::Gone,
            true => OldUplink::AskedForAll,
            false => OldUplink::AskedBySessions,
        };
        for redirects in [0, facets::REDIRECTS] {
            let last = |bits: u32| {
                bits & (facets::CUTOVER | facets::REDIRECTS) == facets::CUTOVER | redirects
            };
            let order = |permit| Order::Cutover(attempt.clone(), old, permit);
            self.tell_last(swap, deadline, last, order).await?;
        }
        links.ask_watched(attempt.take_watching(), deadline).await;
        links.loading.rest(&self.shared, deadline).await;
        // What was written to a master reaches its replica before this does.
        if links.marker.is_some() && (attempt.is_listened() || links.is_replica()) {
            attempt.published();
            let lost = |why| refused(Fault::new(format!("lost uplink: {addr}: {why}")));
            let published = async { links.publish_mark().await.map_err(lost) };
            swap.in_time(deadline, NOT_CAUGHT_UP, published).await?;
        }
        Ok(())
    }

    /// Begins open transactions again at the new uplink. A replica would not queue what writes.
    pub(super) async fn queue(&self, swap: &Swap<'_>, deadline: Instant) -> Result<(), Error> {
        let open = |bits: u32| bits & facets::TRANSACTION > 0;
        self.tell_last(swap, deadline, open, Order::Queue).await
    }

    async fn tell_last(
        &self,
        swap: &Swap<'_>,
        deadline: Instant,
        wanted: impl Fn(u32) -> bool,
        order: impl Fn(OwnedSemaphorePermit) -> Order,
    ) -> Result<(), Error> {
        let attempt = &swap.attempt;
        let failed = || attempt.has_failed();
        let telling = self.shared.roster.tell_some(wanted, FINISHED, failed, order);
        if timeout_at(deadline, telling).await.is_err() {
            let clients = attempt.unfinished();
            let named: Vec<String> = clients.iter().take(NAMED).map(Peer::to_string).collect();
            let (count, named) = (clients.len(), named.join(", "));
            let what = format!("the state of {count} clients ({named}) could not be handed over");
            return Err(swap.late(&format!("{what} in time")));
        }
        let Some(why) = attempt.fault() else { return Ok(()) };
        let addr = &swap.attempt.generation().uplink.config.addr;
        Err(refused(Fault::new(format!("could not hand over to uplink: {addr} {why}"))))
    }
}
