//! `redis-proxy ctl`: finds the running proxy, asks it for things, and says what came of them.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use rustls::server::ResolvesServerCertUsingSni;
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::common::{FakeApi, Post, Proxy, Redis, cert, config, eventually, redis};

const BINARY: &str = env!("CARGO_BIN_EXE_redis-proxy");

/// How a call ended.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A call in a directory of its own.
struct Caller {
    dir: tempfile::TempDir,
    env: Vec<(&'static str, String)>,
}

impl Caller {
    fn new() -> Caller {
        Caller { dir: tempfile::tempdir().unwrap(), env: Vec::new() }
    }

    /// With this configuration file in the directory.
    fn with(config: &Value) -> Caller {
        let caller = Caller::new();
        caller.write("config.json", &config.to_string());
        caller
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_remove("REDIS_PROXY_ADDR").env_remove("REDIS_PROXY_PASS");
        command.envs(self.env.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    /// `redis-proxy ctl ...`
    fn ctl(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(&[&["ctl"], args].concat()))
    }
}

impl Run {
    fn of(command: &mut Command) -> Run {
        let output = command.output().unwrap();
        let run = Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!run.out.contains('\x1b') && !run.err.contains('\x1b'), "{run:?}");
        run
    }

    #[track_caller]
    fn done(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    #[track_caller]
    fn failed(self, code: i32, why: &str) -> Run {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(why), "{self:?}");
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}

fn ctl(proxy: &Proxy, args: &[&str]) -> Run {
    Caller::new().ctl(&[&["--addr", &proxy.addr_of("admin")], args].concat())
}

fn quiet(answer: u16, body: Value) -> FakeApi {
    FakeApi::start(vec![json!({ "state_str": "running" })], Post::Answer(0, answer, body))
}

fn admin(block: Value) -> Value {
    json!({ "uplink": { "addr": "127.0.0.1:1" }, "listen": { "addr": ":1" }, "admin": block })
}

#[test]
fn pause_and_unpause_hold_requests_and_let_them_pass() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    assert_eq!(ctl(&proxy, &["pause"]).done(), "new requests are held\n");
    proxy.shows("state_str", "paused");
    assert_eq!(ctl(&proxy, &["unpause"]).done(), "requests pass\n");
    assert_eq!(proxy.info()["state_str"], "running");
    let said = ctl(&proxy, &["pause", "--wait", "--ttl-ms", "60000"]).done();
    assert_eq!(said, "paused: no request runs, for 1 min 0 s at most\n");
    let info = proxy.info();
    assert_eq!(info["state_str"], "paused");
    assert!(info["pause_ends_in_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_pause_that_running_requests_outlast_ends_with_75() {
    let redis = redis();
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "pause_time_limit_ms": 50 })));
    let mut client = proxy.client();
    client.command(&["WAIT", "1", "0"]);
    proxy.shows("active_requests", 1);
    ctl(&proxy, &["pause", "--wait"]).failed(75, "still running: WAIT");
}

#[test]
fn reload_says_what_it_did_and_every_fault_of_one_that_is_refused() {
    let (one, other) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    let mut client = proxy.client();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    proxy.rewrite(&config(&other.addr(), json!({})));
    let predicted = ctl(&proxy, &["reload", "--dry-run"]).done();
    assert!(predicted.contains(&format!("the new uplink would be {}\n", other.addr())));
    assert!(predicted.contains("of 1 client, 1 would be moved and 0 closed\n"), "{predicted}");
    assert_eq!(proxy.info()["generation"], 1);
    let said = ctl(&proxy, &["reload"]).done();
    assert!(said.starts_with("done in ") && said.contains("1 client moved, 0 closed"), "{said}");
    assert!(said.ends_with(&format!("; uplink {}, generation 2\n", other.addr())), "{said}");
    proxy.rewrite(&json!({ "admin": { "addr": "127.0.0.1:0" } }));
    for args in [&["reload"][..], &["reload", "--dry-run"]] {
        let run = ctl(&proxy, args).failed(78, "");
        assert_eq!((run.out.as_str(), run.err.lines().count()), ("", 2), "{run:?}");
        assert!(run.err.contains("Missing uplink address\n"), "{run:?}");
    }
}

#[test]
fn status_says_what_the_proxy_is_doing() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    ctl(&proxy, &["pause", "--ttl-ms", "3600000"]).done();
    let said = ctl(&proxy, &["status"]).done();
    let mut lines = said.lines();
    assert!(lines.next().unwrap().starts_with("paused; version "), "{said}");
    assert!(lines.next().unwrap().contains("it ends by itself in 59 min"), "{said}");
    assert_eq!(lines.next(), Some(&*format!("uplink: {}, generation 1", redis.addr())));
    assert_eq!(
        lines.next(),
        Some("1 client, 0 raw; 0 requests in flight, 0 clients waiting at the gate")
    );
    assert_eq!(lines.next(), Some("last reload: none"));
    assert_eq!(lines.next(), Some("last switch: none"));
    assert_eq!(lines.next(), None);
}

#[test]
fn status_says_that_the_uplink_is_away_and_why() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let addr = redis.addr();
    assert!(ctl(&proxy, &["status"]).done().starts_with("running; version "));
    drop(redis);
    eventually("it says so", || {
        let said = ctl(&proxy, &["status"]).done();
        said.starts_with("running, but the uplink does not answer; version ")
            && said.contains(&format!("\n  could not connect to uplink: {addr} (non-TLS): "))
    });
}

#[test]
fn raw_connections_are_terminated() {
    let redis = redis();
    let raw = json!({ "listen_raw": { "addr": "127.0.0.1:0" } });
    let proxy = Proxy::start(&config(&redis.addr(), raw));
    let mut client = proxy.raw_client();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    ctl(&proxy, &["terminate-raw-connections"]).done();
    client.expect_closed();
}

#[test]
fn clients_that_would_not_be_let_in_are_closed_and_counted() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let mut next = config(&redis.addr(), json!({}));
    next["listen"]["pass"] = json!("s3cret");
    proxy.rewrite(&next);
    let said = ctl(&proxy, &["reload"]).done();
    assert!(!said.contains("warning"), "{said}");
    let said = ctl(&proxy, &["close-unauthorized-clients"]).done();
    assert_eq!(said, "closed: 1 client, 0 raw connections\n");
    client.expect_closed();
    next["listen"]["pass"] = json!("");
    proxy.rewrite(&next);
    let said = ctl(&proxy, &["reload"]).done();
    assert!(said.contains("\n  warning: listen.pass is withdrawn"), "{said}");
}

#[test]
fn json_is_the_apis_answer_and_nothing_else() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let info = ctl(&proxy, &["status", "--json"]);
    assert_eq!(info.json()["config"]["uplink"]["addr"], json!(redis.addr()));
    assert_eq!(ctl(&proxy, &["--json", "pause"]).done(), "{\"ok\": true}\n");
    assert_eq!(ctl(&proxy, &["reload", "--dry-run", "--json"]).json()["prediction"]["moved"], 0);
    proxy.rewrite(&json!({}));
    let refused = ctl(&proxy, &["reload", "--json"]).failed(78, "Missing uplink address\n");
    assert!(refused.json()["faults"].as_array().unwrap().len() >= 2);
    let gone = Caller::new().ctl(&["--addr", "127.0.0.1:1", "status", "--json"]).failed(69, "");
    assert_eq!(gone.json()["ok"], false);
}

#[test]
fn the_file_has_the_address_and_the_password() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock").display().to_string();
    let block = json!({ "addr": socket, "network": "unix", "pass": "se:cret" });
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "admin": block })));
    let file = admin(block);
    let caller = Caller::with(&file);
    caller.ctl(&["status"]).done();
    let path = caller.write("other.json", &file.to_string()).display().to_string();
    caller.write("config.json", "not JSON");
    caller.ctl(&["status", "-f", &path]).done();
    Run::of(&mut caller.command(&["-f", &path, "ctl", "status"])).done();
    // What else is wrong in it does not matter.
    caller.write("config.json", &json!({ "uplink": 7, "admin": file["admin"] }).to_string());
    caller.ctl(&["status"]).done();
    let addr = ["--addr", &socket];
    Caller::new().ctl(&[&addr[..], &["status"]].concat()).failed(77, "--pass-file");
    drop(proxy);
    caller.ctl(&["status"]).failed(69, "admin.sock");
}

#[test]
fn an_address_to_listen_on_is_this_machine_to_connect_to() {
    let api = quiet(200, json!({ "ok": true }));
    let port = api.addr.rsplit(':').next().unwrap();
    for addr in [format!(":{port}"), format!("0.0.0.0:{port}"), format!("localhost:{port}")] {
        Caller::with(&admin(json!({ "addr": addr }))).ctl(&["status"]).done();
        Caller::new().ctl(&["status", "--addr", &addr]).done();
    }
}

#[test]
fn options_go_before_the_environment_and_that_before_the_file() {
    let (by_file, by_env, by_flag) = (
        quiet(200, json!({ "ok": true })),
        quiet(200, json!({ "ok": true })),
        quiet(200, json!({ "ok": true })),
    );
    let basic = |pass: &str| Some(format!("Basic {}", STANDARD.encode(format!(":{pass}"))));
    let mut caller = Caller::with(&admin(json!({ "addr": by_file.addr, "pass": "of the file" })));
    let file = caller.write("pass", "of the flag\nand no more\n").display().to_string();
    caller.ctl(&["status"]).done();
    assert_eq!(by_file.login(), basic("of the file"));
    caller.env = vec![("REDIS_PROXY_ADDR", by_env.addr.clone())];
    caller.ctl(&["status"]).done();
    assert_eq!(by_env.login(), basic("of the file"));
    caller.env.push(("REDIS_PROXY_PASS", "of the environment".to_owned()));
    caller.ctl(&["status"]).done();
    assert_eq!(by_env.login(), basic("of the environment"));
    caller.ctl(&["status", "--addr", &by_flag.addr]).done();
    assert_eq!(by_flag.login(), basic("of the environment"));
    caller.ctl(&["--addr", &by_flag.addr, "--pass-file", &file, "status"]).done();
    assert_eq!(by_flag.login(), basic("of the flag"));
    // What is empty says nothing.
    caller.env = vec![("REDIS_PROXY_ADDR", String::new()), ("REDIS_PROXY_PASS", String::new())];
    caller.ctl(&["pause"]).done();
    assert_eq!(
        (by_file.login(), by_file.forms()),
        (basic("of the file"), vec!["cmd=pause".to_owned()])
    );
}

#[test]
fn a_password_is_never_shown() {
    let redis = redis();
    let block = json!({ "addr": "127.0.0.1:0", "pass": "right-one" });
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "admin": block })));
    let addr = proxy.addr_of("admin");
    let mut caller = Caller::with(&admin(json!({ "addr": addr, "pass": "hidden-1" })));
    let file = caller.write("pass", "hidden-2").display().to_string();
    let url = "redis://:hidden-4@127.0.0.1:1".to_owned();
    caller.env = vec![("REDIS_PROXY_PASS", "hidden-3".to_owned()), ("REDIS_PROXY_ADDR", url)];
    let mut runs = vec![
        caller.ctl(&["status"]).failed(64, "not a URL"),
        caller.ctl(&["--help"]),
        caller.ctl(&["nonsense"]).failed(64, ""),
        caller.ctl(&["status", "--pass-file", &file, "--addr", &addr]).failed(77, ""),
    ];
    caller.env.pop();
    runs.push(caller.ctl(&["status"]).failed(77, "no or wrong password"));
    runs.push(caller.ctl(&["status", "--json"]).failed(77, ""));
    caller.env = vec![("REDIS_PROXY_PASS", "right-one".to_owned())];
    caller.ctl(&["status"]).done();
    for run in runs {
        assert!(!run.out.contains("hidden") && !run.err.contains("hidden"), "{run:?}");
    }
}

#[test]
fn wrong_usage_ends_with_64() {
    for args in [
        &["ctl"][..],
        &["ctl", "pause", "--ttl-ms", "0"],
        &["ctl", "pause", "--ttl-ms", "1s"],
        &["ctl", "status", "--cert", "client.pem"],
        &["ctl", "status", "--addr", "nowhere"],
        &["ctl", "switch", "--replicate-from", "nowhere"],
        &["ctl", "status", "--addr", "127.0.0.1:1", "--tls"],
        &["ctl", "status", "--pass", "secret"],
        &["--check", "ctl", "status"],
        &["completions", "dos"],
    ] {
        let caller = Caller::new();
        assert_eq!(Run::of(&mut caller.command(args)).code, Some(64), "{args:?}");
    }
}

#[test]
fn a_configuration_that_says_no_address_ends_with_78() {
    let caller = Caller::new();
    caller.ctl(&["status"]).failed(78, "could not read config.json");
    caller.write("config.json", "{");
    caller.ctl(&["status"]).failed(78, "not JSON");
    caller.write("config.json", &json!({ "listen": { "addr": ":1" } }).to_string());
    caller.ctl(&["status"]).failed(78, "config.json has no admin block");
    caller.write("config.json", &json!({ "admin": { "addr": ":1", "tls": true } }).to_string());
    caller.ctl(&["status"]).failed(78, "admin.tls requires certfile\n");
    let addr = ["status", "--addr", "127.0.0.1:1"];
    caller.ctl(&addr).failed(78, "admin.tls requires certfile\n");
    let missing = [&addr[..], &["--cacert", "missing.pem"]].concat();
    Caller::new().ctl(&missing).failed(78, "could not load --cacert: missing.pem");
    let missing = [&addr[..], &["--pass-file", "missing"]].concat();
    Caller::new().ctl(&missing).failed(78, "could not read --pass-file missing");
}

#[test]
fn nothing_is_asked_while_it_is_doubtful_how() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    for doubt in [r#""tls": "true""#, r#""tls": true, "tls": false"#, r#""tsl": true"#] {
        let file = format!(r#"{{ "admin": {{ "addr": "{addr}", "pass": "s3cret", {doubt} }} }}"#);
        let caller = Caller::new();
        caller.write("config.json", &file);
        caller.ctl(&["status"]).failed(78, "admin");
        assert!(listener.accept().is_err(), "{doubt}");
    }
}

#[test]
fn what_is_not_there_or_is_no_admin_api_ends_with_69() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let status = |addr: &str| Caller::new().ctl(&["status", "--addr", addr]);
    status(&free).failed(69, &format!("no admin API at {free}: could not connect"));
    status("./none.sock").failed(69, "./none.sock");
    let redis = redis();
    // Redis closes on whoever speaks HTTP to it.
    status(&redis.addr()).failed(69, "the connection was lost");
    let proxy = tls_admin(&redis, json!({}));
    status(&proxy.addr_of("admin")).failed(69, "--tls");
}

#[test]
fn other_answers_have_their_exit_codes() {
    for (status, more, code) in [
        (409, json!({}), 75),
        (503, json!({}), 75),
        (401, json!({}), 77),
        (400, json!({ "faults": ["one", "other"] }), 78),
        // A proxy that does not know the command.
        (400, json!({}), 1),
        (403, json!({}), 1),
        (500, json!({}), 1),
    ] {
        let mut body = json!({ "ok": false, "error": "it's \u{1b}[31mwrong" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let api = quiet(status, body);
        let run = Caller::new().ctl(&["--addr", &api.addr, "cancel-switch"]);
        assert_eq!((run.code, run.out.as_str()), (Some(code), ""), "{status}: {run:?}");
        let lines = if more["faults"].is_null() { 1 } else { 2 };
        assert_eq!(run.err.lines().count(), lines, "{run:?}");
        assert_eq!(api.forms(), ["cmd=cancel-switch"]);
    }
}

#[test]
fn an_answer_that_is_lost_ends_with_69() {
    let api = FakeApi::start(vec![json!({})], Post::Break(0));
    Caller::new().ctl(&["--addr", &api.addr, "reload"]).failed(69, "the connection was lost");
}

fn tls_admin(redis: &Redis, more: Value) -> Proxy {
    let mut block = json!({
        "addr": "127.0.0.1:0", "tls": true,
        "certfile": cert("server.pem"), "keyfile": cert("server.key"),
    });
    block.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Proxy::start(&config(&redis.addr(), json!({ "admin": block })))
}

/// The file of a proxy that shows this certificate.
fn shows(identity: &str, addr: &str) -> Caller {
    let (certfile, keyfile) = (cert(&format!("{identity}.pem")), cert(&format!("{identity}.key")));
    Caller::with(&admin(json!({
        "addr": addr, "tls": true, "certfile": certfile, "keyfile": keyfile,
    })))
}

#[test]
fn the_certificate_in_the_file_is_trusted_and_no_other() {
    let redis = redis();
    let proxy = tls_admin(&redis, json!({}));
    let addr = proxy.addr_of("admin");
    shows("server", &addr).ctl(&["status"]).done();
    // No name is asked for, as there is one certificate only.
    shows("server", &addr).ctl(&["status", "--servername", "elsewhere.example"]).done();
    let run = shows("self-signed", &addr).ctl(&["status"]).failed(69, "another certificate");
    assert!(run.err.contains("self-signed.pem") && run.err.contains("--cacert"), "{run:?}");
    // Of the same authority.
    shows("client", &addr).ctl(&["status"]).failed(69, "another certificate");
}

#[test]
fn an_authority_is_trusted_where_it_is_named() {
    let redis = redis();
    let proxy = tls_admin(&redis, json!({}));
    let addr = proxy.addr_of("admin");
    let (ca, other) = (cert("ca.pem"), cert("other-ca.pem"));
    let with = |args: &[&str]| Caller::new().ctl(&[&["status", "--addr", &addr], args].concat());
    with(&["--cacert", &ca]).done();
    with(&["--cacert", &ca, "--servername", "a.redis.test"]).done();
    with(&["--cacert", &ca, "--servername", "elsewhere.example"]).failed(69, "not valid for name");
    with(&["--cacert", &other]).failed(69, "certificate");
    // It goes before the file.
    shows("self-signed", &addr).ctl(&["status", "--cacert", &ca]).done();
    shows("server", &addr).ctl(&["status", "--cacert", &other]).failed(69, "certificate");
}

#[test]
fn a_certificate_is_shown_where_one_is_asked_for() {
    let redis = redis();
    let proxy = tls_admin(&redis, json!({ "cacertfile": cert("ca.pem") }));
    let addr = proxy.addr_of("admin");
    let file = json!({
        "addr": addr, "tls": true, "certfile": cert("server.pem"), "keyfile": cert("server.key"),
        "cacertfile": cert("ca.pem"),
    });
    let caller = Caller::with(&admin(file));
    caller.ctl(&["status"]).failed(69, "--cert and --key");
    let (pem, key) = (cert("client.pem"), cert("client.key"));
    caller.ctl(&["status", "--cert", &pem, "--key", &key]).done();
    let other = cert("other-client.key");
    caller.ctl(&["status", "--cert", &pem, "--key", &other]).failed(78, "--cert: keyfile is not");
}

#[test]
fn whoever_shows_the_certificate_must_hold_its_key() {
    let certs: Vec<_> = rustls_pemfile::certs(&mut &*std::fs::read(cert("server.pem")).unwrap())
        .map(Result::unwrap)
        .collect();
    let stolen = std::fs::read(cert("other-client.key")).unwrap();
    let key = rustls_pemfile::private_key(&mut &*stolen).unwrap().unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let mut resolver = ResolvesServerCertUsingSni::new();
    resolver.add("localhost", CertifiedKey::new(certs, key)).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            assert!(stream.read(&mut [0]).is_err(), "nothing is asked of it");
        });
        let caller = shows("server", &format!("localhost:{port}"));
        caller.ctl(&["status"]).failed(69, "TLS handshake failed");
    });
}

/// A state in the midst of a switch.
fn switching(stages: Value, more: Value) -> Value {
    let stage = stages.as_array().unwrap().last().unwrap()["stage"].clone();
    let mut switching = json!({
        "by": "http", "stage": stage, "seconds": 1.5, "from": "old:1", "to": "new:2",
        "stages": stages, "waiting_for": "", "sync": null, "lag_bytes": null, "lag_ms": null,
        "lag": [], "can_cancel": true,
    });
    switching.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "uptime_seconds": 100.0, "switching": switching, "switches": [earlier()] })
}

/// A state without one.
fn calm(switches: &[Value]) -> Value {
    json!({ "uptime_seconds": 100.0, "switching": null, "switches": switches })
}

fn record(result: &str, more: Value) -> Value {
    let mut record = json!({
        "at_unix_seconds": 1000.0, "by": "http", "result": result, "reason": "", "faults": [],
        "generation": 2, "from": "old:1", "to": "new:2", "duration_ms": 2000.0, "held_ms": 3.5,
        "sync_bytes": 4096, "lag_ms": 0.5, "fenced": true, "warnings": [], "not_undone": [],
        "stages": [{ "stage": "preflight", "ms": 12.5 }, { "stage": "replicating", "ms": 1500.0 }],
        "sessions_moved": 7, "sessions_closed": 0, "closed": [],
    });
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    record
}

/// A switch that was over before.
fn earlier() -> Value {
    record("done", json!({ "at_unix_seconds": 10.0, "to": "earlier:3" }))
}

/// Two looks at a switch that runs, one before it.
fn running() -> Vec<Value> {
    let first = json!([{ "stage": "preflight", "ms": null }]);
    let second =
        json!([{ "stage": "preflight", "ms": 12.5 }, { "stage": "replicating", "ms": null }]);
    let sync = json!({ "sync": { "read_bytes": 1024, "total_bytes": 4096 } });
    vec![calm(&[earlier()]), switching(first, json!({})), switching(second, sync)]
}

const SUMMARY: &str = "\
switching old:1 -> new:2
preflight ...
preflight: took 12.5 ms
replicating ...
replicating: took 1.5 s
switch done in 2.0 s: old:1 -> new:2
data copied: 4.00 KiB
clients were held for 3.5 ms
sessions: 7 moved, 0 closed
the old uplink is fenced off
";

#[test]
fn a_switch_is_told_of_stage_by_stage_and_summed_up() {
    let answer = json!({ "ok": true, "switch": record("done", json!({})) });
    let api = FakeApi::start(running(), Post::Answer(4, 200, answer));
    let caller = Caller::new();
    assert_eq!(caller.ctl(&["--addr", &api.addr, "switch"]).done(), SUMMARY);
    assert_eq!(api.forms(), ["cmd=switch"]);
}

#[test]
fn a_switch_in_json_is_the_answer_alone() {
    let answer = json!({ "ok": true, "switch": record("done", json!({})) });
    let api = FakeApi::start(running(), Post::Answer(3, 200, answer.clone()));
    let said = Caller::new().ctl(&["--addr", &api.addr, "switch", "--json"]).done();
    assert_eq!(said.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), answer);
}

#[test]
fn a_switchs_options_are_the_apis() {
    let answer = json!({ "ok": true, "switch": record("done", json!({})) });
    let api = FakeApi::start(running(), Post::Answer(1, 200, answer));
    Caller::new()
        .ctl(&[
            "--addr",
            &api.addr,
            "switch",
            "--timeout-ms",
            "9",
            "--pause-limit-ms",
            "8",
            "--prepared",
            "--replicate-from",
            "h:7",
            "--no-fence",
            "--force",
        ])
        .done();
    let form = "cmd=switch&timeout_ms=9&pause_limit_ms=8&replicate_from=h%3A7&prepared=true&\
                fence=false&force=true";
    assert_eq!(api.forms(), [form]);
}

#[test]
fn a_switch_that_fails_says_why_and_where_clients_are() {
    for (status, result, code) in [
        (503, "rolled back", 75),
        (409, "rolled back", 75),
        (400, "refused", 78),
        (500, "rolled back", 1),
    ] {
        let more = json!({ "warnings": ["a warning"], "faults": ["a fault"], "fenced": false });
        let answer = json!({ "ok": false, "error": "too slow", "switch": record(result, more) });
        let api = FakeApi::start(running(), Post::Answer(2, status, answer));
        let run = Caller::new().ctl(&["--addr", &api.addr, "switch"]);
        assert_eq!((run.code, run.err.as_str()), (Some(code), "too slow\n"), "{run:?}");
        let wanted = format!("switch {result} after 2.0 s: clients are at old:1, not at new:2\n");
        assert!(run.out.contains(&wanted), "{run:?}");
        assert!(run.out.ends_with("warning: a warning\nfault: a fault\n"), "{run:?}");
    }
    let api =
        FakeApi::start(running(), Post::Answer(1, 409, json!({ "ok": false, "error": "busy" })));
    let run = Caller::new().ctl(&["--addr", &api.addr, "switch"]).failed(75, "busy\n");
    assert_eq!(run.out, "");
}

#[test]
fn a_rehearsal_is_a_table_of_checks() {
    let report = json!({ "checks": [
        { "name": "a check", "result": "ok", "detail": "fine" },
        { "name": "another check", "result": "warning", "detail": "so so" },
    ] });
    let table = "a check        ok       fine\nanother check  warning  so so\n";
    let args = |api: &FakeApi| Caller::new().ctl(&["--addr", &api.addr, "switch", "--dry-run"]);
    let api = quiet(200, json!({ "ok": true, "preflight": report }));
    assert_eq!(args(&api).done(), table);
    assert_eq!(api.forms(), ["cmd=switch&dry_run=true"]);
    let refused =
        json!({ "ok": false, "error": "no: a; b", "faults": ["a", "b"], "preflight": report });
    let run = args(&quiet(400, refused)).failed(78, "");
    assert_eq!((run.out.as_str(), run.err.as_str()), (table, "a\nb\n"));
}

#[test]
fn a_switch_whose_answer_is_lost_is_followed_to_its_end() {
    let end = |result: &str| {
        let own = record(result, json!({ "reason": "too slow" }));
        [running(), vec![calm(&[own, earlier()])]].concat()
    };
    let run = |states| {
        let api = FakeApi::start(states, Post::Break(2));
        Caller::new().ctl(&["--addr", &api.addr, "switch"])
    };
    assert_eq!(run(end("done")).done(), SUMMARY);
    run(end("rolled back")).failed(75, "too slow\n");
    run(end("refused")).failed(78, "too slow\n");
    let api = FakeApi::start(end("done"), Post::Break(2));
    let json = Caller::new().ctl(&["--addr", &api.addr, "switch", "--json"]).json();
    assert_eq!((&json["ok"], &json["switch"]["to"]), (&json!(true), &json!("new:2")));
}

#[test]
fn the_outcome_of_another_switch_is_not_taken_for_this_ones() {
    // Nothing but the earlier one is ever found.
    let api = FakeApi::start(vec![calm(&[earlier()])], Post::Break(0));
    let run = Caller::new().ctl(&["--addr", &api.addr, "switch"]);
    assert_eq!(run.failed(69, "the proxy knows of no switch since").out, "");
    // One that was running before ends meanwhile.
    let mut states = running();
    states.remove(0);
    states.push(calm(&[record("done", json!({})), earlier()]));
    let api = FakeApi::start(states, Post::Break(1));
    let run = Caller::new().ctl(&["--addr", &api.addr, "switch"]);
    run.failed(69, "the proxy knows of no switch since");
    // The one that remembered is gone.
    let mut reborn = calm(&[]);
    reborn["uptime_seconds"] = json!(1.0);
    let api = FakeApi::start([running(), vec![reborn]].concat(), Post::Break(2));
    let run = Caller::new().ctl(&["--addr", &api.addr, "switch"]);
    run.failed(69, "the proxy was started again");
}

#[test]
fn an_interruption_leaves_the_switch_running_and_says_so() {
    let api = FakeApi::start(running(), Post::Break(usize::MAX));
    let caller = Caller::new();
    let mut command = caller.command(&["ctl", "--addr", &api.addr, "switch"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    api.heard(2);
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("the switch goes on") && err.contains("ctl cancel-switch"), "{err}");
    assert_eq!(api.forms(), ["cmd=switch"], "nothing was cancelled");
}

#[test]
fn a_terminal_gets_a_bar_and_the_same_lines() {
    let answer = json!({ "ok": true, "switch": record("done", json!({})) });
    let api = FakeApi::start(running(), Post::Answer(5, 200, answer));
    // It gives its command a terminal.
    let line = format!("{BINARY} ctl --addr {} switch", api.addr);
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    assert!(out.contains("\x1b[") && out.contains("1.00 KiB/4.00 KiB"), "{out:?}");
    for line in SUMMARY.lines().filter(|line| !line.ends_with("...")) {
        assert!(out.contains(line), "{line} is not in {out:?}");
    }
}

const COMMANDS: [&str; 9] = [
    "pause",
    "unpause",
    "reload",
    "switch",
    "cancel-switch",
    "status",
    "terminate-raw-connections",
    "completions",
    "man",
];

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Run::of(&mut Caller::new().command(&["completions", shell])).done();
        for name in COMMANDS {
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
}

#[test]
fn there_is_a_manual_page_of_every_command() {
    let caller = Caller::new();
    let main = Run::of(&mut caller.command(&["man"])).done();
    assert!(main.contains(".TH redis-proxy 1"), "{main}");
    let dir = caller.dir.path();
    Run::of(&mut caller.command(&["man", "--dir", dir.to_str().unwrap()])).done();
    let page = |name: &str| std::fs::read_to_string(Path::new(dir).join(name)).unwrap();
    assert_eq!(page("redis-proxy.1"), main);
    for name in ["ctl", "completions", "man"] {
        assert!(main.contains(&format!("redis\\-proxy\\-{name}(1)")), "{main}");
    }
    assert!(page("redis-proxy-ctl.1").contains("Exit codes:"));
    for name in &COMMANDS[..7] {
        let text = page(&format!("redis-proxy-ctl-{name}.1"));
        assert!(text.contains("REDIS_PROXY_ADDR"), "{text}");
    }
    let missing = ["man", "--dir", "/does/not/exist"];
    Run::of(&mut caller.command(&missing)).failed(1, "No such file");
}
