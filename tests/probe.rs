//! `switch-probe` and `switch-test` notice what goes wrong, and only that.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::common::{Proxy, Redis, cert, config, eventually, redis};

const PROBE: &str = "switch-probe";
const TEST: &str = "switch-test";

/// A program that runs until it is told to stop, or ends by itself.
struct Running(Child);

/// How it ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    said: String,
}

/// A line of the table.
#[derive(Debug, PartialEq)]
struct Line {
    errors: u64,
    lost: u64,
    doubled: u64,
    out_of_order: u64,
}

impl Running {
    fn start(program: &str, args: &[&str], environment: &[(&str, &str)]) -> Running {
        let child = Command::new(crate::common::program(program))
            .args(args)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Running(child.unwrap())
    }

    /// The fewest clients, on keys that begin with `t:`.
    fn probe(addr: &str, more: &[&str]) -> Running {
        let args = ["--addr", addr, "--clients", "11", "--rate", "1000", "--prefix", "t:"];
        Running::start(PROBE, &[&args, more].concat(), &[])
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn ended(mut self) -> Ended {
        let mut said = String::new();
        // What is written first does not fill a pipe.
        self.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        Ended { code: self.0.wait().unwrap().code(), said }
    }

    /// As with Ctrl-C.
    fn stopped(self) -> Ended {
        self.signal(Signal::INT);
        self.ended()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ended {
    fn line(&self, kind: &str) -> Line {
        let line = self.said.lines().find(|line| line.starts_with(kind));
        let line = line.unwrap_or_else(|| panic!("no {kind}: {}", self.said));
        let cells: Vec<&str> = line.split_whitespace().rev().collect();
        let number = |cell: usize| cells[cell].replace(',', "").parse().unwrap();
        Line { out_of_order: number(2), doubled: number(3), lost: number(4), errors: number(5) }
    }

    fn is(&self, kind: &str, lost: u64, doubled: u64, out_of_order: u64) {
        let expected = Line { errors: 0, lost, doubled, out_of_order };
        assert_eq!(self.line(kind), expected, "{kind}: {}", self.said);
    }

    fn says(&self, text: &str) {
        assert!(self.said.contains(text), "{text}: {}", self.said);
    }
}

fn number(redis: &Redis, key: &str) -> u64 {
    let mut client = redis.client();
    match client.command(&["GET", key]).line().as_str() {
        "$-1" => 0,
        _ => client.line().parse().unwrap(),
    }
}

/// Waits until all kinds of clients have done so much more.
fn works(redis: &Redis) {
    works_on(redis, "t:");
}

/// Waits until all kinds of clients have done so much more, on keys that begin like this.
fn works_on(redis: &Redis, prefix: &str) {
    let key = |name: &str| format!("{prefix}{name}");
    let length = |list: &str| {
        let reply = redis.client().ask(&["LLEN", list]);
        reply.trim_start_matches(':').parse::<u64>().unwrap()
    };
    // Only its own kind of client sends each of these.
    let calls = |command: &str| {
        let stats = redis.client().run("INFO commandstats");
        let named = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&named));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    };
    let done = || {
        [
            number(redis, &key("counter:0")),
            length(&key("transaction:0:list")),
            calls("blpop"),
            length(&key("queue:1:done:0")),
            calls("publish"),
            number(redis, &key("watched:0")),
        ]
    };
    let before = done();
    eventually("all kinds of clients work", || {
        done().into_iter().zip(before).all(|(now, before)| now >= before + 5)
    });
}

#[test]
fn a_run_through_a_reload_and_a_switch_is_clean_and_leaves_no_key() {
    let (one, two) = (redis(), redis());
    let to = |redis: &Redis| config(&redis.addr(), json!({}));
    let proxy = Proxy::start(&to(&one));
    let admin = format!("http://{}", proxy.addr_of("admin"));
    let probe = Running::probe(&proxy.addr(), &["--admin", &admin]);
    works(&one);
    let mut other_way = to(&one);
    other_way["uplink"] = json!({ "addr": one.socket(), "network": "unix" });
    proxy.reload(&other_way).expect_ok();
    works(&one);
    proxy.rewrite(&to(&one));
    proxy.cmd("reload").expect_ok();
    proxy.rewrite(&to(&two));
    assert_eq!(proxy.cmd("switch").status, 200);
    works(&two);
    let ended = probe.stopped();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.is("all", 0, 0, 0);
    ended.says("time held: median");
    ended.says("no error, nothing lost, nothing doubled, nothing out of order\n");
    assert_eq!(two.client().ask(&["DBSIZE"]), ":0");
}

#[test]
fn each_kind_of_client_notices_what_is_done_behind_its_back() {
    let redis = redis();
    let probe = Running::probe(&redis.addr(), &[]);
    works(&redis);
    let mut behind = redis.client();
    behind.ask(&["DECRBY", "t:counter:0", "3"]);
    behind.command(&["LPOP", "t:transaction:0:list"]);
    behind.line();
    behind.line();
    // What was done is asked for again, heard again, and counted without a transaction.
    behind.ask(&["RPUSH", "t:queue:0", "0:1:0"]);
    behind.ask(&["LPUSH", "t:queue:1", "0:2:0"]);
    assert_eq!(behind.ask(&["PUBLISH", "t:news:0:0", "1:0"]), ":2");
    behind.ask(&["INCR", "t:watched:0"]);
    works(&redis);
    let ended = probe.stopped();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.is("counters", 3, 0, 0);
    ended.is("transactions", 1, 0, 0);
    ended.is("queue workers", 0, 2, 0);
    ended.is("pub/sub", 0, 2, 0);
    ended.is("WATCH loops", 0, 1, 0);
    ended.is("all", 4, 5, 0);
    ended.says("VERDICT: ");
    ended.says(": no error, 4 lost, 5 doubled, nothing out of order\n");
    ended.says("queue 0: 1 of sender 0, sent once, came 2 times\n");
    assert_eq!(redis.client().ask(&["DBSIZE"]), ":0");
}

#[test]
fn jobs_that_are_stolen_are_lost_and_those_that_come_back_late_are_out_of_order() {
    let redis = redis();
    let probe = Running::probe(&redis.addr(), &[]);
    works(&redis);
    let mut thief = redis.client();
    let mut steal = |queue: &str| {
        thief.command(&["BLPOP", queue, "0"]);
        let lines: Vec<String> = (0..5).map(|_| thief.line()).collect();
        lines[4].clone()
    };
    let (late, _lost) = (steal("t:queue:0"), steal("t:queue:1"));
    works(&redis);
    let mut behind = redis.client();
    behind.ask(&["RPUSH", "t:queue:0", &late]);
    behind.ask(&["INCRBY", "t:counter:0", "2"]);
    behind.ask(&["INCR", "t:transaction:0:b"]);
    behind.ask(&["DECR", "t:watched:0"]);
    works(&redis);
    let ended = probe.stopped();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.is("counters", 0, 2, 0);
    ended.is("transactions", 0, 1, 0);
    ended.is("queue workers", 1, 0, 1);
    ended.is("WATCH loops", 1, 0, 0);
    ended.is("pub/sub", 0, 0, 0);
}

#[test]
fn connections_that_break_are_errors_and_not_losses() {
    let redis = redis();
    let probe = Running::probe(&redis.addr(), &[]);
    works(&redis);
    let mut behind = redis.client();
    for kind in ["normal", "pubsub"] {
        assert_ne!(behind.ask(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]), ":0");
        works(&redis);
    }
    let ended = probe.stopped();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let all = ended.line("all");
    assert_eq!(Line { errors: 0, ..all }, Line { errors: 0, lost: 0, doubled: 0, out_of_order: 0 });
    assert!(all.errors >= 11, "{ended:?}");
    assert_eq!(ended.line("pub/sub").errors, 3, "{ended:?}");
}

#[test]
fn a_redis_that_is_gone_is_a_verdict_too() {
    let mut redis = redis();
    let probe = Running::probe(&redis.addr(), &["--patience", "0.5"]);
    works(&redis);
    redis.kill();
    let ended = probe.stopped();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for kind in ["counters", "transactions", "queue workers", "pub/sub", "WATCH loops"] {
        assert!(ended.line(kind).errors > 0, "{kind}: {ended:?}");
    }
    ended.says("VERDICT: ");
}

#[test]
fn a_reload_to_a_server_without_the_data_is_a_loss() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let probe = Running::probe(&proxy.addr(), &[]);
    works(&one);
    proxy.reload(&config(&two.addr(), json!({}))).expect_ok();
    works(&two);
    let ended = probe.stopped();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for kind in ["counters", "transactions", "WATCH loops"] {
        assert!(ended.line(kind).lost > 0, "{kind}: {ended:?}");
    }
}

#[test]
fn tls_a_user_and_a_password_from_a_file_or_the_environment() {
    let rights = ["probe", "on", ">secret", "~switch-probe:*", "&*", "+@all"];
    let redis = Redis::with_tls(&[&["--user"], &rights[..]].concat());
    let addr = redis.tls_addr();
    let ca = cert("ca.pem");
    let file = redis.dir.path().join("pass");
    std::fs::write(&file, "secret\n").unwrap();
    let prefix = "switch-probe:t:";
    let few = ["--addr", &addr, "--clients", "11", "--user", "probe", "--tls", "--prefix", prefix];
    let ways: [(&[&str], &[_]); 3] = [
        (&["--skipverify", "--pass-file", file.to_str().unwrap()], &[]),
        (&["--skipverify"], &[("REDIS_PROBE_PASS", "secret")]),
        (&["--cacert", &ca], &[("REDIS_PROBE_PASS", "secret")]),
    ];
    for (more, environment) in ways {
        let probe = Running::start(PROBE, &[&few, more].concat(), environment);
        // The server's certificate is for 127.0.0.1, and this one has an address of its own.
        let verified = more.contains(&"--cacert");
        let ended = match verified {
            true => probe.ended(),
            false => {
                works_on(&redis, prefix);
                probe.stopped()
            }
        };
        assert_eq!(ended.code, Some(if verified { 69 } else { 0 }), "{ended:?}");
        ended.says(if verified { "certificate" } else { "VERDICT" });
    }
}

#[test]
fn a_right_that_is_missing_is_said_before_anything_begins() {
    // A pattern must be allowed letter by letter.
    let rights = ["probe", "on", "nopass", "~switch-probe:*", "resetchannels", "&switch-probe:*"];
    let redis = Redis::start(&[&["--user"], &rights[..], &["+@all"]].concat());
    let args = ["--addr", &redis.addr(), "--user", "probe"];
    let ended = Running::start(PROBE, &args, &[("REDIS_PROBE_PASS", "any")]).ended();
    assert_eq!(ended.code, Some(69), "{ended:?}");
    // Redis 8 begins the sentence with it.
    assert!(ended.said.to_lowercase().contains("no permissions"), "{ended:?}");
}

#[test]
fn wrong_usage_is_64_and_what_cannot_begin_is_69() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let addr = redis.addr();
    let run =
        |args: &[&str]| Running::start(PROBE, args, &[("REDIS_PROBE_PASS", "wrong-pass")]).ended();
    assert_eq!(run(&[]).code, Some(64));
    for wrong in
        [["--clients", "10"], ["--rate", "0"], ["--patience", "1e300"], ["--seconds", "-1"]]
    {
        let ended = run(&[&["--addr", &addr][..], &wrong].concat());
        assert_eq!(ended.code, Some(64), "{ended:?}");
    }
    let refused = run(&["--addr", &addr]);
    assert_eq!(refused.code, Some(69), "{refused:?}");
    assert!(!refused.said.contains("wrong-pass"), "{refused:?}");
    assert_eq!(run(&["--addr", "127.0.0.1:1"]).code, Some(69));
    assert_eq!(run(&["--addr", &addr, "--prefix", "t*"]).code, Some(69));
    let open = crate::common::redis();
    open.client().ask(&["SET", "t:counter:0", "7"]);
    let used = Running::start(PROBE, &["--addr", &open.addr(), "--prefix", "t:"], &[]).ended();
    assert_eq!(used.code, Some(69));
    used.says("there are keys already with the prefix t:");
    assert_eq!(number(&open, "t:counter:0"), 7, "somebody else's");
}

fn switch_test(more: &[&str]) -> Running {
    let certs = cert("");
    let few = ["--clients", "11", "--data-mb", "1", "--certs", &certs];
    Running::start(TEST, &[&few, more].concat(), &[])
}

#[test]
fn switch_after_switch_through_a_chain_that_is_turned_round_is_clean() {
    for tls in ["true", "false"] {
        let ended = switch_test(&["--switches", "2", "--seconds", "1", "--tls", tls]).ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.is("all", 0, 0, 0);
        ended.says("4. Switch 2 of 2: from Redis B to A\n");
        ended.says("VERDICT: 2 switches, ");
        ended.says("no error, nothing lost, nothing doubled, nothing out of order\n");
    }
}

fn crash_test(more: &[&str]) -> Ended {
    switch_test(&[&["--crashes", "3", "--seconds", "1"], more].concat()).ended()
}

/// A program made of these lines, which a shell executes.
fn script(dir: &TempDir, lines: &str) -> String {
    let path = dir.path().join("script").display().to_string();
    // Another process writes it: what a fork of this one had open could not be executed.
    let mut write = Command::new("sh");
    write.args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod +x "$2""#, "sh"]);
    assert!(write.args([lines, &path]).status().unwrap().success());
    path
}

#[test]
fn crash_after_crash_closes_only_clients_whose_write_is_in_flight_and_loses_and_doubles_nothing() {
    for tls in ["true", "false"] {
        let ended = crash_test(&["--seed", "7", "--tls", tls]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.is("all", 0, 0, 0);
        ended.says("--seed 7\n");
        ended.says("4. Crash 3 of 3: ");
        ended.says("closed of 11 clients, crash by crash: ");
        ended.says("longest delay of a request: ");
        ended.says("VERDICT: 3 crashes, ");
        ended.says("no error, nothing lost, nothing doubled, nothing out of order; ");
    }
}

#[test]
fn a_redis_that_forgets_what_it_acknowledged_is_noticed_after_its_crash() {
    let dir = tempfile::tempdir().unwrap();
    let forgetful =
        r#"sed 's/^appendonly yes/appendonly no/' > "$0.conf" && exec redis-server "$0.conf""#;
    let ended = crash_test(&["--tls", "false", "--redis-server", &script(&dir, forgetful)]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.is("data at rest", 100, 0, 0);
    assert_eq!(ended.line("all").errors, 0, "{ended:?}");
}

/// A proxy that holds nobody.
fn impatient(dir: &TempDir) -> String {
    let proxy = crate::common::program("redis-proxy");
    let lines = format!(
        r#"for config; do :; done
sed -i 's/"hold_time_limit_ms":[0-9]*/"hold_time_limit_ms":1/' "$config" && exec '{proxy}' "$@""#
    );
    script(dir, &lines)
}

#[test]
fn a_proxy_that_holds_nobody_is_noticed_when_redis_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let ended = crash_test(&["--tls", "false", "--redis-proxy", &impatient(&dir)]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let all = ended.line("all");
    assert!(all.errors > 0, "{ended:?}");
    assert_eq!(all, Line { errors: all.errors, lost: 0, doubled: 0, out_of_order: 0 });
}

fn failover_test(more: &[&str]) -> Ended {
    switch_test(&[&["--failovers", "3", "--seed", "1", "--seconds", "1"], more].concat()).ended()
}

#[test]
fn a_failover_closes_nobody_if_it_is_planned_and_else_only_clients_whose_write_is_in_flight() {
    for tls in ["true", "false"] {
        let ended = failover_test(&["--tls", tls]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.is("all", 0, 0, 0);
        ended.says("--seed 1\n");
        ended.says("4. Failover 2 of 3, planned: from Redis B to A\n");
        ended.says(" clients moved, held for ");
        ended.says("4. Failover 3 of 3, unplanned: from Redis A to B\n");
        ended.says("ms, and the proxy was there ");
        ended.says("closed of 11 clients, crash by crash: ");
        ended.says("VERDICT: 3 failovers, ");
        ended.says("no error, nothing lost, nothing doubled, nothing out of order; ");
    }
}

#[test]
fn a_switch_test_has_switches_or_crashes_or_failovers() {
    for wrong in [
        ["--switches", "1", "--crashes", "1"],
        ["--switches", "1", "--failovers", "1"],
        ["--crashes", "1", "--failovers", "1"],
        ["--switches", "1", "--seed", "1"],
    ] {
        assert_eq!(switch_test(&wrong).ended().code, Some(64));
    }
}

#[test]
fn a_proxy_that_holds_nobody_is_noticed_when_redis_fails_over() {
    let dir = tempfile::tempdir().unwrap();
    let ended = failover_test(&["--tls", "false", "--redis-proxy", &impatient(&dir)]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let all = ended.line("all");
    assert!(all.errors > 0, "{ended:?}");
    assert_eq!(all, Line { errors: all.errors, lost: 0, doubled: 0, out_of_order: 0 });
}

#[test]
fn an_interrupted_switch_test_leaves_nothing_running() {
    let mut test = switch_test(&["--switches", "1", "--seconds", "1000", "--tls", "false"]);
    let mut lines = BufReader::new(test.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut addresses = Vec::new();
    for line in lines.by_ref() {
        addresses.extend(line.rsplit_once("on 127.0.0.1:").map(|it| format!("127.0.0.1:{}", it.1)));
        if line.contains("operations/s") {
            break;
        }
    }
    assert_eq!(addresses.len(), 2);
    let connects = |addr: &String| TcpStream::connect(addr).is_ok();
    assert!(addresses.iter().all(connects), "{addresses:?}");
    test.signal(Signal::INT);
    assert!(lines.any(|line| line.contains("What the clients saw")));
    drop(lines);
    assert_eq!(test.0.wait().unwrap().code(), Some(130));
    assert!(!addresses.iter().any(connects), "{addresses:?}");
}
