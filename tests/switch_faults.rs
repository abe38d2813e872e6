//! Something goes wrong at each boundary between two stages of a switch: a server, a connection or
//! the proxy dies, or does not answer. Clients count all the while; afterwards every write that was
//! acknowledged is there, and none twice, and either server can be used again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{
    Answer, Client, Middle, Proxy, Redis, TellsToEnd, Then, Turn, When, config, eventually, redis,
    request,
};

const WRITERS: usize = 4;
/// Between two requests of a writer: most of the time, some are on their way, and the servers have
/// time for others.
const PACE: Duration = Duration::from_micros(500);

/// Two servers that keep what they acknowledged, each behind a way on which things happen, and a way
/// for the replication.
struct Scene {
    old: Redis,
    new: Redis,
    to_old: Middle,
    to_new: Middle,
    link: Middle,
    proxy: Proxy,
    limits: Limits,
    _turn: Turn,
}

/// How long something that does not come is waited for.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connect_ms: u64,
    pause_ms: u64,
    timeout_ms: u64,
}

/// Everything comes, however busy the machine is. (A server that cannot be told to let writers past
/// the proxy go on holds them for half as long again as a pause may last.)
const PATIENT: Limits = Limits { connect_ms: 10_000, pause_ms: 6000, timeout_ms: 40_000 };
/// What does not come is given up soon; a server that is busy is not taken for one that is gone.
const SOON: Limits = Limits { connect_ms: 4000, pause_ms: 5000, timeout_ms: 40_000 };
/// The whole is given up, which alone ends a replication that does not get on.
const AT_ALL: Limits = Limits { timeout_ms: 10_000, ..SOON };

/// Which way the trap is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Old,
    New,
    Link,
}

/// The first request of a stage, by which that can be told from outside.
#[derive(Debug, Clone, Copy)]
struct Boundary {
    name: &'static str,
    on: On,
    needle: &'static str,
}

const BOUNDARIES: [Boundary; 8] = [
    Boundary { name: "preflight", on: On::New, needle: "WHOAMI" },
    Boundary { name: "replicating", on: On::New, needle: "*3\r\n$9\r\nREPLICAOF\r\n$9" },
    Boundary { name: "synchronising", on: On::Link, needle: "PSYNC" },
    Boundary { name: "ready", on: On::New, needle: "HELLO" },
    Boundary { name: "catching up", on: On::Old, needle: "\r\n$32\r\n" },
    Boundary { name: "the last byte", on: On::Old, needle: "PAUSE\r\n$5" },
    Boundary { name: "promoting", on: On::New, needle: "*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO" },
    Boundary { name: "fencing", on: On::Old, needle: "*3\r\n$9\r\nREPLICAOF\r\n$" },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    KillOld,
    KillNew,
    /// The connection is closed.
    Drop,
    /// And every further one, too.
    Refuse,
    /// The connection says nothing any more.
    Hold,
    /// Only a little later.
    Delay,
}

/// Whoever loses power keeps what it acknowledged.
const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

impl Scene {
    fn new(limits: Limits) -> Scene {
        let turn = Turn::wait();
        let [old, new] = [(), ()].map(|()| {
            let server = Redis::start(&DURABLE);
            let host = server.addr().rsplit_once(':').unwrap().0.to_owned();
            server.client().run(&format!("CONFIG SET replica-announce-ip {host}"));
            server
        });
        let [to_old, to_new, link] = [&old, &new, &old].map(|server| Middle::to(&server.addr()));
        let proxy = Proxy::start(&settings(&to_old, limits));
        Scene { old, new, to_old, to_new, link, proxy, limits, _turn: turn }
    }

    fn way(&self, on: On) -> &Middle {
        match on {
            On::Old => &self.to_old,
            On::New => &self.to_new,
            On::Link => &self.link,
        }
    }

    /// Begins a switch to the new server.
    fn begin(&self) -> Client {
        self.proxy.rewrite(&settings(&self.to_new, self.limits));
        let (link, limit) = (self.link.addr(), self.limits.timeout_ms);
        self.proxy.begin_cmd(&format!("switch&replicate_from={link}&timeout_ms={limit}"))
    }

    fn set(&self, at: Boundary, when: When, fault: Fault) {
        let (old, new) = (self.old.pid(), self.new.pid());
        let way = self.way(at.on).clone();
        let kill = |pid: Pid| kill_process(pid, Signal::KILL).unwrap();
        self.way(at.on).at(at.needle, when, move || match fault {
            Fault::KillOld => {
                kill(old);
                Then::Pass
            }
            Fault::KillNew => {
                kill(new);
                Then::Pass
            }
            Fault::Drop => Then::Close,
            Fault::Refuse => {
                way.refuse(true);
                Then::Close
            }
            Fault::Hold => Then::Hold,
            Fault::Delay => {
                thread::sleep(Duration::from_millis(100));
                Then::Pass
            }
        });
    }
}

fn settings(way: &Middle, limits: Limits) -> Value {
    let Limits { connect_ms, pause_ms, timeout_ms: _ } = limits;
    let more = json!({ "connect_time_limit_ms": connect_ms, "pause_time_limit_ms": pause_ms });
    config(&way.addr(), more)
}

/// What is waited for where this goes wrong.
fn limits(at: Boundary, fault: Fault) -> Limits {
    match fault {
        Fault::Drop | Fault::Delay => PATIENT,
        Fault::Hold | Fault::Refuse if at.on == On::Link => AT_ALL,
        Fault::KillOld | Fault::KillNew | Fault::Hold | Fault::Refuse => SOON,
    }
}

/// One client each that counts, and what it was told.
pub struct Writers {
    addr: Mutex<String>,
    acknowledged: [AtomicU64; WRITERS],
    /// Requests of which it is not known whether they were executed.
    unknown: [AtomicU64; WRITERS],
    done: AtomicBool,
}

impl Writers {
    fn count(&self, number: usize) {
        while !self.done.load(Ordering::Relaxed) {
            let addr = self.addr.lock().unwrap().clone();
            let Ok(tcp) = std::net::TcpStream::connect(&addr) else {
                thread::sleep(PACE);
                continue;
            };
            let mut client = Client::over(tcp);
            while !self.done.load(Ordering::Relaxed) {
                thread::sleep(PACE);
                let request = request(&["INCR", &format!("n:{number}")]);
                let Some(reply) = client.try_exchange(&request) else {
                    self.unknown[number].fetch_add(1, Ordering::Relaxed);
                    break;
                };
                match reply.strip_prefix(':') {
                    Some(_) => self.acknowledged[number].fetch_add(1, Ordering::Relaxed),
                    None => {
                        self.unknown[number].fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                };
            }
        }
    }

    pub fn total(&self) -> u64 {
        self.acknowledged.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub fn errors(&self) -> u64 {
        self.unknown.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// As many as were acknowledged, and perhaps those of which nothing is known.
    pub fn check(&self, server: &Redis, what: &str) {
        let mut client = server.client();
        for number in 0..WRITERS {
            let reply = client.run(&format!("GET n:{number}"));
            let there: u64 = reply.parse().unwrap_or_else(|_| panic!("{what}: {reply}"));
            let acknowledged = self.acknowledged[number].load(Ordering::Relaxed);
            let most = acknowledged + self.unknown[number].load(Ordering::Relaxed);
            assert!(
                (acknowledged..=most).contains(&there),
                "{what}: {there} of {acknowledged} to {most}"
            );
        }
    }
}

/// Runs `scene` while clients count, and gives them time to go on afterwards.
pub fn while_clients_count<T>(addr: &str, scene: impl FnOnce(&Writers) -> T) -> (T, Arc<Writers>) {
    let writers = Arc::new(Writers {
        addr: Mutex::new(addr.to_owned()),
        acknowledged: Default::default(),
        unknown: Default::default(),
        done: AtomicBool::new(false),
    });
    let threads: Vec<_> = (0..WRITERS)
        .map(|number| {
            let writers = writers.clone();
            thread::spawn(move || writers.count(number))
        })
        .collect();
    let outcome = {
        let _done = TellsToEnd(&writers.done);
        eventually("they count", || writers.total() > 40);
        scene(&writers)
    };
    for thread in threads {
        thread.join().unwrap();
    }
    (outcome, writers)
}

fn run(at: Boundary, when: When, fault: Fault) {
    let what = format!("{fault:?} {when:?} {}", at.name);
    let mut scene = Scene::new(limits(at, fault));
    scene.set(at, when, fault);
    let addr = scene.proxy.addr();
    let kills = matches!(fault, Fault::KillOld | Fault::KillNew);
    let (answer, writers) = while_clients_count(&addr, |writers| {
        let answer = Answer::read(&mut scene.begin());
        let before = writers.total();
        // Whoever is served goes on.
        if !kills {
            eventually("they go on", || writers.total() > before + 20);
        }
        answer
    });
    let info = scene.proxy.info();
    assert_eq!(info["switching"], Value::Null, "{what}");
    let record = info["switches"][0].clone();
    let in_force = info["config"]["uplink"]["addr"].as_str().unwrap().to_owned();
    let is_done = record["result"] == "done";
    assert_eq!(is_done, answer.status == 200, "{what}: {}", answer.body);
    assert_eq!(in_force == scene.to_new.addr(), is_done, "{what}: {record}");
    // A way that is blocked for the proxy's own questions is blocked for clients that come later.
    if !kills && fault != Fault::Refuse {
        assert_eq!(writers.errors(), 0, "{what}: {record}");
    }
    if fault == Fault::Delay {
        assert!(is_done, "{what}: {record}");
    }
    assert!(scene.way(at.on).is_sprung(), "{what}");
    // What is in force has it all; if it died, then when it is back.
    scene.to_old.refuse(false);
    scene.to_new.refuse(false);
    scene.link.refuse(false);
    match fault {
        Fault::KillOld => scene.old.restart(),
        Fault::KillNew => scene.new.restart(),
        Fault::Drop | Fault::Refuse | Fault::Hold | Fault::Delay => {}
    }
    let (present, other) = match is_done {
        true => (&scene.new, &scene.old),
        false => (&scene.old, &scene.new),
    };
    writers.check(present, &what);
    go_on(&scene, is_done, present, other, &writers, &what);
}

/// The next switch comes to an end, wherever that goes.
fn go_on(
    scene: &Scene,
    is_done: bool,
    present: &Redis,
    other: &Redis,
    writers: &Writers,
    what: &str,
) {
    // By now, nobody is held any more.
    eventually("it takes writes", || present.client().run("SET usable 1") == "OK");
    let (in_force, way) = match is_done {
        true => (&scene.to_new, &scene.to_old),
        false => (&scene.to_old, &scene.to_new),
    };
    // Nothing goes wrong any more, and nothing is to be given up.
    let answer = scene.proxy.reload(&settings(in_force, PATIENT));
    assert_eq!(answer.status, 200, "{what}, and then {}", answer.body);
    scene.proxy.rewrite(&settings(way, PATIENT));
    let from = format!("replicate_from={}", present.addr());
    let answer = scene.proxy.cmd(&format!("switch&force=true&{from}"));
    assert_eq!(answer.status, 200, "{what}, and then {}", answer.body);
    writers.check(other, &format!("{what}, and then"));
    assert!(scene.proxy.client().run("INCR n:0").parse::<u64>().is_ok(), "{what}");
}

/// At every boundary, before and after; some side by side.
fn everywhere(test: impl Fn(Boundary, When) + Sync) {
    let cases = BOUNDARIES.iter().flat_map(|at| [(*at, When::Before), (*at, When::After)]);
    let cases: Mutex<Vec<_>> = Mutex::new(cases.collect());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((at, when)) = { cases.lock().unwrap().pop() } {
                    test(at, when);
                }
            });
        }
    });
}

fn all(faults: &[Fault]) {
    everywhere(|at, when| faults.iter().for_each(|fault| run(at, when, *fault)));
}

#[test]
fn nothing_is_lost_or_doubled_if_the_old_server_dies_at_any_stage() {
    all(&[Fault::KillOld]);
}

#[test]
fn nothing_is_lost_or_doubled_if_the_new_server_dies_at_any_stage() {
    all(&[Fault::KillNew]);
}

#[test]
fn clients_notice_nothing_if_a_connection_is_lost_slow_or_silent_at_any_stage() {
    all(&[Fault::Drop, Fault::Delay, Fault::Hold]);
}

#[test]
fn nothing_is_lost_or_doubled_if_a_server_cannot_be_reached_from_any_stage_on() {
    all(&[Fault::Refuse]);
}

/// As the manual says: who has the data after the proxy has crashed.
fn has_the_data_after_a_crash<'a>(scene: &'a Scene, log: &[Value]) -> (&'a Redis, &'a Redis) {
    let mut stages = log.iter().rev().filter(|line| line["message"] == "switching");
    let role = || scene.new.client().run("INFO replication");
    let is_new = match stages.next().map_or("", |line| line["stage"].as_str().unwrap()) {
        "Resumed" | "Fencing" => true,
        "Promoting" => role().contains("role:master"),
        _ => false,
    };
    if is_new { (&scene.new, &scene.old) } else { (&scene.old, &scene.new) }
}

#[test]
fn nothing_is_lost_or_doubled_if_the_proxy_dies_at_any_stage() {
    everywhere(crash);
}

fn crash(at: Boundary, when: When) {
    let what = format!("the proxy dies {when:?} {}", at.name);
    let mut scene = Scene::new(SOON);
    let pid = scene.proxy.pid();
    scene.way(at.on).at(at.needle, when, move || {
        kill_process(pid, Signal::KILL).unwrap();
        Then::Close
    });
    let addr = scene.proxy.addr();
    let ((), writers) = while_clients_count(&addr, |_| {
        let _caller = scene.begin();
        scene.proxy.ended();
    });
    let log = scene.proxy.log_lines();
    let (present, other) = has_the_data_after_a_crash(&scene, &log);
    // Writers past the proxy may have been held.
    writers.check(present, &what);
    eventually("it takes writes", || present.client().run("SET usable 1") == "OK");
    let proxy = Proxy::start(&config(&present.addr(), json!({})));
    assert!(proxy.client().run("INCR n:0").parse::<u64>().is_ok(), "{what}");
    writers.acknowledged[0].fetch_add(1, Ordering::Relaxed);
    proxy.rewrite(&config(&other.addr(), json!({})));
    let answer = proxy.cmd("switch&force=true");
    assert_eq!(answer.status, 200, "{what}, and then {}", answer.body);
    writers.check(other, &format!("{what}, and then"));
}

#[test]
fn nothing_is_lost_or_doubled_over_a_slow_link() {
    slow_link(&Scene::new(PATIENT));
}

#[test]
fn the_last_byte_is_waited_for_without_the_right_to_a_channel_of_the_proxys_own() {
    let mut scene = Scene::new(PATIENT);
    for server in [&scene.old, &scene.new] {
        server.client().run("ACL SETUSER default resetchannels");
    }
    scene.proxy = Proxy::start(&settings(&scene.to_old, PATIENT));
    slow_link(&scene);
}

fn slow_link(scene: &Scene) {
    scene.link.slow_down(Duration::from_millis(100));
    let (answer, writers) = while_clients_count(&scene.proxy.addr(), |writers| {
        let answer = Answer::read(&mut scene.begin());
        let before = writers.total();
        eventually("they go on", || writers.total() > before + 20);
        answer
    });
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(writers.errors(), 0);
    writers.check(&scene.new, "over a slow link");
    let held = answer.json()["switch"]["held_ms"].as_f64().unwrap();
    assert!(held > 90.0, "the last byte was not waited for: {held} ms");
}

#[test]
fn replication_that_breaks_and_begins_again_is_waited_for() {
    let scene = Scene::new(PATIENT);
    // At the first synchronisation, and again and again.
    scene.link.refuse(true);
    let mut caller = scene.begin();
    scene.proxy.shows_in(&["switching", "stage"], "replicating");
    let what = || scene.proxy.info()["switching"]["waiting_for"].as_str().unwrap_or("").to_owned();
    eventually("it says what it waits for", || what().contains("connects to 127.0.0.1:"));
    scene.link.refuse(false);
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Moves so much, and tells for how long clients were held.
fn move_data(megabytes: u64) -> (f64, f64) {
    const EACH: u64 = 25;
    let (old, new) = (redis(), redis());
    let mut direct = old.client();
    assert_eq!(direct.run("CONFIG SET rdbcompression no"), "OK");
    for megabyte in 0..megabytes {
        let from = megabyte * EACH;
        let script = format!(
            "for at = {from}, {from} + {EACH} - 1 do \
             redis.call('SET', 'data:' .. at, string.rep(redis.sha1hex(at), 1000)) end return 1"
        );
        direct.command(&["EVAL", &script, "0"]);
        assert_eq!(direct.reply(), "1");
    }
    let proxy = Proxy::start(&config(&old.addr(), json!({})));
    proxy.rewrite(&config(&new.addr(), json!({})));
    let (answer, writers) = while_clients_count(&proxy.addr(), |writers| {
        let answer = proxy.cmd("switch");
        let before = writers.total();
        eventually("they go on", || writers.total() > before + 20);
        answer
    });
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(writers.errors(), 0);
    writers.check(&new, &format!("{megabytes} MB"));
    let keys = new.client().run("DBSIZE").parse::<u64>().unwrap();
    assert_eq!(keys, megabytes * EACH + WRITERS as u64);
    let record = &answer.json()["switch"];
    let number = |name: &str| record[name].as_f64().unwrap();
    (number("held_ms"), number("duration_ms"))
}

#[test]
#[ignore = "it takes a minute: make test-slow runs it"]
fn nothing_is_lost_or_doubled_however_much_data_there_is() {
    for megabytes in [0, 250, 1000] {
        let (held, took) = move_data(megabytes);
        println!(
            "{megabytes} MB: clients were held for {held:.2} ms, the switch took {took:.0} ms"
        );
    }
}
