//! The table of commands that the proxy must know, and what each means to a session.

use super::words;

/// What a command means to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// One reply, no effect on the connection that the proxy must know of.
    Plain,
    /// As `Plain`, but its arguments or reply may hold secrets: kept out of the log.
    Secret,
    /// Answered by the proxy.
    Auth,
    /// Its AUTH part is checked by the proxy, the rest is forwarded.
    Hello,
    /// Chooses the database.
    Select,
    /// Answered by the proxy.
    Quit,
    /// Clears the connection's state, the proxy's own login at the uplink included.
    Reset,
    /// Opens a transaction.
    Multi,
    /// Ends a transaction.
    Exec,
    /// Ends a transaction.
    Discard,
    /// Makes the next transaction depend on keys.
    Watch,
    /// Undoes that.
    Unwatch,
    /// May wait for data; under `blocking_time_limit_ms`. Its timeout is at this place.
    Blocking(Timeout),
    /// Blocking if it has a BLOCK option.
    Read,
    /// May wait, and cannot be interrupted: for replicas or for the disk, where what it waits for are
    /// writes that were made on this very connection; or for something that only the uplink knows.
    /// Under `blocking_time_limit_ms`.
    Wait,
    /// Not in the table; the uplink says that it has to do with the connection, and, with `waits`,
    /// that it may wait.
    Unknown {
        /// As [`Class::Wait`].
        waits: bool,
    },
    /// Answered by one confirmation for each argument.
    Subscribe(Channel),
    /// Answered by one confirmation for each argument, or for each subscription.
    Unsubscribe(Channel),
    /// Publishes to a shard channel, which may not be the proxy's own.
    Publish,
    /// Makes the uplink send lines that answer nothing.
    Monitor,
    /// CLIENT, of whose subcommands many change the connection.
    Client,
    /// The next request may be for a slot that is on its way here.
    Asking,
    /// READONLY, or with false READWRITE: how replicas in a cluster treat this connection.
    Readonly(bool),
    /// Brings a script, which the server remembers.
    Eval,
    /// Calls a script that the server remembers.
    CallScript,
    /// SCRIPT, of which LOAD does the same.
    Script,
    /// HIMPORT, which prepares names of fields for the connection.
    Import,
    /// Speaks another protocol afterwards; refused on this listener.
    Replication,
    /// The first line or a header of an HTTP request, which a web page may have made a browser
    /// send here. Redis closes as well.
    Http,
}

/// Where a blocking command says for how long it may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// The argument at this place, of which the name's is 0; seconds.
    At(usize),
    /// The last argument; seconds.
    Last,
    /// Behind BLOCK; milliseconds.
    Block,
}

/// What one can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// SUBSCRIBE
    Name,
    /// PSUBSCRIBE
    Pattern,
    /// SSUBSCRIBE
    Shard,
}

const TABLE: &[(&[u8], Class)] = &[
    (b"acl", Class::Secret),
    (b"asking", Class::Asking),
    (b"auth", Class::Auth),
    (b"blmove", Class::Blocking(Timeout::At(5))),
    (b"blmovem", Class::Blocking(Timeout::At(5))),
    (b"blmpop", Class::Blocking(Timeout::At(1))),
    (b"blpop", Class::Blocking(Timeout::Last)),
    (b"brpop", Class::Blocking(Timeout::Last)),
    (b"brpoplpush", Class::Blocking(Timeout::At(3))),
    (b"bzmpop", Class::Blocking(Timeout::At(1))),
    (b"bzpopmax", Class::Blocking(Timeout::Last)),
    (b"bzpopmin", Class::Blocking(Timeout::Last)),
    (b"client", Class::Client),
    (b"config", Class::Secret),
    (b"discard", Class::Discard),
    (b"eval", Class::Eval),
    (b"eval_ro", Class::Eval),
    (b"evalsha", Class::CallScript),
    (b"evalsha_ro", Class::CallScript),
    (b"exec", Class::Exec),
    (b"hello", Class::Hello),
    (b"himport", Class::Import),
    (b"host:", Class::Http),
    (b"migrate", Class::Secret),
    (b"monitor", Class::Monitor),
    (b"multi", Class::Multi),
    (b"post", Class::Http),
    (b"psubscribe", Class::Subscribe(Channel::Pattern)),
    (b"psync", Class::Replication),
    (b"punsubscribe", Class::Unsubscribe(Channel::Pattern)),
    (b"quit", Class::Quit),
    (b"readonly", Class::Readonly(true)),
    (b"readwrite", Class::Readonly(false)),
    (b"replconf", Class::Replication),
    (b"reset", Class::Reset),
    (b"script", Class::Script),
    (b"select", Class::Select),
    (b"sentinel", Class::Secret),
    (b"spublish", Class::Publish),
    (b"ssubscribe", Class::Subscribe(Channel::Shard)),
    (b"subscribe", Class::Subscribe(Channel::Name)),
    (b"sunsubscribe", Class::Unsubscribe(Channel::Shard)),
    (b"sync", Class::Replication),
    (b"unsubscribe", Class::Unsubscribe(Channel::Name)),
    (b"unwatch", Class::Unwatch),
    (b"wait", Class::Wait),
    (b"waitaof", Class::Wait),
    (b"watch", Class::Watch),
    (b"xread", Class::Read),
    (b"xreadgroup", Class::Read),
];

/// Commands that only read. Asking them twice is as good as asking once. Scripts and functions are not among
/// them: which of those only read is for the server to know.
const READS: &[&[u8]] = &[
    b"bitcount",
    b"bitfield_ro",
    b"bitpos",
    b"clusterscan",
    b"command",
    b"dbsize",
    b"dump",
    b"echo",
    b"exists",
    b"expiretime",
    b"geodist",
    b"geohash",
    b"geopos",
    b"georadius_ro",
    b"georadiusbymember_ro",
    b"geosearch",
    b"get",
    b"getbit",
    b"getrange",
    b"hexists",
    b"hexpiretime",
    b"hget",
    b"hgetall",
    b"hkeys",
    b"hlen",
    b"hmget",
    b"hpexpiretime",
    b"hpttl",
    b"hrandfield",
    b"hscan",
    b"hstrlen",
    b"httl",
    b"hvals",
    b"info",
    b"keys",
    b"lastsave",
    b"lcs",
    b"lindex",
    b"llen",
    b"lolwut",
    b"lpos",
    b"lrange",
    b"memory",
    b"mget",
    b"object",
    b"pexpiretime",
    b"pfcount",
    b"ping",
    b"pttl",
    b"pubsub",
    b"randomkey",
    b"role",
    b"scan",
    b"scard",
    b"sdiff",
    b"sinter",
    b"sintercard",
    b"sismember",
    b"smembers",
    b"smismember",
    b"sort_ro",
    b"srandmember",
    b"sscan",
    b"strlen",
    b"substr",
    b"sunion",
    b"time",
    b"touch",
    b"ttl",
    b"type",
    b"vcard",
    b"vdim",
    b"vemb",
    b"vgetattr",
    b"vinfo",
    b"vismember",
    b"vlinks",
    b"vrandmember",
    b"vsim",
    b"xinfo",
    b"xlen",
    b"xpending",
    b"xrange",
    b"xread",
    b"xrevrange",
    b"zcard",
    b"zcount",
    b"zdiff",
    b"zinter",
    b"zintercard",
    b"zlexcount",
    b"zmscore",
    b"zrandmember",
    b"zrange",
    b"zrangebylex",
    b"zrangebyscore",
    b"zrank",
    b"zrevrange",
    b"zrevrangebylex",
    b"zrevrangebyscore",
    b"zrevrank",
    b"zscan",
    b"zscore",
    b"zunion",
];

/// Subcommands of CLIENT that only read.
const CLIENT_READS: &[&str] = &["GETNAME", "GETREDIR", "ID", "INFO", "LIST", "TRACKINGINFO"];

/// Whether a command only reads. `name` is in lower case; `sub` is its first argument.
pub fn only_reads(name: &[u8], sub: Option<&[u8]>) -> bool {
    let reads_of_clients =
        || sub.is_some_and(|sub| CLIENT_READS.iter().any(|reads| words::is(sub, reads)));
    READS.binary_search(&name).is_ok() || (name == b"client" && reads_of_clients())
}

/// For each first letter, the lengths that names in the table have: most commands end here.
pub(super) const LENGTHS: [u32; 26] = {
    let mut lengths = [0; 26];
    let mut at = 0;
    while at < TABLE.len() {
        let name = TABLE[at].0;
        lengths[(name[0] - b'a') as usize] |= 1 << name.len();
        at += 1;
    }
    lengths
};

/// For each first letter, where in the table its names begin; after the last, its end.
const BEGINS: [usize; 27] = {
    let mut begins = [TABLE.len(); 27];
    let mut at = TABLE.len();
    while at > 0 {
        at -= 1;
        begins[(TABLE[at].0[0] - b'a') as usize] = at;
    }
    let mut letter = 26;
    while letter > 0 {
        letter -= 1;
        if begins[letter] > begins[letter + 1] {
            begins[letter] = begins[letter + 1];
        }
    }
    begins
};

/// What a command means, by the table alone. `name` is in lower case and shorter than 32 bytes.
#[inline]
pub fn class(name: &[u8]) -> Class {
    if is_among(&LENGTHS, name) { in_table(name) } else { Class::Plain }
}

fn in_table(name: &[u8]) -> Class {
    let letter = usize::from(name[0] - b'a');
    let names = &TABLE[BEGINS[letter]..BEGINS[letter + 1]];
    names.iter().find(|(known, _)| *known == name).map_or(Class::Plain, |(_, class)| *class)
}

/// Whether a name in a table has the first letter and the length of this one.
#[inline]
pub(super) fn is_among(lengths: &[u32; 26], name: &[u8]) -> bool {
    let letter = name.first().and_then(|byte| byte.checked_sub(b'a'));
    let lengths = letter.and_then(|letter| lengths.get(usize::from(letter)));
    lengths.is_some_and(|lengths| lengths >> name.len() & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_table_is_found() {
        for (name, known) in TABLE {
            assert_eq!(class(name), *known);
        }
    }

    #[test]
    fn the_table_is_in_order() {
        // But for what HTTP begins with, which is no word.
        assert!(TABLE.is_sorted_by_key(|(name, _)| name[0]));
        assert_eq!((BEGINS[0], BEGINS[26]), (0, TABLE.len()));
    }

    #[test]
    fn every_command_that_only_reads_is_found() {
        assert!(READS.is_sorted());
        assert!(READS.iter().all(|name| only_reads(name, None)));
        assert!(only_reads(b"client", Some(b"Id")) && !only_reads(b"client", Some(b"KILL")));
        assert!(
            ["set", "GET", "eval_ro", "fcall_ro", "getdel", "xreadgroup", "", "client"]
                .iter()
                .all(|name| !only_reads(name.as_bytes(), Some(b"x")))
        );
    }

    #[test]
    fn other_names_are_plain() {
        for name in ["", "get", "set", "ping", "auths", "aut", "AUTH", "\u{7f}", "{", "0auth"] {
            assert_eq!(class(name.as_bytes()), Class::Plain, "{name}");
        }
    }
}
