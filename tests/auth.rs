//! Clients must know the password, and nothing of it reaches the uplink.

use serde_json::json;

use crate::common::{FakeUplink, Proxy, Redis, config, redis, request};

const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
const NOAUTH: &str = "-NOAUTH Authentication required.";

#[test]
fn before_auth_everything_is_refused_and_nothing_reaches_the_uplink() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::with_pass(&fake.addr(), "secret"));
    let mut client = proxy.client();
    for args in [
        &["GET", "k"][..],
        &["PING"],
        &["HELLO"],
        &["HELLO", "3"],
        &["RESET"],
        &["MULTI"],
        &["SYNC"],
        &["CLIENT", "REPLY", "OFF"],
        &["SUBSCRIBE", "c"],
        &["BLPOP", "k", "0"],
    ] {
        assert_eq!(client.ask(args), NOAUTH, "{args:?}");
    }
    client.send("GET k\r\n").expect(format!("{NOAUTH}\r\n"));
    assert_eq!(client.ask(&["AUTH", "secret"]), "+OK");
    // The first connection after the start's is dialled only now, for the first bytes are these.
    client.command(&["PING"]);
    fake.accept().expect(request(&["PING"])).send("+PONG\r\n");
    client.expect("+PONG\r\n");
}

#[test]
fn auth_is_answered_by_the_proxy() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "secret");
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "wrong"]), WRONGPASS);
    assert_eq!(client.ask(&["AUTH", "default", "wrong"]), WRONGPASS);
    assert_eq!(client.ask(&["AUTH", "bob", "secret"]), WRONGPASS);
    assert_eq!(client.ask(&["PING"]), NOAUTH);
    assert_eq!(client.ask(&["AUTH", "secret"]), "+OK");
    assert_eq!(client.ask(&["PING"]), "+PONG");
    assert_eq!(client.ask(&["AUTH", "default", "secret"]), "+OK");
}

#[test]
fn a_failed_auth_leaves_a_client_authenticated() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "secret");
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "secret"]), "+OK");
    assert_eq!(client.ask(&["AUTH", "wrong"]), WRONGPASS);
    assert_eq!(client.ask(&["PING"]), "+PONG");
}

#[test]
fn a_user_is_asked_for_where_one_is_configured() {
    let redis = redis();
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr() },
        "listen": { "addr": "127.0.0.1:0", "user": "bob", "pass": "secret" },
    }));
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "secret"]), WRONGPASS);
    assert_eq!(client.ask(&["AUTH", "default", "secret"]), WRONGPASS);
    assert_eq!(client.ask(&["AUTH", "bob", "secret"]), "+OK");
}

#[test]
fn without_a_password_auth_says_so() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    // As Redis does, whose default user every password fits while it has none.
    let wanted = "-ERR AUTH <password> called without any password configured for the default \
                  user. Are you sure your configuration is correct?";
    assert_eq!(client.ask(&["AUTH", "x"]), wanted);
    assert_eq!(client.ask(&["AUTH", "default", "x"]), "+OK");
    assert_eq!(client.ask(&["AUTH", "bob", "x"]), WRONGPASS);
    assert!(client.run("HELLO 3 AUTH default x").contains("proto, 3"));
    assert_eq!(client.ask(&["PING"]), "+PONG");
}

#[test]
fn hello_authenticates_names_and_chooses_the_protocol() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "secret");
    let mut client = proxy.client();
    assert_eq!(client.ask(&["HELLO", "3", "AUTH", "default", "wrong"]), WRONGPASS);
    client.send(request(&["HELLO", "3", "AUTH", "default", "secret", "SETNAME", "me"]));
    client.expect("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n");
    while client.line() != "*0" {}
    client.command(&["CLIENT", "GETNAME"]).expect("$2\r\nme\r\n");
    // A null is written in the protocol that was chosen.
    assert_eq!(client.ask(&["GET", "nothing"]), "_");
}

#[test]
fn a_name_that_a_failed_hello_gave_is_kept_where_the_server_keeps_it() {
    let (redis, other) = (Redis::start(&[]), Redis::start(&[]));
    let proxy = Proxy::with_pass(&redis.addr(), "secret");
    let mut direct = redis.client();
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "secret"]), "+OK");
    direct.run("CLIENT SETNAME before");
    client.run("CLIENT SETNAME before");
    for (bad, name, next) in [
        ("FOO x", "one", &other),
        ("SETNAME", "two", &redis),
        ("AUTH nobody wrong", "three", &other),
    ] {
        let mut hello: Vec<&str> = vec!["HELLO", "3", "SETNAME", name];
        hello.extend(bad.split(' '));
        for client in [&mut direct, &mut client] {
            assert!(client.ask(&hello).starts_with('-'), "{bad}");
        }
        let expected = direct.run("CLIENT GETNAME");
        assert_eq!(client.run("CLIENT GETNAME"), expected, "{bad}");
        proxy
            .reload(&config(
                &next.addr(),
                json!({"listen": { "addr": "127.0.0.1:0", "pass": "secret" }}),
            ))
            .expect_ok();
        assert_eq!(client.run("CLIENT GETNAME"), expected, "after a reload, {bad}");
    }
}

#[test]
fn no_spelling_of_a_password_reaches_the_uplink() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::with_pass(&fake.addr(), "secret"));
    let mut client = proxy.client();
    for line in [
        "aUtH secret\r\n",
        "AUTH default secret\n",
        "auth \"secret\"\r\n",
        "AUTH 'secret'\r\n",
        "\"\\x41UTH\" \"s\\x65cret\"\r\n",
        "  AUTH   secret  \r\n",
        "*2\r\n$4\r\nAutH\r\n$6\r\nsecret\r\n",
        "*3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$6\r\nsecret\r\n",
    ] {
        client.send(line).expect("+OK\r\n");
    }
    client.send("AUTH a b secret\r\n").expect("-ERR syntax error\r\n");
    client.send("HELLO 3 AUTH default secretX\r\n").expect(format!("{WRONGPASS}\r\n"));
    client.send("hello 2 auth default secret\r\n");
    let mut uplink = fake.accept();
    uplink.expect(request(&["hello", "2"])).send("*0\r\n");
    client.expect("*0\r\n");
    // Cut into single bytes, too.
    for byte in request(&["AUTH", "secret"]) {
        client.send([byte]);
    }
    client.expect("+OK\r\n").command(&["GET", "k"]);
    uplink.expect(request(&["GET", "k"])).send("$-1\r\n");
    client.expect("$-1\r\n");
}

#[test]
fn auth_and_hello_inside_multi_abort_the_transaction_and_keep_the_password() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "secret");
    let mut monitor = redis.client();
    assert_eq!(monitor.ask(&["MONITOR"]), "+OK");
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "secret"]), "+OK");
    client.send(["MULTI\r\n", "SET k 1\r\n", "AUTH secret\r\n", "EXEC\r\n", "GET k\r\n"].concat());
    client.expect("+OK\r\n+QUEUED\r\n-ERR Command not allowed inside a transaction\r\n");
    client.expect("-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n");
    client.send("MULTI\r\nHELLO 3 AUTH default secret\r\nDISCARD\r\nPING done\r\n");
    client.expect("+OK\r\n-ERR Command not allowed inside a transaction\r\n+OK\r\n$4\r\ndone\r\n");
    loop {
        let line = monitor.line();
        assert!(!line.contains("secret"), "{line}");
        if line.contains("done") {
            break;
        }
    }
}

#[test]
fn reset_logs_the_client_out_and_the_proxy_in_again() {
    let redis = Redis::start(&["--requirepass", "up"]);
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr(), "pass": "up" },
        "listen": { "addr": "127.0.0.1:0", "pass": "secret" },
    }));
    let mut client = proxy.client();
    assert_eq!(client.ask(&["AUTH", "secret"]), "+OK");
    assert_eq!(client.ask(&["SELECT", "3"]), "+OK");
    client.send("MULTI\r\nRESET\r\nGET k\r\nAUTH secret\r\nSET k v\r\n");
    client.expect(format!("+OK\r\n+RESET\r\n{NOAUTH}\r\n+OK\r\n+OK\r\n"));
    let mut direct = redis.client();
    assert_eq!(direct.ask(&["AUTH", "up"]), "+OK");
    direct.command(&["GET", "k"]).expect("$1\r\nv\r\n");
}
