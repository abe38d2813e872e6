//! A scripted admin API: it plays a switch, look by look.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::Value;

use super::PATIENCE;
use super::acceptor::Acceptor;

/// What becomes of a command.
pub enum Post {
    /// An answer, once the state has been looked at so often.
    Answer(usize, u16, Value),
    /// The connection is closed then, without an answer.
    Break(usize),
}

/// Somebody who answers as the admin API would, until it is dropped.
pub struct FakeApi {
    pub addr: String,
    _acceptor: Acceptor,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    heard: Mutex<Heard>,
    more: Condvar,
}

#[derive(Default, Clone)]
struct Heard {
    looks: usize,
    forms: Vec<String>,
    /// The `Authorization` of each request.
    logins: Vec<Option<String>>,
}

impl FakeApi {
    /// Each look at the state finds the next of `states`, and the last of them for ever.
    pub fn start(states: Vec<Value>, post: Post) -> FakeApi {
        let (seen, script) = (Arc::<Seen>::default(), Arc::new((states, post)));
        let acceptor = Acceptor::start({
            let seen = seen.clone();
            move |stream, streams| {
                let (seen, script, stream) = (seen.clone(), script.clone(), Arc::new(stream));
                streams.watch(&stream);
                std::thread::spawn(move || seen.serve(&stream, &script.0, &script.1));
            }
        });
        FakeApi { addr: acceptor.addr.clone(), _acceptor: acceptor, seen }
    }

    /// The forms of all commands so far.
    pub fn forms(&self) -> Vec<String> {
        self.seen.heard.lock().unwrap().forms.clone()
    }

    /// The header with the password of the last request.
    pub fn login(&self) -> Option<String> {
        self.seen.heard.lock().unwrap().logins.last().unwrap().clone()
    }

    /// Waits until there was a command, and so many looks at the state.
    pub fn heard(&self, looks: usize) {
        let heard = self.seen.wait(|heard| heard.looks >= looks && !heard.forms.is_empty());
        assert!(heard, "nobody asked");
    }
}

impl Seen {
    fn wait(&self, until: impl Fn(&Heard) -> bool) -> bool {
        let heard = self.heard.lock().unwrap();
        let waited = self.more.wait_timeout_while(heard, PATIENCE, |heard| !until(heard)).unwrap();
        !waited.1.timed_out()
    }

    fn note(&self, change: impl FnOnce(&mut Heard)) -> Heard {
        let mut heard = self.heard.lock().unwrap();
        change(&mut heard);
        self.more.notify_all();
        heard.clone()
    }

    fn serve(&self, mut stream: &TcpStream, states: &[Value], post: &Post) {
        let mut reader = BufReader::new(stream);
        while let Some((line, login, form)) = request(&mut reader) {
            self.note(|heard| heard.logins.push(login));
            let (status, body) = if line.starts_with("GET /info.json ") {
                let looks = self.note(|heard| heard.looks += 1).looks;
                (200, states[(looks - 1).min(states.len() - 1)].clone())
            } else if line.starts_with("GET /readyz ") {
                (200, Value::Null)
            } else {
                assert_eq!(line, "POST /cmd/ HTTP/1.1");
                self.note(|heard| heard.forms.push(form));
                let (Post::Answer(looks, ..) | Post::Break(looks)) = post;
                self.wait(|heard| heard.looks >= *looks);
                match post {
                    Post::Answer(_, status, body) => (*status, body.clone()),
                    Post::Break(_) => return,
                }
            };
            let body = body.to_string();
            let length = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
            if stream.write_all((head + &body).as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Request line, `Authorization` and body; `None` at the end.
fn request(reader: &mut BufReader<&TcpStream>) -> Option<(String, Option<String>, String)> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let (mut login, mut length) = (None, 0);
    loop {
        let header = line()?;
        match header.to_ascii_lowercase().split_once(": ") {
            None => break,
            Some(("authorization", _)) => login = header.split_once(": ").map(|it| it.1.to_owned()),
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, login, String::from_utf8(body).unwrap()))
}
