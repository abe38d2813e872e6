//! The command line of the program as a whole, and what it is read into.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use super::ctl::Ctl;
use crate::log::Format;

/// The file name that stands for standard input.
pub const STANDARD_INPUT: &str = "-";

/// A Redis proxy that lets you replace the Redis behind a running system without a client
/// noticing.
///
/// Without a command, it runs the proxy.
#[derive(Debug, Parser)]
#[command(name = "redis-proxy", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// The configuration file; `-` is standard input, and then a reload is refused
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE",
        default_value = "config.json",
        global = true
    )]
    pub file: PathBuf,

    /// Verify what a start would verify, connecting to the uplink included, and exit
    #[arg(long)]
    pub check: bool,

    /// The format of log lines, which go to standard error, filtered by RUST_LOG
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,

    /// What to do instead of running the proxy.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   stopped as asked, or the check passed
  64  wrong usage
  78  the configuration is refused
  1   anything else";

/// The commands besides running the proxy.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Control a running proxy through its admin API
    // Boxed, because it is larger than the others.
    Ctl(Box<Ctl>),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man {
        /// Write the page to this directory, with one page for each command
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

impl Cli {
    /// Reads the process's arguments and environment.
    pub fn read() -> Result<Self, clap::Error> {
        let cli = Cli::try_parse()?;
        if cli.check && cli.command.is_some() {
            let why = "--check is for a start, and goes with no command";
            return Err(Cli::command().error(ErrorKind::ArgumentConflict, why));
        }
        Ok(cli)
    }

    /// The file that a reload reads; none for standard input, which can be read only once.
    pub fn file_to_read_again(&self) -> Option<PathBuf> {
        Some(self.file.clone()).filter(|file| file.as_os_str() != STANDARD_INPUT)
    }
}
