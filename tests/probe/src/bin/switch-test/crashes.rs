//! A Redis that is killed and started again in the same place, again and again.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, RandomState};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use probe::target::Target;
use probe::{Probe, Verdict, ms};

use crate::data::Data;
use crate::exercise::{Exercise, Ways};
use crate::options::Options;
use crate::place::Place;
use crate::process::{Trouble, until};
use crate::proxy::Proxy;
use crate::server::{Keeps, Server};
use crate::wait;

/// Between two crashes, and between a crash and the next start: at least, and at most.
const PAUSE: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// How long slow clients get after the last crash.
const RECOVERY: Duration = Duration::from_secs(10);

/// One server that keeps everything, and a proxy in front of it.
pub struct Crashes {
    server: Server,
    proxy: Proxy,
    data: Data,
    place: Place,
    count: usize,
    seed: u64,
}

impl Exercise for Crashes {
    const ROUND: [&'static str; 2] = ["crash", "crashes"];

    fn targets(&self) -> (Vec<Target>, &'static str) {
        (vec![self.proxy.target(&self.place)], "the proxy")
    }

    fn rounds(&self) -> usize {
        self.count
    }

    fn due(&self, number: usize, now: Duration) -> Duration {
        now + self.pause(number, "up")
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
            self.recovered(probe, stop)?;
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
        let (program, tls) = (options.proxy()?, options.with_tls());
        // Seeded by the system.
        let seed = options.seed.unwrap_or_else(|| RandomState::new().hash_one(count));
        screen.heading(&format!(
            "1. A redis-server{tls}, which keeps on its disk what it acknowledges"
        ));
        let redis = &options.redis_server;
        let mut server = Server::start("A", redis, Keeps::Everything, &place, stop)?;
        screen.line(&server.introduction());
        let data = Data::write(options.data_mb, &mut server)?;
        screen.line(&format!("{} MB of data; --seed {seed}", options.data_mb));
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
        until("the proxy notices that Redis is gone", stop, || {
            Ok((self.proxy.uplink_serves()? == Some(false)).then_some(()))
        })?;
        let noticed = killed.elapsed();
        // If it had not noticed the last start, it may do so now, and be wrong.
        if served {
            probe.crash_is_known();
        }
        wait(Instant::now() + self.pause(number, "down"), stop)?;
        Ok(noticed)
    }

    /// Waits until the clients work again.
    fn recovered(&self, probe: &Probe, stop: &AtomicBool) -> Result<(), Trouble> {
        until("the proxy notices that Redis is back", stop, || {
            Ok((self.proxy.uplink_serves()? == Some(true)).then_some(()))
        })?;
        let done = || probe.progress().operations;
        let (enough, limit) = (done() + 10 * probe.clients() as u64, Instant::now() + RECOVERY);
        until("the clients work", stop, || {
            Ok((done() >= enough || Instant::now() > limit).then_some(()))
        })
    }

    /// How long it is up before this crash, or down after it.
    fn pause(&self, number: usize, what: &str) -> Duration {
        let seed = BuildHasherDefault::<DefaultHasher>::default();
        let share = seed.hash_one((self.seed, number, what)) as f64 / u64::MAX as f64;
        let [least, most] = PAUSE;
        least + (most - least).mul_f64(share)
    }
}
