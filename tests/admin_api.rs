//! The HTTP API: every path and code of the contract.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::common::{
    Answer, Client, FakeUplink, Proxy, cert, config, eventually, http, redis, tls_config,
};

fn with_admin(uplink: &str, admin: Value) -> Proxy {
    Proxy::start(&config(uplink, json!({ "admin": admin })))
}

#[test]
fn info_json_has_what_scripts_read() {
    let redis = redis();
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr(), "user": "", "pass": null },
        "listen": { "addr": "127.0.0.1:0", "pass": "top-secret" },
        "admin": { "addr": "127.0.0.1:0" },
        "read_time_limit_ms": 5000,
    }));
    let answer = proxy.get("/info.json");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(!answer.body.contains("top-secret"));
    let info = answer.json();
    assert_eq!(info["state"], 2);
    assert_eq!(info["state_str"], "running");
    for zero in ["active_requests", "waiting_requests", "raw_connections", "clients"] {
        assert_eq!(info[zero], 0, "{zero}");
    }
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["generation"], 1);
    assert!(info["uptime_seconds"].as_f64().unwrap() > 0.0);
    let shown = &info["config"];
    assert_eq!(shown["read_time_limit_ms"], 5000);
    assert_eq!(shown["log_messages"], false);
    for block in ["uplink", "listen", "listen_raw", "admin"] {
        assert_eq!(shown[block]["pass"], "[removed]", "{block}");
        assert_eq!(shown[block]["tls"], false, "{block}");
        for text in ["network", "certfile", "keyfile", "cacertfile"] {
            assert_eq!(shown[block][text], "", "{block}.{text}");
        }
    }
    assert_eq!(shown["uplink"]["addr"], json!(redis.addr()));
    assert_eq!(shown["listen_raw"]["addr"], "");
}

#[test]
fn commands_come_as_form_or_query_at_both_paths() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut caller = proxy.caller();
    for (path, body) in [
        ("/cmd/", "cmd=pause"),
        ("/cmd", "cmd=unpause"),
        ("/cmd/?cmd=pause", ""),
        ("/cmd?cmd=unpause", ""),
        ("/cmd/?wait=true", "cmd=pause"),
        ("/cmd/?cmd=pause", "cmd=unpause"),
    ] {
        let answer = http(&mut caller, "POST", path, "", body);
        answer.expect_ok();
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(proxy.info()["state"], 2);
    // curl -F cmd=pause -F wait=true
    let part = |name: &str, value: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = format!("{}{}--x--\r\n", part("cmd", "pause"), part("wait", "true"));
    caller.send(format!(
        "POST /cmd/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Content-Type: multipart/form-data; boundary=x\r\n\r\n{body}",
        body.len()
    ));
    Answer::read(&mut caller).expect_ok();
    assert_eq!(proxy.info()["state"], 4);
}

#[test]
fn what_is_wrong_with_a_request_is_said_and_the_connection_goes_on() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut caller = proxy.caller();
    for (method, path, body, status, error) in [
        ("POST", "/cmd/", "", 400, "missing cmd"),
        ("POST", "/cmd/", "cmd=", 400, "unknown cmd: "),
        ("POST", "/cmd/", "cmd=dance", 400, "unknown cmd: dance"),
        ("POST", "/cmd/", "cmd=pause&ttl_ms=-1", 400, "ttl_ms: expected a whole number"),
        ("GET", "/nowhere", "", 404, "not found"),
        ("GET", "/cmd/?cmd=pause", "", 405, "method not allowed; use POST"),
        ("POST", "/", "", 405, "method not allowed; use GET, HEAD"),
        ("DELETE", "/info.json", "", 405, "method not allowed; use GET, HEAD"),
    ] {
        let answer = http(&mut caller, method, path, "", body);
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert!(answer.error().starts_with(error), "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let allow = answer.header("allow").map(str::to_uppercase);
        assert_eq!(allow.is_some(), status == 405, "{answer:?}");
    }
    assert_eq!(proxy.info()["state"], 2);
}

#[test]
fn a_password_is_asked_for_everything_but_the_probes() {
    let redis = redis();
    let proxy = with_admin(&redis.addr(), json!({ "addr": "127.0.0.1:0", "pass": "s3cret" }));
    let mut caller = proxy.caller();
    let mut ask = |method: &str, path: &str, headers: &str, body: &str| {
        http(&mut caller, method, path, headers, body)
    };
    // "x:s3cret" and "x:wrong"
    let (right, wrong) = ("Basic eDpzM2NyZXQ=", "Basic eDp3cm9uZw==");
    for path in ["/", "/page.js", "/info.json", "/metrics", "/nowhere"] {
        for headers in ["", &format!("Authorization: {wrong}\r\n"), "Authorization: Bearer x\r\n"] {
            let answer = ask("GET", path, headers, "");
            assert_eq!(answer.status, 401, "{path} {headers}");
            assert!(answer.header("www-authenticate").unwrap().starts_with("basic"));
            assert_eq!(answer.error(), "no or wrong password");
        }
    }
    for path in ["/healthz", "/readyz"] {
        for headers in ["", &format!("Authorization: {wrong}\r\n")] {
            assert_eq!(ask("GET", path, headers, "").status, 200, "{path} {headers}");
        }
        assert_eq!(ask("POST", path, "", "").status, 401);
    }
    assert_eq!(ask("POST", "/cmd/", "", "cmd=pause").status, 401);
    let right = format!("Authorization: {right}\r\n");
    let bearer = "Authorization: Bearer s3cret\r\n";
    for path in ["/", "/info.json", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(ask("GET", path, &right, "").status, 200, "{path}");
        assert_eq!(ask("GET", path, bearer, "").status, 200, "{path}");
    }
    assert_eq!(ask("GET", "/info.json", &right, "").json()["state"], 2);
    ask("POST", "/cmd/", bearer, "cmd=unpause").expect_ok();
    assert!(!proxy.log_text().contains("s3cret"));
}

#[test]
fn a_page_of_another_origin_may_not_send_commands() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut caller = proxy.caller();
    let mut pause =
        |headers: &str| http(&mut caller, "POST", "/cmd/", headers, "cmd=unpause").status;
    for foreign in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\nOrigin: http://localhost\r\n",
    ] {
        assert_eq!(pause(foreign), 403, "{foreign}");
    }
    for own in ["", "Origin: http://localhost\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        assert_eq!(pause(own), 200, "{own}");
    }
}

#[test]
fn probes_tell_serving_from_being_ready() {
    let mut redis = redis();
    let proxy = Proxy::to(&redis.addr());
    assert_eq!(proxy.get("/healthz").status, 200);
    assert_eq!(proxy.get("/readyz").status, 200);
    // Clients wait, and are not to be sent elsewhere.
    proxy.cmd("pause").expect_ok();
    assert_eq!(proxy.get("/readyz").status, 200);
    assert_eq!(proxy.get("/healthz").status, 200);
    proxy.cmd("unpause").expect_ok();
    redis.kill();
    eventually("it is not ready", || proxy.get("/readyz").status == 503);
    assert!(proxy.get("/readyz").error().contains("could not connect to uplink"));
    assert_eq!(proxy.get("/healthz").status, 200);
    redis.restart();
    eventually("it is ready again", || proxy.get("/readyz").status == 200);
}

#[test]
fn metrics_keep_their_names_and_are_readable_in_both_formats() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    (0..10).for_each(|_| drop(client.ask(&["PING"])));
    // A reply is recorded when it is written, which is when the client may have it already.
    eventually("all are recorded", || {
        proxy.metric("rproxy_request_delays_nanoseconds_count") == 10.0
    });
    let mut caller = proxy.caller();
    let answer = http(&mut caller, "GET", "/metrics", "", "");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (name, buckets) in [
        (
            "rproxy_request_durations_nanoseconds",
            ["50000", "100000", "250000", "500000", "1000000", "2500000", "5000000", "10000000"],
        ),
        (
            "rproxy_request_delays_nanoseconds",
            ["1000", "5000", "10000", "25000", "50000", "100000", "250000", "500000"],
        ),
    ] {
        for bucket in buckets {
            let line = format!("{name}_bucket{{le=\"{bucket}.0\"}} ");
            assert!(answer.body.contains(&line), "{line}: {}", answer.body);
        }
        assert!(answer.body.contains(&format!("{name}_count 10\n")), "{}", answer.body);
        assert!(answer.body.contains(&format!("{name}_bucket{{le=\"+Inf\"}} 10\n")));
    }
    assert!(answer.body.contains("\nrproxy_active_requests 0\n"));
    assert_eq!(proxy.metric("redis_proxy_requests_total"), 10.0);
    assert_eq!(proxy.metric("redis_proxy_client_bytes_total"), 140.0);
    // And a connection is asked for its id.
    let ids = ":2\r\n".len() as f64;
    assert_eq!(proxy.metric("redis_proxy_uplink_bytes_total"), 70.0 + ids);
    assert_eq!(proxy.metric("redis_proxy_uplink_connects_total{result=\"ok\"}"), 1.0);
    assert_eq!(proxy.metric("redis_proxy_clients"), 1.0);
    assert_eq!(client.ask(&["QUIT"]), "+OK");
    eventually("the end is counted", || {
        proxy.get("/metrics").body.contains("redis_proxy_sessions_closed_total{reason=\"quit\"} 1")
    });
    assert!(answer.body.contains("# TYPE redis_proxy_requests_total counter\n"));
    let accept = "Accept: application/openmetrics-text\r\n";
    let answer = http(&mut caller, "GET", "/metrics/", accept, "");
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert!(answer.body.ends_with("# EOF\n"));
    assert!(answer.body.contains("# TYPE redis_proxy_requests counter\n"));
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = text.split(|it| !is_part(it));
    words.filter(|it| it.starts_with("redis_proxy_") || it.starts_with("rproxy_")).collect()
}

#[test]
fn the_manual_has_every_metric_and_every_label_and_no_other() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    assert_eq!(proxy.get("/readyz").status, 200);
    let told = proxy.get("/metrics").body;
    let manual = include_str!("../doc/redis-proxy.md").split_once("### Metrics").unwrap().1;
    let manual = manual.split_once("\n## ").unwrap().0;
    // A histogram has its name in the line with its type, and three more in samples.
    let typed = told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    assert_eq!(names(manual), typed.collect());
    for (label, value) in told.lines().filter_map(|line| {
        let (_, label) = line.split_once('{')?;
        label.split_once('}')?.0.split_once('=')
    }) {
        let is_there = manual.contains(&format!("`{}`", value.trim_matches('"')));
        assert!(label == "le" || is_there, "{label}={value}");
    }
    let operations = names(include_str!("../doc/operations.md"));
    assert!(operations.is_subset(&names(manual)), "{operations:?}");
}

#[test]
fn counters_are_there_before_they_count() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let text = proxy.get("/metrics").body;
    for (counter, results) in [
        ("redis_proxy_reloads_total{result", &["done", "refused", "cancelled"][..]),
        ("redis_proxy_switches_total{result", &["done", "refused", "rolled back"]),
        ("redis_proxy_uplink_connects_total{result", &["ok", "failed"]),
        ("redis_proxy_sessions_closed_total{reason", &["quit", "not_carried", "time_limit"]),
    ] {
        for result in results {
            let line = format!("\n{counter}=\"{result}\"}} 0\n");
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
    proxy.rewrite(&json!({}));
    assert_eq!(proxy.cmd("reload").status, 400);
    assert_eq!(proxy.metric("redis_proxy_reloads_total{result=\"refused\"}"), 1.0);
}

#[test]
fn failures_are_counted() {
    let fake = FakeUplink::bind();
    let more = json!({ "read_time_limit_ms": 50 });
    let proxy = fake.expect_start(|| Proxy::start(&config(&fake.addr(), more)));
    let mut client = proxy.client();
    client.command(&["GET", "k"]);
    let _silent = fake.accept();
    client.rest();
    drop(fake);
    let closed = |reason: &str| {
        proxy.metric(&format!("redis_proxy_sessions_closed_total{{reason=\"{reason}\"}}"))
    };
    // A connection may still be taken, and closed, before nobody listens any more.
    eventually("both are counted", || {
        proxy.client().command(&["GET", "k"]).rest();
        closed("time_limit") == 1.0 && closed("uplink_unavailable") > 0.0
    });
    assert!(proxy.metric("redis_proxy_uplink_connects_total{result=\"failed\"}") > 0.0);
}

#[test]
fn head_is_answered_without_a_body() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut caller = proxy.caller();
    for path in ["/", "/info.json", "/metrics", "/healthz"] {
        let answer = http(&mut caller, "HEAD", path, "", "");
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
    }
}

#[test]
fn bodies_and_heads_are_bounded() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let answer = proxy.cmd(&format!("pause&wait={}", "x".repeat(20_000)));
    assert_eq!((answer.status, answer.error().as_str()), (413, "the body is too long"));
    for headers in [format!("X: {}\r\n", "x".repeat(40_000)), "X: y\r\n".repeat(100)] {
        let answer = http(&mut proxy.caller(), "GET", "/healthz", &headers, "");
        assert_eq!(answer.status, 431);
    }
    let answer = http(&mut proxy.caller(), "GET", "/healthz", "", "");
    assert_eq!(answer.status, 200);
}

#[test]
fn what_is_no_http_is_answered_and_closed() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    assert!(proxy.caller().send("\x16\x03\x01nonsense\r\n\r\n").rest().starts_with("HTTP/1.1 400"));
    assert!(proxy.caller().send("PING\r\n\r\n").rest().starts_with("HTTP/1.1 400"));
    assert_eq!(proxy.info()["state"], 2);
}

#[test]
fn the_gate_being_shut_is_no_reason_to_be_taken_out_of_a_load_balancer() {
    let mut redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.command(&["WAIT", "1", "0"]);
    proxy.shows("active_requests", 1);
    proxy.cmd("pause").expect_ok();
    proxy.shows("state", 3);
    assert_eq!(proxy.get("/readyz").status, 200);
    redis.kill();
    proxy.shows("state", 4);
    assert_eq!(proxy.get("/readyz").status, 200);
    // But it is known, and said where it can be asked for.
    proxy.shows("uplink_up", false);
    assert_eq!(proxy.get("/readyz").status, 200);
}

#[test]
fn strangers_are_told_that_the_uplink_is_away_and_not_where_it_is() {
    let redis = redis();
    let admin = json!({ "addr": "127.0.0.1:0", "pass": "s3cret" });
    let proxy = with_admin(&redis.addr(), admin);
    let addr = redis.addr();
    drop(redis);
    let mut caller = proxy.caller();
    eventually("it is not ready", || http(&mut caller, "GET", "/readyz", "", "").status == 503);
    let bearer = "Authorization: Bearer s3cret\r\n";
    let told = http(&mut caller, "GET", "/readyz", "", "");
    assert_eq!(told.error(), "could not connect to uplink");
    assert!(!told.body.contains('\n') && !told.body.contains(&addr), "{told:?}");
    let told = http(&mut caller, "GET", "/readyz", bearer, "").error();
    assert!(told.contains(&format!("could not connect to uplink: {addr}")), "{told}");
    let info = http(&mut caller, "GET", "/info.json", bearer, "").json();
    assert_eq!(info["uplink_up"], false);
    assert_eq!(info["uplink_error"], json!(told));
    let text = http(&mut caller, "GET", "/metrics", bearer, "").body;
    assert!(text.contains("\nredis_proxy_uplink_up 0\n"), "{text}");
}

#[test]
fn the_uplink_is_watched_by_one_connection_whoever_wants_to_know() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let callers: Vec<Client> = (0..50)
        .map(|_| {
            let mut caller = proxy.caller();
            assert_eq!(http(&mut caller, "GET", "/readyz", "", "").status, 200);
            caller
        })
        .collect();
    let mut direct = redis.client();
    eventually("it has its name", || {
        direct.run("CLIENT LIST").contains(" name=redis-proxy:watch:")
    });
    assert_eq!(direct.run("CLIENT LIST").lines().count(), 2, "the watch, and this one");
    drop(callers);
}

#[test]
fn callers_are_bounded_and_whoever_is_idle_makes_room() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut client = proxy.client();
    client.command(&["WAIT", "1", "0"]);
    proxy.shows("active_requests", 1);
    let mut commanding = proxy.begin_cmd("pause&wait=true");
    proxy.shows("state", 3);
    // One place is the command's.
    let mut callers: Vec<Client> = (0..127)
        .map(|_| {
            let mut caller = proxy.caller();
            assert_eq!(http(&mut caller, "GET", "/info.json", "", "").status, 200);
            caller
        })
        .collect();
    // The place of the one that had its answer first, for it is a stranger's no more.
    let mut one_more = proxy.caller();
    assert_eq!(http(&mut one_more, "GET", "/info.json", "", "").json()["state"], 3);
    callers[0].expect_closed();
    let last = callers.last_mut().unwrap();
    assert_eq!(http(last, "GET", "/info.json", "", "").status, 200);
    // Those who say nothing, and those who ask what anybody may, make room before them.
    let mut strangers: Vec<Client> = (0..130).map(|_| proxy.caller()).collect();
    assert_eq!(http(strangers.last_mut().unwrap(), "GET", "/readyz", "", "").status, 200);
    assert_eq!(http(&mut one_more, "GET", "/info.json", "", "").status, 200);
    // A command that is running keeps its caller's place.
    http(&mut one_more, "POST", "/cmd/", "", "cmd=unpause").expect_ok();
    assert_eq!(Answer::read(&mut commanding).status, 409);
}

#[test]
fn without_a_password_no_name_leads_here_but_localhost() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let mut caller = proxy.caller();
    let mut ask = |method: &str, path: &str, host: &str, body: &str| {
        let length = body.len();
        let kind = "Content-Type: application/x-www-form-urlencoded";
        caller.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        Answer::read(&mut caller)
    };
    for host in ["localhost", "LocalHost:7011", "127.0.0.1", "10.1.2.3:7011", "[::1]", "[::1]:7011"]
    {
        assert_eq!(ask("GET", "/info.json", host, "").status, 200, "{host}");
        ask("POST", "/cmd/", host, "cmd=unpause").expect_ok();
    }
    for host in
        ["evil.example", "evil.example:7011", "localhost.evil.example", "127.0.0.1.evil.example"]
    {
        for path in ["/", "/page.js", "/info.json", "/nowhere"] {
            let answer = ask("GET", path, host, "");
            assert_eq!(answer.status, 403, "{host} {path}");
            assert!(answer.error().contains("set admin.pass"), "{answer:?}");
        }
        assert_eq!(ask("POST", "/cmd/", host, "cmd=pause").status, 403, "{host}");
        // What a scrape and a load balancer by name get says nothing that a page could use.
        for path in ["/metrics", "/healthz", "/readyz"] {
            assert_eq!(ask("GET", path, host, "").status, 200, "{host} {path}");
        }
    }
    assert_eq!(ask("GET", "http://evil.example/info.json", "localhost", "").status, 403);
    assert_eq!(proxy.info()["state"], 2);
    let old = proxy.caller().send("GET /info.json HTTP/1.0\r\n\r\n").rest();
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
}

#[test]
fn a_name_is_taken_with_a_password_over_tls_and_on_a_unix_socket() {
    let redis = redis();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock").display().to_string();
    let ask = "GET /info.json HTTP/1.1\r\nHost: proxy.example\r\nConnection: close\r\n";
    let is_served = |caller: &mut Client, more: &str| {
        caller.send(format!("{ask}{more}\r\n"));
        Answer::read(caller).status == 200
    };
    let proxy = with_admin(&redis.addr(), json!({ "addr": path, "network": "unix" }));
    proxy.addr_of("admin");
    assert!(is_served(&mut Client::connect_unix(&path), ""));
    let proxy = with_admin(&redis.addr(), json!({ "addr": "127.0.0.1:0", "pass": "s3cret" }));
    assert!(is_served(&mut proxy.caller(), "Authorization: Bearer s3cret\r\n"));
    let tls = json!({
        "addr": "127.0.0.1:0", "tls": true,
        "certfile": cert("server.pem"), "keyfile": cert("server.key"),
    });
    let proxy = with_admin(&redis.addr(), tls);
    assert!(is_served(&mut Client::connect_tls(&proxy.addr_of("admin"), None).unwrap(), ""));
}

#[test]
fn tls_and_client_certificates_work_as_on_the_other_listeners() {
    let redis = redis();
    let admin = json!({
        "addr": "127.0.0.1:0", "tls": true, "pass": "s3cret",
        "certfile": cert("server.pem"), "keyfile": cert("server.key"), "cacertfile": cert("ca.pem"),
    });
    let proxy = with_admin(&redis.addr(), admin);
    let addr = proxy.addr_of("admin");
    let mut caller = Client::connect_tls(&addr, Some("client")).unwrap();
    let bearer = "Authorization: Bearer s3cret\r\n";
    assert_eq!(http(&mut caller, "GET", "/info.json", bearer, "").json()["state"], 2);
    http(&mut caller, "POST", "/cmd/", bearer, "cmd=unpause").expect_ok();
    // TLS 1.3: the client learns of its missing certificate when it reads.
    let (mut nobody, _) = Client::connect_with(&addr, Arc::new(tls_config(None))).unwrap();
    let _ = nobody.try_send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(nobody.try_rest().is_err());
}

#[test]
fn the_page_works_under_a_strict_policy() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let answer = proxy.get("/");
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    for outside in ["http://", "https://", "style=", "onclick="] {
        // But for the namespace of the picture in the address bar.
        let page = answer.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(outside), "{outside}");
    }
    for (path, kind) in
        [("/page.js", "text/javascript; charset=utf-8"), ("/page.css", "text/css; charset=utf-8")]
    {
        let answer = proxy.get(path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)));
    }
}
