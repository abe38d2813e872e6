//! What the controller and the sessions say to each other while the uplink is changed. It knows neither.
//!
//! - `messages`: what a session is told, and what it answers
//! - `attempt`: one change of the uplink
//! - `facets`: what a session carries, as bits
//! - `marker`: where the old uplink's messages end and the new one's begin
//! - `client_ids`: the ids of clients, which stay valid (pure)

mod attempt;
pub mod client_ids;
pub mod facets;
mod marker;
mod messages;

pub use self::attempt::{Attempt, NOT_TAKEN, OldUplink, Watching};
pub use self::client_ids::ClientIds;
pub use self::marker::Marker;
pub use self::messages::{Awaits, GiveUp, Interrupt, Order, Prospect, Running, Ticket, Unblocked};
