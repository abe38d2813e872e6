//! `redis-proxy ctl`: the commands for a running proxy, and how to reach it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Address;

/// The environment variable with the password. No option takes the password: a list of processes
/// would show it.
pub const PASSWORD: &str = "REDIS_PROXY_PASS";

const AFTER_HELP: &str = "\
The address, TLS and the password come from the admin block of the configuration file (-f). Options
win over the environment, and the environment wins over the file. With --addr or REDIS_PROXY_ADDR,
the file need not exist. Without --cacert, the proxy must present exactly the certificate that comes
first in admin.certfile.

Environment:
  REDIS_PROXY_ADDR  as --addr
  REDIS_PROXY_PASS  the password of the admin API

Exit codes:
  0   done
  64  wrong usage
  69  the admin API cannot be reached, or the connection was lost
  75  not now: in conflict with what is running, over its time limit, or rolled back; clients are
      where they were
  77  no or wrong password
  78  refused: the configuration that a reload reads, a switch by its preflight, or a file or field
      that ctl needs to reach the proxy
  1   anything else";

/// How to reach the proxy, and the command for it.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Ctl {
    /// Print the API's answer as one JSON document, and no progress
    #[arg(long, global = true)]
    pub json: bool,

    /// How to reach the admin API.
    #[command(flatten)]
    pub connection: Connection,

    /// The command.
    #[command(subcommand)]
    pub action: Action,
}

/// How to reach the admin API.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reaching the proxy")]
pub struct Connection {
    /// The admin API: host:port, or the path of a unix socket (with a slash in it)
    #[arg(
        long,
        value_name = "ADDR",
        env = "REDIS_PROXY_ADDR",
        hide_env_values = true,
        global = true
    )]
    pub addr: Option<String>,

    /// Speak TLS; --cacert, --cert and --servername imply it
    #[arg(long, global = true)]
    pub tls: bool,

    /// The CA certificates (PEM) to verify the proxy's certificate with
    #[arg(long, value_name = "FILE", global = true)]
    pub cacert: Option<PathBuf>,

    /// The client certificate (PEM) to present, where admin.cacertfile asks for one
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    pub cert: Option<PathBuf>,

    /// The key (PEM) of the client certificate
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    pub key: Option<PathBuf>,

    /// The name to verify and to send as SNI, instead of the host in the address
    #[arg(long, value_name = "NAME", global = true)]
    pub servername: Option<String>,

    /// A file whose first line is the password
    #[arg(long, value_name = "FILE", global = true)]
    pub pass_file: Option<PathBuf>,
}

/// The commands for a running proxy.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Hold new requests
    Pause(Pause),
    /// Let requests pass again
    Unpause,
    /// Put the configuration file in force
    Reload(Reload),
    /// Replace the uplink: copy its data to the new Redis, then move all clients
    ///
    /// Shows the progress until the switch has ended. The switch goes on if this command is
    /// interrupted; `cancel-switch` cancels it.
    Switch(Switch),
    /// Make a replica that is there already the uplink, and move all clients to it
    ///
    /// For an uplink that is found by addrs or by sentinel. Shows the progress, as `switch` does.
    Failover(Failover),
    /// Cancel the running switch or failover, and wait until it is rolled back
    CancelSwitch,
    /// Show what the proxy is doing
    Status,
    /// Close every connection made through listen_raw
    TerminateRawConnections,
    /// Close the clients that would not be let in any more
    ///
    /// A reload that withdraws a password or a CA closes no client: those that it had let in stay.
    CloseUnauthorizedClients,
}

/// `ctl pause`
#[derive(Debug, Args)]
pub struct Pause {
    /// Wait until no request is running any more
    #[arg(long)]
    pub wait: bool,

    /// The pause ends by itself after N milliseconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub ttl_ms: Option<u64>,
}

/// `ctl reload`
#[derive(Debug, Args)]
pub struct Reload {
    /// Only say what a reload would do; change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Close clients that hold the reload up for longer than the limit, and accept a replica that is
    /// cut off from its master
    #[arg(long)]
    pub force: bool,
}

/// `ctl failover`
#[derive(Debug, Args)]
pub struct Failover {
    /// The replica, instead of the best
    #[arg(long, value_name = "HOST:PORT", value_parser = Address::server)]
    pub to: Option<Address>,

    /// How long everything up to the promotion may take, in milliseconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: Option<u64>,

    /// How long clients may be held, in milliseconds, instead of pause_time_limit_ms
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub pause_limit_ms: Option<u64>,

    /// Leave the old Redis as it is afterwards: do not fence it
    #[arg(long)]
    pub no_fence: bool,

    /// Go on despite failed checks of users, replicas or an address
    #[arg(long)]
    pub force: bool,

    /// Close clients that hold up everybody else for longer than the limit
    #[arg(long)]
    pub force_clients: bool,

    /// Only make the checks; change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `ctl switch`
#[derive(Debug, Args)]
pub struct Switch {
    /// The address of the new Redis, instead of the one in the configuration file, which names it afterwards
    #[arg(long, value_name = "HOST:PORT", value_parser = Address::server)]
    pub to: Option<Address>,

    /// How long everything up to the promotion may take, in milliseconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: Option<u64>,

    /// How long clients may be held, in milliseconds, instead of pause_time_limit_ms
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub pause_limit_ms: Option<u64>,

    /// The new Redis is a replica of the old one already
    #[arg(long)]
    pub prepared: bool,

    /// The address that the new Redis replicates from, instead of the uplink's address
    #[arg(long, value_name = "HOST:PORT", value_parser = Address::server)]
    pub replicate_from: Option<Address>,

    /// Leave the old Redis as it is afterwards: do not fence it
    #[arg(long)]
    pub no_fence: bool,

    /// Copy to the new Redis those settings of the old one that clients notice
    #[arg(long, value_name = "copy", value_parser = ["copy"])]
    pub settings: Option<String>,

    /// Erase the new Redis's data if it has any, and go on despite failed checks of users, replicas
    /// or an address
    #[arg(long)]
    pub force: bool,

    /// Close clients that hold up everybody else for longer than the limit
    #[arg(long)]
    pub force_clients: bool,

    /// Only make the checks; change nothing
    #[arg(long)]
    pub dry_run: bool,
}
