//! A Redis that is killed and started again in the same place, again and again.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use probe::target::Target;
use probe::{Probe, Verdict, ms};

use crate::data::Data;
use crate::exercise::{Exercise, Ways};
use crate::options::Options;
use crate::outage::{noticed, recovered};
use crate::place::Place;
use crate::process::Trouble;
use crate::proxy::Proxy;
use crate::seed::Seed;
use crate::server::{Keeps, Server};
use crate::wait;

/// One server that keeps everything, and a proxy in front of it.
pub struct Crashes {
    server: Server,
    proxy: Proxy,
    data: Data,
    place: Place,
    count: usize,
    seed: Seed,
}

impl Exercise for Crashes {
    const ROUND: [&'static str; 2] = ["crash", "crashes"];
    const CRASHES: bool = true;

    fn targets(&self) -> (Vec<Target>, &'static str) {
        (vec![self.proxy.target(&self.place)], "the proxy")
    }

    fn rounds(&self) -> usize {
        self.count
    }

    fn due(&self, number: usize, now: Duration) -> Duration {
        now + self.seed.pause(number, "up")
    }

    /// Kills the server and starts it again. The proxy may not have noticed that yet when the next crash comes.
    fn round(
        &mut self,
        number: usize,
        probe: &Probe,
        (screen, stop): Ways<'_>,
    ) -> Result<Option<Duration>, Trouble> {
        let served = self.proxy.uplink_serves()? == Some(true);
        probe.crash_begins();
        let killed = Instant::now();
        let gone = self.gone(number, served, probe, stop);
        // Also if this was interrupted: clients end when they are answered.
        self.server.start_again(&self.place, &AtomicBool::new(false))?;
        let (noticed, back) = (ms(gone?), ms(killed.elapsed()));
        if !served {
            probe.crash_is_known();
        }
        screen.line(&format!(
            "4. Crash {number} of {}: noticed after {noticed} ms; Redis was back after {back} ms",
            self.count
        ));
        if number == self.count {
            recovered(&self.proxy, probe, stop)?;
        }
        Ok(None)
    }

    fn verify(&mut self, verdict: &mut Verdict, (screen, _): Ways<'_>) -> Result<(), Trouble> {
        let server = std::slice::from_mut(&mut self.server);
        screen.line(&self.data.verify(server, verdict)?);
        Ok(())
    }

    fn end(self, stop: &AtomicBool) -> Result<(), Trouble> {
        self.proxy.terminate(stop)
    }
}

impl Crashes {
    /// Starts both.
    pub fn start(
        options: &Options,
        count: usize,
        place: Place,
        (screen, stop): Ways<'_>,
    ) -> Result<Self, Trouble> {
        let (program, tls, seed) = (options.proxy()?, options.with_tls(), Seed::of(options));
        screen.heading(&format!(
            "1. A redis-server{tls}, which keeps on its disk what it acknowledges"
        ));
        let redis = &options.redis_server;
        let mut server = Server::start("A", redis, &Keeps::Everything, &place, stop)?;
        screen.line(&server.introduction());
        let data = Data::write(options.data_mb, &mut server)?;
        screen.line(&format!("{} MB of data; {}", options.data_mb, seed.introduction()));
        screen.heading(&format!("2. A proxy{tls}, in front of it"));
        let proxy = Proxy::start("A", &program, server.uplink(&place), &place, stop)?;
        screen.line(&proxy.introduction(&server.addr));
        Ok(Crashes { server, proxy, data, place, count, seed })
    }

    /// Kills the server, and waits as long as it is to be gone. How long it took the proxy to notice that.
    fn gone(
        &mut self,
        number: usize,
        served: bool,
        probe: &Probe,
        stop: &AtomicBool,
    ) -> Result<Duration, Trouble> {
        let killed = Instant::now();
        self.server.kill()?;
        noticed(&self.proxy, stop)?;
        let noticed = killed.elapsed();
        // If it had not noticed the last start, it may do so now, and be wrong.
        if served {
            probe.crash_is_known();
        }
        wait(Instant::now() + self.seed.pause(number, "down"), stop)?;
        Ok(noticed)
    }
}
