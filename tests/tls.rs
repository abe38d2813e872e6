//! TLS on both sides: who is trusted, and what becomes of the others.

use serde_json::{Value, json};

use std::sync::Arc;

use rustls::HandshakeKind;

use crate::common::{
    Client, FakeUplink, Proxy, Redis, cert, check, config, redis, request, tls_config, tls_server,
};

fn tls_listener(uplink: &str, more: &Value) -> Proxy {
    let listen = json!({
        "addr": "127.0.0.1:0", "tls": true,
        "certfile": cert("server.pem"), "keyfile": cert("server.key"),
    });
    // The TLS handshake of each client is over within this limit.
    let mut config = config(uplink, json!({ "listen": listen, "connect_time_limit_ms": 4000 }));
    for (field, value) in more.as_object().unwrap() {
        config["listen"][field] = value.clone();
    }
    Proxy::start(&config)
}

#[test]
fn a_tls_client_is_served() {
    let redis = redis();
    let proxy = tls_listener(&redis.addr(), &json!({}));
    let mut client = Client::connect_tls(&proxy.addr(), None).unwrap();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    let value = "v".repeat(1_000_000);
    assert_eq!(client.ask(&["SET", "k", &value]), "+OK");
    client.send("GET k\r\nGET k\r\n");
    client.expect(format!("$1000000\r\n{value}\r\n").repeat(2));
}

#[test]
fn a_client_certificate_is_asked_for_where_a_ca_is_named() {
    let redis = redis();
    let proxy = tls_listener(&redis.addr(), &json!({ "cacertfile": cert("ca.pem") }));
    let mut client = Client::connect_tls(&proxy.addr(), Some("client")).unwrap();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    for identity in [None, Some("other-client")] {
        // In TLS 1.3 a client learns of its refusal only after the handshake.
        if let Ok(mut client) = Client::connect_tls(&proxy.addr(), identity) {
            let _ = client.try_send(b"PING\r\n");
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.line()));
            assert!(read.is_err());
        }
        proxy.closed("the TLS handshake failed");
    }
}

#[test]
fn a_plain_client_on_a_tls_listener_is_closed() {
    let redis = redis();
    let proxy = tls_listener(&redis.addr(), &json!({}));
    let mut client = proxy.client();
    client.send("PING\r\nPING\r\n").rest();
    proxy.closed("the TLS handshake failed");
}

#[test]
fn a_client_that_does_not_shake_hands_is_closed_in_time_and_holds_up_nobody() {
    let redis = redis();
    let proxy = tls_listener(&redis.addr(), &json!({}));
    let mut silent = proxy.client();
    let mut client = Client::connect_tls(&proxy.addr(), None).unwrap();
    assert_eq!(client.ask(&["PING"]), "+PONG");
    silent.expect_closed();
    proxy.closed("no TLS handshake within 4000 ms");
}

#[test]
fn a_tls_uplink_is_used_with_its_certificate_verified() {
    let redis = Redis::start(&[
        "--tls-port",
        "6380",
        "--tls-cert-file",
        &cert("server.pem"),
        "--tls-key-file",
        &cert("server.key"),
        "--tls-ca-cert-file",
        &cert("ca.pem"),
    ]);
    let addr = redis.addr().replace(":6379", ":6380");
    let proxy = Proxy::start(&json!({
        "uplink": {
            "addr": addr, "tls": true, "cacertfile": cert("ca.pem"), "servername": "localhost",
            "certfile": cert("client.pem"), "keyfile": cert("client.key"),
        },
        "listen": { "addr": "127.0.0.1:0" },
    }));
    let mut client = proxy.client();
    let value = "v".repeat(1_000_000);
    assert_eq!(client.ask(&["SET", "k", &value]), "+OK");
    client.command(&["GET", "k"]).expect(format!("$1000000\r\n{value}\r\n"));
}

/// Runs a check against a TLS server with this certificate.
fn verify(identity: &str, client_ca: Option<&str>, uplink: &Value) -> Vec<String> {
    let fake = FakeUplink::bind();
    let mut config =
        json!({ "uplink": { "addr": fake.addr(), "tls": true }, "listen": { "addr": ":0" } });
    for (field, value) in uplink.as_object().unwrap() {
        config["uplink"][field] = value.clone();
    }
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| fake.serve_tls(identity, client_ca));
        let (code, faults) = check(&config.to_string());
        let served = serving.join().unwrap();
        assert_eq!(code == Some(0), faults.is_empty());
        assert_eq!(served.is_ok(), faults.is_empty(), "{served:?} {faults:?}");
        faults
    })
}

#[test]
fn an_uplinks_certificate_is_verified_by_address_and_by_name() {
    let ca = json!(cert("ca.pem"));
    // The address is 127.0.0.1, which the certificate has.
    assert!(verify("server", None, &json!({ "cacertfile": ca })).is_empty());
    for name in ["localhost", "a.redis.test", "127.0.0.1"] {
        assert!(
            verify("server", None, &json!({ "cacertfile": ca, "servername": name })).is_empty()
        );
    }
    for name in ["elsewhere.example", "127.0.0.2"] {
        let faults = verify("server", None, &json!({ "cacertfile": ca, "servername": name }));
        assert!(faults[0].contains("not valid for name"), "{faults:?}");
    }
}

#[test]
fn an_uplink_from_another_ca_is_refused_unless_verification_is_skipped() {
    let faults = verify("server", None, &json!({ "cacertfile": cert("other-ca.pem") }));
    assert!(faults[0].starts_with("could not connect to uplink: 127.0.0.1:"));
    assert!(faults[0].contains("(TLS)") && faults[0].contains("certificate"), "{faults:?}");
    assert!(verify("server", None, &json!({ "skipverify": true })).is_empty());
}

#[test]
fn a_self_signed_certificate_is_trusted_where_it_is_named_itself() {
    let own = json!({ "cacertfile": cert("self-signed.pem") });
    assert!(verify("self-signed", None, &own).is_empty());
    let elsewhere = json!({ "cacertfile": cert("self-signed.pem"), "servername": "elsewhere" });
    assert!(!verify("self-signed", None, &elsewhere).is_empty());
    assert!(!verify("self-signed", None, &json!({ "cacertfile": cert("ca.pem") })).is_empty());
    let expired = verify("expired", None, &json!({ "cacertfile": cert("expired.pem") }));
    assert!(expired[0].contains("expired"), "{expired:?}");
}

#[test]
fn the_proxy_shows_its_own_certificate_to_an_uplink_that_asks() {
    let identity = |name: &str| {
        json!({
            "cacertfile": cert("ca.pem"),
            "certfile": cert(&format!("{name}.pem")), "keyfile": cert(&format!("{name}.key")),
        })
    };
    assert!(verify("server", Some("ca.pem"), &identity("client")).is_empty());
    assert!(!verify("server", Some("ca.pem"), &identity("other-client")).is_empty());
    assert!(!verify("server", Some("ca.pem"), &json!({ "cacertfile": cert("ca.pem") })).is_empty());
}

#[test]
fn tls_to_a_plain_uplink_is_refused_in_time() {
    let redis = redis();
    let config = json!({
        "uplink": { "addr": redis.addr(), "tls": true, "skipverify": true },
        "listen": { "addr": ":0" },
        "connect_time_limit_ms": 500,
    });
    let (code, faults) = check(&config.to_string());
    assert_eq!(code, Some(78));
    assert!(faults[0].contains("(TLS)"), "{faults:?}");
}

#[test]
fn a_clients_tls_session_is_resumed() {
    let redis = redis();
    let proxy = tls_listener(&redis.addr(), &json!({}));
    let config = Arc::new(tls_config(None));
    for wanted in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (mut client, kind) = Client::connect_with(&proxy.addr(), config.clone()).unwrap();
        assert_eq!(kind, Some(wanted));
        // In TLS 1.3 the ticket comes after the handshake.
        assert_eq!(client.ask(&["PING"]), "+PONG");
    }
}

#[test]
fn an_uplinks_tls_session_is_resumed() {
    let fake = FakeUplink::bind();
    let server = tls_server("server", None);
    let mut kinds = Vec::new();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| [(); 2].map(|()| fake.serve_ping(server.clone()).unwrap()));
        // Its start is the first connection, its first client's request the second.
        let proxy = Proxy::start(&json!({
            "uplink": { "addr": fake.addr(), "tls": true, "cacertfile": cert("ca.pem") },
            "listen": { "addr": "127.0.0.1:0" },
        }));
        proxy.client().send(request(&["PING"])).expect("+PONG\r\n");
        kinds.extend(serving.join().unwrap());
    });
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}
