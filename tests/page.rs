//! The status page, in a real browser.

use serde_json::json;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::{
    Answer, Browser, Middle, Proxy, TellsToEnd, Then, When, config, eventually, redis,
};

#[test]
fn a_person_pauses_unpauses_and_reads_why_a_reload_is_refused() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    let browser = Browser::start();
    browser.open(&format!("http://{}/", proxy.addr_of("admin")));
    browser.shows("#state", "running");
    browser.shows("#uplink", &one.addr());
    browser.shows("#generation", "1");

    browser.press("#pause");
    browser.shows("#state", "paused");
    assert_eq!(proxy.info()["state"], 4);
    let mut client = proxy.client();
    client.command(&["PING"]);
    browser.shows("#waiting", "1");
    browser.shows("#clients", "1");
    assert!(browser.run("return document.title").as_str().unwrap().contains("Paused"));
    browser.press("#unpause");
    browser.shows("#state", "running");
    assert_eq!(client.line(), "+PONG");

    let mut broken = config("127.0.0.1:1", json!({}));
    broken["listen"]["adress"] = json!("?");
    proxy.rewrite(&broken);
    browser.press("#reload");
    for place in ["#answer", "#reloads"] {
        browser.shows(place, "could not connect to uplink: 127.0.0.1:1 (non-TLS)");
        browser.shows(place, "listen.adress: unknown field");
    }
    proxy.rewrite(&config(&two.addr(), json!({})));
    assert_eq!(client.run("MULTI"), "OK");
    browser.shows("#carrying", "1 open transaction");
    browser.press("#predict");
    let moved = format!("1 client would be moved to {} (1 open transaction), 0 closed", two.addr());
    browser.shows("#answer", &moved);
    browser.shows("#generation", "1");
    browser.press("#reload");
    browser.shows("#generation", "2");
    browser.shows("#reloads", "1 session moved (1 open transaction), 0 closed");
    browser.shows("#uplink", &two.addr());

    // A command that is refused is answered with 400, which the browser notes; nothing else.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("400 (Bad Request)")), "{complaints:#?}");
}

#[test]
fn the_page_says_so_when_the_proxy_does_not_answer() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let browser = Browser::start();
    browser.open(&format!("http://{}/", proxy.addr_of("admin")));
    browser.shows("#state", "running");
    drop(proxy);
    browser.shows("body", "no answer");
}

#[test]
fn the_page_says_so_when_the_uplink_does_not_answer() {
    let redis = redis();
    let proxy = Proxy::to(&redis.addr());
    let browser = Browser::start();
    browser.open(&format!("http://{}/", proxy.addr_of("admin")));
    browser.shows("#state", "running");
    let uplink = "return document.body.dataset.uplink";
    eventually("it is known to answer", || browser.run(uplink) == "up");
    let addr = redis.addr();
    drop(redis);
    browser.shows("#state", "running, uplink away");
    browser.shows("#uplink-line", &format!("could not connect to uplink: {addr}"));
    assert_eq!(browser.run(uplink), "away");
}

/// From where the copying begins on, everything that the server says takes a second.
fn slow_after_psync(link: &Middle) {
    let slow = link.clone();
    link.at("PSYNC", When::After, move || {
        slow.slow_down(Duration::from_secs(1));
        Then::Pass
    });
}

#[test]
fn a_person_checks_switches_watches_and_cancels() {
    let (one, two) = (redis(), redis());
    let link = Middle::to(&one.addr());
    let proxy = Proxy::to(&one.addr());
    let mut client = proxy.client();
    let value = "x".repeat(100_000);
    assert_eq!(one.client().run("CONFIG SET rdbcompression no"), "OK");
    for number in 0..20 {
        client.command(&["SET", &format!("k{number}"), &value]);
        assert_eq!(client.reply(), "OK");
    }
    let browser = Browser::start();
    browser.open(&format!("http://{}/", proxy.addr_of("admin")));
    browser.shows("#state", "running");
    proxy.rewrite(&config(&two.addr(), json!({})));
    two.client().run("SET precious 1");
    browser.press("#check-switch");
    browser.shows("#answer", "data (failed): the new uplink has 1 keys, which would be erased");
    two.client().run("DEL precious");

    // Begun elsewhere, over a link that comes to a halt in the midst of the data.
    slow_after_psync(&link);
    let from = link.addr();
    let caller = proxy.begin_cmd(&format!("switch&replicate_from={from}"));
    eventually("some of it is copied", || {
        proxy.info()["switching"]["sync"]["read_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    });
    link.slow_down(Duration::from_secs(3600));
    browser.shows("#switch-panel", &format!("{} → {}", one.addr(), two.addr()));
    browser.shows("#stages .passed", "preflight");
    browser.shows("#stages .present", "replicating");
    browser.shows("#synced", "copied");
    browser.press("#cancel-switch");
    browser.shows("#switches", "the switch was cancelled by an operator");
    browser.shows("#answer", "done");
    drop(caller);

    let between = browser.press_twice("#switch");
    assert_eq!(between, "Press again to switch");
    browser.shows("#switches", "the old uplink is its replica");
    browser.shows("#switches", "clients held for");
    browser.shows("#uplink", &two.addr());

    // Over a link that is too slow to begin, until it is not.
    two.client().run("FLUSHALL");
    let (three, link) = (redis(), Middle::to(&two.addr()));
    link.slow_down(Duration::from_millis(500));
    proxy.rewrite(&config(&three.addr(), json!({})));
    let from = link.addr();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = TellsToEnd(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                client.run("INCR n");
            }
        });
        let mut caller =
            proxy.begin_cmd(&format!("switch&pause_limit_ms=1000&replicate_from={from}"));
        browser.shows("#lag-caption", "behind, and catches up in");
        let points = "return document.getElementById('lag-line').getAttribute('points') ?? ''";
        eventually("the lag is plotted", || {
            browser.run(points).as_str().is_some_and(|points| points.split(' ').count() > 3)
        });
        link.slow_down(Duration::ZERO);
        assert_eq!(Answer::read(&mut caller).status, 200);
        browser.shows("#uplink", &three.addr());
    });

    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("400 (Bad Request)")), "{complaints:#?}");
}
