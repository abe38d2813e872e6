//! `switch-test`: servers, proxies in a chain, clients that would notice, and an operator who
//! replaces the Redis behind them again and again. `make demo` runs it.

mod data;
mod options;
mod place;
mod process;
mod proxy;
mod rounds;
mod server;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use data::Data;
use options::Options;
use place::Place;
use probe::screen::Screen;
use probe::{PATIENCE, Plan, Probe, StartError};
use process::Trouble;
use proxy::Proxy;
use redis_proxy::exit::{Exit, complain, untaken};
use rounds::{Chain, Ways};
use server::{Server, caught_up};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

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
    let (mut chain, data) = start(options, place, ways)?;
    screen.heading("3. Clients of several kinds, through both proxies");
    let probe = Probe::start(&Plan {
        targets: chain.proxies.iter().map(|proxy| proxy.target(&chain.place)).collect(),
        clients: options.clients,
        rate: options.rate,
        patience: PATIENCE,
        prefix: None,
        crashes: false,
    })?;
    screen.line(&format!(
        "{} clients count, have transactions open, wait for jobs, hear messages, and contend for \
         watched keys; {} operations/s",
        probe.clients(),
        options.rate
    ));
    let (held, went_wrong) = operate(options, &mut chain, &probe, ways);
    screen.heading("5. What the clients saw");
    let mut verdict = probe.finish();
    if let Some(Trouble::Interrupted) = went_wrong {
        return Err(Trouble::Interrupted.into());
    }
    let [master, replica] = &mut chain.servers;
    if went_wrong.is_none() {
        caught_up(master, replica, &stop)?;
        screen.line(&data.verify(&mut chain.servers, &mut verdict)?);
    }
    let switches = held.len();
    verdict.held = held;
    screen.line(&verdict.to_string());
    verdict.evidence().iter().for_each(|text| screen.line(text));
    let done = match (switches, options.switches) {
        (done, all) if done < all => format!("FAILED after {done} of {all} switches; "),
        (1, _) => "1 switch, ".to_owned(),
        (done, _) => format!("{done} switches, "),
    };
    // The clients are gone: the proxies have nothing to wait for.
    for proxy in chain.proxies {
        proxy.terminate(&stop)?;
    }
    if let Some(why) = &went_wrong {
        screen.line(&why.to_string());
    }
    screen.line(&verdict.sentence(&done));
    Ok(verdict.is_clean() && went_wrong.is_none())
}

fn start(options: &Options, place: Place, ways: Ways<'_>) -> Result<(Chain, Data), Trouble> {
    let (screen, stop) = ways;
    let beside = || std::env::current_exe().map(|program| program.with_file_name("redis-proxy"));
    let program = match &options.redis_proxy {
        Some(program) => program.clone(),
        None => beside().map_err(|why| Trouble::File("where this program is".to_owned(), why))?,
    };
    let tls = if options.tls { ", with TLS" } else { "" };
    screen.heading(&format!("1. Two redis-servers{tls}, each with a password"));
    let start = |name| Server::start(name, &options.redis_server, &place, stop);
    let mut servers = [start("A")?, start("B")?];
    for server in &servers {
        screen.line(&format!(
            "Redis {}: version {}, on {}",
            server.name, server.version, server.addr
        ));
    }
    let data = Data::write(options.data_mb, &mut servers[0])?;
    screen.line(&format!("{} MB of data on A", options.data_mb));
    screen.heading(&format!("2. Two proxies{tls}: A in front of Redis A, B in front of proxy A"));
    let start = |name, uplink| Proxy::start(name, &program, uplink, &place, stop);
    let a = start("A", servers[0].uplink(&place))?;
    let b = start("B", a.uplink(&place))?;
    for (proxy, uplink) in [(&a, &servers[0].addr), (&b, &a.addr)] {
        screen.line(&format!("$ redis-proxy -f {}.json    # uplink: {uplink}", proxy.name));
    }
    Ok((Chain { servers, proxies: [a, b], place }, data))
}

/// Switches again and again while the clients work: how long they were held each time, and why it
/// ended too soon, if it did.
fn operate(
    options: &Options,
    chain: &mut Chain,
    probe: &Probe,
    ways: Ways<'_>,
) -> (Vec<Duration>, Option<Trouble>) {
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
        let wait = |until: f64| {
            while begun.elapsed().as_secs_f64() < until {
                if stop.load(Ordering::Relaxed) {
                    return Err(Trouble::Interrupted);
                }
                thread::sleep(LOOK);
            }
            Ok(())
        };
        let mut held = Vec::new();
        let mut rounds = || {
            for number in 1..=options.switches {
                wait(options.seconds * number as f64 / (options.switches + 1) as f64)?;
                let [here, there] = &chain.servers;
                screen.heading(&format!(
                    "4. Switch {number} of {}: from Redis {} to {}",
                    options.switches, here.name, there.name
                ));
                held.push(chain.round(probe, ways)?);
            }
            wait(options.seconds)
        };
        let went_wrong = rounds().err();
        done.store(true, Ordering::Relaxed);
        (held, went_wrong)
    })
}
