//! How a program ends, and what it says.

use std::io::{self, Write};
use std::process::ExitCode;

/// As in `sysexits.h`, but for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Done = 0,
    /// It did not.
    Failed = 1,
    /// The command line is wrong.
    Usage = 64,
    /// Somebody cannot be reached.
    Unavailable = 69,
    /// Later, perhaps.
    NotNow = 75,
    /// The password, or the certificate, is not accepted.
    Denied = 77,
    /// A configuration is refused.
    Refused = 78,
    /// By a signal.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        (exit as u8).into()
    }
}

/// Says why a command line was not taken; or the help, if it asks for that.
pub fn untaken(why: &clap::Error) -> ExitCode {
    // Nothing is left to tell if standard error is closed.
    let _ = why.print();
    if why.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

/// Writes a line. What another side says must not move a terminal's cursor; and a reader that has gone
/// away has read enough.
pub fn say(to: &mut dyn Write, line: &str) {
    let _ = writeln!(to, "{}", line.replace(char::is_control, " "));
}

/// Says on standard error what went wrong.
pub fn complain(why: &dyn std::fmt::Display) {
    say(&mut io::stderr(), &why.to_string());
}
