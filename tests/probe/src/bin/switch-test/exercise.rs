//! What is done behind the clients' backs.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use probe::screen::Screen;
use probe::target::Target;
use probe::{Probe, Verdict};

use crate::process::Trouble;

/// Where to say what, and whether to stop.
pub type Ways<'a> = (&'a Screen, &'a AtomicBool);

/// Servers and proxies, and what happens to them round by round.
pub trait Exercise {
    /// What one round is, and what several are.
    const ROUND: [&'static str; 2];

    /// Whether a server is killed.
    const CRASHES: bool;

    /// Where clients connect, and through what that is, in words.
    fn targets(&self) -> (Vec<Target>, &'static str);

    /// How many rounds there are.
    fn rounds(&self) -> usize;

    /// When this one begins, if it could begin now: the first is number 1.
    fn due(&self, number: usize, now: Duration) -> Duration;

    /// One round. How long requests were held, where that is known.
    fn round(
        &mut self,
        number: usize,
        probe: &Probe,
        ways: Ways<'_>,
    ) -> Result<Option<Duration>, Trouble>;

    /// After the last round: what nobody touched must be as it was.
    fn verify(&mut self, verdict: &mut Verdict, ways: Ways<'_>) -> Result<(), Trouble>;

    /// Ends the proxies. The clients are gone: they have nothing to wait for.
    fn end(self, stop: &AtomicBool) -> Result<(), Trouble>;
}
