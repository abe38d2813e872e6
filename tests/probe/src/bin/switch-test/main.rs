//! `switch-test`: servers, proxies in a chain, clients that would notice, and an operator who
//! replaces the Redis behind them again and again, a Redis that crashes, or one that fails over. `make demo` runs it.

mod crashes;
mod data;
mod exercise;
mod failovers;
mod options;
mod outage;
mod place;
mod process;
mod proxy;
mod record;
mod seed;
mod server;
mod switches;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use crashes::Crashes;
use exercise::{Exercise, Ways};
use failovers::Failovers;
use options::Options;
use place::Place;
use probe::screen::Screen;
use probe::{PATIENCE, Plan, Probe, StartError};
use process::Trouble;
use redis_proxy::exit::{Exit, complain, untaken};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use switches::Switches;

/// How often it looks whether it is time for something.
const LOOK: Duration = Duration::from_millis(50);
/// How often progress is shown.
const SHOW: Duration = Duration::from_secs(1);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum NoVerdict {
    #[error("{0}")]
    Trouble(#[from] Trouble),
    #[error("the clients could not begin: {0}")]
    Clients(#[from] StartError),
    #[error("signals: {0}")]
    Signals(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(why) => return untaken(&why),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            complain(&why);
            match why {
                NoVerdict::Trouble(Trouble::Interrupted) => Exit::Interrupted.into(),
                NoVerdict::Trouble(_) | NoVerdict::Clients(_) | NoVerdict::Signals(_) => {
                    Exit::Unavailable.into()
                }
            }
        }
    }
}

/// Whether nothing was wrong.
fn run(options: &Options) -> Result<bool, NoVerdict> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, stop.clone())?;
    }
    let screen = Screen::default();
    let ways = (&screen, &*stop);
    let place = Place::new(options)?;
    match (options.crashes, options.failovers) {
        (Some(count), _) => exercise(options, Crashes::start(options, count, place, ways)?, ways),
        (None, Some(count)) => {
            exercise(options, Failovers::start(options, count, place, ways)?, ways)
        }
        (None, None) => exercise(options, Switches::start(options, place, ways)?, ways),
    }
}

fn exercise<E: Exercise>(
    options: &Options,
    mut exercise: E,
    ways: Ways<'_>,
) -> Result<bool, NoVerdict> {
    let (screen, stop) = ways;
    let (targets, through) = exercise.targets();
    screen.heading(&format!("3. Clients of several kinds, through {through}"));
    let probe = Probe::start(&Plan {
        targets,
        clients: options.clients,
        rate: options.rate,
        patience: PATIENCE,
        prefix: None,
        crashes: E::CRASHES,
    })?;
    screen.line(&format!(
        "{} clients count, have transactions open, wait for jobs, hear messages, and contend for \
         watched keys; {} operations/s",
        probe.clients(),
        options.rate
    ));
    let (rounds, went_wrong) = operate(options, &mut exercise, &probe, ways);
    screen.heading("5. What the clients saw");
    let mut verdict = probe.finish();
    if let Some(Trouble::Interrupted) = went_wrong {
        return Err(Trouble::Interrupted.into());
    }
    if went_wrong.is_none() {
        exercise.verify(&mut verdict, ways)?;
    }
    let (all, [one, several]) = (exercise.rounds(), E::ROUND);
    let done = match rounds.len() {
        done if done < all => format!("FAILED after {done} of {all} {several}; "),
        1 => format!("1 {one}, "),
        done => format!("{done} {several}, "),
    };
    verdict.held = rounds.into_iter().flatten().collect();
    screen.line(&verdict.to_string());
    verdict.evidence().iter().for_each(|text| screen.line(text));
    exercise.end(stop)?;
    if let Some(why) = &went_wrong {
        screen.line(&why.to_string());
    }
    screen.line(&verdict.sentence(&done));
    Ok(verdict.is_clean() && went_wrong.is_none())
}

/// Round after round while the clients work: for how long each held them, where that is known, and why it
/// ended too soon, if it did.
fn operate(
    options: &Options,
    exercise: &mut impl Exercise,
    probe: &Probe,
    ways: Ways<'_>,
) -> (Vec<Option<Duration>>, Option<Trouble>) {
    let (screen, stop) = ways;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut shown = Instant::now();
            while !done.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
                if shown.elapsed() >= SHOW {
                    shown = Instant::now();
                    screen.progress(probe, "");
                }
            }
        });
        let begun = Instant::now();
        let mut held = Vec::new();
        let mut rounds = || {
            for number in 1..=exercise.rounds() {
                wait(begun + exercise.due(number, begun.elapsed()), stop)?;
                held.push(exercise.round(number, probe, ways)?);
            }
            wait(begun + Duration::from_secs_f64(options.seconds), stop)
        };
        let went_wrong = rounds().err();
        done.store(true, Ordering::Relaxed);
        (held, went_wrong)
    })
}

/// Waits for this moment.
fn wait(until: Instant, stop: &AtomicBool) -> Result<(), Trouble> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Trouble::Interrupted);
        }
        thread::sleep(left.min(LOOK));
    }
}
