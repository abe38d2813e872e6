//! The operator: switches, and turns the chain round.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use probe::target::Target;
use probe::{Probe, Verdict, ms};

use crate::data::Data;
use crate::exercise::{Exercise, Ways};
use crate::options::Options;
use crate::place::Place;
use crate::process::Trouble;
use crate::proxy::Proxy;
use crate::record::{held, millis, show_warnings};
use crate::server::{Keeps, Server, caught_up};

/// Two servers, and two proxies in a chain.
pub struct Switches {
    /// Whose data is served, and the other.
    servers: [Server; 2],
    /// In front of that server, and in front of that proxy.
    proxies: [Proxy; 2],
    data: Data,
    place: Place,
    count: usize,
    seconds: f64,
}

impl Exercise for Switches {
    const ROUND: [&'static str; 2] = ["switch", "switches"];
    const CRASHES: bool = false;

    fn targets(&self) -> (Vec<Target>, &'static str) {
        (self.proxies.iter().map(|proxy| proxy.target(&self.place)).collect(), "both proxies")
    }

    fn rounds(&self) -> usize {
        self.count
    }

    fn due(&self, number: usize, _: Duration) -> Duration {
        Duration::from_secs_f64(self.seconds * number as f64 / (self.count + 1) as f64)
    }

    /// Moves the data and the clients to the other server, turns the chain round, and waits until
    /// the way back is ready.
    fn round(
        &mut self,
        number: usize,
        probe: &Probe,
        ways: Ways<'_>,
    ) -> Result<Option<Duration>, Trouble> {
        let (screen, stop) = ways;
        let ([here, there], count) = (&self.servers, self.count);
        screen.heading(&format!(
            "4. Switch {number} of {count}: from Redis {} to {}",
            here.name, there.name
        ));
        probe.longest_lately();
        let held = self.switch(ways)?;
        self.turn_round(ways)?;
        screen.line(&format!(
            "the longest that a client's request took meanwhile: {} ms",
            ms(probe.longest_lately())
        ));
        self.servers.swap(0, 1);
        self.proxies.swap(0, 1);
        let [master, replica] = &mut self.servers;
        caught_up(master, replica, stop)?;
        screen.line(&format!(
            "Redis {} is a replica of {} now, and has caught up",
            replica.name, master.name
        ));
        Ok(Some(held))
    }

    fn verify(&mut self, verdict: &mut Verdict, (screen, stop): Ways<'_>) -> Result<(), Trouble> {
        let [master, replica] = &mut self.servers;
        caught_up(master, replica, stop)?;
        screen.line(&self.data.verify(&mut self.servers, verdict)?);
        Ok(())
    }

    fn end(self, stop: &AtomicBool) -> Result<(), Trouble> {
        self.proxies.into_iter().try_for_each(|proxy| proxy.terminate(stop))
    }
}

impl Switches {
    /// Starts all.
    pub fn start(options: &Options, place: Place, ways: Ways<'_>) -> Result<Self, Trouble> {
        let (screen, stop) = ways;
        let (program, tls) = (options.proxy()?, options.with_tls());
        screen.heading(&format!("1. Two redis-servers{tls}, each with a password"));
        let start =
            |name| Server::start(name, &options.redis_server, &Keeps::Nothing, &place, stop);
        let mut servers = [start("A")?, start("B")?];
        servers.iter().for_each(|server| screen.line(&server.introduction()));
        let data = Data::write(options.data_mb, &mut servers[0])?;
        screen.line(&format!("{} MB of data on A", options.data_mb));
        screen
            .heading(&format!("2. Two proxies{tls}: A in front of Redis A, B in front of proxy A"));
        let start = |name, uplink| Proxy::start(name, &program, uplink, &place, stop);
        let a = start("A", servers[0].uplink(&place))?;
        let b = start("B", a.uplink(&place))?;
        screen.line(&a.introduction(&servers[0].addr));
        screen.line(&b.introduction(&a.addr));
        let (proxies, count, seconds) = ([a, b], options.switches, options.seconds);
        Ok(Switches { servers, proxies, data, place, count, seconds })
    }

    fn switch(&mut self, ways: Ways<'_>) -> Result<Duration, Trouble> {
        let ([_, next], [head, _]) = (&self.servers, &self.proxies);
        head.configure(next.uplink(&self.place), &self.place, ways.0)?;
        let answer = head.command("cmd=switch", ways)?;
        let record = &answer["switch"];
        let stages = record["stages"].as_array().into_iter().flatten().map(|stage| {
            format!("{} {} ms", stage["stage"].as_str().unwrap_or("?"), ms(millis(&stage["ms"])))
        });
        let held = held(record);
        let copied = match record["sync_bytes"].as_u64() {
            Some(bytes) => format!("{:.1} MB copied", bytes as f64 / 1e6),
            None => "nothing to copy, it is a replica already".to_owned(),
        };
        let screen = ways.0;
        screen.line(&stages.collect::<Vec<_>>().join(", "));
        screen.line(&format!(
            "{copied}; {} clients moved, held for {} ms",
            record["sessions_moved"],
            ms(held)
        ));
        show_warnings(record, screen);
        Ok(held)
    }

    /// What was behind is put in front of the other server, and what was in front behind that.
    fn turn_round(&mut self, ways: Ways<'_>) -> Result<(), Trouble> {
        let ([_, next], [head, tail]) = (&self.servers, &self.proxies);
        for (proxy, uplink) in [(tail, next.uplink(&self.place)), (head, tail.uplink(&self.place))]
        {
            proxy.configure(uplink, &self.place, ways.0)?;
            proxy.command("cmd=reload", ways)?;
        }
        let mut said = Vec::new();
        for proxy in [tail, head] {
            let reload = proxy.last_reload()?;
            said.push(format!(
                "proxy {}: {} clients moved, held for {:.2} ms",
                proxy.name,
                reload["sessions_moved"],
                reload["pause_ms"].as_f64().unwrap_or(0.0)
            ));
        }
        ways.0.line(&said.join("; "));
        Ok(())
    }
}
