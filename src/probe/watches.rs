//! Clients that contend for one number: WATCH, GET, MULTI, SET to one more, EXEC.

use super::client::{Client, Run};
use super::group::{Group, Part};
use super::ledger::Count;
use super::tally::Tally;

/// The number of this group.
pub fn key(run: &Run, group: usize) -> String {
    run.key(&format!("watched:{group}"))
}

/// Clients that contend.
#[derive(Debug)]
pub struct Watches {
    group: usize,
    clients: Group<Contender>,
}

/// What one of them did.
#[derive(Debug, Default)]
struct Contender {
    tally: Tally,
    succeeded: u64,
    unknown: u64,
}

impl Watches {
    /// Begins.
    pub fn start(group: usize, clients: Vec<Client>) -> Self {
        let mut threads = Group::default();
        for client in clients {
            let key = key(&client.run, group);
            threads.spawn(move || contend(client, &key));
        }
        Watches { group, clients: threads }
    }

    /// Waits for them; the number must be what their EXECs say.
    pub fn finish(self, control: &mut Client) -> Part {
        let mut part = Part::default();
        let (mut succeeded, mut unknown) = (0, 0);
        for contender in self.clients.join(&mut part) {
            part.tally.add(&contender.tally);
            succeeded += contender.succeeded;
            unknown += contender.unknown;
        }
        let key = key(&control.run, self.group);
        if let Some(value) = control.read::<Option<u64>>(&["GET", &key]) {
            let mut count = Count::of(succeeded, unknown);
            count.read(&format!("watched number {}", self.group), value.unwrap_or(0));
            part.faults = count.faults;
        }
        part
    }
}

fn contend(mut client: Client, key: &str) -> Contender {
    let mut done = Contender::default();
    while client.turn() {
        match raise(&mut client, key) {
            Some(true) => done.succeeded += 1,
            Some(false) => {}
            None => done.unknown += 1,
        }
    }
    done.tally = client.tally;
    done
}

/// Whether EXEC went through.
fn raise(client: &mut Client, key: &str) -> Option<bool> {
    client.ask::<String>(&["WATCH", key])?;
    client.turn();
    let value: Option<u64> = client.ask(&["GET", key])?;
    let next = (value.unwrap_or(0) + 1).to_string();
    client.turn();
    client.ask::<String>(&["MULTI"])?;
    client.turn();
    client.ask::<String>(&["SET", key, &next])?;
    client.turn();
    let done: Option<Vec<String>> = client.ask(&["EXEC"])?;
    Some(done.is_some())
}
