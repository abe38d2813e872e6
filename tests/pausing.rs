//! `cmd=pause` and `cmd=unpause`: requests wait, nothing is lost, and the answers are true.

use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::common::{
    Answer, Client, FakeUplink, Proxy, Redis, cert, config, eventually, http, redis, request,
};

/// A request that the uplink has and has not answered.
fn running(proxy: &Proxy, fake: &FakeUplink) -> (Client, Client) {
    let mut client = proxy.client();
    client.command(&["GET", "running"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["GET", "running"]));
    (client, uplink)
}

fn finish(client: &mut Client, uplink: &mut Client) {
    uplink.send("$2\r\nok\r\n");
    client.expect("$2\r\nok\r\n");
}

#[test]
fn a_pause_holds_new_requests_and_lets_running_ones_finish() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let (mut first, mut uplink) = running(&proxy, &fake);
    proxy.cmd("pause").expect_ok();
    let info = proxy.info();
    assert_eq!((&info["state"], &info["state_str"]), (&json!(3), &json!("pausing")));
    assert_eq!(info["active_requests"], 1);

    let mut second = proxy.client();
    second.command(&["GET", "waiting"]);
    proxy.shows("waiting_requests", 1);
    finish(&mut first, &mut uplink);
    proxy.shows("state", 4);
    let info = proxy.info();
    assert_eq!((&info["active_requests"], &info["state_str"]), (&json!(0), &json!("paused")));

    proxy.cmd("unpause").expect_ok();
    let mut other = fake.accept();
    other.expect(request(&["GET", "waiting"])).send("$2\r\nok\r\n");
    second.expect("$2\r\nok\r\n");
    proxy.shows("state", 2);
    assert_eq!(proxy.info()["waiting_requests"], 0);
}

#[test]
fn wait_true_answers_when_the_last_running_request_has_ended() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let (mut client, mut uplink) = running(&proxy, &fake);
    let mut caller = proxy.begin_cmd("pause&wait=true");
    proxy.shows("state", 3);
    finish(&mut client, &mut uplink);
    Answer::read(&mut caller).expect_ok();
    assert_eq!(proxy.info()["state"], 4);
    proxy.cmd("pause&wait=true").expect_ok();
}

#[test]
fn wait_true_over_the_limit_is_503_and_names_the_request_and_the_pause_stays() {
    let fake = FakeUplink::bind();
    let config = config(&fake.addr(), json!({ "pause_time_limit_ms": 50 }));
    let proxy = fake.expect_start(|| Proxy::start(&config));
    let (mut client, mut uplink) = running(&proxy, &fake);
    let answer = proxy.cmd("pause&wait=true");
    assert_eq!(answer.status, 503);
    let error = answer.error();
    let named = format!("GET of 127.0.0.1:{}", client.port);
    assert!(error.contains("within 50 ms") && error.contains(&named), "{error}");
    assert_eq!(proxy.info()["state"], 3);
    finish(&mut client, &mut uplink);
    proxy.shows("state", 4);
}

#[test]
fn wait_true_is_409_when_the_pause_is_released_meanwhile() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let (mut client, mut uplink) = running(&proxy, &fake);
    let mut caller = proxy.begin_cmd("pause&wait=true");
    proxy.shows("state", 3);
    proxy.cmd("unpause").expect_ok();
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 409);
    assert!(answer.error().contains("released"), "{answer:?}");
    finish(&mut client, &mut uplink);
    assert_eq!(client_answers(&mut client, &mut uplink), "+OK");
}

fn client_answers(client: &mut Client, uplink: &mut Client) -> String {
    client.command(&["SET", "k", "v"]);
    uplink.expect(request(&["SET", "k", "v"])).send("+OK\r\n");
    client.line()
}

#[test]
fn a_pause_with_time_to_live_releases_itself() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    proxy.cmd("pause&ttl_ms=3600000").expect_ok();
    let left = proxy.info()["pause_ends_in_seconds"].as_f64().unwrap();
    assert!(left > 3000.0 && left <= 3600.0, "{left}");
    proxy.cmd("unpause").expect_ok();
    proxy.cmd("pause&ttl_ms=1").expect_ok();
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
    proxy.shows("state", 2);
}

#[test]
fn of_two_pauses_the_longer_counts_and_one_unpause_ends_both() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    proxy.cmd("pause&ttl_ms=1").expect_ok();
    proxy.cmd("pause&ttl_ms=3600000").expect_ok();
    proxy.cmd("pause&ttl_ms=1").expect_ok();
    let mut client = proxy.client();
    client.command(&["PING"]);
    proxy.shows("waiting_requests", 1);
    proxy.cmd("pause").expect_ok();
    assert_eq!(proxy.info()["pause_ends_in_seconds"], json!(null), "for ever is the longest");
    proxy.cmd("unpause").expect_ok();
    assert_eq!(client.line(), "+PONG");
}

#[test]
fn unpause_without_a_pause_is_fine() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    proxy.cmd("unpause").expect_ok();
    assert_eq!(proxy.info()["state"], 2);
}

#[test]
fn a_pause_takes_effect_under_an_endless_pipeline() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let addr = proxy.addr();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tcp = std::net::TcpStream::connect(addr).unwrap();
            let mut reader = Client::over(tcp.try_clone().unwrap());
            let mut writer = Client::over(tcp);
            let (pings, pongs) = (request(&["PING"]).repeat(100), b"+PONG\r\n".repeat(100));
            // Always some way ahead of the replies.
            for _ in 0..20 {
                writer.send(&pings);
            }
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                reader.expect(&pongs);
                writer.send(&pings);
            }
        });
        eventually("requests flow", || proxy.metric("redis_proxy_requests_total") > 1000.0);
        proxy.cmd("pause&wait=true").expect_ok();
        assert_eq!(proxy.info()["active_requests"], 0);
        proxy.shows("waiting_requests", 1);
        let before = proxy.metric("redis_proxy_requests_total");
        assert_eq!(proxy.metric("redis_proxy_requests_total"), before);
        proxy.cmd("unpause").expect_ok();
        eventually("requests flow again", || {
            proxy.metric("redis_proxy_requests_total") > before + 1000.0
        });
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_client_that_does_not_read_is_named_and_holds_up_a_pause_no_longer_than_the_limit() {
    let redis = redis();
    redis.client().command(&["SETRANGE", "big", "67108864", "x"]).line();
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "pause_time_limit_ms": 50 })));
    let mut client = proxy.client();
    client.command(&["GET", "big"]);
    assert_eq!(client.line(), "$67108865");
    // Until the sockets are full, it is just being answered.
    eventually("it is known that it does not read", || {
        let error = proxy.cmd("pause&wait=true").error();
        assert!(error.contains("GET of"), "{error}");
        error.contains("does not read its replies")
    });
    let other = crate::common::redis();
    let answer = proxy.reload(&config(&other.addr(), json!({ "pause_time_limit_ms": 50 })));
    assert_eq!(answer.status, 503, "{answer:?}");
}

fn listening(redis: &Redis, with_tls: bool) -> Proxy {
    let mut listen = json!({ "addr": "127.0.0.1:0" });
    if with_tls {
        listen["tls"] = json!(true);
        listen["certfile"] = json!(cert("server.pem"));
        listen["keyfile"] = json!(cert("server.key"));
    }
    Proxy::start(&config(&redis.addr(), json!({ "listen": listen })))
}

fn connect(proxy: &Proxy, with_tls: bool) -> Client {
    match with_tls {
        true => Client::connect_tls(&proxy.addr(), None).unwrap(),
        false => proxy.client(),
    }
}

#[test]
fn a_client_that_hangs_up_while_it_waits_is_noticed_and_its_requests_are_dropped() {
    let redis = redis();
    for with_tls in [false, true] {
        let proxy = listening(&redis, with_tls);
        let connect = || connect(&proxy, with_tls);
        let (mut early, mut late) = (connect(), connect());
        early.ask(&["PING"]);
        proxy.cmd("pause&wait=true").expect_ok();
        // Both that has been connected before, and one that has not.
        for client in [&mut early, &mut late] {
            client.command(&["INCR", "never"]);
        }
        proxy.shows("waiting_requests", 2);
        // More than the proxy has read, so that the end stands behind unread bytes.
        late.command(&["INCR", "never"]);
        drop((early, late));
        proxy.shows("waiting_requests", 0);
        proxy.shows("clients", 0);
        proxy.cmd("unpause").expect_ok();
        assert_eq!(connect().ask(&["EXISTS", "never"]), ":0");
    }
}

#[test]
fn all_that_came_while_waiting_is_served_in_order() {
    let redis = redis();
    for with_tls in [false, true] {
        let proxy = listening(&redis, with_tls);
        let mut client = connect(&proxy, with_tls);
        redis.client().ask(&["FLUSHALL"]);
        client.ask(&["PING"]);
        proxy.cmd("pause&wait=true").expect_ok();
        let value = "x".repeat(1000);
        let mut wanted = String::new();
        for number in 1..=200 {
            // Each is its own write, so that the proxy hears of many while it waits; half of a
            // request at a time.
            let push = request(&["RPUSH", "list", &value]);
            client.send(&push[..500]).send(&push[500..]);
            wanted += &format!(":{number}\r\n");
            if number == 1 {
                proxy.shows("waiting_requests", 1);
            }
        }
        assert_eq!(redis.client().ask(&["EXISTS", "list"]), ":0");
        proxy.cmd("unpause").expect_ok();
        client.expect(wanted);
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
}

#[test]
fn the_time_that_a_request_waits_counts_against_no_limit() {
    let redis = redis();
    // Whatever is to be answered is answered within that.
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "read_time_limit_ms": 4000 })));
    let mut client = proxy.client();
    client.ask(&["PING"]);
    proxy.cmd("pause").expect_ok();
    client.command(&["PING"]);
    proxy.shows("waiting_requests", 1);
    let waits = std::time::Instant::now();
    eventually("it has waited for longer than the limit", || waits.elapsed().as_millis() > 4500);
    assert_eq!(proxy.info()["waiting_requests"], 1);
    proxy.cmd("unpause").expect_ok();
    assert_eq!(client.line(), "+PONG");
    assert!(proxy.metric("redis_proxy_parked_seconds_sum") > 4.5);
}

#[test]
fn half_a_request_holds_up_nothing_however_long_it_is_and_goes_on_afterwards() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    for (size, here) in [(100, 20), (60_000, 30_000), (1_000_000, 500_000)] {
        let mut client = proxy.client();
        let first = request(&["SET", "first", &"x".repeat(size)]);
        client.send([&request(&["DEL", "first", "second"])[..], &first[..here]].concat());
        assert!(client.line().starts_with(':'));
        let answer = proxy.cmd("pause&wait=true");
        answer.expect_ok();
        client.send([&first[here..], &request(&["SET", "second", "x"])].concat());
        proxy.shows("waiting_requests", 1);
        assert_eq!(redis.client().ask(&["EXISTS", "first", "second"]), ":0");
        proxy.cmd("unpause").expect_ok();
        client.expect("+OK\r\n+OK\r\n");
        assert_eq!(redis.client().ask(&["STRLEN", "first"]), format!(":{size}"));
    }
}

#[test]
fn half_a_request_is_no_obstacle_to_a_reload_and_a_short_one_survives_it() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    let set = request(&["SET", "k", &"x".repeat(100)]);
    let long = request(&["SET", "long", &"x".repeat(1_000_000)]);
    let (mut short, mut half) = (proxy.client(), proxy.client());
    for client in [&mut short, &mut half] {
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
    short.send(&set[..40]);
    half.send(&long[..500_000]);
    proxy.has_read(2 * request(&["PING"]).len() + 40 + 500_000);
    eventually("it is known that no more comes", || proxy.info()["active_requests"] == 0);
    proxy.reload(&config(&two.addr(), json!({}))).expect_ok();
    short.send(&set[40..]).expect("+OK\r\n");
    assert_eq!(two.client().ask(&["EXISTS", "k"]), ":1");
    half.expect_closed();
    proxy.closed("a long request of which only a part has come");
}

#[test]
fn those_who_wait_are_closed_at_a_stop() {
    let redis = redis();
    let mut proxy = Proxy::to(&redis.addr());
    proxy.cmd("pause").expect_ok();
    let mut client = proxy.client();
    client.command(&["INCR", "never"]);
    proxy.shows("waiting_requests", 1);
    proxy.signal(Signal::TERM);
    client.expect_closed();
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(redis.client().ask(&["EXISTS", "never"]), ":0");
}

#[test]
fn commands_during_a_stop_are_refused() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let (mut client, mut uplink) = running(&proxy, &fake);
    let mut caller = proxy.caller();
    http(&mut caller, "GET", "/healthz", "", "");
    let mut waiting = proxy.begin_cmd("pause&wait=true");
    proxy.shows("state", 3);
    proxy.signal(Signal::TERM);
    let answer = Answer::read(&mut waiting);
    assert_eq!((answer.status, answer.error().as_str()), (409, "the proxy is stopping"));
    for cmd in ["pause", "unpause", "reload"] {
        let answer = http(&mut caller, "POST", "/cmd/", "", &format!("cmd={cmd}"));
        assert_eq!((answer.status, answer.error().as_str()), (409, "the proxy is stopping"));
    }
    let info = http(&mut caller, "GET", "/info.json", "", "").json();
    assert_eq!((&info["state"], &info["state_str"]), (&json!(5), &json!("stopping")));
    assert_eq!(http(&mut caller, "GET", "/healthz", "", "").status, 200);
    assert_eq!(http(&mut caller, "GET", "/readyz", "", "").status, 503);
    uplink.send("$2\r\nok\r\n");
    assert_eq!(client.rest(), "$2\r\nok\r\n");
}

#[test]
fn a_pause_interrupts_commands_that_wait_for_data_and_asks_again_when_it_ends() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut waiting = proxy.client();
    waiting.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 1);
    proxy.cmd("pause&wait=true").expect_ok();
    assert_eq!(proxy.info()["state_str"], "paused");
    // Nobody waits for it there.
    let mut direct = redis.client();
    assert_eq!(direct.run("RPUSH queue v"), "1");
    assert_eq!(direct.run("LLEN queue"), "1");
    proxy.cmd("unpause").expect_ok();
    assert_eq!(waiting.reply(), "[queue, v]");
    // And again, as often as one likes.
    waiting.command(&["BLPOP", "queue", "0"]);
    for _ in 0..10 {
        proxy.shows("active_requests", 1);
        proxy.cmd("pause&wait=true").expect_ok();
        proxy.cmd("unpause").expect_ok();
    }
    assert_eq!(direct.run("RPUSH queue w"), "1");
    assert_eq!(waiting.reply(), "[queue, w]");
}

#[test]
fn a_pause_interrupts_commands_once_an_uplink_answers_that_was_silent_at_first() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut waiting = proxy.client();
    waiting.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 1);
    kill_process(redis.pid(), Signal::STOP).unwrap();
    proxy.cmd("pause").expect_ok();
    proxy.logged("a look in vain", |line| {
        line["message"].as_str().unwrap().contains("are not interrupted yet")
    });
    kill_process(redis.pid(), Signal::CONT).unwrap();
    proxy.shows("state_str", "paused");
    let mut direct = redis.client();
    assert_eq!(direct.run("RPUSH queue v"), "1");
    assert_eq!(direct.run("LLEN queue"), "1", "nobody waits there");
    proxy.cmd("unpause").expect_ok();
    assert_eq!(waiting.reply(), "[queue, v]");
}

#[test]
fn without_the_right_to_unblock_a_pause_waits_for_commands_that_wait_and_names_them() {
    let redis = redis();
    let rights = "ACL SETUSER proxy on >pw ~* &* +@all -client|unblock";
    assert_eq!(redis.client().run(rights), "OK");
    let mut config = config("", json!({ "pause_time_limit_ms": 300 }));
    config["uplink"] = json!({ "addr": redis.addr(), "user": "proxy", "pass": "pw" });
    let proxy = Proxy::start(&config);
    let mut waiting = proxy.client();
    waiting.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 1);
    let answer = proxy.cmd("pause&wait=true");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("still running: BLPOP of"), "{answer:?}");
    assert_eq!(redis.client().run("RPUSH queue v"), "1");
    assert_eq!(waiting.reply(), "[queue, v]");
    proxy.shows("state_str", "paused");
}
