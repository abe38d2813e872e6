//! What the sessions are asked, all at once, and what they are told alike.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::state::Controller;
use crate::changeover::{Interrupt, Order, Prospect, Running, facets};

/// How long to ask the sessions what they wait for.
pub(super) const ASKING: Duration = Duration::from_millis(200);
/// Sessions that are woken at once, where nothing hurries.
pub(super) const WOKEN: u32 = 64;
/// Running requests, or clients, that an answer names.
pub(super) const NAMED: usize = 5;

/// How many sessions have what.
#[derive(Debug, Default, Serialize)]
pub struct Carried {
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
    /// How many sessions have what, now.
    pub fn carried(&self) -> Carried {
        let all = self.shared.roster.facets();
        let count = |bit| all.iter().filter(|bits| **bits & bit > 0).count();
        Carried {
            transactions: count(facets::TRANSACTION),
            watching: count(facets::WATCHING),
            blocked: count(facets::BLOCKED),
            subscribed: count(facets::SUBSCRIBED),
            tracking: count(facets::TRACKING),
            monitors: count(facets::MONITOR),
            silent: count(facets::SILENT),
        }
    }

    /// Which requests keep the gate from being quiet, the oldest first.
    pub(crate) async fn running(&self) -> Vec<Running> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let ask = self.shared.roster.tell_each(
            WOKEN,
            || false,
            |permit| Order::Report(tell.clone(), permit),
        );
        // A busy worker must not hold up the answer.
        let _ = timeout(ASKING, ask).await;
        let mut running = Vec::new();
        while let Ok(request) = told.try_recv() {
            running.push(request);
        }
        running.sort_by_key(|request| request.since);
        running
    }

    pub(super) async fn prospects(&self) -> Vec<Prospect> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let order = |permit| Order::Predict(tell.clone(), permit);
        let asking = self.shared.roster.tell_each(WOKEN, || false, order);
        // A busy worker must not hold up the answer.
        let _ = timeout(ASKING, asking).await;
        let mut prospects = Vec::new();
        while let Ok(prospect) = told.try_recv() {
            prospects.push(prospect);
        }
        prospects
    }

    /// The commands that wait for data, and that nobody else is about to interrupt.
    pub(super) async fn blocked(&self, deadline: Instant) -> Vec<Interrupt> {
        let (tell, mut told) = mpsc::unbounded_channel();
        let blocked = |bits: u32| bits & facets::BLOCKED > 0;
        let order = |permit| Order::Interrupt(tell.clone(), permit);
        let asking = self.shared.roster.tell_some(blocked, WOKEN, || false, order);
        // A busy worker has until the next time.
        let _ = timeout_at(deadline, asking).await;
        let mut commands = Vec::new();
        while let Ok(command) = told.try_recv() {
            commands.push(command);
        }
        commands
    }

    pub(super) async fn abandon(&self) {
        self.shared.ids.abandon();
        self.shared.roster.tell_each(WOKEN, || false, Order::Abandon).await;
    }

    pub(super) async fn tell_settle(&self) {
        self.shared.roster.tell_each(WOKEN, || false, Order::Settle).await;
    }
}

/// The oldest few.
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
