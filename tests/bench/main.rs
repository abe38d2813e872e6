//! `make bench`: what the proxy costs, beside HAProxy passing the same bytes blindly.
//!
//! One run starts a redis-server, HAProxy (TCP mode, two threads) and the proxy, and visits the
//! targets in turn, several rounds, so that what else the machine does hits all alike. It prints
//! medians. Nothing here asserts a time.
//!
//! `bench-proxy [--rounds N] [--scale F] [--baseline PATH] [CASE ...]`; a baseline
//! is another build of this proxy.

mod machine;
mod process;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use machine::{Setup, Target};
use redis_proxy::gate::Gate;
use report::{Sample, Table};

/// One way to load a target with redis-benchmark.
struct Case {
    name: &'static str,
    clients: u32,
    pipeline: u32,
    size: usize,
    requests: u64,
    command: Command,
    tls: bool,
}

#[derive(Clone, Copy)]
enum Command {
    Get,
    Set,
}

const fn get(name: &'static str, clients: u32, pipeline: u32, size: usize, requests: u64) -> Case {
    Case { name, clients, pipeline, size, requests, command: Command::Get, tls: false }
}

const CASES: &[Case] = &[
    get("p1", 50, 1, 100, 150_000),
    get("p16", 50, 16, 100, 1_000_000),
    get("p64", 50, 64, 100, 2_000_000),
    get("c1000", 1000, 1, 100, 150_000),
    get("c1", 1, 1, 100, 30_000),
    get("10k", 50, 1, 10 * 1024, 80_000),
    get("1m", 50, 1, 1024 * 1024, 2_000),
    Case { command: Command::Set, ..get("1m-set", 50, 1, 1024 * 1024, 2_000) },
    Case { tls: true, ..get("tls", 50, 1, 100, 80_000) },
    Case { tls: true, ..get("tls-p16", 50, 16, 100, 500_000) },
    Case { tls: true, ..get("tls-10k", 50, 1, 10 * 1024, 40_000) },
];

struct Options {
    rounds: usize,
    scale: f64,
    baseline: Option<String>,
    only: Vec<String>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return 64.into();
        }
    };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|it| it == name);
    let setup = Setup::start(options.baseline.as_deref());
    println!("{}\n", setup.describe());

    let targets: Vec<Target> = Target::ALL
        .into_iter()
        .filter(|target| *target != Target::Baseline || options.baseline.is_some())
        .collect();
    let mut table = Table::default();
    for case in CASES.iter().filter(|case| wanted(case.name)) {
        for round in 0..options.rounds {
            // Each round begins with another target, so that none has always the warmest place.
            for turn in 0..targets.len() {
                let target = targets[(round + turn) % targets.len()];
                eprint!("\r{:<10} round {} {:<10}", case.name, round + 1, target.name());
                table.add(case.name, target, run(&setup, case, target, options.scale));
            }
        }
    }
    eprint!("\r{:40}\r", "");
    table.print();
    if wanted("idle") {
        println!();
        report::print_idle(&[
            (Target::Haproxy, machine::idle_kib(Target::Haproxy)),
            (Target::Ours, machine::idle_kib(Target::Ours)),
        ]);
    }
    if wanted("64m") {
        println!();
        report::print_large(machine::large_value_kib());
    }
    if wanted("gate") {
        println!();
        report::print_gate(gate_ns(true), gate_ns(false));
    }
    ExitCode::SUCCESS
}

/// What one pass costs, in nanoseconds, with all cores at it: through a shard for each, as workers
/// have, or through one for all.
fn gate_ns(own_shards: bool) -> f64 {
    const PASSES: u32 = 20_000_000;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gate = Gate::new(cores);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for core in 0..cores {
            let mut passes = gate.passes(if own_shards { core } else { 0 });
            scope.spawn(move || {
                for _ in 0..PASSES {
                    assert!(passes.enter().is_ok(), "nobody shuts it");
                    passes.leave(1);
                }
            });
        }
    });
    begun.elapsed().as_nanos() as f64 / f64::from(PASSES)
}

fn run(setup: &Setup, case: &Case, target: Target, scale: f64) -> Sample {
    let requests = ((case.requests as f64 * scale) as u64).max(u64::from(case.clients));
    let mut args = vec![
        "-c".to_owned(),
        case.clients.to_string(),
        "-P".to_owned(),
        case.pipeline.to_string(),
        "-d".to_owned(),
        case.size.to_string(),
        "-n".to_owned(),
        requests.to_string(),
    ];
    let port = setup.port(target, case.tls);
    if case.tls {
        args.extend(["--tls", "--cacert", process::CA].map(str::to_owned));
    }
    let load = |command: &str, args: &[String]| {
        let args = args.iter().map(String::as_str).chain(["-t", command]);
        machine::redis_benchmark(port, args)
    };
    let command = match case.command {
        Command::Get => {
            // The value that is read.
            let mut once = args.clone();
            once.extend(["-c", "1", "-P", "1", "-n", "1"].map(str::to_owned));
            load("set", &once);
            "get"
        }
        Command::Set => "set",
    };
    let before = setup.cpu_seconds(target);
    let measured = load(command, &args);
    let cpu = setup.cpu_seconds(target).zip(before).map(|(after, before)| after - before);
    Sample {
        per_second: measured.per_second,
        p50: measured.p50,
        p99: measured.p99,
        cpu_us: cpu.map(|seconds| seconds * 1e6 / requests as f64),
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options { rounds: 5, scale: 1.0, baseline: None, only: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            // cargo passes this to every benchmark.
            "--rounds" => options.rounds = value()?.parse().map_err(|why| format!("{why}"))?,
            "--scale" => options.scale = value()?.parse().map_err(|why| format!("{why}"))?,
            "--baseline" => options.baseline = Some(value()?),
            case if case.starts_with('-') => return Err(format!("unknown option {case}")),
            case => options.only.push(case.to_owned()),
        }
    }
    Ok(options)
}
