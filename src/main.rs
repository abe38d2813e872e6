//! argv -> configuration -> runtime -> exit code.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use redis_proxy::cli::{self, Cli};
use redis_proxy::config::{self, Fault};
use redis_proxy::{app, generation, log};
use tracing::error;

/// As in `sysexits.h`.
const WRONG_USAGE: u8 = 64;
const REFUSED_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(why) => {
            // Nothing is left to tell if standard error is closed.
            let _ = why.print();
            return if why.use_stderr() { WRONG_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    log::init(cli.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run(&cli)),
        Err(why) => {
            error!(%why, "cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> ExitCode {
    let loaded = match read(&cli.file) {
        Ok(text) => generation::load(config::parse(&text), None).await,
        Err(why) => Err(vec![Fault::new(format!("could not read {}: {why}", cli.file.display()))]),
    };
    match loaded {
        Ok(_) if cli.check => {
            println!("{}: valid", cli.file.display());
            ExitCode::SUCCESS
        }
        Ok(generation) => match app::run(generation, cli.file_to_read_again()).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                error!(%why, "ended");
                ExitCode::FAILURE
            }
        },
        Err(faults) => {
            for fault in faults {
                if cli.check {
                    eprintln!("{fault}");
                } else {
                    error!(%fault, "the configuration is refused");
                }
            }
            REFUSED_CONFIGURATION.into()
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new(cli::STANDARD_INPUT) {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(file)
}
