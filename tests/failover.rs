//! `cmd=failover`: a replica that is there already becomes the uplink; and `cmd=switch&to=`, after which the file
//! names the new one.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::common::{
    Answer, FakeSentinel, Proxy, Redis, Says, Sentinel, TellsToEnd, config, eventually, redis,
    run_to_end,
};

fn among(servers: &[&Redis]) -> Value {
    let addrs: Vec<String> = servers.iter().map(|it| it.addr()).collect();
    config("", json!({ "uplink": { "addrs": addrs } }))
}

/// The answer to what was done.
fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let record = answer.json()["switch"].clone();
    assert_eq!(record["result"], "done");
    record
}

fn refused(answer: &Answer) -> String {
    assert_eq!(answer.status, 400, "{}", answer.body);
    answer.json()["faults"][0].as_str().unwrap().to_owned()
}

fn uplink_of(proxy: &Proxy) -> String {
    proxy.info()["config"]["uplink"]["addr"].as_str().unwrap().to_owned()
}

fn is_master(server: &Redis) -> bool {
    server.client().run("INFO replication").contains("role:master")
}

/// Clients count while `then` runs; each reply must be the next number. Gives how far they came.
fn counting<T>(proxy: &Proxy, then: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    let clients: Vec<_> = (0..4).map(|_| proxy.client()).collect();
    thread::scope(|scope| {
        let counts: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(key, mut client)| {
                let over = &over;
                scope.spawn(move || {
                    let mut count = 0;
                    while !over.load(Ordering::Relaxed) {
                        count += 1;
                        assert_eq!(client.run(&format!("INCR counter{key}")), count.to_string());
                    }
                    count
                })
            })
            .collect();
        let outcome = {
            let _over = TellsToEnd(&over);
            then()
        };
        (outcome, counts.into_iter().map(|it| it.join().unwrap()).sum())
    })
}

fn counted_at(server: &Redis) -> u64 {
    let mut client = server.client();
    (0..4).map(|key| client.run(&format!("GET counter{key}")).parse::<u64>().unwrap_or(0)).sum()
}

#[test]
fn a_replica_among_the_servers_becomes_the_uplink_and_no_write_is_lost() {
    let (master, replica) = (redis(), redis());
    replica.follow(&master);
    let proxy = Proxy::start(&among(&[&master, &replica]));
    let mut idle = proxy.client();
    assert_eq!(idle.run("MULTI"), "OK");
    assert_eq!(idle.run("SET t 1"), "QUEUED");
    let (record, count) = counting(&proxy, || done(&proxy.cmd("failover")));
    assert_eq!((&record["to"], &record["fenced"]), (&json!(replica.addr()), &json!(true)));
    assert_eq!(record["outdated"], Value::Null, "the file names both");
    assert_eq!(counted_at(&replica), count);
    assert_eq!(idle.run("EXEC"), "[OK]");
    assert!(is_master(&replica) && !is_master(&master));
    assert_eq!(uplink_of(&proxy), replica.addr());
    // And back.
    done(&proxy.cmd(&format!("failover&to={}", master.addr())));
    assert_eq!(uplink_of(&proxy), master.addr());
}

#[test]
fn only_a_replica_of_the_uplink_that_is_in_step_can_take_its_place() {
    let (master, stranger) = (redis(), redis());
    let mut dead = redis();
    let addrs = among(&[&master, &dead]);
    dead.kill();
    let proxy = Proxy::start(&addrs);
    let why = "no replica of the uplink is there that could take its place: ";
    let fault = refused(&proxy.cmd("failover"));
    assert!(fault.starts_with(&format!("{why}{}: could not connect", dead.addr())), "{fault}");
    let to = stranger.addr();
    let fault = refused(&proxy.cmd(&format!("failover&to={to}")));
    assert!(fault.starts_with(&format!("to: {to} is no replica of the uplink")), "{fault}");
    let fault = refused(&proxy.cmd(&format!("failover&to={}", master.addr())));
    assert_eq!(fault, format!("to: {} is the present uplink", master.addr()));
    let plain = Proxy::to(&master.addr());
    let fault = refused(&plain.cmd("failover"));
    assert!(fault.starts_with("a failover is for an uplink that is found by addrs"), "{fault}");
    assert_eq!(proxy.info()["generation"], 1);
}

#[test]
fn a_failover_can_be_tried_without_being_done() {
    let (master, replica) = (redis(), redis());
    replica.follow(&master);
    let proxy = Proxy::start(&among(&[&master, &replica]));
    let answer = proxy.cmd("failover&dry_run=true");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.json()["preflight"]["checks"].as_array().unwrap().len() > 3);
    assert!(is_master(&master) && !is_master(&replica));
}

#[test]
fn the_sentinels_promote_the_replica_that_is_meant_and_no_write_is_lost() {
    let [master, one, other] = [(); 3].map(|()| Redis::announced());
    one.follow(&master);
    other.follow(&master);
    let sentinels = Sentinel::three(&master, 2);
    let addrs: Vec<String> = sentinels.iter().map(Sentinel::addr).collect();
    let uplink = json!({ "sentinel": { "addrs": addrs, "master": Sentinel::MASTER } });
    let proxy = Proxy::start(&config("", json!({ "uplink": uplink })));
    let mut subscriber = proxy.client();
    subscriber.run("SUBSCRIBE news");
    let command = format!("failover&to={}", one.addr());
    let (record, count) = counting(&proxy, || done(&proxy.cmd(&command)));
    assert_eq!((&record["to"], &record["fenced"]), (&json!(one.addr()), &json!(true)));
    assert_eq!(record["sessions_closed"], 0);
    assert_eq!(counted_at(&one), count);
    assert_eq!(uplink_of(&proxy), one.addr());
    assert_eq!(one.client().run("PUBLISH news hello"), "1");
    assert_eq!(subscriber.reply(), "[message, news, hello]");
    let named = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {}", Sentinel::MASTER);
    let host = one.addr().replace(":6379", "");
    eventually("the Sentinels know", || {
        sentinels.iter().all(|it| it.client().run(&named).contains(&host))
    });
    let priority = other.client().run("CONFIG GET replica-priority");
    assert_eq!(priority, "[replica-priority, 100]", "it is as it was");
    assert_eq!(proxy.info()["generation"], 2, "it moved once");
}

#[test]
fn after_a_switch_to_an_address_the_file_names_it_and_is_otherwise_the_same() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    let text = format!(
        "{{ \"listen\":  {{\"addr\":\"{}\"}},\n\t\"uplink\": {{ \"addr\" : \"{}\" }}\n,\"admin\":{{\"addr\":\"{}\"}} }}\n",
        "127.0.0.1:0",
        one.addr(),
        "127.0.0.1:0"
    );
    proxy.rewrite_text(&text);
    let file = proxy.file();
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&file).unwrap();
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let record = done(&proxy.cmd(&format!("switch&to={}", two.addr())));
    assert_eq!((&record["outdated"], &record["warnings"]), (&Value::Null, &json!([])));
    assert_eq!(fs::read_to_string(&file).unwrap(), text.replace(&one.addr(), &two.addr()));
    let after = fs::metadata(&file).unwrap();
    let owned = |it: &fs::Metadata| (it.mode(), it.uid(), it.gid());
    assert_eq!(owned(&after), owned(&before));
    let names: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing is left beside it");
    assert_eq!(proxy.client().run("GET k"), "v");
    assert_eq!(uplink_of(&proxy), two.addr());
    assert_eq!(
        refused(&proxy.cmd(&format!("switch&to={}", two.addr()))),
        "this is the present one: there is nothing to switch to"
    );
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_until_it_names_the_uplink() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    // What it reads is no file that could be exchanged: its directory is gone with it.
    let file = proxy.file();
    let text = fs::read_to_string(&file).unwrap();
    let link = text.replace(&one.addr(), "half");
    proxy.rewrite_text(&link.replace("\"addr\":\"half\"", "\"addrs\":[\"half:1\"]"));
    let record = done(&proxy.cmd(&format!("switch&to={}", two.addr())));
    assert_eq!(record["outdated"]["to"], two.addr());
    let told = record["warnings"][0].as_str().unwrap().to_owned();
    assert!(told.starts_with("change uplink.addr in /"), "{told}");
    assert!(proxy.get("/readyz").body.contains(&told), "{}", proxy.get("/readyz").body);
    assert_eq!(proxy.info()["remarks"][0], told);
    proxy.rewrite_text(&text);
    let fault = refused(&proxy.cmd("reload"));
    assert!(fault.contains("is the one before the last switch"), "{fault}");
    assert_eq!(uplink_of(&proxy), two.addr());
    proxy.rewrite_text(&text.replace(&one.addr(), &two.addr()));
    eventually("nothing is left to be said", || {
        proxy.info()["remarks"].as_array().unwrap().is_empty()
    });
    assert_eq!(proxy.cmd("reload").status, 200);
}

#[test]
fn where_a_switch_to_an_address_makes_no_sense_it_is_refused() {
    let (one, two, other) = (redis(), redis(), redis());
    let proxy = Proxy::start(&among(&[&one]));
    let fault = refused(&proxy.cmd(&format!("switch&to={}", two.addr())));
    assert!(
        fault.ends_with("is not among uplink.addrs: add it there, and reload, first"),
        "{fault}"
    );
    assert_eq!(proxy.reload(&among(&[&one, &two])).status, 200);
    let record = done(&proxy.cmd(&format!("switch&to={}", two.addr())));
    assert_eq!(record["outdated"], Value::Null);
    let socket = json!({ "uplink": { "addr": other.socket(), "network": "unix" } });
    let by_socket = Proxy::start(&config("", socket));
    let fault = refused(&by_socket.cmd(&format!("switch&to={}", two.addr())));
    assert!(fault.contains("is another kind of address"), "{fault}");
}

#[test]
fn ctl_fails_over_and_switches_to_an_address() {
    let (one, two, third) = (redis(), redis(), redis());
    two.follow(&one);
    let proxy = Proxy::start(&among(&[&one, &two]));
    let ctl = |proxy: &Proxy, args: &[&str]| {
        let addr = proxy.addr_of("admin");
        run_to_end(&[&["ctl", "--addr", &addr], args].concat(), "")
    };
    let output = ctl(&proxy, &["failover", "--to", &two.addr()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("the old uplink is fenced off"), "{said}");
    assert_eq!(output.status.code(), Some(0));
    let plain = Proxy::to(&two.addr());
    let output = ctl(&plain, &["switch", "--to", &third.addr()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(uplink_of(&plain), third.addr());
    assert!(fs::read_to_string(plain.file()).unwrap().contains(&third.addr()));
}

#[test]
fn a_failover_that_the_sentinels_give_up_leaves_all_as_it_was() {
    let (master, replica) = (redis(), redis());
    replica.follow(&master);
    let sentinel = FakeSentinel::start(Says::GivesUp(master.addr(), replica.addr()));
    let uplink = json!({ "sentinel": { "addrs": [sentinel.addr()], "master": "m" } });
    let proxy = Proxy::start(&config("", json!({ "uplink": uplink })));
    let (answer, count) = counting(&proxy, || proxy.cmd("failover"));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("the Sentinels gave up to promote"), "{}", answer.body);
    assert_eq!(answer.json()["switch"]["not_undone"], json!([]));
    assert_eq!(counted_at(&master), count);
    assert_eq!(master.client().run("SET direct 1"), "OK", "nobody is held there");
    assert!(is_master(&master) && !is_master(&replica));
}

#[test]
fn a_switch_away_from_what_the_sentinels_look_after_is_one_like_others() {
    let (master, elsewhere) = (redis(), redis());
    let sentinel = FakeSentinel::start(Says::Master(master.addr(), 1));
    let uplink = json!({ "sentinel": { "addrs": [sentinel.addr()], "master": "m" } });
    let proxy = Proxy::start(&config("", json!({ "uplink": uplink })));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let fault = refused(&proxy.cmd(&format!("switch&to={}", elsewhere.addr())));
    assert!(fault.ends_with("which say where the uplink is: cmd=failover"), "{fault}");
    done(&proxy.switch(&config(&elsewhere.addr(), json!({})), ""));
    assert_eq!(proxy.client().run("GET k"), "v");
    assert_eq!(uplink_of(&proxy), elsewhere.addr());
    assert!(is_master(&elsewhere) && !is_master(&master));
}
