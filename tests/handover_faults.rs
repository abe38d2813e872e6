//! A handover that goes wrong: everything stays as it was, or that one client is closed; and
//! nobody's data goes to the wrong place.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Answer, Client, FakeUplink, Proxy, Redis, config, eventually, redis, request};

fn to(redis: &Redis) -> Value {
    config(&redis.addr(), json!({}))
}

/// With a user of these rights.
fn as_user(redis: &Redis, rights: &str, more: Value) -> Value {
    let mut client = redis.client();
    assert_eq!(client.run(&format!("ACL SETUSER proxy on >pw ~* &* +@all {rights}")), "OK");
    let mut config = config("", more);
    config["uplink"] = json!({ "addr": redis.addr(), "user": "proxy", "pass": "pw" });
    config
}

fn hello3(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    assert!(client.run("HELLO 3").starts_with("[server"));
    client
}

#[test]
fn a_transaction_too_large_to_be_carried_is_waited_for_while_it_is_sent() {
    let (fake, two) = (FakeUplink::bind(), redis());
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let (multi, exec) = (request(&["MULTI"]), request(&["EXEC"]));
    let append = request(&["APPEND", "k", &"x".repeat(300_000)]);
    let mut client = proxy.client();
    client.send(&multi);
    let mut uplink = fake.accept();
    uplink.expect(&multi).send("+OK\r\n");
    client.expect("+OK\r\n");
    for _ in 0..4 {
        client.send(&append);
        uplink.expect(&append);
    }
    proxy.rewrite(&to(&two));
    let mut caller = proxy.begin_cmd("reload");
    fake.accept_side();
    proxy.shows("state", 3);
    client.send(&exec);
    uplink.expect(&exec).send("+QUEUED\r\n".repeat(4) + "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n");
    client.expect("+QUEUED\r\n".repeat(4) + "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n");
    Answer::read(&mut caller).expect_ok();
    // The next one is as small as any.
    let one = redis();
    assert_eq!(client.run("MULTI"), "OK");
    assert_eq!(client.run("INCR n"), "QUEUED");
    proxy.reload(&to(&one)).expect_ok();
    assert_eq!(client.run("EXEC"), "[1]");
}

#[test]
fn a_transaction_too_large_to_be_carried_holds_up_nobody_when_its_client_sends_no_more() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let (mut client, mut other) = (proxy.client(), proxy.client());
    let value = "x".repeat(300_000);
    let fill = |client: &mut Client| {
        assert_eq!(client.run("MULTI"), "OK");
        for _ in 0..4 {
            assert_eq!(client.command(&["APPEND", "k", &value]).reply(), "QUEUED");
        }
    };
    fill(&mut client);
    assert_eq!(other.run("PING"), "PONG");
    // A pause has it wait, as everybody.
    proxy.cmd("pause&wait=true").expect_ok();
    client.command(&["EXEC"]);
    proxy.cmd("unpause").expect_ok();
    assert_eq!(client.reply(), "[300000, 600000, 900000, 1200000]");
    fill(&mut client);
    proxy.reload(&to(&two)).expect_ok();
    client.expect_closed();
    let closed = proxy.info()["reloads"][0]["closed"][0].clone();
    assert_eq!(closed["reason"], "a transaction that is too large to be carried", "{closed}");
    assert_eq!(other.run("EXISTS k"), "0");
    assert_eq!(one.client().run("STRLEN k"), "1200000", "nothing was executed");
}

#[test]
fn without_the_right_to_unblock_commands_that_wait_are_waited_for() {
    let (one, two) = (redis(), redis());
    let rights = "-client|unblock -client|list";
    let limit = |ms: u64| json!({ "pause_time_limit_ms": ms });
    let proxy = Proxy::start(&as_user(&one, rights, limit(300)));
    let warned = |line: &Value| {
        line["level"] == "WARN"
            && line["message"].as_str().is_some_and(|text| text.contains("CLIENT UNBLOCK"))
    };
    proxy.logged("that it is so", warned);
    let mut blocked = proxy.client();
    blocked.command(&["BLPOP", "queue", "0"]);
    // Asked in another way, where it can be.
    let (mut clean, mut dirty, mut inside) = (proxy.client(), proxy.client(), proxy.client());
    for client in [&mut clean, &mut dirty, &mut inside] {
        assert_eq!(client.run("WATCH k"), "OK");
    }
    assert_eq!(inside.run("MULTI"), "OK");
    proxy.shows("active_requests", 1);
    let next = as_user(&two, rights, limit(20_000));
    let answer = proxy.reload(&next);
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("BLPOP of"), "{answer:?}");
    assert_eq!(one.client().run("RPUSH queue v"), "1");
    assert_eq!(blocked.reply(), "[queue, v]");
    assert_eq!(dirty.run("UNWATCH"), "OK");
    assert_eq!(dirty.run("WATCH l"), "OK");
    assert_eq!(one.client().run("SET l 1"), "OK");
    proxy.reload(&as_user(&one, rights, limit(20_000))).expect_ok();
    proxy.reload(&next).expect_ok();
    let exec = |client: &mut Client| {
        assert_eq!(client.run("MULTI"), "OK");
        assert_eq!(client.run("INCR n"), "QUEUED");
        client.run("EXEC")
    };
    assert_eq!(exec(&mut clean), "[1]");
    assert_eq!(exec(&mut dirty), "nil");
    // Nobody could be asked: never an EXEC that should have failed.
    assert_eq!(inside.run("EXEC"), "nil");
    assert_eq!(inside.run("PING"), "PONG");
}

#[test]
fn without_a_channel_of_its_own_subscriptions_are_carried_all_the_same() {
    for resp3 in [false, true] {
        let (one, two) = (redis(), redis());
        let rights = "resetchannels &news -ssubscribe";
        let proxy = Proxy::start(&as_user(&one, rights, json!({})));
        let mut client = if resp3 { hello3(&proxy) } else { proxy.client() };
        client.run("SUBSCRIBE news");
        let push = if resp3 { ">" } else { "" };
        let mut publisher = one.client();
        for number in 0..5 {
            publisher.run(&format!("PUBLISH news {number}"));
        }
        proxy.reload(&as_user(&two, rights, json!({}))).expect_ok();
        for number in 0..5 {
            assert_eq!(client.reply(), format!("{push}[message, news, {number}]"));
        }
        assert_eq!(two.client().run("PUBLISH news after"), "1");
        assert_eq!(client.reply(), format!("{push}[message, news, after]"));
        client.run("UNSUBSCRIBE");
        assert_eq!(client.run("PING"), "PONG");
    }
}

#[test]
fn what_the_new_uplink_refuses_to_all_refuses_the_reload_and_everything_goes_on() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let (mut transaction, mut watching) = (proxy.client(), proxy.client());
    let (mut silent, mut subscriber) = (proxy.client(), proxy.client());
    let mut waiting = proxy.client();
    assert_eq!(transaction.run("MULTI"), "OK");
    assert_eq!(transaction.run("INCR n"), "QUEUED");
    assert_eq!(watching.run("WATCH k"), "OK");
    silent.command(&["CLIENT", "REPLY", "OFF"]).command(&["SET", "s", "1"]);
    subscriber.run("SUBSCRIBE news");
    waiting.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 1);
    eventually("it is silent", || proxy.info()["carrying"]["silent"] == 1);
    for _ in 0..3 {
        let answer = proxy.reload(&as_user(&two, "-incr", json!({})));
        assert_eq!(answer.status, 400);
        let named = format!("for client 127.0.0.1:{}", transaction.port);
        let error = answer.error();
        assert!(error.contains(&named) && error.contains("NOPERM"), "{error}");
    }
    assert_eq!(transaction.run("EXEC"), "[1]");
    assert_eq!(watching.run("MULTI"), "OK");
    assert_eq!(watching.run("EXEC"), "[]", "still watched, and not touched");
    silent.command(&["PING"]).command(&["CLIENT", "REPLY", "ON"]);
    assert_eq!(silent.reply(), "OK", "silent it was");
    let mut direct = one.client();
    assert_eq!(direct.run("PUBLISH news 1"), "1");
    assert_eq!(subscriber.reply(), "[message, news, 1]");
    assert_eq!(direct.run("RPUSH queue v"), "1");
    assert_eq!(waiting.reply(), "[queue, v]");
    assert_eq!(direct.run("PUBSUB SHARDCHANNELS"), "[]");
    assert_eq!(two.client().run("DBSIZE"), "0");
    // Once that is over, so is the refusal.
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(watching.run("PING"), "PONG");
}

#[test]
fn what_the_new_uplink_does_not_take_costs_that_client_alone() {
    // What is told while clients are served, what is told last, and what is queued.
    let without =
        |command| ["--rename-command", command, "", "--rename-command", "INCRBYFLOAT", ""];
    for (command, reply) in [("CLIENT", "OK"), ("MONITOR", "OK")] {
        let (one, two) = (redis(), Redis::start(&without(command)));
        let proxy = Proxy::start(&to(&one));
        let (mut plain, mut transaction) = (proxy.client(), proxy.client());
        let (mut odd, mut queued) = (proxy.client(), proxy.client());
        let request = if command == "CLIENT" { "CLIENT SETNAME me" } else { command };
        assert_eq!(odd.run(request), reply);
        assert_eq!(queued.run("MULTI"), "OK");
        assert_eq!(queued.run("INCRBYFLOAT f 0.5"), "QUEUED");
        assert_eq!(transaction.run("MULTI"), "OK");
        assert_eq!(transaction.run("INCR n"), "QUEUED");
        assert_eq!(plain.run("PING"), "PONG");
        proxy.rewrite(&to(&two));
        let predicted = proxy.cmd("reload&dry_run=true").json()["prediction"].clone();
        assert_eq!(predicted["closed"].as_array().map(Vec::len), Some(2), "{predicted}");
        assert_eq!(predicted["moved"], 2);
        proxy.cmd("reload").expect_ok();
        if command == "CLIENT" {
            odd.expect_closed();
        } else {
            // What it was told so far, and no more.
            odd.rest();
        }
        queued.expect_closed();
        assert_eq!(transaction.run("EXEC"), "[1]");
        assert_eq!(plain.run("INCR n"), "2");
        assert_eq!(two.client().run("GET n"), "2");
        let reload = &proxy.info()["reloads"][0];
        let names = [&odd, &queued].map(|it| format!("127.0.0.1:{}", it.port));
        assert_eq!(reload["sessions_closed"], 2, "{reload}");
        for closed in reload["closed"].as_array().expect("a list") {
            assert!(names.iter().any(|name| closed["client"] == name.as_str()), "{reload}");
            assert_eq!(closed["reason"], "what the new uplink does not take");
        }
        proxy.logged("the new uplink does not take this client", |line| {
            line["client"] == names[1].as_str()
        });
    }
}

#[test]
fn an_uplink_with_fewer_databases_or_rights_refuses_the_reload_without_force() {
    let (one, few) = (redis(), Redis::start(&["--databases", "2"]));
    let strict = redis();
    for (target, odd) in [
        (to(&few), "SELECT 9"),
        (as_user(&strict, "resetchannels &other", json!({})), "SUBSCRIBE news"),
    ] {
        let proxy = Proxy::start(&to(&one));
        let (mut plain, mut client) = (proxy.client(), proxy.client());
        assert_eq!(plain.run("PING"), "PONG");
        assert!(!client.run(odd).is_empty());
        proxy.rewrite(&target);
        assert_eq!(proxy.cmd("reload&dry_run=true").status, 400);
        let forced = proxy.cmd("reload&dry_run=true&force=true").json()["prediction"].clone();
        assert_eq!(forced["closed"].as_array().map(Vec::len), Some(1), "{forced}");
        let answer = proxy.cmd("reload");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.error().contains("for all clients"), "{answer:?}");
        assert!(client.run("PING").to_uppercase().contains("PONG"));
        assert_eq!(proxy.cmd("reload&force=true").status, 200);
        client.expect_closed();
        assert_eq!(plain.run("PING"), "PONG");
        assert_eq!(proxy.info()["reloads"][0]["sessions_closed"], 1);
    }
}

#[test]
fn a_new_uplink_that_dies_in_the_middle_of_a_handover_refuses_the_reload() {
    let (one, fake) = (redis(), FakeUplink::bind());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    assert_eq!(client.run("WATCH k"), "OK");
    assert_eq!(client.run("MULTI"), "OK");
    assert_eq!(client.run("INCR n"), "QUEUED");
    proxy.rewrite(&config(&fake.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    let ping = request(&["PING"]);
    fake.accept_reload();
    let mut next = fake.accept();
    next.expect(&ping).send("+PONG\r\n");
    fake.accept().expect(&ping).send("+PONG\r\n").expect_closed();
    // The gate is shut now.
    next.expect(request(&["WATCH", "k"])).send("+OK\r\n");
    drop(next);
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.error().contains("could not hand over"), "{answer:?}");
    assert_eq!(client.run("INCR n"), "QUEUED");
    assert_eq!(client.run("EXEC"), "[1, 2]");
}

#[test]
fn the_old_uplink_may_die_during_a_pause_whatever_its_clients_carry() {
    let (mut one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let (mut transaction, mut watching) = (proxy.client(), proxy.client());
    let (mut subscriber, mut plain) = (hello3(&proxy), proxy.client());
    assert_eq!(transaction.run("MULTI"), "OK");
    assert_eq!(transaction.run("INCR n"), "QUEUED");
    assert_eq!(watching.run("WATCH k"), "OK");
    subscriber.run("SUBSCRIBE news");
    assert_eq!(plain.run("SELECT 4"), "OK");
    proxy.cmd("pause&wait=true").expect_ok();
    one.kill();
    proxy.reload(&to(&two)).expect_ok();
    proxy.cmd("unpause").expect_ok();
    assert_eq!(transaction.run("EXEC"), "[1]");
    assert_eq!(watching.run("MULTI"), "OK");
    assert_eq!(watching.run("EXEC"), "nil", "nobody can say whether it was touched");
    let mut direct = two.client();
    eventually("it is subscribed", || direct.run("PUBLISH news 1") == "1");
    assert_eq!(subscriber.reply(), ">[message, news, 1]");
    assert!(plain.run("CLIENT INFO").contains(" db=4 "));
    assert_eq!(proxy.info()["reloads"][0]["sessions_closed"], 0);
}

#[test]
fn the_old_uplink_may_die_while_running_requests_are_waited_for() {
    let (mut one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let (mut transaction, mut watching) = (proxy.client(), proxy.client());
    let (mut subscriber, mut silent) = (hello3(&proxy), proxy.client());
    let (mut blocked, mut running) = (proxy.client(), proxy.client());
    assert_eq!(transaction.run("SELECT 3"), "OK");
    assert_eq!(transaction.run("MULTI"), "OK");
    assert_eq!(transaction.run("INCR n"), "QUEUED");
    assert_eq!(watching.run("WATCH k"), "OK");
    subscriber.run("SUBSCRIBE news");
    silent.command(&["CLIENT", "REPLY", "OFF"]);
    blocked.command(&["BLPOP", "queue", "0"]);
    running.command(&["WAIT", "1", "0"]);
    proxy.shows("active_requests", 2);
    eventually("it is silent", || proxy.info()["carrying"]["silent"] == 1);
    proxy.rewrite(&to(&two));
    let mut caller = proxy.begin_cmd("reload");
    // The one that can be interrupted was.
    proxy.shows("active_requests", 1);
    one.kill();
    running.expect_closed();
    Answer::read(&mut caller).expect_ok();
    assert_eq!(transaction.run("EXEC"), "[1]");
    assert_eq!(watching.run("MULTI"), "OK");
    assert_eq!(watching.run("EXEC"), "nil");
    let mut direct = two.client();
    assert_eq!(direct.run("RPUSH queue v"), "1");
    assert_eq!(blocked.reply(), "[queue, v]");
    eventually("it is subscribed", || direct.run("PUBLISH news 1") == "1");
    assert_eq!(subscriber.reply(), ">[message, news, 1]");
    silent.command(&["SET", "s", "1"]).command(&["CLIENT", "REPLY", "ON"]);
    assert_eq!(silent.reply(), "OK");
    assert_eq!(direct.run("EXISTS s"), "1");
}

/// An old uplink of which the test plays a blocked client's connection and the reload's own.
struct Slow {
    proxy: Proxy,
    client: Client,
    uplink: Client,
    side: Client,
    caller: Client,
    _fake: FakeUplink,
    two: Redis,
}

impl Slow {
    /// Up to where the reload has asked for the command to be interrupted.
    fn new(limit: u64) -> Slow {
        let (fake, two) = (FakeUplink::bind(), redis());
        let more = json!({ "pause_time_limit_ms": limit });
        let proxy = fake.expect_start(|| Proxy::start(&config(&fake.addr(), more.clone())));
        let mut client = proxy.client();
        client.command(&["BLPOP", "queue", "0"]);
        let mut uplink = fake.accept();
        uplink.expect(request(&["BLPOP", "queue", "0"]));
        proxy.rewrite(&config(&two.addr(), more));
        let caller = proxy.begin_cmd("reload");
        let mut side = fake.accept();
        until_interruption(&mut side);
        Slow { proxy, client, uplink, side, caller, _fake: fake, two }
    }
}

/// Plays the connection of a reload's own, until that asks for a command to be interrupted. Everything
/// is allowed but a channel, and this is nobody's replica.
fn until_interruption(side: &mut Client) {
    loop {
        let asked = side.try_request().expect("it is interrupted before it is given up");
        let words: Vec<&str> = asked.iter().map(String::as_str).collect();
        match words[..] {
            ["HELLO", ..] => side.send("*0\r\n"),
            ["CLIENT", "UNBLOCK", "0", _] => side.send(":0\r\n"),
            ["CLIENT", "LIST", ..] => side.send("$0\r\n\r\n"),
            ["CLIENT", "UNBLOCK", "7", "ERROR"] => return,
            _ => side.send("-NOPERM\r\n"),
        };
    }
}

const UNBLOCKED: &str = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

#[test]
fn an_interrupted_command_is_asked_again_whichever_answer_comes_first() {
    for side_first in [false, true] {
        let mut slow = Slow::new(20_000);
        if side_first {
            slow.side.send(":1\r\n");
            slow.uplink.send(UNBLOCKED);
        } else {
            // In two pieces, too.
            slow.uplink.send(&UNBLOCKED[..20]).send(&UNBLOCKED[20..]);
            slow.side.send(":1\r\n");
        }
        Answer::read(&mut slow.caller).expect_ok();
        slow.proxy.shows("active_requests", 1);
        assert_eq!(slow.two.client().run("RPUSH queue v"), "1");
        assert_eq!(slow.client.reply(), "[queue, v]");
    }
}

#[test]
fn data_that_comes_when_the_command_is_interrupted_is_delivered_once() {
    let mut slow = Slow::new(20_000);
    slow.uplink.send("*2\r\n$5\r\nqueue\r\n$1\r\nv\r\n");
    slow.side.send(":0\r\n");
    assert_eq!(slow.client.reply(), "[queue, v]");
    Answer::read(&mut slow.caller).expect_ok();
    assert_eq!(slow.client.run("LLEN queue"), "0");
    assert_eq!(slow.two.client().run("RPUSH queue w"), "1");
    assert_eq!(slow.client.run("LPOP queue"), "w");
}

#[test]
fn an_interruption_by_another_client_at_that_moment_is_told_to_the_client() {
    let mut slow = Slow::new(20_000);
    slow.uplink.send(UNBLOCKED);
    slow.side.send(":0\r\n");
    assert_eq!(format!("{}\r\n", slow.client.reply()), UNBLOCKED);
    Answer::read(&mut slow.caller).expect_ok();
    assert_eq!(slow.client.run("PING"), "PONG");
}

#[test]
fn an_uplink_that_does_not_answer_the_reload_cancels_it_in_time_and_is_gone_on_with() {
    let mut slow = Slow::new(6000);
    let answer = Answer::read(&mut slow.caller);
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("BLPOP of"), "{answer:?}");
    // It is interrupted after all, when nobody needs it any more.
    slow.uplink.send(UNBLOCKED).expect(request(&["BLPOP", "queue", "0"]));
    slow.uplink.send("*2\r\n$5\r\nqueue\r\n$1\r\nv\r\n");
    assert_eq!(slow.client.reply(), "[queue, v]");
}

#[test]
fn the_time_of_a_command_goes_on_while_it_is_held_at_the_gate() {
    let (fake, two) = (FakeUplink::bind(), redis());
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let (mut popping, mut running) = (proxy.client(), proxy.client());
    let begun = Instant::now();
    popping.command(&["BLPOP", "queue", "0.3"]);
    let mut pops = fake.accept();
    pops.expect(request(&["BLPOP", "queue", "0.3"]));
    // This one holds the reload up.
    running.command(&["GET", "k"]);
    let mut gets = fake.accept();
    gets.expect(request(&["GET", "k"]));
    proxy.rewrite(&to(&two));
    let mut caller = proxy.begin_cmd("reload");
    let mut side = fake.accept();
    until_interruption(&mut side);
    pops.send(UNBLOCKED);
    side.send(":1\r\n");
    // And then an operator goes on with that.
    proxy.cmd("pause").expect_ok();
    gets.send("$-1\r\n");
    assert_eq!(running.reply(), "nil");
    Answer::read(&mut caller).expect_ok();
    assert_eq!(popping.reply(), "nil");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(proxy.info()["state_str"], "paused");
    proxy.cmd("unpause").expect_ok();
    assert_eq!(popping.run("PING"), "PONG");
    assert!(!two.client().run("INFO commandstats").contains("cmdstat_blpop"), "its time is over");
}

#[test]
fn a_client_that_hangs_up_while_its_command_is_between_two_uplinks_takes_nothing() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    client.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 1);
    proxy.cmd("pause").expect_ok();
    proxy.reload(&to(&two)).expect_ok();
    proxy.shows("waiting_requests", 1);
    drop(client);
    proxy.shows("clients", 0);
    proxy.cmd("unpause").expect_ok();
    assert_eq!(two.client().run("RPUSH queue v"), "1");
    assert_eq!(two.client().run("LLEN queue"), "1");
}

#[test]
fn what_cannot_be_carried_closes_that_client_with_a_reason() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = hello3(&proxy);
    // More prefixes than are tracked again while everybody waits.
    let prefixes: Vec<String> = (0..1100).map(|number| format!("PREFIX p{number:04}")).collect();
    assert_eq!(client.run(&format!("CLIENT TRACKING ON BCAST {}", prefixes.join(" "))), "OK");
    let mut plain = proxy.client();
    assert_eq!(plain.run("PING"), "PONG");
    proxy.rewrite(&to(&two));
    let prediction = &proxy.cmd("reload&dry_run=true").json()["prediction"];
    let reason = "more prefixes to track than are remembered";
    let closed = json!([{ "client": format!("127.0.0.1:{}", client.port), "reason": reason }]);
    assert_eq!(prediction["closed"], closed);
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(client.rest(), "");
    let reload = &proxy.info()["reloads"][0];
    assert_eq!((&reload["closed"], &reload["sessions_closed"]), (&closed, &json!(1)));
    proxy.closed(reason);
    assert_eq!(plain.run("PING"), "PONG");
}

#[test]
fn a_transaction_in_silence_is_carried_over() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    client.command(&["CLIENT", "REPLY", "OFF"]).command(&["MULTI"]).command(&["INCR", "n"]);
    eventually("it is open", || proxy.info()["carrying"]["transactions"] == 1);
    proxy.reload(&to(&two)).expect_ok();
    client.command(&["EXEC"]).command(&["CLIENT", "REPLY", "ON"]);
    assert_eq!(client.reply(), "OK");
    assert_eq!(two.client().run("GET n"), "1");
}

#[test]
fn a_replica_without_its_master_is_refused_before_anybody_waits() {
    let (one, two, three) = (redis(), redis(), redis());
    let elsewhere = three.addr().replace(':', " ");
    drop(three);
    let proxy = Proxy::start(&to(&one));
    assert_eq!(proxy.client().run("PING"), "PONG");
    // One that never had its master's data, and one that had.
    for had in [false, true] {
        if had {
            two.follow(&one);
        }
        two.client().run(&format!("REPLICAOF {elsewhere}"));
        let answer = proxy.reload(&to(&two));
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains("its link to its master is not up"), "{answer:?}");
    }
    two.client().run("REPLICAOF NO ONE");
    proxy.reload(&to(&two)).expect_ok();
}

#[test]
fn a_large_transaction_without_replies_holds_nothing_up_once_it_is_sent() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    client.command(&["CLIENT", "REPLY", "OFF"]).command(&["MULTI"]);
    let value = "x".repeat(300_000);
    for _ in 0..5 {
        client.command(&["APPEND", "k", &value]);
    }
    client.command(&["EXEC"]);
    eventually("it is executed", || one.client().run("STRLEN k") == "1500000");
    proxy.shows("active_requests", 0);
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(proxy.info()["reloads"][0]["sessions_closed"], 0);
}

#[test]
fn a_request_whose_reply_is_skipped_is_answered_before_the_switch() {
    let (old, two) = (FakeUplink::bind(), redis());
    let proxy = old.expect_start(|| Proxy::start(&config(&old.addr(), json!({}))));
    let mut client = proxy.client();
    client.command(&["CLIENT", "REPLY", "SKIP"]).command(&["SET", "k", "v"]);
    let mut uplink = old.accept();
    // The uplink is asked whether the client may have that, and goes on to answer.
    uplink.expect(request(&["CLIENT", "REPLY", "ON"])).send("+OK\r\n");
    uplink.expect(request(&["SET", "k", "v"]));
    proxy.shows("active_requests", 1);
    proxy.rewrite(&to(&two));
    let mut caller = proxy.begin_cmd("reload");
    old.accept_side();
    assert_eq!(proxy.info()["generation"], 1);
    uplink.send("+OK\r\n");
    Answer::read(&mut caller).expect_ok();
    assert_eq!(client.run("PING"), "PONG");
}

#[test]
fn a_database_that_a_transaction_chooses_must_be_there() {
    let (one, two) = (redis(), Redis::start(&["--databases", "2"]));
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    assert_eq!(client.run("MULTI"), "OK");
    assert_eq!(client.run("SELECT 9"), "QUEUED");
    assert_eq!(client.run("SET secret 9"), "QUEUED");
    proxy.reload(&to(&two)).expect_ok();
    client.expect_closed();
    assert_eq!(two.client().run("EXISTS secret"), "0", "not in another database");
}

#[test]
fn a_database_that_a_transaction_chooses_in_vain_is_chosen_in_vain_after_a_handover() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    assert_eq!(client.run("MULTI"), "OK");
    assert_eq!(client.run("SELECT 99"), "QUEUED");
    assert_eq!(client.run("SET k 1"), "QUEUED");
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(client.run("EXEC"), "[-ERR DB index is out of range, OK]");
    assert_eq!(two.client().run("GET k"), "1");
}

#[test]
fn a_subscriber_that_does_not_read_what_the_old_uplink_said_is_closed_with_a_reason() {
    let (one, two) = (redis(), redis());
    let limit = |redis: &Redis| config(&redis.addr(), json!({ "pause_time_limit_ms": 6000 }));
    let proxy = Proxy::start(&limit(&one));
    let mut client = hello3(&proxy);
    client.run("SUBSCRIBE news");
    let (mut publisher, message) = (one.client(), "x".repeat(1 << 20));
    for _ in 0..24 {
        publisher.command(&["PUBLISH", "news", &message]).reply();
    }
    proxy.reload(&limit(&two)).expect_ok();
    let reload = &proxy.info()["reloads"][0];
    assert_eq!(reload["closed"][0]["reason"], "messages that were not read in time");
    drop(client);
    proxy.shows("clients", 0);
}

#[test]
fn a_cache_is_dropped_when_the_same_uplink_comes_back_after_a_pause() {
    let mut one = redis();
    let proxy = Proxy::start(&to(&one));
    let mut client = hello3(&proxy);
    let id = client.run("CLIENT ID");
    assert_eq!(client.run("CLIENT TRACKING on"), "OK");
    assert_eq!(client.run("GET k"), "nil");
    proxy.cmd("pause&wait=true").expect_ok();
    one.restart();
    proxy.cmd("unpause").expect_ok();
    assert_eq!(client.reply(), ">[invalidate, nil]");
    assert_eq!(client.run("GET k"), "nil");
    assert_eq!(one.client().run("SET k v"), "OK");
    assert_eq!(client.reply(), ">[invalidate, [k]]");
    for _ in 0..3 {
        one.client().run("PING");
    }
    assert_eq!(client.run("CLIENT ID"), id);
}

#[test]
fn the_time_limit_of_a_command_that_waits_goes_on_after_a_switch() {
    let (one, two) = (redis(), redis());
    let limit = |redis: &Redis| config(&redis.addr(), json!({ "blocking_time_limit_ms": 3000 }));
    let proxy = Proxy::start(&limit(&one));
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    let begun = Instant::now();
    client.command(&["BLPOP", "queue", "0"]);
    let (mut servers, mut moved) = ([&two, &one].into_iter().cycle(), 0);
    // If the limit began anew with each of them, this would not come to an end.
    eventually("the limit is reached", || {
        proxy.reload(&limit(servers.next().unwrap())).expect_ok();
        let info = proxy.info();
        moved += info["reloads"][0]["handed_over"]["blocked"].as_u64().unwrap();
        info["clients"] == 0
    });
    assert_eq!(client.rest(), "-ERR redis-proxy: time limit of 3000 ms exceeded\r\n");
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert!(moved > 0, "it was never moved");
}

#[test]
fn from_an_uplink_that_is_gone_without_a_word_everybody_is_moved() {
    let (old, two) = (FakeUplink::bind(), redis());
    let proxy = old.expect_start(|| Proxy::start(&config(&old.addr(), json!({}))));
    let (mut watching, mut subscriber, mut silent) =
        (proxy.client(), proxy.client(), proxy.client());
    let mut uplinks = Vec::new();
    let mut say = |client: &mut Client, command: &[&str], reply: &str| {
        client.command(command);
        let mut uplink = old.accept();
        uplink.expect(request(command)).send(reply);
        client.expect(reply);
        uplinks.push(uplink);
    };
    say(&mut watching, &["WATCH", "k"], "+OK\r\n");
    let confirmed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    say(&mut subscriber, &["SUBSCRIBE", "news"], confirmed);
    silent.command(&["CLIENT", "REPLY", "OFF"]);
    let mut uplink = old.accept();
    uplink.expect(request(&["CLIENT", "REPLY", "ON"])).send("+OK\r\n");
    eventually("it is silent", || proxy.info()["carrying"]["silent"] == 1);
    // Nobody listens there any more, and what is connected says nothing.
    drop(old);
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(proxy.info()["reloads"][0]["sessions_closed"], 0);
    assert_eq!(watching.run("MULTI"), "OK");
    assert_eq!(watching.run("EXEC"), "nil");
    assert_eq!(two.client().run("PUBLISH news 1"), "1");
    assert_eq!(subscriber.reply(), "[message, news, 1]");
    silent.command(&["SET", "s", "1"]).command(&["CLIENT", "REPLY", "ON"]);
    assert_eq!(silent.reply(), "OK");
    drop((uplinks, uplink));
}

#[test]
fn the_mark_is_not_published_before_every_subscriber_can_hear_it() {
    let (old, two) = (FakeUplink::bind(), redis());
    let proxy = old.expect_start(|| Proxy::start(&config(&old.addr(), json!({}))));
    let mut client = proxy.client();
    client.command(&["SUBSCRIBE", "news"]);
    let mut uplink = old.accept();
    let confirmed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    uplink.expect(request(&["SUBSCRIBE", "news"])).send(confirmed);
    client.expect(confirmed);
    proxy.rewrite(&to(&two));
    let mut caller = proxy.begin_cmd("reload");
    let may_come = std::sync::atomic::AtomicBool::new(false);
    let mut side = old.accept();
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            // Up to the mark.
            loop {
                let asked = side.try_request().unwrap();
                let words: Vec<&str> = asked.iter().map(String::as_str).collect();
                match words[..] {
                    ["SSUBSCRIBE", channel] => {
                        let len = channel.len();
                        let name = ">3\r\n$10\r\nssubscribe\r\n";
                        side.send(format!("{name}${len}\r\n{channel}\r\n:1\r\n"));
                    }
                    ["SUNSUBSCRIBE", channel] => {
                        let len = channel.len();
                        let name = ">3\r\n$12\r\nsunsubscribe\r\n";
                        side.send(format!("{name}${len}\r\n{channel}\r\n:0\r\n"));
                    }
                    ["SPUBLISH", channel, said] if !said.is_empty() => {
                        assert!(may_come.load(std::sync::atomic::Ordering::SeqCst));
                        side.send(":1\r\n");
                        return (channel.to_owned(), said.to_owned());
                    }
                    ["SPUBLISH", ..] | ["CLIENT", "UNBLOCK", ..] => drop(side.send(":0\r\n")),
                    _ => drop(side.send("-NOPERM\r\n")),
                }
            }
        });
        let asked = uplink.try_request().unwrap();
        assert_eq!(asked[0], "SSUBSCRIBE");
        proxy.shows("state", 4);
        may_come.store(true, std::sync::atomic::Ordering::SeqCst);
        let frame = |name: &str, last: &str| {
            format!("*3\r\n{name}${}\r\n{}\r\n{last}\r\n", asked[1].len(), asked[1])
        };
        uplink.send(frame("$10\r\nssubscribe\r\n", ":1"));
        let (channel, secret) = publishing.join().unwrap();
        assert_eq!(channel, asked[1]);
        // What comes before the mark is from here.
        uplink.send("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$4\r\nlast\r\n");
        let last = format!("${}\r\n{secret}", secret.len());
        uplink.send(frame("$8\r\nsmessage\r\n", &last));
        Answer::read(&mut caller).expect_ok();
    });
    assert_eq!(client.reply(), "[message, news, last]");
    assert_eq!(two.client().run("PUBLISH news first"), "1");
    assert_eq!(client.reply(), "[message, news, first]");
}

#[test]
fn a_transaction_that_will_be_aborted_is_carried_whatever_aborted_it() {
    for (rights, requests) in [
        ("-discard", &["MULTI", "INCR n", "DISCARD"][..]),
        ("-select", &["MULTI", "SELECT 1", "INCR n"]),
        ("-get", &["MULTI", "INCR n", "GET n"]),
    ] {
        let (one, two) = (redis(), redis());
        let proxy = Proxy::start(&as_user(&one, rights, json!({})));
        let mut client = proxy.client();
        requests.iter().for_each(|request| drop(client.run(request)));
        proxy.reload(&as_user(&two, rights, json!({}))).expect_ok();
        assert_eq!(client.run("INCR n"), "QUEUED", "{rights}");
        let (one, two) = (one.client().run("GET n"), two.client().run("GET n"));
        assert_eq!((one.as_str(), two.as_str()), ("nil", "nil"));
        assert_eq!(proxy.info()["reloads"][0]["sessions_closed"], 0);
    }
}

#[test]
fn a_client_that_watches_and_may_not_use_multi_or_exec_stays() {
    for lacks in ["-multi", "-exec"] {
        let (one, two) = (redis(), redis());
        // Without CLIENT LIST, each session asks for itself whether its keys were touched.
        let rights = format!("{lacks} -@dangerous");
        let environment = [("REDIS_PROXY_PANIC_AT", "reload:queueing")];
        let proxy = Proxy::start_in(&environment, &as_user(&one, &rights, json!({})));
        let mut client = proxy.client();
        assert_eq!(client.run("WATCH k"), "OK");
        // One that breaks off leaves the client as it was, and not in a transaction.
        assert_eq!(proxy.reload(&as_user(&two, &rights, json!({}))).status, 500);
        assert_eq!(client.run("GET k"), "nil");
        proxy.reload(&as_user(&two, &rights, json!({}))).expect_ok();
        assert_eq!(client.run("GET k"), "nil", "{lacks}");
        assert_eq!(proxy.info()["reloads"][0]["sessions_closed"], 0);
    }
}

#[test]
fn what_comes_behind_a_refused_discard_in_one_pipeline_is_queued() {
    let one = redis();
    let proxy = Proxy::start(&as_user(&one, "-discard", json!({})));
    let mut client = proxy.client();
    let sent = ["MULTI", "DISCARD", "GET n", "SUBSCRIBE a b", "SELECT 3", "EXEC", "PING"];
    let words = |line: &&str| request(&line.split(' ').collect::<Vec<_>>());
    client.send(sent.iter().flat_map(words).collect::<Vec<u8>>());
    let replies: Vec<String> = sent.iter().map(|_| client.reply()).collect();
    assert!(replies[1].starts_with("-NOPERM"), "{replies:?}");
    assert_eq!(&replies[2..5], ["QUEUED"; 3], "{replies:?}");
    assert!(replies[5].starts_with("-EXECABORT"), "{replies:?}");
    assert_eq!(replies[6], "PONG");
}

#[test]
fn a_transaction_that_was_begun_in_place_of_another_is_carried() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    let sent = ["MULTI", "INCR a", "EXEC x", "MULTI", "INCR n", "INCR n"];
    let words = |line: &&str| request(&line.split(' ').collect::<Vec<_>>());
    client.send(sent.iter().flat_map(words).collect::<Vec<u8>>());
    let replies: Vec<String> = sent.iter().map(|_| client.reply()).collect();
    assert!(replies[2].contains("EXECABORT"), "{replies:?}");
    assert_eq!(&replies[3..], ["OK", "QUEUED", "QUEUED"]);
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(client.run("EXEC"), "[1, 2]");
    assert_eq!(two.client().run("EXISTS a"), "0");
}

#[test]
fn a_transaction_that_was_begun_between_others_is_carried() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    let sent = ["MULTI", "EXEC x", "MULTI", "INCR n", "MULTI", "INCR n"];
    let words = |line: &&str| request(&line.split(' ').collect::<Vec<_>>());
    client.send(sent.iter().flat_map(words).collect::<Vec<u8>>());
    let replies: Vec<String> = sent.iter().map(|_| client.reply()).collect();
    assert!(replies[1].contains("EXECABORT") && replies[4].contains("nested"), "{replies:?}");
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(client.run("INCR n"), "QUEUED");
    assert_eq!(client.run("EXEC"), "[1, 2, 3]");
}

#[test]
fn what_the_proxy_answers_itself_waits_for_what_was_sent_before() {
    let one = redis();
    let proxy = Proxy::start(&to(&one));
    for refused in
        [&["HELLO", "x"][..], &["HELLO", "3", "SETNAME"], &["AUTH", "a", "b", "c"], &["AUTH"]]
    {
        let sent = [request(&["SUBSCRIBE", "c"]), request(refused)].concat();
        let run = |mut client: Client| {
            client.send(&sent);
            (client.reply(), client.reply(), client.run("PING"))
        };
        assert_eq!(run(proxy.client()), run(one.client()));
    }
}

#[test]
fn a_client_that_redirects_its_invalidations_to_itself_is_carried() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    for requests in [
        &["CLIENT TRACKING ON REDIRECT $ BCAST", "SUBSCRIBE __redis__:invalidate"][..],
        &["CLIENT TRACKING ON REDIRECT $ BCAST", "SSUBSCRIBE a", "SUBSCRIBE __redis__:invalidate"],
        &[
            "WATCH k",
            "CLIENT TRACKING ON REDIRECT $ BCAST",
            "SUBSCRIBE __redis__:invalidate",
            "PING",
        ],
    ] {
        let mut client = proxy.client();
        let id = client.run("CLIENT ID");
        requests.iter().for_each(|request| drop(client.run(&request.replace('$', &id))));
        proxy.reload(&to(&two)).expect_ok();
        assert_eq!(client.reply(), "[message, __redis__:invalidate, nil]", "its cache is dropped");
        assert_eq!(two.client().run("SET key 1"), "OK");
        assert_eq!(client.reply(), "[message, __redis__:invalidate, [key]]");
        proxy.reload(&to(&one)).expect_ok();
        assert_eq!(client.reply(), "[message, __redis__:invalidate, nil]");
        assert_eq!(proxy.info()["reloads"][0]["sessions_closed"], 0);
        drop(client);
        proxy.shows("clients", 0);
    }
}

#[test]
fn a_transaction_that_unsubscribes_from_everything_hears_of_its_own_channels_only() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let requests =
        ["SUBSCRIBE a", "SSUBSCRIBE b", "MULTI", "PING", "SUNSUBSCRIBE", "SUNSUBSCRIBE", "EXEC"];
    let run = |client: &mut Client, between: &dyn Fn()| {
        client.run("HELLO 3");
        let run = |request: &&str| {
            between();
            client.run(request)
        };
        requests.iter().map(run).collect::<Vec<_>>()
    };
    let directly = run(&mut two.client(), &|| ());
    let at_one = std::cell::Cell::new(true);
    let proxied = run(&mut proxy.client(), &|| {
        let next = if at_one.replace(!at_one.get()) { &two } else { &one };
        proxy.reload(&to(next)).expect_ok();
    });
    assert_eq!(proxied, directly);
}

#[test]
fn prefixes_that_are_tracked_beside_all_keys_are_carried() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = hello3(&proxy);
    assert_eq!(client.run("CLIENT TRACKING ON BCAST PREFIX a PREFIX b"), "OK");
    assert_eq!(client.run("CLIENT TRACKING ON BCAST"), "OK");
    let before = client.run("CLIENT TRACKINGINFO");
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(client.reply(), ">[invalidate, nil]");
    assert_eq!(client.run("CLIENT TRACKINGINFO"), before);
}

#[test]
fn an_exec_that_a_subscriber_may_not_send_is_no_end() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.run("SSUBSCRIBE c");
    let mut publisher = redis.client();
    for _ in 0..200 {
        client.send(request(&["EXEC"]));
        assert_eq!(publisher.run("SPUBLISH c x"), "1");
        let replies = [client.reply(), client.reply()];
        assert!(replies.contains(&"[smessage, c, x]".to_owned()), "{replies:?}");
        assert!(replies.iter().any(|reply| reply.contains("Can't execute 'exec'")), "{replies:?}");
    }
}

#[test]
fn what_others_publish_on_the_proxys_own_channel_reaches_nobody() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let (mut resp2, mut resp3) = (proxy.client(), hello3(&proxy));
    resp2.run("SUBSCRIBE news");
    resp3.run("SUBSCRIBE news");
    let over = std::sync::atomic::AtomicBool::new(false);
    let heard = std::sync::atomic::AtomicU64::new(0);
    let forge = "local n = 0 for _, c in ipairs(redis.call('PUBSUB', 'SHARDCHANNELS')) do \
                 n = n + redis.call('SPUBLISH', c, 'forged') end return n";
    std::thread::scope(|scope| {
        for server in [&one, &two] {
            scope.spawn(|| {
                let mut forger = server.client();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let reply = forger.command(&["EVAL", forge, "0"]).reply();
                    heard.fetch_add(reply.parse().unwrap(), std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        for round in 0..20 {
            proxy.reload(&to(if round % 2 == 0 { &two } else { &one })).expect_ok();
        }
        eventually("somebody was subscribed", || {
            let mut next = [&two, &one].into_iter().cycle();
            proxy.reload(&to(next.next().unwrap())).expect_ok();
            proxy.reload(&to(&one)).expect_ok();
            heard.load(std::sync::atomic::Ordering::Relaxed) > 0
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(one.client().run("PUBLISH news end"), "2");
    assert_eq!(resp2.reply(), "[message, news, end]");
    assert_eq!(resp3.reply(), ">[message, news, end]");
}

#[test]
fn watched_keys_are_carried_up_to_a_number_for_all_clients_together() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let keys: Vec<String> = (0..256).map(|n| format!("key{n}")).collect();
    let watch: Vec<&str> = ["WATCH"].into_iter().chain(keys.iter().map(String::as_str)).collect();
    let mut clients: Vec<Client> = (0..110).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.command(&watch).reply(), "OK");
    }
    proxy.reload(&to(&two)).expect_ok();
    let handed_over = &proxy.info()["reloads"][0]["handed_over"];
    // 25,000 keys.
    assert_eq!((&handed_over["watched"], &handed_over["touched"]), (&json!(97), &json!(13)));
    let mut exec = |client: &mut Client| {
        assert_eq!(client.run("MULTI"), "OK");
        client.run("EXEC")
    };
    let fail = clients.iter_mut().map(&mut exec).filter(|reply| reply == "nil").count();
    assert_eq!(fail, 13);
}
