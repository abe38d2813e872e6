//! Where lines go, and one line that is written again and again.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Probe, Progress, grouped, ms};

/// How often progress is told where nothing can be written over.
const SELDOM: Duration = Duration::from_secs(5);

/// Standard output. A reader that went away is not missed.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    begun: Instant,
    shown: Mutex<Shown>,
}

#[derive(Debug)]
struct Shown {
    progress: bool,
    at: Instant,
    operations: u64,
    /// When progress was last told in a line of its own.
    told: Instant,
}

impl Default for Screen {
    fn default() -> Self {
        let now = Instant::now();
        let shown = Shown { progress: false, at: now, operations: 0, told: now };
        Screen { terminal: io::stdout().is_terminal(), begun: now, shown: Mutex::new(shown) }
    }
}

impl Screen {
    /// A line, or several.
    pub fn line(&self, text: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        write(&format!("{}{text}\n", self.over(&mut shown)));
    }

    /// A heading.
    pub fn heading(&self, text: &str) {
        match self.terminal {
            true => self.line(&format!("\n\u{1b}[1m{text}\u{1b}[0m")),
            false => self.line(&format!("\n{text}")),
        }
    }

    /// How far it is: to be called each second. `more` is what else goes on.
    pub fn progress(&self, probe: &Probe, more: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Progress { operations, errors, wrong, longest } = probe.progress();
        let since = shown.at.elapsed().as_secs_f64().max(1e-3);
        let rate = operations.saturating_sub(shown.operations) as f64 / since;
        let text = format!(
            "{:.0} s: {} operations ({rate:.0}/s), {} errors, {} wrong, longest stall {} ms{more}",
            self.begun.elapsed().as_secs_f64(),
            grouped(operations),
            grouped(errors),
            grouped(wrong),
            ms(longest),
        );
        if self.terminal {
            write(&format!("{}{text}", self.over(&mut shown)));
            shown.progress = true;
        } else if shown.told.elapsed() >= SELDOM {
            write(&format!("{text}\n"));
            shown.told = Instant::now();
        }
        (shown.at, shown.operations) = (Instant::now(), operations);
    }

    /// What takes the progress line away.
    fn over(&self, shown: &mut Shown) -> &'static str {
        if std::mem::take(&mut shown.progress) { "\r\u{1b}[K" } else { "" }
    }
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
