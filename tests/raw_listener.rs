//! `listen_raw`: bytes both ways, nothing understood.

use rustix::process::Signal;
use serde_json::json;

use crate::common::{FakeUplink, Proxy, Redis, redis, request};

fn raw(uplink: &str) -> Proxy {
    Proxy::start(&json!({
        "uplink": { "addr": uplink },
        "listen": { "addr": "127.0.0.1:0", "pass": "p" },
        "listen_raw": { "addr": "127.0.0.1:0" },
    }))
}

#[test]
fn a_raw_client_speaks_with_the_uplink_itself() {
    let redis = Redis::start(&["--requirepass", "up"]);
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr(), "pass": "up" },
        "listen": { "addr": "127.0.0.1:0" },
        "listen_raw": { "addr": "127.0.0.1:0" },
    }));
    let mut client = proxy.raw_client();
    assert_eq!(client.ask(&["PING"]), "-NOAUTH Authentication required.");
    assert_eq!(client.ask(&["AUTH", "up"]), "+OK");
    assert_eq!(client.ask(&["REPLCONF", "listening-port", "1"]), "+OK");
}

#[test]
fn each_side_may_end_its_own_direction() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| raw(&fake.addr()));
    let mut client = proxy.raw_client();
    let mut uplink = fake.accept();
    client.send(b"all I have\x00\xff").half_close();
    uplink.expect(b"all I have\x00\xff").expect_closed();
    uplink.send("late answer");
    drop(uplink);
    assert_eq!(client.rest(), "late answer");
}

#[test]
fn a_replica_synchronises_through_it() {
    let primary = redis();
    let proxy = raw(&primary.addr());
    assert_eq!(primary.client().ask(&["SET", "k", "v"]), "+OK");
    let replica = redis();
    let addr = proxy.addr_of("listen_raw");
    let (host, port) = addr.split_once(':').unwrap();
    let mut client = replica.client();
    assert_eq!(client.ask(&["REPLICAOF", host, port]), "+OK");
    crate::common::eventually("the key arrives", || client.ask(&["EXISTS", "k"]) == ":1");
}

#[test]
fn it_ends_when_the_proxy_stops() {
    let fake = FakeUplink::bind();
    let mut proxy = fake.expect_start(|| raw(&fake.addr()));
    let mut client = proxy.raw_client();
    let mut uplink = fake.accept();
    client.send(request(&["PING"]));
    uplink.expect(request(&["PING"]));
    proxy.signal(Signal::TERM);
    client.expect_closed();
    uplink.expect_closed();
    assert_eq!(proxy.ended().code(), Some(0));
}
