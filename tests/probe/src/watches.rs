//! Clients that contend for one number: WATCH, GET, MULTI, INCR, EXEC. With it, each raises a number of its own, which
//! tells whether an EXEC was executed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::{Client, Run};
use super::contended::Contended;
use super::group::{Group, Part};
use super::ledger::Count;

/// The number of this group, and of each client in it.
pub fn keys(run: &Run, group: usize, clients: usize) -> (String, Vec<String>) {
    let own = |client| run.key(&format!("watched:{group}:by:{client}"));
    (run.key(&format!("watched:{group}")), (0..clients).map(own).collect())
}

/// Clients that contend.
#[derive(Debug)]
pub struct Watches {
    key: String,
    number: Number,
    clients: Group,
}

/// What the clients of one group know of their number.
#[derive(Debug, Clone)]
struct Number(Arc<Mutex<Contended>>);

impl Number {
    fn lock(&self) -> MutexGuard<'_, Contended> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what came, and shows it to who looks on if it is wrong.
    fn note(&self, run: &Run, what: impl FnOnce(&mut Contended)) {
        let mut number = self.lock();
        let before = number.wrong();
        what(&mut number);
        run.live.wrong(number.wrong() - before);
    }
}

impl Watches {
    /// Begins.
    pub fn start(run: &Run, group: usize, clients: Vec<Client>) -> Self {
        let number = Contended::new(format!("watched number {group}"));
        let number = Number(Arc::new(Mutex::new(number)));
        let (key, own) = keys(run, group, clients.len());
        let mut threads = Group::default();
        for (client, own) in clients.into_iter().zip(own) {
            let (key, number) = (key.clone(), number.clone());
            let contender = Contender { client, key, number, own, count: Count::default() };
            threads.spawn(move || contender.run());
        }
        Watches { key, number, clients: threads }
    }

    /// Waits for them; the number must be what their EXECs say.
    pub fn finish(self, control: &mut Client) -> Part {
        let mut part = self.clients.sum();
        let value = control.read::<Option<u64>>(&["GET", &self.key]);
        let number = std::mem::take(&mut *self.number.lock());
        // A transaction is lost once, and seen in two places.
        let faults = std::mem::take(&mut part.faults);
        part.faults = number.ended(value.map(Option::unwrap_or_default)).worst(faults);
        part
    }
}

struct Contender {
    client: Client,
    key: String,
    number: Number,
    /// The key of its own number, and what that must be.
    own: String,
    count: Count,
}

impl Contender {
    fn run(mut self) -> Part {
        while self.client.turn() {
            // What went wrong is counted where it did.
            let _ = self.raise();
        }
        if let Some(value) = self.client.read::<Option<u64>>(&["GET", &self.own]) {
            self.count.read(&self.own, value.unwrap_or(0));
        }
        Part { tally: self.client.tally, faults: self.count.faults }
    }

    /// One turn; `None` if it ended with an error.
    fn raise(&mut self) -> Option<()> {
        let Contender { client, key, number, own, count } = self;
        client.ask::<String>(&["WATCH", key])?;
        client.turn();
        let known = number.lock().known();
        let value = client.ask::<Option<u64>>(&["GET", key])?.unwrap_or_default();
        number.note(&client.run, |number| number.read(known, value));
        client.turn();
        client.ask::<String>(&["MULTI"])?;
        client.turn();
        client.ask::<String>(&["INCR", key])?;
        client.ask::<String>(&["INCR", own])?;
        client.turn();
        let known = number.lock().known();
        match client.write::<Option<(u64, u64)>>(&["EXEC"]) {
            Some(Some((to, mine))) => {
                number.note(&client.run, |number| number.raised(known, value, to));
                count.raised(own, mine);
            }
            // Somebody else was faster.
            Some(None) => {}
            None => {
                count.unknown();
                match client.found::<Option<u64>>(&["GET", own]) {
                    Some(value) if count.found(own, value.unwrap_or(0)) => number.lock().found(),
                    Some(_) => {}
                    None => number.lock().unknown(),
                }
            }
        }
        Some(())
    }
}
