//! Scripts are told the new uplink, as far as that is possible; they never refuse a reload.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Client, Middle, Proxy, Redis, config, eventually, redis, request};

/// Has so many different scripts evaluated.
fn evaluate(client: &mut Client, scripts: usize) {
    for some in (0..scripts).collect::<Vec<_>>().chunks(1000) {
        let evals: Vec<u8> =
            some.iter().flat_map(|n| request(&["EVAL", &format!("return {n}"), "0"])).collect();
        client.send(evals);
        for n in some {
            client.expect(format!(":{n}\r\n"));
        }
    }
}

fn sha(redis: &Redis, script: &str) -> String {
    redis.client().command(&["SCRIPT", "LOAD", script]).reply()
}

fn evalsha(client: &mut Client, sha: &str) -> String {
    client.run(&format!("EVALSHA {sha} 0"))
}

#[test]
fn scripts_that_many_or_that_take_long_to_load_refuse_no_reload() {
    let (one, two) = (redis(), redis());
    let slow = Middle::to(&two.addr());
    // All of them take longer than a connection may take.
    let limit = json!({ "connect_time_limit_ms": 4000 });
    let proxy = Proxy::start(&config(&one.addr(), limit.clone()));
    let mut client = proxy.client();
    evaluate(&mut client, 4000);
    slow.slow_down(Duration::from_millis(250));
    let begun = Instant::now();
    proxy.reload(&config(&slow.addr(), limit)).expect_ok();
    assert!(begun.elapsed() > Duration::from_secs(4));
    slow.slow_down(Duration::ZERO);
    for n in [0, 3999] {
        let sha = sha(&one, &format!("return {n}"));
        assert_eq!(evalsha(&mut client, &sha), n.to_string());
    }
    let known = two.client().run("INFO memory");
    assert!(known.contains("number_of_cached_scripts:4000"), "{known}");
}

#[test]
fn scripts_that_the_new_uplink_refuses_are_a_warning() {
    let (one, two) = (redis(), redis());
    let rights = "ACL SETUSER proxy on >pw ~* &* +@all -script|load";
    assert_eq!(two.client().run(rights), "OK");
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let mut client = proxy.client();
    evaluate(&mut client, 3);
    // It is refused by whichever server.
    assert!(client.run("EVAL nonsense 0").contains("Error compiling script"));
    let mut next = config("", json!({}));
    next["uplink"] = json!({ "addr": two.addr(), "user": "proxy", "pass": "pw" });
    let answer = proxy.reload(&next);
    assert_eq!(answer.status, 200);
    let warning = answer.json()["reload"]["warnings"][0].as_str().unwrap().to_owned();
    assert!(
        warning.contains("refused 4 of the scripts") && warning.contains("NOPERM"),
        "{warning}"
    );
    assert_eq!(proxy.info()["reloads"][0]["warnings"][0], json!(warning));
    assert_eq!(client.command(&["EVAL", "return 7", "0"]).reply(), "7");
    // Where only what is no script is refused, there is nothing to warn of.
    proxy.reload(&config(&one.addr(), json!({}))).expect_ok();
}

#[test]
fn a_script_that_is_called_by_its_hash_is_not_pushed_out_by_those_that_come_once() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let mut client = proxy.client();
    assert_eq!(client.command(&["EVAL", "return \"kept\"", "0"]).reply(), "kept");
    let kept = sha(&one, "return \"kept\"");
    assert_eq!(evalsha(&mut client, &kept), "kept");
    evaluate(&mut client, 10_500);
    proxy.reload(&config(&two.addr(), json!({}))).expect_ok();
    assert_eq!(evalsha(&mut client, &kept), "kept");
    // Those that were evaluated first are forgotten.
    assert!(evalsha(&mut client, &sha(&one, "return 0")).contains("NOSCRIPT"));
    assert_eq!(evalsha(&mut client, &sha(&one, "return 10499")), "10499");
}

#[test]
fn a_dry_run_says_how_many_scripts_would_be_missed() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let mut client = proxy.client();
    // One that nobody knows, one that both servers do, and three of which only the present one knows.
    let nobody = "0".repeat(40);
    assert!(evalsha(&mut client, &nobody).contains("NOSCRIPT"));
    sha(&two, "return 1");
    for script in ["return 1", "return 2", "return 3", "return 4"] {
        let sha = sha(&one, script);
        (0..2).for_each(|_| assert_eq!(evalsha(&mut client, &sha), script[7..]));
    }
    assert_eq!(client.command(&["EVAL", "return 4", "0"]).reply(), "4", "now the proxy knows it");
    proxy.rewrite(&config(&two.addr(), json!({})));
    let answer = proxy.cmd("reload&dry_run=true").json();
    let prediction = &answer["prediction"];
    assert_eq!(prediction["unknown_scripts"], 2, "{prediction}");
    assert_eq!(prediction["unknown_script_calls"], 4, "{prediction}");
    proxy.cmd("reload").expect_ok();
    assert!(evalsha(&mut client, &sha(&one, "return 2")).contains("NOSCRIPT"));
    assert_eq!(evalsha(&mut client, &sha(&one, "return 4")), "4");
}

#[test]
fn a_script_is_remembered_whatever_its_length_and_that_of_its_arguments() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let mut client = proxy.client();
    let long = |n: u32| format!("return {n} --{}", "x".repeat(n as usize));
    let value = "v".repeat(300_000);
    assert_eq!(client.command(&["EVAL", &long(70_000), "0"]).reply(), "70000");
    assert_eq!(client.command(&["EVAL", &long(3_000_000), "0", &value]).reply(), "3000000");
    assert_eq!(client.command(&["EVAL", "return 1", "1", &value, &value]).reply(), "1");
    let loaded = client.command(&["SCRIPT", "LOAD", &long(9_000_000)]).reply();
    client.run("MULTI");
    assert_eq!(client.command(&["EVAL", &long(2_000_000), "0"]).reply(), "QUEUED");
    assert_eq!(client.run("EXEC"), "[2000000]");
    proxy.reload(&config(&two.addr(), json!({}))).expect_ok();
    for n in [70_000, 3_000_000, 2_000_000] {
        assert_eq!(evalsha(&mut client, &sha(&one, &long(n))), n.to_string());
    }
    assert_eq!(evalsha(&mut client, &sha(&one, "return 1")), "1");
    assert_eq!(evalsha(&mut client, &loaded), "9000000");
    assert_eq!(client.run("SCRIPT EXISTS 1"), "[0]", "nothing is owed");
}

#[test]
fn scripts_that_never_come_to_their_end_take_bounded_memory() {
    let one = redis();
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let mut other = proxy.client();
    assert_eq!(other.run("PING"), "PONG");
    let before = proxy.memory_kib("VmRSS");
    let (length, part) = (10 << 20, vec![b'-'; 9 << 20]);
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send(format!("*3\r\n$4\r\nEVAL\r\n${length}\r\n")).send(&part);
    }
    // They are read to where they end, for what is not held goes up.
    let at_uplink = |list: &str| {
        let sizes = list.split("qbuf=").skip(1).filter_map(|rest| rest.split(' ').next());
        sizes.filter(|size| size.parse::<u64>().unwrap() >= 9 << 20).count()
    };
    eventually("all but one stream", || at_uplink(&one.client().run("CLIENT LIST")) == 7);
    assert!(proxy.memory_kib("VmRSS") < before + 48 * 1024);
    assert_eq!(other.run("PING"), "PONG");
    // Whoever leaves makes room.
    drop(clients);
    let script = format!("return 5 --{}", "x".repeat(12 << 20));
    eventually("there is room", || {
        let two = redis();
        assert_eq!(other.command(&["EVAL", &script, "0"]).reply(), "5");
        proxy.reload(&config(&two.addr(), json!({}))).expect_ok();
        let known = evalsha(&mut other, &sha(&one, &script)) == "5";
        proxy.reload(&config(&one.addr(), json!({}))).expect_ok();
        known
    });
}
