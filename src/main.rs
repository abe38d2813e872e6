//! argv -> configuration -> runtime -> exit code.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use redis_proxy::cli::{self, Cli, Command};
use redis_proxy::config::{self, Fault};
use redis_proxy::exit::{Exit, complain, say, untaken};
use redis_proxy::generation::{self, Generation, Purpose};
use redis_proxy::signal::Signals;
use redis_proxy::{app, ctl, log};
use tracing::error;

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(why) => return untaken(&why),
    };
    match &cli.command {
        None => {
            let _log = match log::init(cli.log_format) {
                Ok(log) => log,
                Err(why) => return failed(why),
            };
            wait_for(run(&cli)).unwrap_or_else(|why| {
                error!(%why, "cannot start");
                ExitCode::FAILURE
            })
        }
        Some(Command::Ctl(ctl)) => {
            let file = ctl::File { path: &cli.file, text: read(&cli.file) };
            wait_for(ctl::run(ctl, file)).unwrap_or_else(failed)
        }
        Some(Command::Completions { shell }) => {
            let mut out = io::stdout();
            written(out.write_all(&cli::completions(*shell)).and_then(|()| out.flush()))
        }
        Some(Command::Man { dir: None }) => {
            let mut out = io::stdout();
            written(cli::man(&mut out).and_then(|()| out.flush()))
        }
        Some(Command::Man { dir: Some(dir) }) => written(cli::man_to(dir)),
    }
}

fn wait_for(work: impl Future<Output = ExitCode>) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(work);
    // A file that never comes must not be waited for.
    runtime.shutdown_background();
    Ok(code)
}

fn written(result: io::Result<()>) -> ExitCode {
    match result {
        // A reader that has gone away has read enough.
        Err(why) if why.kind() != ErrorKind::BrokenPipe => failed(why),
        _ => ExitCode::SUCCESS,
    }
}

fn failed(why: io::Error) -> ExitCode {
    complain(&why);
    ExitCode::FAILURE
}

async fn run(cli: &Cli) -> ExitCode {
    if cli.check {
        return match load(cli, Purpose::Check).await {
            Ok(_) => {
                say(&mut io::stdout(), &format!("{}: valid", cli.file.display()));
                ExitCode::SUCCESS
            }
            Err(faults) => {
                faults.iter().for_each(|fault| complain(fault));
                Exit::Refused.into()
            }
        };
    }
    // Before anything that takes time: a signal during the start means the same as later.
    let ended = match Signals::new() {
        Ok(mut signals) => tokio::select! {
            loaded = load(cli, Purpose::Start) => match loaded {
                Ok(generation) => app::run(generation, cli.file_to_read_again(), signals).await,
                Err(faults) => {
                    for fault in faults {
                        error!(%fault, "the configuration is refused");
                    }
                    return Exit::Refused.into();
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

async fn load(cli: &Cli, purpose: Purpose<'_>) -> Result<Generation, Vec<Fault>> {
    let text = read(&cli.file)
        .map_err(|why| vec![Fault::new(format!("could not read {}: {why}", cli.file.display()))])?;
    generation::load(config::parse(&text), purpose).await
}

fn read(file: &Path) -> io::Result<String> {
    if file == Path::new(cli::STANDARD_INPUT) {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    fs::read_to_string(file)
}
