//! Clients that would notice: they use Redis as programs do, through a client library that is not
//! this project's, and know what they must be answered. `switch-probe` and `switch-test` run them
//! while what is behind the address is replaced.
//!
//! ```text
//! plan      how many of which kind       target  where they connect
//! client    one connection and its pace  group   the threads of one kind
//! counters, transactions, queues, pubsub, watches   the kinds
//! ledger    what was sent, what came back, and what is therefore wrong
//! contended the same for a number that several clients raise
//! crashes   when the server crashed, and whom that excuses
//! tally     how much was done, and how long it took
//! verdict   what it comes to             screen  what is shown meanwhile
//! admin     asks a proxy what it did     arguments  what a command line gives
//! ```
//!
//! All keys and channels are under a prefix of the run's own and are deleted in the end.

pub mod admin;
pub mod arguments;
mod client;
mod contended;
mod counters;
mod crashes;
mod group;
mod ledger;
mod plan;
mod pubsub;
mod queues;
pub mod screen;
mod tally;
pub mod target;
mod transactions;
mod verdict;
mod watches;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;

use self::client::{Client, Run, query};
use self::crashes::Crashes;
use self::group::Group;
pub use self::group::Part;
pub use self::ledger::Faults;
use self::plan::Shares;
use self::pubsub::News;
use self::queues::Queue;
pub use self::tally::Progress;
use self::target::{Dialler, Target, TargetError};
pub use self::verdict::{Row, Verdict, grouped, ms};
use self::watches::Watches;

/// As patient as a client should be.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clients are spread over these.
    pub targets: Vec<Target>,
    /// How many; each kind has one at least.
    pub clients: usize,
    /// Operations a second that they begin, together.
    pub rate: f64,
    /// How long an answer is waited for, beyond what the clients' own pace takes. It is an error then.
    pub patience: Duration,
    /// Of all keys and channels; without it, one that nobody else has.
    pub prefix: Option<String>,
    /// The server is killed meanwhile. Whose write is in flight then may be closed, and nobody else.
    pub crashes: bool,
}

/// Why a run does not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or address.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// Connecting, or what is asked first.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// They would be overwritten.
    #[error("there are keys already with the prefix {0}, {1} of those that would be used")]
    Used(String, u64),
    /// Characters that mean something in a pattern.
    #[error("the prefix {0} has one of * ? [ ] ^ \\ or a space in it")]
    Prefix(String),
}

/// Clients at work.
pub struct Probe {
    run: Arc<Run>,
    shares: Shares,
    control: Client,
    counters: Group,
    transactions: Group,
    queues: Vec<Queue>,
    news: Vec<News>,
    watches: Vec<Watches>,
}

impl Probe {
    /// Connects all, and lets them begin.
    pub fn start(plan: &Plan) -> Result<Self, StartError> {
        let shares = Shares::of(plan.clients);
        let every = Duration::from_secs_f64(shares.paced() as f64 / plan.rate);
        let dials = plan.targets.iter().map(Dialler::new).collect::<Result<_, _>>()?;
        let prefix = plan.prefix.clone().unwrap_or_else(own_prefix);
        if prefix.contains(|it: char| "*?[]^\\".contains(it) || it.is_whitespace()) {
            return Err(StartError::Prefix(prefix));
        }
        let patience = plan.patience + every * 8;
        let run = Arc::new(Run::new(prefix, every, patience, plan.crashes, dials));
        let mut control = Client::connect(&run, 0)?;
        refuse_used(&mut control, &shares)?;
        let mut number = 0;
        let mut connect = |count: usize| {
            let clients = (0..count).map(|_| {
                number += 1;
                Client::connect(&run, number)
            });
            clients.collect::<Result<Vec<_>, _>>()
        };
        let (counters, transactions) = (connect(shares.counters)?, connect(shares.transactions)?);
        let mut pairs = |pairs: &[(usize, usize)]| {
            let both = pairs.iter().map(|(one, two)| Ok((connect(*one)?, connect(*two)?)));
            both.collect::<Result<Vec<_>, RedisError>>()
        };
        let (queues, news) = (pairs(&shares.queues)?, pairs(&shares.news)?);
        let watches =
            shares.watches.iter().map(|count| connect(*count)).collect::<Result<Vec<_>, _>>()?;
        let mut probe = Probe {
            run: run.clone(),
            shares,
            control,
            counters: Group::default(),
            transactions: Group::default(),
            queues: Vec::new(),
            news: Vec::new(),
            watches: Vec::new(),
        };
        for (number, (publishers, subscribers)) in news.into_iter().enumerate() {
            probe.news.push(News::start(number, publishers, subscribers)?);
        }
        for (number, (producers, workers)) in queues.into_iter().enumerate() {
            probe.queues.push(Queue::start(&run, number, producers, workers));
        }
        for (number, clients) in watches.into_iter().enumerate() {
            probe.watches.push(Watches::start(&run, number, clients));
        }
        counters::start(&mut probe.counters, counters);
        transactions::start(&mut probe.transactions, transactions);
        Ok(probe)
    }

    /// What the keys begin with.
    pub fn prefix(&self) -> &str {
        &self.run.prefix
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.shares.sizes().iter().sum()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        self.run.live.progress()
    }

    /// The longest that one operation took since this was last asked.
    pub fn longest_lately(&self) -> Duration {
        self.run.live.longest_lately()
    }

    /// The server is about to be killed.
    pub fn crash_begins(&self) {
        self.run.crashes.iter().for_each(Crashes::begin);
    }

    /// It is killed, and what is asked from now on is held until it is back.
    pub fn crash_is_known(&self) {
        self.run.crashes.iter().for_each(Crashes::known);
    }

    /// Ends all, checks what is there, deletes it, and says what it comes to.
    pub fn finish(mut self) -> Verdict {
        self.run.stop();
        // It was idle for as long as all others worked. No crash closes who is idle.
        if self.run.crashes.is_none() {
            self.control.renew();
        }
        let all = |parts: Vec<Part>| {
            let mut sum = Part::default();
            parts.into_iter().for_each(|part| sum.add(part));
            sum
        };
        let control = &mut self.control;
        let parts = [
            self.counters.sum(),
            self.transactions.sum(),
            all(self.queues.into_iter().map(|it| it.finish(control)).collect()),
            all(self.news.into_iter().map(|it| it.finish(control)).collect()),
            all(self.watches.into_iter().map(|it| it.finish(control)).collect()),
        ];
        let kinds = ["counters", "transactions", "queue workers", "pub/sub", "WATCH loops"];
        let mut rows: Vec<Row> = kinds
            .into_iter()
            .zip(self.shares.sizes())
            .zip(parts)
            .map(|((kind, clients), part)| Row { kind, clients, part })
            .collect();
        for keys in keys(&self.run, &self.shares).chunks(100) {
            control.unmeasured(|connection| query::<u64>(connection, &command("DEL", keys)));
        }
        // What went wrong at the end is of no kind.
        if self.control.tally.errors > 0 {
            let part = Part { tally: self.control.tally, ..Part::default() };
            rows.push(Row { kind: "the end", clients: 1, part });
        }
        let closed = self.run.crashes.as_ref().map(Crashes::closed);
        Verdict { rows, held: Vec::new(), closed }
    }
}

fn own_prefix() -> String {
    // Seeded by the system; braces keep all of it in one slot of a cluster.
    let random = RandomState::new().hash_one(std::process::id());
    format!("switch-probe:{{{:08x}}}:", random as u32)
}

fn command<'a>(name: &'a str, keys: &'a [String]) -> Vec<&'a str> {
    [name].into_iter().chain(keys.iter().map(String::as_str)).collect()
}

fn keys(run: &Run, shares: &Shares) -> Vec<String> {
    let counters = (0..shares.counters).map(|it| counters::key(run, it));
    let transactions = (0..shares.transactions).flat_map(|it| transactions::keys(run, it));
    let queues = shares.queues.iter().enumerate().flat_map(|(it, (_, workers))| {
        let (jobs, done) = queues::keys(run, it, *workers);
        done.into_iter().chain([jobs])
    });
    let watches = shares.watches.iter().enumerate().flat_map(|(it, clients)| {
        let (key, own) = watches::keys(run, it, *clients);
        own.into_iter().chain([key])
    });
    counters.chain(transactions).chain(queues).chain(watches).collect()
}

fn refuse_used(control: &mut Client, shares: &Shares) -> Result<(), StartError> {
    let run = control.run.clone();
    let mut used = 0;
    for keys in keys(&run, shares).chunks(100) {
        used += query::<u64>(&mut control.connection, &command("EXISTS", keys))?;
    }
    match used {
        0 => Ok(()),
        _ => Err(StartError::Used(run.prefix.clone(), used)),
    }
}
