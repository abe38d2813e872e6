//! What systemd is told (`Type=notify-reload`). Without systemd, nothing happens here.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The service is ready, or ready again after a reload.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// A reload begins.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(why) => debug!(%why, "no monotonic clock"),
    }
}

/// The service is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("Stopping")]);
}

/// A line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&line(status))]);
}

/// How often the watchdog must be told that all is well, if it is set.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// All is well.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// A line end would begin another message, and a status may quote the configuration.
fn line(status: &str) -> String {
    status.replace(char::is_control, " ")
}

fn tell(states: &[NotifyState<'_>]) {
    // The service goes on without systemd's ear.
    if let Err(why) = sd_notify::notify(states) {
        debug!(%why, "cannot notify systemd");
    }
}
