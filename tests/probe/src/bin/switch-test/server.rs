//! A redis-server, and what it says of replication.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use probe::target::{Dialler, Target};
use redis::{Cmd, Connection, InfoDict, RedisError, cmd};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::place::Place;
use crate::process::{PATIENCE, Process, Trouble, until};

/// Where a port for a server is looked for, and how often.
const PORTS: Range<u16> = 10_000..30_000;
const PORT_TRIES: usize = 100;

/// A server.
pub struct Server {
    /// `A` or `B`.
    pub name: &'static str,
    /// `host:port`.
    pub addr: String,
    /// As it calls itself.
    pub version: String,
    pass: SecretString,
    run: Run,
    connection: Connection,
    process: Process,
}

/// What is needed to run it once more.
struct Run {
    name: &'static str,
    program: PathBuf,
    config: String,
    dialler: Dialler,
    times: usize,
}

/// Whether it has its data after a crash.
#[derive(Debug)]
pub enum Keeps {
    /// They are in its memory alone.
    Nothing,
    /// Whatever is acknowledged is on its disk.
    Everything,
    /// They are in another server's memory as well, which has this password, too.
    AtAnother(SecretString),
}

impl Run {
    /// Starts it with this in its configuration, too, and waits until it serves.
    fn start(
        &mut self,
        role: &str,
        place: &Place,
        stop: &AtomicBool,
    ) -> Result<(Process, Connection), Trouble> {
        self.times += 1;
        let log = match self.times {
            1 => format!("redis-{}.log", self.name),
            times => format!("redis-{}-{times}.log", self.name),
        };
        let (log, said) = (place.file(&log), format!("redis-server {}", self.name));
        let config = format!("{}{role}", self.config);
        let mut process = Process::start(&said, &self.program, &["-"], &config, &log)?;
        let connection = until(&format!("{said} serves"), stop, || {
            process.lives()?;
            let Ok(mut connection) = self.dialler.dial(0) else { return Ok(None) };
            // It lets clients in before it has read its data.
            let pong = cmd("PING").query::<String>(&mut connection);
            Ok(pong.is_ok().then_some(connection))
        })?;
        Ok((process, connection))
    }
}

impl Server {
    /// Starts it, and waits until it serves.
    pub fn start(
        name: &'static str,
        program: &Path,
        keeps: &Keeps,
        place: &Place,
        stop: &AtomicBool,
    ) -> Result<Self, Trouble> {
        let port = free_port().map_err(|why| Trouble::File("no port is free".to_owned(), why))?;
        let addr = format!("127.0.0.1:{port}");
        let pass = match keeps {
            Keeps::Nothing | Keeps::Everything => place.new_pass(),
            Keeps::AtAnother(pass) => pass.clone(),
        };
        let listen = match &place.tls {
            None => format!("port {port}"),
            Some(tls) => format!(
                "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file \"{}\"\n\
                 tls-key-file \"{}\"\ntls-ca-cert-file \"{}\"",
                tls.cert, tls.key, tls.ca
            ),
        };
        let copies = match keeps {
            Keeps::Nothing => "appendonly no".to_owned(),
            Keeps::Everything => "appendonly yes\nappendfsync always".to_owned(),
            Keeps::AtAnother(pass) => {
                let tls = if place.tls.is_some() { "yes" } else { "no" };
                let pass = pass.expose_secret();
                format!("appendonly no\nmasterauth {pass}\ntls-replication {tls}")
            }
        };
        let config = format!(
            "{listen}\nbind 127.0.0.1\nrequirepass {}\nsave \"\"\n{copies}\ndir \"{}\"\n\
             dbfilename redis-{name}.rdb\n\
             repl-diskless-sync-delay 0\n",
            pass.expose_secret(),
            place.dir().display(),
        );
        let target = Target {
            addr: addr.clone(),
            tls: place.client_tls(),
            user: None,
            pass: Some(pass.clone()),
        };
        let (program, dialler) = (program.to_owned(), Dialler::new(&target)?);
        let mut run = Run { name, program, config, dialler, times: 0 };
        let (process, connection) = run.start("", place, stop)?;
        let version = String::new();
        let mut server = Server { name, addr, version, pass, run, connection, process };
        server.version = server.info("server")?.get("redis_version").unwrap_or_default();
        Ok(server)
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) -> Result<(), Trouble> {
        self.process.kill()
    }

    /// Starts it again in the same place, and waits until it serves.
    pub fn start_again(&mut self, place: &Place, stop: &AtomicBool) -> Result<(), Trouble> {
        (self.process, self.connection) = self.run.start("", place, stop)?;
        Ok(())
    }

    /// Starts it again as a replica, and waits until it serves.
    pub fn start_as_replica(
        &mut self,
        master: &Server,
        place: &Place,
        stop: &AtomicBool,
    ) -> Result<(), Trouble> {
        let role = format!("replicaof {}\n", master.addr.replace(':', " "));
        (self.process, self.connection) = self.run.start(&role, place, stop)?;
        Ok(())
    }

    /// Makes it a replica, and waits until it is one: a master's history begins with its first replica.
    pub fn follow(&mut self, master: &Server, stop: &AtomicBool) -> Result<(), Trouble> {
        let (host, port) = master.addr.split_once(':').unwrap_or_default();
        self.tell(cmd("REPLICAOF").arg(host).arg(port))?;
        until(&format!("redis-server {} follows {}", self.name, master.name), stop, || {
            Ok(is(&self.info("replication")?, "master_link_status", "up").then_some(()))
        })
    }

    /// Makes it a master.
    pub fn promote(&mut self) -> Result<(), Trouble> {
        self.tell(cmd("REPLICAOF").arg("NO").arg("ONE"))
    }

    /// From now on, clients that write wait, for longer than anybody looks on.
    pub fn hold_writes(&mut self) -> Result<(), Trouble> {
        let millis = 2 * PATIENCE.as_millis();
        self.tell(cmd("CLIENT").arg("PAUSE").arg(millis.to_string()).arg("WRITE"))
    }

    fn tell(&mut self, command: &Cmd) -> Result<(), Trouble> {
        let told = command.query::<()>(&mut self.connection);
        told.map_err(|why| self.trouble(why))
    }

    /// What it is and where.
    pub fn introduction(&self) -> String {
        format!("Redis {}: version {}, on {}", self.name, self.version, self.addr)
    }

    /// As a proxy's `uplink`.
    pub fn uplink(&self, place: &Place) -> Value {
        let mut uplink = json!({ "addr": self.addr, "pass": self.pass.expose_secret() });
        place.trust(&mut uplink);
        uplink
    }

    /// A connection that asks it directly.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// What went wrong there.
    pub fn trouble(&self, why: RedisError) -> Trouble {
        Trouble::Redis(format!("redis-server {}", self.name), why)
    }

    fn info(&mut self, section: &str) -> Result<InfoDict, Trouble> {
        let info = cmd("INFO").arg(section).query(&mut self.connection);
        info.map_err(|why| self.trouble(why))
    }
}

/// Servers that have one password, as a proxy's `uplink`: the one that is a master.
pub fn among(servers: &[Server; 2], place: &Place) -> Value {
    let addrs = servers.each_ref().map(|server| server.addr.as_str());
    let mut uplink = json!({ "addrs": addrs, "pass": servers[0].pass.expose_secret() });
    place.trust(&mut uplink);
    uplink
}

fn free_port() -> io::Result<u16> {
    // Another process could take it before the server does; then that says so and ends. It is none that the system
    // gives to connections: it must be free still when the server has crashed.
    let mut ports = (0..PORT_TRIES).map(|it| PORTS.start + random(it) % PORTS.len() as u16);
    let bound = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let none = || io::Error::from(io::ErrorKind::AddrInUse);
    Ok(bound.ok_or_else(none)?.local_addr()?.port())
}

fn random(salt: usize) -> u16 {
    // Seeded by the system each time.
    RandomState::new().hash_one(salt) as u16
}

/// Waits until the replica has all that the master had when this was called.
pub fn caught_up(
    master: &mut Server,
    replica: &mut Server,
    stop: &AtomicBool,
) -> Result<u64, Trouble> {
    let info = master.info("replication")?;
    let offset: u64 = info.get("master_repl_offset").unwrap_or(0);
    let history: String = info.get("master_replid").unwrap_or_default();
    let what = format!(
        "redis-server {} is a replica of {} and has what that had, up to {offset} of {history}",
        replica.name, master.name
    );
    until(&what, stop, || {
        let info = replica.info("replication")?;
        let there = is(&info, "role", "slave")
            && is(&info, "master_link_status", "up")
            && is(&info, "master_replid", &history)
            && info.get::<u64>("slave_repl_offset").is_some_and(|it| it >= offset);
        Ok(there.then_some(offset))
    })
}

fn is(info: &InfoDict, field: &str, value: &str) -> bool {
    info.get::<String>(field).is_some_and(|it| it == value)
}
