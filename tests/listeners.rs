//! Where clients connect: TCP and unix sockets, and how many may.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;
use serde_json::json;

use crate::common::{Client, Proxy, redis, run_to_end};

#[test]
fn ipv4_ipv6_names_and_every_interface() {
    let redis = redis();
    // A machine may do without IPv6.
    let six = match TcpListener::bind("[::1]:0") {
        Ok(_) => ("[::1]:0", "[::1]"),
        Err(_) => ("127.0.0.2:0", "127.0.0.2"),
    };
    for (listen, connect) in [
        ("127.0.0.1:0", "127.0.0.1"),
        six,
        ("localhost:0", "localhost"),
        (":0", "127.0.0.1"),
        ("0.0.0.0:0", "127.0.0.1"),
    ] {
        let proxy = Proxy::start(&json!({
            "uplink": { "addr": redis.addr() }, "listen": { "addr": listen },
        }));
        let addr = proxy.addr();
        let port = addr.rsplit_once(':').unwrap().1;
        let mut client = Client::connect(&format!("{connect}:{port}"));
        assert_eq!(client.ask(&["PING"]), "+PONG", "{listen}");
    }
}

#[test]
fn a_unix_socket_is_removed_in_the_end() {
    let redis = redis();
    let path = redis.dir.path().join("proxy.sock");
    let path = path.to_str().unwrap();
    let config = json!({
        "uplink": { "addr": redis.socket(), "network": "unix" },
        "listen": { "addr": path, "network": "unix" },
    });
    let mut proxy = Proxy::start(&config);
    assert_eq!(Client::connect_unix(path).ask(&["PING"]), "+PONG");
    proxy.signal(Signal::TERM);
    proxy.ended();
    assert!(!std::fs::exists(path).unwrap());
}

#[test]
fn a_stale_socket_is_replaced() {
    let redis = redis();
    let path = redis.dir.path().join("proxy.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let path = path.to_str().unwrap();
    let _proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr() }, "listen": { "addr": path, "network": "unix" },
    }));
    assert_eq!(Client::connect_unix(path).ask(&["PING"]), "+PONG");
}

#[test]
fn a_live_socket_and_a_file_are_left_alone() {
    let redis = redis();
    let path = redis.dir.path().join("taken");
    let config = json!({
        "uplink": { "addr": redis.addr() },
        "listen": { "addr": path.to_str().unwrap(), "network": "unix" },
    })
    .to_string();
    let live = UnixListener::bind(&path).unwrap();
    let output = run_to_end(&["-f", "-"], &config);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another process listens on this socket"), "{text}");
    assert!(path.exists());
    drop(live);

    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let output = run_to_end(&["-f", "-"], &config);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn somebody_elses_socket_of_the_same_name_is_not_removed() {
    let redis = redis();
    let path = redis.dir.path().join("proxy.sock");
    let mut proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr() },
        "listen": { "addr": path.to_str().unwrap(), "network": "unix" },
    }));
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    proxy.signal(Signal::TERM);
    proxy.ended();
    assert!(path.exists());
}

#[test]
fn one_client_too_many_is_told_and_a_place_becomes_free_again() {
    let redis = redis();
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr() },
        "listen": { "addr": "127.0.0.1:0" },
        "max_clients": 2,
    }));
    let (mut one, mut two) = (proxy.client(), proxy.client());
    assert_eq!((one.ask(&["PING"]), two.ask(&["PING"])), ("+PONG".into(), "+PONG".into()));
    let mut three = proxy.client();
    // Also one that spoke first must be able to read it.
    let _ = three.try_send(b"PING\r\n");
    assert_eq!(three.rest(), "-ERR max number of clients reached\r\n");
    drop(one);
    proxy.closed("the client closed the connection");
    crate::common::eventually("a place is free", || {
        let mut next = proxy.client();
        let _ = next.try_send(b"PING\r\n");
        next.line() == "+PONG"
    });
    assert_eq!(two.ask(&["PING"]), "+PONG");
}

#[test]
fn when_descriptors_run_out_it_waits_and_goes_on() {
    let redis = redis();
    let config = json!({
        "uplink": { "addr": redis.addr() }, "listen": { "addr": "127.0.0.1:0" },
    });
    let proxy = Proxy::start_limited(&config, 40);
    proxy.logged("a warning at the start", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("too few file descriptors"))
    });
    let mut first = proxy.client();
    assert_eq!(first.ask(&["PING"]), "+PONG");
    let many: Vec<_> = (0..60).map(|_| proxy.client()).collect();
    proxy.logged("it cannot accept", |line| line["message"] == "accept failed; retrying");
    assert_eq!(first.ask(&["PING"]), "+PONG");
    drop(many);
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
}
