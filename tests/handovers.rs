//! Everything that a connection carries is carried over: each kind of state, in RESP2 and RESP3,
//! with a plain uplink and with TLS, to an unrelated server, to a replica, and by a switch that
//! moves the data, too.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{
    Answer, Client, FakeUplink, Proxy, Redis, TellsToEnd, Turn, cert, config, eventually, request,
};

/// A proxy in front of one server, and another that it can be moved to.
struct Switch {
    one: Redis,
    two: Redis,
    proxy: Proxy,
    resp3: bool,
    tls: bool,
    to: To,
    _turn: Turn,
}

/// What the second server is to the first, and how it is switched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// Nothing, by a reload.
    Unrelated,
    /// Its replica, by a reload.
    Replica,
    /// Nothing, by `cmd=switch`: it becomes its replica, and is promoted.
    Promoted,
}

impl Switch {
    fn new(resp3: bool, tls: bool, to: To) -> Switch {
        let turn = Turn::wait();
        let options: &[&str] = match to {
            // As after a promotion.
            To::Replica => &["--replica-read-only", "no"],
            To::Unrelated | To::Promoted => &[],
        };
        let (one, two) = match tls {
            true => (Redis::with_tls(options), Redis::with_tls(options)),
            false => (Redis::start(options), Redis::start(options)),
        };
        if to == To::Replica {
            two.follow(&one);
        }
        let proxy = Proxy::start(&config_for(&one, tls));
        Switch { one, two, proxy, resp3, tls, to, _turn: turn }
    }

    /// What is written to the first server comes to the second.
    fn is_copied(&self) -> bool {
        self.to != To::Unrelated
    }

    fn client(&self) -> Client {
        let mut client = self.proxy.client();
        if self.resp3 {
            let hello = client.run("HELLO 3");
            assert!(
                ["redis", "valkey"].iter().any(|it| hello.starts_with(&format!("[server, {it}")))
            );
        }
        client
    }

    /// To the second server.
    fn switch(&self) {
        self.proxy.rewrite(&config_for(&self.two, self.tls));
        let (command, records) = match self.to {
            To::Unrelated | To::Replica => ("reload", "reloads"),
            To::Promoted => ("switch&fence=false&force=true", "switches"),
        };
        let answer = self.proxy.cmd(command);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let reload = &self.proxy.info()[records][0];
        assert_eq!((&reload["result"], &reload["sessions_closed"]), (&json!("done"), &json!(0)));
    }

    /// A message as a subscriber gets it.
    fn message(&self, parts: &str) -> String {
        format!("{}[{parts}]", if self.resp3 { ">" } else { "" })
    }
}

fn config_for(redis: &Redis, tls: bool) -> Value {
    let mut config = config(&redis.addr(), json!({}));
    if tls {
        config["uplink"] = json!({
            "addr": redis.tls_addr(),
            "tls": true,
            "cacertfile": cert("ca.pem"),
            "servername": "localhost",
        });
    }
    config
}

/// In every combination, some side by side.
fn everywhere(test: impl Fn(&Switch) + Sync) {
    let cases: Mutex<Vec<_>> = Mutex::new(
        (0..4)
            .flat_map(|case| {
                [To::Unrelated, To::Replica, To::Promoted]
                    .map(|to| (case & 1 > 0, case & 2 > 0, to))
            })
            .collect(),
    );
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((resp3, tls, to)) = { cases.lock().unwrap().pop() } {
                    test(&Switch::new(resp3, tls, to));
                }
            });
        }
    });
}

#[test]
fn an_open_transaction_is_finished_on_the_new_uplink_once() {
    everywhere(|switch| {
        let mut client = switch.client();
        assert_eq!(client.run("SELECT 2"), "OK");
        assert_eq!(client.run("MULTI"), "OK");
        for command in ["INCR n", "RPUSH list a b", "SELECT 5", "INCR n"] {
            assert_eq!(client.run(command), "QUEUED");
        }
        switch.switch();
        assert_eq!(client.run("SET k v"), "QUEUED");
        assert_eq!(client.run("EXEC"), "[1, 2, OK, 1, OK]");
        assert_eq!(client.run("GET k"), "v", "the database that the transaction chose");
        let mut direct = switch.one.client();
        assert_eq!(direct.run("DBSIZE"), "0");
        assert_eq!(direct.run("SELECT 2"), "OK");
        assert_eq!(direct.run("EXISTS n list"), "0", "nothing was executed on the old one");
    });
}

#[test]
fn a_request_refused_while_queueing_aborts_the_transaction_on_the_new_uplink() {
    everywhere(|switch| {
        let mut client = switch.client();
        assert_eq!(client.run("MULTI"), "OK");
        assert_eq!(client.run("INCR n"), "QUEUED");
        assert!(client.run("INCR").starts_with("-ERR wrong number"));
        let mut nested = switch.client();
        assert_eq!(nested.run("MULTI"), "OK");
        assert!(nested.run("MULTI").starts_with("-ERR MULTI calls"));
        assert_eq!(nested.run("INCR m"), "QUEUED");
        switch.switch();
        assert_eq!(client.run("INCR n"), "QUEUED");
        assert!(client.run("EXEC").starts_with("-EXECABORT"));
        assert_eq!(client.run("EXISTS n"), "0");
        assert_eq!(nested.run("EXEC"), "[1]", "that alone aborts nothing");
        // And discarding works.
        assert_eq!(client.run("MULTI"), "OK");
        assert_eq!(client.run("INCR n"), "QUEUED");
        assert_eq!(client.run("DISCARD"), "OK");
        assert_eq!(client.run("EXISTS n"), "0");
    });
}

#[test]
fn keys_that_nobody_touched_stay_watched_and_those_that_somebody_touched_fail_the_transaction() {
    everywhere(|switch| {
        let mut clients: Vec<Client> = (0..6).map(|_| switch.client()).collect();
        let [untouched, touched, inside, touched_inside, later, two_dbs] = &mut clients[..] else {
            unreachable!()
        };
        for client in [&mut *untouched, &mut *touched, &mut *later] {
            assert_eq!(client.run("WATCH a b"), "OK");
        }
        for client in [&mut *inside, &mut *touched_inside] {
            assert_eq!(client.run("WATCH c"), "OK");
            assert_eq!(client.run("MULTI"), "OK");
            assert_eq!(client.run("INCR done"), "QUEUED");
        }
        for command in ["SELECT 3", "WATCH d", "SELECT 4", "WATCH e"] {
            assert_eq!(two_dbs.run(command), "OK");
        }
        // Each touches what one of them watches.
        let mut writer = switch.client();
        assert_eq!(touched.run("UNWATCH"), "OK");
        assert_eq!(touched.run("WATCH x"), "OK");
        assert_eq!(writer.run("SET x 1"), "OK");
        for command in ["DISCARD", "WATCH y", "MULTI"] {
            assert_eq!(touched_inside.run(command), "OK");
        }
        assert_eq!(touched_inside.run("INCR done"), "QUEUED");
        assert_eq!(writer.run("SET y 1"), "OK");
        switch.switch();
        let exec = |client: &mut Client| {
            assert_eq!(client.run("MULTI"), "OK");
            assert_eq!(client.run("INCR done"), "QUEUED");
            client.run("EXEC")
        };
        assert_eq!(exec(untouched), "[1]");
        assert_eq!(exec(touched), "nil");
        assert_eq!(exec(touched), "[2]", "once");
        assert_eq!(inside.run("EXEC"), "[3]");
        assert_eq!(touched_inside.run("EXEC"), "nil");
        assert_eq!(exec(touched_inside), "[4]");
        // They are watched there.
        assert_eq!(writer.run("SET b 1"), "OK");
        assert_eq!(exec(later), "nil");
        for command in ["SELECT 3", "SET d 1"] {
            assert_eq!(writer.run(command), "OK");
        }
        assert_eq!(exec(two_dbs), "nil");
    });
}

#[test]
fn a_watched_key_whose_time_ran_out_before_the_switch_fails_the_transaction() {
    everywhere(|switch| {
        let (mut client, mut inside) = (switch.client(), switch.client());
        let mut ms = 100;
        while {
            ms *= 2;
            assert_eq!(inside.run(&format!("SET l v PX {ms}")), "OK");
            assert_eq!(inside.run("WATCH l"), "OK");
            client.run("PTTL l") == "-2"
        } {
            // It was gone before it was watched: this machine is too busy for so short a time.
            assert_eq!(inside.run("UNWATCH"), "OK");
        }
        assert_eq!(inside.run("MULTI"), "OK");
        assert_eq!(inside.run("INCR n"), "QUEUED");
        eventually("its time is over", || client.run("PTTL l") == "-2");
        switch.switch();
        assert_eq!(inside.run("EXEC"), "nil");
    });
}

#[test]
fn database_protocol_names_and_switches_follow() {
    everywhere(|switch| {
        let mut client = switch.client();
        for command in ["SELECT 7", "CLIENT SETNAME worker-1", "CLIENT NO-EVICT on"] {
            assert_eq!(client.run(command), "OK");
        }
        // This version does not know it, and must not be asked for it on the new uplink.
        let known = client.run("CLIENT SETINFO LIB-NAME lib") == "OK";
        switch.switch();
        let info = client.run("CLIENT INFO");
        assert!(info.contains(" name=worker-1 ") && info.contains(" db=7 "), "{info}");
        assert_eq!(info.contains("lib-name=lib"), known);
        let flags = info.split("flags=").nth(1).unwrap().split(' ').next().unwrap();
        assert!(flags.contains('e'), "{info}");
        assert_eq!(client.run("GET nothing"), "nil");
        // RESET clears it.
        assert_eq!(client.run("RESET"), "RESET");
        assert_eq!(client.run("CLIENT GETNAME"), "nil");
    });
}

#[test]
fn subscriptions_go_on_and_no_confirmation_is_seen_twice() {
    everywhere(|switch| {
        let mut client = switch.client();
        client.run("SUBSCRIBE a b");
        client.reply();
        client.run("PSUBSCRIBE p*");
        client.run("SSUBSCRIBE s");
        client.run("UNSUBSCRIBE b");
        switch.switch();
        let mut publisher = switch.client();
        for (command, message) in [
            ("PUBLISH a 1", "message, a, 1"),
            ("PUBLISH p1 2", "pmessage, p*, p1, 2"),
            ("SPUBLISH s 3", "smessage, s, 3"),
        ] {
            assert_eq!(publisher.run(command), "1");
            assert_eq!(client.reply(), switch.message(message));
        }
        assert_eq!(publisher.run("PUBLISH b 4"), "0");
        // The counts are the client's own.
        assert_eq!(client.run("SSUBSCRIBE t"), switch.message("ssubscribe, t, 2"));
        assert_eq!(client.run("SUBSCRIBE c"), switch.message("subscribe, c, 3"));
        assert_eq!(client.run("UNSUBSCRIBE a"), switch.message("unsubscribe, a, 2"));
        assert_eq!(client.run("UNSUBSCRIBE c"), switch.message("unsubscribe, c, 1"));
        assert_eq!(client.run("PUNSUBSCRIBE"), switch.message("punsubscribe, p*, 0"));
        client.run("SUNSUBSCRIBE");
        client.reply();
        assert_eq!(client.run("GET k"), "nil", "it is out of its subscriptions");
        // Nothing of the proxy's own is left.
        assert_eq!(switch.two.client().run("PUBSUB SHARDCHANNELS"), "[]");
    });
}

#[test]
fn client_side_caching_is_on_and_the_client_is_told_to_drop_its_cache() {
    everywhere(|switch| {
        let mut writer = switch.client();
        if !switch.resp3 {
            // Invalidations go to another connection.
            let (mut cache, mut ears) = (switch.client(), switch.client());
            let id = ears.run("CLIENT ID");
            ears.run("SUBSCRIBE __redis__:invalidate");
            assert_eq!(cache.run(&format!("CLIENT TRACKING on REDIRECT {id}")), "OK");
            assert_eq!(cache.run("GET k"), "nil");
            switch.switch();
            assert_eq!(ears.reply(), "[message, __redis__:invalidate, nil]");
            assert_eq!(cache.run("CLIENT GETREDIR"), id);
            assert_eq!(cache.run("GET k"), "nil");
            assert_eq!(writer.run("SET k v"), "OK");
            assert_eq!(ears.reply(), "[message, __redis__:invalidate, [k]]");
            return;
        }
        let modes = ["on", "on BCAST PREFIX k", "on OPTIN", "on OPTOUT NOLOOP"];
        let mut clients: Vec<Client> = modes
            .iter()
            .map(|mode| {
                let mut client = switch.client();
                assert_eq!(client.run(&format!("CLIENT TRACKING {mode}")), "OK");
                client
            })
            .collect();
        assert_eq!(clients[2].run("CLIENT CACHING yes"), "OK");
        switch.switch();
        for client in &mut clients {
            assert_eq!(client.reply(), ">[invalidate, nil]");
            // In OPTIN mode, this is the request that CACHING was for.
            assert_eq!(client.run("GET k"), "nil");
        }
        assert_eq!(writer.run("SET k v"), "OK");
        for client in &mut clients {
            assert_eq!(client.reply(), ">[invalidate, [k]]");
        }
        let info = clients[3].run("CLIENT TRACKINGINFO");
        assert!(info.contains("optout") && info.contains("noloop"), "{info}");
        assert_eq!(clients[1].run("CLIENT TRACKING off"), "OK");
    });
}

#[test]
fn requests_without_replies_are_waited_for_and_shift_nothing() {
    everywhere(|switch| {
        let mut client = switch.client();
        client.command(&["CLIENT", "REPLY", "OFF"]);
        client.command(&["SELECT", "3"]).command(&["SELECT", "99"]).command(&["INCR", "n"]);
        let mut skipping = switch.client();
        skipping.command(&["CLIENT", "REPLY", "SKIP"]).command(&["SELECT", "4"]);
        assert_eq!(skipping.run("INCR n"), "1");
        skipping.command(&["CLIENT", "REPLY", "SKIP"]);
        let sent = [
            &["CLIENT", "REPLY", "OFF"][..],
            &["SELECT", "3"],
            &["SELECT", "99"],
            &["INCR", "n"],
            &["CLIENT", "REPLY", "SKIP"],
            &["SELECT", "4"],
            &["INCR", "n"],
            &["CLIENT", "REPLY", "SKIP"],
        ];
        let hello = if switch.resp3 { 2 * request(&["HELLO", "3"]).len() } else { 0 };
        switch.proxy.has_read(hello + sent.map(request).concat().len());
        switch.switch();
        client.command(&["INCR", "m"]);
        client.command(&["CLIENT", "REPLY", "ON"]);
        assert_eq!(client.reply(), "OK");
        let info = client.run("CLIENT INFO");
        assert!(info.contains(" db=3 "), "what was refused without a word: {info}");
        assert_eq!(client.run("EXISTS m"), "1");
        skipping.command(&["INCR", "m"]);
        assert!(skipping.run("CLIENT INFO").contains(" db=4 "));
        let mut direct = switch.one.client();
        assert_eq!(direct.run("SELECT 3"), "OK");
        assert_eq!(direct.run("GET n"), "1", "it was executed on the old one");
    });
}

#[test]
fn ids_that_clients_have_seen_stay_valid() {
    everywhere(|switch| {
        let (mut one, mut two) = (switch.client(), switch.client());
        let (id, other) = (one.run("CLIENT ID"), two.run("CLIENT ID"));
        // Others are there already, so that ids differ.
        let _others: Vec<Client> = (0..3)
            .map(|_| {
                let mut client = switch.two.client();
                client.run("PING");
                client
            })
            .collect();
        switch.switch();
        assert_eq!(one.run("CLIENT ID"), id);
        let info = one.run("CLIENT INFO");
        assert!(info.contains(&format!("id={id} ")), "{info}");
        let list = one.run(&format!("CLIENT LIST ID {id} {other}"));
        let ids: Vec<&str> = list.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(ids, [format!("id={id}"), format!("id={other}")]);
        assert_eq!(one.run("MULTI"), "OK");
        assert_eq!(one.run("CLIENT ID"), "QUEUED");
        assert_eq!(one.run("PING"), "QUEUED");
        assert_eq!(one.run("EXEC"), format!("[{id}, PONG]"));
        if switch.resp3 {
            assert!(one.run("HELLO 3").contains(&format!("id, {id},")));
        }
        two.command(&["BLPOP", "queue", "0"]);
        eventually("it is unblocked", || one.run(&format!("CLIENT UNBLOCK {other}")) == "1");
        assert_eq!(two.reply(), "nil");
        // Those who come later have ids of their own, larger ones.
        let mut late = switch.client();
        let new: u64 = late.run("CLIENT ID").parse().unwrap();
        assert!(new > other.parse().unwrap());
        assert_eq!(late.run(&format!("CLIENT KILL ID {other}")), "1");
        assert_eq!(two.rest(), "");
        assert_eq!(late.run(&format!("CLIENT KILL ID {other}")), "0");
        assert_eq!(one.run("PING"), "PONG");
    });
}

#[test]
fn scripts_are_there_on_the_new_uplink() {
    everywhere(|switch| {
        let mut client = switch.client();
        let loaded = client.command(&["SCRIPT", "LOAD", "return 'loaded'"]).reply();
        client.command(&["EVAL", "return 'evaluated'", "0"]).reply();
        // The server knows its hash; the proxy never asked for it.
        let mut direct = switch.one.client();
        let evaluated = direct.command(&["SCRIPT", "LOAD", "return 'evaluated'"]).reply();
        switch.switch();
        assert_eq!(client.run(&format!("EVALSHA {loaded} 0")), "loaded");
        assert_eq!(client.run(&format!("EVALSHA {evaluated} 0")), "evaluated");
    });
}

#[test]
fn a_monitor_goes_on() {
    everywhere(|switch| {
        let mut monitor = switch.client();
        assert_eq!(monitor.run("MONITOR"), "OK");
        let mut client = switch.client();
        assert_eq!(client.run("SET before 1"), "OK");
        switch.switch();
        assert_eq!(client.run("SET after 1"), "OK");
        let mut seen = String::new();
        while !seen.contains("\"after\"") {
            let line = monitor.reply();
            assert!(line.as_bytes()[0].is_ascii_digit(), "{line}");
            seen.push_str(&line);
        }
        assert!(seen.contains("\"before\""));
        assert_eq!(monitor.run("RESET"), "RESET");
        assert_eq!(monitor.run("PING"), "PONG");
    });
}

/// Every command that waits for data, and what gives it some: what its client then gets. A `#` is
/// replaced by a number of its own, for whoever asks again first is served first.
const BLOCKING: &[(&str, &str, &str)] = &[
    ("BLPOP q# other 0", "RPUSH q# v", "[q#, v]"),
    ("BRPOP other q# 0", "RPUSH q# v", "[q#, v]"),
    ("BLMOVE q# to LEFT RIGHT 0", "RPUSH q# v", "v"),
    ("BRPOPLPUSH q# to 0", "RPUSH q# v", "v"),
    ("BLMPOP 0 2 q# other LEFT", "RPUSH q# v", "[q#, [v]]"),
    ("BZPOPMIN q# 0", "ZADD q# 5 v", "[q#, v, 5]"),
    ("BZPOPMAX q# 0", "ZADD q# 5 v", "[q#, v, 5]"),
    ("BZMPOP 0 1 q# MIN", "ZADD q# 5 v", "[q#, [[v, 5]]]"),
    ("XREAD BLOCK 0 STREAMS q# 0", "XADD q# 9-1 f v", "q#, [[9-1, [f, v]]]"),
    ("XREAD COUNT 1 BLOCK 0 STREAMS q# x $ $", "XADD q# 9-1 f v", "q#, [[9-1, [f, v]]]"),
    ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", "XADD s 9-1 f v", "s, [[9-1, [f, v]]]"),
];

#[test]
fn a_command_that_waits_for_data_goes_on_waiting_on_the_new_uplink() {
    everywhere(|switch| {
        let servers =
            if switch.is_copied() { &[&switch.one][..] } else { &[&switch.one, &switch.two] };
        for server in servers {
            assert_eq!(server.client().run("XGROUP CREATE s g $ MKSTREAM"), "OK");
        }
        let number = |at: usize, text: &str| text.replace('#', &at.to_string());
        let mut clients: Vec<Client> = (0..)
            .zip(BLOCKING)
            .map(|(at, (command, _, _))| {
                let mut client = switch.client();
                client.command(&number(at, command).split(' ').collect::<Vec<_>>());
                // What is behind it keeps its place.
                client.command(&["ECHO", "behind"]);
                client
            })
            .collect();
        switch.proxy.shows("active_requests", BLOCKING.len());
        switch.switch();
        switch.proxy.shows("active_requests", BLOCKING.len());
        let mut writer = switch.client();
        for (at, (client, (command, give, gets))) in clients.iter_mut().zip(BLOCKING).enumerate() {
            writer.run(&number(at, give));
            let got = client.reply();
            assert!(got.contains(&number(at, gets)), "{command}: {got}");
            assert_eq!(client.reply(), "behind");
        }
    });
}

#[test]
fn an_element_is_popped_once_and_not_lost_when_it_comes_at_the_switch() {
    const ELEMENTS: usize = 300;
    let (one, two) = (Redis::start(&[]), Redis::start(&[]));
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let servers = [&one, &two];
    let popped: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| {
                let mut client = proxy.client();
                scope.spawn(move || {
                    let mut popped = Vec::new();
                    loop {
                        match client.run("BLPOP queue 0").as_str() {
                            "[queue, end]" => return popped,
                            element => popped.push(element.to_owned()),
                        }
                    }
                })
            })
            .collect();
        // Past the proxy, to whichever server: what is left on the one waits for the way back.
        let pusher = scope.spawn(|| {
            let mut clients = servers.map(Redis::client);
            for element in 0..ELEMENTS {
                clients[element % 2].run(&format!("RPUSH queue {element}"));
            }
        });
        for round in 1..=40 {
            proxy.reload(&config(&servers[round % 2].addr(), json!({}))).expect_ok();
        }
        pusher.join().unwrap();
        for server in servers.iter().cycle().take(2) {
            proxy.reload(&config(&server.addr(), json!({}))).expect_ok();
            eventually("all is popped", || server.client().run("LLEN queue") == "0");
        }
        for _ in &workers {
            servers[1].client().run("RPUSH queue end");
        }
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut numbers: Vec<usize> =
        popped.iter().map(|it| it["[queue, ".len()..it.len() - 1].parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..ELEMENTS).collect::<Vec<_>>());
}

/// Seconds that no test takes.
const LONG: f64 = 1000.0;

#[test]
fn a_command_waits_on_the_new_uplink_for_the_time_that_is_left() {
    everywhere(|switch| {
        let (mut pops, mut reads) = (switch.client(), switch.client());
        let begun = Instant::now();
        pops.command(&["BLPOP", "queue", "1000"]);
        reads.command(&["XREAD", "BLOCK", "1000000", "STREAMS", "s", "$"]);
        switch.proxy.shows("active_requests", 2);
        let both_wait = Instant::now();
        let mut there = switch.two.client();
        assert_eq!(there.run("MONITOR"), "OK");
        let waited = both_wait.elapsed().as_secs_f64();
        switch.switch();
        // Each is asked once, and its time is what the clock says.
        let mut left = BTreeMap::new();
        while left.len() < 2 {
            let line = there.line();
            let words: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            let time = match words[..] {
                ["BLPOP", _, seconds] => seconds.parse::<f64>().unwrap(),
                ["XREAD", "BLOCK", millis, ..] => millis.parse::<f64>().unwrap() / 1000.0,
                _ => continue,
            };
            assert!(left.insert(words[0].to_owned(), time).is_none(), "{line}");
        }
        let gone = begun.elapsed().as_secs_f64();
        for (command, left) in left {
            // It is told in whole milliseconds.
            let may_be = LONG - gone - 0.002..=LONG - waited;
            assert!(may_be.contains(&left), "{command} for {left} s, and not for {may_be:?}");
        }
        let mut writer = switch.client();
        assert_eq!(writer.run("RPUSH queue v"), "1");
        assert_eq!(pops.reply(), "[queue, v]");
        writer.run("XADD s 9-1 f v");
        assert!(reads.reply().contains("s, [[9-1, [f, v]]]"));
        writer.run("ECHO end");
        let mut more = std::iter::repeat_with(|| there.line())
            .take_while(|line| !line.ends_with("\"ECHO\" \"end\""));
        let again = more.find(|line| line.contains("\"BLPOP\"") || line.contains("\"XREAD\""));
        assert_eq!(again, None, "it was asked twice");
    });
}

#[test]
fn a_command_waits_no_shorter_than_it_was_asked_to_however_often_it_is_moved() {
    let (one, two) = (Redis::start(&[]), Redis::start(&[]));
    let proxy = Proxy::start(&config_for(&one, false));
    let (mut pops, mut reads) = (proxy.client(), proxy.client());
    let begun = Instant::now();
    pops.command(&["BLPOP", "queue", "1"]);
    reads.command(&["XREAD", "BLOCK", "1000", "STREAMS", "s", "$"]);
    for server in [&two, &one, &two] {
        proxy.reload(&config_for(server, false)).expect_ok();
    }
    assert_eq!(pops.reply(), "nil");
    assert_eq!(reads.reply(), "nil");
    // The clock of a server may be a tick behind, and a time is asked for in whole milliseconds.
    assert!(begun.elapsed() + Duration::from_millis(20) > Duration::from_secs(1));
}

#[test]
fn new_entries_are_those_after_the_command_was_sent() {
    everywhere(|switch| {
        switch.one.client().run("XADD s 5-1 f old");
        match switch.to == To::Replica {
            true => eventually("it is there", || switch.two.client().run("XLEN s") == "1"),
            false => drop(switch.two.client().run("XADD s 5-1 f old")),
        }
        let mut client = switch.client();
        client.command(&["XREAD", "BLOCK", "0", "STREAMS", "s", "none", "$", "$"]);
        switch.proxy.shows("active_requests", 1);
        if !switch.is_copied() {
            // What `$` would mean there now is another thing.
            switch.two.client().run("XADD s 6-1 f new");
        }
        switch.switch();
        if switch.is_copied() {
            switch.two.client().run("XADD s 6-1 f new");
        }
        assert!(client.reply().contains("s, [[6-1, [f, new]]]"));
    });
}

#[test]
fn another_client_may_still_end_the_waiting() {
    everywhere(|switch| {
        let (mut waiting, mut other) = (switch.client(), switch.client());
        let id = waiting.run("CLIENT ID");
        waiting.command(&["BLPOP", "queue", "0"]);
        switch.proxy.shows("active_requests", 1);
        switch.switch();
        let unblock = format!("CLIENT UNBLOCK {id} ERROR");
        eventually("it is unblocked", || other.run(&unblock) == "1");
        assert!(waiting.reply().starts_with("-UNBLOCKED"));
        assert_eq!(waiting.run("PING"), "PONG");
    });
}

#[test]
fn no_message_is_lost_or_doubled_when_the_new_uplink_is_a_replica() {
    const SWITCHES: usize = 12;
    for resp3 in [false, true] {
        let switch = Switch::new(resp3, resp3, To::Replica);
        let mut subscribers: Vec<Client> = (0..3)
            .map(|_| {
                let mut client = switch.client();
                client.command(&["SUBSCRIBE", "proxied", "direct"]);
                client.command(&["PSUBSCRIBE", "pat*"]);
                for _ in 0..3 {
                    client.reply();
                }
                client
            })
            .collect();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _done = TellsToEnd(&done);
            // One publishes through the proxy, one past it at the master.
            let publish = |mut client: Client, channel: &'static str| {
                let done = &done;
                move || {
                    let mut sent = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        client.run(&format!("PUBLISH {channel} {sent}"));
                        sent += 1;
                    }
                    client.run(&format!("PUBLISH {channel} end"));
                    sent
                }
            };
            let publishers = [
                scope.spawn(publish(switch.client(), "proxied")),
                scope.spawn(publish(switch.one.client(), "direct")),
                scope.spawn(publish(switch.one.client(), "pattern")),
            ];
            let listeners: Vec<_> = subscribers
                .iter_mut()
                .map(|client| {
                    scope.spawn(move || {
                        let mut counts = [0usize; 3];
                        let mut ended = 0;
                        while ended < 3 {
                            let message = client.reply();
                            let parts: Vec<&str> =
                                message.trim_matches(['>', '[', ']']).split(", ").collect();
                            let channel = ["proxied", "direct", "pattern"]
                                .iter()
                                .position(|name| *name == parts[parts.len() - 2])
                                .unwrap_or_else(|| panic!("{message}"));
                            match parts[parts.len() - 1] {
                                "end" => ended += 1,
                                number => {
                                    assert_eq!(number, counts[channel].to_string(), "{message}");
                                    counts[channel] += 1;
                                }
                            }
                        }
                        counts
                    })
                })
                .collect();
            for round in 1..=SWITCHES {
                let to = if round % 2 == 1 { &switch.two } else { &switch.one };
                let answer = switch.proxy.reload(&config_for(to, switch.tls));
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            let sent = publishers.map(|publisher| publisher.join().unwrap());
            for listener in listeners {
                assert_eq!(listener.join().unwrap(), sent);
            }
        });
    }
}

#[test]
fn the_state_says_who_carries_what_and_a_reload_says_what_became_of_them() {
    let switch = Switch::new(true, false, To::Unrelated);
    let names = ["MULTI", "WATCH k", "SUBSCRIBE a", "CLIENT TRACKING on", "MONITOR"];
    let mut clients: Vec<Client> = names
        .iter()
        .map(|command| {
            let mut client = switch.client();
            client.run(command);
            client
        })
        .collect();
    let mut blocked = switch.client();
    blocked.command(&["BLPOP", "queue", "0"]);
    switch.proxy.shows("active_requests", 1);
    let all = json!({
        "transactions": 1, "watching": 1, "blocked": 1, "subscribed": 1, "tracking": 1,
        "monitors": 1, "silent": 0,
    });
    assert_eq!(switch.proxy.info()["carrying"], all);

    // Before there is a reload, it can be asked what it would do.
    switch.proxy.rewrite(&config_for(&switch.two, false));
    let answer = switch.proxy.cmd("reload&dry_run=true");
    assert_eq!(answer.status, 200);
    let prediction = &answer.json()["prediction"];
    assert_eq!((&prediction["moved"], &prediction["carrying"]), (&json!(6), &all));
    assert_eq!((&prediction["closed"], &prediction["waited_for"]), (&json!([]), &json!(0)));
    assert_eq!(prediction["uplink_changes"], true);
    let info = switch.proxy.info();
    assert_eq!((&info["generation"], &info["reloads"]), (&json!(1), &json!([])));

    switch.switch();
    let info = switch.proxy.info();
    let reload = &info["reloads"][0];
    assert_eq!(reload["sessions_moved"], 6);
    let wanted = json!({
        "made_ready": 6, "transactions": 1, "watched": 1, "touched": 0, "blocked": 1,
        "subscribed": 1, "tracking": 1, "monitors": 1,
    });
    assert_eq!(reload["handed_over"], wanted);
    assert_eq!(reload["closed"], json!([]));
    switch.proxy.shows("carrying", all);
    assert_eq!(clients[0].run("EXEC"), "[]");
    let carrying = &switch.proxy.info()["carrying"];
    assert_eq!(carrying["transactions"], 0);
}

#[test]
fn a_dry_run_refuses_what_a_reload_would_refuse() {
    let (one, two) = (Redis::start(&[]), Redis::start(&["--databases", "2"]));
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let mut client = proxy.client();
    assert_eq!(client.run("SELECT 9"), "OK");
    proxy.rewrite(&config(&two.addr(), json!({})));
    let answer = proxy.cmd("reload&dry_run=true");
    assert_eq!(answer.status, 400);
    let named = format!("client 127.0.0.1:{} uses database 9", client.port);
    assert!(answer.error().contains(&named), "{answer:?}");
    proxy.rewrite(&config("127.0.0.1:1", json!({})));
    let answer = proxy.cmd("reload&dry_run=true");
    assert!(answer.error().contains("could not connect to uplink: 127.0.0.1:1"), "{answer:?}");
    assert_eq!(client.run("PING"), "PONG");
    assert_eq!(proxy.info()["generation"], 1);
}

#[test]
fn readonly_follows_to_another_cluster() {
    let cluster = || Redis::start(&["--cluster-enabled", "yes"]);
    let (one, two) = (cluster(), cluster());
    let proxy = Proxy::start(&config(&one.addr(), json!({})));
    let (mut reader, mut both) = (proxy.client(), proxy.client());
    assert_eq!(reader.run("READONLY"), "OK");
    assert_eq!(both.run("READONLY"), "OK");
    assert_eq!(both.run("READWRITE"), "OK");
    proxy.reload(&config(&two.addr(), json!({}))).expect_ok();
    let readonly = |client: &mut Client| {
        let info = client.run("CLIENT INFO");
        let flags = info.split("flags=").nth(1).unwrap().split(' ').next().unwrap();
        flags.contains('r')
    };
    assert!(readonly(&mut reader) && !readonly(&mut both));
}

#[test]
fn what_newer_versions_know_of_a_connection_is_told_as_it_was_accepted() {
    let (old, new) = (FakeUplink::bind(), FakeUplink::bind());
    let proxy = old.expect_start(|| Proxy::start(&config(&old.addr(), json!({}))));
    let mut client = proxy.client();
    let accepted = [
        "CLIENT SETINFO LIB-NAME lib",
        "CLIENT SETINFO LIB-VER 1.2",
        "CLIENT NO-TOUCH ON",
        "CLIENT IMPORT-SOURCE ON",
        "CLIENT CAPA redirect",
    ];
    let words = |command: &str| request(&command.split(' ').collect::<Vec<_>>());
    client.send(accepted.map(words).concat());
    let mut uplink = old.accept();
    uplink.expect(accepted.map(words).concat()).send("+OK\r\n".repeat(5));
    client.expect("+OK\r\n".repeat(5));
    // What is refused is not remembered.
    client.send(words("CLIENT NO-EVICT ON"));
    uplink.expect(words("CLIENT NO-EVICT ON")).send("-ERR no\r\n");
    client.expect("-ERR no\r\n");
    proxy.rewrite(&config(&new.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    let ping = request(&["PING"]);
    new.accept_reload();
    old.accept_side();
    let mut next = new.accept();
    next.expect(accepted.map(words).concat()).expect(&ping);
    // A server that is older does without the first two, and the last.
    next.send("-ERR\r\n-ERR\r\n+OK\r\n+OK\r\n-ERR\r\n+PONG\r\n");
    new.accept().expect(&ping).send("+PONG\r\n").expect_closed();
    new.answering_looks(|| Answer::read(&mut caller)).expect_ok();
}

#[test]
fn who_listens_without_replies_goes_on_listening() {
    everywhere(|switch| {
        let mut client = switch.client();
        client.command(&["SELECT", "4"]);
        assert_eq!(client.reply(), "OK");
        client.command(&["CLIENT", "REPLY", "OFF"]).command(&["SUBSCRIBE", "news"]);
        assert_eq!(client.reply(), switch.message("subscribe, news, 1"));
        switch.switch();
        let mut direct = switch.two.client();
        assert_eq!(direct.run("PUBLISH news 1"), "1");
        assert_eq!(client.reply(), switch.message("message, news, 1"));
        client.command(&["UNSUBSCRIBE"]);
        assert_eq!(client.reply(), switch.message("unsubscribe, news, 0"));
        client.command(&["INCR", "n"]).command(&["CLIENT", "REPLY", "ON"]);
        assert_eq!(client.reply(), "OK", "silent it stayed");
        assert!(client.run("CLIENT INFO").contains(" db=4 "));
        assert_eq!(client.run("GET n"), "1");
    });
}

#[test]
fn a_touched_transaction_fails_once_whatever_is_pipelined_behind_it() {
    everywhere(|switch| {
        let (mut client, mut silent, mut writer) =
            (switch.client(), switch.client(), switch.client());
        assert_eq!(client.run("WATCH k"), "OK");
        assert_eq!(silent.run("WATCH k"), "OK");
        silent.command(&["CLIENT", "REPLY", "OFF"]);
        eventually("it is silent", || switch.proxy.info()["carrying"]["silent"] == 1);
        assert_eq!(writer.run("SET k 1"), "OK");
        switch.switch();
        let transaction = [["MULTI", ""], ["INCR", "n"], ["EXEC", ""]];
        let words = |[name, key]: [&'static str; 2]| {
            request(&[name, key].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>())
        };
        let bytes = transaction.map(words).concat();
        client.send([bytes.clone(), bytes.clone()].concat());
        for wanted in ["OK", "QUEUED", "nil", "OK", "QUEUED", "[1]"] {
            assert_eq!(client.reply(), wanted);
        }
        silent.send([bytes.clone(), bytes.clone()].concat());
        silent.command(&["CLIENT", "REPLY", "ON"]);
        assert_eq!(silent.reply(), "OK");
        assert_eq!(silent.run("GET n"), "2");
    });
}

#[test]
fn what_a_transaction_subscribes_to_is_remembered() {
    for resp3 in [false, true] {
        let switch = Switch::new(resp3, false, To::Unrelated);
        let mut client = switch.client();
        assert_eq!(client.run("MULTI"), "OK");
        assert_eq!(client.run("PING"), "QUEUED");
        assert_eq!(client.run("SUBSCRIBE a b"), "QUEUED");
        client.command(&["EXEC"]);
        client.expect("*2\r\n+PONG\r\n");
        assert_eq!(client.reply(), switch.message("subscribe, a, 1"));
        assert_eq!(client.reply(), switch.message("subscribe, b, 2"));
        switch.switch();
        assert_eq!(switch.two.client().run("PUBLISH b 1"), "1");
        assert_eq!(client.reply(), switch.message("message, b, 1"));
        assert_eq!(client.run("UNSUBSCRIBE a"), switch.message("unsubscribe, a, 1"));
        switch.proxy.reload(&config_for(&switch.one, false)).expect_ok();
        assert_eq!(switch.one.client().run("PUBLISH b 2"), "1");
        assert_eq!(client.reply(), switch.message("message, b, 2"));
    }
}

#[test]
fn ids_that_a_transaction_names_are_those_of_the_uplink_that_executes_it() {
    let switch = Switch::new(false, false, To::Unrelated);
    let (mut one, mut two) = (switch.client(), switch.client());
    let id = two.run("CLIENT ID");
    let mut others: Vec<Client> = (0..12).map(|_| switch.two.client()).collect();
    for other in &mut others {
        other.run("PING");
    }
    assert_eq!(one.run("MULTI"), "OK");
    assert_eq!(one.run(&format!("CLIENT KILL ID {id}")), "QUEUED");
    switch.switch();
    assert_eq!(one.run("EXEC"), "[1]");
    assert_eq!(two.rest(), "");
    for other in &mut others {
        assert_eq!(other.run("PING"), "PONG", "nobody else");
    }
}

#[test]
fn a_one_shot_reaches_the_request_that_it_is_for() {
    let switch = Switch::new(true, false, To::Unrelated);
    let (mut client, mut writer) = (switch.client(), switch.client());
    assert_eq!(writer.run("XADD s 1-1 f v"), "1-1");
    assert_eq!(client.run("CLIENT TRACKING on OPTIN"), "OK");
    assert_eq!(client.run("CLIENT CACHING yes"), "OK");
    assert_eq!(client.run("XREAD BLOCK 1 STREAMS s $"), "nil");
    assert_eq!(writer.run("XADD s 2-1 f v"), "2-1");
    assert_eq!(client.reply(), ">[invalidate, [s]]");
}

#[test]
fn a_touched_key_is_known_through_a_chain_of_proxies() {
    for resp3 in [false, true] {
        for inside in [false, true] {
            let redis = Redis::start(&[]);
            let near = Proxy::start(&config(&redis.addr(), json!({})));
            let far = Proxy::start(&config(&near.addr(), json!({})));
            let (mut client, mut writer) = (far.client(), redis.client());
            if resp3 {
                client.run("HELLO 3");
            }
            assert_eq!(client.run("WATCH k"), "OK");
            if inside {
                assert_eq!(client.run("MULTI"), "OK");
            }
            assert_eq!(writer.run("SET k touched"), "OK");
            // The near one is moved, and knows it; the server's connection is another one.
            let mut by_socket = config(&redis.socket(), json!({}));
            by_socket["uplink"]["network"] = json!("unix");
            near.reload(&by_socket).expect_ok();
            // So is the far one, past the near one.
            far.reload(&config(&redis.addr(), json!({}))).expect_ok();
            if !inside {
                assert_eq!(client.run("MULTI"), "OK");
            }
            assert_eq!(client.run("INCR n"), "QUEUED");
            assert_eq!(client.run("EXEC"), "nil", "resp3: {resp3}, inside: {inside}");
            assert_eq!(client.run("EXISTS n"), "0");
        }
    }
}
