//! `log_messages`: everything but secrets, with the client's address, each cut.

use serde_json::json;

use crate::common::{Proxy, Redis};

#[test]
fn requests_and_replies_are_logged_without_secrets() {
    let redis = Redis::start(&["--requirepass", "uplinkpass"]);
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr(), "pass": "uplinkpass" },
        "listen": { "addr": "127.0.0.1:0", "pass": "clientpass" },
        "log_messages": true,
    }));
    let mut client = proxy.client();
    let address = format!("127.0.0.1:{}", client.port);
    client.send("clientpass typed too early\r\n").line();
    client.send("AUTH clientpass\r\n").expect("+OK\r\n");
    client.send("HELLO 2 AUTH default clientpass\r\n");
    while client.line() != "*0" {}
    client.send("AUTH wrong-clientpass\r\n").line();
    client.send("CONFIG GET requirepass\r\n");
    client.expect("*2\r\n$11\r\nrequirepass\r\n$10\r\nuplinkpass\r\n");
    client.send("ACL SETUSER bob >bobpass\r\n").expect("+OK\r\n");
    client.send("MULTI\r\nCONFIG GET requirepass\r\nEXEC\r\n").expect("+OK\r\n+QUEUED\r\n");
    client.expect("*1\r\n*2\r\n$11\r\nrequirepass\r\n$10\r\nuplinkpass\r\n");
    client.command(&["SET", "key", &"x".repeat(100_000)]).expect("+OK\r\n");
    client.send("GET nothing\r\n").expect("$-1\r\n");

    let get = proxy.logged("the request", |line| line["request"] == r#""GET" "nothing""#);
    assert_eq!(get["client"], *address);
    proxy.logged("the reply", |line| line["reply"] == "$-1\\r\\n" && line["client"] == *address);
    proxy.logged("a secret request", |line| line["request"] == r#""AUTH" [removed]"#);
    let text = proxy.log_text();
    for secret in ["clientpass", "uplinkpass", "bobpass"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let set = proxy.logged("the cut request", |line| {
        line["request"].as_str().is_some_and(|text| text.starts_with(r#""SET" "key""#))
    });
    assert!(set["request"].as_str().unwrap().len() < 1000);
    assert!(set["bytes"].as_u64().unwrap() > 100_000);
}

#[test]
fn without_it_no_message_is_logged() {
    let redis = Redis::start(&[]);
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    assert_eq!(client.ask(&["SET", "some-key", "some-value"]), "+OK");
    drop(client);
    proxy.closed("client closed");
    assert!(!proxy.log_text().contains("some-"));
}
