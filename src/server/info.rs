//! What a server says: INFO, CLIENT LIST, and answers of one text or one setting. Pure.

use std::collections::BTreeSet;

use crate::resp::Args;

/// The flag in CLIENT LIST of a client whose next EXEC fails, for a key that it watches was touched.
pub const DIRTY: u8 = b'd';

/// An answer that is one text.
pub fn text(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let text = match text.strip_prefix('$').and_then(|bulk| bulk.split_once("\r\n")) {
        Some((_, text)) => text,
        None => text.strip_prefix('+').unwrap_or(&text),
    };
    text.trim_end().to_owned()
}

/// An answer that is a setting's name and its value.
pub fn value(answer: &[u8]) -> Option<String> {
    Args::new(answer).nth(1).map(|value| String::from_utf8_lossy(value).into_owned())
}

/// What INFO says: `name:value`, a line each.
#[derive(Debug, Clone, Default)]
pub struct Info(Vec<(String, String)>);

impl Info {
    /// Reads one reply to INFO, or several.
    pub fn read(reply: &[u8]) -> Self {
        let text = String::from_utf8_lossy(reply);
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Info(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of a field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Each database that has keys, and how many.
    pub fn databases(&self) -> impl Iterator<Item = (u32, u64)> {
        self.0.iter().filter_map(|(name, value)| {
            let keys = value.strip_prefix("keys=")?.split(',').next()?;
            Some((name.strip_prefix("db")?.parse().ok()?, keys.parse().ok()?))
        })
    }

    /// How many commands the server refused that its master, or its log, had executed: its data differ
    /// from theirs. Not every server counts them.
    pub fn refused(&self) -> Option<u64> {
        self.number("unexpected_error_replies")
    }

    /// How often each command was called, in the section of that name.
    pub fn calls(&self) -> impl Iterator<Item = (String, u64)> {
        self.0.iter().filter_map(|(name, value)| {
            let calls = value.strip_prefix("calls=")?.split(',').next()?.parse().ok()?;
            // A subcommand is the command, too.
            let name = name.strip_prefix("cmdstat_")?.split('|').next()?;
            Some((name.to_ascii_lowercase(), calls))
        })
    }

    /// Commands that were called, in the section that counts them, by their full names.
    pub fn called(&self) -> impl Iterator<Item = String> {
        let counted = self.0.iter().filter(|(_, value)| !value.starts_with("calls=0,"));
        counted.filter_map(|(name, _)| Some(name.strip_prefix("cmdstat_")?.to_ascii_lowercase()))
    }

    /// Names of loaded modules.
    pub fn modules(&self) -> BTreeSet<&str> {
        let loaded = self.0.iter().filter(|(name, _)| name == "module");
        loaded.filter_map(|(_, value)| value.strip_prefix("name=")?.split(',').next()).collect()
    }
}

/// A client, as a line of CLIENT LIST describes it: `name=value`, parted by blanks.
#[derive(Debug, Clone, Copy)]
pub struct ListedClient<'a>(&'a str);

/// The clients in an answer to CLIENT LIST.
pub fn clients(list: &str) -> impl Iterator<Item = ListedClient<'_>> {
    // In RESP3, the text may begin with its format.
    list.lines().map(|line| ListedClient(line.strip_prefix("txt:").unwrap_or(line)))
}

impl<'a> ListedClient<'a> {
    /// A field.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.0.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    }

    /// A field that is a number.
    pub fn number(self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// The client's next EXEC need not fail.
    pub fn is_clean(self) -> bool {
        self.text("flags").is_some_and(|flags| !flags.as_bytes().contains(&DIRTY))
    }
}

/// A place in a stream of writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Names the stream: a master's and its replicas' is the same.
    pub id: String,
    /// How many bytes were written to it.
    pub offset: u64,
}

/// What a server says of replication.
#[derive(Debug, Clone)]
pub struct Replication {
    /// The server takes writes of its own.
    pub is_master: bool,
    /// As a master: what the server has written.
    pub history: History,
    /// The history before the server was promoted, and its end; `None` if it was not promoted.
    pub earlier: Option<History>,
    /// As a replica: what the server has applied, not only received.
    pub applied: u64,
    /// As a replica: the server is connected to its master, and synchronised.
    pub is_up: bool,
    /// As a replica: its master's host and port.
    pub master: Option<(String, u16)>,
    /// As a replica: it gets all data of its master.
    pub is_syncing: bool,
    /// As a replica: its clients may write, which its master never learns.
    pub takes_writes: bool,
    /// Bytes of the first synchronisation that have come.
    pub read_bytes: u64,
    /// Bytes of the first synchronisation, all in all, where that is known.
    pub total_bytes: Option<u64>,
    /// The server's own replicas, by the addresses that it knows.
    pub replicas: Vec<(String, u16)>,
}

impl Replication {
    /// Reads INFO's section of that name.
    pub fn of(info: &Info) -> Self {
        let number = |name| info.number(name).unwrap_or(0);
        let id = |name| info.text(name).unwrap_or_default().to_owned();
        // It says -1 where there is none.
        let earlier = info.number("second_repl_offset");
        let host = info.text("master_host").map(str::to_owned);
        let port = info.number("master_port").and_then(|port| u16::try_from(port).ok());
        Replication {
            is_master: info.text("role") == Some("master"),
            history: History { id: id("master_replid"), offset: number("master_repl_offset") },
            earlier: earlier
                .map(|end| History { id: id("master_replid2"), offset: end.saturating_sub(1) }),
            applied: number("slave_repl_offset"),
            is_up: info.text("master_link_status") == Some("up"),
            master: host.zip(port),
            is_syncing: number("master_sync_in_progress") == 1,
            takes_writes: info.number("slave_read_only") == Some(0),
            read_bytes: number("master_sync_read_bytes"),
            total_bytes: info.number("master_sync_total_bytes").filter(|total| *total > 0),
            replicas: (0..).map_while(|n| replica(info.text(&format!("slave{n}"))?)).collect(),
        }
    }

    /// As a replica: the server receives what is written now.
    pub fn is_synchronised(&self) -> bool {
        self.is_up && !self.is_syncing
    }

    /// Everything that this server has, the other one has, too.
    pub fn is_part_of(&self, other: &Replication) -> bool {
        let ends = |history: &History, at: &History| {
            !history.id.is_empty() && history.id == at.id && history.offset <= at.offset
        };
        let earlier = |of: &Replication| of.earlier.clone();
        // It was promoted, and nothing has been written since.
        let before = earlier(self).filter(|it| it.offset == self.history.offset);
        [Some(self.history.clone()), before].iter().flatten().any(|mine| {
            ends(mine, &other.history) || earlier(other).is_some_and(|its| ends(mine, &its))
        })
    }
}

fn replica(line: &str) -> Option<(String, u16)> {
    let field = |name| line.split(',').find_map(|field| field.strip_prefix(name));
    Some((field("ip=")?.to_owned(), field("port=")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replication(text: &str) -> Replication {
        Replication::of(&Info::read(text.replace(' ', "\r\n").as_bytes()))
    }

    #[test]
    fn fields_of_clients_are_found_by_their_whole_names() {
        let list = "txt:id=12 addr=127.0.0.1:1 fd=8 name=id=7 qbuf=1500 qbuf-free=9 flags=N\r\n\
                    id=13 qbuf=0 flags=xd\r\n";
        let [one, other] = clients(list).collect::<Vec<_>>()[..] else { panic!("two clients") };
        assert_eq!((one.number("id"), one.number("qbuf")), (Some(12), Some(1500)));
        assert_eq!((one.text("free"), one.text("name")), (None, Some("id=7")));
        assert!(one.is_clean() && !other.is_clean());
    }

    #[test]
    fn a_replica_tells_how_far_it_is() {
        let it = replication(
            "$900 role:slave master_host:::1 master_port:6379 master_link_status:down \
             master_sync_in_progress:1 slave_repl_offset:7 master_sync_total_bytes:0 \
             master_sync_read_bytes:5 second_repl_offset:-1 master_replid:abc",
        );
        assert_eq!(it.master, Some(("::1".to_owned(), 6379)));
        assert!(!it.is_master && !it.is_up && it.is_syncing && it.earlier.is_none());
        assert_eq!((it.applied, it.read_bytes, it.total_bytes), (7, 5, None));
    }

    #[test]
    fn a_master_tells_who_follows_it_and_what_it_has() {
        let text = "# Keyspace\r\ndb0:keys=3,expires=0\r\ndb12:keys=4,expires=1\r\n\
                    slave0:ip=10.0.0.1,port=6380,state=online\r\nmodule:name=search,ver=1\r\n";
        let info = Info::read(text.as_bytes());
        assert_eq!(info.databases().collect::<Vec<_>>(), [(0, 3), (12, 4)]);
        assert_eq!(info.modules().into_iter().collect::<Vec<_>>(), ["search"]);
        assert_eq!(Replication::of(&info).replicas, [("10.0.0.1".to_owned(), 6380)]);
    }

    #[test]
    fn a_subcommand_is_counted_as_its_command() {
        let text = "cmdstat_FT.SEARCH:calls=3,usec=1\r\ncmdstat_config|get:calls=2,usec=1\r\n\
                    cmdstat_del:calls=0,usec=0\r\nerrorstat_ERR:count=1\r\n";
        let calls: Vec<_> = Info::read(text.as_bytes()).calls().collect();
        let counted = [("ft.search", 3), ("config", 2), ("del", 0)];
        assert_eq!(calls, counted.map(|(name, calls)| (name.to_owned(), calls)));
        let called: Vec<_> = Info::read(text.as_bytes()).called().collect();
        assert_eq!(called, ["ft.search", "config|get"]);
    }

    #[test]
    fn what_another_server_has_too_is_told_by_their_histories() {
        let server = |id: &str, offset: u64, earlier: &str, end: i64| {
            replication(&format!(
                "role:master master_replid:{id} master_repl_offset:{offset} \
                 master_replid2:{earlier} second_repl_offset:{end}"
            ))
        };
        let present = server("new", 500, "old", 301);
        for (other, is_part) in [
            (server("old", 300, "0", -1), true),
            // Something was written there afterwards.
            (server("old", 301, "0", -1), false),
            (server("new", 500, "0", -1), true),
            (server("unknown", 0, "0", -1), false),
            // A replica of it that was promoted, and was not written to.
            (server("other", 400, "new", 401), true),
            (server("other", 410, "new", 401), false),
        ] {
            assert_eq!(other.is_part_of(&present), is_part, "{other:?}");
        }
    }
}
