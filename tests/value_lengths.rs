//! How long a value may be is for the uplink to say.

use crate::common::{FakeUplink, Proxy, Redis, eventually, redis};

/// More than Redis allows by default.
const LARGE: usize = 512 * 1024 * 1024 + 1;

fn set(redis: &Redis, limit: &str) {
    let set = ["CONFIG", "SET", "proto-max-bulk-len", limit];
    assert_eq!(redis.client().ask(&set), "+OK");
}

#[test]
fn how_large_a_value_may_be_is_for_the_uplink_to_say() {
    let fake = FakeUplink::bind();
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${LARGE}\r\n");
    let mut client = proxy.client();
    client.send(&head).send("and so on");
    let mut uplink = fake.accept();
    uplink.expect(&head).expect("and so on");
    // Its refusal comes down as it is, and so does its closing.
    uplink.send("-ERR Protocol error: invalid bulk length\r\n");
    drop(uplink);
    assert_eq!(client.rest(), "-ERR Protocol error: invalid bulk length\r\n");
}

#[test]
fn the_uplinks_own_limit_of_a_values_length_holds() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let refused = "-ERR Protocol error: invalid bulk length\r\n";
    for (limit, len) in [(None, LARGE), (Some("1048576"), 1_048_577)] {
        if let Some(limit) = limit {
            set(&redis, limit);
        }
        // What is only forwarded, and what is looked at.
        for name in ["SET", "SELECT", "WATCH"] {
            let head = format!("*2\r\n${}\r\n{name}\r\n${len}\r\n", name.len());
            assert_eq!(redis.client().send(&head).rest(), refused);
            assert_eq!(proxy.client().send(&head).rest(), refused, "{name}");
        }
    }
    set(&redis, "2147483648");
    let mut client = proxy.client();
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${LARGE}\r\n")).send("beginning");
    let takes = |list: &str| list.lines().any(|line| line.contains(" qbuf=9 "));
    eventually("it is taken", || takes(&redis.client().run("CLIENT LIST")));
}
