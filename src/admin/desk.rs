//! What the API knows and commands.

use std::sync::Arc;
use std::time::Instant;

use crate::controller::Controller;
use crate::reception::Reception;
use crate::shared::Shared;

/// What requests are answered from.
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) reception: Arc<Reception>,
    pub(super) controller: Arc<Controller>,
    pub(super) started: Instant,
}
