//! Clients that count: each has a number of its own, and must be answered with the next one.

use super::client::{Client, Run};
use super::group::{Group, Part};
use super::ledger::Count;

/// The number of this client.
pub fn key(run: &Run, number: usize) -> String {
    run.key(&format!("counter:{number}"))
}

/// Begins to count.
pub fn start(group: &mut Group, clients: Vec<Client>) {
    for (number, client) in clients.into_iter().enumerate() {
        group.spawn(move || count(client, number));
    }
}

fn count(mut client: Client, number: usize) -> Part {
    let (key, name) = (key(&client.run, number), format!("counter {number}"));
    let mut count = Count::default();
    while client.turn() {
        let before = count.faults.count();
        match client.write(&["INCR", &key]) {
            Some(value) => count.raised(&name, value),
            None => {
                count.unknown();
                if let Some(value) = client.found::<Option<u64>>(&["GET", &key]) {
                    count.found(&name, value.unwrap_or(0));
                }
            }
        }
        client.run.live.wrong(count.faults.count() - before);
    }
    if let Some(value) = client.read::<Option<u64>>(&["GET", &key]) {
        count.read(&name, value.unwrap_or(0));
    }
    Part { tally: client.tally, faults: count.faults }
}
