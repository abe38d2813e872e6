//! Settings that clients feel: differences are told, `settings=copy` keeps them as they are, and no
//! client gets a NOREPLICAS from a new server that will have its replica in a moment.

use serde_json::{Value, json};

use crate::common::{Answer, Client, Middle, Proxy, Redis, Then, When, config, redis, run_to_end};

fn uplink(addr: &str) -> Value {
    config(addr, json!({}))
}

fn switch(proxy: &Proxy, to: &str, parameters: &str) -> Answer {
    proxy.rewrite(&uplink(to));
    proxy.cmd(&format!("switch{parameters}"))
}

fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["switch"].clone()
}

/// What a client feels of them.
const FELT: [(&str, &str); 7] = [
    ("notify-keyspace-events", "AKE"),
    ("timeout", "777"),
    ("client-output-buffer-limit", "pubsub 1000000 500000 30"),
    ("proto-max-bulk-len", "1048576"),
    ("maxmemory", "123456789"),
    ("maxmemory-policy", "allkeys-lru"),
    ("lua-time-limit", "777"),
];

fn felt() -> Redis {
    let server = redis();
    let mut client = server.client();
    for (name, value) in FELT {
        assert_eq!(client.ask(&["CONFIG", "SET", name, value]), "+OK", "{name}");
    }
    server
}

fn setting(server: &Redis, name: &str) -> String {
    server.client().run(&format!("CONFIG GET {name}"))
}

#[test]
fn settings_that_clients_feel_are_told_if_they_differ() {
    let (one, two) = (felt(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let record = done(&switch(&proxy, &two.addr(), ""));
    let warnings = record["warnings"].to_string();
    for (name, _) in FELT {
        assert!(warnings.contains(&format!("settings: {name} is")), "{name}: {warnings}");
    }
    // What concerns replicas, or means the same, is no difference.
    let (three, four) = (redis(), redis());
    three.client().ask(&["CONFIG", "SET", "client-output-buffer-limit", "replica 9 8 7"]);
    let proxy = Proxy::start(&uplink(&three.addr()));
    assert_eq!(done(&switch(&proxy, &four.addr(), ""))["warnings"], json!([]));
}

#[test]
fn settings_are_copied_if_that_is_wanted_and_set_back_if_it_is_rolled_back() {
    let (one, two) = (felt(), redis());
    let before: Vec<_> = FELT.iter().map(|(name, _)| setting(&two, name)).collect();
    let way = Middle::to(&two.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::Before, || Then::Close);
    let answer = switch(&proxy, &way.addr(), "&settings=copy");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["switch"]["not_undone"], json!([]));
    let after: Vec<_> = FELT.iter().map(|(name, _)| setting(&two, name)).collect();
    assert_eq!(after, before);
    // By ctl, too.
    let admin = proxy.addr_of("admin");
    let ctl = run_to_end(&["ctl", "--addr", &admin, "switch", "--settings", "copy"], "");
    let (out, err) =
        (String::from_utf8(ctl.stdout).unwrap(), String::from_utf8(ctl.stderr).unwrap());
    assert_eq!(ctl.status.code(), Some(0), "{out}{err}");
    let (last, copied) = FELT.split_last().unwrap();
    for (name, _) in copied.iter().filter(|(name, _)| *name != "client-output-buffer-limit") {
        assert_eq!(setting(&two, name), setting(&one, name), "{name}");
    }
    let buffers = setting(&two, "client-output-buffer-limit");
    assert!(buffers.contains("pubsub 1000000 500000 30"), "{buffers}");
    // That is the server's own matter, and stays.
    assert_ne!(setting(&two, last.0), setting(&one, last.0));
}

#[test]
fn a_setting_that_cannot_be_copied_is_said_plainly() {
    let (one, two) = (felt(), redis());
    two.client().run("ACL SETUSER mover on >pass ~* &* +@all -config|set");
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut settings = uplink(&two.addr());
    settings["uplink"]["user"] = json!("mover");
    settings["uplink"]["pass"] = json!("pass");
    proxy.rewrite(&settings);
    two.follow(&one);
    let record = done(&proxy.cmd("switch&settings=copy"));
    let warnings = record["warnings"].to_string();
    assert!(warnings.contains("timeout is not as at the old uplink: NOPERM"), "{warnings}");
}

#[test]
fn a_new_server_that_wants_a_replica_has_it_before_clients_write() {
    let (one, two) = (redis(), Redis::start(&["--min-replicas-to-write", "1"]));
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    let mut queued = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    assert_eq!((queued.run("MULTI"), queued.run("SET q 1")), ("OK".into(), "QUEUED".into()));
    let way = Middle::to(&two.addr());
    // Somebody writes as soon as that is possible.
    let addr = proxy.addr();
    let (tell, told) = std::sync::mpsc::channel();
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::Before, move || {
        let mut early = Client::connect(&addr);
        early.command(&["SET", "early", "1"]);
        tell.send(early).unwrap();
        Then::Pass
    });
    let record = done(&switch(&proxy, &way.addr(), &format!("&replicate_from={}", one.addr())));
    assert_eq!((&record["fenced"], &record["warnings"]), (&json!(true), &json!([])));
    assert_eq!(told.recv().unwrap().reply(), "OK");
    assert_eq!((client.run("SET k v2"), queued.run("EXEC")), ("OK".into(), "[OK]".into()));
}

#[test]
fn a_new_server_that_will_not_have_its_replicas_is_refused() {
    let (one, two) = (redis(), Redis::start(&["--min-replicas-to-write", "2"]));
    let proxy = Proxy::start(&uplink(&one.addr()));
    for (parameters, will_have) in [("", 1), ("&fence=false", 0)] {
        let answer = switch(&proxy, &two.addr(), parameters);
        assert_eq!(answer.status, 400, "{}", answer.body);
        let why = format!("takes no write without 2 replicas, and will have {will_have}");
        assert!(answer.error().contains(&why), "{}", answer.body);
    }
    let record = done(&switch(&proxy, &two.addr(), "&force=true&pause_limit_ms=4000"));
    let warnings = record["warnings"].to_string();
    assert!(warnings.contains("it has not had them in time"), "{warnings}");
}
