//! How far a session has come on its way to the next uplink.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::standby::Standby;
use crate::changeover::{Attempt, OldUplink};

/// How far a session has come on its way to the next uplink.
#[derive(Default)]
pub enum Handover {
    /// No other uplink is in sight.
    #[default]
    Idle,
    /// The next connection is made, while the present one serves.
    Prepared(Box<Standby>),
    /// The gate is shut, and quiet: what can only be told now is told.
    Cutover(Box<Cutover>),
    /// The new uplink is in force, and the old one has something to say yet.
    Leaving(Box<Leaving>),
}

/// What can only be told while nothing is in flight.
pub struct Cutover {
    pub attempt: Arc<Attempt>,
    pub old: OldUplink,
    pub permit: Option<OwnedSemaphorePermit>,
    pub stage: CutoverStage,
    /// Keys were watched at the old uplink, and are not any more.
    pub unwatched: bool,
    /// All clients together watch too many keys for this one's to be carried.
    pub watches_too_many: bool,
    pub untouched: Untouched,
    /// `None` if it could not be made.
    pub standby: Option<Standby>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutoverStage {
    /// The old uplink answers what it must be asked first.
    Old,
    /// The new one is told.
    New,
    /// The old one is asked about watched keys, which the new one watches by now.
    Watched,
    /// The new one is to be told of the open transaction.
    Queue,
    /// The new one is being told of the open transaction.
    Queued,
    Done,
}

/// The old uplink is not let go yet.
pub struct Leaving {
    /// Without one, the next request dials.
    pub standby: Option<Standby>,
    pub untouched: Untouched,
    /// When the old uplink is let go, whatever it may have to say yet.
    pub until: Instant,
    /// Somebody waits until it is let go.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What a phase leaves to the next one.
#[derive(Default)]
pub struct Remains {
    pub standby: Option<Standby>,
    pub untouched: Untouched,
    /// Somebody waits until the old uplink is let go.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Whether it is certain that no watched key was touched. The controller sets it, or the old uplink's own
/// answer does.
#[derive(Debug, Default, Clone)]
pub struct Untouched(Option<Arc<AtomicBool>>);

impl Untouched {
    /// Somebody is asked, who is to set this.
    pub fn ask(&mut self) -> &Arc<AtomicBool> {
        self.0.insert(Arc::default())
    }

    /// The old uplink has answered.
    pub fn answer(&self, untouched: bool) {
        if let Some(it) = &self.0 {
            it.store(untouched, Ordering::Relaxed);
        }
    }

    pub fn is_certain(&self) -> bool {
        self.0.as_ref().is_some_and(|it| it.load(Ordering::Relaxed))
    }
}

impl Handover {
    /// The next connection, if it is made, or being made.
    pub fn standby(&self) -> Option<&Standby> {
        match self {
            Handover::Idle => None,
            Handover::Prepared(standby) => Some(standby),
            Handover::Cutover(cutover) => cutover.standby.as_ref(),
            Handover::Leaving(leaving) => leaving.standby.as_ref(),
        }
    }

    pub fn standby_mut(&mut self) -> Option<&mut Standby> {
        match self {
            Handover::Idle => None,
            Handover::Prepared(standby) => Some(standby),
            Handover::Cutover(cutover) => cutover.standby.as_mut(),
            Handover::Leaving(leaving) => leaving.standby.as_mut(),
        }
    }

    /// The next connection is of no use.
    pub fn drop_standby(&mut self) {
        match self {
            Handover::Idle => {}
            Handover::Prepared(_) => *self = Handover::Idle,
            Handover::Cutover(cutover) => cutover.standby = None,
            Handover::Leaving(leaving) => leaving.standby = None,
        }
    }

    pub fn cutover(&self) -> Option<&Cutover> {
        match self {
            Handover::Cutover(cutover) => Some(cutover),
            _ => None,
        }
    }

    pub fn cutover_mut(&mut self) -> Option<&mut Cutover> {
        match self {
            Handover::Cutover(cutover) => Some(cutover),
            _ => None,
        }
    }

    pub fn is_idle(&self) -> bool {
        matches!(self, Handover::Idle)
    }

    pub fn is_leaving(&self) -> bool {
        matches!(self, Handover::Leaving(_))
    }

    /// Begins anew at idle, and gives what the phase so far leaves.
    pub fn end(&mut self) -> Remains {
        match std::mem::take(self) {
            Handover::Idle => Remains::default(),
            Handover::Prepared(standby) => {
                Remains { standby: Some(*standby), ..Remains::default() }
            }
            Handover::Cutover(cutover) => {
                let Cutover { standby, untouched, .. } = *cutover;
                Remains { standby, untouched, permit: None }
            }
            Handover::Leaving(leaving) => {
                let Leaving { standby, untouched, permit, .. } = *leaving;
                Remains { standby, untouched, permit }
            }
        }
    }
}
