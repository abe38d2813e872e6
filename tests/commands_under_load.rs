//! Ten thousand commands in random order from several callers, while clients count.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::scope;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use rustix::process::Signal;
use serde_json::json;

use crate::common::{Proxy, Redis, config, eventually, http, redis};

const COMMANDS: usize = 10_000;
const CALLERS: usize = 4;
const CLIENTS: usize = 8;

#[derive(Debug, Clone, Copy)]
enum Op {
    Pause,
    PauseAndWait,
    ShortPause,
    Unpause,
    Reload,
    Sighup,
}

/// What these callers send; the same each time.
fn plan(caller: u8) -> Vec<Op> {
    let op = prop_oneof![
        3 => Just(Op::Pause),
        1 => Just(Op::PauseAndWait),
        2 => Just(Op::ShortPause),
        6 => Just(Op::Unpause),
        3 => Just(Op::Reload),
        1 => Just(Op::Sighup),
    ];
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[caller; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let plan = proptest::collection::vec(op, COMMANDS / CALLERS);
    plan.new_tree(&mut runner).unwrap().current()
}

fn count(redis: &Redis, client: usize) -> usize {
    let mut direct = redis.client();
    match direct.command(&["GET", &format!("n{client}")]).line().as_str() {
        "$-1" => 0,
        _ => direct.line().parse().unwrap(),
    }
}

#[test]
fn after_ten_thousand_commands_it_runs_and_nothing_is_lost_doubled_or_leaked() {
    let (one, two) = (redis(), redis());
    let to = |redis: &Redis| config(&redis.addr(), json!({}));
    let proxy = Proxy::start(&to(&one));
    let proxy = &proxy;
    // What is needed once: the descriptors and memory of all clients and callers.
    let warm = |proxy: &Proxy| {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| proxy.client()).collect();
        clients.iter_mut().for_each(|client| drop(client.ask(&["PING"])));
        proxy.reload(&to(&two)).expect_ok();
        proxy.reload(&to(&one)).expect_ok();
    };
    let quiet = |proxy: &Proxy| {
        proxy.shows("clients", 0);
        proxy.descriptors()
    };
    warm(proxy);
    let descriptors = quiet(proxy);
    let (done, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let turn = AtomicBool::new(false);
    let mut counted = [0; CLIENTS];
    scope(|scope| {
        for (number, counted) in counted.iter_mut().enumerate() {
            let done = &done;
            scope.spawn(move || {
                let mut client = proxy.client();
                let key = format!("n{number}");
                while !done.load(Ordering::Relaxed) {
                    let reply = client.ask(&["INCR", &key]);
                    assert!(reply.starts_with(':'), "{reply}");
                    *counted += 1;
                }
            });
        }
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (one, two, sent, turn) = (&one, &two, &sent, &turn);
                scope.spawn(move || {
                    let mut connection = proxy.caller();
                    for op in plan(caller as u8) {
                        let body = match op {
                            Op::Pause => "cmd=pause&ttl_ms=20",
                            Op::PauseAndWait => "cmd=pause&wait=true&ttl_ms=20",
                            Op::ShortPause => "cmd=pause&ttl_ms=1",
                            Op::Unpause => "cmd=unpause",
                            Op::Reload | Op::Sighup => {
                                let there = turn.fetch_xor(true, Ordering::Relaxed);
                                proxy.rewrite_whole(&to(if there { one } else { two }));
                                "cmd=reload"
                            }
                        };
                        if let Op::Sighup = op {
                            proxy.signal(Signal::HUP);
                        } else {
                            let answer = http(&mut connection, "POST", "/cmd/", "", body);
                            assert!(matches!(answer.status, 200 | 409), "{op:?}: {answer:?}");
                        }
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.join().unwrap();
        }
        proxy.cmd("unpause").expect_ok();
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(sent.into_inner(), COMMANDS);
    eventually("no reload is left", || proxy.info()["reloading"] == json!(null));
    let info = proxy.info();
    assert_eq!((&info["state"], &info["active_requests"]), (&json!(2), &json!(0)));
    assert_eq!(info["waiting_requests"], 0);
    assert!(info["generation"].as_u64().unwrap() > 100, "{info}");
    for (client, counted) in counted.iter().enumerate() {
        assert_eq!(count(&one, client) + count(&two, client), *counted, "client {client}");
    }
    assert!(!counted.contains(&0), "{counted:?}");
    eventually("descriptors are given back", || quiet(proxy) <= descriptors);
    let memory = proxy.memory_kib("VmRSS");
    (0..20).for_each(|_| warm(proxy));
    let more = proxy.memory_kib("VmRSS").saturating_sub(memory);
    assert!(more < 2048, "{more} KiB more after forty reloads");
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
}
