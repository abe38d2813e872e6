//! A new generation: the uplink is exchanged at a safe point, for one that was made ready before.
//!
//! - `phase`: how far a session has come
//! - `orders`: what the controller tells it, and what it answers
//! - `facets`: what it is like, for the controller
//! - `standby`: its next connection; `prepare`: how that is made; `scripts`: what it is told
//! - `mark`: by which both uplinks tell the same moment
//! - `cutover`: what can only be done while nothing is in flight
//! - `exchange`: the next connection becomes the present one

mod cutover;
mod exchange;
mod facets;
mod mark;
mod orders;
pub(super) mod phase;
mod prepare;
mod scripts;
pub(super) mod standby;
