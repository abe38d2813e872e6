//! The dialled side: every address, every kind of login, and what clients are told of failures.

use serde_json::json;

use crate::common::{FakeUplink, Proxy, Redis, check, config, redis, request};
use redis_proxy::config::{self, Address, Lookup};
use redis_proxy::discovery::Directory;
use redis_proxy::uplink::{Answer, Script};

#[test]
fn the_proxy_logs_in_with_a_password_or_as_a_user() {
    let redis = Redis::start(&["--requirepass", "up"]);
    let mut direct = redis.client();
    assert_eq!(direct.ask(&["AUTH", "up"]), "+OK");
    assert_eq!(direct.ask(&["ACL", "SETUSER", "bob", "on", ">bobpass", "+@all"]), "+OK");
    for (login, whoami) in
        [(json!({ "pass": "up" }), "default"), (json!({ "user": "bob", "pass": "bobpass" }), "bob")]
    {
        let mut uplink = login;
        uplink["addr"] = json!(redis.addr());
        let proxy = Proxy::start(&json!({ "uplink": uplink, "listen": { "addr": "127.0.0.1:0" } }));
        let wanted = format!("${}\r\n{whoami}\r\n", whoami.len());
        proxy.client().command(&["ACL", "WHOAMI"]).expect(wanted);
    }
}

#[test]
fn a_login_that_fails_refuses_the_start() {
    let redis = Redis::start(&["--requirepass", "up"]);
    let faults = |uplink: serde_json::Value| {
        let (code, faults) =
            check(&json!({ "uplink": uplink, "listen": { "addr": ":0" } }).to_string());
        assert_eq!(code, Some(78));
        faults.join("\n")
    };
    let addr = redis.addr();
    let wrong = faults(json!({ "addr": addr, "pass": "wrong-secret" }));
    assert!(wrong.contains("AUTH failed: WRONGPASS") && !wrong.contains("wrong-secret"), "{wrong}");
    let none = faults(json!({ "addr": addr }));
    assert!(none.contains("NOAUTH"), "{none}");
}

#[test]
fn a_unix_socket_is_an_uplink_too() {
    let redis = redis();
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.socket(), "network": "unix" },
        "listen": { "addr": "127.0.0.1:0" },
    }));
    assert_eq!(proxy.client().ask(&["SET", "k", "v"]), "+OK");
}

#[test]
fn every_address_of_a_name_is_tried() {
    // `localhost` is ::1 and 127.0.0.1; the listener has the latter alone.
    let fake = FakeUplink::bind();
    let port = fake.addr().rsplit_once(':').unwrap().1.to_owned();
    let proxy = fake.expect_start(|| Proxy::to(&format!("localhost:{port}")));
    let mut client = proxy.client();
    client.command(&["PING"]);
    fake.accept().expect(request(&["PING"])).send("+PONG\r\n");
    client.expect("+PONG\r\n");
}

#[test]
fn a_client_is_closed_without_a_word_while_the_uplink_is_away_and_the_log_says_why() {
    let mut redis = redis();
    let proxy = Proxy::start(&config(&redis.addr(), json!({ "hold_time_limit_ms": 100 })));
    redis.kill();
    let mut client = proxy.client();
    client.send("GET a\r\nGET b\r\n");
    assert_eq!(client.rest(), "");
    proxy.closed(&format!("could not connect to {}: Connection refused", redis.addr()));
}

#[test]
fn an_uplink_that_accepts_and_says_nothing_is_given_up() {
    let fake = FakeUplink::bind();
    let config = json!({
        "uplink": { "addr": fake.addr(), "pass": "p" },
        "listen": { "addr": ":0" },
        "connect_time_limit_ms": 200,
    });
    let (code, faults) = check(&config.to_string());
    assert_eq!(code, Some(78));
    assert!(faults[0].ends_with("not connected within 200 ms"), "{faults:?}");
}

#[test]
fn a_fresh_connection_is_told_the_clients_state_and_its_answers_are_checked() {
    let redis = Redis::start(&["--requirepass", "up"]);
    let config = json!({ "uplink": { "addr": redis.addr(), "pass": "up" } }).to_string();
    let uplink = config::parse(&config).uplink.unwrap();
    assert!(matches!(uplink.lookup, Lookup::Addr(Address::Tcp { .. })));
    let directory = Directory::new(uplink, crate::common::PATIENCE).unwrap();
    let dialler = directory.unfound().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let select = |db| {
        let mut script = Script::default();
        script.ask("SELECT", &[db], Answer::NoError);
        script
    };
    runtime.block_on(dialler.dial(select(b"3"))).unwrap();
    let refused = runtime.block_on(dialler.dial(select(b"99"))).unwrap_err();
    assert!(refused.to_string().contains("DB index is out of range"), "{refused}");
}

#[test]
fn an_uplink_that_repeats_the_password_does_not_make_the_proxy_repeat_it() {
    let fake = FakeUplink::bind();
    let config = json!({
        "uplink": { "addr": fake.addr(), "pass": "thepass" }, "listen": { "addr": ":0" },
    });
    let (code, faults) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut uplink = fake.accept();
            uplink.expect(request(&["AUTH", "thepass"])).expect(request(&["PING"]));
            let answer = "-ERR unknown command 'AUTH', with args beginning with: 'thepass'\r\n";
            uplink.send(answer).expect_closed();
        });
        check(&config.to_string())
    });
    assert_eq!(code, Some(78));
    assert!(faults[0].contains("unknown command") && !faults[0].contains("thepass"), "{faults:?}");
}
