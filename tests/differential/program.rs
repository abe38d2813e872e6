//! What a program is, and how it is printed.

use std::fmt;

use crate::common::request;

/// Which of a program's two connections sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Main,
    /// The second connection: it writes, publishes, and is redirected to.
    Peer,
}

/// What is sent: words, or bytes as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Words(Vec<String>),
    Raw(String),
}

impl Request {
    pub fn of(line: &str) -> Request {
        Request::Words(line.split(' ').map(str::to_owned).collect())
    }

    /// The bytes, with the ids that this run's connections have.
    pub fn bytes(&self, ids: &Ids) -> Vec<u8> {
        match self {
            Request::Raw(text) => text.clone().into_bytes(),
            Request::Words(words) => {
                let words: Vec<String> = words.iter().map(|word| ids.insert(word)).collect();
                request(&words.iter().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }
}

/// What CLIENT ID said to a run's connections; `None` if it was not asked, or answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ids {
    pub main: Option<u64>,
    pub peer: Option<u64>,
}

impl Ids {
    fn insert(&self, word: &str) -> String {
        let text = |id: Option<u64>| id.unwrap_or_default().to_string();
        match word {
            "$main" => text(self.main),
            "$peer" => text(self.peer),
            _ => word.to_owned(),
        }
    }
}

/// What is sent in one write (or two), before anything of it is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub by: Who,
    pub requests: Vec<Request>,
    /// The write is cut in two here, in parts of a thousand.
    pub cut: Option<usize>,
}

impl Step {
    pub fn of(by: Who, lines: &[&str]) -> Step {
        let requests = lines.iter().map(|line| Request::of(line)).collect();
        Step { by, requests, cut: None }
    }

    pub fn bytes(&self, ids: &Ids) -> Vec<u8> {
        self.requests.iter().flat_map(|request| request.bytes(ids)).collect()
    }
}

/// Who the program is to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// The default user, who may do everything.
    Plain,
    /// The default user, under these rules.
    Restricted(Vec<String>),
    /// `uplink.user`, under these rules.
    User(Vec<String>),
    /// Clients have to AUTH, at the proxy as at the server.
    Password,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub mode: Mode,
    /// Whether a reload comes before each step.
    pub reloads: bool,
    /// Whether the first request is CLIENT ID. Without it, the first step is the very first that
    /// the proxy hears of this client.
    pub asks_id: bool,
    pub steps: Vec<Step>,
}

impl Program {
    /// For one of the reasons below, the two may differ here.
    pub fn may_differ_at(&self, step: &Step) -> bool {
        self.may_hide_a_refusal()
            || self.may_lose_a_redirection()
            || self.may_skip_nothing()
            || self.may_choose_in_vain()
            || self.may_race()
            || self.may_lack_a_mark()
            || (self.reloads && step.asks_for_a_script())
    }

    /// What the proxy refuses, and the server does not, is refused without a word where replies are off.
    fn may_hide_a_refusal(&self) -> bool {
        let has = |names: &[&str]| {
            let mut requests = self.steps.iter().flat_map(|step| &step.requests);
            requests.any(|request| {
                let text = request.to_string().to_ascii_uppercase();
                names.iter().any(|name| text.contains(name))
            })
        };
        let refused = ["HELLO", "AUTH", "CLIENT REPLY"];
        has(&["CLIENT REPLY"]) && (has(&["SYNC", "REPLCONF"]) || (has(&["MULTI"]) && has(&refused)))
    }

    /// A handover ends a redirection to a connection that is gone, which the server keeps.
    fn may_lose_a_redirection(&self) -> bool {
        let text = self.to_string().to_ascii_uppercase();
        self.reloads && text.contains("REDIRECT") && text.contains("CLIENT KILL ID $PEER")
    }

    /// Where the server does not tell how many databases it has, a transaction that chooses one in vain is not
    /// carried.
    fn may_choose_in_vain(&self) -> bool {
        let is_told = matches!(self.mode, Mode::Plain | Mode::Password);
        self.reloads && !is_told && self.to_string().to_ascii_uppercase().contains("SELECT 99")
    }

    /// Without replies, nobody knows whether a command has waited long enough before another client's request.
    fn may_race(&self) -> bool {
        let text = self.to_string().to_ascii_uppercase();
        text.contains("CLIENT REPLY")
            && [" 0.01", "BLOCK 10 "].iter().any(|time| text.contains(time))
    }

    /// Without a channel of the proxy's own, a PING tells what the old uplink has said.
    fn may_lack_a_mark(&self) -> bool {
        match &self.mode {
            Mode::Restricted(rules) | Mode::User(rules) => {
                self.reloads && rules.iter().any(|rule| rule == "-ping")
            }
            Mode::Plain | Mode::Password => false,
        }
    }

    /// Whether a request of nothing is the next one after CLIENT REPLY SKIP depends on the version.
    fn may_skip_nothing(&self) -> bool {
        let is_nothing = |request: &Request| match request {
            Request::Raw(text) => text.trim().is_empty() || text.starts_with("*0"),
            Request::Words(_) => false,
        };
        let mut requests = self.steps.iter().flat_map(|step| &step.requests);
        let skips = self.to_string().to_ascii_uppercase().contains("CLIENT REPLY SKIP");
        skips && requests.any(is_nothing)
    }

    /// The steps, and what shows the state that they left.
    pub fn whole(&self) -> Vec<Step> {
        let mut steps = self.steps.clone();
        let state =
            ["CLIENT INFO", "CLIENT TRACKINGINFO", "CLIENT GETNAME", "GET marker", "PING state"];
        let main = |lines: &[&str]| Step::of(Who::Main, lines);
        steps.push(main(&state));
        steps.push(main(&["EXEC"]));
        steps.push(main(&["CLIENT REPLY ON", "ECHO replies"]));
        let unsubscribes = ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"];
        steps.push(main(&[&unsubscribes, &state[..], &["SET marker here"]].concat()));
        let dbs = ["SELECT 0", "SELECT 1", "SELECT 2", "SELECT 5"];
        let look: Vec<&str> = dbs.iter().flat_map(|db| [*db, "GET marker", "DBSIZE"]).collect();
        steps.push(Step::of(Who::Peer, &look));
        if !matches!(self.mode, Mode::User(_)) {
            // In its place, the server has another user than the proxy's.
            steps.push(main(&["RESET"]));
        }
        if self.mode == Mode::Password {
            steps.push(main(&["PING", "AUTH secret"]));
        }
        steps.push(main(&[&state[..], &["ECHO the-end"]].concat()));
        steps
    }
}

impl fmt::Display for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Raw(text) => write!(out, "raw {text:?}"),
            Request::Words(words) => {
                let plain = |word: &String| {
                    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"'|".contains(c);
                    !word.is_empty() && !word.contains(odd)
                };
                let show = |word: &String| {
                    if plain(word) { word.clone() } else { format!("{word:?}") }
                };
                let words: Vec<String> = words.iter().map(show).collect();
                out.write_str(&words.join(" "))
            }
        }
    }
}

impl Step {
    /// After a handover, a script is known that was sent, but refused or never executed.
    fn asks_for_a_script(&self) -> bool {
        let text = self.to_string().to_ascii_uppercase();
        text.contains("SCRIPT EXISTS") || text.contains("EVALSHA")
    }

    /// The client has its own connection closed.
    pub fn kills_itself(&self) -> bool {
        self.to_string().to_ascii_uppercase().contains("CLIENT KILL ID $MAIN")
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.by {
            Who::Main => "",
            Who::Peer => "(peer) ",
        };
        let requests: Vec<String> = self.requests.iter().map(Request::to_string).collect();
        let cut = if self.cut.is_some() { " (in two writes)" } else { "" };
        write!(out, "{who}{}{cut}", requests.join(" | "))
    }
}

impl fmt::Display for Program {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reloads = if self.reloads { "a reload before each step" } else { "no reloads" };
        let id = if self.asks_id { "CLIENT ID first" } else { "no request before" };
        write!(out, "{:?}, {reloads}, {id}:", self.mode)?;
        for step in &self.steps {
            write!(out, "\n    {step}")?;
        }
        Ok(())
    }
}
