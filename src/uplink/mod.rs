//! The dialled side: connect, log in, restore a state. It knows no clients.
//!
//! - `dialler`: connects, and asks whether the uplink serves
//! - `fresh`: a connection that no client uses yet
//! - `frames`: what comes on one, frame by frame
//! - `script`: what one is told, and what it must answer (pure)
//! - `unblock`: CLIENT UNBLOCK, asked and read (pure)

mod dialler;
mod error;
mod frames;
mod fresh;
mod script;
pub mod unblock;

pub use self::dialler::{Dialler, Place};
pub use self::error::{Error, is_without_data};
pub use self::fresh::Fresh;
pub use self::script::{Answer, Heard, Id, Script};
