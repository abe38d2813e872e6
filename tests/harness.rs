//! What a test starts ends with it: all tests share the descriptors of one process.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::common::{Client, FakeApi, Middle, Post, redis};

fn is_refused(addr: &str) -> bool {
    TcpStream::connect(addr).is_err()
}

#[test]
fn a_way_to_a_server_ends_with_all_its_connections() {
    let redis = redis();
    let middle = Middle::to(&redis.addr());
    let mut clients = [(); 3].map(|()| Client::connect(&middle.addr()));
    clients.iter_mut().for_each(|client| assert_eq!(client.run("PING"), "PONG"));
    // One of them waits for an answer that takes longer than any test.
    middle.slow_down(Duration::from_secs(3600));
    clients[0].command(&["PING"]);
    let addr = middle.addr();
    let other = middle.clone();
    drop(middle);
    assert!(!is_refused(&addr), "somebody else has it");
    drop(other);
    clients.iter_mut().skip(1).for_each(Client::expect_closed);
    // What had arrived may still be told.
    clients[0].rest();
    assert!(is_refused(&addr));
}

#[test]
fn a_scripted_api_ends_with_its_connections() {
    let api = FakeApi::start(vec![json!({})], Post::Answer(usize::MAX, 200, json!({})));
    let addr = api.addr.clone();
    let mut caller = Client::connect(&addr);
    caller.send("GET /info.json HTTP/1.1\r\n\r\n").expect("HTTP/1.1 200 X\r\n");
    drop(api);
    caller.rest();
    assert!(is_refused(&addr));
}
