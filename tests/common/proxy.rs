//! The real binary, run as its users run it.

use std::io::{BufRead, BufReader, Seek, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Answer, Client, PATIENCE, eventually, http, send};

const BINARY: &str = env!("CARGO_BIN_EXE_redis-proxy");

/// A running proxy; it ends with the test.
pub struct Proxy {
    child: Child,
    log: Arc<Log>,
    file: PathBuf,
    _dir: tempfile::TempDir,
}

/// Everything that it wrote to standard error, a JSON object a line.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Value>>,
    more: Condvar,
}

impl Log {
    /// A test that failed while it waited must not hide the log.
    fn lines(&self) -> MutexGuard<'_, Vec<Value>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, stderr: ChildStderr) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
            self.lines().push(line);
            self.more.notify_all();
        }
    }

    fn wait(&self, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        let missing = |lines: &mut Vec<Value>| !lines.iter().any(&found);
        let waited = self.more.wait_timeout_while(self.lines(), PATIENCE, missing);
        let (lines, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "never logged: {what}");
        lines.iter().find(|line| found(line)).unwrap().clone()
    }
}

impl Proxy {
    /// In front of `uplink`, on a port that the kernel chooses.
    pub fn to(uplink: &str) -> Proxy {
        Proxy::start(&config(uplink, json!({})))
    }

    /// As [`Proxy::to`], with a password for clients.
    pub fn with_pass(uplink: &str, pass: &str) -> Proxy {
        Proxy::start(&config(uplink, json!({ "listen": { "addr": "127.0.0.1:0", "pass": pass } })))
    }

    /// With no more than this many file descriptors.
    pub fn start_limited(config: &Value, descriptors: u32) -> Proxy {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), BINARY]);
        Proxy::run(command, config)
    }

    pub fn start(config: &Value) -> Proxy {
        Proxy::run(Command::new(BINARY), config)
    }

    /// With this in its environment.
    pub fn start_in(environment: &[(&str, &str)], config: &Value) -> Proxy {
        let mut command = Command::new(BINARY);
        command.envs(environment.iter().copied());
        Proxy::run(command, config)
    }

    /// With the configuration in its standard input.
    pub fn start_from_stdin(config: &Value) -> Proxy {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        file.rewind().unwrap();
        let mut command = Command::new(BINARY);
        command.stdin(file);
        Proxy::fork(command, tempfile::tempdir().unwrap(), "-".into()).running()
    }

    /// Its log is read up to the line that says that it runs; the reader has the rest.
    pub fn start_unread(config: &Value) -> (Proxy, BufReader<ChildStderr>) {
        let (dir, file) = Proxy::write(config);
        let mut proxy = Proxy::spawn(Command::new(BINARY), dir, file, Stdio::piped());
        let mut stderr = BufReader::new(proxy.child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it does not run");
            let line: Value = serde_json::from_str(&line).unwrap();
            let runs = line["message"] == "running";
            proxy.log.lines().push(line);
            if runs {
                return (proxy, stderr);
            }
        }
    }

    /// With its log in this file, which nobody reads.
    pub fn start_logging_to(log: std::fs::File, config: &Value) -> Proxy {
        let (dir, file) = Proxy::write(config);
        Proxy::spawn(Command::new(BINARY), dir, file, log.into())
    }

    fn run(command: Command, config: &Value) -> Proxy {
        Proxy::with_file(command, config).running()
    }

    /// Without waiting until it runs.
    pub fn launch(config: &Value) -> Proxy {
        Proxy::with_file(Command::new(BINARY), config)
    }

    fn with_file(command: Command, config: &Value) -> Proxy {
        let (dir, file) = Proxy::write(config);
        Proxy::fork(command, dir, file)
    }

    fn write(config: &Value) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        (dir, file)
    }

    fn running(self) -> Proxy {
        self.logged("running", |line| line["message"] == "running");
        self
    }

    fn fork(command: Command, dir: tempfile::TempDir, file: PathBuf) -> Proxy {
        let mut proxy = Proxy::spawn(command, dir, file, Stdio::piped());
        let (log, stderr) = (proxy.log.clone(), proxy.child.stderr.take().unwrap());
        std::thread::spawn(move || log.collect(stderr));
        proxy
    }

    fn spawn(mut command: Command, dir: tempfile::TempDir, file: PathBuf, stderr: Stdio) -> Proxy {
        let child = command
            .args(["--log-format", "json", "-f", file.to_str().unwrap()])
            .env("RUST_LOG", "redis_proxy=debug")
            .stderr(stderr)
            .spawn()
            .unwrap();
        Proxy { child, log: Arc::default(), file, _dir: dir }
    }

    /// Waits for a line of the log.
    pub fn logged(&self, what: &str, found: impl Fn(&Value) -> bool) -> Value {
        self.log.wait(what, found)
    }

    /// Waits for the line that says why a session ended.
    pub fn closed(&self, reason: &str) {
        self.logged(reason, |line| {
            line["message"] == "session closed"
                && line["reason"].as_str().is_some_and(|text| text.contains(reason))
        });
    }

    /// All that was logged so far, as text.
    pub fn log_text(&self) -> String {
        let lines = self.log.lines();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Where a block's listener is.
    pub fn addr_of(&self, block: &str) -> String {
        let line = self
            .logged("listening", |line| line["message"] == "listening" && line["block"] == *block);
        line["addr"].as_str().unwrap().to_owned()
    }

    pub fn addr(&self) -> String {
        self.addr_of("listen")
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.addr())
    }

    /// A connection to the admin API.
    pub fn caller(&self) -> Client {
        Client::connect(&self.addr_of("admin"))
    }

    pub fn get(&self, path: &str) -> Answer {
        http(&mut self.caller(), "GET", path, "", "")
    }

    /// `curl -d "cmd=..." http://.../cmd/`
    pub fn cmd(&self, body: &str) -> Answer {
        http(&mut self.caller(), "POST", "/cmd/", "", &format!("cmd={body}"))
    }

    /// The same, without waiting for the answer.
    pub fn begin_cmd(&self, body: &str) -> Client {
        let mut caller = self.caller();
        send(&mut caller, "POST", "/cmd/", "", &format!("cmd={body}"));
        caller
    }

    pub fn info(&self) -> Value {
        self.get("/info.json").json()
    }

    /// Waits for `info.json` to have this.
    pub fn shows(&self, field: &str, value: impl Into<Value>) {
        let value = value.into();
        eventually(&format!("{field} is {value}"), || self.info()[field] == value);
    }

    /// The same, for a field of a field.
    pub fn shows_in(&self, path: &[&str], value: &str) {
        let found = |info: &Value| path.iter().fold(info.clone(), |at, name| at[name].clone());
        eventually(&format!("{path:?} is {value}"), || found(&self.info()) == *value);
    }

    /// A value of `/metrics`; the line without it is `name`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }

    /// Waits until the proxy has read so many bytes of its clients, all in all.
    pub fn has_read(&self, bytes: usize) {
        let read = "redis_proxy_client_bytes_total";
        eventually(&format!("{bytes} bytes are read"), || self.metric(read) == bytes as f64);
    }

    /// Writes another configuration, for a reload.
    pub fn rewrite(&self, config: &Value) {
        self.rewrite_text(&config.to_string());
    }

    /// The same, of what need not be JSON.
    pub fn rewrite_text(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    /// The same, so that a reader finds the one or the other, whole.
    pub fn rewrite_whole(&self, config: &Value) {
        let mut next = tempfile::NamedTempFile::new_in(self.file.parent().unwrap()).unwrap();
        next.write_all(config.to_string().as_bytes()).unwrap();
        next.persist(&self.file).unwrap();
    }

    /// Puts another file in the place of the configuration.
    pub fn link_file(&self, to: &std::path::Path) {
        std::os::unix::fs::symlink(to, &self.file).unwrap();
    }

    /// The path of its configuration.
    pub fn file(&self) -> PathBuf {
        self.file.clone()
    }

    pub fn remove_file(&self) {
        std::fs::remove_file(&self.file).unwrap();
    }

    /// Puts another configuration in force.
    pub fn reload(&self, config: &Value) -> Answer {
        self.rewrite(config);
        self.cmd("reload")
    }

    /// Writes another configuration, and asks for a switch to its uplink.
    pub fn switch(&self, config: &Value, parameters: &str) -> Answer {
        self.rewrite(config);
        self.cmd(&format!("switch{parameters}"))
    }

    pub fn raw_client(&self) -> Client {
        Client::connect(&self.addr_of("listen_raw"))
    }

    /// For whoever ends it from elsewhere.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until every signal so far has come to the process.
    pub fn has_heard(&self) {
        eventually("no signal is on its way", || {
            let status = self.status("ShdPnd:");
            u64::from_str_radix(&status, 16).unwrap() == 0
        });
    }

    /// The lines of the log so far.
    pub fn log_lines(&self) -> Vec<Value> {
        self.log.lines().clone()
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the proxy ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// A line of `/proc/PID/status`, in KiB.
    pub fn memory_kib(&self, field: &str) -> u64 {
        self.status(field).parse().unwrap()
    }

    /// The first word of a line of `/proc/PID/status`.
    fn status(&self, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log_text());
        }
    }
}

/// The least that the tests need, with more at the top level. What is given up after a time is not,
/// however busy the machine is, unless a test is about that.
pub fn config(uplink: &str, more: Value) -> Value {
    let mut config = json!({
        "uplink": { "addr": uplink },
        "listen": { "addr": "127.0.0.1:0" },
        "admin": { "addr": "127.0.0.1:0" },
        "connect_time_limit_ms": 50_000,
        "pause_time_limit_ms": 50_000,
        "stop_time_limit_ms": 50_000,
    });
    for (field, value) in more.as_object().unwrap() {
        config[field] = value.clone();
    }
    config
}

/// Runs the binary to its end.
pub fn run_to_end(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without reading; then its exit code tells.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    eventually(&format!("{args:?} ends"), || child.try_wait().unwrap().is_some());
    child.wait_with_output().unwrap()
}

/// The faults that `--check` finds, and its exit code.
pub fn check(config: &str) -> (Option<i32>, Vec<String>) {
    let output = run_to_end(&["--check", "-f", "-"], config);
    let faults = String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect();
    (output.status.code(), faults)
}
