//! The proxy panics at each step of a switch and of a reload: it is answered with the reason, clients go
//! on, one server alone takes writes, and nothing that was acknowledged is lost.

use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::common::{Answer, Proxy, Redis, config, eventually, redis};
use crate::switch_faults::{Writers, while_clients_count};

/// Two servers, and a proxy that panics.
struct Scene {
    old: Redis,
    new: Redis,
    proxy: Proxy,
}

impl Scene {
    fn new(places: &str) -> Scene {
        let (old, new) = (redis(), redis());
        let environment = [("REDIS_PROXY_PANIC_AT", places)];
        let proxy = Proxy::start_in(&environment, &settings(&old));
        Scene { old, new, proxy }
    }

    /// Does this with another configuration, while clients count; they go on afterwards, and none
    /// of them sees an error.
    fn act(&self, command: &str, to: &Value, places: &str) -> (Answer, Arc<Writers>) {
        self.proxy.rewrite(to);
        let (answer, writers) = while_clients_count(&self.proxy.addr(), |writers| {
            let answer = self.proxy.cmd(command);
            let before = writers.total();
            eventually("they go on", || writers.total() > before + 20);
            answer
        });
        assert_eq!(writers.errors(), 0, "{places}: {}", answer.body);
        for place in places.split(',') {
            let reason = format!("on purpose, at {place}");
            self.proxy
                .logged(&reason, |line| line["message"] == "panicked" && line["reason"] == *reason);
        }
        let info = self.proxy.info();
        assert_eq!(
            (&info["switching"], &info["reloading"]),
            (&Value::Null, &Value::Null),
            "{places}"
        );
        assert_eq!(info["state_str"], "running", "{places}");
        (answer, writers)
    }

    fn in_force(&self) -> String {
        self.proxy.info()["config"]["uplink"]["addr"].as_str().unwrap().to_owned()
    }
}

fn settings(uplink: &Redis) -> Value {
    config(&uplink.addr(), json!({}))
}

fn is_master(server: &Redis) -> bool {
    server.client().run("INFO replication").contains("role:master")
}

/// Some side by side.
fn each(places: &[&str], test: impl Fn(&str) + Sync) {
    let places = Mutex::new(places.to_vec());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(place) = { places.lock().unwrap().pop() } {
                    test(place);
                }
            });
        }
    });
}

#[test]
fn a_panic_before_the_promotion_rolls_the_switch_back() {
    let places = [
        "switch:preflight",
        "switch:replicating",
        "switch:ready",
        "switch:paused",
        "switch:catching up",
        "switch:promoting",
        "switch:promoted",
        "switch:ready,switch:rolling back",
        "switch:ready,switch:undoing",
    ];
    each(&places, |places| {
        let scene = Scene::new(places);
        let (answer, writers) = scene.act("switch", &settings(&scene.new), places);
        let place = places.split(',').next().unwrap();
        assert_eq!(answer.status, 503, "{places}: {}", answer.body);
        let answer = answer.json();
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with("the switch is rolled back: at the stage "), "{error}");
        assert!(error.ends_with(&format!("the proxy panicked: on purpose, at {place}")), "{error}");
        let record = &answer["switch"];
        assert_eq!((&record["result"], &record["reason"]), (&json!("rolled back"), &json!(error)));
        assert_eq!(scene.in_force(), scene.old.addr(), "{places}");
        let left = record["not_undone"].as_array().unwrap();
        assert_eq!(left.len(), usize::from(places.contains("undoing")), "{left:?}");
        assert!(is_master(&scene.old), "{places}");
        assert_eq!(is_master(&scene.new), left.is_empty(), "{places}");
        writers.check(&scene.old, places);
        // It panics once.
        let answer = scene.proxy.cmd("switch&force=true");
        assert_eq!(answer.status, 200, "{places}, and then {}", answer.body);
        writers.check(&scene.new, places);
    });
}

#[test]
fn a_panic_after_the_promotion_leaves_nothing_undone() {
    let places = [
        "switch:queueing",
        "switch:exchanging",
        "switch:resumed",
        "switch:fencing",
        "switch:turning",
        "switch:opening",
    ];
    each(&places, |place| {
        let scene = Scene::new(place);
        let (answer, writers) = scene.act("switch", &settings(&scene.new), place);
        assert_eq!(answer.status, 200, "{place}: {}", answer.body);
        let record = answer.json()["switch"].clone();
        assert_eq!(record["result"], "done");
        let warnings = record["warnings"].as_array().unwrap();
        let reason = format!("the proxy panicked: on purpose, at {place}");
        let told =
            warnings.iter().map(|it| it.as_str().unwrap()).find(|it| it.starts_with(&reason));
        assert_eq!(scene.in_force(), scene.new.addr(), "{place}");
        assert!(is_master(&scene.new), "{place}");
        // Only what panicked itself is left to the operator.
        let fenced = place != "switch:turning";
        assert_eq!(record["fenced"], fenced, "{place}: {warnings:?}");
        assert_eq!(is_master(&scene.old), !fenced, "{place}");
        let remains = format!("make {} a replica of {}", scene.old.addr(), scene.new.addr());
        assert_eq!(told.unwrap().contains(&remains), !fenced, "{told:?}");
        writers.check(&scene.new, place);
        scene.proxy.rewrite(&settings(&scene.old));
        let answer = scene.proxy.cmd("switch&force=true");
        assert_eq!(answer.status, 200, "{place}, and then {}", answer.body);
        writers.check(&scene.old, place);
    });
}

#[test]
fn a_panic_in_a_reload_says_which_generation_is_in_force() {
    let before = ["verifying", "preparing", "pausing", "telling"];
    let after = ["exchanging", "settling", "opening"];
    let all: Vec<String> = before.iter().chain(&after).map(|it| format!("reload:{it}")).collect();
    each(&all.iter().map(String::as_str).collect::<Vec<_>>(), |place| {
        let scene = Scene::new(place);
        // The same server by another way.
        let (addr, socket) = (scene.old.addr(), scene.old.socket());
        let uplink = json!({ "uplink": { "network": "unix", "addr": socket } });
        let (answer, writers) = scene.act("reload", &config("", uplink), place);
        let done = after.iter().any(|it| place.ends_with(it));
        assert_eq!(answer.status, 500, "{place}: {}", answer.body);
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        let generation = if done { 2 } else { 1 };
        assert!(
            error.contains(&format!("the proxy panicked: on purpose, at {place}; ")),
            "{error}"
        );
        assert!(error.ends_with(&format!("generation {generation} is in force")), "{error}");
        assert_eq!(scene.in_force(), if done { socket } else { addr }, "{place}");
        let record = scene.proxy.info()["reloads"][0].clone();
        assert_eq!(record["result"], if done { "done" } else { "cancelled" }, "{record}");
        assert_eq!(record["faults"], json!([error]));
        if done {
            // All were moved, and so nobody came by TCP.
            eventually("nobody uses the old way", || {
                let list = scene.old.client().run("CLIENT LIST");
                !list.lines().any(|line| line.contains("laddr=127.") && line.contains("cmd=incr"))
            });
        }
        writers.check(&scene.old, place);
        let answer = scene.proxy.cmd("reload");
        assert_eq!(answer.status, 200, "{place}, and then {}", answer.body);
    });
}
