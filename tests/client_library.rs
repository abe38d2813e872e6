//! A real client library, plain and TLS, RESP2 and RESP3, finds nothing unusual.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use redis::{Client as Library, Commands, Connection, ConnectionAddr, ProtocolVersion};
use redis::{IntoConnectionInfo, RedisConnectionInfo, TlsCertificates, pipe};
use serde_json::json;

use crate::common::{Proxy, Redis, TellsToEnd, cert, config, redis};

fn exercise(connection: &mut Connection) {
    let () = connection.set("k", 1).unwrap();
    assert_eq!(connection.incr::<_, _, i64>("k", 41).unwrap(), 42);
    let mut many = pipe();
    for number in 0..5000 {
        many.cmd("HSET").arg("h").arg(number).arg("v").ignore();
    }
    let () = many.cmd("HLEN").arg("h").ignore().query(connection).unwrap();
    assert_eq!(
        connection.hgetall::<_, std::collections::HashMap<i64, String>>("h").unwrap().len(),
        5000
    );
    let (one, two): (i64, i64) =
        pipe().atomic().incr("k", 1).incr("k", 1).query(connection).unwrap();
    assert_eq!((one, two), (43, 44));
    let sum: i64 = redis::transaction(connection, &["k"], |connection, pipe| {
        let k: i64 = connection.get("k")?;
        pipe.set("k", k * 2)
            .ignore()
            .get("k")
            .query(connection)
            .map(|it: Option<(i64,)>| it.map(|it| it.0))
    })
    .unwrap();
    assert_eq!(sum, 88);
    let missing = connection.get::<_, Option<String>>("none").unwrap();
    assert_eq!(missing, None);
    let error = redis::cmd("LPUSH").arg("k").arg("x").query::<i64>(connection).unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"));
    let none: Option<(String, String)> = connection.blpop("empty", 0.05).unwrap();
    assert_eq!(none, None);
}

fn subscribe(connection: &mut Connection, publisher: &mut Connection) {
    let mut subscriber = connection.as_pubsub();
    subscriber.subscribe("news").unwrap();
    subscriber.psubscribe("n*s").unwrap();
    assert_eq!(publisher.publish::<_, _, i64>("news", "hello").unwrap(), 2);
    for _ in 0..2 {
        assert_eq!(subscriber.get_message().unwrap().get_payload::<String>().unwrap(), "hello");
    }
}

fn info(protocol: ProtocolVersion) -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_password("secret").set_protocol(protocol)
}

#[test]
fn the_library_works_through_a_plain_listener() {
    let redis = redis();
    let proxy = Proxy::with_pass(&redis.addr(), "secret");
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let address = format!("redis://{}", proxy.addr()).into_connection_info().unwrap();
        let library = Library::open(address.set_redis_settings(info(protocol))).unwrap();
        let mut connection = library.get_connection().unwrap();
        exercise(&mut connection);
        subscribe(&mut connection, &mut library.get_connection().unwrap());
    }
}

#[test]
fn the_library_works_through_a_tls_listener() {
    let redis = redis();
    let proxy = Proxy::start(&json!({
        "uplink": { "addr": redis.addr() },
        "listen": {
            "addr": "127.0.0.1:0", "pass": "secret", "tls": true,
            "certfile": cert("server.pem"), "keyfile": cert("server.key"),
        },
    }));
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let address = format!("rediss://{}", proxy.addr()).into_connection_info().unwrap();
        assert!(matches!(address.addr(), ConnectionAddr::TcpTls { .. }));
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(std::fs::read(cert("ca.pem")).unwrap()),
        };
        let address = address.set_redis_settings(info(protocol));
        let library = Library::build_with_tls(address, certificates).unwrap();
        let mut connection = library.get_connection().unwrap();
        exercise(&mut connection);
        subscribe(&mut connection, &mut library.get_connection().unwrap());
    }
}

#[test]
fn the_library_does_not_notice_that_the_uplink_is_replaced() {
    let tls = |files: &[&str]| files.iter().map(|file| cert(file)).collect::<Vec<_>>();
    let files = tls(&["server.pem", "server.key", "ca.pem"]);
    let start = || {
        Redis::start(&[
            "--tls-port",
            "6380",
            "--tls-cert-file",
            &files[0],
            "--tls-key-file",
            &files[1],
            "--tls-ca-cert-file",
            &files[2],
            "--tls-auth-clients",
            "no",
        ])
    };
    let servers = [start(), start()];
    let to = |redis: &Redis, tls: bool| {
        let uplink = match tls {
            true => json!({
                "addr": redis.addr().replace(":6379", ":6380"), "tls": true,
                "cacertfile": files[2], "servername": "localhost",
            }),
            false => json!({ "addr": redis.addr() }),
        };
        config(
            "",
            json!({ "uplink": uplink, "listen": { "addr": "127.0.0.1:0", "pass": "secret" } }),
        )
    };
    let proxy = Proxy::start(&to(&servers[0], false));
    let mut connections = [ProtocolVersion::RESP2, ProtocolVersion::RESP3].map(|protocol| {
        let address = format!("redis://{}/3", proxy.addr()).into_connection_info().unwrap();
        let address = address.set_redis_settings(info(protocol).set_db(3));
        Library::open(address).unwrap().get_connection().unwrap()
    });
    for reload in 1..=4 {
        for connection in &mut connections {
            exercise(connection);
        }
        proxy.reload(&to(&servers[reload % 2], reload % 4 < 2)).expect_ok();
    }
    let mut direct = servers[0].client();
    direct.ask(&["SELECT", "3"]);
    assert_eq!(direct.ask(&["EXISTS", "k", "h"]), ":2", "in the database that was chosen");
    assert_eq!(servers[1].client().ask(&["DBSIZE"]), ":0");
}

/// So many sessions are moved before a program that uses a library may end.
const ENOUGH_MOVED: u64 = 20;

/// A proxy whose uplink is one server by two addresses: at each reload all is handed over.
struct Moving {
    redis: Redis,
    proxy: Proxy,
}

impl Moving {
    fn new() -> Moving {
        let redis = redis();
        let proxy = Proxy::start(&config(&redis.addr(), json!({})));
        Moving { redis, proxy }
    }

    fn port(&self) -> u16 {
        self.proxy.addr().rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Reloads until clients are done, and says when that may be.
    fn until(&self, mut done: impl FnMut() -> bool, enough: impl FnOnce()) {
        let (mut reloads, mut moved, mut enough) = (0, 0, Some(enough));
        while !done() {
            reloads += 1;
            let mut config = config(&self.redis.addr(), json!({}));
            if reloads % 2 == 1 {
                config["uplink"] = json!({ "addr": self.redis.socket(), "network": "unix" });
            }
            self.proxy.reload(&config).expect_ok();
            moved += self.proxy.info()["reloads"][0]["sessions_moved"].as_u64().unwrap();
            if moved > ENOUGH_MOVED
                && let Some(enough) = enough.take()
            {
                enough();
            }
        }
    }

    /// Runs a program that uses a library, through reloads.
    fn runs(&self, program: &str, script: &str) {
        let file = format!("{}/tests/libraries/{script}", env!("CARGO_MANIFEST_DIR"));
        let mut child = std::process::Command::new(program)
            .args([&file, &self.port().to_string(), "400"])
            .env("NODE_PATH", "/usr/share/nodejs")
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap_or_else(|why| {
                panic!(
                    "{program} does not start ({why}); \
                     `apt-get install python3-redis node-redis` gets what is missing"
                )
            });
        let (mut status, stdin) = (None, child.stdin.take());
        let done = || {
            status = child.try_wait().unwrap();
            status.is_some()
        };
        self.until(done, || drop(stdin));
        let said = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert!(status.unwrap().success(), "{said}");
    }
}

#[test]
fn redis_py_works_through_reloads() {
    // Debian's, which finds Debian's python3-redis.
    Moving::new().runs("/usr/bin/python3", "redis_py.py");
}

#[test]
fn node_redis_works_through_reloads() {
    Moving::new().runs("node", "node_redis.js");
}

#[test]
fn the_rust_library_works_through_reloads() {
    const COUNT: i64 = 300;
    const END: i64 = -1;
    let moving = Moving::new();
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let connect = || {
            let info = RedisConnectionInfo::default().set_protocol(protocol);
            let addr = ConnectionAddr::Tcp("127.0.0.1".to_owned(), moving.port());
            let info = addr.into_connection_info().unwrap().set_redis_settings(info);
            Library::open(info).unwrap().get_connection().unwrap()
        };
        let () = connect().del(&["sum", "queue"]).unwrap();
        let (mut listening, mut publisher) = (connect(), connect());
        let (over, raised) = (AtomicBool::new(false), AtomicI64::new(0));
        let goes_on = |done: i64| done < COUNT || !over.load(Ordering::Relaxed);
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..2 {
                threads.push(scope.spawn(|| {
                    let mut connection = connect();
                    let mut done = 0;
                    while goes_on(done) {
                        done += 1;
                        let _: i64 =
                            redis::transaction(&mut connection, &["sum"], |connection, pipe| {
                                let sum: Option<i64> = connection.get("sum")?;
                                pipe.incr("sum", 1)
                                    .query(connection)
                                    .map(|it: Option<(i64,)>| it.map(|(it,)| it))
                                    .inspect(|it| {
                                        assert!(it.is_none_or(|it| it == sum.unwrap_or(0) + 1));
                                    })
                            })
                            .unwrap();
                    }
                    raised.fetch_add(done, Ordering::Relaxed);
                }));
            }
            threads.push(scope.spawn(|| {
                let mut connection = connect();
                for number in 0.. {
                    let (_, popped): (String, i64) = connection.blpop("queue", 0.0).unwrap();
                    if popped == END {
                        break;
                    }
                    assert_eq!(popped, number);
                }
            }));
            let mut subscriber = listening.as_pubsub();
            subscriber.subscribe("news").unwrap();
            threads.push(scope.spawn(move || {
                for number in 0.. {
                    let heard: i64 = subscriber.get_message().unwrap().get_payload().unwrap();
                    if heard == END {
                        break;
                    }
                    assert_eq!(heard, number);
                }
            }));
            threads.push(scope.spawn(move || {
                for number in (0..).take_while(|number| goes_on(*number)).chain([END]) {
                    let () = publisher.rpush("queue", number).unwrap();
                    let () = publisher.publish("news", number).unwrap();
                }
            }));
            let _over = TellsToEnd(&over);
            let done = || threads.iter().all(|thread| thread.is_finished());
            moving.until(done, || over.store(true, Ordering::Relaxed));
        });
        assert_eq!(connect().get::<_, i64>("sum").unwrap(), raised.into_inner());
    }
}
