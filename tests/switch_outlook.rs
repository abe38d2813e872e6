//! What a switch tells while it goes on and when it ends: how far the snapshot is, that a server has
//! died, what to do then, and what a clock does to keys.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::{
    Answer, Middle, Proxy, Redis, Then, When, config, eventually, redis, run_to_end,
};

fn uplink(addr: &str) -> Value {
    config(addr, json!({}))
}

#[test]
fn the_keys_of_a_snapshot_are_counted_although_it_is_not_written_to_a_file() {
    // Two milliseconds for each: long enough to be seen.
    let one = Redis::start(&["--rdb-key-save-delay", "2000", "--enable-debug-command", "yes"]);
    let two = redis();
    let mut direct = one.client();
    direct.run("DEBUG POPULATE 3000");
    let proxy = Proxy::start(&uplink(&one.addr()));
    proxy.rewrite(&uplink(&two.addr()));
    let mut caller = proxy.begin_cmd("switch");
    eventually("keys are counted", || {
        let snapshot = proxy.info()["switching"]["snapshot"].clone();
        snapshot["total_keys"] == 3000 && snapshot["keys"].as_u64().is_some_and(|keys| keys > 0)
    });
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[test]
fn who_is_left_without_a_server_is_told_what_to_do() {
    let (mut one, two) = (redis(), redis());
    let link = Middle::to(&one.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    link.at("PSYNC", When::Before, || Then::Hold);
    proxy.rewrite(&uplink(&two.addr()));
    let mut caller = proxy.begin_cmd(&format!("switch&replicate_from={}", link.addr()));
    let role = || two.client().run("INFO replication");
    eventually("it is a replica", || role().contains("role:slave"));
    one.kill();
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 503, "{}", answer.body);
    for part in [
        "lost the present uplink".to_owned(),
        format!("clients cannot be served, for nothing listens at {}. Restart it", one.addr()),
        format!("with what {} has: cmd=reload. The configuration file names", two.addr()),
    ] {
        assert!(answer.error().contains(&part), "{part}: {}", answer.body);
    }
    // The same before it begins; and ctl says it in its own words.
    let admin = proxy.addr_of("admin");
    let ctl = run_to_end(&["ctl", "--addr", &admin, "switch"], "");
    let err = String::from_utf8(ctl.stderr).unwrap();
    assert!(err.contains("go on without its data"), "{err}");
    assert!(err.contains("`redis-proxy ctl reload`") && !err.contains("cmd="), "{err}");
    // That is what helps.
    proxy.cmd("reload").expect_ok();
    assert_eq!(proxy.client().run("SET k v"), "OK");
}

#[test]
fn ctl_names_its_own_options() {
    let (one, two) = (redis(), redis());
    two.client().run("SET precious 1");
    let proxy = Proxy::start(&uplink(&one.addr()));
    proxy.rewrite(&uplink(&two.addr()));
    let admin = proxy.addr_of("admin");
    for more in [&[][..], &["--dry-run"]] {
        let ctl = run_to_end(&[&["ctl", "--addr", &admin, "switch"], more].concat(), "");
        let out = String::from_utf8(ctl.stdout).unwrap();
        let said = out + &String::from_utf8(ctl.stderr).unwrap();
        assert!(said.contains("--force") && !said.contains("force=true"), "{said}");
    }
    let json = run_to_end(&["ctl", "--json", "--addr", &admin, "switch"], "");
    assert!(String::from_utf8(json.stdout).unwrap().contains("force=true"));
}

/// A way to a server on which its clock is wrong by so many seconds.
fn with_clock(server: &Redis, seconds: i64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (addr, server) = (listener.local_addr().unwrap().to_string(), server.addr());
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(&server) else { return };
            let (mut down_from, mut down_to) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut down_from, &mut down_to);
                let _ = down_to.shutdown(std::net::Shutdown::Both);
            });
            thread::spawn(move || answer_time(client, server, seconds));
        }
    });
    addr
}

fn answer_time(mut client: TcpStream, mut server: TcpStream, seconds: i64) {
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = client.read(&mut chunk) {
        let sent = if chunk[..len] == *b"*1\r\n$4\r\nTIME\r\n" {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let at = (now.as_secs() as i64 + seconds).to_string();
            let micros = format!("{:06}", now.subsec_micros());
            let length = at.len();
            client.write_all(format!("*2\r\n${length}\r\n{at}\r\n$6\r\n{micros}\r\n").as_bytes())
        } else {
            server.write_all(&chunk[..len])
        };
        if sent.is_err() {
            break;
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Both);
}

#[test]
fn clocks_that_would_let_keys_expire_early_or_late_are_warned_of() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    for (seconds, result, says) in [
        (0, "ok", "alike"),
        (
            3600,
            "warning",
            "s ahead of the present one's: keys that have a time to live expire so much early",
        ),
        (-3600, "warning", "s behind the present one's"),
    ] {
        proxy.rewrite(&uplink(&with_clock(&two, seconds)));
        let answer = proxy.cmd("switch&dry_run=true");
        let checks = answer.json()["preflight"]["checks"].clone();
        let clocks = checks.as_array().unwrap().iter().find(|check| check["name"] == "clocks");
        let clocks = clocks.unwrap();
        assert_eq!(clocks["result"], result, "{clocks}");
        assert!(clocks["detail"].as_str().unwrap().contains(says), "{clocks}");
    }
}
