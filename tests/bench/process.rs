//! Processes that benchmarks start, and what the system tells about them.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The authority of the certificate that TLS servers show.
pub(crate) const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../certs/ca.pem");
pub(crate) const CERT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../certs/server.pem");
pub(crate) const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../certs/server.key");

/// The proxy that was built beside this program.
pub(crate) fn proxy_binary() -> String {
    let own = std::env::current_exe().expect("a path");
    own.with_file_name("redis-proxy").to_str().expect("UTF-8").to_owned()
}

/// A process that ends with its owner, and its files with it.
pub(crate) struct Process {
    child: Child,
    _dir: Option<tempfile::TempDir>,
}

impl Process {
    pub(crate) fn start(program: &str, args: &[&str]) -> Self {
        Process { child: Process::spawn(Command::new(program).args(args), program), _dir: None }
    }

    fn spawn(command: &mut Command, program: &str) -> Child {
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap_or_else(|why| {
            panic!("{program} is needed (apt-get install redis-server haproxy): {why}")
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a target listens, plain and TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
}

impl Ports {
    pub(crate) fn free() -> Self {
        let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [plain, tls] = bound.map(|it| it.local_addr().expect("bound").port());
        Ports { plain, tls }
    }

    pub(crate) fn wait(self) {
        let until = Instant::now() + Duration::from_secs(10);
        for port in [self.plain, self.tls] {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(Instant::now() < until, "nothing listens on port {port}");
                std::thread::yield_now();
            }
        }
    }
}

/// A redis-server without persistence.
pub(crate) fn redis(ports: Ports) -> Process {
    let (plain, tls) = (ports.plain.to_string(), ports.tls.to_string());
    // A replica keeps what it received in a file, which the next server would read.
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("redis-server");
    command.current_dir(dir.path()).args([
        "--bind",
        "127.0.0.1",
        "--port",
        &plain,
        "--tls-port",
        &tls,
        "--tls-cert-file",
        CERT,
        "--tls-key-file",
        KEY,
        "--tls-ca-cert-file",
        CA,
        "--tls-auth-clients",
        "no",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxclients",
        "15000",
        "--repl-diskless-sync-delay",
        "0",
        // As large on the way as they are.
        "--rdbcompression",
        "no",
    ]);
    let child = Process::spawn(&mut command, "redis-server");
    ports.wait();
    Process { child, _dir: Some(dir) }
}

/// Of all its threads, from the scheduler's own account in nanoseconds.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let nanoseconds: f64 = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split_whitespace().next()?.parse::<f64>().ok())
        .sum();
    nanoseconds / 1e9
}

/// A line of `/proc/PID/status`.
pub(crate) fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with(field)).expect(field);
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect(field)
}
