//! `cmd=reload` and SIGHUP: verified first, then all clients move; or nothing changes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{
    Answer, Client, FakeUplink, LOOK, Proxy, Redis, TellsToEnd, cert, config, eventually, http,
    own_host, redis, request,
};

fn to(redis: &Redis) -> Value {
    config(&redis.addr(), json!({}))
}

/// Which of two servers a client is on.
fn mark(one: &Redis, two: &Redis) {
    one.client().ask(&["SET", "who", "one"]);
    two.client().ask(&["SET", "who", "two"]);
}

fn who(client: &mut Client) -> String {
    client.command(&["GET", "who"]).line();
    client.line()
}

/// A server has so many connections, the one that asks included; those that are closed it may yet
/// have to hear of.
fn has_connections(redis: &Redis, count: usize) {
    let mut client = redis.client();
    eventually(&format!("{count} connections"), || {
        client.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        let length = client.line().trim_start_matches('$').parse().unwrap();
        let list = client.take(length);
        client.take(2);
        list.iter().filter(|byte| **byte == b'\n').count() == count
    });
}

#[test]
fn all_clients_move_and_the_old_uplink_is_let_go() {
    let (one, two) = (redis(), redis());
    mark(&one, &two);
    let proxy = Proxy::start(&to(&one));
    let mut clients: Vec<Client> = (0..20).map(|_| proxy.client()).collect();
    assert!(clients.iter_mut().all(|client| who(client) == "one"));
    let mut silent = proxy.client();
    proxy.shows("clients", 21);
    proxy.reload(&to(&two)).expect_ok();
    // At once, and not when they happen to ask: the old server may be turned off now.
    has_connections(&one, 1);
    // The proxy's own is one of them.
    has_connections(&two, 22);
    assert!(clients.iter_mut().all(|client| who(client) == "two"));
    assert_eq!(who(&mut silent), "two");
    let info = proxy.info();
    assert_eq!(info["generation"], 2);
    assert_eq!(info["config"]["uplink"]["addr"], json!(two.addr()));
    let reload = &info["reloads"][0];
    assert_eq!(
        (&reload["result"], &reload["by"], &reload["sessions_moved"], &reload["sessions_closed"]),
        (&json!("done"), &json!("http"), &json!(20), &json!(0))
    );
    assert!(reload["pause_ms"].as_f64().unwrap() >= 0.0);
    assert_eq!(proxy.metric("redis_proxy_reloads_total{result=\"done\"}"), 1.0);
    assert_eq!(proxy.metric("redis_proxy_reload_pause_seconds_count"), 1.0);
}

#[test]
fn database_and_protocol_are_carried_over() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    client.ask(&["SELECT", "3"]);
    client.command(&["HELLO", "3"]);
    while client.line() != "modules" {}
    assert_eq!(client.line(), "*0");
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(client.ask(&["SET", "k", "v"]), "+OK");
    assert_eq!(client.ask(&["GET", "missing"]), "_", "a null in RESP3");
    let mut direct = two.client();
    direct.ask(&["SELECT", "3"]);
    assert_eq!(direct.ask(&["EXISTS", "k"]), ":1");
}

#[test]
fn what_changed_after_the_connection_was_made_ready_is_told_to_it_at_the_switch() {
    let (one, fake) = (redis(), FakeUplink::bind());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    client.ask(&["SELECT", "3"]);
    proxy.rewrite(&config(&fake.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    let ping = request(&["PING"]);
    fake.accept_reload();
    let mut next = fake.accept();
    next.expect(request(&["SELECT", "3"])).send("+OK\r\n").expect(&ping).send("+PONG\r\n");
    // The reload looks once more whether the uplink lives; meanwhile the client goes on.
    let mut last_look = fake.accept();
    last_look.expect(&ping);
    assert_eq!(client.ask(&["SELECT", "5"]), "+OK");
    last_look.send("+PONG\r\n").expect_closed();
    next.expect(request(&["SELECT", "5"])).send("+OK\r\n");
    fake.answering_looks(|| Answer::read(&mut caller)).expect_ok();
    client.command(&["GET", "k"]);
    next.expect(request(&["GET", "k"])).send("$1\r\nv\r\n");
    client.expect("$1\r\nv\r\n");
}

#[test]
fn every_fault_is_told_and_the_old_configuration_goes_on() {
    let (one, two) = (redis(), redis());
    mark(&one, &two);
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    assert_eq!(who(&mut client), "one");
    let mut broken = to(&two);
    broken["uplink"] = json!({ "addr": "127.0.0.1:1" });
    broken["listen"] = json!({ "addr": one.addr() });
    broken["listen_raw"] =
        json!({ "addr": "127.0.0.1:0", "tls": true, "certfile": "none", "keyfile": "none" });
    broken["admin"] = json!({ "addr": "127.0.0.1:1" });
    broken["surprise"] = json!(1);
    let answer = proxy.reload(&broken);
    assert_eq!(answer.status, 400);
    let error = answer.error();
    let faults = answer.json()["faults"].as_array().unwrap().len();
    let wanted = [
        "could not connect to uplink: 127.0.0.1:1 (non-TLS)",
        &format!("cannot listen on {}", one.addr()),
        "could not load listen_raw.certfile: none",
        "could not load listen_raw.keyfile: none",
        "admin.addr cannot be changed by a reload",
        "surprise: unknown field",
    ];
    for fault in wanted {
        assert!(error.contains(fault), "{fault} is not in {error}");
    }
    assert_eq!(faults, wanted.len(), "{answer:?}");
    proxy.rewrite(&json!("no object"));
    let error = proxy.cmd("reload").error();
    assert!(error.contains("expected an object") && !error.contains("restart"), "{error}");
    assert_eq!((who(&mut client), who(&mut proxy.client())), ("one".into(), "one".into()));
    let info = proxy.info();
    assert_eq!((&info["generation"], &info["state"]), (&json!(1), &json!(2)));
    assert_eq!(info["reloads"][1]["result"], "refused");
    assert_eq!(info["reloads"][1]["faults"].as_array().unwrap().len(), wanted.len());
}

#[test]
fn a_file_that_is_gone_refuses_the_reload() {
    let redis = redis();
    let proxy = Proxy::start(&to(&redis));
    proxy.remove_file();
    let answer = proxy.cmd("reload");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("could not read"), "{answer:?}");
}

#[test]
fn what_was_read_from_standard_input_cannot_be_read_again() {
    let redis = redis();
    let proxy = Proxy::start_from_stdin(&to(&redis));
    let answer = proxy.cmd("reload");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("standard input"), "{answer:?}");
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
}

#[test]
fn each_field_of_admin_that_would_change_is_named() {
    let redis = redis();
    let proxy = Proxy::start(&to(&redis));
    for (admin, field) in [
        (json!({ "addr": "127.0.0.1:7" }), "admin.addr"),
        (json!({ "addr": "127.0.0.1:0", "pass": "x" }), "admin.user and pass"),
        (
            json!({
                "addr": "127.0.0.1:0", "tls": true,
                "certfile": cert("server.pem"), "keyfile": cert("server.key"),
            }),
            "admin.tls, certfile, keyfile and cacertfile",
        ),
        (json!(null), "admin"),
    ] {
        let answer = proxy.reload(&config(&redis.addr(), json!({ "admin": admin })));
        let wanted = format!("{field} cannot be changed by a reload");
        assert!(answer.error().contains(&wanted), "{answer:?}");
    }
}

#[test]
fn without_another_uplink_the_connections_are_kept() {
    let redis = redis();
    let proxy = Proxy::start(&to(&redis));
    let mut client = proxy.client();
    let id = client.ask(&["CLIENT", "ID"]);
    let mut blocked = proxy.client();
    blocked.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 1);
    // Not even a running request is in the way.
    proxy.reload(&config(&redis.addr(), json!({ "max_clients": 3 }))).expect_ok();
    assert_eq!(proxy.info()["reloads"][0]["pause_ms"], json!(null));
    assert_eq!(client.ask(&["CLIENT", "ID"]), id);
    client.ask(&["RPUSH", "queue", "v"]);
    blocked.expect("*2\r\n$5\r\nqueue\r\n$1\r\nv\r\n");
    let _third = proxy.client();
    proxy.shows("clients", 3);
    assert_eq!(proxy.client().rest(), "-ERR max number of clients reached\r\n");
    assert_eq!(proxy.metric("redis_proxy_clients_refused_total"), 1.0);
}

#[test]
fn a_password_that_changes_leaves_those_who_are_in_alone() {
    let redis = redis();
    let listen = |pass: &str| json!({ "listen": { "addr": "127.0.0.1:0", "pass": pass } });
    let proxy = Proxy::start(&config(&redis.addr(), listen("old")));
    let (mut inside, mut outside) = (proxy.client(), proxy.client());
    assert_eq!(inside.ask(&["AUTH", "old"]), "+OK");
    assert_eq!(outside.ask(&["PING"]), "-NOAUTH Authentication required.");
    proxy.reload(&config(&redis.addr(), listen("new"))).expect_ok();
    assert_eq!(inside.ask(&["PING"]), "+PONG");
    assert!(outside.ask(&["AUTH", "old"]).starts_with("-WRONGPASS"));
    assert_eq!(outside.ask(&["AUTH", "new"]), "+OK");
    let mut waiting = proxy.client();
    assert_eq!(waiting.ask(&["PING"]), "-NOAUTH Authentication required.");
    proxy.reload(&to(&redis)).expect_ok();
    proxy.logged("it", |line| line["message"].to_string().contains("listen.pass is withdrawn"));
    assert_eq!(waiting.ask(&["PING"]), "+PONG", "no password is asked for any more");
}

#[test]
fn a_listener_moves_and_its_clients_stay() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let socket = |name: &str| dir.path().join(name).display().to_string();
    let listen = |path: &str| json!({ "listen": { "addr": path, "network": "unix" } });
    let (first, second) = (socket("first"), socket("second"));
    let proxy = Proxy::start(&config(&redis.addr(), listen(&first)));
    let mut client = Client::connect_unix(&first);
    client.ask(&["PING"]);
    proxy.reload(&config(&redis.addr(), listen(&second))).expect_ok();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    assert_eq!(Client::connect_unix(&second).ask(&["PING"]), "+PONG");
    eventually("the old socket is removed", || !std::path::Path::new(&first).exists());
    // The same socket by another name is kept.
    let again = format!("{}/./second", dir.path().display());
    proxy.reload(&config(&redis.addr(), listen(&again))).expect_ok();
    assert_eq!(Client::connect_unix(&second).ask(&["PING"]), "+PONG");
    // And over TCP.
    let any = json!({ "listen": { "addr": "127.0.0.1:0" } });
    proxy.reload(&config(&redis.addr(), any)).expect_ok();
    let line = proxy.logged("its TCP address", |line| {
        let is_tcp = line["addr"].as_str().is_some_and(|addr| addr.starts_with("127."));
        line["message"] == "listening" && line["block"] == "listen" && is_tcp
    });
    let addr = line["addr"].as_str().unwrap().to_owned();
    assert_eq!(Client::connect(&addr).ask(&["PING"]), "+PONG");
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let same = addr.replace("127.0.0.1", "localhost");
    let answer = proxy.reload(&config(&redis.addr(), json!({ "listen": { "addr": same } })));
    answer.expect_ok();
    assert_eq!(Client::connect(&addr).ask(&["PING"]), "+PONG");
}

#[test]
fn the_raw_listener_comes_and_goes() {
    let (one, two) = (redis(), redis());
    mark(&one, &two);
    let proxy = Proxy::start(&to(&one));
    let raw =
        |redis: &Redis| config(&redis.addr(), json!({ "listen_raw": { "addr": "127.0.0.1:0" } }));
    proxy.reload(&raw(&one)).expect_ok();
    let mut client = proxy.raw_client();
    assert_eq!(who(&mut client), "one");
    assert_eq!(proxy.info()["raw_connections"], 1);
    proxy.reload(&raw(&two)).expect_ok();
    assert_eq!(who(&mut client), "one", "unmanaged: it stays where it is");
    assert_eq!(who(&mut proxy.raw_client()), "two");
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(who(&mut client), "one");
    proxy.cmd("terminate-raw-connections").expect_ok();
    client.expect_closed();
    let addr = proxy.addr_of("listen_raw");
    eventually("it is closed", || std::net::TcpStream::connect(&addr).is_err());
}

#[test]
fn certificates_are_read_again_though_the_configuration_is_the_same() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (certfile, keyfile) = (file("server.pem"), file("server.key"));
    let put = |name: &str| {
        std::fs::copy(cert(&format!("{name}.pem")), &certfile).unwrap();
        std::fs::copy(cert(&format!("{name}.key")), &keyfile).unwrap();
    };
    put("self-signed");
    let listen =
        json!({ "addr": "127.0.0.1:0", "tls": true, "certfile": certfile, "keyfile": keyfile });
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "listen": listen })));
    assert!(Client::connect_tls(&proxy.addr(), None).is_err(), "not of the test authority");
    eventually("it is counted", || proxy.metric("redis_proxy_tls_handshake_failures_total") == 1.0);
    put("server");
    proxy.cmd("reload").expect_ok();
    let mut client = Client::connect_tls(&proxy.addr(), None).unwrap();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    std::fs::write(&keyfile, "no key").unwrap();
    let error = proxy.cmd("reload").error();
    assert!(error.contains("could not load listen.keyfile"), "{error}");
    assert_eq!(Client::connect_tls(&proxy.addr(), None).unwrap().ask(&["PING"]), "+PONG");
}

#[test]
fn settings_take_effect_for_clients_that_are_connected() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["PING"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["PING"])).send("+PONG\r\n");
    client.expect("+PONG\r\n");
    let more = json!({ "read_time_limit_ms": 100, "log_messages": true });
    fake.expect_start(|| proxy.reload(&config(&fake.addr(), more))).expect_ok();
    client.command(&["GET", "slow"]);
    uplink.expect(request(&["GET", "slow"]));
    assert_eq!(client.rest(), "-ERR redis-proxy: time limit of 100 ms exceeded\r\n");
    proxy.logged("the request", |line| line["request"] == "\"GET\" \"slow\"");
    assert_eq!(proxy.info()["config"]["read_time_limit_ms"], 100);
}

#[test]
fn a_password_that_is_half_sent_when_logging_begins_stays_out_of_the_log() {
    let redis = redis();
    let listen = json!({ "addr": "127.0.0.1:0", "pass": "top-secret" });
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "listen": listen })));
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "top-secret"]), "+OK");
    client.send("*2\r\n$4\r\nAUTH\r\n");
    let bytes = "redis_proxy_client_bytes_total";
    let before = request(&["AUTH", "top-secret"]).len() + "*2\r\n$4\r\nAUTH\r\n".len();
    eventually("it is read", || proxy.metric(bytes) == before as f64);
    let more = json!({ "listen": listen, "log_messages": true });
    proxy.reload(&config(&redis.addr(), more)).expect_ok();
    client.send("$10\r\ntop-secret\r\n");
    assert_eq!(client.line(), "+OK");
    assert_eq!(client.ask(&["PING"]), "+PONG");
    proxy.logged("the next request", |line| line["request"] == "\"PING\"");
    assert!(!proxy.log_text().contains("top-secret"));
}

#[test]
fn an_operators_pause_survives_a_reload() {
    let (one, two) = (redis(), redis());
    mark(&one, &two);
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    assert_eq!(who(&mut client), "one");
    proxy.cmd("pause&wait=true").expect_ok();
    client.command(&["GET", "who"]);
    proxy.shows("waiting_requests", 1);
    proxy.reload(&to(&two)).expect_ok();
    let info = proxy.info();
    assert_eq!((&info["state"], &info["waiting_requests"]), (&json!(4), &json!(1)));
    has_connections(&one, 1);
    proxy.cmd("unpause").expect_ok();
    client.expect("$3\r\ntwo\r\n");
}

#[test]
fn one_reload_at_a_time() {
    let (redis, fake) = (redis(), FakeUplink::bind());
    let proxy = Proxy::start(&to(&redis));
    proxy.rewrite(&config(&fake.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    let mut verified = fake.accept();
    verified.expect(request(&["PING"]));
    assert_eq!(proxy.info()["reloading"]["stage"], "verifying");
    let answer = proxy.cmd("reload");
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains("a reload is running"), "{answer:?}");
    // A pause during a reload holds beyond it.
    proxy.cmd("pause").expect_ok();
    fake.go_on_with_reload(verified);
    fake.accept().expect(request(&["PING"])).send("+PONG\r\n");
    fake.answering_looks(|| Answer::read(&mut caller)).expect_ok();
    let info = proxy.info();
    assert_eq!((&info["state"], &info["generation"]), (&json!(4), &json!(2)));
}

#[test]
fn a_reload_that_running_requests_hold_up_is_cancelled_and_names_them() {
    let (one, two) = (redis(), redis());
    mark(&one, &two);
    let more = || json!({ "pause_time_limit_ms": 100 });
    let proxy = Proxy::start(&config(&one.addr(), more()));
    let mut blocked = proxy.client();
    let id = blocked.ask(&["CLIENT", "ID"]);
    // It waits for a replica, and there is none.
    blocked.command(&["WAIT", "1", "0"]);
    let mut client = proxy.client();
    assert_eq!(who(&mut client), "one");
    proxy.shows("active_requests", 1);
    let answer = proxy.reload(&config(&two.addr(), more()));
    assert_eq!(answer.status, 503);
    let error = answer.error();
    let named = format!("WAIT of 127.0.0.1:{} for ", blocked.port);
    assert!(error.contains("cancelled") && error.contains(&named), "{error}");
    let info = proxy.info();
    assert_eq!((&info["state"], &info["generation"]), (&json!(2), &json!(1)));
    let held = &info["reloads"][0]["held_up_by"][0];
    assert_eq!(
        (&held["command"], info["reloads"][0]["result"].as_str()),
        (&json!("wait"), Some("cancelled"))
    );
    assert_eq!(who(&mut client), "one");
    assert_eq!(client.ask(&["CLIENT", "UNBLOCK", &id[1..]]), ":1");
    blocked.expect(":0\r\n");
    has_connections(&two, 1);
    // Nothing is in the way any more, and there is time.
    proxy.reload(&to(&one)).expect_ok();
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(who(&mut client), "two");
}

#[test]
fn an_uplink_with_too_little_room_for_all_clients_refuses_the_reload() {
    let (one, two) = (redis(), Redis::start(&["--maxclients", "3"]));
    let proxy = Proxy::start(&to(&one));
    let mut clients: Vec<Client> = (0..6).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
    proxy.rewrite(&to(&two));
    for cmd in ["reload&dry_run=true", "reload"] {
        let answer = proxy.cmd(cmd);
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains("max number of clients reached"), "{answer:?}");
    }
    for client in &mut clients {
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
}

#[test]
fn an_uplink_that_dies_while_connections_are_made_ready_refuses_the_reload() {
    let (one, fake) = (redis(), FakeUplink::bind());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    client.ask(&["PING"]);
    proxy.rewrite(&config(&fake.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    let ping = request(&["PING"]);
    fake.accept_reload();
    let mut prepared = fake.accept();
    prepared.expect(&ping).send("+PONG\r\n");
    // The last look before the pause.
    drop(fake.accept());
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("could not connect to uplink"), "{answer:?}");
    assert_eq!(client.ask(&["PING"]), "+PONG");
    drop(prepared);
    assert_eq!(client.ask(&["PING"]), "+PONG", "what was made ready does not matter any more");
}

#[test]
fn an_uplink_that_falls_silent_while_connections_are_made_ready_refuses_the_reload() {
    let (one, fake) = (redis(), FakeUplink::bind());
    let limit = json!({ "connect_time_limit_ms": 6000 });
    let proxy = Proxy::start(&config(&one.addr(), limit.clone()));
    let mut client = proxy.client();
    client.ask(&["PING"]);
    proxy.rewrite(&config(&fake.addr(), limit));
    let mut caller = proxy.begin_cmd("reload");
    let ping = request(&["PING"]);
    fake.accept_reload();
    let mut silent = fake.accept();
    silent.expect(&ping);
    // The old one serves meanwhile.
    assert_eq!(proxy.info()["reloading"]["stage"], "preparing");
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("not connected within 6000 ms"), "{answer:?}");
    assert_eq!(client.ask(&["PING"]), "+PONG");
    silent.expect_closed();
}

#[test]
fn an_uplink_that_answers_nonsense_or_nothing_is_refused() {
    let one = redis();
    let limit = json!({ "connect_time_limit_ms": 4000 });
    let proxy = Proxy::start(&config(&one.addr(), limit.clone()));
    let mut client = proxy.client();
    client.ask(&["PING"]);
    let ping = request(&["PING"]);
    for lie in ["HTTP/1.1 400 Bad Request\r\n", "+NO\r\n", "-LOADING loading\r\n", ""] {
        let fake = FakeUplink::bind();
        proxy.rewrite(&config(&fake.addr(), limit.clone()));
        let mut caller = proxy.begin_cmd("reload");
        let mut uplink = fake.accept();
        uplink.expect(&ping).send(lie);
        let answer = Answer::read(&mut caller);
        assert_eq!(answer.status, 400, "{lie}");
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
}

#[test]
fn a_connection_that_was_made_ready_and_lost_is_made_again() {
    let (one, fake) = (redis(), FakeUplink::bind());
    let proxy = Proxy::start(&to(&one));
    let mut client = proxy.client();
    client.ask(&["PING"]);
    let ping = request(&["PING"]);
    proxy.rewrite(&config(&fake.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    fake.accept_reload();
    fake.accept().expect(&ping).send("+PONG\r\n");
    // The close of the one before comes first, for it was made on the same machine.
    fake.accept().expect(&ping).send("+PONG\r\n");
    fake.answering_looks(|| Answer::read(&mut caller)).expect_ok();
    client.command(&["GET", "k"]);
    fake.accept().expect(request(&["GET", "k"])).send("$1\r\nv\r\n");
    client.expect("$1\r\nv\r\n");
}

#[test]
fn a_caller_that_hangs_up_does_not_cancel_its_reload() {
    let (one, fake) = (redis(), FakeUplink::bind());
    let proxy = Proxy::start(&to(&one));
    proxy.rewrite(&config(&fake.addr(), json!({})));
    let caller = proxy.begin_cmd("reload");
    let mut verified = fake.accept();
    verified.expect(request(&["PING"]));
    drop(caller);
    fake.go_on_with_reload(verified);
    fake.accept().expect(request(&["PING"])).send("+PONG\r\n");
    fake.answering_looks(|| proxy.shows("generation", 2));
}

#[test]
fn sighup_reloads_and_a_storm_of_them_is_few_reloads() {
    let (one, two) = (redis(), redis());
    mark(&one, &two);
    // The scripted uplink does not answer the reload that leaves it.
    let to = |addr: &str| config(addr, json!({ "connect_time_limit_ms": 4000 }));
    let proxy = Proxy::start(&to(&one.addr()));
    proxy.rewrite(&to(&two.addr()));
    proxy.signal(Signal::HUP);
    proxy.shows("generation", 2);
    assert_eq!(who(&mut proxy.client()), "two");
    assert_eq!(proxy.info()["reloads"][0]["by"], "signal");

    // While one is held up, many more come.
    let fake = FakeUplink::bind();
    proxy.rewrite(&to(&fake.addr()));
    let ping = request(&["PING"]);
    proxy.signal(Signal::HUP);
    let mut verified = fake.accept();
    verified.expect(&ping);
    let proxy = &proxy;
    scope(|scope| {
        scope.spawn(|| (0..100).for_each(|_| proxy.signal(Signal::HUP)));
    });
    // They are delivered before any answer is read that is asked for after them.
    proxy.has_heard();
    proxy.info();
    proxy.rewrite(&to(&one.addr()));
    fake.go_on_with_reload(verified);
    fake.accept().expect(&ping).send("+PONG\r\n");
    fake.answering_looks(|| proxy.shows("generation", 4));
    eventually("it is quiet", || proxy.info()["reloading"] == json!(null));
    assert_eq!(who(&mut proxy.client()), "one");
    assert_eq!(proxy.info()["generation"], 4, "one for the hundred that came meanwhile");
}

#[test]
fn many_sighups_at_a_broken_configuration_are_two_refusals() {
    let (redis, fake) = (redis(), FakeUplink::bind());
    let proxy = Proxy::start(&to(&redis));
    proxy.rewrite(&config(&fake.addr(), json!({})));
    proxy.signal(Signal::HUP);
    let mut first = fake.accept();
    first.expect(request(&["PING"]));
    (0..6).for_each(|_| proxy.signal(Signal::HUP));
    proxy.has_heard();
    proxy.info();
    first.send("-LOADING\r\n");
    fake.accept().expect(request(&["PING"])).send("-LOADING\r\n");
    eventually("both are over", || {
        let info = proxy.info();
        info["reloads"].as_array().unwrap().len() == 2 && info["reloading"] == json!(null)
    });
    assert_eq!(proxy.reload(&to(&redis)).status, 200);
    assert_eq!(proxy.info()["reloads"].as_array().unwrap().len(), 3);
}

#[test]
fn what_the_proxy_itself_has_to_say_survives_the_switch() {
    let (fake, two) = (FakeUplink::bind(), Redis::start(&["--requirepass", "up"]));
    let to = |addr: String| {
        let blocks = json!({
            "uplink": { "addr": addr, "pass": "up" },
            "listen": { "addr": "127.0.0.1:0", "pass": "pw" },
        });
        config("", blocks)
    };
    let auth = request(&["AUTH", "up"]);
    let proxy = fake.expect_start_with(&auth, || Proxy::start(&to(fake.addr())));
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "pw"]), "+OK");
    client.send([request(&["RESET"]), request(&["AUTH", "pw"])].concat());
    let mut uplink = fake.accept();
    uplink.expect([&auth[..], &request(&["CLIENT", "ID"])].concat()).send("+OK\r\n:7\r\n");
    // The client's AUTH is answered by the proxy, behind the answer to the proxy's own.
    uplink.expect(request(&["RESET"])).send("+RESET\r\n").expect(&auth);
    client.expect("+RESET\r\n");
    proxy.shows("active_requests", 0);
    scope(|scope| {
        scope.spawn(|| fake.accept_side());
        proxy.reload(&to(two.addr())).expect_ok();
    });
    client.expect("+OK\r\n");
    assert_eq!(client.ask(&["ECHO", "x"]), "$1");
}

#[test]
fn a_stop_ends_a_reload_that_has_not_swapped() {
    let (one, fake) = (redis(), FakeUplink::bind());
    let mut proxy = Proxy::start(&to(&one));
    proxy.rewrite(&config(&fake.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    let mut verified = fake.accept();
    verified.expect(request(&["PING"]));
    proxy.signal(Signal::TERM);
    assert_eq!(Answer::read(&mut caller).status, 409);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_request_whose_answer_nobody_hears_is_waited_for_all_the_same() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["CLIENT", "REPLY", "OFF"]).command(&["SET", "k", "v"]);
    let mut uplink = fake.accept();
    let on = request(&["CLIENT", "REPLY", "ON"]);
    uplink.expect(&on).send("+OK\r\n").expect(request(&["SET", "k", "v"]));
    let mut caller = proxy.begin_cmd("pause&wait=true");
    proxy.shows("state", 3);
    uplink.send("+OK\r\n");
    Answer::read(&mut caller).expect_ok();
    proxy.cmd("unpause").expect_ok();
    client.command(&["CLIENT", "REPLY", "ON"]);
    uplink.expect(&on).send("+OK\r\n");
    client.expect("+OK\r\n");
}

#[test]
fn keep_alive_callers_see_the_new_state() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&to(&one));
    let mut caller = proxy.caller();
    proxy.rewrite(&to(&two));
    http(&mut caller, "POST", "/cmd/", "", "cmd=reload").expect_ok();
    let info = http(&mut caller, "GET", "/info.json", "", "").json();
    assert_eq!(info["generation"], 2);
}

#[test]
fn once_a_client_has_seen_the_new_uplink_nobody_sees_the_old_one() {
    const CLIENTS: usize = 4;
    const RELOADS: usize = 30;
    let servers = [redis(), redis()];
    servers[0].client().ask(&["SET", "who", "0"]);
    let proxy = Proxy::start(&to(&servers[0]));
    let (done, latest) = (AtomicBool::new(false), AtomicUsize::new(0));
    // What each client saw: when it asked, when it had the answer, and the answer.
    let seen: Vec<(Instant, Instant, usize)> = scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut seen) = (proxy.client(), Vec::new());
                    while !done.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let answer = who(&mut client).parse().unwrap();
                        seen.push((asked, Instant::now(), answer));
                        latest.fetch_max(answer, Ordering::Relaxed);
                    }
                    seen
                })
            })
            .collect();
        for reload in 1..=RELOADS {
            let server = &servers[reload % 2];
            server.client().ask(&["SET", "who", &reload.to_string()]);
            proxy.reload(&to(server)).expect_ok();
            eventually("it is seen", || latest.load(Ordering::Relaxed) == reload);
        }
        done.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let (mut by_begin, mut by_end) = (seen.clone(), seen);
    by_begin.sort_by_key(|(asked, ..)| *asked);
    by_end.sort_by_key(|(_, had, _)| *had);
    let (mut newest, mut ended) = (0, by_end.iter().peekable());
    for (asked, _, answer) in &by_begin {
        while let Some((_, _, answer)) = ended.next_if(|(_, had, _)| had < asked) {
            newest = newest.max(*answer);
        }
        assert!(*answer >= newest, "{answer}, after another client had seen {newest}");
    }
}

#[test]
fn the_old_redis_may_go_during_a_pause() {
    let (mut one, two) = (redis(), redis());
    mark(&one, &two);
    let proxy = Proxy::start(&to(&one));
    let (mut idle, mut waiting) = (proxy.client(), proxy.client());
    assert_eq!((who(&mut idle), who(&mut waiting)), ("one".into(), "one".into()));
    proxy.cmd("pause&wait=true").expect_ok();
    waiting.command(&["GET", "who"]);
    proxy.shows("waiting_requests", 1);
    one.kill();
    proxy.reload(&to(&two)).expect_ok();
    assert_eq!(proxy.info()["waiting_requests"], 1);
    proxy.cmd("unpause").expect_ok();
    waiting.expect("$3\r\ntwo\r\n");
    assert_eq!(who(&mut idle), "two");
}

#[test]
fn a_new_uplink_that_dies_while_running_requests_are_waited_for_refuses_the_reload() {
    let (one, mut two) = (redis(), redis());
    mark(&one, &two);
    let proxy = Proxy::start(&to(&one));
    let (mut client, mut blocked) = (proxy.client(), proxy.client());
    assert_eq!(who(&mut client), "one");
    let id = blocked.ask(&["CLIENT", "ID"]);
    blocked.command(&["WAIT", "1", "0"]);
    proxy.shows("active_requests", 1);
    proxy.rewrite(&to(&two));
    let mut caller = proxy.begin_cmd("reload");
    let mut since = None;
    eventually("it waits for a while", || {
        let reloading = &proxy.info()["reloading"];
        let seconds = reloading["seconds"].as_f64().unwrap_or_default();
        reloading["stage"] == "pausing" && seconds > *since.get_or_insert(seconds) + 0.5
    });
    two.kill();
    one.client().ask(&["CLIENT", "UNBLOCK", &id[1..]]);
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.error().contains("could not connect to uplink"), "{answer:?}");
    blocked.expect(":0\r\n");
    assert_eq!(who(&mut client), "one");
}

#[test]
fn a_request_that_runs_keeps_the_limit_that_it_began_with() {
    let redis = redis();
    let proxy = Proxy::start(&to(&redis));
    let mut client = proxy.client();
    client.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 1);
    let runs = Instant::now();
    eventually("it has run for longer than the new limit", || {
        runs.elapsed() > Duration::from_millis(300)
    });
    let limit = config(&redis.addr(), json!({ "read_time_limit_ms": 100 }));
    proxy.reload(&limit).expect_ok();
    proxy.reload(&limit).expect_ok();
    redis.client().ask(&["RPUSH", "queue", "v"]);
    client.expect("*2\r\n$5\r\nqueue\r\n$1\r\nv\r\n");
    client.command(&["BLPOP", "queue", "0"]);
    assert_eq!(client.rest(), "-ERR redis-proxy: time limit of 100 ms exceeded\r\n");
}

#[test]
fn files_that_never_come_are_given_up_and_hold_up_nobody() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let limit = json!({ "connect_time_limit_ms": 3000 });
    let mut proxy = Proxy::start(&config(&redis.addr(), limit.clone()));
    let mut slow = config(&redis.addr(), limit);
    slow["listen"] = json!({
        "addr": "127.0.0.1:0", "tls": true,
        "certfile": pipe.display().to_string(), "keyfile": cert("server.key"),
    });
    proxy.rewrite(&slow);
    let mut caller = proxy.begin_cmd("reload");
    assert_eq!(proxy.get("/healthz").status, 200);
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
    let error = Answer::read(&mut caller).error();
    assert!(error.contains("could not be read within 3000 ms"), "{error}");
    // The configuration itself.
    proxy.remove_file();
    proxy.link_file(&pipe);
    let error = proxy.cmd("reload").error();
    assert!(error.contains("could not read") && error.contains("timed out"), "{error}");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn too_few_descriptors_for_all_clients_refuse_the_reload_before_it_begins() {
    let (one, two) = (redis(), redis());
    mark(&one, &two);
    let proxy = Proxy::start_limited(&to(&one), 160);
    let mut clients: Vec<Client> = (0..40).map(|_| proxy.client()).collect();
    assert!(clients.iter_mut().all(|client| who(client) == "one"));
    let answer = proxy.reload(&to(&two));
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("too few file descriptors"), "{answer:?}");
    assert!(clients.iter_mut().all(|client| who(client) == "one"));
    clients.truncate(10);
    proxy.shows("clients", 10);
    proxy.reload(&to(&two)).expect_ok();
    assert!(clients.iter_mut().all(|client| who(client) == "two"));
}

#[test]
fn who_comes_in_at_the_old_address_is_spoken_to_as_there() {
    let redis = redis();
    let (plain, encrypted) = (&format!("{}:7000", own_host()), &format!("{}:7000", own_host()));
    let listen = |addr: &str, tls: bool| {
        let mut listen = json!({ "addr": addr });
        if tls {
            listen["tls"] = json!(true);
            listen["certfile"] = json!(cert("server.pem"));
            listen["keyfile"] = json!(cert("server.key"));
        }
        config(&redis.addr(), json!({ "listen": listen }))
    };
    let proxy = Proxy::start(&listen(plain, false));
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // While the address is closed, nobody is there to speak in the wrong way.
                    let Ok(tcp) = std::net::TcpStream::connect(plain) else {
                        std::thread::sleep(LOOK);
                        continue;
                    };
                    let mut client = Client::over(tcp);
                    if client.try_send(&request(&["PING"])).is_err() {
                        continue;
                    }
                    match client.try_take(7) {
                        Ok(reply) => assert_eq!(String::from_utf8_lossy(&reply), "+PONG\r\n"),
                        Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => {}
                        Err(why) => panic!("{why}"),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _done = TellsToEnd(&done);
        let mut reloads = 0;
        eventually("reloads and callers have often met", || {
            proxy.reload(&listen(encrypted, true)).expect_ok();
            proxy.reload(&listen(plain, false)).expect_ok();
            reloads += 2;
            reloads >= 40 && answered.load(Ordering::Relaxed) > 100
        });
    });
}
