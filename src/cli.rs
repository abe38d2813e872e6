//! The command line. It reads no file.

use std::path::PathBuf;

use clap::Parser;

use crate::log::Format;

/// As a file's name.
pub const STANDARD_INPUT: &str = "-";

/// A Redis proxy that lets you replace the Redis behind a running system without a client
/// noticing.
#[derive(Debug, Parser)]
#[command(name = "redis-proxy", version)]
pub struct Cli {
    /// The configuration file; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "FILE", default_value = "config.json")]
    pub file: PathBuf,

    /// Verify what a start would verify, the connection to the uplink included, and exit
    #[arg(long)]
    pub check: bool,

    /// How log lines look; they go to standard error, filtered by RUST_LOG
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: Format,
}

impl Cli {
    /// What a reload reads; standard input is read once.
    pub fn file_to_read_again(&self) -> Option<PathBuf> {
        Some(self.file.clone()).filter(|file| file.as_os_str() != STANDARD_INPUT)
    }
}
