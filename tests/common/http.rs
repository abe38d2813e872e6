//! A caller of the admin API that says exactly what it sends.

use serde_json::Value;

use super::Client;

/// What the API answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads one answer; the connection may go on.
    pub fn read(client: &mut Client) -> Answer {
        Answer::read_for("GET", client)
    }

    fn read_for(method: &str, client: &mut Client) -> Answer {
        let mut head = String::new();
        loop {
            let line = client.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            head += &line;
            head.push('\n');
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: String::new() };
        let length = match method {
            "HEAD" => 0,
            _ => answer.header("content-length").map_or(0, |length| length.parse().unwrap()),
        };
        answer.body = String::from_utf8(client.take(length)).unwrap();
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.body))
    }

    /// The error of a refused command.
    pub fn error(&self) -> String {
        let json = self.json();
        assert_eq!(json["ok"], false, "{json}");
        json["error"].as_str().unwrap().to_owned()
    }

    pub fn expect_ok(&self) {
        assert_eq!((self.status, self.body.as_str()), (200, "{\"ok\": true}"));
    }
}

/// Sends a request, with these header lines, and reads the answer.
pub fn http(client: &mut Client, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    send(client, method, path, headers, body);
    Answer::read_for(method, client)
}

/// Sends a request and does not wait.
pub fn send(client: &mut Client, method: &str, path: &str, headers: &str, body: &str) {
    let length = match body {
        "" => String::new(),
        _ => format!(
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n",
            body.len()
        ),
    };
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n{body}"
    ));
}
