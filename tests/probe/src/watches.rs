//! Clients that contend for one number: WATCH, GET, MULTI, INCR, EXEC.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::{Client, Run};
use super::contended::Contended;
use super::group::{Group, Part};
use super::tally::Tally;

/// The number of this group.
pub fn key(run: &Run, group: usize) -> String {
    run.key(&format!("watched:{group}"))
}

/// Clients that contend.
#[derive(Debug)]
pub struct Watches {
    key: String,
    number: Number,
    clients: Group<Tally>,
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
        let key = key(run, group);
        let mut threads = Group::default();
        for client in clients {
            let (key, number) = (key.clone(), number.clone());
            threads.spawn(move || contend(client, &key, &number));
        }
        Watches { key, number, clients: threads }
    }

    /// Waits for them; the number must be what their EXECs say.
    pub fn finish(self, control: &mut Client) -> Part {
        let mut part = Part::default();
        for tally in self.clients.join(&mut part) {
            part.tally.add(&tally);
        }
        let value = control.read::<Option<u64>>(&["GET", &self.key]);
        let number = std::mem::take(&mut *self.number.lock());
        part.faults = number.ended(value.map(Option::unwrap_or_default));
        part
    }
}

fn contend(mut client: Client, key: &str, number: &Number) -> Tally {
    while client.turn() {
        // What went wrong is counted where it did.
        let _ = raise(&mut client, key, number);
    }
    client.tally
}

/// One turn; `None` if it ended with an error.
fn raise(client: &mut Client, key: &str, number: &Number) -> Option<()> {
    client.ask::<String>(&["WATCH", key])?;
    client.turn();
    let known = number.lock().known();
    let value = client.ask::<Option<u64>>(&["GET", key])?.unwrap_or_default();
    number.note(&client.run, |number| number.read(known, value));
    client.turn();
    client.ask::<String>(&["MULTI"])?;
    client.turn();
    client.ask::<String>(&["INCR", key])?;
    client.turn();
    let known = number.lock().known();
    match client.ask::<Option<(u64,)>>(&["EXEC"]) {
        Some(Some((to,))) => {
            number.note(&client.run, |number| number.raised(known, value, to));
        }
        // Somebody else was faster.
        Some(None) => {}
        None => number.lock().unknown(),
    }
    Some(())
}
