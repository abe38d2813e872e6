//! Producers that number their jobs, and workers that wait for them.
//!
//! Half of the queues are RPUSH and BLPOP: a job whose reply is lost with a connection is gone. The
//! others are LPUSH and BLMOVE, to a list for each worker: there it can be seen what was taken.
//!
//! A crash may take the reply to a BLPOP that was just served: so much is excused, and counted as unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::client::{Client, Run, query};
use super::group::{Group, Part};
use super::ledger::{Faults, Sent, Taken, audit};
use super::tally::Tally;

/// The last job of each worker.
const END: &str = "end";

/// One queue, its producers and workers.
#[derive(Debug)]
pub struct Queue {
    name: String,
    moves: bool,
    jobs: String,
    done: Vec<String>,
    drained: Arc<AtomicBool>,
    producers: Group<(Tally, Sent)>,
    workers: Group<Worker>,
}

/// What a worker got.
#[derive(Debug, Default)]
struct Worker {
    tally: Tally,
    taken: Taken,
    foreign: Faults,
    broken: u64,
}

/// The queue, and for each worker the list of what it has taken.
pub fn keys(run: &Run, number: usize, workers: usize) -> (String, Vec<String>) {
    let done = |worker| run.key(&format!("queue:{number}:done:{worker}"));
    (run.key(&format!("queue:{number}")), (0..workers).map(done).collect())
}

impl Queue {
    /// Workers wait, then producers begin.
    pub fn start(run: &Run, number: usize, producers: Vec<Client>, workers: Vec<Client>) -> Self {
        let (jobs, done) = keys(run, number, workers.len());
        let (moves, drained) = (number % 2 == 1, Arc::new(AtomicBool::new(false)));
        let mut queue = Queue {
            name: format!("queue {number}"),
            moves,
            jobs,
            done,
            drained,
            producers: Group::default(),
            workers: Group::default(),
        };
        for (worker, client) in workers.into_iter().enumerate() {
            // Some wait without end.
            let seconds = if worker % 2 == 0 { "0" } else { "5" };
            let jobs = queue.jobs.clone();
            let command = match moves {
                false => vec!["BLPOP".to_owned(), jobs, seconds.to_owned()],
                true => {
                    let (from, to, seconds) = ("RIGHT".into(), "LEFT".into(), seconds.to_owned());
                    vec!["BLMOVE".to_owned(), jobs, queue.done[worker].clone(), from, to, seconds]
                }
            };
            let drained = queue.drained.clone();
            queue.workers.spawn(move || work(client, &command, &drained));
        }
        let push = queue.push();
        for (sender, client) in producers.into_iter().enumerate() {
            let jobs = queue.jobs.clone();
            queue.producers.spawn(move || produce(client, push, &jobs, sender));
        }
        queue
    }

    fn push(&self) -> &'static str {
        if self.moves { "LPUSH" } else { "RPUSH" }
    }

    /// Waits for the producers, then until the workers have done everything.
    pub fn finish(self, control: &mut Client) -> Part {
        let push = self.push();
        let mut part = Part::default();
        let mut senders = Vec::new();
        for (tally, sent) in self.producers.join(&mut part) {
            part.tally.add(&tally);
            senders.push(sent);
        }
        for _ in &self.done {
            control.unmeasured(|connection| query::<u64>(connection, &[push, &self.jobs, END]));
        }
        self.drained.store(true, Ordering::Relaxed);
        let mut takers = Vec::new();
        let mut broken = 0;
        for worker in self.workers.join(&mut part) {
            part.tally.add(&worker.tally);
            part.faults.add(worker.foreign);
            takers.push(worker.taken);
            broken += worker.broken;
        }
        let mut faults = audit(&self.name, &senders, &takers, broken);
        if self.moves {
            // The lists say what became of each.
            faults.excused = 0;
            let lists = self.done.iter().map(|list| {
                let jobs: Vec<String> = control.read(&["LRANGE", list, "0", "-1"])?;
                let newest_last = jobs.iter().rev().filter(|job| *job != END);
                Some(newest_last.filter_map(|job| parse(job)).map(|it| (it.0, it.1)).collect())
            });
            if let Some(lists) = lists.collect::<Option<Vec<Taken>>>() {
                faults = faults.worst(audit(&format!("{}, moved", self.name), &senders, &lists, 0));
            }
        }
        if control.run.crashes.is_some() {
            part.tally.unknown += faults.excused;
        }
        part.faults.add(faults);
        part
    }
}

fn produce(mut client: Client, push: &str, jobs: &str, sender: usize) -> (Tally, Sent) {
    let mut sent = Sent::default();
    while client.turn() {
        sent.last += 1;
        let job = format!("{sender}:{}:{}", sent.last, client.run.now());
        if client.write::<u64>(&[push, jobs, &job]).is_none() {
            sent.unknown.insert(sent.last);
        }
    }
    (client.tally, sent)
}

/// Sender, number, and when it was sent.
fn parse(job: &str) -> Option<(usize, u64, u64)> {
    let mut parts = job.split(':');
    let mut next = || parts.next()?.parse::<u64>().ok();
    Some((usize::try_from(next()?).ok()?, next()?, next()?))
}

fn work(mut client: Client, command: &[String], drained: &AtomicBool) -> Worker {
    let mut worker = Worker::default();
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    loop {
        let over = drained.load(Ordering::Relaxed);
        let changes = client.run.changes();
        let took = client.unmeasured(|connection| take(connection, &command));
        if took.is_some() && client.run.changes() != changes {
            worker.broken += 1;
        }
        let job = match took {
            Some(Some(job)) if job == END => break,
            Some(Some(job)) => job,
            // What is empty for so long, after the last job, has no last job for this one.
            Some(None) if over => break,
            Some(None) => continue,
            None => {
                worker.broken += 1;
                if over {
                    break;
                }
                continue;
            }
        };
        match parse(&job) {
            Some((sender, number, sent)) => {
                let Client { run, tally, .. } = &mut client;
                tally.done(run.since(sent), &run.live);
                worker.taken.push((sender, number));
            }
            None => {
                worker.foreign.doubled += 1;
                worker.foreign.say(format!("a job that nobody sent: {job:.40}"));
                client.run.live.wrong(1);
            }
        }
    }
    worker.tally = client.tally;
    worker
}

fn take(
    connection: &mut redis::Connection,
    command: &[&str],
) -> redis::RedisResult<Option<String>> {
    if command[0] == "BLPOP" {
        let popped: Option<(String, String)> = query(connection, command)?;
        return Ok(popped.map(|it| it.1));
    }
    query(connection, command)
}
