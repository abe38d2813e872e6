//! Pub/sub, MONITOR and pushes pass through while the uplink stays the same.

use serde_json::json;

use crate::common::{Client, FakeUplink, Proxy, config, redis, request};

fn confirmation(mark: char, kind: &str, channel: &str, count: u32) -> String {
    let (kind_len, len) = (kind.len(), channel.len());
    format!("{mark}3\r\n${kind_len}\r\n{kind}\r\n${len}\r\n{channel}\r\n:{count}\r\n")
}

fn message(mark: char, channel: &str, text: &str) -> String {
    let (channel_len, len) = (channel.len(), text.len());
    format!("{mark}3\r\n$7\r\nmessage\r\n${channel_len}\r\n{channel}\r\n${len}\r\n{text}\r\n")
}

#[test]
fn resp2_subscriptions_confirmations_and_messages() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut subscriber, mut publisher) = (proxy.client(), proxy.client());
    subscriber.send("SUBSCRIBE a b\r\nPSUBSCRIBE p*\r\n");
    subscriber.expect(confirmation('*', "subscribe", "a", 1));
    subscriber.expect(confirmation('*', "subscribe", "b", 2));
    subscriber.expect(confirmation('*', "psubscribe", "p*", 3));
    assert_eq!(publisher.ask(&["PUBLISH", "a", "one"]), ":1");
    subscriber.expect(message('*', "a", "one"));
    subscriber.send("PING\r\n").expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    // Without arguments: as many confirmations as there are channels.
    subscriber.send("UNSUBSCRIBE\r\nPUNSUBSCRIBE\r\nUNSUBSCRIBE\r\nGET k\r\nAUTH x\r\n");
    let first = subscriber.take(confirmation('*', "unsubscribe", "a", 2).len());
    assert!(first.starts_with(b"*3\r\n$11\r\nunsubscribe\r\n"));
    subscriber.take(first.len());
    subscriber.expect(confirmation('*', "punsubscribe", "p*", 0));
    subscriber.expect("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n$-1\r\n");
    // What the proxy says itself comes after all of them: they were counted right.
    subscriber.expect("-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n");
}

#[test]
fn resp3_subscriptions_are_pushes_between_replies() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut subscriber, mut publisher) = (proxy.client(), proxy.client());
    resp3(&mut subscriber);
    subscriber.send("SUBSCRIBE a b\r\nGET k\r\nSSUBSCRIBE s\r\nAUTH x\r\n");
    subscriber.expect(confirmation('>', "subscribe", "a", 1));
    subscriber.expect(confirmation('>', "subscribe", "b", 2));
    subscriber.expect("_\r\n").expect(confirmation('>', "ssubscribe", "s", 1));
    subscriber.expect("-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n");
    assert_eq!(publisher.ask(&["PUBLISH", "a", "one"]), ":1");
    subscriber.expect(message('>', "a", "one"));
    // A list that looks like a message is a reply all the same.
    subscriber.send("RPUSH l message a b\r\nLRANGE l 0 -1\r\nAUTH x\r\n");
    subscriber.expect(":3\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n");
    subscriber.expect("-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n");
    subscriber.send("UNSUBSCRIBE\r\nSUNSUBSCRIBE\r\nPING\r\nQUIT\r\n");
    let one = confirmation('>', "unsubscribe", "a", 0).len();
    let rest = subscriber.rest();
    assert_eq!(rest.len(), 2 * one + confirmation('>', "sunsubscribe", "s", 0).len() + 12);
    assert!(rest.ends_with("+PONG\r\n+OK\r\n"));
}

fn resp3(client: &mut Client) {
    client.command(&["HELLO", "3"]);
    while client.line() != "*0" {}
}

#[test]
fn subscribing_inside_multi_shifts_no_reply() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("MULTI\r\nSUBSCRIBE a\r\nEXEC\r\nPING\r\nAUTH x\r\n");
    client.expect("+OK\r\n+QUEUED\r\n*1\r\n").expect(confirmation('*', "subscribe", "a", 1));
    client.expect("*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    client.expect("-ERR Can't execute 'auth': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n");
}

#[test]
fn a_refused_subscription_is_one_error() {
    let redis = redis();
    let mut direct = redis.client();
    assert_eq!(direct.ask(&["ACL", "SETUSER", "default", "resetchannels", "&open"]), "+OK");
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("SUBSCRIBE closed1 closed2\r\nPING\r\nAUTH x\r\n");
    assert!(client.line().starts_with("-NOPERM"));
    client.expect("+PONG\r\n-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n");
}

#[test]
fn confirmations_come_in_spite_of_client_reply_off() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nCLIENT REPLY ON\r\n");
    client.expect(confirmation('*', "subscribe", "a", 1));
}

#[test]
fn client_reply_is_refused_without_a_word_where_only_subscriptions_are_listened_to() {
    let redis = redis();
    let proxy = Proxy::start(&config(&redis.addr(), json!({})));
    for pieces in [1, 2, 6] {
        let mut client = proxy.client();
        let lines = [
            "CLIENT REPLY OFF\r\n",
            "SUBSCRIBE a\r\n",
            "CLIENT REPLY ON\r\n",
            "UNSUBSCRIBE a\r\n",
            "CLIENT REPLY ON\r\n",
            "PING\r\n",
        ];
        for piece in lines.chunks(lines.len() / pieces) {
            client.send(piece.concat());
        }
        client.expect(confirmation('*', "subscribe", "a", 1));
        client.expect(confirmation('*', "unsubscribe", "a", 0));
        client.expect("+OK\r\n+PONG\r\n");
    }
    proxy.shows("active_requests", 0);
}

#[test]
fn monitor_lines_answer_nothing() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut monitor, mut other) = (proxy.client(), proxy.client());
    // Or the monitor would see its connection being made.
    assert_eq!(other.ask(&["PING"]), "+PONG");
    monitor.send("MONITOR\r\n").expect("+OK\r\n");
    assert_eq!(other.ask(&["SET", "k", "v"]), "+OK");
    assert!(monitor.line().ends_with("\"SET\" \"k\" \"v\""));
    monitor.send("QUIT\r\n");
    assert_eq!(monitor.rest(), "+OK\r\n");
}

#[test]
fn invalidations_reach_a_client_that_caches() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut caching, mut other) = (proxy.client(), proxy.client());
    resp3(&mut caching);
    caching.send("CLIENT TRACKING on\r\nGET k\r\n").expect("+OK\r\n_\r\n");
    assert_eq!(other.ask(&["SET", "k", "v"]), "+OK");
    caching.expect(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
}

#[test]
fn a_push_in_pieces_is_not_interrupted_by_the_proxys_own_reply() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    client.command(&["PING"]);
    let mut uplink = fake.accept();
    uplink.expect(request(&["PING"])).send("+PONG\r\n>2\r\n$10\r\ninval");
    client.expect("+PONG\r\n>2\r\n$10\r\ninval").send("AUTH x\r\nGET k\r\n");
    // The proxy has read the AUTH, for the GET behind it has arrived.
    uplink.expect(request(&["GET", "k"])).send("idate\r\n_\r\n$1\r\nv\r\n");
    client.expect("idate\r\n_\r\n-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n$1\r\nv\r\n");
}

#[test]
fn a_subscription_made_by_exec_is_one() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut client, mut publisher) = (proxy.client(), proxy.client());
    client.send("MULTI\r\nSUBSCRIBE a b\r\nEXEC\r\n").expect("+OK\r\n+QUEUED\r\n*1\r\n");
    client.expect(confirmation('*', "subscribe", "a", 1));
    client.expect(confirmation('*', "subscribe", "b", 2));
    assert_eq!(publisher.ask(&["PUBLISH", "a", "one"]), ":1");
    client.expect(message('*', "a", "one"));
    let (mut client, mut publisher) = (proxy.client(), proxy.client());
    client.send("MULTI\r\nSUBSCRIBE c\r\nEXEC\r\n").expect("+OK\r\n+QUEUED\r\n*1\r\n");
    client.expect(confirmation('*', "subscribe", "c", 1));
    assert_eq!(publisher.ask(&["PUBLISH", "c", "one"]), ":1");
    client.expect(message('*', "c", "one"));
}

#[test]
fn a_refused_multi_begins_no_transaction() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.send("SUBSCRIBE a\r\n").expect(confirmation('*', "subscribe", "a", 1));
    client.send("MULTI\r\n");
    assert!(client.line().starts_with("-ERR Can't execute 'multi'"));
    client.send("AUTH x\r\n");
    assert!(client.line().starts_with("-ERR Can't execute 'auth'"));
}

#[test]
fn replies_of_exec_that_hold_more_than_they_say_are_followed() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let (mut direct, mut through) = (redis.client(), proxy.client());
    let mut alike = |resp3: bool, requests: &str| {
        let hello = if resp3 { "3" } else { "2" };
        let mut replies = [&mut direct, &mut through].map(|client| {
            client.send(format!("RESET\r\nHELLO {hello}\r\n{requests}\r\nECHO the-end\r\n"));
            let mut lines = Vec::new();
            while lines.last().is_none_or(|line| line != "the-end") {
                lines.push(client.line());
            }
            lines
        });
        // They differ in the client's id, which HELLO tells.
        for lines in &mut replies {
            let id = lines.iter().position(|line| line == "id").unwrap() + 1;
            lines.remove(id);
        }
        assert_eq!(replies[0], replies[1], "{requests}");
    };
    alike(true, "SUBSCRIBE a\r\nMULTI\r\nPUBLISH a 1\r\nPUBLISH a 2\r\nEXEC\r\nUNSUBSCRIBE");
    alike(true, "MULTI\r\nSUBSCRIBE a b\r\nGET none\r\nEXEC\r\nUNSUBSCRIBE");
    alike(true, "MULTI\r\nGET none\r\nSUBSCRIBE a b\r\nEXEC\r\nUNSUBSCRIBE");
    alike(true, "MULTI\r\nSUBSCRIBE a b\r\nDISCARD");
    alike(false, "MULTI\r\nSUBSCRIBE a b\r\nGET none\r\nEXEC\r\nUNSUBSCRIBE a b");
    alike(false, "MULTI\r\nPSUBSCRIBE a\r\nUNSUBSCRIBE b c\r\nEXEC\r\nPUNSUBSCRIBE");
    alike(false, "WATCH k\r\nSET k 1\r\nMULTI\r\nSUBSCRIBE a b\r\nEXEC");
}
