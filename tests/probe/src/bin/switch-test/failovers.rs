//! A master and its replica that change places again and again: on purpose, or because the master is killed.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use probe::target::Target;
use probe::{Probe, Verdict, ms};

use crate::data::Data;
use crate::exercise::{Exercise, Ways};
use crate::options::Options;
use crate::outage::{noticed, recovered};
use crate::place::Place;
use crate::process::{Trouble, until};
use crate::proxy::Proxy;
use crate::record::{held, show_warnings};
use crate::seed::Seed;
use crate::server::{Keeps, Server, among, caught_up};
use crate::wait;

/// Two servers, and a proxy that finds the master among them.
pub struct Failovers {
    /// The master, and its replica.
    servers: [Server; 2],
    proxy: Proxy,
    data: Data,
    place: Place,
    count: usize,
    seed: Seed,
}

impl Exercise for Failovers {
    const ROUND: [&'static str; 2] = ["failover", "failovers"];
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

    /// The replica becomes the master, and the other one its replica. Both are in step afterwards.
    fn round(
        &mut self,
        number: usize,
        probe: &Probe,
        ways: Ways<'_>,
    ) -> Result<Option<Duration>, Trouble> {
        let (screen, stop) = ways;
        let [master, replica] = &self.servers;
        let (planned, count) = (self.seed.tosses(number, "planned"), self.count);
        let kind = if planned { "planned" } else { "unplanned" };
        screen.heading(&format!(
            "4. Failover {number} of {count}, {kind}: from Redis {} to {}",
            master.name, replica.name
        ));
        let held = match planned {
            true => Some(self.planned(ways)?),
            false => {
                self.unplanned(number, probe, ways)?;
                None
            }
        };
        self.servers.swap(0, 1);
        let [master, replica] = &mut self.servers;
        caught_up(master, replica, stop)?;
        if number == count {
            recovered(&self.proxy, probe, stop)?;
        }
        Ok(held)
    }

    fn verify(&mut self, verdict: &mut Verdict, (screen, stop): Ways<'_>) -> Result<(), Trouble> {
        let [master, replica] = &mut self.servers;
        caught_up(master, replica, stop)?;
        screen.line(&self.data.verify(&mut self.servers, verdict)?);
        Ok(())
    }

    fn end(self, stop: &AtomicBool) -> Result<(), Trouble> {
        self.proxy.terminate(stop)
    }
}

impl Failovers {
    /// Starts all.
    pub fn start(
        options: &Options,
        count: usize,
        place: Place,
        (screen, stop): Ways<'_>,
    ) -> Result<Self, Trouble> {
        let (program, tls, seed) = (options.proxy()?, options.with_tls(), Seed::of(options));
        screen.heading(&format!("1. Two redis-servers{tls}, a master and its replica"));
        let keeps = Keeps::AtAnother(place.new_pass());
        let start = |name| Server::start(name, &options.redis_server, &keeps, &place, stop);
        let mut servers = [start("A")?, start("B")?];
        servers.iter().for_each(|server| screen.line(&server.introduction()));
        let [master, replica] = &mut servers;
        let data = Data::write(options.data_mb, master)?;
        screen.line(&format!("{} MB of data; {}", options.data_mb, seed.introduction()));
        replica.follow(master, stop)?;
        screen.heading(&format!("2. A proxy{tls}, in front of whichever is the master"));
        let proxy = Proxy::start("A", &program, among(&servers, &place), &place, stop)?;
        let addrs: Vec<&str> = servers.iter().map(|server| server.addr.as_str()).collect();
        screen.line(&proxy.introduction(&addrs.join(" or ")));
        Ok(Failovers { servers, proxy, data, place, count, seed })
    }

    /// Tells the proxy to do it. How long it held the clients.
    fn planned(&self, ways: Ways<'_>) -> Result<Duration, Trouble> {
        let answer = self.proxy.command("cmd=failover", ways)?;
        let (record, screen) = (&answer["switch"], ways.0);
        let held = held(record);
        screen.line(&format!(
            "{} clients moved, held for {} ms",
            record["sessions_moved"],
            ms(held)
        ));
        show_warnings(record, screen);
        Ok(held)
    }

    /// Kills the master, promotes the replica as a Sentinel would, and starts the other one again as its replica. The
    /// master executes no write after the last one that the replica has: what is lost, the proxy has lost.
    fn unplanned(
        &mut self,
        number: usize,
        probe: &Probe,
        (screen, _): Ways<'_>,
    ) -> Result<(), Trouble> {
        // What has begun is completed, also if this is interrupted: clients end when they are answered.
        let stop = &AtomicBool::new(false);
        let ([master, replica], proxy) = (&mut self.servers, &self.proxy);
        master.hold_writes()?;
        caught_up(master, replica, stop)?;
        probe.crash_begins();
        let killed = Instant::now();
        master.kill()?;
        noticed(proxy, stop)?;
        probe.crash_is_known();
        let noticed = killed.elapsed();
        wait(Instant::now() + self.seed.pause(number, "down"), stop)?;
        let (gone, promoted) = (killed.elapsed(), Instant::now());
        replica.promote()?;
        until("the proxy finds the new master", stop, || {
            Ok(proxy.serves_from(&replica.addr)?.then_some(()))
        })?;
        screen.line(&format!(
            "noticed after {} ms; the replica was promoted after {} ms, and the proxy was there {} ms later",
            ms(noticed),
            ms(gone),
            ms(promoted.elapsed())
        ));
        master.start_as_replica(replica, &self.place, stop)
    }
}
