//! argv -> configuration -> runtime -> exit code.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use redis_proxy::cli::{self, Cli};
use redis_proxy::config::{self, Fault};
use redis_proxy::generation::{self, Generation};
use redis_proxy::signal::Signals;
use redis_proxy::{app, log};
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
        Ok(runtime) => {
            let code = runtime.block_on(run(&cli));
            // A file that never comes must not be waited for.
            runtime.shutdown_background();
            code
        }
        Err(why) => {
            error!(%why, "cannot start");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> ExitCode {
    if cli.check {
        return match load(cli).await {
            Ok(_) => {
                println!("{}: valid", cli.file.display());
                ExitCode::SUCCESS
            }
            Err(faults) => {
                faults.iter().for_each(|fault| eprintln!("{fault}"));
                REFUSED_CONFIGURATION.into()
            }
        };
    }
    // Before anything that takes time: a signal during the start means the same as later.
    let ended = match Signals::new() {
        Ok(mut signals) => tokio::select! {
            loaded = load(cli) => match loaded {
                Ok(generation) => app::run(generation, cli.file_to_read_again(), signals).await,
                Err(faults) => {
                    for fault in faults {
                        error!(%fault, "the configuration is refused");
                    }
                    return REFUSED_CONFIGURATION.into();
                }
            },
            () = signals.stop() => Ok(()),
        },
        Err(why) => Err(why.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!(%why, "ended");
            ExitCode::FAILURE
        }
    }
}

async fn load(cli: &Cli) -> Result<Generation, Vec<Fault>> {
    let text = read(&cli.file)
        .map_err(|why| vec![Fault::new(format!("could not read {}: {why}", cli.file.display()))])?;
    generation::load(config::parse(&text), None).await
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new(cli::STANDARD_INPUT) {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(file)
}
