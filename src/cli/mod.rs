//! The command line. It reads no file.

mod ctl;
mod definition;
mod pages;

pub use self::ctl::{Action, Connection, Ctl, Failover, PASSWORD, Pause, Reload, Switch};
pub use self::definition::{Cli, Command, STANDARD_INPUT};
pub use self::pages::{completions, man, man_to};
