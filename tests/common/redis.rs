//! A redis-server for one test.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Pid;

use super::{Client, cert, eventually};

/// A running redis-server with an address of its own; it ends with the test.
pub struct Redis {
    child: Child,
    host: String,
    args: Vec<String>,
    pub dir: tempfile::TempDir,
}

/// With nothing but an address.
pub fn redis() -> Redis {
    Redis::start(&[])
}

/// An address of this machine that nobody else uses. All of 127.0.0.0/8 is this machine; a port that
/// was free could be somebody else's before the server takes it.
pub fn own_host() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (round, number) = (number / 250, number % 250);
    let second = 16 + ((process >> 8) + round * 64) % 200;
    format!("127.{second}.{}.{}", process & 0xff, 1 + number)
}

impl Redis {
    const PORT: u16 = 6379;

    pub fn start(args: &[&str]) -> Redis {
        Redis::start_at(own_host(), args)
    }

    /// One that tells its master its own address, for Sentinels.
    pub fn announced() -> Redis {
        let host = own_host();
        Redis::start_at(host.clone(), &["--replica-announce-ip", &host])
    }

    fn start_at(host: String, args: &[&str]) -> Redis {
        let dir = tempfile::tempdir().unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let child = Redis::run(&host, &dir, &args);
        Redis { child, host, args, dir }
    }

    fn run(host: &str, dir: &tempfile::TempDir, args: &[String]) -> Child {
        let socket = dir.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--bind", host, "--port", "6379", "--save", "", "--appendonly", "no"]);
        command.args(["--unixsocket", socket.to_str().unwrap()]);
        // No other replica is waited for.
        command.args(["--repl-diskless-sync-delay", "0"]);
        command.args(args).current_dir(dir.path()).stdout(Stdio::null());
        let child = command.spawn().unwrap_or_else(|why| {
            panic!("redis-server does not start ({why}); `apt-get install redis-server` gets it")
        });
        eventually("redis-server listens", || TcpStream::connect((host, Self::PORT)).is_ok());
        child
    }

    /// Ends it at once, and starts another in its place: with what it has written to its disk, if
    /// it does that.
    pub fn restart(&mut self) {
        self.kill();
        self.child = Redis::run(&self.host, &self.dir, &self.args);
        eventually("it has read its data", || self.client().run("PING") == "PONG");
    }

    /// For whoever ends it from elsewhere.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap()).unwrap()
    }

    /// One that speaks TLS, too.
    pub fn with_tls(args: &[&str]) -> Redis {
        let (key, pem, ca) = (cert("server.key"), cert("server.pem"), cert("ca.pem"));
        let tls = [
            "--tls-port",
            "6380",
            "--tls-cert-file",
            &pem,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
        ];
        let redis = Redis::start(&[&tls, args].concat());
        // It listens to this one after the other.
        eventually("it listens for TLS", || TcpStream::connect(redis.tls_addr()).is_ok());
        redis
    }

    /// `host:port`, for TLS.
    pub fn tls_addr(&self) -> String {
        format!("{}:6380", self.host)
    }

    /// Makes it a replica, and waits until it is one.
    pub fn follow(&self, master: &Redis) {
        let mut client = self.client();
        client.run(&format!("REPLICAOF {} {}", master.host, Self::PORT));
        eventually("it is a replica", || {
            client.run("INFO replication").contains("master_link_status:up")
        });
    }

    /// `host:port`.
    pub fn addr(&self) -> String {
        format!("{}:{}", self.host, Self::PORT)
    }

    /// The path of its unix socket.
    pub fn socket(&self) -> String {
        self.dir.path().join("redis.sock").display().to_string()
    }

    /// A connection past the proxy.
    pub fn client(&self) -> Client {
        Client::connect(&self.addr())
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
