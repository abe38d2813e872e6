//! What a proxy and its clients make of a Redis that is gone, and back.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use probe::Probe;

use crate::process::{Trouble, until};
use crate::proxy::Proxy;

/// How long slow clients get after the last crash.
const RECOVERY: Duration = Duration::from_secs(10);

/// Waits until the proxy notices that its Redis is gone.
pub fn noticed(proxy: &Proxy, stop: &AtomicBool) -> Result<(), Trouble> {
    until("the proxy notices that Redis is gone", stop, || {
        Ok((proxy.uplink_serves()? == Some(false)).then_some(()))
    })
}

/// Waits until the clients work again.
pub fn recovered(proxy: &Proxy, probe: &Probe, stop: &AtomicBool) -> Result<(), Trouble> {
    until("the proxy notices that Redis is back", stop, || {
        Ok((proxy.uplink_serves()? == Some(true)).then_some(()))
    })?;
    let done = || probe.progress().operations;
    let (enough, limit) = (done() + 10 * probe.clients() as u64, Instant::now() + RECOVERY);
    until("the clients work", stop, || {
        Ok((done() >= enough || Instant::now() > limit).then_some(()))
    })
}
