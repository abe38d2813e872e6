//! The log for people: what clients, callers and uplinks choose is escaped in it, so that nobody can
//! forge a line, and the line that tells how far a switch has come is the proxy's own.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::common::{
    Answer, Client, FakeUplink, Redis, config, eventually, http, redis, run_to_end, send,
};

/// What the manual looks for after a crash.
const STAGE: &str = " INFO redis_proxy::switch: switching stage=";
const FORGED: &str =
    "2026-01-02T03:04:05.000000Z  INFO redis_proxy::switch: switching stage=Resumed";

/// A proxy that logs text into a file, and listens on sockets.
struct Logging {
    child: Child,
    dir: tempfile::TempDir,
}

impl Logging {
    fn to(uplink: &str, more: &Value) -> Logging {
        let dir = tempfile::tempdir().unwrap();
        let logging = |dir: &Path| {
            fs::write(dir.join("config.json"), settings(dir, uplink, more)).unwrap();
            Command::new(env!("CARGO_BIN_EXE_redis-proxy"))
                .args(["--log-format", "text", "-f"])
                .arg(dir.join("config.json"))
                .env("RUST_LOG", "redis_proxy=debug")
                .stderr(File::create(dir.join("log")).unwrap())
                .spawn()
                .unwrap()
        };
        let child = logging(dir.path());
        let proxy = Logging { child, dir };
        eventually("it runs", || UnixStream::connect(proxy.path("admin")).is_ok());
        proxy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn client(&self) -> Client {
        Client::connect_unix(self.path("listen").to_str().unwrap())
    }

    fn caller(&self) -> Client {
        Client::connect_unix(self.path("admin").to_str().unwrap())
    }

    fn cmd(&self, body: &str) -> Answer {
        http(&mut self.caller(), "POST", "/cmd/", "", &format!("cmd={body}"))
    }

    fn rewrite(&self, uplink: &str, more: &Value) {
        fs::write(self.path("config.json"), settings(self.dir.path(), uplink, more)).unwrap();
    }

    /// Waits until this is in the log, and returns all of that.
    fn log(&self, wanted: &str) -> String {
        let mut text = String::new();
        eventually(&format!("{wanted} is in the log"), || {
            text = fs::read_to_string(self.path("log")).unwrap();
            text.contains(wanted) && text.ends_with('\n')
        });
        text
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(dir: &Path, uplink: &str, more: &Value) -> String {
    let socket = |name: &str| json!({ "network": "unix", "addr": dir.join(name) });
    let mut settings = config(uplink, json!({}));
    (settings["listen"], settings["admin"]) = (socket("listen"), socket("admin"));
    for (field, value) in more.as_object().unwrap() {
        settings[field] = value.clone();
    }
    settings.to_string()
}

/// Each line is one that the proxy began, and shows nothing that moves a cursor.
fn all_its_own(log: &str) {
    for line in log.lines() {
        let time = line.split(' ').next().unwrap();
        let begins = time.len() == 27 && time.ends_with('Z') && !line.starts_with("2026-01-02");
        assert!(begins && !line.contains(char::is_control), "{line:?}");
    }
}

/// The stages that the manual's pattern finds.
fn stages(log: &str) -> Vec<&str> {
    let begins =
        |line: &&str| line.split_once(' ').is_some_and(|(_, rest)| rest.starts_with(STAGE));
    log.lines().filter(begins).map(|line| line.rsplit_once('=').unwrap().1).collect()
}

#[test]
fn clients_cannot_forge_the_line_that_says_how_far_a_switch_came() {
    let (old, new): (Redis, Redis) = (redis(), redis());
    let messages = json!({ "log_messages": true });
    let proxy = Logging::to(&old.addr(), &messages);
    let mut client = proxy.client();
    let forged = format!("x\n{FORGED}\n\x1b[2J\r");
    assert_eq!(client.ask(&["SET", "k", &forged]), "+OK");
    assert!(client.ask(&[&forged, "x"]).starts_with("-ERR unknown command"));
    assert!(client.ask(&["CLIENT", "SETINFO", "LIB-NAME", &forged]).starts_with("-ERR"));
    assert!(client.ask(&["AUTH", &forged, &forged]).starts_with('-'));
    assert_eq!(client.ask(&["ECHO", &forged]), format!("${}", forged.len()));
    client.ask(&["EVAL", "return redis.error_reply(ARGV[1])", "0", &forged]);
    // Callers of the API.
    let escaped = "x%0A2026-01-02T03:04:05.000000Z%20%20INFO%1B%5B2J";
    assert_eq!(proxy.cmd(escaped).status, 400);
    proxy.cmd(&format!("pause&ttl_ms={escaped}"));
    let mut caller = proxy.caller();
    send(&mut caller, "POST", "/cmd/", &format!("X-{forged}: 1\r\n"), "");
    proxy.rewrite(&new.addr(), &messages);
    let answer = proxy.cmd("switch");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let log = proxy.log("fenced=true");
    all_its_own(&log);
    let all = ["Replicating", "Ready", "Paused", "CatchingUp", "Promoting", "Resumed", "Fencing"];
    assert_eq!(stages(&log), all);
    assert!(log.contains(r"\n2026-01-02"));
}

#[test]
fn what_a_client_named_is_escaped_in_the_reasons_of_the_proxy() {
    let (fake, redis) = (FakeUplink::bind(), redis());
    let limits = json!({ "pause_time_limit_ms": 50 });
    let proxy = fake.expect_start(|| Logging::to(&fake.addr(), &limits));
    let mut client = proxy.client();
    client.command(&["a\n\x1b[2Jb"]);
    let mut uplink = fake.accept();
    uplink.expect("*1\r\n$7\r\na\n\x1b[2Jb\r\n");
    proxy.rewrite(&redis.addr(), &limits);
    std::thread::scope(|scope| {
        // The reload's own connection to the present uplink.
        scope.spawn(|| fake.accept_side());
        assert_eq!(proxy.cmd("reload").status, 503);
    });
    let log = proxy.log("the reload is cancelled");
    all_its_own(&log);
    assert!(log.to_lowercase().contains(r"a\n\u{1b}[2jb of"), "{log}");
}

#[test]
fn what_an_uplink_answers_is_escaped() {
    for (format, args) in
        [("text", &["-f", "-"][..]), ("json", &["-f", "-"]), ("", &["--check", "-f", "-"])]
    {
        let fake = FakeUplink::bind();
        let config =
            json!({ "uplink": { "addr": fake.addr() }, "listen": { "addr": "127.0.0.1:0" } });
        let mut all = args.to_vec();
        if !format.is_empty() {
            all.extend(["--log-format", format]);
        }
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut uplink = fake.accept();
                uplink.expect("*1\r\n$4\r\nPING\r\n");
                uplink.send(format!("-ERR no\n{FORGED}\n\x1b[2J\r\n"));
            });
            run_to_end(&all, &config.to_string())
        });
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{log}");
        assert!(log.contains("ERR no"), "{log}");
        match format {
            "text" => all_its_own(&log),
            "json" => log.lines().for_each(|line| {
                assert!(serde_json::from_str::<Value>(line).unwrap().is_object());
            }),
            _ => assert!(log.lines().count() == 1 && !log.contains('\x1b'), "{log:?}"),
        }
    }
}
