//! What is broken is told or closed, and nobody else notices.

use crate::common::{FakeUplink, Proxy, redis, request};

#[test]
fn a_broken_request_gets_redis_own_text_and_nothing_after_it_is_forwarded() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    for (bytes, text) in [
        ("*x\r\n", "invalid multibulk length"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$-5\r\n", "invalid bulk length"),
        ("*1\r\n$1000000000\r\n", "invalid bulk length"),
        ("*1\r\nPING\r\n", "expected '$', got 'P'"),
        ("GET \"x\r\n", "unbalanced quotes in request"),
        ("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$x\r\n", "invalid bulk length"),
        ("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nvv", "expected CRLF"),
    ] {
        let mut client = proxy.client();
        client.send(format!("SET before 1\r\n{bytes}"));
        // Fails where the proxy has closed already.
        let _ = client.try_send(b"SET after 1\r\n");
        assert_eq!(client.rest(), format!("+OK\r\n-ERR Protocol error: {text}\r\n"));
    }
    let mut client = proxy.client();
    assert_eq!(client.ask(&["EXISTS", "before", "after", "k"]), ":1");
}

#[test]
fn limits_before_auth_are_those_of_redis() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "p");
    for (bytes, text) in [
        ("*11\r\n", "unauthenticated multibulk length"),
        ("*1\r\n$16385\r\n", "unauthenticated bulk length"),
        ("*1\r\n$536870912\r\n", "unauthenticated bulk length"),
        ("*1\r\n$536870913\r\n", "invalid bulk length"),
        ("*2147483648\r\n", "invalid multibulk length"),
    ] {
        let mut client = proxy.client();
        client.send(bytes);
        assert_eq!(client.rest(), format!("-ERR Protocol error: {text}\r\n"));
    }
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "p"]), "+OK");
    let many: Vec<&str> = std::iter::once("DEL").chain(std::iter::repeat_n("k", 100)).collect();
    assert_eq!(client.ask(&many), ":0");
}

#[test]
fn a_tls_client_on_a_plain_listener_is_closed() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03").expect_closed();
    proxy.closed("speaks TLS");
}

#[test]
fn deep_nesting_from_the_uplink_ends_that_session_alone() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut other = proxy.client();
    other.command(&["PING"]);
    let mut other_uplink = fake.accept();
    other_uplink.expect(request(&["PING"]));

    let mut client = proxy.client();
    client.command(&["GET", "k"]);
    fake.accept().expect(request(&["GET", "k"])).send("*1\r\n".repeat(100_000));
    client.rest();
    proxy.closed("nested more than");
    other_uplink.send("+PONG\r\n");
    other.expect("+PONG\r\n");
}

#[test]
fn garbage_from_the_uplink_closes_the_client_and_is_logged() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.send("GET a\r\nGET b\r\n");
    let mut uplink = fake.accept();
    uplink.expect([request(&["GET", "a"]), request(&["GET", "b"])].concat());
    uplink.send("$1\r\na\r\nHTTP/1.1 400\r\n");
    assert_eq!(client.rest(), "$1\r\na\r\n");
    proxy.closed("the uplink broke the protocol: unknown type byte 0x48");
    uplink.expect_closed();
}

#[test]
fn an_uplink_that_closes_before_its_reply_closes_the_client_without_a_word() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["GET", "a"]);
    fake.accept().expect(request(&["GET", "a"]));
    assert_eq!(client.rest(), "");
    proxy.closed("the uplink closed the connection");
}

#[test]
fn an_uplink_that_closes_within_its_reply_closes_the_client() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["GET", "a"]);
    fake.accept().expect(request(&["GET", "a"])).send("$5\r\nab");
    // No word of the proxy's own may stand where the value's bytes belong.
    assert_eq!(client.rest(), "$5\r\nab");
}

#[test]
fn an_uplink_that_closes_an_idle_connection_closes_the_client() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["PING"]);
    fake.accept().expect(request(&["PING"])).send("+PONG\r\n");
    client.expect("+PONG\r\n").expect_closed();
    proxy.closed("the uplink closed the connection");
}

#[test]
fn a_reply_that_nobody_asked_for_closes_the_session() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["PING"]);
    fake.accept().expect(request(&["PING"])).send("+PONG\r\n+PONG\r\n");
    client.expect("+PONG\r\n").expect_closed();
    proxy.closed("nobody asked for");
}

#[test]
fn an_error_line_before_the_uplink_closes_is_the_reply() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["PING"]);
    fake.accept().expect(request(&["PING"])).send("-ERR max number of clients reached\r\n");
    assert_eq!(client.rest(), "-ERR max number of clients reached\r\n");
}

#[test]
fn random_bytes_from_clients_harm_nobody() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut good = proxy.client();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            b"*$:+-0123\r\n \"'abGETS\x00\xff"[(seed % 22) as usize]
        })
        .take(200)
        .collect();
        let mut client = proxy.client();
        let _ = client.try_send(&bytes);
        client.half_close().rest();
        assert_eq!(good.ask(&["PING"]), "+PONG");
    }
}

#[test]
fn an_answer_before_the_request_is_complete_leaves_the_gate_in_order() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let begun = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n{}", "x".repeat(70_000));
    for _ in 0..4 {
        let mut client = proxy.client();
        client.send(&begun);
        let mut uplink = fake.accept();
        uplink.expect(&begun).send("-ERR too long\r\n");
        client.expect("-ERR too long\r\n").half_close().expect_closed();
    }
    let mut client = proxy.client();
    client.command(&["PING"]);
    fake.accept().expect(request(&["PING"])).send("+PONG\r\n");
    client.expect("+PONG\r\n");
}

#[test]
fn a_login_refused_after_reset_repeats_no_reply() {
    let fake = FakeUplink::bind();
    let login = request(&["AUTH", "up"]);
    let start = || {
        Proxy::start(&serde_json::json!({
            "uplink": { "addr": fake.addr(), "pass": "up" },
            "listen": { "addr": "127.0.0.1:0" },
        }))
    };
    let proxy = fake.expect_start_with(&login, start);
    let mut client = proxy.client();
    client.send("GET a\r\nRESET\r\nGET b\r\n");
    let mut uplink = fake.accept();
    uplink.expect([&login[..], &request(&["CLIENT", "ID"])].concat()).send("+OK\r\n:7\r\n");
    uplink.expect(request(&["GET", "a"])).expect(request(&["RESET"]));
    // Nothing is sent behind RESET before it is known whether the uplink knows it.
    uplink.send("$1\r\na\r\n+RESET\r\n").expect(&login).send("-WRONGPASS changed meanwhile\r\n");
    assert_eq!(client.rest(), "$1\r\na\r\n+RESET\r\n");
}

#[test]
fn an_http_request_is_closed_as_redis_closes_it() {
    let redis = redis();
    for proxy in [Proxy::to(&redis.addr()), Proxy::with_pass(&redis.addr(), "p")] {
        for request in ["POST / HTTP/1.1\r\nAUTH p\r\nSET k v\r\n", "Host: x\r\nAUTH p\r\n"] {
            proxy.client().send(request).expect_closed();
        }
        proxy.closed("speaks HTTP");
    }
    assert_eq!(redis.client().ask(&["EXISTS", "k"]), ":0");
}
