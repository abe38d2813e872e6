//! A redis-server, and what it says of replication.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use probe::target::{Dialler, Target};
use redis::{Connection, InfoDict, RedisError, cmd};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::place::Place;
use crate::process::{Process, Trouble, until};

/// One of the two.
pub struct Server {
    /// `A` or `B`.
    pub name: &'static str,
    /// `host:port`.
    pub addr: String,
    /// As it calls itself.
    pub version: String,
    pass: SecretString,
    connection: Connection,
    _process: Process,
}

impl Server {
    /// Starts it, and waits until it serves.
    pub fn start(
        name: &'static str,
        program: &Path,
        place: &Place,
        stop: &AtomicBool,
    ) -> Result<Self, Trouble> {
        let port = free_port().map_err(|why| Trouble::File("no port is free".to_owned(), why))?;
        let (pass, addr) = (place.new_pass(), format!("127.0.0.1:{port}"));
        let listen = match &place.tls {
            None => format!("port {port}"),
            Some(tls) => format!(
                "port 0\ntls-port {port}\ntls-auth-clients no\ntls-cert-file \"{}\"\n\
                 tls-key-file \"{}\"\ntls-ca-cert-file \"{}\"",
                tls.cert, tls.key, tls.ca
            ),
        };
        let config = format!(
            "{listen}\nbind 127.0.0.1\nrequirepass {}\nsave \"\"\nappendonly no\ndir \"{}\"\n\
             repl-diskless-sync-delay 0\n",
            pass.expose_secret(),
            place.dir().display(),
        );
        let said = format!("redis-server {name}");
        let log = place.file(&format!("redis-{name}.log"));
        let mut process = Process::start(&said, program, &["-"], &config, &log)?;
        let target = Target {
            addr: addr.clone(),
            tls: place.client_tls(),
            user: None,
            pass: Some(pass.clone()),
        };
        let dialler = Dialler::new(&target)?;
        let connection = until(&format!("{said} serves"), stop, || {
            process.lives()?;
            Ok(dialler.dial(0).ok())
        })?;
        let (version, _process) = (String::new(), process);
        let mut server = Server { name, addr, version, pass, connection, _process };
        server.version = server.info("server")?.get("redis_version").unwrap_or_default();
        Ok(server)
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

fn free_port() -> std::io::Result<u16> {
    // Another process could take it before the server does; then that says so and ends.
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits until the replica has all that the master had when this was called.
pub fn caught_up(
    master: &mut Server,
    replica: &mut Server,
    stop: &AtomicBool,
) -> Result<u64, Trouble> {
    let info = master.info("replication")?;
    let is = |info: &InfoDict, field: &str, value: &str| {
        info.get::<String>(field).is_some_and(|it| it == value)
    };
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
