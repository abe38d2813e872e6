//! Many clients run random programs through random reloads, against a model that predicts every
//! reply.
//!
//! The two uplinks are one server by two addresses: every reload hands everything over, and what
//! the data must be is known. `REDIS_PROXY_SEED` runs the programs of a seed again, and
//! `REDIS_PROXY_PROGRAMS` says how many each client runs.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::{Client, Proxy, Redis, TellsToEnd, config, eventually, redis, request};

const CLIENTS: u64 = 12;
const PROGRAMS: usize = 150;
/// They go on until so many reloads were done.
const FEWEST_RELOADS: usize = 6;

/// SplitMix64.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub fn coin(&mut self) -> bool {
        self.next() & 1 > 0
    }
}

/// One client, what it has done, and what its connection and its data must be like.
struct Programs<'a> {
    number: u64,
    random: Random,
    proxy: &'a Proxy,
    client: Client,
    /// Past the proxy.
    direct: Client,
    resp3: bool,
    db: usize,
    name: String,
    id: String,
    tracking: bool,
    /// In RESP3, one may be subscribed and do other things; so many messages were published to
    /// this client, and so many it has heard.
    listens: bool,
    published: usize,
    heard: usize,
    data: HashMap<(usize, String), i64>,
    log: Vec<String>,
}

impl Programs<'_> {
    fn new<'a>(number: u64, seed: u64, proxy: &'a Proxy, redis: &Redis) -> Programs<'a> {
        let mut client = proxy.client();
        let id = client.run("CLIENT ID");
        let name = format!("name-{number}-0");
        assert_eq!(client.run(&format!("CLIENT SETNAME {name}")), "OK");
        Programs {
            number,
            random: Random(seed ^ (number << 32)),
            proxy,
            client,
            direct: redis.client(),
            resp3: false,
            db: 0,
            name,
            id,
            tracking: false,
            listens: false,
            published: 0,
            heard: 0,
            data: HashMap::new(),
            log: Vec::new(),
        }
    }

    /// The next reply, or message that is asked for. A cache may be told to drop keys at any time,
    /// and messages come between.
    fn reply(&mut self) -> String {
        let message = format!(">[message, c{}:ear, ", self.number);
        loop {
            let reply = self.client.reply();
            if let Some(number) = reply.strip_prefix(&message) {
                assert_eq!(number, format!("{}]", self.heard));
                self.heard += 1;
            } else if !(self.tracking && reply.starts_with(">[invalidate, ")) {
                return reply;
            }
        }
    }

    /// All messages are heard.
    fn catch_up(&mut self) {
        while self.heard < self.published {
            self.run("PING", "PONG");
        }
    }

    fn expect(&mut self, wanted: &str) {
        if self.listens && self.random.below(4) == 0 {
            self.direct.run(&format!("PUBLISH c{}:ear {}", self.number, self.published));
            self.published += 1;
        }
        let got = self.reply();
        self.log.push(format!("  {got}"));
        assert_eq!(got, wanted);
    }

    fn send(&mut self, commands: &[String]) {
        let mut bytes = Vec::new();
        for command in commands {
            self.log.push(command.clone());
            bytes.extend(request(&command.split(' ').collect::<Vec<_>>()));
        }
        // At any split.
        let split = self.random.below(bytes.len() + 1);
        self.client.send(&bytes[..split]).send(&bytes[split..]);
    }

    fn run(&mut self, command: &str, wanted: &str) {
        self.send(&[command.to_owned()]);
        self.expect(wanted);
    }

    fn key(&mut self) -> String {
        format!("c{}:k{}", self.number, self.random.below(4))
    }

    /// A command and its reply, as it will be when it is executed.
    fn plain(&mut self) -> (String, String) {
        let key = self.key();
        let at = (self.db, key.clone());
        match self.random.below(5) {
            0 => {
                let value = i64::try_from(self.random.below(1000)).unwrap();
                self.data.insert(at, value);
                (format!("SET {key} {value}"), "OK".to_owned())
            }
            1 => {
                let value = self.data.entry(at).or_default();
                *value += 1;
                (format!("INCR {key}"), value.to_string())
            }
            2 => {
                self.db = self.random.below(3);
                (format!("SELECT {}", self.db), "OK".to_owned())
            }
            3 => {
                let there = u8::from(self.data.remove(&at).is_some());
                (format!("DEL {key}"), there.to_string())
            }
            _ => {
                let value = self.data.get(&at).map_or("nil".to_owned(), i64::to_string);
                (format!("GET {key}"), value)
            }
        }
    }

    fn pipeline(&mut self) {
        let count = 1 + self.random.below(8);
        let (commands, replies): (Vec<_>, Vec<_>) = (0..count).map(|_| self.plain()).unzip();
        self.send(&commands);
        for reply in replies {
            self.expect(&reply);
        }
    }

    fn transaction(&mut self) {
        let watches = self.random.coin();
        let touched = watches && self.random.coin();
        let refused = self.random.below(4) == 0;
        let discards = self.random.below(4) == 0;
        if watches {
            let key = self.key();
            self.run(&format!("WATCH {key} other{}", self.number), "OK");
            if touched {
                let db = self.db;
                assert_eq!(self.direct.run(&format!("SELECT {db}")), "OK");
                let value = self.data.get(&(db, key.clone())).copied().unwrap_or(7);
                assert_eq!(self.direct.run(&format!("SET {key} {value}")), "OK");
                self.data.insert((db, key), value);
            }
        }
        let kept = (self.db, self.data.clone());
        self.run("MULTI", "OK");
        let mut replies = Vec::new();
        for _ in 0..self.random.below(6) {
            let (command, reply) = self.plain();
            self.run(&command, "QUEUED");
            replies.push(reply);
        }
        if refused {
            self.send(&["GET".to_owned()]);
            let reply = self.reply();
            assert!(reply.starts_with("-ERR wrong number"), "{reply}");
        }
        let executed = match () {
            () if discards => {
                self.run("DISCARD", "OK");
                false
            }
            () if refused => {
                self.run("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
                false
            }
            () if touched => {
                self.run("EXEC", "nil");
                false
            }
            () => {
                self.run("EXEC", &format!("[{}]", replies.join(", ")));
                true
            }
        };
        if !executed {
            (self.db, self.data) = kept;
        }
    }

    fn blocking(&mut self) {
        let (list, number) = (format!("c{}:list", self.number), self.random.below(1000));
        let db = self.db;
        assert_eq!(self.direct.run(&format!("SELECT {db}")), "OK");
        let stream = format!("c{}:stream", self.number);
        match self.random.below(6) {
            0 => self.run(&format!("BLPOP {list} 0.01"), "nil"),
            1 => {
                let (command, reply) = self.plain();
                let now = self.db;
                self.send(&[format!("BLPOP {list} 0"), command]);
                self.wait_a_little();
                self.direct.run(&format!("RPUSH {list} {number}"));
                self.expect(&format!("[{list}, {number}]"));
                self.expect(&reply);
                self.db = now;
            }
            2 => {
                self.send(&[format!("BLMOVE {list} {list}:to LEFT RIGHT 0")]);
                self.wait_a_little();
                self.direct.run(&format!("RPUSH {list} {number}"));
                self.expect(&number.to_string());
                self.run(&format!("LPOP {list}:to"), &number.to_string());
            }
            3 => {
                self.send(&[format!("BZPOPMIN {list}:z 0")]);
                self.wait_a_little();
                self.direct.run(&format!("ZADD {list}:z 1 {number}"));
                self.expect(&format!("[{list}:z, {number}, 1]"));
            }
            4 => {
                // It is sent on before the entry comes: the proxy says when.
                self.send(&[format!("XREAD BLOCK 0 STREAMS {stream} $")]);
                self.is_blocked();
                let id = self.direct.run(&format!("XADD {stream} * f {number}"));
                let got = self.reply();
                let wanted = format!("{stream}, [[{id}, [f, {number}]]]");
                assert!(got.contains(&wanted), "{got} is not {wanted}");
            }
            _ => {
                self.send(&[format!("BLPOP {list} 0")]);
                self.is_blocked();
                let unblock = format!("CLIENT UNBLOCK {} TIMEOUT", self.id);
                let mut other = self.proxy.client();
                // Between two uplinks, it is not there to be unblocked.
                eventually("it is unblocked", || other.run(&unblock) == "1");
                self.expect("nil");
            }
        }
    }

    fn wait_a_little(&mut self) {
        for _ in 0..self.random.below(3) {
            self.direct.run("PING");
        }
    }

    /// The server has its command.
    fn is_blocked(&mut self) {
        let mine = format!(" name={} ", self.name);
        let waits = |line: &str| {
            let flags = line.split(' ').find_map(|word| word.strip_prefix("flags="));
            line.contains(&mine) && flags.is_some_and(|flags| flags.contains('b'))
        };
        let direct = &mut self.direct;
        eventually("it waits", || direct.run("CLIENT LIST").lines().any(waits));
    }

    fn message(&self, parts: &str) -> String {
        format!("{}[{parts}]", if self.resp3 { ">" } else { "" })
    }

    fn ear(&mut self) {
        let number = self.number;
        if self.listens {
            self.catch_up();
            self.listens = false;
            self.run(
                &format!("UNSUBSCRIBE c{number}:ear"),
                &format!(">[unsubscribe, c{number}:ear, 0]"),
            );
        } else if self.resp3 {
            self.run(
                &format!("SUBSCRIBE c{number}:ear"),
                &format!(">[subscribe, c{number}:ear, 1]"),
            );
            self.listens = true;
        }
    }

    fn subscriptions(&mut self) {
        if self.listens {
            self.ear();
        }
        let number = self.number;
        let channels = [format!("c{number}:a"), format!("c{number}:b"), format!("c{number}:s")];
        let [a, b, s] = &channels;
        self.send(&[format!("SUBSCRIBE {a}"), format!("PSUBSCRIBE {b}*")]);
        self.expect(&self.message(&format!("subscribe, {a}, 1")));
        self.expect(&self.message(&format!("psubscribe, {b}*, 2")));
        let shard = self.random.coin();
        if shard {
            self.run(&format!("SSUBSCRIBE {s}"), &self.message(&format!("ssubscribe, {s}, 1")));
        }
        for count in 0..self.random.below(20) {
            match self.random.below(4) {
                0 => {
                    self.direct.run(&format!("PUBLISH {b}{count} {count}"));
                    self.expect(&self.message(&format!("pmessage, {b}*, {b}{count}, {count}")));
                }
                1 if shard => {
                    self.direct.run(&format!("SPUBLISH {s} {count}"));
                    self.expect(&self.message(&format!("smessage, {s}, {count}")));
                }
                2 => {
                    let pong = if self.resp3 { "PONG" } else { "[pong, ]" };
                    self.run("PING", pong);
                }
                _ => {
                    self.direct.run(&format!("PUBLISH {a} {count}"));
                    self.expect(&self.message(&format!("message, {a}, {count}")));
                }
            }
        }
        let mut ends = vec!["UNSUBSCRIBE".to_owned(), "PUNSUBSCRIBE".to_owned()];
        ends.extend(shard.then(|| "SUNSUBSCRIBE".to_owned()));
        self.send(&ends);
        self.expect(&self.message(&format!("unsubscribe, {a}, 1")));
        self.expect(&self.message(&format!("punsubscribe, {b}*, 0")));
        if shard {
            self.expect(&self.message(&format!("sunsubscribe, {s}, 0")));
        }
    }

    fn connection(&mut self) {
        match self.random.below(8) {
            0 => {
                let name = format!("name-{}-{}", self.number, self.random.below(100));
                self.run(&format!("CLIENT SETNAME {name}"), "OK");
                self.name = name;
            }
            1 => {
                let name = self.name.clone();
                self.run("CLIENT GETNAME", &name);
            }
            2 => {
                let id = self.id.clone();
                self.run("CLIENT ID", &id);
            }
            3 => {
                self.resp3 = self.random.coin();
                // Tracking without a redirection is for RESP3, and so are ears.
                if (self.tracking || self.listens) && !self.resp3 {
                    self.resp3 = true;
                }
                self.send(&[format!("HELLO {}", if self.resp3 { 3 } else { 2 })]);
                let hello = self.reply();
                assert!(hello.contains(&format!("id, {},", self.id)), "{hello}");
            }
            4 if self.resp3 => {
                self.run("CLIENT TRACKING on NOLOOP", "OK");
                self.tracking = true;
            }
            4 | 5 => {
                self.catch_up();
                self.listens = false;
                self.run("RESET", "RESET");
                // What was said before the RESET is read by now.
                (self.resp3, self.db, self.tracking) = (false, 0, false);
                self.run("CLIENT GETNAME", "nil");
                let name = self.name.clone();
                self.run(&format!("CLIENT SETNAME {name}"), "OK");
            }
            6 => {
                let script = format!("return'{}'", self.random.below(5));
                self.send(&[format!("EVAL {script} 0"), format!("SCRIPT LOAD {script}")]);
                let wanted = script["return'".len()..script.len() - 1].to_owned();
                self.expect(&wanted);
                let sha = self.reply();
                self.run(&format!("EVALSHA {sha} 0"), &wanted);
            }
            _ => {
                let (skipped, _) = self.plain();
                self.send(&["CLIENT REPLY SKIP".to_owned(), skipped]);
                self.run("ECHO skipped", "skipped");
            }
        }
    }

    /// Requests without replies, and what they have done.
    fn silence(&mut self) {
        let mut commands = vec!["CLIENT REPLY OFF".to_owned()];
        for _ in 0..self.random.below(6) {
            commands.push(self.plain().0);
        }
        self.send(&commands);
        let more = self.plain().0;
        self.send(&[more]);
        self.run("CLIENT REPLY ON", "OK");
        self.run("ECHO again", "again");
    }

    fn step(&mut self) {
        // Of earlier steps, what may matter.
        let old = self.log.len().saturating_sub(40);
        self.log.drain(..old);
        match self.random.below(11) {
            0 | 1 => self.transaction(),
            10 => self.ear(),
            2 | 3 => self.blocking(),
            4 | 5 => self.subscriptions(),
            6 | 7 => self.connection(),
            8 => self.silence(),
            _ => self.pipeline(),
        }
    }
}

pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_reply_is_as_predicted_whatever_clients_do_and_whenever_a_reload_comes() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("REDIS_PROXY_SEED").unwrap_or(now.as_nanos() as u64);
    let programs = number("REDIS_PROXY_PROGRAMS").map_or(PROGRAMS, |it| it as usize);
    let redis = redis();
    let by = |way: usize| -> Value {
        let mut config = config(&redis.addr(), json!({}));
        if way == 1 {
            config["uplink"] = json!({ "addr": redis.socket(), "network": "unix" });
        }
        config
    };
    let proxy = Proxy::start(&by(0));
    let (failed, running) = (AtomicBool::new(false), AtomicUsize::new(CLIENTS as usize));
    let reloads = AtomicUsize::new(0);
    scope(|scope| {
        for client in 0..CLIENTS {
            let (proxy, redis, failed, running) = (&proxy, &redis, &failed, &running);
            let reloads = &reloads;
            scope.spawn(move || {
                let mut program = Programs::new(client + 1, seed, proxy, redis);
                let result = catch_unwind(AssertUnwindSafe(|| {
                    let mut steps = 0;
                    while steps < programs || reloads.load(Ordering::Relaxed) < FEWEST_RELOADS {
                        if failed.load(Ordering::Relaxed) {
                            return;
                        }
                        program.step();
                        steps += 1;
                    }
                    program.catch_up();
                }));
                running.fetch_sub(1, Ordering::Relaxed);
                if let Err(why) = result {
                    failed.store(true, Ordering::Relaxed);
                    let log = program.log.join("\n");
                    eprintln!(
                        "REDIS_PROXY_SEED={seed} runs these programs again; client {}:\n{log}",
                        program.number
                    );
                    resume_unwind(why);
                }
            });
        }
        let _failed = TellsToEnd(&failed);
        while running.load(Ordering::Relaxed) > 0 {
            let reload = reloads.load(Ordering::Relaxed) + 1;
            proxy.reload(&by(reload % 2)).expect_ok();
            reloads.store(reload, Ordering::Relaxed);
        }
    });
    let info = proxy.info();
    assert!(info["reloads"].as_array().unwrap().iter().all(|it| it["sessions_closed"] == 0));
}
