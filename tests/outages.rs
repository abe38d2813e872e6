//! The uplink goes away and comes back: what becomes of each kind of client.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{FakeUplink, Proxy, Redis, config, eventually, request};

/// A proxy that holds clients for so many ms.
fn proxy(redis: &Redis, hold_ms: u64) -> Proxy {
    Proxy::start(&holding(&redis.addr(), hold_ms))
}

fn holding(uplink: &str, hold_ms: u64) -> Value {
    config(uplink, json!({ "hold_time_limit_ms": hold_ms }))
}

const LONG: u64 = 50_000;

fn is_lost(proxy: &Proxy) {
    proxy.shows("uplink_up", false);
}

/// Waits until so many sessions wait at the gate.
fn wait_at_gate(proxy: &Proxy, count: u64) {
    proxy.shows("waiting_requests", count);
}

/// The server is killed while it executes nothing more: what is sent to it is in flight.
fn stopped(redis: &Redis) {
    kill_process(redis.pid(), Signal::STOP).unwrap();
}

#[test]
fn an_idle_client_notices_nothing_and_has_its_state_at_the_next_run() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    client.run("HELLO 3 SETNAME me");
    assert_eq!(client.run("SELECT 5"), "OK");
    assert_eq!(client.run("SET k before"), "OK");
    redis.kill();
    is_lost(&proxy);
    redis.restart();
    // A new run, without data.
    assert_eq!(client.ask(&["GET", "k"]), "_");
    assert_eq!(client.run("SET k after"), "OK");
    assert_eq!(client.run("CLIENT GETNAME"), "me");
    let mut direct = redis.client();
    direct.run("SELECT 5");
    assert_eq!(direct.run("GET k"), "after");
    proxy.shows("uplink_up", true);
    assert_eq!(proxy.metric("redis_proxy_uplink_outages_total"), 1.0);
    assert_eq!(proxy.metric("redis_proxy_uplink_up"), 1.0);
}

#[test]
fn requests_that_come_during_an_outage_wait_for_its_end() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut old = proxy.client();
    assert_eq!(old.run("PING"), "PONG");
    redis.kill();
    is_lost(&proxy);
    let mut new = proxy.client();
    old.send("INCR n\r\nINCR n\r\n");
    new.send("INCR n\r\n");
    wait_at_gate(&proxy, 2);
    assert_eq!(proxy.info()["state_str"], "running");
    redis.restart();
    let mut heard = vec![old.line(), old.line(), new.line()];
    heard.sort();
    assert_eq!(heard, [":1", ":2", ":3"]);
}

#[test]
fn a_new_client_whose_connection_to_the_uplink_is_refused_is_held() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    redis.kill();
    // Nobody has found out yet, perhaps.
    let mut client = proxy.client();
    client.send("INCR n\r\nSELECT 3\r\nINCR n\r\nMULTI\r\nINCR n\r\n");
    is_lost(&proxy);
    redis.restart();
    client.expect(":1\r\n+OK\r\n:1\r\n+OK\r\n+QUEUED\r\n");
    client.send("EXEC\r\n").expect("*1\r\n:2\r\n");
}

#[test]
fn a_request_that_only_reads_is_asked_again() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    stopped(&redis);
    client.send("GET k\r\nMGET k k\r\nPING\r\n");
    proxy.shows("active_requests", 3);
    redis.restart();
    client.expect("$1\r\nv\r\n*2\r\n$1\r\nv\r\n$1\r\nv\r\n+PONG\r\n");
    assert_eq!(proxy.metric("redis_proxy_requests_asked_again_total"), 3.0);
    assert_eq!(proxy.metric("redis_proxy_outcomes_unknown_total"), 0.0);
}

#[test]
fn a_write_in_flight_is_not_sent_again_and_its_client_is_closed_without_a_reply() {
    for request in ["INCR n\r\n", "GET k\r\nINCR n\r\nGET k\r\n", "EVAL 'return 1' 0\r\n"] {
        let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        let proxy = proxy(&redis, LONG);
        let mut client = proxy.client();
        assert_eq!(client.run("PING"), "PONG");
        stopped(&redis);
        client.send(request);
        let count = request.matches("\r\n").count() as u64;
        proxy.shows("active_requests", count);
        redis.restart();
        client.expect_closed();
        assert_eq!(proxy.metric("redis_proxy_outcomes_unknown_total"), 1.0, "{request}");
        assert_eq!(redis.client().run("GET n"), "nil", "{request}");
    }
}

#[test]
fn a_blocking_command_is_asked_again_for_the_time_that_is_left() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    let are_blocked = |redis: &Redis, count: u32| {
        redis.client().run("INFO clients").contains(&format!("blocked_clients:{count}\r"))
    };
    let mut short = proxy.client();
    client.send("BLPOP l 0\r\n");
    short.send("BLPOP m 2\r\n");
    eventually("both wait", || are_blocked(&redis, 2));
    redis.kill();
    is_lost(&proxy);
    // Its time is over meanwhile.
    short.expect("*-1\r\n");
    redis.restart();
    eventually("it waits again", || are_blocked(&redis, 1));
    redis.client().run("RPUSH l v");
    client.expect("*2\r\n$1\r\nl\r\n$1\r\nv\r\n");
}

#[test]
fn an_open_transaction_is_begun_again_and_watched_keys_count_as_touched() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let (mut open, mut watching) = (proxy.client(), proxy.client());
    open.send("MULTI\r\nSET a 1\r\nINCR a\r\n").expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n");
    assert_eq!(watching.run("WATCH w"), "OK");
    redis.restart();
    open.send("EXEC\r\n").expect("*2\r\n+OK\r\n:2\r\n");
    watching.send("MULTI\r\nINCR w\r\nEXEC\r\n").expect("+OK\r\n+QUEUED\r\n*-1\r\n");
    watching.send("MULTI\r\nINCR w\r\nEXEC\r\n").expect("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n");
}

#[test]
fn requests_in_a_transaction_that_were_in_flight_are_queued_again() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    client.send("MULTI\r\nINCR a\r\n").expect("+OK\r\n+QUEUED\r\n");
    stopped(&redis);
    client.send("INCR a\r\nINCR a\r\n");
    proxy.shows("active_requests", 2);
    redis.restart();
    client.expect("+QUEUED\r\n+QUEUED\r\n");
    client.send("EXEC\r\n").expect("*3\r\n:1\r\n:2\r\n:3\r\n");
    // All of it in flight, but for EXEC.
    stopped(&redis);
    client.send("MULTI\r\nINCR b\r\n");
    proxy.shows("active_requests", 2);
    redis.restart();
    client.expect("+OK\r\n+QUEUED\r\n");
    client.send("EXEC\r\n").expect("*1\r\n:1\r\n");
    // Nobody knows whether this was executed.
    client.send("MULTI\r\nINCR c\r\n").expect("+OK\r\n+QUEUED\r\n");
    stopped(&redis);
    client.send("EXEC\r\n");
    proxy.shows("active_requests", 1);
    redis.restart();
    client.expect_closed();
}

#[test]
fn subscribers_monitors_and_caches_are_connected_without_a_request() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let (mut resp2, mut resp3) = (proxy.client(), proxy.client());
    resp2.send("SUBSCRIBE c\r\n").expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    resp3.run("HELLO 3");
    resp3.send("PSUBSCRIBE c*\r\n").expect(">3\r\n$10\r\npsubscribe\r\n$2\r\nc*\r\n:1\r\n");
    let (mut tracking, mut monitor) = (proxy.client(), proxy.client());
    tracking.run("HELLO 3");
    assert_eq!(tracking.run("CLIENT TRACKING ON"), "OK");
    assert_eq!(monitor.run("MONITOR"), "OK");
    redis.restart();
    tracking.expect(">2\r\n$10\r\ninvalidate\r\n_\r\n");
    let mut direct = redis.client();
    eventually("both listen", || {
        direct.run("PUBSUB NUMPAT") == "1" && direct.run("PUBSUB NUMSUB c").contains('1')
    });
    direct.run("PUBLISH c hello");
    resp2.expect("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n");
    resp3.expect(">4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$1\r\nc\r\n$5\r\nhello\r\n");
    while !monitor.line().contains("hello") {}
}

#[test]
fn after_the_limit_those_who_wait_are_closed_and_idle_clients_stay() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, 300);
    let (mut idle, mut waits, mut blocked) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(idle.run("SELECT 3"), "OK");
    assert_eq!(waits.run("PING"), "PONG");
    blocked.send("BLPOP l 0\r\n");
    eventually("it waits", || redis.client().run("INFO clients").contains("blocked_clients:1"));
    redis.kill();
    waits.send("SET k v\r\n");
    waits.expect_closed();
    blocked.expect_closed();
    // The limit is for the outage: nobody waits for it a second time.
    proxy.logged("the limit is over", |line| {
        line["message"].as_str().is_some_and(|it| it.starts_with("hold_time_limit_ms is over"))
    });
    let mut late = proxy.client();
    late.send("PING\r\n");
    late.expect_closed();
    redis.restart();
    proxy.shows("uplink_up", true);
    assert_eq!(idle.run("SET k v"), "OK");
    let mut direct = redis.client();
    direct.run("SELECT 3");
    assert_eq!(direct.run("GET k"), "v");
    proxy.closed("the uplink was lost for longer than hold_time_limit_ms");
}

#[test]
fn a_client_that_gives_up_during_an_outage_is_gone_and_its_request_is_dropped() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    redis.kill();
    is_lost(&proxy);
    client.send("SET k v\r\n");
    wait_at_gate(&proxy, 1);
    drop(client);
    proxy.shows("clients", 0);
    redis.restart();
    assert_eq!(redis.client().run("GET k"), "nil");
}

#[test]
fn a_connection_that_the_uplink_closes_alone_closes_its_client() {
    let redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let (mut one, mut other) = (proxy.client(), proxy.client());
    let id = one.run("CLIENT ID");
    assert_eq!(other.run("PING"), "PONG");
    redis.client().run(&format!("CLIENT KILL ID {id}"));
    one.expect_closed();
    assert_eq!(other.run("PING"), "PONG");
    assert_eq!(proxy.metric("redis_proxy_uplink_outages_total"), 0.0);
    proxy.closed("the uplink closed the connection");
}

#[test]
fn a_server_that_is_stopped_is_lost_in_time_and_back_when_it_goes_on() {
    let redis = Redis::start(&[]);
    let mut settings = holding(&redis.addr(), LONG);
    settings["connect_time_limit_ms"] = json!(300);
    let proxy = Proxy::start(&settings);
    let (mut idle, mut reads) = (proxy.client(), proxy.client());
    assert_eq!(idle.run("SELECT 2"), "OK");
    assert_eq!(reads.run("PING"), "PONG");
    stopped(&redis);
    reads.send("GET k\r\n");
    is_lost(&proxy);
    idle.send("SET k v\r\n");
    wait_at_gate(&proxy, 2);
    kill_process(redis.pid(), Signal::CONT).unwrap();
    reads.expect("$-1\r\n");
    idle.expect("+OK\r\n");
}

#[test]
fn a_master_that_becomes_a_replica_is_lost_until_it_is_a_master_again() {
    let (redis, other) = (Redis::start(&[]), Redis::start(&[]));
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    redis.follow(&other);
    is_lost(&proxy);
    client.send("SET k w\r\n");
    wait_at_gate(&proxy, 1);
    assert_eq!(redis.client().run("REPLICAOF NO ONE"), "OK");
    client.expect("+OK\r\n");
}

#[test]
fn a_proxy_starts_without_its_uplink_and_holds_clients_until_that_is_there() {
    let mut redis = Redis::start(&[]);
    redis.kill();
    let proxy = proxy(&redis, LONG);
    assert_eq!(proxy.get("/readyz").status, 503);
    let mut client = proxy.client();
    client.send("SET k v\r\n");
    wait_at_gate(&proxy, 1);
    redis.restart();
    client.expect("+OK\r\n");
    proxy.shows("uplink_up", true);
    assert_eq!(proxy.get("/readyz").status, 200);
}

#[test]
fn a_pause_during_an_outage_holds_beyond_its_end_and_beyond_the_limit() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, 300);
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    proxy.cmd("pause&wait=true").expect_ok();
    redis.kill();
    is_lost(&proxy);
    client.send("INCR n\r\n");
    wait_at_gate(&proxy, 1);
    // Its clients wait for the operator: the limit has not begun.
    std::thread::sleep(Duration::from_millis(600));
    redis.restart();
    proxy.shows("uplink_up", true);
    assert_eq!(proxy.info()["state_str"], "paused");
    proxy.cmd("unpause").expect_ok();
    client.expect(":1\r\n");
}

#[test]
fn a_reload_during_an_outage_moves_those_who_wait_to_the_new_uplink() {
    let mut redis = Redis::start(&[]);
    let other = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let (mut idle, mut waits, mut subscribed) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(idle.run("SELECT 4"), "OK");
    assert_eq!(waits.run("PING"), "PONG");
    subscribed.run("SUBSCRIBE c");
    stopped(&redis);
    waits.send("GET k\r\n");
    proxy.shows("active_requests", 1);
    redis.kill();
    is_lost(&proxy);
    let mut later = proxy.client();
    later.send("INCR n\r\n");
    proxy.reload(&holding(&other.addr(), LONG)).expect_ok();
    waits.expect("$-1\r\n");
    later.expect(":1\r\n");
    assert_eq!(idle.run("SET k v"), "OK");
    let mut direct = other.client();
    direct.run("SELECT 4");
    assert_eq!(direct.run("GET k"), "v");
    eventually("it listens", || direct.run("PUBSUB NUMSUB c").contains('1'));
    proxy.shows("uplink_up", true);
}

#[test]
fn a_watch_that_panics_begins_anew_and_clients_go_on() {
    let mut redis = Redis::start(&[]);
    let environment = [("REDIS_PROXY_PANIC_AT", "watch:losing")];
    let proxy = Proxy::start_in(&environment, &holding(&redis.addr(), LONG));
    let mut client = proxy.client();
    assert_eq!(client.run("SELECT 2"), "OK");
    redis.restart();
    assert_eq!(client.run("SET k v"), "OK");
    proxy.logged("the watch begins anew", |line| {
        line["message"] == "the watch of the uplink begins anew"
    });
    proxy.shows("uplink_up", true);
}

#[test]
fn a_watch_that_finds_no_room_at_the_uplink_changes_nothing() {
    let redis = Redis::start(&["--maxclients", "3"]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    let mut direct = redis.client();
    let list = direct.run("CLIENT LIST");
    let watch = list.lines().find(|line| line.contains(" name=redis-proxy:watch:")).unwrap();
    let id = watch.split(' ').next().unwrap().strip_prefix("id=").unwrap();
    // The client and this connection are all that the server takes: the watch finds no place any more.
    direct.run("CONFIG SET maxclients 2");
    let killed = Instant::now();
    assert_eq!(direct.run(&format!("CLIENT KILL ID {id}")), "1");
    eventually("the watch has tried several times", || {
        let stats = direct.run("INFO stats");
        let rejected = stats.lines().find_map(|line| line.strip_prefix("rejected_connections:"));
        rejected.is_some_and(|count| count.trim().parse::<u32>().unwrap() >= 8)
    });
    // It takes its time between two of them: 20 ms at first, and 250 ms at most.
    assert!(killed.elapsed() > Duration::from_millis(500), "{:?}", killed.elapsed());
    proxy.cmd("pause").expect_ok();
    proxy.cmd("unpause").expect_ok();
    assert_eq!(client.run("PING"), "PONG");
    direct.run("CONFIG SET maxclients 100");
    eventually("it is watched again", || {
        direct.run("CLIENT LIST").contains(" name=redis-proxy:watch:")
    });
    assert_eq!(proxy.metric("redis_proxy_uplink_outages_total"), 0.0);
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn what_only_reads_of_the_connection_or_changes_it_is_sent_again_in_each_outage() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    for outage in 1..3 {
        for (request, reply) in [
            ("HELLO 3\r\n", "%7\r\n"),
            ("CLIENT ID\r\n", ":"),
            ("CLIENT GETNAME\r\n", "$-1\r\n"),
            ("CLIENT INFO\r\n", "$"),
            ("SUBSCRIBE a b\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
            ("UNSUBSCRIBE a\r\n", "*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"),
        ] {
            let mut client = proxy.client();
            assert_eq!(client.run("PING"), "PONG", "{request}");
            stopped(&redis);
            client.send(request);
            proxy.shows("active_requests", 1);
            redis.restart();
            client.expect(reply);
        }
        assert_eq!(proxy.metric("redis_proxy_outcomes_unknown_total"), 0.0, "{outage}");
    }
}

#[test]
fn what_only_changes_the_connection_is_sent_again() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    stopped(&redis);
    // HELLO waits for the replies before it.
    client.send("SELECT 3\r\nCLIENT SETNAME me\r\nWATCH k\r\nHELLO 3\r\n");
    proxy.shows("active_requests", 3);
    redis.restart();
    client.expect("+OK\r\n+OK\r\n+OK\r\n%7\r\n");
    while client.line() != "*0" {}
    assert_eq!(client.run("CLIENT GETNAME"), "me");
    client.send("MULTI\r\nSET k v\r\nEXEC\r\n").expect("+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    let mut direct = redis.client();
    direct.run("SELECT 3");
    assert_eq!(direct.run("GET k"), "v");
}

/// Makes it a replica of nobody, without closing a connection.
fn demote(redis: &Redis) {
    assert_eq!(redis.client().run("REPLICAOF 127.0.0.1 1"), "OK");
}

fn promote(redis: &Redis) {
    assert_eq!(redis.client().run("REPLICAOF NO ONE"), "OK");
}

#[test]
fn requests_that_a_demoted_server_refuses_wait_until_it_is_a_master_again() {
    let redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    for (requests, count, replies) in [
        ("SET k v\r\n", 1, "+OK\r\n"),
        ("SET k w\r\nGET k\r\nINCR n\r\n", 3, "+OK\r\n$1\r\nw\r\n:1\r\n"),
        ("EVAL \"return redis.call('INCR', 'n')\" 1 n\r\n", 1, ":2\r\n"),
    ] {
        let mut client = proxy.client();
        assert_eq!(client.run("PING"), "PONG");
        let outages = proxy.metric("redis_proxy_uplink_outages_total");
        demote(&redis);
        client.send(requests);
        eventually("it is lost", || {
            proxy.metric("redis_proxy_uplink_outages_total") == outages + 1.0
        });
        wait_at_gate(&proxy, 1);
        promote(&redis);
        client.expect(replies);
        proxy.shows("uplink_up", true);
        assert_eq!(count, requests.matches("\r\n").count());
    }
    assert_eq!(proxy.metric("redis_proxy_outcomes_unknown_total"), 0.0);
}

#[test]
fn a_transaction_that_a_demoted_server_refuses_is_begun_again_on_a_master() {
    let redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    client.send("MULTI\r\nINCR n\r\n").expect("+OK\r\n+QUEUED\r\n");
    demote(&redis);
    client.send("INCR n\r\n");
    is_lost(&proxy);
    promote(&redis);
    client.expect("+QUEUED\r\n");
    client.send("EXEC\r\n").expect("*2\r\n:1\r\n:2\r\n");
}

#[test]
fn what_a_server_refuses_that_was_a_replica_from_the_beginning_is_for_the_client() {
    let redis = Redis::start(&[]);
    demote(&redis);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    client.send("SET k v\r\nGET k\r\nPING\r\n");
    assert!(client.reply().starts_with("-READONLY "));
    client.expect("$-1\r\n+PONG\r\n");
    assert_eq!(client.run("GET k"), "nil");
    assert_eq!(proxy.metric("redis_proxy_uplink_outages_total"), 0.0);
}

#[test]
fn a_refusal_goes_down_where_something_was_executed_behind_it() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::start(&holding(&fake.addr(), LONG)));
    let mut client = proxy.client();
    client.send("INCR n\r\nINCR n\r\nGET n\r\n");
    let mut uplink = fake.accept();
    uplink.expect([request(&["INCR", "n"]), request(&["INCR", "n"])].concat());
    uplink.expect(request(&["GET", "n"]));
    // In parts, so that what it will be is not known at first.
    for part in ["-READ", "ONLY no\r", "\n:1", "\r\n$1\r\n1\r\n"] {
        uplink.send(part);
        proxy.has_heard();
    }
    client.expect("-READONLY no\r\n:1\r\n$1\r\n1\r\n");
    // One that only looks like a refusal, and one that the watch knows nothing of.
    client.send("GET n\r\n");
    uplink.expect(request(&["GET", "n"])).send("-READY or not\r\n");
    client.expect("-READY or not\r\n");
    client.send("GET n\r\n");
    uplink.expect(request(&["GET", "n"])).send("-LOADING is what a script says\r\n");
    client.expect("-LOADING is what a script says\r\n");
}

#[test]
fn a_client_whose_invalidations_go_elsewhere_is_closed_for_it_would_hear_of_none() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let (mut target, mut redirects) = (proxy.client(), proxy.client());
    let id = target.run("CLIENT ID");
    target.run("SUBSCRIBE __redis__:invalidate");
    assert_eq!(redirects.run(&format!("CLIENT TRACKING ON REDIRECT {id}")), "OK");
    redis.restart();
    redirects.expect_closed();
    assert_eq!(target.reply(), "[message, __redis__:invalidate, nil]");
}

#[test]
fn clients_whose_connections_are_all_closed_at_once_go_on() {
    let redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let (mut idle, mut subscribed, mut blocked) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(idle.run("SELECT 5"), "OK");
    subscribed.run("SUBSCRIBE news");
    blocked.send("BLPOP list 0\r\n");
    let mut direct = redis.client();
    eventually("it waits", || direct.run("INFO clients").contains("blocked_clients:1"));
    // As a Sentinel does at a promotion; its own connection is another one.
    assert_eq!(direct.run("MULTI"), "OK");
    direct.run("CLIENT KILL TYPE pubsub");
    direct.run("CLIENT KILL TYPE normal SKIPME yes");
    direct.run("EXEC");
    assert_eq!(idle.run("SET k v"), "OK");
    eventually("it is subscribed again", || direct.run("PUBLISH news hello") == "1");
    assert_eq!(subscribed.reply(), "[message, news, hello]");
    direct.run("RPUSH list one");
    assert_eq!(blocked.reply(), "[list, one]");
    direct.run("SELECT 5");
    assert_eq!(direct.run("GET k"), "v");
    assert_eq!(proxy.metric("redis_proxy_uplink_outages_total"), 0.0);
}
