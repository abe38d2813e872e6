//! The log never breaks the proxy: whatever becomes of standard error, clients and operators are
//! served, what is not written is counted, and the exit codes are the same.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Answer, Client, Proxy, Redis, config, eventually, http, program, redis};

const BINARY: &str = env!("CARGO_BIN_EXE_redis-proxy");
const DROPPED: &str = "redis_proxy_log_lines_dropped_total";

fn logging(uplink: &Redis) -> Value {
    config(&uplink.addr(), json!({ "log_messages": true }))
}

/// Pauses, unpauses, reloads and switches to `next`, with clients before, between and after.
fn all_goes_on(proxy: &Proxy, old: &Redis, next: &Redis) {
    let mut client = proxy.client();
    let served = |client: &mut Client, value: &str| {
        assert_eq!(client.ask(&["SET", "k", value]), "+OK");
        assert_eq!(client.run("GET k"), value);
    };
    served(&mut client, "before");
    assert_eq!(proxy.cmd("pause&wait=true").status, 200);
    assert_eq!(proxy.cmd("unpause").status, 200);
    served(&mut client, "unpaused");
    let answer =
        proxy.reload(&config(&old.addr(), json!({ "log_messages": true, "max_clients": 9 })));
    assert_eq!(answer.status, 200, "{}", answer.body);
    served(&mut client, "reloaded");
    proxy.rewrite(&logging(next));
    let answer = proxy.cmd("switch");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["switch"]["fenced"], true);
    served(&mut client, "switched");
    served(&mut proxy.client(), "new");
    assert_eq!(next.client().run("GET k"), "new");
    assert!(old.client().run("SET k stray").starts_with("-READONLY"));
}

/// Requests and replies, until lines are dropped. A byte that does not print is five in the log.
fn fill(proxy: &Proxy) -> f64 {
    let mut client = proxy.client();
    let value = "\0".repeat(500);
    assert_eq!(client.ask(&["SET", "big", &value]), "+OK");
    let replies = format!("$500\r\n{value}\r\n").repeat(400);
    let drops = (0..40).any(|_| {
        client.send("GET big\r\n".repeat(400)).expect(&replies);
        proxy.metric(DROPPED) > 0.0
    });
    assert!(drops, "the queue has no bound");
    proxy.metric(DROPPED)
}

fn ends_with_0(proxy: &mut Proxy) {
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_log_whose_reader_is_gone_breaks_nothing() {
    let (old, new) = (redis(), redis());
    let (mut proxy, reader) = Proxy::start_unread(&logging(&old));
    drop(reader);
    all_goes_on(&proxy, &old, &new);
    eventually("dropped lines are counted", || proxy.metric(DROPPED) > 0.0);
    ends_with_0(&mut proxy);
}

#[test]
fn a_log_on_a_full_disk_breaks_nothing() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let socket = |name: &str| dir.path().join(name).display().to_string();
    let settings = json!({
        "uplink": { "addr": redis.addr() },
        "listen": { "network": "unix", "addr": socket("listen") },
        "admin": { "network": "unix", "addr": socket("admin") },
        "log_messages": true,
    });
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut proxy = Proxy::start_logging_to(full, &settings);
    let ask = |method: &str, path: &str, body: &str| -> Answer {
        http(&mut Client::connect_unix(&socket("admin")), method, path, "", body)
    };
    eventually("it runs", || std::os::unix::net::UnixStream::connect(socket("admin")).is_ok());
    let mut client = Client::connect_unix(&socket("listen"));
    for cmd in ["pause&wait=true", "unpause", "reload"] {
        let answer = ask("POST", "/cmd/", &format!("cmd={cmd}"));
        assert_eq!(answer.status, 200, "{cmd}: {}", answer.body);
    }
    client.send("SET k v\r\nGET k\r\n").expect("+OK\r\n$1\r\nv\r\n");
    eventually("dropped lines are counted", || {
        let metrics = ask("GET", "/metrics", "").body;
        let dropped =
            metrics.lines().find_map(|line| line.strip_prefix(DROPPED)?.trim().parse().ok());
        dropped.is_some_and(|dropped: u64| dropped > 5)
    });
    ends_with_0(&mut proxy);
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up_and_is_bounded() {
    let (old, new) = (redis(), redis());
    let (mut proxy, _reader) = Proxy::start_unread(&logging(&old));
    let before = proxy.memory_kib("VmRSS:");
    let dropped = fill(&proxy);
    all_goes_on(&proxy, &old, &new);
    assert!(proxy.metric(DROPPED) > dropped);
    fill(&proxy);
    let more = proxy.memory_kib("VmRSS:") - before;
    assert!(more < 24 << 10, "{more} KiB");
    ends_with_0(&mut proxy);
}

#[test]
fn the_log_says_how_many_lines_are_missing() {
    let redis = redis();
    let (proxy, reader) = Proxy::start_unread(&logging(&redis));
    fill(&proxy);
    let mut told = 0;
    for line in reader.lines() {
        let line: Value = serde_json::from_str(&line.unwrap()).expect("whole lines");
        if line["message"].as_str().is_some_and(|text| text.starts_with("log lines were dropped")) {
            assert_eq!(line["level"], "WARN");
            told += line["lines"].as_u64().unwrap();
            break;
        }
    }
    assert!(told > 0);
    assert_eq!(proxy.metric(DROPPED), told as f64);
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let redis = redis();
    let mut proxy = Proxy::to(&redis.addr());
    ends_with_0(&mut proxy);
    proxy.logged("stopped", |line| line["message"] == "stopped");
}

#[test]
fn what_rust_log_says_wrong_is_told_and_the_rest_counts() {
    let redis = redis();
    let mut command = Command::new(BINARY);
    command.args(["-f", "-"]).env("RUST_LOG", "redis_proxy=info,=,redis_proxy::controller=off");
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(config(&redis.addr(), json!({})).to_string().as_bytes())
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| !line.contains("running")).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        lines.iter().any(|line| line.contains("RUST_LOG: not understood part=\"=\"")),
        "{lines:?}"
    );
}

/// Runs a program with standard output or standard error closed by its reader.
fn with_closed(
    program: &str,
    args: &[&str],
    stdin: &str,
    closes_stdout: bool,
) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (stdout, stderr) = match closes_stdout {
        true => (writer.into(), Stdio::piped()),
        false => (Stdio::piped(), writer.into()),
    };
    let mut command = Command::new(program);
    let mut child =
        command.args(args).stdin(Stdio::piped()).stdout(stdout).stderr(stderr).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_reader_that_has_read_enough_is_a_quiet_end() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let valid = config(&redis.addr(), json!({})).to_string();
    let admin = proxy.addr_of("admin");
    let probe = program("switch-probe");
    let probe = probe.as_str();
    let runs: [(&str, &[&str], &str, i32); 10] = [
        (BINARY, &["man"], "", 0),
        (BINARY, &["completions", "bash"], "", 0),
        (BINARY, &["--help"], "", 0),
        (BINARY, &["--nonsense"], "", 64),
        (BINARY, &["--check", "-f", "-"], &valid, 0),
        (BINARY, &["--check", "-f", "-"], "{}", 78),
        (BINARY, &["-f", "-"], "{}", 78),
        (BINARY, &["ctl", "--addr", &admin, "status"], "", 0),
        (BINARY, &["ctl", "--addr", "127.0.0.1:1", "status"], "", 69),
        (probe, &["--addr", "127.0.0.1:1", "--seconds", "1"], "", 69),
    ];
    for (program, args, stdin, code) in runs {
        for closes_stdout in [true, false] {
            let (ended, stderr) = with_closed(program, args, stdin, closes_stdout);
            assert_eq!(ended, Some(code), "{args:?}: {stderr}");
            assert!(!stderr.contains("panicked") && !stderr.contains("Broken pipe"), "{stderr}");
        }
    }
    let (ended, stderr) = with_closed(
        probe,
        &["--addr", &redis.addr(), "--seconds", "5", "--clients", "11"],
        "",
        true,
    );
    assert_eq!(ended, Some(0), "{stderr}");
}
