//! `switch-probe`: clients that check what they are answered, against any address, while an
//! operator switches what is behind it.

mod options;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use options::Options;
use probe::Probe;
use probe::screen::Screen;
use redis_proxy::exit::{Exit, complain, untaken};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// How often it looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);
/// How often progress is shown.
const SHOW: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(why) => return untaken(&why),
    };
    match run(&options) {
        Ok(code) => code,
        Err(why) => {
            complain(&why);
            Exit::Unavailable.into()
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The second one ends it at once.
        flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        flag::register(signal, stop.clone())?;
    }
    let screen = Screen::default();
    let mut admin = options.admin()?;
    let probe = Probe::start(&options.plan()?)?;
    let end = match options.seconds {
        Some(seconds) => format!("for {seconds} s"),
        None => "until Ctrl-C".to_owned(),
    };
    screen.line(&format!(
        "{} clients work through {}, on keys that begin with {}, {end}",
        probe.clients(),
        options.addr,
        probe.prefix()
    ));
    let begun = Instant::now();
    let mut shown = begun;
    let ended = || {
        let over = options.seconds.is_some_and(|limit| begun.elapsed().as_secs_f64() >= limit);
        over || stop.load(Ordering::Relaxed)
    };
    while !ended() {
        thread::sleep(LOOK);
        if shown.elapsed() >= SHOW {
            shown = Instant::now();
            let more = admin.as_mut().map(|admin| admin.look()).unwrap_or_default();
            screen.progress(&probe, &more);
        }
    }
    let mut verdict = probe.finish();
    if let Some(mut admin) = admin {
        admin.look();
        verdict.held = admin.held();
    }
    screen.line(&format!("\n{verdict}"));
    verdict.evidence().iter().for_each(|text| screen.line(text));
    screen.line(&verdict.sentence(""));
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
