//! One client: a connection, its pace, and what it did.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, RedisError, RedisResult, cmd};

use super::crashes::Crashes;
use super::tally::{Live, Tally};
use super::target::Dialler;

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(50);
/// How often a client that waits for its turn looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);

/// How often a final value is asked for before it is given up.
const READS: usize = 3;

/// What all clients of a run share.
#[derive(Debug)]
pub struct Run {
    /// Of all keys and channels.
    pub prefix: String,
    /// When it began; what travels through Redis has its time from here.
    pub begun: Instant,
    /// Between two operations of one client.
    pub every: Duration,
    /// How long anything may take before it counts as an error.
    pub patience: Duration,
    /// For who looks on.
    pub live: Live,
    /// If the server is killed again and again, for which a client is not closed without need.
    pub crashes: Option<Crashes>,
    dials: Vec<Dialler>,
    over: OnceLock<Instant>,
}

impl Run {
    /// Not begun: nobody is connected.
    pub fn new(
        prefix: String,
        every: Duration,
        patience: Duration,
        crashes: bool,
        dials: Vec<Dialler>,
    ) -> Self {
        let (live, over) = (Live::default(), OnceLock::new());
        let crashes = crashes.then(Crashes::default);
        Run { prefix, begun: Instant::now(), every, patience, live, crashes, dials, over }
    }

    /// Another number: the server may have crashed in between.
    pub fn changes(&self) -> u64 {
        self.crashes.as_ref().map_or(0, Crashes::changes)
    }

    /// The server is being killed just now.
    pub fn crash_is_on(&self) -> bool {
        self.crashes.as_ref().is_some_and(Crashes::is_on)
    }

    /// No client begins anything more.
    pub fn stop(&self) {
        // The first time counts.
        let _ = self.over.set(Instant::now());
    }

    /// Nothing more is to be begun.
    pub fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// It ends, whoever has not answered by now.
    fn is_given_up(&self) -> bool {
        self.over.get().is_some_and(|over| over.elapsed() > self.patience)
    }

    /// A key or channel.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Microseconds since it began.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// How long ago that was.
    pub fn since(&self, micros: u64) -> Duration {
        Duration::from_micros(self.now().saturating_sub(micros))
    }

    fn dial(&self, number: usize) -> RedisResult<Connection> {
        // Protocols change twice as fast as addresses, so that each address sees both.
        let connection = self.dials[number / 2 % self.dials.len()].dial(number)?;
        connection.set_read_timeout(Some(self.patience))?;
        connection.set_write_timeout(Some(self.patience))?;
        Ok(connection)
    }
}

/// What becomes of a client whose request is in flight while the server crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// It reads, waits, or is queued: it is answered later.
    Harmless,
    /// It changes something: nobody knows whether it was executed, and the client is closed.
    Write,
}

/// One connection, and what was done with it.
pub struct Client {
    /// What it shares with the others.
    pub run: Arc<Run>,
    /// What it did.
    pub tally: Tally,
    pub(super) connection: Connection,
    number: usize,
    due: Instant,
}

impl Client {
    /// Connects.
    pub fn connect(run: &Arc<Run>, number: usize) -> RedisResult<Self> {
        let connection = run.dial(number)?;
        // Not all at once.
        let due = Instant::now() + run.every.mul_f64((number % 16) as f64 / 16.0);
        Ok(Client { run: run.clone(), tally: Tally::default(), connection, number, due })
    }

    /// Connects anew, where nothing is in flight. If that fails, whatever is asked next tells.
    pub fn renew(&mut self) {
        if let Ok(connection) = self.run.dial(self.number) {
            self.connection = connection;
        }
    }

    /// Waits for its turn; false, at once, when it is over.
    pub fn turn(&mut self) -> bool {
        loop {
            let left = self.due.saturating_duration_since(Instant::now());
            if self.run.is_over() {
                return false;
            }
            if left.is_zero() {
                break;
            }
            thread::sleep(left.min(LOOK));
        }
        // What is late stays late: nobody catches up.
        self.due = (self.due + self.run.every).max(Instant::now());
        true
    }

    /// Asks, and records how long the answer took. `None` if there is none: that is an error whose
    /// outcome is unknown, and the client has connected again.
    pub fn ask<T: FromRedisValue>(&mut self, command: &[&str]) -> Option<T> {
        self.measured(command, Request::Harmless)
    }

    /// Asks for what changes something. `None` is no error if the server crashed meanwhile.
    pub fn write<T: FromRedisValue>(&mut self, command: &[&str]) -> Option<T> {
        self.measured(command, Request::Write)
    }

    /// Asks what became of a write whose outcome is unknown, if that can be told: a server that was killed
    /// executes nothing any more, while another one may be slow.
    pub fn found<T: FromRedisValue>(&mut self, command: &[&str]) -> Option<T> {
        self.run.crashes.as_ref()?;
        self.ask(command)
    }

    fn measured<T: FromRedisValue>(&mut self, command: &[&str], request: Request) -> Option<T> {
        let begun = Instant::now();
        let answer = self.attempt(request, |connection| query(connection, command))?;
        self.tally.done(begun.elapsed(), &self.run.live);
        Some(answer)
    }

    /// Does what waits for others. The caller tells how long that took.
    pub fn unmeasured<T>(
        &mut self,
        what: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> Option<T> {
        self.attempt(Request::Harmless, what)
    }

    fn attempt<T>(
        &mut self,
        request: Request,
        what: impl FnOnce(&mut Connection) -> RedisResult<T>,
    ) -> Option<T> {
        if self.run.is_given_up() {
            let given_up = "given up: there was no answer at the end".to_owned();
            self.tally.failed(given_up, &self.run.live);
            return None;
        }
        let begun = Instant::now();
        match what(&mut self.connection) {
            Ok(answer) => Some(answer),
            Err(why) => {
                match request == Request::Write && self.is_excused(&why, begun) {
                    true => self.tally.unknown += 1,
                    false => self.count_error(&why),
                }
                self.connect_again(begun);
                None
            }
        }
    }

    /// Counts an error and connects again.
    pub fn failed(&mut self, why: &RedisError, since: Instant) {
        self.count_error(why);
        self.connect_again(since);
    }

    /// A crash of the server explains that the connection was closed.
    fn is_excused(&self, why: &RedisError, since: Instant) -> bool {
        let closed = why.is_io_error() && !why.is_timeout();
        closed && self.run.crashes.as_ref().is_some_and(|crashes| crashes.excuse(since))
    }

    fn count_error(&mut self, why: &RedisError) {
        let said = match why.is_timeout() {
            true => format!("no answer within {} s", self.run.patience.as_secs()),
            false => why.to_string(),
        };
        self.tally.failed(said, &self.run.live);
    }

    /// The old connection may be in the middle of anything. The client stands still until it is connected.
    fn connect_again(&mut self, since: Instant) {
        let until = Instant::now() + self.run.patience;
        while Instant::now() < until && !self.run.is_given_up() {
            match self.run.dial(self.number) {
                Ok(connection) => {
                    self.connection = connection;
                    break;
                }
                Err(why) => {
                    // Who connects while the server is gone must be held, too.
                    if self.run.crashes.is_some() {
                        self.tally.failed(format!("connecting: {why}"), &self.run.live);
                    }
                    thread::sleep(AGAIN);
                }
            }
        }
        self.tally.took(since.elapsed(), &self.run.live);
    }

    /// Asks what changes nothing, again after an error. The time is not recorded: the clients are
    /// done by then.
    pub fn read<T: FromRedisValue>(&mut self, command: &[&str]) -> Option<T> {
        (0..READS).find_map(|_| self.unmeasured(|connection| query(connection, command)))
    }
}

/// One request and its reply.
pub fn query<T: FromRedisValue>(connection: &mut Connection, command: &[&str]) -> RedisResult<T> {
    let (name, args) = command.split_first().unwrap_or((&"PING", &[]));
    cmd(name).arg(args).query(connection)
}
