//! Clients that hang up, guess, flood, or say nothing; and uplinks that refuse, restart, or change their role.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::common::{Client, FakeUplink, Proxy, Redis, config, eventually, redis, request};

fn with(uplink: &str, more: Value) -> Proxy {
    Proxy::start(&config(uplink, more))
}

#[test]
fn what_is_owed_to_a_client_that_does_not_read_is_bounded_in_bytes() {
    const MOST_KIB: u64 = 16 * 1024;
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    assert_eq!(redis.client().run("SETRANGE big 33554432 x"), "33554433");
    let mut other = proxy.client();
    assert_eq!(other.run("PING"), "PONG");
    let before = proxy.memory_kib("VmRSS");
    let name = "n".repeat(60_000);
    let rounds = [
        request(&["MULTI"]),
        request(&["CLIENT", "SETNAME", &name]).repeat(60),
        request(&["EXEC"]),
    ];
    for round in [rounds.concat(), request(&["SUBSCRIBE", &name]).repeat(60)] {
        let mut lazy = TcpStream::connect(proxy.addr()).unwrap();
        lazy.write_all(&request(&["GET", "big"])).unwrap();
        lazy.set_nonblocking(true).unwrap();
        let mut sent = 0;
        // Until the proxy takes no more.
        let mut refused = 0;
        while refused < 1000 && sent < 400 * round.len() {
            match lazy.write(&round[sent % round.len()..]) {
                Ok(more) => (sent, refused) = (sent + more, 0),
                Err(_) => {
                    refused += 1;
                    assert_eq!(other.run("PING"), "PONG");
                }
            }
        }
        let grown = proxy.memory_kib("VmHWM") - before;
        assert!(grown < MOST_KIB, "grew by {grown} KiB after {sent} bytes");
    }
}

#[test]
fn clients_that_hang_up_while_they_are_owed_something_are_gone_after_a_grace() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut uplinks = Vec::new();
    for _ in 0..5 {
        proxy.client().command(&["GET", "k"]);
        let mut uplink = fake.accept();
        uplink.expect(request(&["GET", "k"]));
        uplinks.push(uplink);
    }
    proxy.shows("clients", 0);
    proxy.shows("active_requests", 0);
    for mut uplink in uplinks {
        uplink.expect_closed();
    }
}

#[test]
fn a_client_that_sends_no_more_is_answered() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("EVAL \"local n = 0 for i = 1, 10000000 do n = n + i end return 7\" 0\r\n");
    client.half_close();
    assert_eq!(client.rest(), ":7\r\n");
}

#[test]
fn strangers_make_room_and_whoever_has_logged_in_stays() {
    let redis = redis();
    let more = json!({ "max_clients": 3, "listen": { "addr": "127.0.0.1:0", "pass": "pw" } });
    let proxy = with(&redis.addr(), more);
    let mut known = proxy.client();
    assert_eq!(known.ask(&["AUTH", "pw"]), "+OK");
    let mut strangers = [proxy.client(), proxy.client()];
    proxy.shows("clients", 3);
    let mut more = [proxy.client(), proxy.client()];
    for client in &mut more {
        assert_eq!(client.ask(&["AUTH", "pw"]), "+OK");
    }
    for stranger in &mut strangers {
        stranger.expect_closed();
    }
    proxy.closed("made room for another");
    // Nobody is a stranger any more.
    assert_eq!(proxy.client().rest(), "-ERR max number of clients reached\r\n");
    for client in more.iter_mut().chain([&mut known]) {
        assert_eq!(client.run("PING"), "PONG");
    }
}

#[test]
fn whoever_has_hung_up_makes_room_though_its_uplink_hangs() {
    let fake = FakeUplink::bind();
    let more = json!({ "max_clients": 2 });
    let proxy = fake.expect_start(|| with(&fake.addr(), more));
    let mut gone = [proxy.client(), proxy.client()];
    for client in &mut gone {
        client.command(&["GET", "k"]);
    }
    let uplinks = [fake.accept(), fake.accept()];
    proxy.shows("active_requests", 2);
    drop(gone);
    eventually("their places are taken", || proxy.client().run("QUIT") == "OK");
    proxy.closed("made room for another");
    drop(uplinks);
}

#[test]
fn what_is_sent_behind_a_wrong_password_waits_for_its_answer() {
    let redis = redis();
    let listen = json!({ "listen": { "addr": "127.0.0.1:0", "pass": "pw" } });
    let proxy = with(&redis.addr(), listen);
    let mut client = proxy.client();
    client.send("AUTH wrong\r\nAUTH pw\r\nPING\r\n");
    assert!(client.reply().starts_with("-WRONGPASS"));
    assert_eq!([client.reply(), client.reply()], ["OK", "PONG"]);
}

#[test]
fn wrong_passwords_are_counted_and_logged_with_the_address() {
    let redis = redis();
    let more = json!({ "listen": { "addr": "127.0.0.1:0", "pass": "pw" } });
    let proxy = with(&redis.addr(), more);
    let mut client = proxy.client();
    for line in ["AUTH wrong", "AUTH default wrong", "HELLO 3 AUTH default wrong"] {
        assert!(client.run(line).starts_with("-WRONGPASS"), "{line}");
    }
    assert_eq!(client.ask(&["AUTH", "pw"]), "+OK");
    assert_eq!(proxy.metric("redis_proxy_login_failures_total"), 3.0);
    let line =
        proxy.logged("it", |line| line["message"] == "a client gave a wrong password, or user");
    assert_eq!(line["client"], format!("127.0.0.1:{}", client.port));
    assert!(!proxy.log_text().contains("\"wrong\""));
}

#[test]
fn what_an_uplink_says_that_has_no_room_goes_down() {
    // One connection is the proxy's own.
    let redis = Redis::start(&["--maxclients", "3"]);
    let proxy = Proxy::to(&redis.addr());
    let mut clients: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.run("PING"), "PONG");
    }
    let mut late = proxy.client();
    late.command(&["PING"]);
    assert_eq!(late.rest(), "-ERR max number of clients reached\r\n");
    assert_eq!(clients[0].run("PING"), "PONG");
}

#[test]
fn after_a_restart_of_the_uplink_no_two_clients_have_one_id() {
    let mut redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut one, mut other) = (proxy.client(), proxy.client());
    let first = one.run("CLIENT ID");
    assert_ne!(first, other.run("CLIENT ID"));
    proxy.cmd("pause&wait=true").expect_ok();
    redis.restart();
    proxy.cmd("unpause").expect_ok();
    let mut late: Vec<Client> = (0..10).map(|_| proxy.client()).collect();
    let mut ids: Vec<String> = late.iter_mut().map(|client| client.run("CLIENT ID")).collect();
    ids.extend([one.run("CLIENT ID"), other.run("CLIENT ID")]);
    assert_eq!(ids[10], first, "it keeps its id");
    let unique: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    assert_eq!(other.run(&format!("CLIENT KILL ID {first}")), "1");
    one.expect_closed();
    assert_eq!(late[0].run("PING"), "PONG");
}

#[test]
fn a_command_that_a_change_of_role_interrupted_is_asked_again() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    let mut client = proxy.client();
    client.command(&["XREAD", "BLOCK", "0", "STREAMS", "s", "0"]);
    proxy.shows("active_requests", 1);
    // What waits at a server that becomes a replica is told UNBLOCKED, and its connection is closed.
    one.follow(&two);
    // It waits there again, for what comes by replication.
    proxy.shows("active_requests", 1);
    eventually("it waits", || one.client().run("CLIENT LIST").contains("cmd=xread"));
    assert_eq!(two.client().run("XADD s 1-1 a b"), "1-1");
    assert_eq!(client.reply(), "[[s, [[1-1, [a, b]]]]]");
    // Whom another client had interrupted is told so.
    let id = client.run("CLIENT ID");
    client.command(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]);
    let mut other = proxy.client();
    let unblock = format!("CLIENT UNBLOCK {id} ERROR");
    eventually("it is interrupted", || other.run(&unblock) == "1");
    assert!(client.reply().starts_with("-UNBLOCKED client unblocked"));
}

#[test]
fn the_proxys_own_channel_is_refused_to_clients() {
    let (old, two) = (FakeUplink::bind(), redis());
    let proxy = old.expect_start(|| Proxy::to(&old.addr()));
    let mut client = proxy.client();
    let confirmed = "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n";
    client.command(&["SUBSCRIBE", "news"]);
    let mut uplink = old.accept();
    uplink.expect(request(&["SUBSCRIBE", "news"])).send(confirmed);
    client.expect(confirmed);
    proxy.rewrite(&config(&two.addr(), json!({})));
    let _caller = proxy.begin_cmd("reload");
    let mut side = old.accept();
    let channel = loop {
        match &side.try_request().unwrap()[..] {
            [name, channel] if name == "SSUBSCRIBE" => break channel.clone(),
            _ => drop(side.send("-NOPERM\r\n")),
        }
    };
    let mut forger = proxy.client();
    for command in [["SPUBLISH", &channel, "switch"], ["SSUBSCRIBE", "fine", &channel]] {
        let refused = forger.ask(&command);
        assert!(
            refused.starts_with("-ERR redis-proxy: this channel is the proxy's own"),
            "{refused}"
        );
    }
}

#[test]
fn many_watched_keys_and_prefixes_are_bounded_by_their_number() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    let (mut few, mut many) = (proxy.client(), proxy.client());
    let keys = |count: usize| (0..count).map(|at| format!("k{at}")).collect::<Vec<_>>().join(" ");
    // The same key twice is watched once.
    for _ in 0..3 {
        assert_eq!(few.run(&format!("WATCH {}", keys(200))), "OK");
    }
    assert_eq!(many.run(&format!("WATCH {}", keys(5000))), "OK");
    proxy.reload(&config(&two.addr(), json!({}))).expect_ok();
    for (client, wanted) in [(&mut few, "[]"), (&mut many, "nil")] {
        assert_eq!(client.run("MULTI"), "OK");
        assert_eq!(client.run("EXEC"), wanted);
    }
}

#[test]
fn half_a_long_request_that_was_answered_is_never_told_another_uplink() {
    let (fake, two) = (FakeUplink::bind(), redis());
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let begun = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200000\r\n{}", "x".repeat(100_000));
    let mut client = proxy.client();
    client.send(&begun);
    let mut uplink = fake.accept();
    uplink.expect(&begun).send("-ERR no\r\n");
    client.expect("-ERR no\r\n");
    proxy.rewrite(&config(&two.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    fake.accept_side();
    crate::common::Answer::read(&mut caller).expect_ok();
    let _ = client.try_send(b"\r\nFLUSHALL\r\n");
    client.expect_closed();
    assert_eq!(proxy.info()["active_requests"], 0);
}

#[test]
fn half_a_long_request_in_a_large_transaction_waits_for_the_gate_with_its_rest() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.run("MULTI"), "OK");
    let set = request(&["SET", "k", &"x".repeat(2_000_000)]);
    client.send(&set[..1_500_000]);
    proxy.cmd("pause&wait=true").expect_ok();
    client.send(&set[1_500_000..]);
    proxy.shows("waiting_requests", 1);
    proxy.cmd("unpause").expect_ok();
    client.expect("+QUEUED\r\n");
    assert_eq!(client.run("EXEC"), "[OK]");
}

#[test]
fn half_a_long_subscription_in_a_transaction_is_refused_at_once_and_holds_up_nothing() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.run("MULTI"), "OK");
    let subscribe = request(&["SUBSCRIBE", &"c".repeat(1_200_000)]);
    client.send(&subscribe[..1_150_000]);
    assert_eq!(client.reply(), "-ERR redis-proxy: request too long");
    proxy.cmd("pause&wait=true").expect_ok();
    proxy.cmd("unpause").expect_ok();
    client.send(&subscribe[1_150_000..]);
    assert!(client.run("EXEC").starts_with("-EXECABORT"));
}

#[test]
fn a_user_who_may_not_ask_for_an_id_is_told_nothing_of_that_when_the_uplink_dies() {
    let mut redis = redis();
    assert_eq!(redis.client().run("ACL SETUSER default -client|id"), "OK");
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    client.command(&["BLPOP", "q", "0"]);
    proxy.shows("active_requests", 1);
    redis.kill();
    client.expect_closed();
}
