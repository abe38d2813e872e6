//! What all sessions of the process share, with whoever commands them.

use std::sync::{Arc, Mutex};

use crate::changeover::{Attempt, ClientIds, Order};
use crate::gate::Gate;
use crate::generation::{Current, Generation};
use crate::lock::lock;
use crate::metrics::{Metrics, SESSION_ENDS};
use crate::roster::Roster;
use crate::scripts::Scripts;
use crate::stop::Stop;
use crate::strangers::Strangers;
use crate::uplink::{self, Fresh, Script};

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    /// Where requests are admitted.
    pub gate: Arc<Gate>,
    /// Tells of the end.
    pub stop: Stop,
    /// Those that have not logged in.
    pub strangers: Arc<Strangers>,
    /// The configuration in force.
    pub current: Current,
    /// All sessions, so that they can be told of a reload.
    pub roster: Arc<Roster<Order>>,
    /// The last attempt to change the uplink that succeeded.
    attempt: Mutex<Option<Arc<Attempt>>>,
    /// Their ids.
    pub ids: ClientIds,
    /// Scripts that went by.
    pub scripts: Scripts,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Shared {
    /// For so many workers.
    pub fn new(generation: Arc<Generation>, workers: usize) -> Arc<Self> {
        Arc::new(Shared {
            gate: Gate::new(workers),
            stop: Stop::default(),
            strangers: Arc::default(),
            ids: ClientIds::new(generation.uplink_since),
            current: Current::new(generation),
            roster: Roster::new(workers),
            attempt: Mutex::default(),
            scripts: Scripts::default(),
            metrics: Metrics::new(workers, &SESSION_ENDS),
        })
    }

    /// Puts the generation of this attempt in force. A session that sees the generation sees the attempt.
    pub fn exchange(&self, attempt: &Arc<Attempt>) {
        *lock(&self.attempt) = Some(attempt.clone());
        self.current.exchange(attempt.generation().clone());
    }

    /// The attempt that has brought the uplink in force; `None` if that is there since the start.
    pub fn attempt(&self) -> Option<Arc<Attempt>> {
        lock(&self.attempt).clone()
    }

    /// Connects to the uplink for a client, and counts it.
    pub async fn dial(
        &self,
        generation: &Generation,
        script: Script,
    ) -> Result<Fresh, uplink::Error> {
        let result = generation.uplink.dial(script).await;
        self.metrics.count_connect(&result);
        result
    }
}
