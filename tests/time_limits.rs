//! Hard limits on requests, lazily timed and exactly told.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{FakeUplink, Proxy, config, redis, request};

/// Milliseconds within which whatever is to be answered is, on a busy machine, too.
const ENOUGH: u64 = 5000;

fn told(limit: u64) -> String {
    format!("-ERR redis-proxy: time limit of {limit} ms exceeded\r\n")
}

fn limited(uplink: &str, limits: Value) -> Proxy {
    Proxy::start(&config(uplink, limits))
}

#[test]
fn a_request_over_its_limit_is_told_and_closed() {
    let fake = FakeUplink::bind();
    let proxy =
        fake.expect_start(|| limited(&fake.addr(), json!({ "read_time_limit_ms": ENOUGH })));
    let mut client = proxy.client();
    let begun = Instant::now();
    client.send("GET a\r\nGET b\r\n");
    let mut uplink = fake.accept();
    uplink.expect([request(&["GET", "a"]), request(&["GET", "b"])].concat()).send("$-1\r\n");
    assert_eq!(client.rest(), format!("$-1\r\n{}", told(ENOUGH)));
    assert!(begun.elapsed() >= Duration::from_millis(ENOUGH));
    uplink.expect_closed();
    proxy.closed("time limit of 5000 ms exceeded");
}

#[test]
fn a_reply_that_has_begun_is_cut_without_a_word() {
    let fake = FakeUplink::bind();
    let proxy =
        fake.expect_start(|| limited(&fake.addr(), json!({ "read_time_limit_ms": ENOUGH })));
    let mut client = proxy.client();
    client.command(&["GET", "a"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["GET", "a"])).send("$5\r\nab");
    assert_eq!(client.rest(), "$5\r\nab");
}

#[test]
fn the_limit_is_for_each_request_and_idle_time_is_free() {
    let redis = redis();
    let proxy = limited(&redis.addr(), json!({ "read_time_limit_ms": ENOUGH }));
    let mut client = proxy.client();
    let begun = Instant::now();
    // Longer than the limit in all, with each request far below it.
    for _ in 0..6 {
        client.command(&["BLPOP", "nothing", "1"]).expect("*-1\r\n");
    }
    assert!(begun.elapsed() > Duration::from_millis(ENOUGH));
    client.command(&["PING"]).expect("+PONG\r\n");
}

#[test]
fn blocking_commands_have_a_limit_of_their_own() {
    let redis = redis();
    let limits = json!({ "read_time_limit_ms": 3_600_000, "blocking_time_limit_ms": 400 });
    let proxy = limited(&redis.addr(), limits);
    for args in [
        &["BLPOP", "q", "0"][..],
        &["BRPOPLPUSH", "q", "r", "0"],
        &["BZPOPMIN", "z", "0"],
        &["XREAD", "COUNT", "1", "BLOCK", "0", "STREAMS", "s", "$"],
    ] {
        let mut client = proxy.client();
        let begun = Instant::now();
        client.command(args);
        assert_eq!(client.rest(), told(400));
        assert!(begun.elapsed() >= Duration::from_millis(400));
    }
}

#[test]
fn zero_means_no_limit_for_blocking_commands() {
    let redis = redis();
    let limits = json!({ "read_time_limit_ms": 300, "blocking_time_limit_ms": 0 });
    let proxy = limited(&redis.addr(), limits);
    let mut client = proxy.client();
    // Redis itself ends it, long after the other limit.
    client.command(&["BLPOP", "q", "1.5"]).expect("*-1\r\n");
}

#[test]
fn without_a_blocking_limit_the_read_limit_applies_to_both() {
    let redis = redis();
    let proxy = limited(&redis.addr(), json!({ "read_time_limit_ms": 100 }));
    let mut client = proxy.client();
    client.command(&["BLPOP", "q", "0"]);
    assert_eq!(client.rest(), told(100));
}

#[test]
fn a_cut_client_that_does_not_read_is_let_go() {
    let fake = FakeUplink::bind();
    let proxy =
        fake.expect_start(|| limited(&fake.addr(), json!({ "read_time_limit_ms": ENOUGH })));
    let mut client = proxy.client();
    client.command(&["GET", "a"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["GET", "a"])).send("$1000000000\r\n");
    let writer = std::thread::spawn(move || {
        // Ends when the proxy cuts the connection.
        while uplink.try_send(&[b'x'; 65536]).is_ok() {}
    });
    // A reply that never ends, to a client that never reads it.
    proxy.closed("the client did not read its last replies");
    writer.join().unwrap();
}
