//! What the table of commands does not know is asked of the uplink.

use serde_json::{Value, json};

use crate::common::{Answer, Client, FakeUplink, Proxy, config, redis, request};

/// Its answers to COMMAND LIST, by category.
fn list(category: &str) -> Vec<u8> {
    match category {
        "blocking" => request(&["blpop", "bnew"]),
        "connection" => request(&["client|id", "client|newsub", "newstate", "ping"]),
        "pubsub" => request(&["subscribe"]),
        "transaction" => request(&["multi"]),
        other => panic!("{other}"),
    }
}

/// Starts a proxy before a server of the future.
fn start(fake: &FakeUplink, config: &Value) -> Proxy {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut verified = fake.accept();
            verified.expect(request(&["PING"])).send("+PONG\r\n");
            // The proxy goes on to watch it over this connection.
            std::thread::spawn(move || {
                while let Some(asked) = verified.try_request() {
                    let answer = match &asked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                        ["COMMAND", "LIST", "FILTERBY", "ACLCAT", category] => list(category),
                        _ => b":0\r\n".to_vec(),
                    };
                    if verified.try_send(&answer).is_err() {
                        return;
                    }
                }
            });
        });
        Proxy::start(config)
    })
}

#[test]
fn a_blocking_command_of_a_later_server_has_the_limit_of_those() {
    let fake = FakeUplink::bind();
    let mut limited = config(&fake.addr(), json!({}));
    limited["read_time_limit_ms"] = json!(100);
    limited["blocking_time_limit_ms"] = json!(300);
    let proxy = start(&fake, &limited);
    for (command, limit) in [("BNEW", 300), ("GNEW", 100)] {
        let mut client = proxy.client();
        client.command(&[command, "k"]);
        let mut uplink = fake.accept();
        uplink.expect(request(&[command, "k"]));
        let told = format!("-ERR redis-proxy: time limit of {limit} ms exceeded\r\n");
        assert_eq!(client.rest(), told, "{command}");
    }
}

#[test]
fn a_prediction_names_clients_whose_connection_may_have_what_is_not_known() {
    let (fake, two) = (FakeUplink::bind(), redis());
    let proxy = start(&fake, &config(&fake.addr(), json!({})));
    let mut clients = Vec::new();
    for line in ["NEWSTATE on", "CLIENT NEWSUB on", "NEWDATA on", "CLIENT ID"] {
        let args: Vec<&str> = line.split(' ').collect();
        let mut client = proxy.client();
        client.command(&args);
        let mut uplink = fake.accept();
        uplink.expect(request(&args)).send("+OK\r\n");
        client.expect("+OK\r\n");
        clients.push((client, uplink));
    }
    proxy.rewrite(&config(&two.addr(), json!({})));
    let answer = std::thread::scope(|scope| {
        // The prediction asks what it may do there.
        scope.spawn(|| fake.accept_side());
        proxy.cmd("reload&dry_run=true")
    });
    assert_eq!(answer.status, 200, "{answer:?}");
    let prediction = answer.json()["prediction"].clone();
    let uncertain = prediction["uncertain"].as_array().unwrap();
    let addr = |at: usize| format!("127.0.0.1:{}", clients[at].0.port);
    let named: Vec<&str> = uncertain.iter().map(|it| it["client"].as_str().unwrap()).collect();
    assert_eq!(named.len(), 2, "{prediction}");
    assert!(named.contains(&&*addr(0)) && named.contains(&&*addr(1)), "{prediction}");
    // RESET has cleared it.
    let (client, uplink) = &mut clients[0];
    client.command(&["RESET"]);
    uplink.expect(request(&["RESET"])).send("+RESET\r\n");
    client.expect("+RESET\r\n");
}

#[test]
fn what_himport_has_prepared_is_carried() {
    let (fake, next) = (FakeUplink::bind(), FakeUplink::bind());
    let proxy = fake.expect_start(|| Proxy::to(&fake.addr()));
    let mut client = proxy.client();
    let mut uplink: Option<Client> = None;
    for (line, reply) in [
        ("HIMPORT PREPARE u name age", "+OK\r\n"),
        ("HIMPORT PREPARE o id", "+OK\r\n"),
        ("HIMPORT PREPARE wrong x x", "-ERR duplicate\r\n"),
        ("HIMPORT SET k u Ada 36", "+OK\r\n"),
        ("HIMPORT DISCARD o", ":1\r\n"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        client.command(&args);
        let uplink = uplink.get_or_insert_with(|| fake.accept());
        uplink.expect(request(&args)).send(reply);
        client.expect(reply);
    }
    proxy.rewrite(&config(&next.addr(), json!({})));
    let mut caller = proxy.begin_cmd("reload");
    // The reload's own connection to the old one.
    let side = std::thread::scope(|scope| {
        scope.spawn(|| fake.accept_side());
        next.accept_reload();
        next.accept()
    });
    let mut moved = side;
    moved.expect(request(&["HIMPORT", "PREPARE", "u", "name", "age"])).send("+OK\r\n");
    moved.expect(request(&["PING"])).send("+PONG\r\n");
    next.accept().expect(request(&["PING"])).send("+PONG\r\n");
    next.answering_looks(|| Answer::read(&mut caller)).expect_ok();
    client.command(&["HIMPORT", "SET", "k", "u", "Ada", "36"]);
    moved.expect(request(&["HIMPORT", "SET", "k", "u", "Ada", "36"])).send("+OK\r\n");
    client.expect("+OK\r\n");
}
