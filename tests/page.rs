//! The status page, in a real browser.

use serde_json::json;

use crate::common::{Browser, Proxy, config, redis};

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
