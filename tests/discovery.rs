//! The uplink is found by its role, by Sentinels, or by a name, and followed when it is another server.

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{
    Client, FakeSentinel, Proxy, Redis, Says, Sentinel, cert, check, config, eventually, redis,
};

/// A configuration whose uplink is found in this way.
fn finding(uplink: Value) -> Value {
    config("", json!({ "uplink": uplink, "hold_time_limit_ms": 50_000 }))
}

fn among(servers: &[&Redis]) -> Value {
    finding(json!({ "addrs": servers.iter().map(|it| it.addr()).collect::<Vec<_>>() }))
}

fn by_sentinels(addrs: &[String]) -> Value {
    finding(json!({ "sentinel": { "addrs": addrs, "master": Sentinel::MASTER } }))
}

/// A master and its replica.
fn pair() -> (Redis, Redis) {
    let (master, replica) = (redis(), redis());
    replica.follow(&master);
    (master, replica)
}

fn uplink_of(proxy: &Proxy) -> String {
    proxy.info()["config"]["uplink"]["addr"].as_str().unwrap().to_owned()
}

/// Waits until clients were moved to this server.
fn moves_to(proxy: &Proxy, server: &Redis) {
    eventually("clients are moved", || {
        uplink_of(proxy) == server.addr() && proxy.info()["uplink_up"] == true
    });
    found_by_itself(proxy);
}

/// Waits for the record of the move, which comes when all clients were told.
fn found_by_itself(proxy: &Proxy) {
    eventually("the move is over", || !proxy.info()["reloads"][0].is_null());
    assert_eq!(proxy.info()["reloads"][0]["by"], "discovery");
}

/// Waits until a line of the log has this text.
fn says(proxy: &Proxy, text: &str) {
    proxy.logged(text, |line| line.to_string().contains(text));
}

#[test]
fn the_master_among_several_servers_is_the_uplink() {
    let (master, replica) = pair();
    let proxy = Proxy::start(&among(&[&replica, &master]));
    assert_eq!(uplink_of(&proxy), master.addr());
    assert_eq!(proxy.client().run("SET k v"), "OK");
    assert_eq!(master.client().run("GET k"), "v");
    assert_eq!(proxy.get("/readyz").body, "ready\n");
}

#[test]
fn clients_go_on_at_the_replica_that_is_promoted_after_the_master_died() {
    let (mut master, replica) = pair();
    let proxy = Proxy::start(&among(&[&master, &replica]));
    let (mut idle, mut busy) = (proxy.client(), proxy.client());
    idle.run("HELLO 3 SETNAME idle");
    assert_eq!(busy.run("INCR n"), "1");
    eventually("the replica has it", || replica.client().run("GET n") == "1");
    master.kill();
    proxy.shows("uplink_up", false);
    busy.send("INCR n\r\n");
    proxy.shows("waiting_requests", 1);
    replica.client().run("REPLICAOF NO ONE");
    busy.expect(":2\r\n");
    moves_to(&proxy, &replica);
    assert_eq!(idle.run("CLIENT GETNAME"), "idle");
    assert_eq!(replica.client().run("GET n"), "2");
    assert_eq!(proxy.info()["reloads"].as_array().unwrap().len(), 1, "it took one try");
}

#[test]
fn clients_go_along_when_two_servers_change_their_roles() {
    let (master, replica) = pair();
    let proxy = Proxy::start(&among(&[&master, &replica]));
    let mut client = proxy.client();
    client.run("SET k v");
    assert_eq!(client.run("MULTI"), "OK");
    assert_eq!(client.run("APPEND k w"), "QUEUED");
    eventually("the replica has it", || replica.client().run("GET k") == "v");
    replica.client().run("REPLICAOF NO ONE");
    master.follow(&replica);
    moves_to(&proxy, &replica);
    assert_eq!(client.run("EXEC"), "[2]");
    assert_eq!(replica.client().run("GET k"), "vw");
}

#[test]
fn clients_are_not_moved_to_a_stranger_that_calls_itself_a_master() {
    let (mut master, stranger) = (redis(), redis());
    stranger.client().run("SET k stranger");
    let only = among(&[&master]);
    let proxy = Proxy::start(&only);
    let mut client = proxy.client();
    assert_eq!(client.run("SET k own"), "OK");
    assert_eq!(proxy.reload(&among(&[&stranger, &master])).status, 200);
    assert_eq!(uplink_of(&proxy), master.addr(), "it is among them");
    proxy.shows("uplink_up", true);
    master.kill();
    client.send("GET k\r\n");
    says(&proxy, "calls itself a master, but has not the data of");
    assert_eq!(uplink_of(&proxy), master.addr());
    master.restart();
    client.expect("$-1\r\n");
}

#[test]
fn with_two_masters_the_uplink_stays_where_it_is_and_the_proxy_says_so() {
    let (master, other) = pair();
    let proxy = Proxy::start(&among(&[&master, &other]));
    let mut client = proxy.client();
    client.run("SET k v");
    other.client().run("REPLICAOF NO ONE");
    let text =
        format!("several servers call themselves masters: {}, {}", master.addr(), other.addr());
    says(&proxy, &text);
    assert_eq!(proxy.get("/readyz").body, format!("ready; {text}\n"));
    assert_eq!(proxy.info()["remarks"][0], text);
    assert_eq!(proxy.metric("redis_proxy_uplink_disputed"), 1.0);
    assert_eq!(client.run("SET k w"), "OK");
    assert_eq!(master.client().run("GET k"), "w");
    other.follow(&master);
    eventually("there is no dispute", || proxy.info()["remarks"].as_array().unwrap().is_empty());
    assert_eq!(proxy.metric("redis_proxy_uplink_disputed"), 0.0);
    assert_eq!(proxy.info()["generation"], 1);
}

#[test]
fn a_master_that_comes_back_after_its_replica_was_promoted_gets_nobody() {
    let (mut master, replica) = pair();
    let proxy = Proxy::start(&among(&[&master, &replica]));
    let mut client = proxy.client();
    client.run("SET k v");
    eventually("the replica has it", || replica.client().run("GET k") == "v");
    master.kill();
    replica.client().run("REPLICAOF NO ONE");
    moves_to(&proxy, &replica);
    master.restart();
    says(&proxy, "several servers call themselves masters");
    assert_eq!(client.run("SET k w"), "OK");
    assert_eq!(replica.client().run("GET k"), "w");
}

#[test]
fn a_proxy_that_starts_before_its_servers_waits_until_one_is_a_master() {
    let (mut master, replica) = pair();
    let addrs = among(&[&master, &replica]);
    master.kill();
    let proxy = Proxy::start(&addrs);
    let mut client = proxy.client();
    client.send("INCR n\r\n");
    proxy.shows("waiting_requests", 1);
    assert!(proxy.get("/readyz").body.contains("the master among"), "it says what it looks for");
    assert_eq!(uplink_of(&proxy), "");
    master.restart();
    client.expect(":1\r\n");
    moves_to(&proxy, &master);
}

#[test]
fn a_replica_is_no_uplink_where_a_master_is_looked_for() {
    let (mut master, replica) = pair();
    let proxy = Proxy::start(&among(&[&master]));
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    replica.client().run("REPLICAOF NO ONE");
    master.kill();
    proxy.shows("uplink_up", false);
    master.restart();
    client.send("GET k\r\n").expect("$-1\r\n");
    master.follow(&replica);
    proxy.shows("uplink_up", false);
    proxy.shows("uplink_error", "it was a master, and is a replica now");
}

#[test]
fn clients_follow_the_master_that_the_sentinels_name() {
    let (mut master, replica) = (Redis::announced(), Redis::announced());
    replica.follow(&master);
    let sentinels = Sentinel::three(&master, 1);
    // They tell of the others.
    let proxy = Proxy::start(&by_sentinels(&[sentinels[0].addr()]));
    assert_eq!(uplink_of(&proxy), master.addr());
    let mut client = proxy.client();
    assert_eq!(client.run("INCR n"), "1");
    eventually("the replica has it", || replica.client().run("GET n") == "1");
    kill_process(sentinels[0].pid(), Signal::STOP).unwrap();
    master.kill();
    client.send("INCR n\r\n").expect(":2\r\n");
    moves_to(&proxy, &replica);
    kill_process(sentinels[0].pid(), Signal::CONT).unwrap();
}

#[test]
fn a_sentinel_that_hangs_or_knows_less_holds_nobody_up() {
    let (master, replica) = pair();
    let says = |master: &Redis, epoch| Says::Master(master.addr(), epoch);
    let hangs = FakeSentinel::start(Says::Nothing);
    let unknowing = FakeSentinel::start(Says::Unknown);
    let old = FakeSentinel::start(says(&replica, 3));
    let new = FakeSentinel::start(says(&master, 4));
    let all = [hangs.addr(), unknowing.addr(), old.addr(), new.addr()];
    let proxy = Proxy::start(&by_sentinels(&all));
    eventually("it is found", || uplink_of(&proxy) == master.addr());
    assert_eq!(proxy.client().run("PING"), "PONG");
}

#[test]
fn clients_are_not_moved_where_a_sentinel_names_what_is_no_master() {
    let (master, replica) = pair();
    let sentinel = FakeSentinel::start(Says::Master(master.addr(), 1));
    let proxy = Proxy::start(&by_sentinels(&[sentinel.addr()]));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    sentinel.says(Says::Master(replica.addr(), 2));
    self::says(&proxy, &format!("{} is a replica", replica.addr()));
    assert_eq!(client.run("SET k w"), "OK");
    assert_eq!(uplink_of(&proxy), master.addr());
    sentinel.says(Says::Master("127.0.0.1:1".to_owned(), 3));
    self::says(&proxy, "127.0.0.1:1: could not connect");
    assert_eq!(client.run("SET k x"), "OK");
    assert_eq!(proxy.info()["generation"], 1);
}

#[test]
fn sentinels_that_name_different_masters_move_nobody() {
    let (master, other) = (redis(), redis());
    let one = FakeSentinel::start(Says::Master(master.addr(), 1));
    let two = FakeSentinel::start(Says::Master(master.addr(), 1));
    let proxy = Proxy::start(&by_sentinels(&[one.addr(), two.addr()]));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    two.says(Says::Master(other.addr(), 1));
    says(&proxy, "the Sentinels name different masters");
    assert_eq!(client.run("GET k"), "v");
    // It is newer.
    two.says(Says::Master(other.addr(), 2));
    moves_to(&proxy, &other);
    assert_eq!(client.run("GET k"), "nil");
}

#[test]
fn sentinels_that_know_no_such_master_are_a_fault() {
    let sentinel = FakeSentinel::start(Says::Unknown);
    let config = by_sentinels(&[sentinel.addr()]).to_string();
    let (code, faults) = check(&config);
    let (addr, name) = (sentinel.addr(), Sentinel::MASTER);
    let fault = format!(
        "could not connect to uplink: the master {name} of the Sentinels {addr}: \
         Sentinel {addr} knows no master {name}"
    );
    assert_eq!((code, faults), (Some(78), vec![fault.clone()]));
    let mut proxy = Proxy::launch(&by_sentinels(&[sentinel.addr()]));
    assert_eq!(proxy.ended().code(), Some(78));
}

#[test]
fn sentinels_may_want_a_password_and_tls() {
    let master = redis();
    let (key, pem, ca) = (cert("server.key"), cert("server.pem"), cert("ca.pem"));
    let more = format!(
        "requirepass secret\ntls-port 26380\ntls-cert-file {pem}\ntls-key-file {key}\n\
         tls-ca-cert-file {ca}\ntls-auth-clients no"
    );
    let sentinel = Sentinel::start(&master, &more);
    let at = sentinel.addr().replace(":26379", ":26380");
    let config = |pass: &str| {
        finding(json!({ "sentinel": {
            "addrs": [at], "master": Sentinel::MASTER, "pass": pass,
            "tls": true, "cacertfile": ca, "servername": "localhost",
        } }))
    };
    let proxy = Proxy::start(&config("secret"));
    assert_eq!(proxy.client().run("PING"), "PONG");
    let shown = proxy.info()["config"]["uplink"]["sentinel"].clone();
    assert_eq!((&shown["pass"], &shown["master"]), (&json!("[removed]"), &json!(Sentinel::MASTER)));
    let (code, faults) = check(&config("wrong").to_string());
    assert_eq!((code, faults.len()), (Some(78), 1), "{faults:?}");
    assert!(faults[0].contains("AUTH failed: WRONGPASS"), "{faults:?}");
}

#[test]
fn all_clients_move_together_when_the_name_stands_for_another_server() {
    let (before, after) = (redis(), redis());
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    let stands_for = |servers: &[&Redis]| {
        let ips: Vec<String> = servers.iter().map(|it| it.addr().replace(":6379", "")).collect();
        // At once, for it may be read at any time.
        let new = dir.path().join("new");
        std::fs::write(&new, format!("the-redis {}\n", ips.join(" "))).unwrap();
        std::fs::rename(&new, &hosts).unwrap();
    };
    stands_for(&[&before]);
    let environment = [("REDIS_PROXY_HOSTS", hosts.to_str().unwrap())];
    let proxy = Proxy::start_in(&environment, &config("the-redis:6379", json!({})));
    let (mut one, mut other) = (proxy.client(), proxy.client());
    assert_eq!(one.run("SET k before"), "OK");
    assert_eq!(other.run("PING"), "PONG");
    after.client().run("SET k after");
    stands_for(&[&after, &before]);
    let mut late = proxy.client();
    assert_eq!(late.run("GET k"), "before", "what it stood for is among them still");
    stands_for(&[&after]);
    eventually("clients are moved", || proxy.info()["generation"] == 2);
    found_by_itself(&proxy);
    for client in [&mut one, &mut other, &mut late] {
        assert_eq!(client.run("GET k"), "after");
    }
}

#[test]
fn the_other_address_of_a_name_is_tried_when_the_server_is_lost() {
    let (mut before, after) = (redis(), redis());
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    let ip = |server: &Redis| server.addr().replace(":6379", "");
    std::fs::write(&hosts, format!("the-redis {} {}\n", ip(&before), ip(&after))).unwrap();
    let environment = [("REDIS_PROXY_HOSTS", hosts.to_str().unwrap())];
    let proxy = Proxy::start_in(&environment, &config("the-redis:6379", json!({})));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    assert_eq!(before.client().run("GET k"), "v");
    before.kill();
    client.send("GET k\r\n").expect("$-1\r\n");
    assert_eq!(after.client().run("SET k w"), "OK");
    assert_eq!(client.run("GET k"), "w");
}

#[test]
fn a_server_that_gets_another_address_is_no_other_server() {
    let server = redis();
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    let middle = crate::common::Middle::to(&server.addr());
    let port = middle.addr().rsplit_once(':').unwrap().1.to_owned();
    // One port, and two addresses of one server behind it.
    std::fs::write(&hosts, "the-redis 127.0.0.1\n").unwrap();
    let environment = [("REDIS_PROXY_HOSTS", hosts.to_str().unwrap())];
    let addr = format!("the-redis:{port}");
    let proxy = Proxy::start_in(&environment, &config(&addr, json!({})));
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    // Nobody listens there.
    std::fs::write(&hosts, "the-redis 127.0.0.9\n").unwrap();
    says(&proxy, "the uplink stays where it is, for now");
    assert_eq!(client.run("PING"), "PONG");
    assert_eq!(proxy.info()["generation"], 1);
}

#[test]
fn a_server_among_several_that_comes_back_under_another_address_of_its_name_is_found() {
    let (mut before, after) = (redis(), redis());
    let dir = tempfile::tempdir().unwrap();
    let hosts = dir.path().join("hosts");
    let stands_for = |server: &Redis| {
        std::fs::write(&hosts, format!("redis-0 {}\n", server.addr().replace(":6379", "")))
            .unwrap();
    };
    stands_for(&before);
    let environment = [("REDIS_PROXY_HOSTS", hosts.to_str().unwrap())];
    let addrs = json!({ "addrs": ["redis-0:6379", "127.0.0.1:1"] });
    let proxy = Proxy::start_in(&environment, &finding(addrs));
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    before.kill();
    proxy.shows("uplink_up", false);
    stands_for(&after);
    assert_eq!(client.run("SET k v"), "OK");
    assert_eq!(after.client().run("GET k"), "v");
}

#[test]
fn a_proxy_whose_configuration_cannot_be_read_again_follows_its_uplink_all_the_same() {
    let (mut master, replica) = pair();
    let proxy = Proxy::start_from_stdin(&among(&[&master, &replica]));
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    master.kill();
    replica.client().run("REPLICAOF NO ONE");
    assert_eq!(client.run("SET k v"), "OK");
    assert_eq!(replica.client().run("GET k"), "v");
}

#[test]
fn a_change_of_the_file_that_nobody_asked_to_reload_does_not_come_in_force_with_a_move() {
    let (mut master, replica) = pair();
    let proxy = Proxy::start(&among(&[&master, &replica]));
    proxy.rewrite_text("half of a file");
    master.kill();
    replica.client().run("REPLICAOF NO ONE");
    moves_to(&proxy, &replica);
}

#[test]
fn what_is_wrong_with_how_the_uplink_is_found_is_told() {
    let faults = |uplink: Value| check(&finding(uplink).to_string()).1;
    let sentinel = |more: Value| faults(json!({ "sentinel": more }));
    assert_eq!(
        faults(json!({ "addr": "h:1", "addrs": ["h:1"] })),
        ["uplink: only one of addr, addrs and sentinel can be given"]
    );
    assert_eq!(faults(json!({})), ["Missing uplink address"]);
    let many = vec!["h:1"; 33];
    for wrong in [json!([]), json!(many)] {
        assert_eq!(
            faults(json!({ "addrs": wrong })),
            ["uplink.addrs: from 1 to 32 addresses are needed"]
        );
    }
    assert_eq!(
        faults(json!({ "addrs": ["h:1", "h", "h:1"] })),
        ["uplink.addrs[1]: expected host:port", "uplink.addrs[2]: h:1 is there twice"]
    );
    assert_eq!(
        faults(json!({ "addrs": ["h:1", 2] }))[0],
        "uplink.addrs[1]: expected a string, found a number"
    );
    assert_eq!(
        sentinel(json!({ "user": "u", "tls": true })),
        [
            "uplink.sentinel.addrs: from 1 to 32 addresses are needed",
            "uplink.sentinel.master: the name of the master is missing",
            "uplink.sentinel.user requires pass",
            "uplink.sentinel.tls requires cacertfile or skipverify",
        ]
    );
    assert_eq!(sentinel(json!([]))[0], "uplink.sentinel: expected an object, found an array");
    assert_eq!(
        sentinel(json!({ "addrs": ["h:1"], "master": "m", "adr": 1 }))[0]
            .split(';')
            .next()
            .unwrap(),
        "uplink.sentinel.adr: unknown field"
    );
    let text = finding(json!({ "sentinel": { "master": "m", "addrs": ["h:1"] } })).to_string();
    let twice = text.replace("\"master\":\"m\"", "\"master\":\"m\",\"master\":\"n\"");
    assert_eq!(check(&twice).1[0], "uplink.sentinel: duplicate field `master`");
}

#[test]
fn an_uplink_that_is_a_replica_is_told_of_loudly() {
    let (_master, replica) = pair();
    let proxy = Proxy::to(&replica.addr());
    let text = format!(
        "the uplink {} is a replica: what clients write is refused, or will be lost",
        replica.addr()
    );
    says(&proxy, &text);
    eventually("it says so", || proxy.get("/readyz").body == format!("ready; {text}\n"));
    let mut client: Client = proxy.client();
    assert!(client.run("SET k v").contains("READONLY"));
}

#[test]
fn a_sentinel_that_has_missed_a_failover_is_not_believed() {
    let (old, new) = (redis(), redis());
    let told = FakeSentinel::start(Says::Master(new.addr(), 6));
    let stale = FakeSentinel::start(Says::Master(old.addr(), 5));
    let proxy = Proxy::start(&by_sentinels(&[told.addr(), stale.addr()]));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k new"), "OK");
    told.says(Says::Nothing);
    says(&proxy, "has missed a failover");
    assert_eq!(client.run("GET k"), "new");
    assert_eq!(proxy.info()["generation"], 1);
}

#[test]
fn sentinels_that_were_all_set_up_anew_are_believed() {
    let (old, new) = (redis(), redis());
    let sentinels = [(); 2].map(|()| FakeSentinel::start(Says::Master(old.addr(), 6)));
    let addrs: Vec<String> = sentinels.iter().map(FakeSentinel::addr).collect();
    let proxy = Proxy::start(&by_sentinels(&addrs));
    assert_eq!(proxy.client().run("PING"), "PONG");
    sentinels.iter().for_each(|it| it.says(Says::Master(new.addr(), 0)));
    moves_to(&proxy, &new);
}

#[test]
fn a_server_that_was_a_master_beside_the_uplink_gets_nobody_when_that_is_lost() {
    let (mut master, fork) = (Redis::start(&["--appendonly", "yes"]), redis());
    fork.follow(&master);
    let proxy = Proxy::start(&among(&[&master, &fork]));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k before"), "OK");
    fork.client().run("REPLICAOF NO ONE");
    says(&proxy, "several servers call themselves masters");
    assert_eq!(client.run("SET k after"), "OK");
    master.kill();
    client.send("GET k\r\n");
    says(&proxy, "has not the data of");
    master.restart();
    client.expect("$5\r\nafter\r\n");
    assert_eq!(uplink_of(&proxy), master.addr());
    // Nor at a start.
    let again = Proxy::start(&among(&[&master, &fork]));
    eventually("it says so", || !again.info()["remarks"].as_array().unwrap().is_empty());
    assert_eq!(uplink_of(&again), "");
}
