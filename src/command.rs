//! Which commands the proxy must know, and why. One table; all others are [`Class::Plain`].

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
    /// May wait for long; under `blocking_time_limit_ms`.
    Blocking,
    /// Blocking if it has a BLOCK option.
    Read,
    /// Answered by one confirmation for each argument.
    Subscribe(Channel),
    /// Answered by one confirmation for each argument, or for each subscription.
    Unsubscribe(Channel),
    /// Makes the uplink send lines that answer nothing.
    Monitor,
    /// CLIENT, of which REPLY changes what is answered.
    Client,
    /// Speaks another protocol afterwards; refused on this listener.
    Replication,
    /// The first line or a header of an HTTP request, which a web page may have made a browser
    /// send here. Redis closes as well.
    Http,
}

/// What one can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    (b"auth", Class::Auth),
    (b"blmove", Class::Blocking),
    (b"blmpop", Class::Blocking),
    (b"blpop", Class::Blocking),
    (b"brpop", Class::Blocking),
    (b"brpoplpush", Class::Blocking),
    (b"bzmpop", Class::Blocking),
    (b"bzpopmax", Class::Blocking),
    (b"bzpopmin", Class::Blocking),
    (b"client", Class::Client),
    (b"config", Class::Secret),
    (b"discard", Class::Discard),
    (b"exec", Class::Exec),
    (b"hello", Class::Hello),
    (b"host:", Class::Http),
    (b"migrate", Class::Secret),
    (b"monitor", Class::Monitor),
    (b"multi", Class::Multi),
    (b"post", Class::Http),
    (b"psubscribe", Class::Subscribe(Channel::Pattern)),
    (b"psync", Class::Replication),
    (b"punsubscribe", Class::Unsubscribe(Channel::Pattern)),
    (b"quit", Class::Quit),
    (b"replconf", Class::Replication),
    (b"reset", Class::Reset),
    (b"select", Class::Select),
    (b"sentinel", Class::Secret),
    (b"ssubscribe", Class::Subscribe(Channel::Shard)),
    (b"subscribe", Class::Subscribe(Channel::Name)),
    (b"sunsubscribe", Class::Unsubscribe(Channel::Shard)),
    (b"sync", Class::Replication),
    (b"unsubscribe", Class::Unsubscribe(Channel::Name)),
    (b"unwatch", Class::Unwatch),
    (b"wait", Class::Blocking),
    (b"waitaof", Class::Blocking),
    (b"watch", Class::Watch),
    (b"xread", Class::Read),
    (b"xreadgroup", Class::Read),
];

/// For each first letter, the lengths that names in the table have: most commands end here.
const LENGTHS: [u32; 26] = {
    let mut lengths = [0; 26];
    let mut at = 0;
    while at < TABLE.len() {
        let name = TABLE[at].0;
        lengths[(name[0] - b'a') as usize] |= 1 << name.len();
        at += 1;
    }
    lengths
};

/// `name` is in lower case and shorter than 32 bytes.
#[inline]
pub fn class(name: &[u8]) -> Class {
    let Some(letter) = name.first().and_then(|b| b.checked_sub(b'a')) else { return Class::Plain };
    match LENGTHS.get(usize::from(letter)) {
        Some(lengths) if lengths >> name.len() & 1 == 1 => in_table(name),
        _ => Class::Plain,
    }
}

fn in_table(name: &[u8]) -> Class {
    TABLE.iter().find(|(known, _)| *known == name).map_or(Class::Plain, |(_, class)| *class)
}

/// Whether an XREAD or XREADGROUP, given whole, may wait.
pub fn blocks<'a>(args: impl Iterator<Item = &'a [u8]>) -> bool {
    args.take_while(|arg| !arg.eq_ignore_ascii_case(b"STREAMS"))
        .any(|arg| arg.eq_ignore_ascii_case(b"BLOCK"))
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
    fn other_names_are_plain() {
        for name in ["", "get", "set", "ping", "auths", "aut", "AUTH", "\u{7f}", "{", "0auth"] {
            assert_eq!(class(name.as_bytes()), Class::Plain, "{name}");
        }
    }

    #[test]
    fn xread_waits_only_with_block_before_streams() {
        let blocks = |line: &str| blocks(line.split(' ').map(str::as_bytes));
        assert!(blocks("XREAD COUNT 1 block 0 STREAMS s $"));
        assert!(blocks("XREADGROUP GROUP g c BLOCK 5 STREAMS s >"));
        assert!(!blocks("XREAD COUNT 1 STREAMS block 0"));
    }
}
