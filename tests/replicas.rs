//! A reload to a replica of the present uplink: its lag is waited for while clients are served, and
//! that it is a replica is said loudly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Answer, Middle, Proxy, Redis, config, eventually, redis};

fn to(redis: &Redis) -> Value {
    config(&redis.addr(), json!({}))
}

/// Makes it a replica, by a way that can be slowed down.
fn follow_by(replica: &Redis, way: &Middle) {
    let mut client = replica.client();
    client.run(&format!("REPLICAOF {}", way.addr().replace(':', " ")));
    eventually("it is a replica", || {
        client.run("INFO replication").contains("master_link_status:up")
    });
}

#[test]
fn keys_are_watched_at_a_replica_once_it_has_what_was_written_before() {
    let (one, two) = (redis(), redis());
    let way = Middle::to(&one.addr());
    follow_by(&two, &way);
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    way.slow_down(Duration::from_millis(300));
    assert_eq!(client.run("SET k v"), "OK");
    assert_eq!(client.run("WATCH k"), "OK");
    assert_eq!(proxy.reload(&to(&two)).status, 200);
    assert_eq!(proxy.info()["reloads"][0]["handed_over"]["watched"], 1);
    for (command, reply) in [("MULTI", "OK"), ("GET k", "QUEUED"), ("EXEC", "[v]")] {
        assert_eq!(client.run(command), reply);
    }
}

#[test]
fn the_lag_of_a_replica_is_waited_for_while_clients_are_served() {
    let (one, two) = (redis(), redis());
    let way = Middle::to(&one.addr());
    follow_by(&two, &way);
    // It may lag by a fourth of that when clients are held.
    let limit = json!({ "pause_time_limit_ms": 8000 });
    let proxy = Proxy::start(&config(&one.addr(), limit.clone()));
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    way.slow_down(Duration::from_secs(3));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut writer = one.client();
        let over = &over;
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                writer.run("INCR n");
            }
        });
        proxy.rewrite(&config(&two.addr(), limit));
        let mut caller = proxy.begin_cmd("reload");
        eventually("it is waited for", || proxy.info()["reloading"]["stage"] == "preparing");
        for n in 1..=3 {
            assert_eq!(client.run("INCR served"), n.to_string());
            assert_eq!(proxy.info()["state_str"], "running");
        }
        over.store(true, Ordering::Relaxed);
        way.slow_down(Duration::ZERO);
        assert_eq!(Answer::read(&mut caller).status, 200);
    });
    assert_eq!(client.run("GET served"), "3");
}

#[test]
fn a_reload_to_a_replica_says_so_loudly() {
    let (one, two) = (redis(), redis());
    two.follow(&one);
    let proxy = Proxy::start(&to(&one));
    proxy.rewrite(&to(&two));
    let says = |warnings: &Value| {
        let warning = warnings[0].as_str().unwrap_or_default();
        assert!(warning.contains("is a replica") && warning.contains("READONLY"), "{warnings}");
    };
    says(&proxy.cmd("reload&dry_run=true").json()["prediction"]["warnings"]);
    says(&proxy.cmd("reload").json()["reload"]["warnings"]);
    says(&proxy.info()["reloads"][0]["warnings"]);
    proxy.logged("that it is a replica", |line| {
        line["level"] == "WARN"
            && line["warning"].as_str().is_some_and(|it| it.contains("READONLY"))
    });
    // Back to the master, there is nothing to be said.
    proxy.reload(&to(&one)).expect_ok();
}

#[test]
fn the_replica_of_a_dead_master_is_refused_unless_it_is_forced() {
    let (mut one, two) = (redis(), redis());
    two.follow(&one);
    let proxy = Proxy::start(&to(&one));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    eventually("it is copied", || two.client().run("GET k") == "v");
    one.kill();
    proxy.rewrite(&to(&two));
    for cmd in ["reload", "reload&dry_run=true"] {
        let answer = proxy.cmd(cmd);
        assert_eq!(answer.status, 400);
        let error = answer.error();
        assert!(error.contains(&format!("uplink: {} is a replica, and ", two.addr())), "{error}");
    }
    assert_eq!(proxy.info()["generation"], 1);
    let answer = proxy.cmd("reload&force=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    let warning = answer.json()["reload"]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("READONLY"), "{warning}");
    assert_eq!(proxy.client().run("GET k"), "v");
}
