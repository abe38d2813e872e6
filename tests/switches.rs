//! `cmd=switch`: the data are moved by replication, then the clients; it can be called off, it refuses
//! what would go wrong, and it keeps out who writes past the proxy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{
    Answer, Client, Middle, Proxy, Redis, TellsToEnd, Then, When, cert, config, eventually, redis,
};

/// The configuration with another uplink.
fn uplink(addr: &str) -> Value {
    config(addr, json!({}))
}

/// The answer to a switch that was done.
fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["switch"].clone()
}

fn role(server: &Redis) -> &'static str {
    match server.client().run("INFO replication") {
        info if info.contains("role:master") => "master",
        _ => "replica",
    }
}

/// What a check of the preflight came to, and its detail.
fn check(report: &Value, name: &str) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().unwrap().iter();
    let text = |check: &Value, field: &str| check[field].as_str().unwrap().to_owned();
    checks
        .filter(|check| check["name"] == name)
        .map(|check| (text(check, "result"), text(check, "detail")))
        .collect()
}

#[test]
fn one_command_moves_the_data_and_the_clients_and_back() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    for number in 0..100 {
        assert_eq!(client.run(&format!("SET k{number} {number}")), "OK");
    }
    for (round, to) in [&two, &one, &two].iter().enumerate() {
        let record = done(&proxy.switch(&uplink(&to.addr()), ""));
        assert_eq!(record["result"], "done");
        assert_eq!((&record["fenced"], &record["warnings"]), (&json!(true), &json!([])));
        assert!(record["held_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(record["sync_bytes"].is_null(), round > 0, "the way back is ready");
        let stages = record["stages"].as_array().unwrap().iter();
        let stages: Vec<_> = stages.map(|stage| stage["stage"].as_str().unwrap()).collect();
        let all = "preflight, replicating, ready, paused, catching up, promoting, resumed, fencing";
        assert_eq!(stages.join(", "), all);
        assert_eq!(client.run("GET k99"), "99");
        assert_eq!(client.run(&format!("SET round {round}")), "OK");
        assert_eq!(to.client().run("GET round"), round.to_string());
        assert_eq!((role(to), proxy.info()["switching"].clone()), ("master", Value::Null));
    }
    assert_eq!(role(&one), "replica");
    assert!(one.client().run("SET stray 1").starts_with("-READONLY"));
    assert_eq!(proxy.info()["switches"].as_array().unwrap().len(), 3);
    assert_eq!(proxy.metric("redis_proxy_switches_total{result=\"done\"}"), 3.0);
}

#[test]
fn passwords_users_and_authorities_may_differ_on_both_sides() {
    // Each trusts what the other shows, as its replica must.
    let dir = tempfile::tempdir().unwrap();
    let both = dir.path().join("both.pem");
    let pem = |name: &str| std::fs::read_to_string(cert(name)).unwrap();
    std::fs::write(&both, pem("ca.pem") + &pem("self-signed.pem")).unwrap();
    let tls = |identity: &str| {
        let files = [format!("{identity}.pem"), format!("{identity}.key")].map(|name| cert(&name));
        ["--tls-cert-file", &files[0], "--tls-key-file", &files[1], "--tls-ca-cert-file"]
            .map(str::to_owned)
            .into_iter()
            .chain([both.display().to_string()])
            .collect::<Vec<_>>()
    };
    let start = |identity: &str, more: &[&str]| {
        let mut args: Vec<String> = more.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(tls(identity));
        Redis::with_tls(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let one = start("server", &["--requirepass", "first-secret"]);
    let two = start("self-signed", &[]);
    two.client().run("ACL SETUSER mover on >second-secret ~* &* +@all");
    two.client().run("ACL SETUSER default off");
    let to = |server: &Redis, ca: &str, login: Value| {
        let mut settings = uplink("");
        settings["uplink"] = json!({
            "addr": server.tls_addr(), "tls": true, "cacertfile": cert(ca),
            "servername": "localhost",
        });
        for (field, value) in login.as_object().unwrap() {
            settings["uplink"][field] = value.clone();
        }
        settings
    };
    let first = to(&one, "ca.pem", json!({ "pass": "first-secret" }));
    let second = to(&two, "self-signed.pem", json!({ "user": "mover", "pass": "second-secret" }));
    let proxy = Proxy::start(&first);
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    for (settings, round) in [(&second, "1"), (&first, "2"), (&second, "3")] {
        let record = done(&proxy.switch(settings, ""));
        assert_eq!((&record["fenced"], &record["warnings"]), (&json!(true), &json!([])));
        assert_eq!(client.run("GET k"), "v");
        assert_eq!(client.run(&format!("SET round {round}")), "OK");
    }
    assert!(!proxy.log_text().contains("-secret"), "no password in the log");
    assert!(!proxy.info().to_string().contains("-secret"));
}

#[test]
fn a_target_that_has_data_is_refused_with_the_number_of_keys_and_erased_only_by_force() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let mut direct = two.client();
    for number in 0..3 {
        direct.run(&format!("SET precious{number} 1"));
    }
    let answer = proxy.switch(&uplink(&two.addr()), "");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("has 3 keys"), "{}", answer.body);
    let body = answer.json();
    assert_eq!(body["switch"]["result"], "refused");
    assert_eq!(check(&body["preflight"], "data")[0].0, "failed");
    assert_eq!((direct.run("DBSIZE"), role(&two)), ("3".to_owned(), "master"));
    assert_eq!(proxy.info()["config"]["uplink"]["addr"], one.addr());
    let record = done(&proxy.cmd("switch&force=true"));
    assert!(record["warnings"][0].as_str().unwrap().contains("3 keys"), "{record}");
    assert_eq!(two.client().run("KEYS *"), "[k]");
}

#[test]
fn a_new_server_that_does_not_take_every_command_is_not_promoted() {
    let (one, two) = (redis(), Redis::start(&["--rename-command", "HSET", ""]));
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    // While it is at work, and when clients are held already.
    for at in ["HELLO", "WATCH"] {
        let way = Middle::to(&two.addr());
        let mut writer = proxy.client();
        assert_eq!(writer.run("WATCH k"), "OK");
        let (then, direct) = (way.clone(), one.addr());
        way.at("*3\r\n$9\r\nREPLICAOF", When::After, move || {
            then.at(at, When::Before, move || {
                assert!(Client::connect(&direct).run("HSET h f v").parse::<u64>().is_ok());
                Then::Pass
            });
            Then::Pass
        });
        let from = format!("&replicate_from={}", one.addr());
        let answer = proxy.switch(&uplink(&way.addr()), &from);
        assert_eq!(answer.status, 503, "{at}: {}", answer.body);
        assert!(answer.error().contains("refused 1 of the commands"), "{at}: {}", answer.body);
        assert_eq!((role(&two), client.run("GET k")), ("master", "v".to_owned()));
    }
}

/// Whoever begins to copy everything does not come to an end.
fn always_break(link: &Middle) {
    let again = link.clone();
    link.at("PSYNC", When::After, move || {
        always_break(&again);
        Then::Close
    });
}

#[test]
fn a_new_server_that_never_ends_its_copy_is_given_up() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let link = Middle::to(&one.addr());
    always_break(&link);
    let from = format!("&replicate_from={}", link.addr());
    let answer = proxy.switch(&uplink(&two.addr()), &from);
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.error().contains("has begun 10 times to copy"), "{}", answer.body);
    assert_eq!(role(&two), "master");
}

#[test]
fn functions_are_data_too() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let code = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    assert_ne!(two.client().ask(&["FUNCTION", "LOAD", code]).chars().next(), Some('-'));
    let answer = proxy.switch(&uplink(&two.addr()), "");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("has 0 keys and 1 functions"), "{}", answer.body);
}

#[test]
fn a_new_server_that_keeps_less_on_its_disk_is_warned_of() {
    for (was, is, expected) in [
        (&["--save", "3600 1"][..], &[][..], "warning"),
        (&["--appendonly", "yes"], &["--save", "3600 1"], "warning"),
        (&[], &["--appendonly", "yes"], "ok"),
        (&[], &["--rename-command", "CONFIG", ""], "unknown"),
    ] {
        let (one, two) = (Redis::start(was), Redis::start(is));
        let proxy = Proxy::start(&uplink(&one.addr()));
        let answer = proxy.switch(&uplink(&two.addr()), "&dry_run=true");
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(
            check(&answer.json()["preflight"], "persistence")[0].0,
            expected,
            "{was:?} {is:?}"
        );
    }
}

#[test]
fn a_dry_run_reports_each_check_and_changes_nothing() {
    let (one, two) = (redis(), Redis::start(&["--databases", "4", "--maxclients", "64"]));
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    client.run("SELECT 9");
    client.run("SET k v");
    two.client().run("CONFIG SET notify-keyspace-events KEA");
    let answer = proxy.switch(&uplink(&two.addr()), "&dry_run=true");
    assert_eq!(answer.status, 400);
    let body = answer.json();
    let report = &body["preflight"];
    let databases = check(report, "databases");
    assert_eq!(databases[0].0, "failed");
    assert!(databases[0].1.contains("database 9 is in use"), "{databases:?}");
    assert_eq!(body["faults"].as_array().unwrap().len(), 1, "{body}");
    assert!(check(report, "settings")[0].1.contains("notify-keyspace-events"));
    for name in [
        "configuration",
        "clients",
        "present uplink",
        "new uplink",
        "replication",
        "data",
        "version",
        "memory",
        "connections",
        "modules",
        "persistence",
        "rights",
    ] {
        let checks = check(report, name);
        assert!(!checks.is_empty() && checks.iter().all(|(result, _)| result == "ok"), "{name}");
    }
    // It is right once that database is empty.
    client.run("DEL k");
    let answer = proxy.cmd("switch&dry_run=true");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!((role(&two), proxy.info()["switches"].clone()), ("master", json!([])));
}

#[test]
fn what_a_server_does_not_tell_is_unknown_and_what_it_forbids_is_refused() {
    let managed: &[&str] =
        &["--rename-command", "CONFIG", "", "--rename-command", "ACL", "", "--requirepass", "x"];
    let (one, two) = (redis(), Redis::start(managed));
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let mut settings = uplink(&two.addr());
    settings["uplink"]["pass"] = json!("x");
    let answer = proxy.switch(&settings, "&dry_run=true");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let report = answer.json()["preflight"].clone();
    for name in ["databases", "settings", "rights"] {
        assert!(check(&report, name).iter().any(|(result, _)| result == "unknown"), "{name}");
    }
    // It has no password to give, and needs none.
    assert_eq!(done(&proxy.cmd("switch"))["result"], "done");
    assert_eq!(proxy.client().run("GET k"), "v");
    // A user who may not.
    let three = redis();
    three.client().run("ACL SETUSER weak on >y ~* &* +@all -replicaof");
    settings["uplink"] = json!({ "addr": three.addr(), "user": "weak", "pass": "y" });
    let answer = proxy.switch(&settings, "");
    assert_eq!(answer.status, 400);
    let why = "the new uplink's user may not use REPLICAOF";
    assert!(answer.error().contains(why), "{}", answer.body);
    // And one without which something is worse.
    three.client().run("ACL SETUSER weak resetchannels +replicaof");
    let report = proxy.cmd("switch&dry_run=true").json()["preflight"].clone();
    let rights = check(&report, "rights");
    let why = "may not use SSUBSCRIBE: messages in flight";
    assert!(rights.iter().any(|it| it.0 == "warning" && it.1.contains(why)), "{rights:?}");
}

#[test]
fn what_cannot_be_a_switch_is_refused_with_the_reason() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let refused = |answer: Answer, why: &str| {
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.error().contains(why), "{}", answer.body);
    };
    refused(proxy.cmd("switch"), "the uplink in the file is the present one");
    let same = one.addr().replace(":6379", "");
    assert_eq!(one.client().run("CONFIG SET replica-announce-port 1"), "OK");
    let way = Middle::to(&format!("{same}:6379"));
    refused(proxy.switch(&uplink(&way.addr()), ""), "is the present one, by another address");
    refused(
        proxy.switch(&uplink(&two.addr()), "&prepared=true"),
        "with prepared=true it must be a replica",
    );
    refused(proxy.switch(&uplink("127.0.0.1:1"), ""), "could not connect to uplink");
    // The present one is no master.
    one.follow(&two);
    let three = redis();
    refused(proxy.switch(&uplink(&three.addr()), ""), "present uplink: is a replica itself");
    assert_eq!(role(&three), "master");
}

#[test]
fn a_replica_that_is_there_already_is_only_followed_and_promoted() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    two.follow(&one);
    let record = done(&proxy.switch(&uplink(&two.addr()), "&prepared=true"));
    assert_eq!((&record["sync_bytes"], &record["fenced"]), (&Value::Null, &json!(true)));
    assert_eq!((proxy.client().run("GET k"), role(&two)), ("v".to_owned(), "master"));
    // One that follows another one is none.
    let (three, four) = (redis(), redis());
    three.follow(&four);
    proxy.rewrite(&uplink(&three.addr()));
    let answer = proxy.cmd("switch&prepared=true");
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("but not of the present one"), "{}", answer.body);
    assert_eq!(role(&three), "replica", "nothing was done to it");
    // Nor is one that is told to follow another one.
    let five = redis();
    let parameters = format!("&replicate_from={}", four.addr());
    let answer = proxy.switch(&uplink(&five.addr()), &parameters);
    assert_eq!(answer.status, 400);
    let why = format!("{} (no TLS) is not the present uplink, but another server", four.addr());
    assert!(answer.error().contains(&why), "{}", answer.body);
    assert_eq!(role(&five), "master");
}

#[test]
fn servers_behind_unix_sockets_are_told_how_to_reach_each_other() {
    let (one, two) = (redis(), redis());
    let by_socket = |server: &Redis| {
        let mut settings = uplink(&server.socket());
        settings["uplink"]["network"] = json!("unix");
        settings
    };
    two.client()
        .run(&format!("CONFIG SET replica-announce-ip {}", two.addr().replace(":6379", "")));
    let proxy = Proxy::start(&by_socket(&one));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let answer = proxy.switch(&by_socket(&two), "");
    assert!(answer.error().contains("replicate_from=host:port"), "{}", answer.body);
    let from = one.addr();
    let record = done(&proxy.cmd(&format!("switch&replicate_from={from}")));
    // By the address under which the old one knew it.
    assert_eq!((&record["fenced"], role(&one)), (&json!(true), "replica"), "{record}");
    assert_eq!(proxy.client().run("GET k"), "v");
}

#[test]
fn without_a_fence_the_old_server_is_left_as_it_is() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let record = done(&proxy.switch(&uplink(&two.addr()), "&fence=false"));
    assert_eq!(record["fenced"], false);
    assert_eq!((role(&one), one.client().run("SET stray 1")), ("master", "OK".to_owned()));
    // What it has beside that would be lost.
    let answer = proxy.switch(&uplink(&one.addr()), "");
    assert!(answer.error().contains("2 keys"), "{}", answer.body);
}

#[test]
fn what_was_acknowledged_to_writers_past_the_proxy_is_not_lost() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let done_writing = AtomicBool::new(false);
    thread::scope(|scope| {
        let _done = TellsToEnd(&done_writing);
        let writers: Vec<_> = (0..3)
            .map(|number| {
                let (mut direct, done) = (one.client(), &done_writing);
                scope.spawn(move || {
                    let (mut counted, mut refused) = (0, false);
                    while !refused && !done.load(Ordering::Relaxed) {
                        let reply = direct.run(&format!("INCR stray{number}"));
                        refused = reply.starts_with("-READONLY");
                        counted += u64::from(!refused);
                    }
                    (counted, refused)
                })
            })
            .collect();
        eventually("they write", || one.client().run("GET stray2") != "nil");
        done(&proxy.switch(&uplink(&two.addr()), ""));
        let counts: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        for (number, (counted, refused)) in counts.into_iter().enumerate() {
            assert!(refused, "it was kept out");
            assert_eq!(two.client().run(&format!("GET stray{number}")), counted.to_string());
        }
    });
}

#[test]
fn a_switch_can_be_called_off_until_the_new_server_is_promoted() {
    let (one, two) = (redis(), redis());
    two.client().run("CONFIG SET masterauth before");
    let (link, way) = (Middle::to(&one.addr()), Middle::to(&two.addr()));
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.cmd("cancel-switch").status, 409, "there is none");
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    let settings = uplink(&way.addr());
    proxy.rewrite(&settings);
    let command = format!("switch&replicate_from={}", link.addr());
    // While the data are copied.
    link.at("PSYNC", When::Before, || Then::Hold);
    let mut caller = proxy.begin_cmd(&command);
    proxy.shows_in(&["switching", "stage"], "replicating");
    eventually("it is a replica", || role(&two) == "replica");
    assert_eq!(proxy.cmd("reload").error(), "a switch is running already");
    assert_eq!(proxy.cmd("switch").error(), "a switch is running already");
    proxy.cmd("cancel-switch").expect_ok();
    let answer = Answer::read(&mut caller);
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (409, "the switch was cancelled by an operator")
    );
    let record = answer.json()["switch"].clone();
    assert_eq!((&record["result"], &record["not_undone"]), (&json!("rolled back"), &json!([])));
    let was = two.client().run("CONFIG GET masterauth");
    assert_eq!((role(&two), was.as_str()), ("master", "[masterauth, before]"));
    // While clients are held.
    let waiting = std::sync::Arc::new(std::sync::Barrier::new(2));
    let reached = waiting.clone();
    way.at("WATCH", When::Before, move || {
        reached.wait();
        Then::Hold
    });
    for command in ["SELECT 7", "WATCH k"] {
        assert_eq!(client.run(command), "OK");
    }
    let mut caller = proxy.begin_cmd(&command);
    waiting.wait();
    proxy.cmd("cancel-switch").expect_ok();
    assert_eq!(Answer::read(&mut caller).status, 409);
    assert_eq!(client.run("SET k v2"), "OK", "clients go on with the old one");
    assert_eq!((role(&two), role(&one)), ("master", "master"));
    // Too late.
    let (reached, go_on) = (waiting.clone(), waiting.clone());
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::Before, move || {
        reached.wait();
        go_on.wait();
        Then::Pass
    });
    let mut caller = proxy.begin_cmd(&command);
    waiting.wait();
    let error = proxy.cmd("cancel-switch").error();
    assert!(error.contains("too late: the switch is promoting"), "{error}");
    waiting.wait();
    done(&Answer::read(&mut caller));
}

#[test]
fn who_calls_a_switch_off_is_told_what_could_not_be_undone() {
    let (one, two) = (redis(), redis());
    let (link, way) = (Middle::to(&one.addr()), Middle::to(&two.addr()));
    let proxy = Proxy::start(&uplink(&one.addr()));
    link.at("PSYNC", When::Before, || Then::Hold);
    proxy.rewrite(&uplink(&way.addr()));
    let mut caller = proxy.begin_cmd(&format!("switch&replicate_from={}", link.addr()));
    eventually("it is a replica", || role(&two) == "replica");
    // It cannot be reached any more.
    way.refuse(true);
    way.turn_to(&two.addr());
    let answer = proxy.cmd("cancel-switch");
    assert_eq!(answer.status, 503, "{}", answer.body);
    let expected = format!("cancelled, but not undone: on {}, REPLICAOF NO ONE", way.addr());
    assert!(answer.error().contains(&expected), "{}", answer.body);
    let record = Answer::read(&mut caller).json()["switch"].clone();
    assert_eq!(record["not_undone"].as_array().unwrap().len(), 1, "{record}");
}

#[test]
fn a_switch_that_was_rolled_back_can_be_tried_again_without_force() {
    let (one, two) = (redis(), redis());
    let way = Middle::to(&two.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::Before, || Then::Close);
    let answer = proxy.switch(&uplink(&way.addr()), "");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("is not promoted"), "{}", answer.body);
    assert_eq!(answer.json()["switch"]["result"], "rolled back");
    assert_eq!((role(&two), two.client().run("GET k")), ("master", "v".to_owned()));
    assert_eq!(client.run("SET k v2"), "OK");
    // A signal, which may be about a certificate, takes nobody to what is old.
    proxy.signal(Signal::HUP);
    eventually("it is refused", || {
        let reload = &proxy.info()["reloads"][0];
        reload["faults"].to_string().contains("a switch to it failed")
    });
    assert_eq!(client.run("GET k"), "v2");
    done(&proxy.cmd("switch"));
    assert_eq!(client.run("GET k"), "v2");
}

#[test]
fn an_empty_server_in_the_place_of_the_new_one_is_not_taken_for_it() {
    let (one, two, empty) = (redis(), redis(), redis());
    let way = Middle::to(&two.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    // It dies when it is promoted, and something answers at its address.
    let (place, addr) = (way.clone(), empty.addr());
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::Before, move || {
        place.turn_to(&addr);
        Then::Close
    });
    let answer = proxy.switch(&uplink(&way.addr()), "");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("is not what was promoted"), "{}", answer.body);
    assert_eq!(client.run("GET k"), "v");
    assert_eq!((role(&one), one.client().run("GET k")), ("master", "v".to_owned()));
}

#[test]
fn an_empty_server_in_the_place_of_the_new_one_does_not_erase_the_last_copy() {
    let (one, two, empty) = (redis(), redis(), redis());
    let (way, to_old) = (Middle::to(&two.addr()), Middle::to(&one.addr()));
    let proxy = Proxy::start(&uplink(&to_old.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    // After the promotion, before the fence: with the first look at the old one since then.
    let (place, addr, then) = (way.clone(), empty.addr(), to_old.clone());
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::After, move || {
        then.at("INFO", When::Before, move || {
            place.turn_to(&addr);
            Then::Pass
        });
        Then::Pass
    });
    let answer = proxy.switch(&uplink(&way.addr()), &format!("&replicate_from={}", one.addr()));
    let record = done(&answer);
    assert_eq!((record["fenced"].clone(), role(&one)), (json!(false), "master"), "{record}");
    assert_eq!(one.client().run("GET k"), "v");
}

#[test]
fn clients_are_held_no_longer_than_pause_limit_ms() {
    let (one, two) = (redis(), redis());
    let link = Middle::to(&one.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    assert_eq!(client.run("SELECT 7"), "OK");
    assert_eq!(client.run("WATCH k"), "OK");
    // The last byte does not come in time.
    let way = Middle::to(&two.addr());
    let slow = link.clone();
    way.at("WATCH", When::Before, move || {
        slow.slow_down(Duration::from_secs(60));
        Then::Pass
    });
    let from = link.addr();
    let parameters = format!("&pause_limit_ms=4000&replicate_from={from}");
    let answer = proxy.switch(&uplink(&way.addr()), &parameters);
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("in time"), "{}", answer.body);
    assert_eq!(client.run("SET k v"), "OK");
    assert_eq!(proxy.info()["config"]["uplink"]["addr"], one.addr());
    assert_eq!(role(&two), "master");
    // Nor does the whole take longer than it may.
    link.refuse(true);
    let answer = proxy.cmd(&format!("switch&timeout_ms=200&replicate_from={from}"));
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("timeout_ms"), "{}", answer.body);
    assert_eq!(role(&two), "master");
}

#[test]
fn a_server_that_hangs_while_it_is_promoted_holds_clients_no_longer_than_they_may_be() {
    let (one, two) = (redis(), redis());
    let way = Middle::to(&two.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::Before, || Then::Hold);
    let mut config = uplink(&way.addr());
    // Who is held for as long as a server may take to answer fails this.
    config["connect_time_limit_ms"] = json!(3_600_000);
    let answer = proxy.switch(&config, "&pause_limit_ms=5000");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("is not known in time"), "{}", answer.body);
    assert_eq!(client.run("SET k v2"), "OK");
    done(&proxy.cmd("switch"));
    assert_eq!((client.run("GET k"), role(&one)), ("v2".to_owned(), "replica"));
}

#[test]
fn an_operators_pause_outlasts_a_switch_and_a_signal_waits_for_it() {
    let (one, two) = (redis(), redis());
    let link = Middle::to(&one.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    link.refuse(true);
    proxy.rewrite(&uplink(&two.addr()));
    let mut caller = proxy.begin_cmd(&format!("switch&replicate_from={}", link.addr()));
    proxy.shows_in(&["switching", "stage"], "replicating");
    proxy.cmd("pause").expect_ok();
    proxy.signal(Signal::HUP);
    client.command(&["GET", "k"]);
    proxy.shows("waiting_requests", 1);
    link.refuse(false);
    let record = done(&Answer::read(&mut caller));
    assert_eq!(record["held_ms"], Value::Null, "by the operator alone");
    assert_eq!(proxy.info()["state_str"], "paused");
    eventually("the reload comes after it", || proxy.info()["reloads"][0]["by"] == "signal");
    proxy.cmd("unpause").expect_ok();
    assert_eq!(client.reply(), "v");
    assert_eq!(client.run("SET k2 v"), "OK");
    assert_eq!(two.client().run("GET k2"), "v");
}

#[test]
fn a_stop_undoes_a_switch_before_the_process_ends() {
    let (one, two) = (redis(), redis());
    let link = Middle::to(&one.addr());
    let mut proxy = Proxy::start(&uplink(&one.addr()));
    link.refuse(true);
    proxy.rewrite(&uplink(&two.addr()));
    let caller = proxy.begin_cmd(&format!("switch&replicate_from={}", link.addr()));
    eventually("it is a replica", || role(&two) == "replica");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
    assert_eq!(role(&two), "master");
    drop(caller);
}

#[test]
fn a_switch_goes_on_when_nobody_waits_for_its_answer() {
    let (one, two) = (redis(), redis());
    let link = Middle::to(&one.addr());
    link.refuse(true);
    let proxy = Proxy::start(&uplink(&one.addr()));
    proxy.rewrite(&uplink(&two.addr()));
    let caller = proxy.begin_cmd(&format!("switch&replicate_from={}", link.addr()));
    proxy.shows_in(&["switching", "stage"], "replicating");
    drop(caller);
    link.refuse(false);
    eventually("it is done", || proxy.info()["switches"][0]["result"] == "done");
    assert_eq!(role(&two), "master");
}

#[test]
fn progress_is_told_while_it_is_made() {
    let (one, two) = (redis(), redis());
    let link = Middle::to(&one.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client: Client = proxy.client();
    let value = "x".repeat(100_000);
    for number in 0..100 {
        client.command(&["SET", &format!("k{number}"), &value]);
        assert_eq!(client.reply(), "OK");
    }
    assert_eq!(one.client().run("CONFIG SET rdbcompression no"), "OK");
    // The snapshot takes minutes, until it is known how far it is.
    let slow = link.clone();
    link.at("PSYNC", When::After, move || {
        slow.slow_down(Duration::from_secs(1));
        Then::Pass
    });
    proxy.rewrite(&uplink(&two.addr()));
    let mut caller = proxy.begin_cmd(&format!("switch&replicate_from={}", link.addr()));
    let switching = || proxy.info()["switching"].clone();
    eventually("bytes are counted", || {
        let read = switching()["sync"]["read_bytes"].as_u64().unwrap_or(0);
        (1..10_000_000).contains(&read)
    });
    let now = switching();
    assert_eq!((&now["from"], &now["to"]), (&json!(one.addr()), &json!(two.addr())));
    assert_eq!((&now["by"], &now["can_cancel"]), (&json!("http"), &json!(true)));
    assert!(now["seconds"].as_f64().unwrap() > 0.0);
    link.slow_down(Duration::ZERO);
    let record = done(&Answer::read(&mut caller));
    assert!(record["sync_bytes"].as_u64().unwrap() > 10_000_000, "{record}");
    assert!(record["lag_ms"].as_f64().is_some());
}

#[test]
fn a_new_server_is_not_promoted_before_what_it_received_is_on_its_disk() {
    let one = redis();
    // It takes a second for that.
    let durable =
        ["--appendonly", "yes", "--appendfsync", "always", "--rdb-key-save-delay", "2000"];
    let mut two = Redis::start(&durable);
    let way = Middle::to(&two.addr());
    let proxy = Proxy::start(&uplink(&one.addr()));
    let mut client = proxy.client();
    for number in 0..500 {
        client.run(&format!("SET k{number} v"));
    }
    let (addr, (tell, told)) = (two.addr(), std::sync::mpsc::channel());
    way.at("*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO", When::Before, move || {
        tell.send(Client::connect(&addr).run("INFO persistence")).unwrap();
        Then::Pass
    });
    done(&proxy.switch(&uplink(&way.addr()), &format!("&replicate_from={}", one.addr())));
    let then = told.recv().unwrap();
    assert!(then.contains("aof_rewrite_in_progress:0"), "{then}");
    assert_eq!(client.run("SET last v"), "OK");
    // If it dies now, it comes back with everything, and its replica keeps it.
    two.restart();
    assert_eq!(two.client().run("DBSIZE"), "501");
    eventually("the old one has it, too", || one.client().run("DBSIZE") == "501");
}
