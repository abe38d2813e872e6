//! Slow peers cost a few buffers, whatever the size of what they exchange.

use crate::common::{FakeUplink, Proxy, eventually, redis, request};

/// Far above one session's buffers, far below what the tests send.
const FEW_BUFFERS_KIB: u64 = 4 * 1024;
const BIG: usize = 64 * 1024 * 1024;

#[test]
fn a_large_value_passes_through_fixed_buffers() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let before = proxy.memory_kib("VmRSS");
    let value = vec![b'x'; BIG];
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${BIG}\r\n")).send(&value).send("\r\n");
    client.expect("+OK\r\n").command(&["GET", "k"]).expect(format!("${BIG}\r\n"));
    assert!(client.take(BIG) == value);
    client.expect("\r\n");
    let grown = proxy.memory_kib("VmHWM") - before;
    assert!(grown < FEW_BUFFERS_KIB, "grew by {grown} KiB");
}

#[test]
fn a_client_that_never_reads_holds_up_itself_alone() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut lazy, mut other) = (proxy.client(), proxy.client());
    assert_eq!(other.ask(&["SETRANGE", "k", &BIG.to_string(), "x"]), format!(":{}", BIG + 1));
    let before = proxy.memory_kib("VmRSS");
    lazy.send(request(&["GET", "k"]).repeat(4));
    // The reply has begun to come.
    lazy.expect(format!("${}\r\n", BIG + 1));
    for _ in 0..100 {
        assert_eq!(other.ask(&["PING"]), "+PONG");
    }
    let grown = proxy.memory_kib("VmHWM") - before;
    assert!(grown < FEW_BUFFERS_KIB, "grew by {grown} KiB");
}

#[test]
fn an_uplink_that_never_reads_stops_the_client() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.send("PING\r\n");
    let mut uplink = fake.accept();
    uplink.expect(request(&["PING"])).send("+PONG\r\n");
    client.expect("+PONG\r\n");
    let before = proxy.memory_kib("VmRSS");
    let mut writer = std::thread::spawn(move || {
        client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${BIG}\r\n"));
        client.send(vec![b'x'; BIG]).send("\r\n");
        client
    });
    // Only when the uplink begins to read can the client have written all.
    assert!(!writer.is_finished());
    uplink.expect(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${BIG}\r\n"));
    uplink.take(BIG);
    uplink.expect("\r\n").send("+OK\r\n");
    writer = {
        let mut client = writer.join().unwrap();
        client.expect("+OK\r\n");
        std::thread::spawn(move || client)
    };
    drop(writer.join().unwrap());
    let grown = proxy.memory_kib("VmHWM") - before;
    assert!(grown < FEW_BUFFERS_KIB, "grew by {grown} KiB");
}

#[test]
fn more_pushes_than_the_client_reads_stay_in_the_uplink() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.send("PING\r\n");
    let mut uplink = fake.accept();
    uplink.expect(request(&["PING"])).send("+PONG\r\n");
    client.expect("+PONG\r\n");
    let before = proxy.memory_kib("VmRSS");
    let push = format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1000\r\n{}\r\n", "k".repeat(1000));
    let count = BIG / push.len();
    let writer = std::thread::spawn({
        let pushes = push.repeat(count);
        move || {
            uplink.send(pushes);
        }
    });
    for _ in 0..count {
        client.expect(&push);
    }
    writer.join().unwrap();
    let grown = proxy.memory_kib("VmHWM") - before;
    assert!(grown < FEW_BUFFERS_KIB, "grew by {grown} KiB");
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_is_served_beside_others() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut slow, mut other) = (proxy.client(), proxy.client());
    for byte in request(&["SET", "k", "slow"]) {
        slow.send([byte]);
        assert_eq!(other.ask(&["PING"]), "+PONG");
    }
    slow.expect("+OK\r\n");
}

#[test]
fn closed_sessions_leave_nothing_behind() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
    let mut first = proxy.client();
    assert_eq!(first.ask(&["PING"]), "+PONG");
    drop(first);
    for round in 0..3 {
        let mut clients: Vec<_> = (0..100).map(|_| proxy.client()).collect();
        for client in &mut clients {
            assert_eq!(client.ask(&["PING"]), "+PONG");
        }
        assert!(proxy.descriptors() > 200, "round {round}");
        drop(clients);
        eventually("all descriptors are closed", || proxy.descriptors() < 40);
    }
}
