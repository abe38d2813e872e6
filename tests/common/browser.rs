//! A headless Chromium, driven by WebDriver.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Answer, Client, eventually};

/// One window; it ends with the test.
pub struct Browser {
    driver: Child,
    addr: String,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|why| {
                panic!(
                    "chromedriver does not start ({why}); `apt-get install chromium \
                     chromium-driver` gets it"
                )
            });
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| {
                let (_, port) = line.split_once("started successfully on port ")?;
                Some(port.trim_end_matches('.').to_owned())
            })
            .expect("chromedriver says on which port it listens");
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Browser {
            driver,
            addr: format!("127.0.0.1:{port}"),
            session: String::new(),
            _profile: profile,
        };
        let args = [
            "--headless",
            // A test may run as root, where the sandbox cannot.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let session = browser.call("/session", &capabilities);
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    pub fn open(&self, url: &str) {
        self.ask("/url", json!({ "url": url }));
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// What a person reads there.
    pub fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector('{selector}').innerText");
        self.run(&script).as_str().unwrap_or_default().to_owned()
    }

    /// Waits for a text.
    pub fn shows(&self, selector: &str, text: &str) {
        let mut seen = String::new();
        eventually(&format!("{selector} shows {text}"), || {
            seen = self.text(selector);
            seen.to_lowercase().contains(&text.to_lowercase())
        });
    }

    /// Presses a button as a person does, once it can be pressed.
    pub fn press(&self, selector: &str) {
        self.can_be_pressed(selector);
        let found = self.ask("/element", json!({ "using": "css selector", "value": selector }));
        let element = found.as_object().unwrap().values().next().unwrap().as_str().unwrap();
        self.ask(&format!("/element/{element}/click"), json!({}));
    }

    /// Presses a button that asks to be pressed again, both times before the page's time for that can
    /// run out; returns what it said in between.
    pub fn press_twice(&self, selector: &str) -> String {
        self.can_be_pressed(selector);
        let said = self.run(&format!(
            "const button = document.querySelector('{selector}'); button.click(); \
             const said = button.textContent; button.click(); return said"
        ));
        said.as_str().unwrap_or_default().to_owned()
    }

    /// Everything that the browser complained of.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("/se/log", json!({ "type": "browser" }));
        log.as_array().unwrap().iter().map(Value::to_string).collect()
    }

    fn can_be_pressed(&self, selector: &str) {
        eventually(&format!("{selector} can be pressed"), || {
            self.run(&format!("return document.querySelector('{selector}').disabled")) == false
        });
    }

    fn ask(&self, path: &str, body: Value) -> Value {
        self.call(&format!("{}{path}", self.session), &body)
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut client = Client::connect(&self.addr);
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.addr,
            body.len()
        ));
        let value = Answer::read(&mut client).json();
        assert!(value["value"]["error"].is_null(), "{path}: {value}");
        value["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A test that failed must not leave a browser behind; nothing here may fail again.
        if !self.session.is_empty()
            && let Ok(tcp) = TcpStream::connect(&self.addr)
        {
            let mut client = Client::over(tcp);
            let end = format!("DELETE {} HTTP/1.1\r\nHost: {}\r\n\r\n", self.session, self.addr);
            if client.try_send(end.as_bytes()).is_ok() {
                let _ = client.try_take(1);
            }
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
