//! Nobody can hold up a reload or a switch for all: what cannot succeed is found out while clients are
//! served, and `force` closes those who are in the way.

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::common::{Answer, Client, FakeUplink, Proxy, Redis, config, eventually, redis, request};

/// Longer than any test waits for an answer: who is held for that long fails it.
const FOR_EVER: u64 = 600_000;

/// With a limit for the pause that things may come to.
fn limits(redis: &Redis, pause: u64) -> Value {
    config(&redis.addr(), json!({ "pause_time_limit_ms": pause }))
}

/// A server that does not answer is given up after some seconds; a busy one has answered by then.
fn may_hang(redis: &Redis, pause: u64) -> Value {
    let mut config = limits(redis, pause);
    config["connect_time_limit_ms"] = json!(3000);
    config
}

fn stop(redis: &Redis) {
    kill_process(redis.pid(), Signal::STOP).unwrap();
}

/// It waits for more replicas than there will be.
fn wait_for_ever(proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.command(&["WAIT", "9", "0"]);
    proxy.shows("active_requests", 1);
    client
}

fn name(client: &Client) -> String {
    format!("127.0.0.1:{}", client.port)
}

/// Whom the answer says were closed.
fn closed(record: &Value) -> Vec<&str> {
    let closed = record["closed"].as_array().unwrap();
    closed.iter().map(|it| it["client"].as_str().unwrap()).collect()
}

#[test]
fn a_reload_away_from_an_uplink_that_hangs_is_refused_at_once_or_forced() {
    let (one, two) = (redis(), redis());
    // The uplink counts as lost after five seconds without an answer; the reloads are to be over before.
    let quick = |redis: &Redis| {
        let mut config = may_hang(redis, FOR_EVER);
        config["connect_time_limit_ms"] = json!(500);
        config
    };
    let proxy = Proxy::start(&quick(&one));
    let (mut idle, mut asking, mut popping) = (proxy.client(), proxy.client(), proxy.client());
    for client in [&mut idle, &mut asking, &mut popping] {
        assert_eq!(client.run("PING"), "PONG");
    }
    stop(&one);
    asking.command(&["GET", "k"]);
    popping.command(&["BLPOP", "queue", "0"]);
    proxy.shows("active_requests", 2);
    proxy.rewrite(&quick(&two));
    for cmd in ["reload", "reload&dry_run=true"] {
        let answer = proxy.cmd(cmd);
        assert_eq!(answer.status, 503, "{answer:?}");
        let error = answer.error();
        assert!(error.contains("does not answer; the reload is cancelled"), "{error}");
        for named in [format!("GET of {}", name(&asking)), format!("BLPOP of {}", name(&popping))] {
            assert!(error.contains(&named), "{error}");
        }
    }
    let predicted = proxy.cmd("reload&dry_run=true&force=true");
    assert_eq!((predicted.status, closed(&predicted.json()["prediction"]).len()), (200, 2));
    let answer = proxy.cmd("reload&force=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    let record = &answer.json()["reload"];
    assert_eq!((&record["sessions_closed"], &record["sessions_moved"]), (&json!(2), &json!(1)));
    let closed = closed(record);
    assert!(closed.contains(&&*name(&asking)) && closed.contains(&&*name(&popping)), "{record}");
    assert_eq!((asking.rest(), popping.rest()), (String::new(), String::new()));
    assert_eq!(idle.run("SET k v"), "OK");
    assert_eq!(two.client().run("GET k"), "v");
}

#[test]
fn a_reload_that_leaves_the_uplink_alone_does_not_need_it_to_answer() {
    let one = redis();
    let proxy = Proxy::start(&may_hang(&one, FOR_EVER));
    let mut client = proxy.client();
    assert_eq!(client.run("PING"), "PONG");
    stop(&one);
    proxy.reload(&may_hang(&one, 70)).expect_ok();
    assert_eq!(proxy.info()["generation"], 2);
    proxy.logged("that it is not ready", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("is not ready"))
    });
    // Nor is there anything to be refused where it has gone.
    drop(one);
    eventually("it is gone", || proxy.get("/readyz").status == 503);
    proxy.cmd("reload").expect_ok();
}

#[test]
fn a_request_that_runs_for_longer_than_the_limit_is_told_before_anybody_is_held() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&limits(&one, 4000));
    let mut waiting = wait_for_ever(&proxy);
    let mut idle = proxy.client();
    assert_eq!(idle.run("PING"), "PONG");
    // Nothing of this is in the way: one can be interrupted, and one ends in time.
    let (mut popping, mut short) = (proxy.client(), proxy.client());
    popping.command(&["BLPOP", "queue", "0"]);
    proxy.rewrite(&limits(&two, 4000));
    let mut predicted = Value::Null;
    eventually("it has run for longer", || {
        let answer = proxy.cmd("reload&dry_run=true");
        predicted = answer.json();
        answer.status == 503
    });
    let held_up_by = predicted["prediction"]["held_up_by"].as_array().unwrap();
    assert_eq!(held_up_by.len(), 1, "{predicted}");
    assert_eq!(held_up_by[0]["client"], name(&waiting));
    short.command(&["BLPOP", "other", "0.1"]);
    let answer = proxy.cmd("reload");
    assert_eq!(answer.status, 503);
    let error = answer.error();
    assert!(
        error.contains(
            "a request has been running for longer than 4000 ms; the reload is cancelled"
        ),
        "{error}"
    );
    assert!(error.contains(&format!("WAIT of {}", name(&waiting))), "{error}");
    assert!(!error.contains("BLPOP"), "{error}");
    assert_eq!(short.reply(), "nil");
    let answer = proxy.cmd("reload&force=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(closed(&answer.json()["reload"]), [name(&waiting)]);
    assert_eq!(waiting.rest(), "");
    assert_eq!(two.client().run("RPUSH queue v"), "1");
    assert_eq!(popping.reply(), "[queue, v]");
    assert_eq!(idle.run("PING"), "PONG");
}

#[test]
fn force_closes_who_is_still_running_at_the_limit_and_moves_the_others() {
    let (one, two) = (redis(), redis());
    // It has hardly been running for that long when the reload begins.
    let proxy = Proxy::start(&limits(&one, 4000));
    let (mut carrying, mut waiting) = (proxy.client(), wait_for_ever(&proxy));
    for (command, reply) in [("WATCH k", "OK"), ("MULTI", "OK"), ("INCR n", "QUEUED")] {
        assert_eq!(carrying.run(command), reply);
    }
    proxy.rewrite(&limits(&two, 4000));
    let answer = proxy.cmd("reload&force=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(closed(&answer.json()["reload"]), [name(&waiting)]);
    assert_eq!(waiting.rest(), "");
    assert_eq!(carrying.run("EXEC"), "[1]");
    assert_eq!(two.client().run("GET n"), "1");
}

#[test]
fn a_switch_closes_who_is_in_the_way_if_it_is_told_to() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&limits(&one, 4000));
    let mut waiting = wait_for_ever(&proxy);
    let mut idle = proxy.client();
    assert_eq!(idle.run("SET k v"), "OK");
    proxy.rewrite(&limits(&two, 4000));
    eventually("the preflight tells", || {
        let answer = proxy.cmd("switch&dry_run=true").json();
        let checks = answer["preflight"]["checks"].as_array().unwrap().clone();
        checks.iter().any(|it| it["detail"].as_str().unwrap().contains(&name(&waiting)))
    });
    let answer = proxy.cmd("switch");
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains(&format!("WAIT of {}", name(&waiting))), "{answer:?}");
    let answer = proxy.cmd("switch&force_clients=true");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(closed(&answer.json()["switch"]), [name(&waiting)]);
    assert_eq!(waiting.rest(), "");
    assert_eq!(idle.run("GET k"), "v");
}

#[test]
fn half_a_request_holds_nothing_up_wherever_it_is() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&limits(&one, FOR_EVER));
    let mut other = proxy.client();
    assert_eq!(other.run("PING"), "PONG");
    let half = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\nx";
    let multi = "*1\r\n$5\r\nMULTI\r\n";
    let queued = "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n";
    let refused = "*1\r\n$3\r\nGET\r\n";
    let script = "*4\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n0\r\n$2000000\r\nx";
    let beginnings = [
        half.to_owned(),
        format!("{multi}{half}"),
        format!("{multi}{queued}{half}"),
        format!("{multi}{refused}{half}"),
        format!("{multi}{script}"),
    ];
    let mut clients: Vec<Client> = beginnings.iter().map(|_| proxy.client()).collect();
    for (client, beginning) in clients.iter_mut().zip(&beginnings) {
        client.send(beginning);
        for _ in 0..beginning.matches("*1\r\n").count() + beginning.matches("INCR").count() {
            client.reply();
        }
    }
    let pings = request(&["PING"]).len();
    proxy.has_read(pings + beginnings.iter().map(String::len).sum::<usize>());
    proxy.cmd("pause&wait=true").expect_ok();
    proxy.cmd("unpause").expect_ok();
    proxy.reload(&limits(&two, FOR_EVER)).expect_ok();
    clients.iter_mut().for_each(Client::expect_closed);
    assert_eq!(other.run("PING"), "PONG");
}

#[test]
fn a_transaction_that_is_sent_for_longer_than_the_limit_is_told_before_anybody_is_held() {
    let (fake, two) = (FakeUplink::bind(), redis());
    let to_fake = config(&fake.addr(), json!({ "pause_time_limit_ms": 4000 }));
    let proxy = fake.expect_start(|| Proxy::start(&to_fake));
    let (multi, set) = (request(&["MULTI"]), request(&["SET", "k", &"x".repeat(2_000_000)]));
    let mut client = proxy.client();
    client.send(&multi);
    let mut uplink = fake.accept();
    uplink.expect(&multi).send("+OK\r\n");
    client.expect("+OK\r\n").send(&set);
    // It goes on for as long as its reply is out.
    uplink.expect(&set);
    proxy.rewrite(&limits(&two, 4000));
    eventually("it is older than the limit", || {
        let mut caller = proxy.begin_cmd("reload&dry_run=true");
        fake.accept_side();
        Answer::read(&mut caller).status == 503
    });
    let mut caller = proxy.begin_cmd("reload");
    fake.accept_side();
    let answer = Answer::read(&mut caller);
    assert_eq!(answer.status, 503);
    let (error, named) = (answer.error(), format!("MULTI of {} for ", name(&client)));
    assert!(error.contains(&named) && error.contains("too large to be carried"), "{error}");
    assert!(error.contains("running for longer than 4000 ms"), "{error}");
    assert_eq!(proxy.info()["reloads"][0]["pause_ms"], Value::Null);
    let mut caller = proxy.begin_cmd("reload&force=true");
    fake.accept_side();
    assert_eq!(Answer::read(&mut caller).status, 200);
    client.expect_closed();
}
