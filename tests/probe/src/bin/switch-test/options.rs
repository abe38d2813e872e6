//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use probe::arguments::{clients, rate, seconds};

use crate::process::Trouble;

/// Two redis-servers, two proxies in a chain, and clients of several kinds: the Redis behind them is
/// replaced again and again, and a verdict says what the clients saw.
///
/// With --crashes, it is one redis-server that keeps its data on disk, and one proxy: the Redis is killed and started
/// again. Clients whose write is in flight then may be closed; they find out what became of it, and it is counted as
/// unknown.
///
/// With --failovers, it is a master, its replica, and one proxy that finds the master among them. Each failover is, by
/// chance, a planned one (cmd=failover), in which no client may see anything, or an unplanned one: the master is killed,
/// and the replica is promoted. Before it is killed, its clients' writes are held (CLIENT PAUSE WRITE) until the replica has
/// all that the master has. So replication itself loses nothing, and whatever is lost is the proxy's fault. Clients whose
/// write is in flight count as unknown, as with --crashes.
///
/// Exit codes: 0 nothing was wrong, 1 something was, 64 wrong usage, 69 cannot begin,
/// 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "switch-test", version)]
pub struct Options {
    /// How many switches
    #[arg(long, default_value_t = 6)]
    pub switches: usize,

    /// How many crashes, instead of switches
    #[arg(long, value_name = "N", conflicts_with = "switches", group = "seeded")]
    pub crashes: Option<usize>,

    /// How many failovers, instead of switches
    #[arg(long, value_name = "N", conflicts_with = "switches", group = "seeded")]
    pub failovers: Option<usize>,

    /// When each crash or failover comes, of which kind it is, and how long it lasts; without it, another one each time
    #[arg(long, requires = "seeded")]
    pub seed: Option<u64>,

    /// How many clients, 11 at least
    #[arg(long, default_value_t = 50, value_parser = clients)]
    pub clients: usize,

    /// How long they work, at least; the switches are spread over it, crashes and failovers come one after the other
    #[arg(long, default_value_t = 20.0, value_parser = seconds)]
    pub seconds: f64,

    /// Operations a second that all clients begin together
    #[arg(long, default_value_t = 2000.0, value_parser = rate)]
    pub rate: f64,

    /// How much data there is to copy, in MB
    #[arg(long, default_value_t = 20)]
    pub data_mb: usize,

    /// Servers, proxies and clients speak TLS
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "true|false")]
    pub tls: bool,

    /// Where ca.pem, server.pem and server.key are, for 127.0.0.1
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub certs: PathBuf,

    /// The program
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    pub redis_server: PathBuf,

    /// The program; without it, the one beside this one
    #[arg(long, value_name = "PATH")]
    pub redis_proxy: Option<PathBuf>,

    /// Where configurations and logs are put, and left; without it, somewhere, and removed
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Options {
    /// The proxy's program.
    pub fn proxy(&self) -> Result<PathBuf, Trouble> {
        let beside = || std::env::current_exe().map(|it| it.with_file_name("redis-proxy"));
        match &self.redis_proxy {
            Some(program) => Ok(program.clone()),
            None => beside().map_err(|why| Trouble::File("where this program is".to_owned(), why)),
        }
    }

    /// For a heading.
    pub fn with_tls(&self) -> &'static str {
        if self.tls { ", with TLS" } else { "" }
    }
}
