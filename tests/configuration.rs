//! All faults at once, with their path, and never with a secret.

use std::io::ErrorKind;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::common::{Proxy, cert, check, config, redis, run_to_end};

/// A valid one, changed.
fn with(uplink: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut config = json!({ "uplink": { "addr": uplink }, "listen": { "addr": "127.0.0.1:0" } });
    change(&mut config);
    config.to_string()
}

fn faults(config: &str) -> Vec<String> {
    let (code, faults) = check(config);
    assert_eq!(code, Some(78), "{faults:?}");
    faults
}

#[test]
fn every_fault_is_reported_with_its_path() {
    let faults = faults(
        r#"{ "uplink": { "adr": "x", "tls": true, "user": "u" },
             "listen": { "addr": "::1:5", "tls": true },
             "listen_raw": { "addr": "a:1", "pass": "x" },
             "admin": { "addr": "a:x", "tls": true, "certfile": "c" },
             "max_clients": -1, "connect_time_limit_ms": 0, "foo": {} }"#,
    );
    for wanted in [
        "foo: unknown field",
        "uplink.adr: unknown field",
        "max_clients: expected a whole number, not negative, found a number",
        "Missing uplink address",
        "uplink.tls requires cacertfile or skipverify",
        "uplink.user requires pass",
        "listen.addr: an IPv6 address needs brackets, as in [::1]:6379",
        "listen.tls requires certfile",
        "listen.tls requires keyfile",
        "listen_raw does not support in-proxy authentication",
        "admin.addr: expected a port number",
        "admin.tls requires keyfile",
        "could not load admin.certfile: c: ",
        "connect_time_limit_ms: must be at least 1",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {faults:#?}");
    }
    assert_eq!(faults.len(), 14, "{faults:#?}");
}

#[test]
fn the_texts_that_scripts_match() {
    let redis = redis();
    let exactly = |config: &str, wanted: &str| assert_eq!(faults(config), [wanted]);
    exactly(&with(&redis.addr(), |it| it["listen"]["addr"] = json!("")), "Missing listen address");
    exactly(&with("", |_| {}), "Missing uplink address");
    for block in ["listen", "admin"] {
        let tls = with(&redis.addr(), |it| {
            it[block] =
                json!({ "addr": "127.0.0.1:0", "tls": true, "keyfile": cert("server.key") });
        });
        exactly(&tls, &format!("{block}.tls requires certfile"));
        let tls = with(&redis.addr(), |it| {
            it[block] =
                json!({ "addr": "127.0.0.1:0", "tls": true, "certfile": cert("server.pem") });
        });
        exactly(&tls, &format!("{block}.tls requires keyfile"));
    }
    let refused = faults(&with("127.0.0.1:1", |_| {}));
    assert!(refused[0].starts_with("could not connect to uplink: 127.0.0.1:1 (non-TLS)"));
    let refused = faults(&with("127.0.0.1:1", |it| {
        it["uplink"]["tls"] = json!(true);
        it["uplink"]["skipverify"] = json!(true);
    }));
    assert!(refused[0].starts_with("could not connect to uplink: 127.0.0.1:1 (TLS)"));
}

#[test]
fn every_file_that_cannot_be_loaded_is_named() {
    let faults = faults(&with("127.0.0.1:1", |it| {
        it["uplink"]["tls"] = json!(true);
        for field in ["cacertfile", "certfile", "keyfile"] {
            it["uplink"][field] = json!(format!("/no/uplink-{field}"));
            it["listen"][field] = json!(format!("/no/listen-{field}"));
        }
        it["listen"]["tls"] = json!(true);
    }));
    for block in ["uplink", "listen"] {
        for field in ["cacertfile", "certfile", "keyfile"] {
            let wanted = format!("could not load {block}.{field}: /no/{block}-{field}");
            assert!(faults.iter().any(|fault| fault.starts_with(&wanted)), "{faults:#?}");
        }
    }
}

#[test]
fn files_of_a_block_with_other_faults_are_verified_too() {
    let faults = faults(&with("127.0.0.1:1", |it| {
        // Where TLS may be meant and may not, the files are looked at.
        it["uplink"]["tls"] = json!("true");
        it["uplink"]["cacertfile"] = json!("/no/uplink-cacertfile");
        it["listen"] = json!({
            "adress": "127.0.0.1:0", "tls": true,
            "certfile": cert("server.pem"), "keyfile": cert("client.key"),
        });
        it["listen_raw"] = json!({ "addr": "127.0.0.1:0", "tls": true, "keyfile": "/no/key" });
        it["admin"] = json!({ "addr": 7 });
    }));
    for wanted in [
        "uplink.tls: expected a boolean, found a string",
        "could not load uplink.cacertfile: /no/uplink-cacertfile: ",
        "listen.adress: unknown field",
        "Missing listen address",
        "listen.certfile: keyfile is not the key of this certificate",
        "listen_raw.tls requires certfile",
        "could not load listen_raw.keyfile: /no/key: ",
        "admin.addr: expected a string, found a number",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {faults:#?}");
    }
    assert_eq!(faults.len(), 8, "{faults:#?}");
}

/// Nobody has connected there.
fn is_untouched(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_err_and(|why| why.kind() == ErrorKind::WouldBlock)
}

/// Files in which something is wrong that may say where or how the uplink is dialled.
fn doubtful_uplinks(addr: &str) -> Vec<String> {
    let block = |more: &str| format!(r#"{{ "addr": "{addr}", "pass": "s3cret" {more} }}"#);
    let file = |uplink: &str, more: &str| {
        format!(r#"{{ "uplink": {uplink}, "listen": {{ "addr": "127.0.0.1:0" }} {more} }}"#)
    };
    let mut files: Vec<String> = [
        r#", "tls": "true""#,
        r#", "tls": 1"#,
        r#", "tls": true, "skipverify": "true""#,
        r#", "tls": true, "cacertfile": "/no/such/file""#,
        r#", "tls": true"#,
        r#", "tsl": true"#,
        r#", "tls": true, "tls": false"#,
        r#", "skipverify": "yes""#,
        r#", "servername": 5"#,
        r#", "network": "tpc""#,
        r#", "user": 5"#,
        r#", "user": "me", "pass": null"#,
        r#", "pass": 5"#,
        r#", "pass": "another""#,
    ]
    .map(|more| file(&block(more), ""))
    .into();
    // A brace in the wrong place.
    for more in [r#", "tls": true"#, r#", "cacertfile": "ca.pem""#, r#", "uplink.tls": true"#] {
        files.push(file(&block(""), more));
    }
    // The last of two counts for serde, which looks no further than the first fault.
    for more in ["", r#", "foo": 1"#] {
        files.push(file(
            &block(r#", "tls": true"#),
            &format!(r#", "uplink": {} {more}"#, block("")),
        ));
        files.push(file(&block(r#", "tls": true, "tls": false"#), more));
    }
    files
}

#[test]
fn nothing_is_dialled_while_it_is_doubtful_how() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for file in doubtful_uplinks(&listener.local_addr().unwrap().to_string()) {
        let told = faults(&file);
        assert!(!told.is_empty() && is_untouched(&listener), "{file}: {told:#?}");
        let started = run_to_end(&["-f", "-"], &file);
        assert_eq!(started.status.code(), Some(78), "{file}");
        assert!(is_untouched(&listener), "{file}");
    }
    // What is wrong elsewhere does not keep the uplink's own faults back.
    let elsewhere = with("127.0.0.1:1", |it| it["listen"]["adress"] = json!("?"));
    let told = faults(&elsewhere);
    assert!(told.iter().any(|fault| fault.starts_with("could not connect to uplink")), "{told:?}");
}

#[test]
fn a_reload_dials_nothing_while_it_is_doubtful_how_and_tells_all_faults_in_one_answer() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for file in doubtful_uplinks(&listener.local_addr().unwrap().to_string()) {
        proxy.rewrite_text(&file);
        assert_eq!(proxy.cmd("reload").status, 400, "{file}");
        assert!(is_untouched(&listener), "{file}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let mut faulty = config(&redis.addr(), json!({ "max_clients": 0 }));
    faulty["uplink"]["tls"] = json!("true");
    faulty["uplink"]["cacertfile"] = json!("/no/such/file");
    faulty["listen"] = json!({ "addr": taken, "pass": 5 });
    faulty["listen_raw"] = json!({ "addr": taken });
    let answer = proxy.reload(&faulty);
    assert_eq!(answer.status, 400);
    let answer = answer.json();
    let told: Vec<&str> =
        answer["faults"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for wanted in [
        "uplink.tls: expected a boolean",
        "could not load uplink.cacertfile: /no/such/file: ",
        "max_clients: must be at least 1",
        "listen.pass: expected a string",
        &format!("listen.addr: cannot listen on {taken}"),
        &format!("listen_raw.addr: cannot listen on {taken}"),
    ] {
        assert!(told.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {told:#?}");
    }
    assert_eq!(told.len(), 6, "{told:#?}");
}

#[test]
fn tls_files_that_do_not_fit_are_refused() {
    let redis = redis();
    let listen = |certfile: &str, keyfile: &str| {
        faults(&with(&redis.addr(), |it| {
            it["listen"] = json!({
                "addr": "127.0.0.1:0", "tls": true, "certfile": cert(certfile), "keyfile": cert(keyfile),
            });
        }))
    };
    assert_eq!(
        listen("server.pem", "client.key"),
        ["listen.certfile: keyfile is not the key of this certificate"]
    );
    assert!(listen("server.key", "server.key")[0].contains("no certificate in this file"));
    assert!(listen("server.pem", "server.pem")[0].contains("no private key in this file"));
}

#[test]
fn no_fault_quotes_a_value_that_may_be_a_secret() {
    for config in [
        r#"{ "listen": { "addr": "h:987654" } }"#,
        r#"{ "uplink": { "addr": 1, "pass": 987654 } }"#,
        r#"{ "uplink": "redis://:987654@host", "listen": ["987654"] }"#,
        r#"{ "uplink": { "addr": "redis://:987654@host:1" }, "listen": { "network": "987654" } }"#,
        r#"{ "listen": { "addr": "987654", "pass": { "987654": "987654" }, "tls": "987654" } }"#,
        r#"{ "listen": { "pass": "987654" "#,
        r#""987654""#,
    ] {
        for fault in faults(config) {
            assert!(!fault.contains("987654"), "{fault}");
        }
    }
}

#[test]
fn a_field_given_twice_is_refused() {
    let redis = redis();
    let addr = redis.addr();
    let faults = faults(&format!(
        r#"{{ "uplink": {{ "addr": "{addr}" }}, "listen": {{ "addr": "127.0.0.1:0", "addr": "127.0.0.1:1" }} }}"#
    ));
    assert_eq!(faults, ["listen: duplicate field `addr`"]);
}

#[test]
fn every_field_given_twice_is_told_among_other_faults() {
    let faults = faults(
        r#"{ "foo": 1, "max_clients": 1, "max_clients": 2, "uplink": { "tls": 1, "tls": 2 },
             "listen": { "pass": { "987654": 1, "987654": 2 } }, "listen": { "addr": "a:1" } }"#,
    );
    for wanted in [
        "duplicate field `max_clients`",
        "uplink: duplicate field `tls`",
        "duplicate field `listen`",
        "foo: unknown field",
    ] {
        assert!(faults.iter().any(|fault| fault.starts_with(wanted)), "{wanted}: {faults:#?}");
    }
    assert!(!faults.iter().any(|fault| fault.contains("987654")), "{faults:#?}");
}

#[test]
fn what_the_older_program_took_is_taken() {
    let redis = redis();
    // Empty texts and nulls for what is not wanted, and blocks left blank.
    let (code, faults) = check(&with(&redis.addr(), |it| {
        it["uplink"] = json!({
            "addr": redis.addr(), "network": "tcp", "user": "", "pass": "", "tls": false,
            "cacertfile": "", "skipverify": false, "certfile": null,
        });
        it["listen_raw"] = json!({ "addr": "", "tls": false, "certfile": "" });
        it["admin"] = json!({});
        it["read_time_limit_ms"] = json!(0);
    }));
    assert_eq!((code, faults), (Some(0), vec![]));
}

#[test]
fn the_example_is_valid_but_for_its_uplink() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config_example.json"));
    let mut example: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let redis = redis();
    example["uplink"]["addr"] = json!(redis.addr());
    assert_eq!(check(&example.to_string()), (Some(0), vec![]));
}

#[test]
fn tls_fields_without_tls_are_warned_of() {
    let redis = redis();
    let config = json!({
        "uplink": { "addr": redis.addr(), "skipverify": true },
        "listen": { "addr": "127.0.0.1:0", "cacertfile": cert("ca.pem") },
    });
    let output = run_to_end(&["--check", "-f", "-"], &config.to_string());
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stderr).unwrap();
    for field in ["listen.cacertfile", "uplink.skipverify"] {
        assert!(text.contains(&format!("{field} has no effect without tls")), "{text}");
    }
}

#[test]
fn a_file_that_is_no_json_has_that_fault_alone() {
    let redis = redis();
    for text in ["", "{", "[]", "{} {}", "\u{feff}{}"] {
        assert_eq!(faults(text).len(), 1, "{text:?}");
    }
    let listen = format!(r#"{{ "uplink": {{ "addr": "{}" }}, "listen": 7 }}"#, redis.addr());
    assert_eq!(faults(&listen), ["listen: expected an object, found a number"]);
}
