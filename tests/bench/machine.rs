//! The processes that are compared, and what the system tells about them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::process::{CERT, KEY, Ports, Process, cpu_seconds, memory_kib, proxy_binary, redis};

/// What redis-benchmark is pointed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The redis-server itself.
    Direct,
    /// HAProxy in TCP mode.
    Haproxy,
    /// This proxy.
    Ours,
    /// Another build of it, to compare with.
    Baseline,
}

impl Target {
    pub(crate) const ALL: [Target; 4] =
        [Target::Direct, Target::Haproxy, Target::Ours, Target::Baseline];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Target::Direct => "direct",
            Target::Haproxy => "haproxy",
            Target::Ours => "ours",
            Target::Baseline => "baseline",
        }
    }
}

/// Everything that runs during a benchmark.
pub(crate) struct Setup {
    redis: Process,
    redis_ports: Ports,
    haproxy: Process,
    haproxy_ports: Ports,
    ours: Vec<Process>,
    our_ports: Ports,
    baseline: Vec<Process>,
    baseline_ports: Ports,
    _dir: tempfile::TempDir,
}

impl Setup {
    /// `baseline` is the path of another build.
    pub(crate) fn start(baseline: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [redis_ports, haproxy_ports, our_ports, baseline_ports] =
            [(); 4].map(|()| Ports::free());
        let redis = redis(redis_ports);
        let haproxy = haproxy(dir.path(), haproxy_ports, redis_ports.plain);
        let proxy = |binary, ports| ours(binary, dir.path(), ports, redis_ports.plain);
        let binary = proxy_binary();
        let ours = proxy(&binary, our_ports);
        let baseline = baseline.map(|binary| proxy(binary, baseline_ports)).unwrap_or_default();
        Setup {
            redis,
            redis_ports,
            haproxy,
            haproxy_ports,
            ours,
            our_ports,
            baseline,
            baseline_ports,
            _dir: dir,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let version = |program: &str, arg: &str| {
            let output = Command::new(program).arg(arg).output().expect(program).stdout;
            String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
        };
        format!(
            "{}\n{}\n{} cores",
            version("redis-server", "--version"),
            version("haproxy", "-v"),
            std::thread::available_parallelism().map_or(1, usize::from)
        )
    }

    pub(crate) fn port(&self, target: Target, tls: bool) -> u16 {
        let ports = match target {
            Target::Direct => self.redis_ports,
            Target::Haproxy => self.haproxy_ports,
            Target::Ours => self.our_ports,
            Target::Baseline => self.baseline_ports,
        };
        if tls { ports.tls } else { ports.plain }
    }

    /// What the target's own process has used; none where there is nothing between.
    pub(crate) fn cpu_seconds(&self, target: Target) -> Option<f64> {
        match target {
            Target::Direct => None,
            Target::Haproxy => Some(cpu_seconds(self.haproxy.pid())),
            Target::Ours => Some(self.ours.iter().map(|it| cpu_seconds(it.pid())).sum()),
            Target::Baseline => Some(self.baseline.iter().map(|it| cpu_seconds(it.pid())).sum()),
        }
    }
}

fn haproxy(dir: &Path, ports: Ports, redis: u16) -> Process {
    let pem = dir.join("server.pem");
    let both = [CERT, KEY].map(|file| fs::read_to_string(file).expect(file)).concat();
    fs::write(&pem, both).expect("a file in a temporary folder");
    let config = format!(
        "global\n nbthread 2\n maxconn 8000\n\
         defaults\n mode tcp\n maxconn 8000\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         frontend f\n bind 127.0.0.1:{}\n bind 127.0.0.1:{} ssl crt {}\n default_backend b\n\
         backend b\n server s 127.0.0.1:{redis}\n",
        ports.plain,
        ports.tls,
        pem.display(),
    );
    let file = dir.join("haproxy.cfg");
    fs::write(&file, config).expect("a file in a temporary folder");
    let process = Process::start("haproxy", &["-db", "-f", file.to_str().expect("a plain path")]);
    ports.wait();
    process
}

/// Two processes, for the proxy has one `listen`; a case loads one of them.
fn ours(binary: &str, dir: &Path, ports: Ports, redis: u16) -> Vec<Process> {
    let tls = format!(r#", "tls": true, "certfile": "{CERT}", "keyfile": "{KEY}""#);
    let processes = [(ports.plain, ""), (ports.tls, &tls)].map(|(port, more)| {
        let config = format!(
            r#"{{"uplink": {{"addr": "127.0.0.1:{redis}"}}, "listen": {{"addr": "127.0.0.1:{port}"{more}}}}}"#
        );
        let file = dir.join(format!("{port}.json"));
        fs::write(&file, config).expect("a file in a temporary folder");
        let file = file.to_str().expect("a plain path");
        Process::start(binary, &["-f", file])
    });
    ports.wait();
    processes.into()
}

/// What redis-benchmark says.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

pub(crate) fn redis_benchmark<'a>(port: u16, args: impl Iterator<Item = &'a str>) -> Measured {
    let output = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--csv"])
        .args(args)
        .output()
        .expect("redis-benchmark, from redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95...","p99...","max..."
    let last = text.lines().last().unwrap_or_default();
    let fields: Vec<f64> =
        last.split(',').filter_map(|field| field.trim_matches('"').parse().ok()).collect();
    let &[per_second, _, _, p50, _, p99, _] = &fields[..] else {
        panic!("redis-benchmark said: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    Measured { per_second, p50, p99 }
}

/// Resident memory for each of 5000 connections that have made one request and then rest.
pub(crate) fn idle_kib(target: Target) -> f64 {
    const CONNECTIONS: usize = 5000;
    let setup = Setup::start(None);
    let pid = match target {
        Target::Direct => setup.redis.pid(),
        Target::Haproxy => setup.haproxy.pid(),
        Target::Ours | Target::Baseline => setup.ours[0].pid(),
    };
    let port = setup.port(target, false);
    let connect = || {
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        ping(&mut client);
        client
    };
    drop(connect());
    let before = memory_kib(pid, "VmRSS");
    let clients: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect()).collect();
    let after = memory_kib(pid, "VmRSS");
    (after - before) as f64 / clients.len() as f64
}

fn ping(client: &mut TcpStream) {
    client.write_all(b"*1\r\n$4\r\nPING\r\n").expect("PING");
    let mut pong = [0; 7];
    client.read_exact(&mut pong).expect("PONG");
}

/// How much resident memory grew, at most, while one value of 64 MiB went up and came down.
pub(crate) fn large_value_kib() -> u64 {
    const SIZE: usize = 64 * 1024 * 1024;
    let setup = Setup::start(None);
    let pid = setup.ours[0].pid();
    let mut client =
        TcpStream::connect(("127.0.0.1", setup.port(Target::Ours, false))).expect("a connection");
    ping(&mut client);
    let before = memory_kib(pid, "VmRSS");
    let value = vec![b'x'; SIZE];
    write!(client, "*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${SIZE}\r\n").expect("SET");
    client.write_all(&value).expect("its value");
    client.write_all(b"\r\n*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n").expect("GET");
    let mut reply = vec![0; "+OK\r\n".len() + format!("${SIZE}\r\n").len() + SIZE + 2];
    client.read_exact(&mut reply).expect("the value");
    memory_kib(pid, "VmHWM").saturating_sub(before)
}
