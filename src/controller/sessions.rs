//! What the sessions are asked, all at once, and what they are told alike.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::panics::caught;
use super::state::Controller;
use crate::changeover::{Interrupt, Order, Prospect, Running, facets};

/// How long to ask the sessions what they wait for.
pub(super) const ASKING: Duration = Duration::from_millis(200);
/// How long to tell clients that they will be held, while all are served.
const TELLING: Duration = Duration::from_secs(1);
/// Sessions that are woken at once, where nothing hurries.
pub(super) const WOKEN: u32 = 64;
/// Running requests, or clients, that an answer names.
pub(super) const NAMED: usize = 5;

/// How many sessions carry what.
#[derive(Debug, Default, Serialize)]
pub struct CarriedCounts {
    /// Open transactions.
    pub transactions: usize,
    watching: usize,
    /// Commands that wait for data.
    pub blocked: usize,
    /// Subscriptions.
    pub subscribed: usize,
    /// Client-side caching.
    pub tracking: usize,
    monitors: usize,
    silent: usize,
}

impl Controller {
    /// How many sessions carry what, now.
    pub fn carried(&self) -> CarriedCounts {
        let all = self.shared.roster.facets();
        let count = |bit| all.iter().filter(|bits| **bits & bit > 0).count();
        CarriedCounts {
            transactions: count(facets::TRANSACTION),
            watching: count(facets::WATCHING),
            blocked: count(facets::BLOCKED),
            subscribed: count(facets::SUBSCRIBED),
            tracking: count(facets::TRACKING),
            monitors: count(facets::MONITOR),
            silent: count(facets::SILENT),
        }
    }

    /// Tells those sessions whose facets are wanted to answer, and gives what was answered by the
    /// deadline: a busy worker must not hold up the others.
    async fn collect<T>(
        &self,
        wanted: impl Fn(u32) -> bool,
        deadline: Instant,
        order: impl Fn(UnboundedSender<T>, OwnedSemaphorePermit) -> Order,
    ) -> Vec<T> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let order = |permit| order(tell.clone(), permit);
        let asking = self.shared.roster.tell_some(wanted, WOKEN, || false, order);
        let _ = timeout_at(deadline, asking).await;
        std::iter::from_fn(|| told.try_recv().ok()).collect()
    }

    /// Which requests keep the gate from being quiet, the oldest first.
    pub(super) async fn running(&self) -> Vec<Running> {
        let mut running = self.collect(|_| true, Instant::now() + ASKING, Order::Report).await;
        running.sort_by_key(|request| request.since);
        running
    }

    /// What a handover would make of each session.
    pub(super) async fn prospects(&self) -> Vec<Prospect> {
        self.collect(|_| true, Instant::now() + ASKING, Order::Predict).await
    }

    /// The commands that wait for data, and that nobody else is about to interrupt. A session that does
    /// not answer by the deadline is asked the next time.
    pub(super) async fn blocked(&self, deadline: Instant) -> Vec<Interrupt> {
        let is_blocked = |bits: u32| bits & facets::BLOCKED > 0;
        self.collect(is_blocked, deadline, Order::Interrupt).await
    }

    /// Has all sessions let go of what they have made ready, and keep the present uplink.
    pub(super) async fn abandon(&self) {
        self.shared.ids.abandon();
        self.shared.roster.tell_each(WOKEN, || false, Order::Abandon).await;
    }

    /// If a step of a change failed, has all sessions let go of what they have made ready for it. Nothing
    /// may go to the old uplink before that.
    pub(super) async fn or_abandon<T>(&self, step: Result<T, Error>) -> Result<T, Error> {
        if step.is_err() {
            let _ = caught(self.abandon()).await;
        }
        step
    }

    /// Has clients that listen be told, each time that clients are not held any more, until the process stops,
    /// whatever panics. Nobody waits for that.
    pub async fn tell_listeners_always(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.shared.notices.over() => {}
                () = self.shared.stop.begun() => return,
            }
            let _ = caught(self.tell_listeners()).await;
        }
    }

    /// Has clients that listen be told that clients will be held, while all are served. A busy worker is not waited
    /// for.
    pub(super) async fn tell_listeners_ahead(&self) {
        let _ = timeout_at(Instant::now() + TELLING, self.tell_listeners()).await;
    }

    async fn tell_listeners(&self) {
        let listens = |bits: u32| bits & facets::LISTENS > 0;
        self.shared.roster.tell_some(listens, WOKEN, || false, Order::Notify).await;
    }

    /// Has all sessions take the generation in force, if they have not yet.
    pub(super) async fn tell_to_take_generation(&self) {
        self.shared.roster.tell_each(WOKEN, || false, Order::TakeGeneration).await;
    }
}

/// Names the oldest few of these requests.
pub(super) fn named(running: &[Running]) -> String {
    if running.is_empty() {
        return "unknown".to_owned();
    }
    let mut names: Vec<String> = running.iter().take(NAMED).map(Running::to_string).collect();
    if running.len() > NAMED {
        names.push(format!("and {} more", running.len() - NAMED));
    }
    names.join(", ")
}
