//! What let clients in is withdrawn: they stay, until an operator has them closed.

use serde_json::{Value, json};

use crate::common::{Client, Proxy, cert, check, config, eventually, redis, run_to_end};

fn with_pass(uplink: &str, pass: Value) -> Value {
    config(uplink, json!({ "listen": { "addr": "127.0.0.1:0", "pass": pass } }))
}

/// How many clients, and how many raw connections, were closed.
fn close(proxy: &Proxy) -> (u64, u64) {
    let answer = proxy.cmd("close-unauthorized-clients").json();
    assert_eq!(answer["ok"], true, "{answer}");
    let count = |field: &str| answer[field].as_u64().unwrap();
    (count("clients_closed"), count("raw_connections_closed"))
}

#[test]
fn an_empty_password_means_none_and_is_warned_of_each_time() {
    let redis = redis();
    let mut open = with_pass(&redis.addr(), json!(""));
    open["admin"]["pass"] = json!("");
    let output = run_to_end(&["--check", "-f", "-"], &open.to_string());
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    for block in ["listen", "admin"] {
        assert!(text.contains(&format!("{block}.pass is empty")), "{text}");
    }
    let proxy = Proxy::start(&open);
    let warned = |proxy: &Proxy| {
        let lines = proxy.log_lines();
        let is_it = |line: &&Value| {
            line["level"] == "WARN"
                && line["message"].as_str().is_some_and(|it| it.starts_with("listen.pass is empty"))
        };
        lines.iter().filter(is_it).count()
    };
    proxy.logged("the warning", |line| {
        line["message"].as_str().is_some_and(|it| it.starts_with("admin.pass is empty"))
    });
    assert_eq!(warned(&proxy), 1);
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
    let answer = proxy.cmd("reload").json();
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["reload"]["warnings"].as_array().unwrap().len(), 2, "{answer}");
    eventually("the reload warns again", || warned(&proxy) == 2);
    // An uplink without a password, and a block left blank, are no such thing.
    let mut older = with_pass(&redis.addr(), json!(null));
    older["uplink"]["pass"] = json!("");
    older["listen_raw"] = json!({ "addr": "", "pass": "" });
    assert_eq!(check(&older.to_string()), (Some(0), vec![]));
}

#[test]
fn a_reload_that_withdraws_what_clients_need_says_so_loudly() {
    let redis = redis();
    let asking = |cacertfile: Value| {
        json!({
            "addr": "127.0.0.1:0", "tls": true, "pass": "s3cret", "cacertfile": cacertfile,
            "certfile": cert("server.pem"), "keyfile": cert("server.key"),
        })
    };
    let listen = |it: Value| config(&redis.addr(), json!({ "listen": it }));
    let proxy = Proxy::start(&listen(asking(json!(cert("ca.pem")))));
    let mut quiet = asking(json!(cert("ca.pem")));
    quiet["pass"] = json!("another");
    proxy.reload(&listen(quiet)).expect_ok();
    let answer = proxy.reload(&listen(json!({ "addr": "127.0.0.1:0", "pass": "" }))).json();
    let told = answer["reload"]["warnings"].as_array().unwrap();
    for wanted in
        ["listen.pass is empty", "listen.pass is withdrawn", "listen.cacertfile is withdrawn"]
    {
        let is_it = |it: &Value| it.as_str().unwrap().starts_with(wanted);
        assert!(told.iter().any(is_it), "{wanted}: {answer}");
        let level = if wanted.ends_with("empty") { "WARN" } else { "ERROR" };
        proxy.logged(wanted, |line| line["level"] == level && is_it(&line["message"]));
    }
    assert_eq!(told.len(), 3, "{answer}");
}

#[test]
fn clients_stay_when_their_password_is_withdrawn_until_an_operator_has_them_closed() {
    let redis = redis();
    let proxy = Proxy::start(&with_pass(&redis.addr(), json!("one")));
    let (mut first, mut blocked, mut stranger) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(first.ask(&["AUTH", "one"]), "+OK");
    assert_eq!(blocked.ask(&["AUTH", "one"]), "+OK");
    blocked.command(&["BLPOP", "q", "0"]);
    proxy.shows("active_requests", 1);
    assert!(stranger.ask(&["PING"]).starts_with("-NOAUTH"));
    assert_eq!(close(&proxy), (0, 0));

    proxy.reload(&with_pass(&redis.addr(), json!("two"))).expect_ok();
    assert_eq!(first.ask(&["PING"]), "+PONG");
    let mut second = proxy.client();
    assert!(second.ask(&["AUTH", "one"]).starts_with("-WRONGPASS"));
    assert_eq!(second.ask(&["AUTH", "two"]), "+OK");
    let mut third = proxy.client();
    assert!(third.run("HELLO 2 AUTH default two").contains("server"));
    assert_eq!(close(&proxy), (2, 0));
    first.expect_closed();
    blocked.expect_closed();
    assert_eq!(second.ask(&["PING"]), "+PONG");
    assert_eq!(third.ask(&["PING"]), "+PONG");
    assert_eq!(stranger.ask(&["AUTH", "two"]), "+OK");
    assert_eq!(close(&proxy), (0, 0));
    assert_eq!(redis.client().ask(&["RPUSH", "q", "v"]), ":1", "nobody waits for it any more");
    let closed = "redis_proxy_sessions_closed_total{reason=\"withdrawn\"}";
    assert_eq!(proxy.metric(closed), 2.0);

    // Let in by none: until one is asked for again, everybody would be.
    proxy.reload(&with_pass(&redis.addr(), json!(null)));
    let mut without = proxy.client();
    assert_eq!(without.ask(&["PING"]), "+PONG");
    assert_eq!(close(&proxy), (0, 0));
    proxy.reload(&with_pass(&redis.addr(), json!("two"))).expect_ok();
    assert_eq!(without.ask(&["PING"]), "+PONG");
    assert_eq!(close(&proxy), (1, 0));
    without.expect_closed();
    assert_eq!(second.ask(&["PING"]), "+PONG");
}

#[test]
fn certificates_that_would_be_refused_today_are_found_on_both_listeners() {
    let redis = redis();
    let with_ca = |cacertfile: &str| {
        let block = json!({
            "addr": "127.0.0.1:0", "tls": true, "cacertfile": cert(cacertfile),
            "certfile": cert("server.pem"), "keyfile": cert("server.key"),
        });
        config(&redis.addr(), json!({ "listen": block, "listen_raw": block }))
    };
    let proxy = Proxy::start(&with_ca("ca.pem"));
    let connect = |block: &str, identity: &str| {
        let mut client = Client::connect_tls(&proxy.addr_of(block), Some(identity)).unwrap();
        assert_eq!(client.ask(&["PING"]), "+PONG", "{block} {identity}");
        client
    };
    let mut clients = [connect("listen", "client"), connect("listen_raw", "client")];
    assert_eq!(close(&proxy), (0, 0));
    proxy.reload(&with_ca("other-ca.pem")).expect_ok();
    for client in &mut clients {
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
    let mut others = [connect("listen", "other-client"), connect("listen_raw", "other-client")];
    assert_eq!(close(&proxy), (1, 1));
    for client in &mut clients {
        client.expect_closed();
    }
    for client in &mut others {
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
    // A listener that is there no more lets nobody in.
    let mut without = with_ca("other-ca.pem");
    without["listen_raw"] = json!(null);
    proxy.reload(&without);
    assert_eq!(close(&proxy), (0, 1));
    others[1].expect_closed();
    assert_eq!(others[0].ask(&["PING"]), "+PONG");
}

#[test]
fn whoever_came_without_tls_is_not_let_in_where_that_is_spoken() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let tls = json!({
        "addr": "127.0.0.1:0", "tls": true,
        "certfile": cert("server.pem"), "keyfile": cert("server.key"),
    });
    proxy.reload(&config(&redis.addr(), json!({ "listen": tls }))).expect_ok();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    assert_eq!(close(&proxy), (1, 0));
    client.expect_closed();
}
