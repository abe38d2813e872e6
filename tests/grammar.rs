//! Arguments are read as the server reads them: this asks a redis-server about each.

use std::time::{Duration, Instant};

use redis_proxy::command::grammar::Read;
use redis_proxy::command::words;
use serde_json::json;

use crate::common::{Client, Proxy, config, eventually, redis};

/// Times in milliseconds that are not waited for here: those that long are longer than any test.
const LONG: u64 = 300_000;
/// The longest that is waited for.
const SHORT: u64 = 300;

/// What may be taken for a time in seconds.
const SECONDS: &[&str] = &[
    "0",
    "0x400",
    "0X.8p-8",
    "0x",
    "0x1p",
    "0x1p-7",
    "1e-1",
    "1e-2",
    "1E-2",
    "1e",
    "1e+",
    ".01",
    "900.",
    ".",
    "+0.01",
    "-0",
    "-0.0001",
    "-0.001",
    "-1",
    "-1e-400",
    "1e-400",
    "1e-4940",
    "1e-5000",
    "0e-99999",
    "0e99999",
    "1e99999",
    "inf",
    "-inf",
    "infinity",
    "nan",
    "nan(1)",
    " 0.01",
    "0.01 ",
    "",
    "0900",
    "00.01",
    "0.01\0",
    "1_0",
    "0.0001",
    "\t1",
    "0.01f",
    "0b1",
    "9221572036854775",
    "9223372036854776",
    "1e-2000000000000000000000",
    "--1",
    "0.05",
    "5e-2",
    "0x.1p-1",
];

/// What may be taken for a time in milliseconds.
const MILLISECONDS: &[&str] = &[
    "0",
    "7",
    "07",
    "+7",
    "-0",
    "-1",
    " 7",
    "7 ",
    "7.0",
    "0x7",
    "",
    "9221572036854775807",
    "9223372036854775808",
    "1e1",
    "7\0",
    "50",
];

/// What a server made of a request: how long it waited, at least, or that it waited until it was
/// told not to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Refused,
    Waited(Duration),
    WaitsLong,
}

fn told(client: &mut Client, args: &[&str]) -> String {
    client.command(args).reply()
}

/// Sends all requests at once, each on a connection of its own, and interrupts those that go on.
fn verdicts(connect: impl Fn() -> Client, requests: &[Vec<&str>], known: &[Option<u64>]) {
    let waiting: Vec<(Client, String, Instant)> = requests
        .iter()
        .map(|args| {
            let mut client = connect();
            let id = client.run("CLIENT ID");
            let since = Instant::now();
            client.command(args);
            (client, id, since)
        })
        .collect();
    let mut other = connect();
    for (((mut client, id, since), args), known) in waiting.into_iter().zip(requests).zip(known) {
        let ours = match known {
            None => Verdict::Refused,
            Some(0 | LONG..) => Verdict::WaitsLong,
            Some(millis @ ..=SHORT) => Verdict::Waited(Duration::from_millis(*millis)),
            Some(millis) => panic!("{args:?}: {millis} ms may be over before it is interrupted"),
        };
        if ours == Verdict::WaitsLong {
            eventually(&format!("{args:?} waits"), || {
                told(&mut other, &["CLIENT", "UNBLOCK", &id]) == "1"
            });
        }
        let reply = client.line();
        let theirs = match &reply[..] {
            // The server's clock may be a tick behind.
            "*-1" => match ours {
                Verdict::Waited(time) if since.elapsed() + Duration::from_millis(2) < time => {
                    Verdict::Waited(since.elapsed())
                }
                _ => Verdict::Waited(Duration::ZERO),
            },
            error if error.starts_with("-ERR") => Verdict::Refused,
            other => panic!("{args:?}: {other}"),
        };
        let same = match (&ours, &theirs) {
            (Verdict::Refused, Verdict::Refused) => true,
            (Verdict::Waited(_) | Verdict::WaitsLong, Verdict::Waited(time)) => time.is_zero(),
            _ => false,
        };
        assert!(same, "{args:?}: {ours:?} here, and there {theirs:?}: {reply}");
    }
}

#[test]
fn times_are_read_as_the_server_reads_them() {
    let redis = redis();
    let requests: Vec<_> = SECONDS.iter().map(|time| vec!["BLPOP", "k", time]).collect();
    let known: Vec<_> = SECONDS.iter().map(|time| words::seconds(time.as_bytes())).collect();
    verdicts(|| redis.client(), &requests, &known);
    let requests: Vec<_> =
        MILLISECONDS.iter().map(|time| vec!["XREAD", "BLOCK", time, "STREAMS", "s", "$"]).collect();
    let read = |time: &&str| u64::try_from(words::integer(time.as_bytes())?).ok();
    let known: Vec<_> = MILLISECONDS.iter().map(read).collect();
    verdicts(|| redis.client(), &requests, &known);
}

/// Reads of streams, right and wrong ones, with names that are spelt like options.
const READS: &[&str] = &[
    "XREAD STREAMS s 0",
    "XREAD COUNT 1 block 20 STREAMS s $",
    "XREAD BLOCK 9000 BLOCK 20 COUNT 3 streams a b 0 $",
    "XREAD COUNT 1 STREAMS block 0",
    "XREAD BLOCK 20 STREAMS streams block $ $",
    "XREADGROUP GROUP block 100000 BLOCK 20 STREAMS g >",
    "XREADGROUP GROUP streams streams STREAMS g >",
    "XREADGROUP BLOCK 20 GROUP streams block STREAMS g >",
    "XREADGROUP NOACK GROUP block count COUNT 1 NOACK BLOCK 20 STREAMS g >",
    "XREADGROUP GROUP nobody nobody GROUP block c STREAMS g >",
    "XREADGROUP GROUP block c STREAMS g g > >",
    "XREAD",
    "XREAD BLOCK",
    "XREAD BLOCK 0",
    "XREAD BLOCK 0 STREAMS",
    "XREAD STREAMS",
    "XREAD STREAMS s",
    "XREAD STREAMS a b 0",
    "XREAD NOACK STREAMS s 0",
    "XREAD GROUP block c STREAMS g 0",
    "XREAD LATER 1 STREAMS s 0",
    "XREADGROUP GROUP STREAMS s >",
    "XREADGROUP COUNT 1 STREAMS GROUP block g 0",
];

#[test]
fn words_of_a_read_are_found_where_the_server_finds_them() {
    let redis = redis();
    let mut client = redis.client();
    for group in ["block", "streams"] {
        assert_eq!(told(&mut client, &["XGROUP", "CREATE", "g", group, "$", "MKSTREAM"]), "OK");
    }
    for line in READS {
        let args: Vec<&str> = line.split(' ').collect();
        let bytes: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        let reply = told(&mut client, &args);
        let Some(read) = Read::new(&bytes) else {
            assert!(reply.contains("ERR"), "{line}: {reply}");
            continue;
        };
        // What waits is told that there was nothing, and so is what need not.
        assert!(!reply.contains("ERR"), "{line}: {reply}");
        let keys = format!("[{}]", args[read.streams].join(", "));
        // The server's own table of keys takes GROUP to come first, which the command itself does not.
        if args.get(1).is_some_and(|first| args[0] == "XREAD" || *first == "GROUP") {
            let found = told(&mut client, &[&["COMMAND", "GETKEYS"], &args[..]].concat());
            assert_eq!(found, keys, "{line}");
        }
    }
}

#[test]
fn a_word_of_c_ends_at_its_first_nul() {
    let redis = redis();
    let args = ["XREAD", "block\0x", "20", "STREAMS\0", "s", "$\0y"];
    assert_eq!(redis.client().command(&args).line(), "*-1");
    let bytes: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    assert_eq!(Read::new(&bytes).map(|read| (read.block, read.streams)), Some((Some(2), 4..5)));
}

#[test]
fn a_group_and_a_consumer_may_be_called_like_an_option() {
    let (one, two) = (redis(), redis());
    for server in [&one, &two] {
        for group in ["block", "streams"] {
            let made =
                told(&mut server.client(), &["XGROUP", "CREATE", "s", group, "$", "MKSTREAM"]);
            assert_eq!(made, "OK");
        }
    }
    let proxy = Proxy::to(&one.addr());
    let lines = [
        ("block", "100000", "XREADGROUP GROUP block 100000 BLOCK 0 STREAMS s >"),
        ("streams", "streams", "XREADGROUP GROUP streams streams BLOCK 600000 STREAMS s >"),
    ];
    let mut clients: Vec<Client> = lines
        .iter()
        .map(|(_, _, line)| {
            let mut client = proxy.client();
            client.command(&line.split(' ').collect::<Vec<_>>());
            client
        })
        .collect();
    let waits = |number| one.client().run("INFO clients").contains(number);
    eventually("both wait", || waits("blocked_clients:2"));
    assert_eq!(proxy.reload(&config(&two.addr(), json!({}))).status, 200);
    assert_eq!(two.client().run("XADD s 7-1 f v"), "7-1");
    for (client, (group, consumer, _)) in clients.iter_mut().zip(lines) {
        assert_eq!(client.reply(), "[[s, [[7-1, [f, v]]]]]");
        let consumers = told(&mut two.client(), &["XINFO", "CONSUMERS", "s", group]);
        assert!(consumers.contains(&format!("name, {consumer}")), "{consumers}");
    }
}

#[test]
fn a_time_in_hexadecimal_is_carried() {
    let (one, two) = (redis(), redis());
    let proxy = Proxy::to(&one.addr());
    let mut client = proxy.client();
    client.command(&["BLPOP", "k", "0x1000"]);
    eventually("it waits", || one.client().run("INFO clients").contains("blocked_clients:1"));
    assert_eq!(proxy.reload(&config(&two.addr(), json!({}))).status, 200);
    assert_eq!(two.client().run("RPUSH k v"), "1");
    assert_eq!(client.reply(), "[k, v]");
}
