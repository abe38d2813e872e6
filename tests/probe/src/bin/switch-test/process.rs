//! Programs that are started, and end with this one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use probe::admin::AdminError;
use probe::target::TargetError;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take that nobody waits for but us.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often what no event tells of is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Why it does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Files.
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    /// A program that is not there.
    #[error("could not start {0}: {1}")]
    Start(String, #[source] io::Error),
    /// A program that ended.
    #[error("{0} ended by itself: {1}")]
    Ended(String, ExitStatus),
    /// It takes too long.
    #[error("not within a minute: {0}")]
    Never(String),
    /// A Redis, asked directly.
    #[error("{0}: {1}")]
    Redis(String, #[source] redis::RedisError),
    /// How to connect to a Redis.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// A proxy's HTTP API.
    #[error("{0}")]
    Admin(#[from] AdminError),
    /// A command that failed.
    #[error("{0} answered {1}")]
    Refused(String, Value),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// Looks again and again, until it is there, or `stop` is set.
pub fn until<T>(
    what: &str,
    stop: &AtomicBool,
    mut look: impl FnMut() -> Result<Option<T>, Trouble>,
) -> Result<T, Trouble> {
    let limit = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Trouble::Interrupted);
        }
        if Instant::now() > limit {
            return Err(Trouble::Never(what.to_owned()));
        }
        thread::sleep(LOOK);
    }
}

/// A program that runs.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it, with this in its standard input and its output in a file.
    pub fn start(
        name: &str,
        program: &Path,
        args: &[&str],
        input: &str,
        log: &Path,
    ) -> Result<Self, Trouble> {
        let file = |why| Trouble::File(log.display().to_string(), why);
        let out = File::create(log).map_err(file)?;
        let error = out.try_clone().map_err(file)?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(error)
            // A terminal's Ctrl-C is for us alone: the clients are ended first.
            .process_group(0)
            .spawn();
        let started = |why| Trouble::Start(program.display().to_string(), why);
        let mut process = Process { name: name.to_owned(), child: child.map_err(started)? };
        if let Some(mut stdin) = process.child.stdin.take() {
            // If it ended without reading, that is told when it is looked at.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(process)
    }

    /// An error if it has ended.
    pub fn lives(&mut self) -> Result<(), Trouble> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(Trouble::Ended(self.name.clone(), status)),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Ends it at once, whatever it does.
    pub fn kill(&mut self) -> Result<(), Trouble> {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        ended.map(drop).map_err(|why| Trouble::File(self.name.clone(), why))
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(mut self, stop: &AtomicBool) -> Result<ExitStatus, Trouble> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // If it is gone, waiting tells.
            let _ = kill_process(pid, Signal::TERM);
        }
        until(&format!("{} ends", self.name), stop, || {
            self.child.try_wait().map_err(|why| Trouble::File(self.name.clone(), why))
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
