//! Clients that raise two numbers and grow a list in one transaction, command by command, so that
//! most of the time one is open.

use super::client::{Client, Run, query};
use super::group::{Group, Part};
use super::ledger::{Count, Faults, Sent, Taken, audit};

/// A list is read in pieces of so many.
const PIECE: usize = 1000;

/// What one client's transactions change: two numbers and a list.
pub fn keys(run: &Run, number: usize) -> [String; 3] {
    ["a", "b", "list"].map(|name| run.key(&format!("transaction:{number}:{name}")))
}

/// Begins.
pub fn start(group: &mut Group, clients: Vec<Client>) {
    for (number, client) in clients.into_iter().enumerate() {
        group.spawn(move || Transactions::new(client, number).run());
    }
}

struct Transactions {
    client: Client,
    name: String,
    keys: [String; 3],
    sent: Sent,
    /// What the two numbers and the list's length must be.
    counts: [Count; 3],
}

impl Transactions {
    fn new(client: Client, number: usize) -> Self {
        Transactions {
            name: format!("transactions {number}"),
            keys: keys(&client.run, number),
            client,
            sent: Sent::default(),
            counts: Default::default(),
        }
    }

    fn run(mut self) -> Part {
        while self.client.turn() {
            let before = self.wrong();
            self.sent.last += 1;
            match self.transaction() {
                Some(answers) => {
                    for ((count, key), answer) in
                        self.counts.iter_mut().zip(&self.keys).zip(answers)
                    {
                        count.raised(key, answer);
                    }
                }
                None => {
                    self.counts.iter_mut().for_each(Count::unknown);
                    self.sent.unknown.insert(self.sent.last);
                    self.find_out();
                }
            }
            self.client.run.live.wrong(self.wrong() - before);
        }
        let listed = self.listed();
        let faults = self.verdict(listed);
        Part { tally: self.client.tally, faults }
    }

    fn wrong(&self) -> u64 {
        self.counts.iter().map(|count| count.faults.count()).max().unwrap_or(0)
    }

    /// What EXEC answers. A transaction that was begun is ended, however late it is.
    fn transaction(&mut self) -> Option<[u64; 3]> {
        let [a, b, list] = self.keys.clone();
        let number = self.sent.last.to_string();
        let commands: [&[&str]; 4] =
            [&["MULTI"], &["INCR", &a], &["INCR", &b], &["RPUSH", &list, &number]];
        for command in commands {
            self.client.ask::<String>(command)?;
            self.client.turn();
        }
        let (a, b, length) = self.client.write(&["EXEC"])?;
        Some([a, b, length])
    }

    /// Was the last transaction executed? Then it must still be there at the end; else it must never be there.
    fn find_out(&mut self) -> Option<()> {
        let [a, b, list] = &self.keys;
        let (a, b): (Option<u64>, Option<u64>) = self.client.found(&["MGET", a, b])?;
        let length = self.client.found(&["LLEN", list])?;
        let values = [a.unwrap_or(0), b.unwrap_or(0), length];
        let counts = self.counts.iter_mut().zip(&self.keys).zip(values);
        let found = counts.map(|((count, key), value)| count.found(key, value));
        // What was executed in part is told in the end.
        if found.fold(true, |all, one| all & one) {
            self.sent.unknown.remove(&self.sent.last);
        }
        Some(())
    }

    fn listed(&mut self) -> Option<Taken> {
        let mut taken = Taken::new();
        loop {
            let (from, to) = (taken.len().to_string(), (taken.len() + PIECE - 1).to_string());
            let range = ["LRANGE", &self.keys[2], &from, &to];
            let piece: Vec<u64> = self.client.read(&range)?;
            taken.extend(piece.iter().map(|number| (0, *number)));
            if piece.len() < PIECE {
                return Some(taken);
            }
        }
    }

    /// Of what is seen in three places, the worst: a transaction is lost once.
    fn verdict(&mut self, listed: Option<Taken>) -> Faults {
        let [a, b, list] = self.keys.clone();
        let numbers = self
            .client
            .unmeasured(|connection| query::<Vec<Option<u64>>>(connection, &["MGET", &a, &b]));
        let (Some(taken), Some(numbers)) = (listed, numbers) else {
            // That is an error already.
            return Faults::default();
        };
        let length = taken.len() as u64;
        let values = [numbers.first(), numbers.get(1)].map(|it| it.copied().flatten().unwrap_or(0));
        let values = [values[0], values[1], length];
        let mut worst = audit(&self.name, std::slice::from_ref(&self.sent), &[taken], 0);
        for ((count, key), value) in self.counts.iter_mut().zip([&a, &b, &list]).zip(values) {
            count.read(key, value);
            worst = worst.worst(std::mem::take(&mut count.faults));
        }
        let torn = values.iter().max().zip(values.iter().min()).map_or(0, |(max, min)| max - min);
        if torn > 0 && worst.none() {
            worst.lost += torn;
            worst.say(format!("{}: executed in part: {values:?}", self.name));
        }
        worst
    }
}
