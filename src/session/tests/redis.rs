//! A model of Redis: two servers with the same data, as a master and its replica are in the pause of a
//! handover. It answers one request when it is told to, and delivers as many bytes as it is told to.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::clock;
use crate::resp::{Args, encode};
use crate::transport::memory::End;

type Key = (u32, Vec<u8>);
type Request = Vec<Vec<u8>>;

/// What both servers have.
#[derive(Default)]
pub struct Data {
    values: HashMap<Key, Vec<u8>>,
    lists: HashMap<Key, VecDeque<Vec<u8>>>,
    /// How often a key was changed.
    changes: HashMap<Key, u64>,
}

impl Data {
    fn touch(&mut self, key: Key) {
        *self.changes.entry(key).or_default() += 1;
    }

    fn changes(&self, key: &Key) -> u64 {
        self.changes.get(key).copied().unwrap_or_default()
    }

    pub fn list(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let lists = self.lists.iter().filter(|((_, key), _)| key == name);
        lists.flat_map(|(_, list)| list.iter().cloned()).collect()
    }
}

struct Blocked {
    key: Key,
    until: Option<std::time::Instant>,
}

#[derive(Default)]
struct Conn {
    end: Option<End>,
    input: Vec<u8>,
    output: VecDeque<u8>,
    db: u32,
    name: Vec<u8>,
    resp3: bool,
    queue: Option<Vec<Request>>,
    /// A request of the transaction was refused.
    aborted: bool,
    watched: Vec<(Key, u64)>,
    blocked: Option<Blocked>,
    channels: BTreeSet<Vec<u8>>,
    shards: BTreeSet<Vec<u8>>,
}

/// One server.
#[derive(Default)]
pub struct Server {
    conns: BTreeMap<u64, Conn>,
    last_id: u64,
}

/// The two servers.
#[derive(Default)]
pub struct World {
    pub data: Data,
    pub servers: [Server; 2],
    /// What has happened, to be read after a fault.
    pub events: Vec<String>,
}

impl Server {
    pub fn accept(&mut self, end: End) -> u64 {
        self.last_id += 1;
        self.conns.insert(self.last_id, Conn { end: Some(end), ..Conn::default() });
        self.last_id
    }

    pub fn ids(&self) -> Vec<u64> {
        self.conns.keys().copied().collect()
    }
}

impl World {
    /// Reads what has come on a connection, and executes one request. False if there was nothing to do.
    pub fn execute(&mut self, at: usize, id: u64) -> bool {
        let Some(conn) = self.servers[at].conns.get_mut(&id) else { return false };
        let Some(bytes) = conn.end.as_ref().and_then(End::read) else {
            self.servers[at].conns.remove(&id);
            return true;
        };
        let read = !bytes.is_empty();
        conn.input.extend(bytes);
        if conn.blocked.is_some() {
            return read;
        }
        let Some(len) = frame(&conn.input) else { return read };
        let bytes: Vec<u8> = conn.input.drain(..len).collect();
        let request: Request = Args::new(&bytes).map(<[u8]>::to_vec).collect();
        let reply = self.request(at, id, &request);
        let words: Vec<_> = request.iter().map(|word| String::from_utf8_lossy(word)).collect();
        self.events.push(format!("{at}/{id}: {} -> {}", words.join(" "), reply.escape_ascii()));
        self.say(at, id, &reply);
        true
    }

    /// Delivers up to so many bytes of what a connection has to say. False if there was nothing.
    pub fn deliver(&mut self, at: usize, id: u64, most: usize) -> bool {
        let Some(conn) = self.servers[at].conns.get_mut(&id) else { return false };
        let bytes: Vec<u8> = conn.output.iter().take(most).copied().collect();
        let written = conn.end.as_ref().map_or(Ok(0), |end| end.write(&bytes)).unwrap_or(0);
        conn.output.drain(..written);
        written > 0
    }

    /// Answers commands whose time is over. False if there are none.
    pub fn expire(&mut self) -> bool {
        let now = clock::now();
        let mut expired = false;
        for server in &mut self.servers {
            for conn in server.conns.values_mut() {
                let until = conn.blocked.as_ref().and_then(|blocked| blocked.until);
                if until.is_some_and(|until| until <= now) {
                    conn.blocked = None;
                    conn.output.extend(null(conn.resp3));
                    expired = true;
                }
            }
        }
        expired
    }

    /// Somebody else pushes to a list in database 0.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let key = (0, name.to_vec());
        self.data.lists.entry(key.clone()).or_default().push_back(value.to_vec());
        self.data.touch(key.clone());
        self.serve_blocked(&key);
    }

    fn serve_blocked(&mut self, key: &Key) {
        for server in &mut self.servers {
            for conn in server.conns.values_mut() {
                if conn.blocked.as_ref().is_some_and(|blocked| blocked.key == *key)
                    && let Some(value) = self.data.lists.get_mut(key).and_then(VecDeque::pop_front)
                {
                    conn.blocked = None;
                    conn.output.extend(encode::request([&key.1[..], &value]));
                }
            }
        }
    }

    /// Somebody else publishes: subscribers of both servers hear it.
    pub fn publish(&mut self, channel: &[u8], payload: &[u8]) {
        self.send(channel, payload, b"message", |conn| &conn.channels);
    }

    /// The proxy publishes the mark.
    pub fn publish_frame(&mut self, request: &[u8]) {
        let request: Request = Args::new(request).map(<[u8]>::to_vec).collect();
        self.send(&request[1], &request[2], b"smessage", |conn| &conn.shards);
    }

    fn send(
        &mut self,
        channel: &[u8],
        payload: &[u8],
        kind: &[u8],
        of: fn(&Conn) -> &BTreeSet<Vec<u8>>,
    ) {
        let (name, text) = (String::from_utf8_lossy(channel), String::from_utf8_lossy(payload));
        self.events.push(format!("{text} is published to {name}"));
        for conn in self.servers.iter_mut().flat_map(|server| server.conns.values_mut()) {
            if of(conn).contains(channel) {
                let frame = push(conn.resp3, &[kind, channel, payload], None);
                conn.output.extend(frame);
            }
        }
    }

    /// Whether no key was touched that a connection watches.
    pub fn is_untouched(&self, at: usize, id: u64) -> bool {
        let conn = self.servers[at].conns.get(&id);
        let same = |(key, changes): &(Key, u64)| self.data.changes(key) == *changes;
        conn.is_some_and(|conn| conn.watched.iter().all(same))
    }

    /// CLIENT UNBLOCK, with an error. False if the connection did not wait.
    pub fn unblock(&mut self, at: usize, id: u64) -> bool {
        let Some(conn) = self.servers[at].conns.get_mut(&id) else { return false };
        if conn.blocked.take().is_none() {
            return false;
        }
        conn.output.extend(b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
        true
    }

    fn say(&mut self, at: usize, id: u64, bytes: &[u8]) {
        if let Some(conn) = self.servers[at].conns.get_mut(&id) {
            conn.output.extend(bytes);
        }
    }

    /// Executes a request of a connection that nobody holds, and gives the reply; for what is expected.
    pub fn answer(&mut self, at: usize, id: u64, request: &Request) -> Vec<u8> {
        let reply = self.request(at, id, request);
        let said: Vec<u8> = self.servers[at]
            .conns
            .get_mut(&id)
            .map(|conn| conn.output.drain(..).collect())
            .unwrap_or_default();
        [said, reply].concat()
    }

    fn request(&mut self, at: usize, id: u64, request: &Request) -> Vec<u8> {
        let Some(conn) = self.servers[at].conns.get_mut(&id) else { return Vec::new() };
        let name = request[0].to_ascii_uppercase();
        match (&name[..], &mut conn.queue) {
            (b"MULTI", Some(_)) => return error("ERR MULTI calls can not be nested"),
            (b"WATCH", Some(_)) => return error("ERR WATCH inside MULTI is not allowed"),
            (b"AUTH", _) => {
                conn.aborted = conn.queue.is_some();
                return error("ERR wrong number of arguments for 'auth' command");
            }
            (b"MULTI", None) => {
                (conn.queue, conn.aborted) = (Some(Vec::new()), false);
                return ok();
            }
            (b"DISCARD", None) => return error("ERR DISCARD without MULTI"),
            (b"EXEC", None) => return error("ERR EXEC without MULTI"),
            (b"DISCARD", Some(_)) => {
                (conn.queue, conn.watched) = (None, Vec::new());
                return ok();
            }
            (b"EXEC", Some(queue)) => {
                let queue = std::mem::take(queue);
                conn.queue = None;
                let watched = std::mem::take(&mut conn.watched);
                if conn.aborted {
                    return error("EXECABORT Transaction discarded because of previous errors.");
                }
                if watched.iter().any(|(key, changes)| self.data.changes(key) != *changes) {
                    return null(conn.resp3);
                }
                let mut reply = format!("*{}\r\n", queue.len()).into_bytes();
                for request in queue {
                    reply.extend(self.command(at, id, &request));
                }
                return reply;
            }
            (_, Some(queue)) => {
                queue.push(request.clone());
                return b"+QUEUED\r\n".to_vec();
            }
            _ => {}
        }
        let is_subscribed = !conn.channels.is_empty() || !conn.shards.is_empty();
        let is_deaf = is_subscribed && !conn.resp3;
        if is_deaf && !name.ends_with(b"SUBSCRIBE") && name != b"PING" {
            return error("ERR Can't execute this: only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING");
        }
        self.command(at, id, request)
    }

    fn command(&mut self, at: usize, id: u64, request: &Request) -> Vec<u8> {
        let Some(conn) = self.servers[at].conns.get_mut(&id) else { return Vec::new() };
        let data = &mut self.data;
        let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        let upper = |word: &[u8]| word.to_ascii_uppercase();
        let key = |name: &[u8], db: u32| (db, name.to_vec());
        match (&upper(words[0])[..], &words[1..]) {
            (b"PING", _) if conn.channels.is_empty() || conn.resp3 => b"+PONG\r\n".to_vec(),
            (b"PING", _) => b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec(),
            (b"ECHO", [text]) => bulk(text),
            (b"SELECT", [db]) => {
                conn.db = String::from_utf8_lossy(db).parse().expect("a number");
                ok()
            }
            (b"HELLO", [version]) => {
                conn.resp3 = *version == b"3";
                let head: &[u8] = if conn.resp3 { b"%1\r\n" } else { b"*2\r\n" };
                [head, &bulk(b"proto"), format!(":{}\r\n", conn.resp3 as u8 + 2).as_bytes()]
                    .concat()
            }
            (b"CLIENT", [sub]) if upper(sub) == b"ID" => number(id as i64),
            (b"CLIENT", [sub, name]) if upper(sub) == b"SETNAME" => {
                conn.name = name.to_vec();
                ok()
            }
            (b"CLIENT", [sub]) if upper(sub) == b"GETNAME" => bulk(&conn.name),
            (b"SET", [name, value]) => {
                let key = key(name, conn.db);
                data.values.insert(key.clone(), value.to_vec());
                data.touch(key);
                ok()
            }
            (b"GET", [name]) => match data.values.get(&key(name, conn.db)) {
                Some(value) => bulk(value),
                None if conn.resp3 => b"_\r\n".to_vec(),
                None => b"$-1\r\n".to_vec(),
            },
            (b"INCR", [name]) => {
                let key = key(name, conn.db);
                let value = data.values.entry(key.clone()).or_insert_with(|| b"0".to_vec());
                let next: i64 = String::from_utf8_lossy(value).parse().unwrap_or(0) + 1;
                *value = next.to_string().into_bytes();
                data.touch(key);
                number(next)
            }
            (b"WATCH", names) => {
                for name in names {
                    let key = key(name, conn.db);
                    let changes = data.changes(&key);
                    conn.watched.push((key, changes));
                }
                ok()
            }
            (b"UNWATCH", _) => {
                conn.watched = Vec::new();
                ok()
            }
            (b"BLPOP", [name, timeout]) => {
                let key = key(name, conn.db);
                if let Some(value) = data.lists.get_mut(&key).and_then(VecDeque::pop_front) {
                    return encode::request([name, &value[..]]);
                }
                let seconds: f64 = String::from_utf8_lossy(timeout).parse().expect("a number");
                let until =
                    (seconds > 0.0).then(|| clock::now() + Duration::from_secs_f64(seconds));
                conn.blocked = Some(Blocked { key, until });
                Vec::new()
            }
            (b"SUBSCRIBE", [name]) => {
                conn.channels.insert(name.to_vec());
                push(conn.resp3, &[b"subscribe", name], Some(conn.channels.len()))
            }
            (b"UNSUBSCRIBE", [name]) => {
                conn.channels.remove(*name);
                push(conn.resp3, &[b"unsubscribe", name], Some(conn.channels.len()))
            }
            (b"SSUBSCRIBE", [name]) => {
                conn.shards.insert(name.to_vec());
                push(conn.resp3, &[b"ssubscribe", name], Some(conn.shards.len()))
            }
            (b"SUNSUBSCRIBE", [name]) => {
                conn.shards.remove(*name);
                push(conn.resp3, &[b"sunsubscribe", name], Some(conn.shards.len()))
            }
            (name, _) => error(&format!("ERR unknown command '{}'", String::from_utf8_lossy(name))),
        }
    }
}

/// How long the first request is; `None` if it is not complete.
fn frame(bytes: &[u8]) -> Option<usize> {
    let line = |from: usize| {
        let end = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        let number: usize = String::from_utf8_lossy(&bytes[from + 1..end - 1]).parse().ok()?;
        Some((number, end + 1))
    };
    let (count, mut pos) = line(0)?;
    for _ in 0..count {
        let (len, next) = line(pos)?;
        pos = next + len + 2;
    }
    (pos <= bytes.len()).then_some(pos)
}

fn ok() -> Vec<u8> {
    b"+OK\r\n".to_vec()
}

fn error(text: &str) -> Vec<u8> {
    encode::error(text)
}

fn number(number: i64) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn null(resp3: bool) -> Vec<u8> {
    if resp3 { b"_\r\n".to_vec() } else { b"*-1\r\n".to_vec() }
}

fn bulk(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

fn push(resp3: bool, texts: &[&[u8]], count: Option<usize>) -> Vec<u8> {
    let kind = if resp3 { '>' } else { '*' };
    let len = texts.len() + usize::from(count.is_some());
    let mut frame = format!("{kind}{len}\r\n").into_bytes();
    texts.iter().for_each(|text| frame.extend(bulk(text)));
    frame.extend(count.map(|count| number(count as i64)).unwrap_or_default());
    frame
}
