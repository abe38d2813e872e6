//! Pause, reload, stop: the one owner of every change of state.
//!
//! - `state`: the controller, and what it knows
//! - `pause`, `reload`, `dry_run`, `switch`: what it is told to do
//! - `verify`: what is wrong with the file, before anything is touched
//! - `file`: the configuration file names the uplink that was switched to
//! - `cutover`, with `following`, `interrupting` and `loading`: clients are moved to another uplink
//! - `links`: the connections for that, and what they may do
//! - `sessions`: what all sessions are asked and told
//! - `uplink_identity`: who the uplink is, and what it means if that changes (pure)
//! - `watch`: whether the uplink is there; while it is not, clients are held
//! - `remarks`: what an operator should know while all goes on
//! - `outcome`, `error`: what became of it
//! - `panics`: a panic is a fault like others
//!
//! What each command does during another:
//!
//! | During | pause | unpause | reload, switch | SIGHUP | stop |
//! | --- | --- | --- | --- | --- | --- |
//! | running | begins | nothing to do | begins | a reload | begins |
//! | an operator's pause | joined: the longer time to live counts | ends it | swaps, stays paused | a reload | begins |
//! | a reload | holds after it | releases the operator's hold alone | refused | one more, afterwards | ends it; it is cancelled unless it has swapped |
//! | a switch | holds after it | as above | refused | a reload, afterwards | ends it; it is undone unless the new uplink is promoted |
//! | an outage | holds beyond its end | ends it | moves those who wait; their limit does not count meanwhile | a reload | begins; who waits is closed |
//! | a stop | refused | refused | refused | ignored | cuts off |

mod cutover;
mod dry_run;
mod error;
mod file;
mod following;
mod interrupting;
mod links;
mod loading;
mod outcome;
mod panics;
mod pause;
mod reload;
mod remarks;
mod sessions;
mod state;
mod switch;
mod uplink_identity;
mod verify;
mod watch;

pub use self::dry_run::Prediction;
pub use self::error::Error;
pub use self::outcome::{By, NotReloaded, ReloadRecord, ReloadStage, Reloading};
pub use self::sessions::CarriedCounts;
pub use self::state::{Controller, Paused, ProxyState};
pub use self::switch::{NotSwitched, Report, SwitchOptions, SwitchRecord, SwitchTo, Switching};
