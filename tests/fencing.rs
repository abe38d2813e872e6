//! Nobody writes to a server that is a replica: not to the old one after a switch, nor to the new one
//! before it. What cannot be prevented is told, with what to do.

use serde_json::{Value, json};

use crate::common::{Answer, Middle, Proxy, Redis, Then, When, config, eventually, redis};

fn uplink(addr: &str) -> Value {
    config(addr, json!({}))
}

/// The configuration with a user of its own.
fn as_user(addr: &str, user: &str) -> Value {
    let mut settings = uplink(addr);
    settings["uplink"]["user"] = json!(user);
    settings["uplink"]["pass"] = json!("pass");
    settings
}

fn done(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["switch"].clone()
}

fn warnings(record: &Value) -> String {
    record["warnings"].to_string()
}

/// A server whose clients may write to it although it is a replica.
fn writable(args: &[&str]) -> Redis {
    Redis::start(&[&["--replica-read-only", "no"], args].concat())
}

fn read_only(server: &Redis) -> String {
    server.client().run("CONFIG GET replica-read-only")
}

#[test]
fn a_fenced_server_takes_no_writes_whatever_its_settings_were_there_and_back() {
    let (one, two) = (writable(&[]), writable(&[]));
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let dry = proxy.switch(&uplink(&two.addr()), "&dry_run=true");
    assert!(dry.body.contains("it will be set to yes for the fence"), "{}", dry.body);
    for (from, to) in [(&one, &two), (&two, &one), (&one, &two)] {
        let record = done(&proxy.switch(&uplink(&to.addr()), ""));
        assert_eq!((&record["fenced"], &record["warnings"]), (&json!(true), &json!([])));
        let refused = from.client().run("SET stray 1");
        assert!(refused.starts_with("-READONLY"), "{refused}");
        assert_eq!(to.client().run("GET k"), "v");
    }
}

#[test]
fn an_old_server_that_takes_writes_all_the_same_is_not_said_to_be_fenced() {
    let (one, two) = (writable(&[]), redis());
    one.client().run("ACL SETUSER mover on >pass ~* &* +@all -config|set");
    let proxy = Proxy::start(&as_user(&one.addr(), "mover"));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let dry = proxy.switch(&uplink(&two.addr()), "&dry_run=true");
    assert!(dry.body.contains("it will take writes after the switch"), "{}", dry.body);
    // Who writes past the proxy is held for some seconds more than that.
    let record = done(&proxy.cmd("switch&pause_limit_ms=6000"));
    assert_eq!(record["fenced"], false, "{record}");
    let advice = "takes writes, which are lost: use CONFIG SET replica-read-only yes there";
    assert!(warnings(&record).contains(advice), "{record}");
    assert_eq!(one.client().run("SET stray 1"), "OK");
}

#[test]
fn an_old_server_that_refuses_to_be_a_replica_is_left_as_it_was() {
    let one = writable(&["--rename-command", "REPLICAOF", ""]);
    one.client().run("CONFIG SET masterauth before");
    let two = Redis::start(&["--requirepass", "pass"]);
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let mut settings = uplink(&two.addr());
    settings["uplink"]["pass"] = json!("pass");
    let record = done(&proxy.switch(&settings, ""));
    assert_eq!(record["fenced"], false, "{record}");
    let advice = "tell it REPLICAOF yourself, or stop it";
    assert!(warnings(&record).contains(advice), "{record}");
    let masterauth = one.client().run("CONFIG GET masterauth");
    let kept = ("[masterauth, before]", "[replica-read-only, no]");
    assert_eq!((masterauth.as_str(), read_only(&one).as_str()), kept);
}

#[test]
fn an_old_server_that_cannot_be_told_how_to_log_in_is_fenced_all_the_same() {
    let (one, two) = (redis(), Redis::start(&["--requirepass", "pass"]));
    one.client().run("ACL SETUSER mover on >pass ~* &* +@all -config|set");
    let proxy = Proxy::start(&as_user(&one.addr(), "mover"));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    let mut settings = uplink(&two.addr());
    settings["uplink"]["pass"] = json!("pass");
    let record = done(&proxy.switch(&settings, ""));
    assert_eq!(record["fenced"], true, "{record}");
    assert!(warnings(&record).contains("could not be told how to log in"), "{record}");
    assert!(one.client().run("SET stray 1").starts_with("-READONLY"));
}

#[test]
fn a_fence_counts_although_the_answer_to_it_was_lost() {
    let (one, two) = (redis(), redis());
    let to_old = Middle::to(&one.addr());
    let proxy = Proxy::start(&uplink(&to_old.addr()));
    to_old.at("*3\r\n$9\r\nREPLICAOF\r\n$", When::After, || Then::Close);
    let from = format!("&replicate_from={}", one.addr());
    let record = done(&proxy.switch(&uplink(&two.addr()), &from));
    assert_eq!(record["fenced"], true, "{record}");
    assert!(one.client().run("SET stray 1").starts_with("-READONLY"));
}

#[test]
fn nobody_writes_to_the_new_server_while_it_is_a_replica_and_a_roll_back_sets_it_back() {
    let (one, two) = (redis(), writable(&[]));
    let link = Middle::to(&one.addr());
    link.at("PSYNC", When::Before, || Then::Hold);
    let proxy = Proxy::start(&uplink(&one.addr()));
    proxy.rewrite(&uplink(&two.addr()));
    let mut caller = proxy.begin_cmd(&format!("switch&replicate_from={}", link.addr()));
    let info = || two.client().run("INFO replication");
    eventually("it is a replica", || info().contains("role:slave"));
    assert!(two.client().run("SET stray 1").starts_with("-READONLY"));
    proxy.cmd("cancel-switch").expect_ok();
    assert_eq!(Answer::read(&mut caller).json()["switch"]["not_undone"], json!([]));
    assert_eq!(read_only(&two), "[replica-read-only, no]");
    assert_eq!(two.client().run("SET own 1"), "OK");
}

#[test]
fn a_replica_to_which_others_may_have_written_is_warned_of() {
    let (one, two) = (redis(), writable(&[]));
    let proxy = Proxy::start(&uplink(&one.addr()));
    assert_eq!(proxy.client().run("SET k v"), "OK");
    two.follow(&one);
    let record = done(&proxy.switch(&uplink(&two.addr()), "&prepared=true"));
    assert!(warnings(&record).contains("what others wrote there stays there"), "{record}");
    assert_eq!(read_only(&two), "[replica-read-only, yes]");
    // And one that cannot be kept from it.
    let three = writable(&[]);
    three.client().run("ACL SETUSER mover on >pass ~* &* +@all -config|set");
    three.follow(&two);
    let record = done(&proxy.switch(&as_user(&three.addr(), "mover"), ""));
    assert!(warnings(&record).contains("although it is a replica"), "{record}");
}
