//! `redis-proxy ctl`: what can be asked of a running proxy, and how to reach it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::Address;

/// The environment variable with the password. There is no option: whoever lists the processes
/// would see it.
pub const PASSWORD: &str = "REDIS_PROXY_PASS";

const AFTER_HELP: &str = "\
The address, TLS and the password are found in the admin block of the configuration file (-f), but
for what options and the environment say; options go first. With an address from there, the file
need not exist. Without --cacert, the proxy must show the very certificate that admin.certfile is.

Environment:
  REDIS_PROXY_ADDR  as --addr
  REDIS_PROXY_PASS  the password of the admin API

Exit codes:
  0   done
  64  wrong usage
  69  the admin API cannot be reached, or was lost
  75  not now: in conflict with what is running, over its time limit, or rolled back; clients are
      where they were
  77  no or wrong password
  78  a configuration is refused, the proxy's or the one to reach it by; or a switch by its preflight
  1   anything else";

/// How to reach the proxy, and what to ask for.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct Ctl {
    /// Print the API's answer instead, as one JSON document
    #[arg(long, global = true)]
    pub json: bool,

    /// How to reach it.
    #[command(flatten)]
    pub connection: Connection,

    /// What to ask for.
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

    /// The authorities (PEM) of which one must vouch for the proxy's certificate
    #[arg(long, value_name = "FILE", global = true)]
    pub cacert: Option<PathBuf>,

    /// The certificate (PEM) to show, where admin.cacertfile asks for one
    #[arg(long, value_name = "FILE", requires = "key", global = true)]
    pub cert: Option<PathBuf>,

    /// Its key
    #[arg(long, value_name = "FILE", requires = "cert", global = true)]
    pub key: Option<PathBuf>,

    /// The name to verify and to send, instead of the host in the address
    #[arg(long, value_name = "NAME", global = true)]
    pub servername: Option<String>,

    /// A file with the password in its first line
    #[arg(long, value_name = "FILE", global = true)]
    pub pass_file: Option<PathBuf>,
}

/// What a running proxy can be asked for.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Hold new requests
    Pause(Pause),
    /// Let requests pass again
    Unpause,
    /// Put the configuration file in force
    Reload(Reload),
    /// Replace the Redis behind: copy the data, then move all clients
    ///
    /// Shows how far it is until it has ended. It goes on if this is interrupted; `cancel-switch`
    /// cancels it.
    Switch(Switch),
    /// Cancel the switch that is running, and wait until it is rolled back
    CancelSwitch,
    /// Say what the proxy is doing
    Status,
    /// Close every connection made through listen_raw
    TerminateRawConnections,
    /// Close the clients that would not be let in any more
    ///
    /// Clients stay when a reload withdraws the password or the authority by which they were let in.
    CloseUnauthorizedClients,
}

/// `ctl pause`
#[derive(Debug, Args)]
pub struct Pause {
    /// Wait until no request runs any more
    #[arg(long)]
    pub wait: bool,

    /// End this pause by itself after so many milliseconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub ttl_ms: Option<u64>,
}

/// `ctl reload`
#[derive(Debug, Args)]
pub struct Reload {
    /// Say what a reload would do, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Close clients that hold it up for longer than the limit; take a replica for the uplink
    #[arg(long)]
    pub force: bool,
}

/// `ctl switch`
#[derive(Debug, Args)]
pub struct Switch {
    /// How long all of it may take, in milliseconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_ms: Option<u64>,

    /// How long clients may be held, in milliseconds, instead of pause_time_limit_ms
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub pause_limit_ms: Option<u64>,

    /// The new Redis is a replica of the old one already
    #[arg(long)]
    pub prepared: bool,

    /// Where the new Redis is to replicate from, instead of the uplink's address
    #[arg(long, value_name = "HOST:PORT", value_parser = Address::server)]
    pub replicate_from: Option<Address>,

    /// Do not fence off the old Redis afterwards
    #[arg(long)]
    pub no_fence: bool,

    /// Set at the new Redis what clients feel of the old one's settings
    #[arg(long, value_name = "copy", value_parser = ["copy"])]
    pub settings: Option<String>,

    /// Erase what the new Redis has, and go on where the checks warn of users, replicas or an address
    #[arg(long)]
    pub force: bool,

    /// Close clients that hold up everybody for longer than the limit
    #[arg(long)]
    pub force_clients: bool,

    /// Make the checks, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}
