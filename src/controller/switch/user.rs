//! What a server's user may do, and what another server's user may not of that. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::glob::covers;

/// How deep a reply that describes a user may be nested.
const DEPTH: u8 = 4;

/// What the servers' lists call everything that there is.
pub(super) const EVERYTHING: [&str; 2] = ["fast", "slow"];
/// What the servers' lists call the commands that only read keys.
const READ: &str = "read";
/// The commands that need a right to channels, and no keys.
const OF_CHANNELS: [&str; 5] = ["publish", "psubscribe", "spublish", "ssubscribe", "subscribe"];

/// A user as `ACL GETUSER` describes it: rules, of which any one suffices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description(Vec<Rules>);

/// Rules as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    commands: String,
    keys: Vec<Keys>,
    channels: Vec<String>,
}

/// Keys that may be read, written, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keys {
    pattern: String,
    read: bool,
    write: bool,
}

/// A server's commands, by their categories.
pub(super) type Categories = BTreeMap<String, BTreeSet<String>>;

/// What is known of a server's user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Account {
    /// The server told the user's rights.
    Told(User),
    /// The server is too old to limit anybody.
    Unlimited,
    /// The server does not tell.
    #[default]
    Untold,
}

/// A user, with its commands by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    grants: Vec<Grant>,
    /// The commands that only read keys.
    readers: BTreeSet<String>,
    /// Every command that the server has, but for those that are nothing but the name of others.
    known: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    commands: BTreeSet<String>,
    keys: Vec<Keys>,
    channels: Vec<String>,
}

/// What one user may do, and another one may not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lacks {
    pub(super) commands: BTreeSet<String>,
    pub(super) keys: BTreeSet<String>,
    pub(super) channels: BTreeSet<String>,
}

/// A reply of the kinds that describe a user.
#[derive(Debug, PartialEq, Eq)]
enum AclReply {
    Text(String),
    List(Vec<AclReply>),
}

impl AclReply {
    fn read(bytes: &mut &[u8], depth: u8) -> Option<AclReply> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let (line, rest) = (std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 2..]);
        *bytes = rest;
        let (kind, value) = line.split_at_checked(1)?;
        match kind {
            "+" | ":" => Some(AclReply::Text(value.to_owned())),
            "$" => {
                let Ok(len) = value.parse::<usize>() else {
                    return Some(AclReply::List(Vec::new()));
                };
                let text = String::from_utf8_lossy(rest.get(..len)?).into_owned();
                *bytes = rest.get(len + 2..)?;
                Some(AclReply::Text(text))
            }
            "*" | "~" => {
                // One that is nothing has no positive length.
                let len = value.parse::<usize>().unwrap_or(0);
                let depth = depth.checked_sub(1)?;
                (0..len)
                    .map(|_| AclReply::read(bytes, depth))
                    .collect::<Option<_>>()
                    .map(AclReply::List)
            }
            _ => None,
        }
    }

    /// A value by its name in a list that has names and values by turns.
    fn field(&self, name: &str) -> Option<&AclReply> {
        let AclReply::List(list) = self else { return None };
        let (pairs, _) = list.as_chunks::<2>();
        pairs.iter().find(|[it, _]| *it == AclReply::Text(name.to_owned())).map(|[_, value]| value)
    }

    /// Patterns, each behind its sign, which a list does without.
    fn patterns(&self, sign: &str) -> Vec<String> {
        match self {
            AclReply::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
            AclReply::List(list) => list
                .iter()
                .filter_map(|it| match it {
                    AclReply::Text(pattern) => Some(format!("{sign}{pattern}")),
                    AclReply::List(_) => None,
                })
                .collect(),
        }
    }
}

impl Keys {
    fn read(rule: &str) -> Option<Keys> {
        if rule == "allkeys" {
            return Keys::read("~*");
        }
        let (rights, pattern) = rule.split_once('~')?;
        let all = rights.is_empty();
        let may = |right| all || rights.contains(right);
        Some(Keys { pattern: pattern.to_owned(), read: may('R'), write: may('W') })
    }

    /// Adds keys as a server does: rights to the same pattern are rights together.
    fn add(mut all: Vec<Keys>, keys: Keys) -> Vec<Keys> {
        match all.iter_mut().find(|it| it.pattern == keys.pattern) {
            Some(same) => {
                (same.read, same.write) = (same.read || keys.read, same.write || keys.write)
            }
            None => all.push(keys),
        }
        all
    }

    /// The keys written as a rule.
    fn rule(&self) -> String {
        let rights = match (self.read, self.write) {
            (true, true) | (false, false) => "",
            (true, false) => "%R",
            (false, true) => "%W",
        };
        format!("{rights}~{}", self.pattern)
    }
}

impl Description {
    /// Reads the reply to `ACL GETUSER`; `None` if there is no such user.
    pub(super) fn read(mut reply: &[u8]) -> Option<Description> {
        let reply = AclReply::read(&mut reply, DEPTH)?;
        let mut rules = vec![Rules::read(&reply)?];
        if let Some(AclReply::List(selectors)) = reply.field("selectors") {
            rules.extend(selectors.iter().filter_map(Rules::read));
        }
        Some(Description(rules))
    }

    /// The categories that must be known to [`expand`](Description::expand) it.
    pub(super) fn categories(&self) -> BTreeSet<String> {
        let rules = self.0.iter().flat_map(|rules| rules.commands.split_whitespace());
        let named = rules.filter_map(|rule| rule.get(1..)?.strip_prefix('@'));
        let named = named.filter(|name| *name != "all");
        named.chain(EVERYTHING).chain([READ]).map(str::to_owned).collect()
    }

    /// The user, with each command by its name.
    pub(super) fn expand(&self, categories: &Categories) -> User {
        let all: BTreeSet<String> =
            EVERYTHING.iter().filter_map(|name| categories.get(*name)).flatten().cloned().collect();
        let containers: BTreeSet<&str> =
            all.iter().filter_map(|name| Some(name.split_once('|')?.0)).collect();
        let is_own = |name: &String| !containers.contains(name.as_str());
        let known = all.iter().filter(|name| is_own(name)).cloned().collect();
        let grants = self.0.iter().map(|rules| {
            let mut commands = BTreeSet::new();
            for rule in rules.commands.split_whitespace() {
                apply(rule, &all, categories, &mut commands);
            }
            commands.retain(is_own);
            Grant { commands, keys: rules.keys.clone(), channels: rules.channels.clone() }
        });
        let readers = categories.get(READ).cloned().unwrap_or_default();
        User { grants: grants.collect(), readers, known }
    }
}

/// Adds or takes away what a rule says.
fn apply(
    rule: &str,
    all: &BTreeSet<String>,
    categories: &Categories,
    commands: &mut BTreeSet<String>,
) {
    let rule = rule.to_ascii_lowercase();
    let Some((sign, name)) = rule.split_at_checked(1) else { return };
    let named: BTreeSet<String> = match name.strip_prefix('@') {
        Some("all") => all.clone(),
        Some(category) => categories.get(category).cloned().unwrap_or_default(),
        None => {
            let sub = format!("{name}|");
            let subs = all.iter().filter(|it| it.starts_with(&sub)).cloned();
            subs.chain([name.to_owned()]).collect()
        }
    };
    match sign {
        "+" => commands.extend(named),
        "-" => commands.retain(|it| !named.contains(it)),
        _ => {}
    }
}

impl Rules {
    fn read(reply: &AclReply) -> Option<Rules> {
        let AclReply::Text(commands) = reply.field("commands")? else { return None };
        let keys = reply.field("keys").map(|keys| keys.patterns("~")).unwrap_or_default();
        // Before version 6.2, everybody may use every channel.
        let channels = reply.field("channels").map(|channels| channels.patterns("&"));
        let channels = channels.unwrap_or_else(|| vec!["&*".to_owned()]);
        let channel = |rule: &String| rule.strip_prefix('&').map(str::to_owned);
        Some(Rules {
            commands: commands.clone(),
            keys: keys.iter().filter_map(|rule| Keys::read(rule)).fold(Vec::new(), Keys::add),
            channels: channels.iter().filter_map(channel).collect(),
        })
    }
}

impl User {
    /// A user who may do everything that this user's server has.
    pub(super) fn unlimited(&self) -> User {
        let grant = Grant {
            commands: self.known.clone(),
            keys: Keys::read("~*").into_iter().collect(),
            channels: vec!["*".to_owned()],
        };
        User { grants: vec![grant], readers: self.readers.clone(), known: self.known.clone() }
    }

    /// What this user may do, and another server's user may not.
    pub(super) fn lacks(&self, other: &User) -> Lacks {
        let mut lacks = Lacks::default();
        for grant in &self.grants {
            for keys in grant.keys.iter().filter(|keys| !other.may_use(keys)) {
                lacks.keys.insert(keys.rule());
            }
            let channels = || other.grants.iter().flat_map(|grant| &grant.channels);
            for channel in &grant.channels {
                if !channels().any(|wide| covers(wide, channel)) {
                    lacks.channels.insert(format!("&{channel}"));
                }
            }
            // What nobody may use was told already.
            let keys: Vec<_> = grant.keys.iter().filter(|keys| other.may_use(keys)).collect();
            let is_known = |channel: &&String| channels().any(|wide| covers(wide, channel));
            let known: Vec<_> = grant.channels.iter().filter(is_known).collect();
            // A command is of use with the keys, or the channels, that the same rules allow.
            let allowed = |name: &str| {
                let of_channels = OF_CHANNELS.contains(&name);
                let reads = self.readers.contains(name);
                other.grants.iter().filter(|it| it.commands.contains(name)).any(|it| {
                    if of_channels {
                        let may = |channel: &&String| {
                            it.channels.iter().any(|wide| covers(wide, channel))
                        };
                        known.iter().all(may)
                    } else {
                        keys.iter().all(|keys| it.may_use(keys, reads))
                    }
                })
            };
            for command in &grant.commands {
                lacks.commands.extend(other.refuses(command, allowed));
            }
        }
        lacks
    }

    fn may_use(&self, keys: &Keys) -> bool {
        let may = |right: fn(&Keys) -> bool| {
            let all = self.grants.iter().flat_map(|grant| &grant.keys).filter(|it| right(it));
            !right(keys) || all.into_iter().any(|wide| covers(&wide.pattern, &keys.pattern))
        };
        may(|keys| keys.read) && may(|keys| keys.write)
    }

    /// The command, or its subcommands, as far as the server has them and they are not allowed.
    fn refuses(&self, command: &str, allowed: impl Fn(&str) -> bool) -> Vec<String> {
        let part = format!("{command}|");
        let parts = self.known.iter().filter(|name| name.starts_with(&part) || *name == command);
        let mut refused: Vec<_> = parts.filter(|name| !allowed(name)).cloned().collect();
        // A server before version 7 has no parts.
        if let Some((whole, _)) = command.split_once('|')
            && self.known.contains(whole)
            && !allowed(whole)
            && !allowed(command)
        {
            refused.push(command.to_owned());
        }
        refused
    }
}

impl Lacks {
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.keys.is_empty() && self.channels.is_empty()
    }
}

impl Grant {
    /// Whether a command may use these keys, as far as it needs to if it only reads them.
    fn may_use(&self, keys: &Keys, only_reads: bool) -> bool {
        self.keys.iter().any(|wide| {
            (wide.read || !keys.read)
                && (wide.write || !keys.write || only_reads)
                && covers(&wide.pattern, &keys.pattern)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As version 7 describes it, selectors without channels.
    fn user(commands: &str, keys: &str, channels: &str, selectors: &[(&str, &str)]) -> User {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let rules = |commands: &str, keys: &str, channels: &str| {
            [("commands", commands), ("keys", keys), ("channels", channels)]
                .map(|(name, value)| bulk(name) + &bulk(value))
                .concat()
        };
        let own = rules(commands, keys, channels);
        let selected =
            selectors.iter().map(|(commands, keys)| format!("*6\r\n{}", rules(commands, keys, "")));
        let reply = format!(
            "*12\r\n$5\r\nflags\r\n*1\r\n+on\r\n$9\r\npasswords\r\n*0\r\n{own}$9\r\nselectors\r\n*{}\r\n{}",
            selectors.len(),
            selected.collect::<String>(),
        );
        let description = Description::read(reply.as_bytes()).expect("a user");
        description.expand(&categories())
    }

    fn categories() -> Categories {
        let list = |names: &str| names.split(' ').map(str::to_owned).collect();
        [
            ("fast", "get set publish"),
            ("slow", "keys config config|get config|set"),
            ("read", "get keys"),
            ("dangerous", "keys config config|get config|set"),
        ]
        .map(|(name, names)| (name.to_owned(), list(names)))
        .into()
    }

    fn lacking(old: &User, new: &User) -> [String; 3] {
        let Lacks { commands, keys, channels } = old.lacks(new);
        [commands, keys, channels].map(|set| set.into_iter().collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_the_new_one_may_not_do_is_found_by_commands_keys_and_channels() {
        let all = user("+@all", "~*", "&*", &[]);
        for (new, wanted) in [
            (user("+@all", "~*", "&*", &[]), ["", "", ""]),
            (user("+@all", "~other:*", "&*", &[]), ["", "~*", ""]),
            (user("+@all", "%R~*", "&*", &[]), ["", "~*", ""]),
            (user("+@all", "%R~* %W~*", "&*", &[]), ["", "", ""]),
            (user("+@all", "~*", "", &[]), ["", "", "&*"]),
            (user("+@all -config|set", "~*", "&*", &[]), ["config|set", "", ""]),
            (user("+@all -@dangerous +keys", "~*", "&*", &[]), ["config|get config|set", "", ""]),
            (user("-@all +@read +set +config +publish", "~*", "&*", &[]), ["", "", ""]),
            (user("-@all +@read", "~*", "&*", &[("+@all -@read", "~*")]), ["publish", "", ""]),
            (user("-@all +@read +publish", "~*", "&*", &[("+@all -@read", "~*")]), ["", "", ""]),
            // Each right is there, but not together with the others.
            (user("", "", "&*", &[("+@all", "~*")]), ["publish", "", ""]),
            (
                user("+@all", "%R~*", "&*", &[("+@all", "%W~*")]),
                ["config|get config|set set", "", ""],
            ),
            (user("+@all", "%R~*", "&*", &[("+@all", "~*")]), ["", "", ""]),
            // What is allowed with some keys only does not count.
            (
                user("-@all +@read", "~*", "&*", &[("+@all", "~a")]),
                ["config|get config|set publish set", "", ""],
            ),
        ] {
            assert_eq!(lacking(&all, &new), wanted, "{new:?}");
        }
        // Nobody lacks what the other one may not.
        let few = user("-@all +get", "~app:*", "&app:*", &[]);
        assert_eq!(lacking(&few, &all), ["", "", ""]);
        assert_eq!(lacking(&few, &user("+get", "~a*", "&app:?*", &[])), ["", "", "&app:*"]);
        let two = user("+get", "~app:*", "", &[("+set", "%W~log:*")]);
        assert_eq!(lacking(&two, &few), ["set", "%W~log:*", ""]);
    }

    #[test]
    fn users_of_older_servers_are_understood() {
        // Version 6.0: patterns in lists, no channels, no parts of commands.
        let reply = "*8\r\n$5\r\nflags\r\n*2\r\n+on\r\n+allkeys\r\n$9\r\npasswords\r\n*0\r\n\
                     $8\r\ncommands\r\n$13\r\n+@all -config\r\n$4\r\nkeys\r\n*1\r\n$1\r\n*\r\n";
        let six: Categories = [("fast", "get set"), ("slow", "config")]
            .map(|(name, it)| (name.to_owned(), it.split(' ').map(str::to_owned).collect()))
            .into();
        let old = Description::read(reply.as_bytes()).expect("a user");
        let seven = user("+@all", "~*", "&*", &[]);
        assert_eq!(lacking(&old.expand(&six), &seven), ["", "", ""]);
        assert_eq!(lacking(&seven, &old.expand(&six)), ["config|get config|set", "", ""]);
        let some = user("+@all -config|set", "~*", "&*", &[]);
        assert_eq!(lacking(&seven.unlimited(), &some), ["config|set", "", ""]);
        assert_eq!(Description::read(b"*-1\r\n"), None);
        assert_eq!(Description::read(b"$-1\r\n"), None);
    }
}
