//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser};
use probe::arguments::{clients, rate, seconds};

/// Two redis-servers, two proxies in a chain, and clients of several kinds: the Redis behind them is
/// replaced again and again, and a verdict says what the clients saw.
///
/// Exit codes: 0 nothing was wrong, 1 something was, 64 wrong usage, 69 cannot begin,
/// 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "switch-test", version)]
pub struct Options {
    /// How many switches
    #[arg(long, default_value_t = 6)]
    pub switches: usize,

    /// How many clients, 11 at least
    #[arg(long, default_value_t = 50, value_parser = clients)]
    pub clients: usize,

    /// How long they work, at least; the switches are spread over it
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
