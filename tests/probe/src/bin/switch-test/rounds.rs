//! The operator: switches, and turns the chain round.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use probe::screen::Screen;
use probe::{Probe, ms};
use serde_json::Value;

use crate::place::Place;
use crate::process::Trouble;
use crate::proxy::Proxy;
use crate::server::{Server, caught_up};

/// Two servers, and two proxies in a chain.
pub struct Chain {
    /// Whose data is served, and the other.
    pub servers: [Server; 2],
    /// In front of that server, and in front of that proxy.
    pub proxies: [Proxy; 2],
    /// Files.
    pub place: Place,
}

/// Where to say what, and whether to stop.
pub type Ways<'a> = (&'a Screen, &'a AtomicBool);

impl Chain {
    /// Moves the data and the clients to the other server, turns the chain round, and waits until
    /// the way back is ready. How long requests were held.
    pub fn round(&mut self, probe: &Probe, ways: Ways<'_>) -> Result<Duration, Trouble> {
        let (screen, stop) = ways;
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
        Ok(held)
    }

    fn switch(&mut self, ways: Ways<'_>) -> Result<Duration, Trouble> {
        let ([_, next], [head, _]) = (&self.servers, &self.proxies);
        let answer = head.command("cmd=switch", next.uplink(&self.place), &self.place, ways)?;
        let record = &answer["switch"];
        let millis = |it: &Value| {
            Duration::try_from_secs_f64(it.as_f64().unwrap_or(0.0) / 1e3).unwrap_or_default()
        };
        let stages = record["stages"].as_array().into_iter().flatten().map(|stage| {
            format!("{} {} ms", stage["stage"].as_str().unwrap_or("?"), ms(millis(&stage["ms"])))
        });
        let held = millis(&record["held_ms"]);
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
        for warning in record["warnings"].as_array().into_iter().flatten() {
            screen.line(&format!("warning: {}", warning.as_str().unwrap_or("?")));
        }
        Ok(held)
    }

    /// What was behind is put in front of the other server, and what was in front behind that.
    fn turn_round(&mut self, ways: Ways<'_>) -> Result<(), Trouble> {
        let ([_, next], [head, tail]) = (&self.servers, &self.proxies);
        tail.command("cmd=reload", next.uplink(&self.place), &self.place, ways)?;
        head.command("cmd=reload", tail.uplink(&self.place), &self.place, ways)?;
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
