//! What clients may do is the same at the new server, or the switch is refused before anything is done.

use serde_json::{Value, json};

use crate::common::{Answer, Proxy, Redis, config, redis};

fn uplink(server: &Redis, user: Option<&str>) -> Value {
    let mut settings = config(&server.addr(), json!({}));
    if let Some(user) = user {
        settings["uplink"]["user"] = json!(user);
        settings["uplink"]["pass"] = json!("pass");
    }
    settings
}

/// What came of the check, and what it says.
fn users(answer: &Answer) -> (String, String) {
    let report = answer.json()["preflight"].clone();
    let checks = report["checks"].as_array().unwrap().iter();
    let of: Vec<_> = checks.filter(|check| check["name"] == "users").collect();
    let text = |field: &str| {
        let texts = of.iter().map(|check| check[field].as_str().unwrap());
        texts.collect::<Vec<_>>().join("; ")
    };
    (text("result"), text("detail"))
}

#[test]
fn a_user_that_may_do_less_than_clients_need_is_refused_before_anything_is_done() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::start(&uplink(&one, None));
    let mut client = proxy.client();
    assert_eq!(client.run("SET k v"), "OK");
    for (rules, result, says) in [
        ("~* &* +@all", "ok", "may do what the present one's may"),
        ("~other:* &* +@all", "failed", "may not use all of the keys ~*"),
        ("%R~* &* +@all", "failed", "may not use all of the keys ~*"),
        ("~* &mine:* +@all", "failed", "may not use all of the channels &*"),
        ("~* &* +@all -set", "failed", "may not use set, which clients have called"),
        (
            "~* &* +@all -zadd -debug",
            "warning",
            "may not use debug, zadd, as the present one's may",
        ),
        ("~* &* -@all +@read +ping +info +client +acl", "failed", "more"),
    ] {
        two.client().run("ACL DELUSER mover");
        two.client().run(&format!("ACL SETUSER mover on >pass {rules}"));
        let answer = proxy.switch(&uplink(&two, Some("mover")), "&dry_run=true");
        let (results, details) = users(&answer);
        assert!(results.contains(result) && details.contains(says), "{rules}: {details}");
    }
    two.client().run("ACL DELUSER mover");
    two.client().run("ACL SETUSER mover on >pass ~other:* &* +@all");
    let answer = proxy.cmd("switch");
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(two.client().run("INFO replication").contains("role:master"));
    // Who knows better says so.
    let answer = proxy.cmd("switch&force=true");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let warnings = answer.json()["switch"]["warnings"].to_string();
    assert!(warnings.contains("may not use all of the keys ~*"), "{warnings}");
    assert!(client.run("GET k").starts_with("-NOPERM"));
}

#[test]
fn users_with_the_same_limits_are_no_loss() {
    let (one, two) = (redis(), redis());
    for server in [&one, &two] {
        let own = "+info +replicaof +config|get +config|set +client +psync +replconf +acl";
        let rules = format!("~app:* &app:* +@all -@dangerous {own}");
        server.client().run(&format!("ACL SETUSER mover on >pass {rules}"));
    }
    let proxy = Proxy::start(&uplink(&one, Some("mover")));
    let mut client = proxy.client();
    assert_eq!(client.run("SET app:k v"), "OK");
    let answer = proxy.switch(&uplink(&two, Some("mover")), "");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(client.run("GET app:k"), "v");
}

#[test]
fn default_users_are_compared_too() {
    let (one, two) = (redis(), redis());
    two.client().run("ACL SETUSER default resetkeys ~x:*");
    let proxy = Proxy::start(&uplink(&one, None));
    let answer = proxy.switch(&uplink(&two, None), "&dry_run=true");
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(users(&answer).0, "failed");
    // There and back: more is no loss.
    let proxy = Proxy::start(&uplink(&two, None));
    let answer = proxy.switch(&uplink(&one, None), "&dry_run=true");
    assert_eq!(users(&answer).0, "ok", "{}", answer.body);
}

#[test]
fn what_a_user_may_not_is_found_by_trying_where_it_is_not_told() {
    let one = redis();
    let untold = ["--rename-command", "ACL", ""];
    let limits = ["--user", "default", "on", "nopass", "~x:*", "&*", "+@all"];
    let two = Redis::start(&[&untold[..], &limits].concat());
    let proxy = Proxy::start(&uplink(&one, None));
    let mut client = proxy.client();
    let answer = proxy.switch(&uplink(&two, None), "&dry_run=true");
    assert_eq!(users(&answer).0, "unknown", "{}", answer.body);
    assert_eq!(client.run("SET y v"), "OK");
    let answer = proxy.cmd("switch&dry_run=true");
    let (result, detail) = users(&answer);
    assert_eq!((answer.status, result.as_str()), (400, "failed"), "{}", answer.body);
    assert!(detail.contains("may not use the key \"y\""), "{detail}");
}

#[test]
fn rights_that_are_there_but_not_together_are_missing() {
    for (rules, lacking) in [("&* (~* +@all)", "subscribe"), ("%R~* &* +@all (%W~* +@all)", "incr")]
    {
        let (one, two) = (redis(), redis());
        one.client().run("ACL SETUSER mover on >pass ~* &* +@all");
        two.client().run(&format!("ACL SETUSER mover on >pass {rules}"));
        let proxy = Proxy::start(&uplink(&one, Some("mover")));
        let mut client = proxy.client();
        client.run("INCR n");
        client.run("SUBSCRIBE news");
        let answer = proxy.switch(&uplink(&two, Some("mover")), "");
        assert_eq!(answer.status, 400, "{rules}: {answer:?}");
        let error = answer.error();
        assert!(error.contains(lacking) && error.contains("clients have called"), "{error}");
    }
}
