//! What all sessions of the process share, with whoever commands them.

use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tracing::warn;

use crate::changeover::{Attempt, ClientIds, Order};
use crate::gate::Gate;
use crate::generation::{Current, Generation};
use crate::lock::lock;
use crate::log::RateLimit;
use crate::metrics::{Metrics, SESSION_ENDS};
use crate::notices::{MOVING, Notices};
use crate::outage::Outages;
use crate::roster::Roster;
use crate::scripts::Scripts;
use crate::stop::Stop;
use crate::strangers::Strangers;
use crate::uplink::{self, Fresh, Script};

/// Clients that connect to the uplink at once; and how many of them may be such that nobody waits for.
const DIALS: usize = 64;
const IDLE_DIALS: usize = 8;

/// Whether somebody waits for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hurry {
    /// A client waits for a reply.
    Waits,
    /// No client waits.
    Idle,
}

/// What all sessions share.
#[derive(Debug)]
pub struct Shared {
    /// Where requests are admitted.
    pub gate: Arc<Gate>,
    /// Whether the uplink is lost.
    pub outages: Outages,
    /// What clients that listen are told.
    pub notices: Arc<Notices>,
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
    /// Who may connect to the uplink now.
    dials: Semaphore,
    idle_dials: Semaphore,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Shared {
    /// For so many workers.
    pub fn new(generation: Arc<Generation>, workers: usize) -> Arc<Self> {
        Arc::new(Shared {
            gate: Gate::new(workers),
            outages: Outages::default(),
            notices: Arc::default(),
            stop: Stop::default(),
            strangers: Arc::default(),
            ids: ClientIds::new(generation.uplink_since),
            current: Current::new(generation),
            roster: Roster::new(workers),
            attempt: Mutex::default(),
            scripts: Scripts::default(),
            dials: Semaphore::new(DIALS),
            idle_dials: Semaphore::new(IDLE_DIALS),
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

    /// The uplink has told of its maintenance, of this kind. Where it is about to move, it is looked up again.
    pub fn hear_of_maintenance(&self, kind: &str) {
        static HEARD: RateLimit = RateLimit::one_a_second();
        if let Some(suppressed) = HEARD.pass() {
            let addr = &self.current.load().uplink.config.addr;
            warn!(%addr, kind, suppressed, "the uplink tells of its maintenance");
        }
        if kind == MOVING {
            self.outages.uplink_moves();
        }
    }

    /// Connects to the uplink for a client, and counts it. Not too many connect at once, least of all those
    /// that nobody waits for: after an outage, all come together.
    pub async fn dial(
        &self,
        generation: &Generation,
        script: Script,
        hurry: Hurry,
    ) -> Result<Fresh, uplink::Error> {
        let _idle = match hurry {
            Hurry::Waits => None,
            // Never closed, so never an error.
            Hurry::Idle => self.idle_dials.acquire().await.ok(),
        };
        let _dial = self.dials.acquire().await;
        let result = generation.uplink.dial(script).await;
        self.metrics.count_connect(&result);
        result
    }
}
