//! A password goes to the server that it is for: not to an address that a caller gives, nor to one that
//! a server names, before that is known to be the right one.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::common::{Answer, Middle, Proxy, Redis, Then, When, config, redis};

const SECRET: &str = "the-secret";

fn uplink(server: &Redis, login: bool) -> Value {
    at(&server.addr(), login)
}

fn at(addr: &str, login: bool) -> Value {
    let mut settings = config(addr, json!({ "connect_time_limit_ms": 4000 }));
    if login {
        settings["uplink"]["pass"] = json!(SECRET);
    }
    settings
}

fn guarded() -> Redis {
    Redis::start(&["--requirepass", SECRET])
}

/// Someone who writes down what is said there, and answers everything alike.
struct Stranger {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Stranger {
    fn start(answer: String) -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let writes = heard.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (answer, writes) = (answer.clone(), writes.clone());
                thread::spawn(move || {
                    let mut chunk = [0; 1024];
                    while let Ok(len @ 1..) = stream.read(&mut chunk) {
                        writes.lock().unwrap().extend_from_slice(&chunk[..len]);
                        // A line without an end is no request.
                        if chunk[..len].contains(&b'\n')
                            && stream.write_all(answer.as_bytes()).is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Stranger { port, heard }
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }
}

fn from(addr: &str) -> String {
    format!("&replicate_from={addr}")
}

fn refused(answer: &Answer, why: &str) {
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.error().contains(why), "{}", answer.body);
}

fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["switch"].clone()
}

#[test]
fn nobody_but_the_uplink_gets_its_password_whatever_they_say() {
    let (one, two) = (guarded(), redis());
    let proxy = Proxy::start(&uplink(&one, true));
    let mut direct = one.client();
    assert_eq!(direct.run(&format!("AUTH {SECRET}")), "OK");
    let info = direct.run("INFO server");
    let id = info.lines().find(|line| line.starts_with("run_id:")).unwrap().to_owned();
    let unknown = "password would be sent there";
    for (answer, why) in [
        ("-NOAUTH Authentication required.\r\n".to_owned(), unknown),
        ("-ERR unknown command\r\n".to_owned(), unknown),
        // Whoever knows what the uplink calls itself is not the uplink.
        (format!("${}\r\n{id}\r\n", id.len()), unknown),
        ("$9\r\nrun_id:ab\r\n".to_owned(), "is not the present uplink, but another server"),
    ] {
        let stranger = Stranger::start(answer.clone());
        refused(&proxy.switch(&uplink(&two, false), &from(&stranger.addr())), why);
        let heard = stranger.heard();
        assert!(heard.contains("INFO"), "{answer}: {heard}");
        assert!(!heard.contains("AUTH") && !heard.contains(SECRET), "{answer}: {heard}");
    }
    // Nor does another Redis, with the same password or without one.
    let (alike, open) = (guarded(), redis());
    refused(&proxy.switch(&uplink(&two, false), &from(&alike.addr())), unknown);
    refused(&proxy.switch(&uplink(&two, false), &from(&open.addr())), "but another server");
    let kept = two.client().run("CONFIG GET masterauth");
    assert_eq!(kept, "[masterauth, ]");
    assert!(two.client().run("INFO replication").contains("role:master"));
}

#[test]
fn the_uplink_is_known_by_another_address_and_through_relays() {
    let (one, two) = (guarded(), guarded());
    let proxy = Proxy::start(&uplink(&one, true));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let relay = Middle::to(&one.addr());
    let record = done(&proxy.switch(&uplink(&two, true), &from(&relay.addr())));
    assert_eq!((&record["fenced"], &record["warnings"]), (&json!(true), &json!([])));
    assert_eq!(proxy.client().run("GET k"), "v");
    // Without a password, it says itself who it is.
    let (three, four) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&three, false));
    let relay = Middle::to(&three.addr());
    done(&proxy.switch(&uplink(&four, false), &from(&relay.addr())));
}

#[test]
fn an_address_that_the_proxy_cannot_reach_is_refused_where_a_password_is_needed() {
    let (one, two) = (guarded(), redis());
    let proxy = Proxy::start(&uplink(&one, true));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let link = Middle::to(&one.addr());
    link.refuse(true);
    let answer = proxy.switch(&uplink(&two, false), &from(&link.addr()));
    refused(&answer, "prepared=true");
    refused(&answer, "force=true");
    // Who says that it is right is believed, and warned.
    let forced = proxy.cmd(&format!("switch&dry_run=true&force=true{}", from(&link.addr())));
    assert_eq!(forced.status, 200, "{}", forced.body);
    assert!(forced.body.contains("password is sent there"), "{}", forced.body);
    // Without a password there is nothing to be lost.
    let (three, four) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&three, false));
    proxy.rewrite(&uplink(&four, false));
    let answer = proxy.cmd(&format!("switch&dry_run=true{}", from(&link.addr())));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[test]
fn a_new_server_that_follows_another_one_leaves_that_before_it_gets_the_password() {
    let (one, two, other) = (guarded(), redis(), redis());
    two.follow(&other);
    let way = Middle::to(&two.addr());
    let proxy = Proxy::start(&uplink(&one, true));
    let (addr, (tell, told)) = (two.addr(), mpsc::channel());
    let needle = format!("masterauth\r\n${}\r\n{SECRET}", SECRET.len());
    way.at(&needle, When::Before, move || {
        let info = crate::common::Client::connect(&addr).run("INFO replication");
        tell.send(info).unwrap();
        Then::Pass
    });
    let to_new = at(&way.addr(), false);
    done(&proxy.switch(&to_new, &format!("&force=true{}", from(&one.addr()))));
    let then = told.recv().unwrap();
    assert!(then.contains("role:master"), "{then}");
}

#[test]
fn the_old_server_sends_the_new_ones_password_only_to_the_new_one() {
    let by_socket = |server: &Redis, login: bool| {
        let mut settings = at(&server.socket(), login);
        settings["uplink"]["network"] = json!("unix");
        settings
    };
    for is_right in [false, true] {
        let (one, two) = (redis(), guarded());
        let stranger = Stranger::start("-NOAUTH Authentication required.\r\n".to_owned());
        let (host, port) = match is_right {
            true => (two.addr().replace(":6379", ""), 6379),
            false => ("127.0.0.1".to_owned(), stranger.port),
        };
        let mut direct = two.client();
        direct.run(&format!("AUTH {SECRET}"));
        direct.run(&format!("CONFIG SET replica-announce-ip {host} replica-announce-port {port}"));
        let proxy = Proxy::start(&by_socket(&one, false));
        let record = done(&proxy.switch(&by_socket(&two, true), &from(&one.addr())));
        assert_eq!(record["fenced"], is_right, "{record}");
        let heard = stranger.heard();
        assert!(!heard.contains("AUTH") && !heard.contains(SECRET), "{heard}");
        if !is_right {
            let warnings = record["warnings"].to_string();
            assert!(warnings.contains("its password is not sent to"), "{record}");
        }
    }
}
