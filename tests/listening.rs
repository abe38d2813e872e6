//! Clients that sent CLIENT MAINT_NOTIFICATIONS ON are told when they are held, and when that is over.

use serde_json::json;

use crate::common::{Client, FakeUplink, Proxy, Redis, config, redis, request};

/// As long as `config` lets a reload take.
const LONG: u64 = 50_000;
const ON: &str = "CLIENT MAINT_NOTIFICATIONS ON";

/// A proxy that holds clients for so many ms.
fn proxy(redis: &Redis, hold_ms: u64) -> Proxy {
    Proxy::start(&config(&redis.addr(), json!({ "hold_time_limit_ms": hold_ms })))
}

/// Has a client listen.
fn listens(client: &mut Client) {
    client.run("HELLO 3");
    assert_eq!(client.run(ON), "OK");
}

fn listener(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    listens(&mut client);
    client
}

fn expect_failing_over(client: &mut Client, number: u64, seconds: u64) {
    client.expect(format!(">3\r\n$12\r\nFAILING_OVER\r\n:{number}\r\n:{seconds}\r\n"));
}

fn expect_failed_over(client: &mut Client, number: u64) {
    client.expect(format!(">2\r\n$11\r\nFAILED_OVER\r\n:{number}\r\n"));
}

#[test]
fn a_client_that_listens_is_told_of_a_lost_uplink() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let (mut idle, mut waiting, mut blocked) =
        (listener(&proxy), listener(&proxy), listener(&proxy));
    let mut deaf = proxy.client();
    deaf.run("HELLO 3");
    assert_eq!(waiting.run("SET k v"), "OK");
    blocked.command(&["BLPOP", "l", "0"]);
    proxy.shows("active_requests", 1);
    redis.kill();
    for client in [&mut idle, &mut waiting, &mut blocked] {
        expect_failing_over(client, 1, 50);
    }
    waiting.command(&["GET", "k"]);
    proxy.shows("waiting_requests", 2);
    redis.restart();
    for client in [&mut idle, &mut blocked] {
        expect_failed_over(client, 2);
    }
    let mut heard = [waiting.reply(), waiting.reply()];
    heard.sort();
    assert_eq!(heard, [">[FAILED_OVER, 2]", "nil"]);
    assert_eq!(deaf.run("PING"), "PONG", "whoever does not listen hears nothing");
    idle.command(&["RPUSH", "l", "v"]);
    assert_eq!(idle.reply(), "1");
    assert_eq!(blocked.reply(), "[l, v]");
}

#[test]
fn a_client_that_asks_during_an_outage_is_told_at_once() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, LONG);
    let mut client = proxy.client();
    client.run("HELLO 3");
    redis.kill();
    proxy.shows("uplink_up", false);
    assert_eq!(client.run(ON), "OK");
    expect_failing_over(&mut client, 1, 50);
    assert_eq!(client.run(ON), "OK", "it is told once");
    client.command(&["CLIENT", "MAINT_NOTIFICATIONS", "OFF"]);
    expect_failed_over(&mut client, 1);
    assert_eq!(client.reply(), "OK");
    redis.restart();
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn a_client_that_listens_is_told_that_nobody_is_held_any_more() {
    let mut redis = Redis::start(&[]);
    let proxy = proxy(&redis, 1000);
    let mut client = listener(&proxy);
    redis.kill();
    expect_failing_over(&mut client, 1, 1);
    expect_failed_over(&mut client, 2);
    redis.restart();
    proxy.shows("uplink_up", true);
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn a_client_that_listens_is_told_of_a_reload_to_another_uplink() {
    let servers = [redis(), redis()];
    let to = |redis: &Redis| config(&redis.addr(), json!({ "pause_time_limit_ms": 2001 }));
    let proxy = Proxy::start(&to(&servers[0]));
    let mut client = listener(&proxy);
    let mut deaf = proxy.client();
    deaf.run("HELLO 3");
    for round in 0..3 {
        proxy.reload(&to(&servers[(round + 1) % 2])).expect_ok();
        let number = round as u64 * 2 + 1;
        expect_failing_over(&mut client, number, 3);
        expect_failed_over(&mut client, number + 1);
        assert_eq!(client.run("PING"), "PONG");
        assert_eq!(deaf.run("PING"), "PONG");
    }
    // The uplink is the same.
    proxy.reload(&config(&servers[1].addr(), json!({ "max_clients": 77 }))).expect_ok();
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn a_client_that_listens_is_told_of_a_switch() {
    let servers = [Redis::start(&[]), Redis::start(&[])];
    let proxy = Proxy::to(&servers[0].addr());
    let mut client = listener(&proxy);
    assert_eq!(client.run("SET k v"), "OK");
    assert_eq!(proxy.switch(&config(&servers[1].addr(), json!({})), "").status, 200);
    expect_failing_over(&mut client, 1, 50);
    expect_failed_over(&mut client, 2);
    assert_eq!(client.run("GET k"), "v");
}

#[test]
fn a_client_that_was_told_of_a_switch_is_told_when_that_is_rolled_back() {
    let servers = [redis(), redis()];
    for stage in ["paused", "catching up", "promoting"] {
        let place = format!("switch:{stage}");
        let environment = [("REDIS_PROXY_PANIC_AT", &place[..])];
        let proxy = Proxy::start_in(&environment, &config(&servers[0].addr(), json!({})));
        let mut client = listener(&proxy);
        assert_eq!(proxy.switch(&config(&servers[1].addr(), json!({})), "").status, 503);
        if stage != "paused" {
            expect_failing_over(&mut client, 1, 50);
            expect_failed_over(&mut client, 2);
        }
        assert_eq!(client.run("PING"), "PONG", "{stage}");
    }
}

#[test]
fn a_client_that_was_told_of_a_change_is_told_when_that_is_given_up() {
    let (first, second) = (FakeUplink::bind(), redis());
    let to = |addr: &str| config(addr, json!({ "pause_time_limit_ms": 100 }));
    let proxy = first.expect_start(|| Proxy::start(&to(&first.addr())));
    let mut client = proxy.client();
    client.command(&["HELLO", "3"]);
    let mut uplink = first.accept();
    uplink.expect(request(&["HELLO", "3"])).send("%1\r\n+proto\r\n:3\r\n");
    assert_eq!(client.reply(), "[proto, 3]");
    assert_eq!(client.run(ON), "OK");
    // It is never answered.
    client.command(&["GET", "k"]);
    uplink.expect(request(&["GET", "k"]));
    std::thread::scope(|scope| {
        scope.spawn(|| first.accept_side());
        let answer = proxy.reload(&to(&second.addr()));
        assert_eq!(answer.status, 503, "{}", answer.body);
    });
    expect_failing_over(&mut client, 1, 1);
    expect_failed_over(&mut client, 2);
    uplink.send("$1\r\nv\r\n");
    assert_eq!(client.reply(), "v");
}

#[test]
fn a_push_is_never_put_inside_a_reply() {
    let (first, second) = (FakeUplink::bind(), redis());
    let proxy = first.expect_start(|| Proxy::to(&first.addr()));
    let mut client = proxy.client();
    client.command(&["HELLO", "3"]);
    let mut uplink = first.accept();
    uplink.expect(request(&["HELLO", "3"])).send("%1\r\n+proto\r\n:3\r\n");
    assert_eq!(client.reply(), "[proto, 3]");
    assert_eq!(client.run(ON), "OK");
    client.command(&["MULTI"]).command(&["GET", "k"]).command(&["GET", "k"]).command(&["EXEC"]);
    uplink.expect([request(&["MULTI"]), request(&["GET", "k"]), request(&["GET", "k"])].concat());
    let begun = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\na\r\n";
    uplink.expect(request(&["EXEC"])).send(begun);
    client.expect(begun);
    // It holds up the reload for longer.
    let mut other = proxy.client();
    other.command(&["GET", "k"]);
    let mut others = first.accept();
    others.expect(request(&["GET", "k"]));
    std::thread::scope(|scope| {
        scope.spawn(|| first.accept_side());
        proxy.rewrite(&config(&second.addr(), json!({})));
        let mut reloading = proxy.begin_cmd("reload");
        proxy.shows("state_str", "pausing");
        for part in ["$6\r\nabc", "def\r\n"] {
            uplink.send(part);
            client.expect(part);
        }
        expect_failing_over(&mut client, 1, 50);
        others.send("_\r\n");
        assert_eq!(other.reply(), "nil");
        expect_failed_over(&mut client, 2);
        assert!(reloading.line().contains("200"));
    });
}

#[test]
fn only_a_client_that_can_hear_pushes_can_listen() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    let needs = "-ERR redis-proxy: CLIENT MAINT_NOTIFICATIONS ON needs RESP3 (HELLO 3)";
    assert_eq!(client.run(ON), needs);
    assert_eq!(client.run("CLIENT MAINT_NOTIFICATIONS OFF"), "OK");
    client.run("HELLO 3");
    assert_eq!(client.run(&format!("{ON} moving-endpoint-type external-ip")), "OK");
    assert_eq!(client.run("CLIENT MAINT_NOTIFICATIONS MAYBE"), "-ERR syntax error");
    let count = "-ERR wrong number of arguments for 'client|maint_notifications' command";
    assert_eq!(client.run("CLIENT MAINT_NOTIFICATIONS"), count);
    assert_eq!(client.run("MULTI"), "OK");
    let in_multi = "-ERR CLIENT MAINT_NOTIFICATIONS is not allowed inside a transaction";
    assert_eq!(client.run(ON), in_multi);
    assert!(client.run("EXEC").starts_with("-EXECABORT"));
}

#[test]
fn a_pipelined_handshake_is_answered_in_order() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("PING\r\nHELLO 3\r\nCLIENT MAINT_NOTIFICATIONS ON\r\nECHO x\r\n");
    assert_eq!(client.reply(), "PONG");
    assert!(client.reply().starts_with("[server, redis"));
    assert_eq!(client.reply(), "OK");
    assert_eq!(client.reply(), "x");
}

#[test]
fn a_client_stops_listening_with_reset_and_with_the_older_protocol() {
    let servers = [redis(), redis()];
    let proxy = Proxy::to(&servers[0].addr());
    let (mut reset, mut older) = (listener(&proxy), listener(&proxy));
    assert_eq!(reset.run("RESET"), "RESET");
    reset.run("HELLO 3");
    older.run("HELLO 2");
    older.run("HELLO 3");
    let mut listens = listener(&proxy);
    proxy.reload(&config(&servers[1].addr(), json!({}))).expect_ok();
    expect_failing_over(&mut listens, 1, 50);
    assert_eq!(reset.run("PING"), "PONG");
    assert_eq!(older.run("PING"), "PONG");
}

#[test]
fn the_uplinks_own_word_of_its_maintenance_is_logged_and_not_passed_on() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["HELLO", "3"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["HELLO", "3"])).send("%1\r\n+proto\r\n:3\r\n");
    assert_eq!(client.reply(), "[proto, 3]");
    client.command(&["GET", "k"]);
    uplink.expect(request(&["GET", "k"]));
    let message = ">2\r\n$10\r\ninvalidate\r\n_\r\n";
    let moving = ">4\r\n$6\r\nMOVING\r\n:1\r\n:15\r\n$14\r\n10.0.0.1:12000\r\n";
    for end in 1..moving.len() {
        uplink.send(message).send(&moving[..end]);
        client.expect(message);
        uplink.send(&moving[end..]);
    }
    uplink.send(">2\r\n+MIGRATED\r\n:2\r\n$1\r\nv\r\n");
    assert_eq!(client.reply(), "v");
    let heard = proxy.logged("the move", |it| it["kind"] == "MOVING");
    assert_eq!(heard["level"], "WARN");
}

#[test]
fn the_watch_hears_of_the_uplinks_maintenance() {
    let fake = FakeUplink::bind();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let mut watch = fake.accept();
            while let Some(asked) = watch.try_request() {
                let listens = asked.get(1).is_some_and(|sub| sub == "MAINT_NOTIFICATIONS");
                let answer = match &asked[0][..] {
                    "PING" => "+PONG\r\n",
                    _ if listens => "+OK\r\n>4\r\n$6\r\nMOVING\r\n:1\r\n:15\r\n_\r\n",
                    _ => ":0\r\n",
                };
                if watch.try_send(answer.as_bytes()).is_err() {
                    break;
                }
            }
        });
        let proxy = Proxy::to(&fake.addr());
        proxy.logged("the move", |it| it["kind"] == "MOVING");
        drop(proxy);
        serving.join().unwrap();
    });
}
