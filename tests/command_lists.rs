//! The table of commands against the servers' own lists: those under `tests/commands`, and that of
//! the redis-server that is here.
//!
//! `cargo test --test suite list_of_the_server_here -- --ignored` writes the list of another server,
//! if that is what `redis-server` calls.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use redis::Value;
use redis_proxy::command::{Class, Timeout, class, only_reads};

use crate::common::{Redis, redis};

/// A command, or a subcommand as `container|subcommand`.
#[derive(Debug, Clone)]
struct Listed {
    name: String,
    /// Of its arguments, the name included; the least number, if it is negative.
    arity: i64,
    flags: BTreeSet<String>,
    categories: BTreeSet<String>,
    /// Where its first and its last key are, and how many arguments are between two.
    keys: [i64; 3],
}

impl Listed {
    fn read(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("{line}"));
        let (name, arity) = (word().to_owned(), word().parse().unwrap());
        let keys = [(); 3].map(|()| word().parse().unwrap());
        let mut set = || word().split(',').filter(|it| *it != "-").map(str::to_owned).collect();
        Listed { name, arity, keys, flags: set(), categories: set() }
    }

    fn write(&self, list: &mut String) {
        let set = |set: &BTreeSet<String>| match set.is_empty() {
            true => "-".to_owned(),
            false => set.iter().cloned().collect::<Vec<_>>().join(","),
        };
        let [first, last, step] = self.keys;
        let (flags, categories) = (set(&self.flags), set(&self.categories));
        let (name, arity) = (&self.name, self.arity);
        writeln!(list, "{name} {arity} {first} {last} {step} {flags} {categories}").unwrap();
    }

    fn container(&self) -> &str {
        self.name.split('|').next().unwrap()
    }

    fn class(&self) -> Class {
        class(self.container().as_bytes())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        Value::SimpleString(text) => text.clone(),
        other => panic!("{other:?}"),
    }
}

fn number(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        other => panic!("{other:?}"),
    }
}

fn elements(value: &Value) -> &[Value] {
    match value {
        Value::Array(elements) | Value::Set(elements) => elements,
        other => panic!("{other:?}"),
    }
}

/// What an element of COMMAND's reply says, its subcommands included.
fn read(value: &Value, into: &mut Vec<Listed>) {
    let fields = elements(value);
    let set = |at: usize| elements(&fields[at]).iter().map(text);
    into.push(Listed {
        name: text(&fields[0]),
        arity: number(&fields[1]),
        flags: set(2).collect(),
        keys: [3, 4, 5].map(|at| number(&fields[at])),
        categories: set(6).map(|it| it.trim_start_matches('@').to_owned()).collect(),
    });
    for sub in fields.get(9).map(elements).unwrap_or_default() {
        read(sub, into);
    }
}

fn connection(redis: &Redis) -> redis::Connection {
    redis::Client::open(format!("redis://{}/", redis.addr())).unwrap().get_connection().unwrap()
}

fn list_of(redis: &Redis) -> Vec<Listed> {
    let reply: Value = redis::cmd("COMMAND").query(&mut connection(redis)).unwrap();
    let mut list = Vec::new();
    for value in elements(&reply) {
        read(value, &mut list);
    }
    list.sort_by(|one, other| one.name.cmp(&other.name));
    list
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/commands")
}

/// All lists, each with the server's name.
fn lists() -> Vec<(String, Vec<Listed>)> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut lists: Vec<_> = files
        .map(|path| {
            let list = fs::read_to_string(&path).unwrap().lines().map(Listed::read).collect();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), list)
        })
        .collect();
    assert!(lists.len() >= 3, "a list is missing");
    lists.push(("the server here".to_owned(), list_of(&redis())));
    lists
}

#[test]
#[ignore = "it writes a file"]
fn the_list_of_the_server_here_is_written() {
    let redis = redis();
    let info = redis.client().run("INFO server");
    let value = |name: &str| {
        info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
    };
    let name = match (value("valkey_version"), value("redis_version")) {
        (Some(version), _) => format!("valkey-{version}"),
        (None, version) => format!("redis-{}", version.unwrap()),
    };
    let mut list = String::new();
    list_of(&redis).iter().for_each(|it| it.write(&mut list));
    fs::write(folder().join(format!("{name}.txt")), list).unwrap();
}

#[test]
fn every_command_that_may_wait_is_known_to() {
    for (server, list) in lists() {
        for command in list {
            let waits =
                command.flags.contains("blocking") || command.categories.contains("blocking");
            let is_known =
                matches!(command.class(), Class::Blocking(_) | Class::Read | Class::Wait);
            assert!(!waits || is_known, "{server}: {command:?}");
            // WAIT waits, and Redis before 7.2 does not say so.
            let says = waits || command.name.starts_with("wait");
            assert!(!is_known || says, "{server}: {command:?}");
        }
    }
}

#[test]
fn a_command_only_reads_if_every_server_says_so_and_it_runs_no_script() {
    const SCRIPTS: [&str; 3] = ["eval_ro", "evalsha_ro", "fcall_ro"];
    for (server, list) in lists() {
        for command in list {
            let name = &command.container().to_ascii_lowercase()[..];
            let reads = command.flags.contains("readonly");
            assert!(
                !reads || only_reads(name.as_bytes(), None) || SCRIPTS.contains(&name),
                "{server}: {name}"
            );
            let changes = ["write", "may_replicate", "blocking", "pubsub"];
            let changes = changes.iter().any(|flag| command.flags.contains(*flag));
            // PFCOUNT keeps what it has counted, XREAD waits only with BLOCK, and PUBSUB only tells.
            let is_harmless = ["pfcount", "xread", "pubsub"].contains(&name);
            assert!(
                !changes || is_harmless || !only_reads(name.as_bytes(), None),
                "{server}: {command:?}"
            );
        }
    }
}

/// Commands that may change the connection by their category or flags, and do not, or not so that the
/// proxy had to know.
const PLAIN: &[(&str, &str)] = &[
    ("bgrewriteaof", "the server's files"),
    ("bgsave", "the server's files"),
    ("cluster", "the server's place in a cluster"),
    ("command", "tells"),
    ("commandlog", "the server's log"),
    ("debug", "the server; whoever may use it can do anything to the connection, too"),
    ("echo", "tells"),
    ("evalsha", "runs a script; what a script changes of a connection ends with it"),
    ("evalsha_ro", "as evalsha"),
    ("failover", "the server's part in replication"),
    ("fcall", "as evalsha"),
    ("fcall_ro", "as evalsha"),
    ("function", "the server's functions, which replication and the data's files carry"),
    ("lastsave", "tells"),
    ("latency", "the server's log"),
    ("lolwut", "draws"),
    ("module", "the server's modules"),
    ("pfdebug", "one key"),
    ("pfselftest", "tells"),
    ("ping", "tells"),
    ("publish", "the channel's subscribers"),
    ("pubsub", "tells"),
    ("replicaof", "the server's part in replication"),
    ("role", "tells"),
    ("save", "the server's files"),
    ("shutdown", "the server"),
    ("slaveof", "the server's part in replication"),
    ("slowlog", "the server's log"),
    ("spublish", "the channel's subscribers"),
    ("syncslots", "between servers of a cluster"),
];

/// Categories and flags of commands that may change the connection.
const SUSPICIOUS: &[&str] = &["connection", "pubsub", "transaction", "noscript", "no_multi"];

#[test]
fn every_command_that_may_change_the_connection_is_in_the_table_or_known_not_to() {
    let mut needed = BTreeSet::new();
    for (server, list) in lists() {
        for command in list {
            let said = command.flags.union(&command.categories);
            let mut suspicious = said.filter(|it| SUSPICIOUS.contains(&it.as_str()));
            let plain =
                matches!(command.class(), Class::Plain | Class::CallScript | Class::Publish);
            let Some(why) = suspicious.next().filter(|_| plain) else { continue };
            let name = command.container();
            let known = PLAIN.iter().find(|(plain, _)| *plain == name);
            assert!(known.is_some(), "{server}: {} ({why}) is not known", command.name);
            needed.insert(name.to_owned());
        }
    }
    // Lists of later servers may need the others.
    for (name, _) in PLAIN {
        let class = class(name.as_bytes());
        assert!(
            matches!(class, Class::Plain | Class::CallScript | Class::Publish),
            "{name}: {class:?}"
        );
    }
    assert!(needed.len() > 20, "{needed:?}");
}

#[test]
fn every_subcommand_of_client_is_dealt_with() {
    use redis_proxy::command::{Commands, Listed as Names};
    for (server, list) in lists() {
        let names: Vec<&[u8]> = list.iter().map(|it| it.name.as_bytes()).collect();
        let commands = Commands::default();
        commands.learn(&Names { stateful: names.clone(), blocking: Vec::new() });
        for command in list.iter().filter(|it| it.container() == "client") {
            let Some((_, sub)) = command.name.split_once('|') else { continue };
            assert!(!commands.is_unknown_of_client(sub.as_bytes()), "{server}: {sub}");
        }
    }
}

/// Places of arguments, by the servers' own documentation; a repeated or optional argument ends it.
#[test]
fn times_stand_where_the_servers_documentation_has_them() {
    let redis = redis();
    let mut connection = connection(&redis);
    for command in list_of(&redis) {
        let Class::Blocking(timeout) = command.class() else { continue };
        let docs: Vec<(String, Vec<(String, Value)>)> =
            redis::cmd("COMMAND").arg("DOCS").arg(&command.name).query(&mut connection).unwrap();
        let arguments = docs[0].1.iter().find(|(name, _)| name == "arguments").unwrap();
        let arguments: Vec<Vec<(String, Value)>> =
            redis::from_redis_value(arguments.1.clone()).unwrap();
        let name = |argument: &Vec<(String, Value)>| {
            text(&argument.iter().find(|(field, _)| field == "name").unwrap().1)
        };
        let at = arguments.iter().position(|it| name(it) == "timeout").unwrap();
        match timeout {
            Timeout::At(place) => assert_eq!(at + 1, place, "{}", command.name),
            Timeout::Last => assert_eq!(at + 1, arguments.len(), "{}", command.name),
            Timeout::Block => panic!("{}", command.name),
        }
    }
}

/// Words that may stand among the options of a command, and whether they take something.
fn tokens(arguments: &[Vec<(String, Value)>], into: &mut BTreeSet<String>) {
    for argument in arguments {
        let field = |wanted: &str| argument.iter().find(|(name, _)| name == wanted);
        into.extend(field("token").map(|(_, token)| text(token)));
        if let Some((_, inner)) = field("arguments") {
            tokens(&redis::from_redis_value::<Vec<_>>(inner.clone()).unwrap(), into);
        }
    }
}

#[test]
fn every_option_of_a_read_is_known() {
    let redis = redis();
    let mut connection = connection(&redis);
    for (name, known) in [
        ("xread", &["BLOCK", "COUNT", "STREAMS"][..]),
        ("xreadgroup", &["BLOCK", "CLAIM", "COUNT", "GROUP", "NOACK", "STREAMS"]),
    ] {
        let docs: Vec<(String, Vec<(String, Value)>)> =
            redis::cmd("COMMAND").arg("DOCS").arg(name).query(&mut connection).unwrap();
        let arguments = docs[0].1.iter().find(|(field, _)| field == "arguments").unwrap();
        let mut found = BTreeSet::new();
        tokens(&redis::from_redis_value::<Vec<_>>(arguments.1.clone()).unwrap(), &mut found);
        for token in found {
            assert!(known.contains(&token.as_str()), "{name} {token}");
        }
    }
}
