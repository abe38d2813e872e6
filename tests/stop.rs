//! SIGTERM and SIGINT: no new clients, running requests finish, sockets are removed.

use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::json;

use crate::common::{FakeUplink, Proxy, cert, config, eventually, redis, request};

#[test]
fn running_requests_finish_and_idle_clients_are_closed() {
    let fake = FakeUplink::bind();
    let mut proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let addr = proxy.addr();
    let (mut idle, mut busy) = (proxy.client(), proxy.client());
    busy.command(&["GET", "k"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["GET", "k"]));
    proxy.signal(Signal::TERM);
    idle.expect_closed();
    eventually("no new clients", || TcpStream::connect(&addr).is_err());
    uplink.send("$1\r\nv\r\n");
    assert_eq!(busy.rest(), "$1\r\nv\r\n");
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn sigint_stops_as_well() {
    let redis = redis();
    let mut proxy = Proxy::to(&redis.addr());
    proxy.signal(Signal::INT);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn what_does_not_finish_is_cut_off_after_the_limit() {
    let redis = redis();
    let mut proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr() },
        "listen": { "addr": "127.0.0.1:0" },
        "stop_time_limit_ms": 200,
    }));
    let mut client = proxy.client();
    client.send("PING\r\nBLPOP q 0\r\n").expect("+PONG\r\n");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
    client.expect_closed();
    proxy.logged("cut off", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("cut off"))
    });
}

#[test]
fn a_second_signal_stops_at_once() {
    let fake = FakeUplink::bind();
    let start = || {
        Proxy::start(&json!({
            "uplink": { "addr": fake.addr() },
            "listen": { "addr": "127.0.0.1:0" },
            "stop_time_limit_ms": 3_600_000,
        }))
    };
    let mut proxy = fake.expect_start(start);
    let mut client = proxy.client();
    client.command(&["GET", "k"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["GET", "k"]));
    proxy.signal(Signal::TERM);
    proxy.logged("stopping", |line| line["message"] == "stopping");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_tls_handshake_that_does_not_end_holds_up_nothing() {
    let redis = redis();
    let mut proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr() },
        "listen": {
            "addr": "127.0.0.1:0", "tls": true,
            "certfile": cert("server.pem"), "keyfile": cert("server.key"),
        },
        "connect_time_limit_ms": 3_600_000,
        "stop_time_limit_ms": 3_600_000,
    }));
    let _silent = proxy.client();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_stop_during_the_start_is_a_stop() {
    let fake = FakeUplink::bind();
    let mut proxy = Proxy::launch(&config(&fake.addr(), json!({})));
    let mut uplink = fake.accept();
    uplink.expect(request(&["PING"]));
    proxy.signal(Signal::HUP);
    proxy.logged("it goes on", |line| line["message"] == "not running: no reload");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn sighup_while_stopping_cuts_nobody_off() {
    let fake = FakeUplink::bind();
    let mut proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["GET", "k"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["GET", "k"]));
    proxy.signal(Signal::TERM);
    proxy.logged("stopping", |line| line["message"] == "stopping");
    proxy.signal(Signal::HUP);
    proxy.logged("a word about it", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("no reload"))
    });
    uplink.send("$1\r\nv\r\n");
    assert_eq!(client.rest(), "$1\r\nv\r\n");
    assert_eq!(proxy.ended().code(), Some(0));
}
