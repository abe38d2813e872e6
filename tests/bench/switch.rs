//! `make bench-switch`: what does a switch cost a client?
//!
//! Many clients, each with its own connection, count with INCR at a fixed rate, whether or not the
//! answers come in time: a request that waits is measured from when it was due. At first for a
//! while without reloads, then through reloads between two redis-servers. The sums over both
//! servers must be what the clients counted. With `state`, each client also carries a database, a
//! name and a subscription. With `switch`, the data are moved, too (`cmd=switch`), of which there are
//! so many megabytes before.
//!
//! `bench-switch [--reloads N] [--rate N] [--clients N,N,...] [plain] [tls] [state]
//! [switch] [--data-mb N,N,...]`

#![allow(clippy::unwrap_used, reason = "a benchmark that fails says where")]

mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use process::{CA, Ports, Process, cpu_seconds, memory_kib, proxy_binary, redis};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

/// Without reloads.
const CALM: Duration = Duration::from_secs(20);
/// Between two reloads.
const BETWEEN: Duration = Duration::from_millis(1500);
/// Before and after each reload, what belongs to it.
const AROUND: Duration = Duration::from_millis(500);

struct Options {
    reloads: usize,
    /// Requests a second, of all clients.
    rate: f64,
    clients: Vec<usize>,
    uplinks: Vec<&'static str>,
    state: bool,
    /// The data are moved, too.
    switch: bool,
    /// How much of them there is.
    data_mb: Vec<u64>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        reloads: 20,
        rate: 4000.0,
        clients: vec![50, 1000, 5000],
        uplinks: Vec::new(),
        state: false,
        switch: false,
        data_mb: vec![0],
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--reloads" => options.reloads = value()?.parse().map_err(|_| "--reloads N")?,
            "--rate" => options.rate = value()?.parse().map_err(|_| "--rate N")?,
            "--clients" => {
                let list = value()?;
                let numbers = list.split(',').map(str::parse).collect::<Result<_, _>>();
                options.clients = numbers.map_err(|_| "--clients N,N,...")?;
            }
            "--data-mb" => {
                let list = value()?;
                let numbers = list.split(',').map(str::parse).collect::<Result<_, _>>();
                options.data_mb = numbers.map_err(|_| "--data-mb N,N,...")?;
            }
            "switch" => options.switch = true,
            "plain" => options.uplinks.push("plain"),
            "tls" => options.uplinks.push("tls"),
            "state" => options.state = true,
            other => return Err(format!("unknown: {other}")),
        }
    }
    if options.uplinks.is_empty() {
        options.uplinks = vec!["plain", "tls"];
    }
    Ok(options)
}

/// Two servers, and the proxy in front of one of them.
struct Setup {
    redis: [(Process, Ports); 2],
    proxy: Process,
    listen: u16,
    admin: u16,
    file: std::path::PathBuf,
    tls: bool,
    _dir: tempfile::TempDir,
}

impl Setup {
    fn start(tls: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let redis = [(); 2].map(|()| {
            let ports = Ports::free();
            (redis(ports), ports)
        });
        // Two ports more, for the two listeners.
        let Ports { plain: listen, tls: admin } = Ports::free();
        let file = dir.path().join("config.json");
        fs::write(&file, config(redis[0].1, tls, listen, admin)).unwrap();
        let proxy = Process::start(&proxy_binary(), &["-f", file.to_str().unwrap()]);
        Ports { plain: listen, tls: admin }.wait();
        Setup { redis, proxy, listen, admin, file, tls, _dir: dir }
    }

    fn point_to(&self, server: usize) {
        let text = config(self.redis[server].1, self.tls, self.listen, self.admin);
        fs::write(&self.file, text).unwrap();
    }

    /// Puts so much into the first server.
    fn fill(&self, megabytes: u64) {
        const EACH: u64 = 25;
        for megabyte in 0..megabytes {
            let from = megabyte * EACH;
            let script = format!(
                "for at = {from}, {from} + {EACH} - 1 do \
                 redis.call('SET', 'data:' .. at, string.rep(redis.sha1hex(at), 1000)) end return 1"
            );
            assert_eq!(eval(self.redis[0].1, &script), "1");
        }
    }

    /// What these servers have counted for all clients.
    fn counted(&self, servers: &[usize]) -> u64 {
        let sum = |ports: Ports| {
            let script = "local sum = 0 for db = 0, 15 do redis.call('SELECT', db) \
                          for _, key in ipairs(redis.call('KEYS', 'n:*')) do \
                          sum = sum + redis.call('GET', key) end end return sum";
            eval(ports, script).parse::<u64>().unwrap()
        };
        servers.iter().map(|server| sum(self.redis[*server].1)).sum()
    }
}

/// Runs a script that gives a number, past the proxy.
fn eval(ports: Ports, script: &str) -> String {
    let mut redis = StdStream::connect(("127.0.0.1", ports.plain)).unwrap();
    write!(redis, "*3\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n$1\r\n0\r\n", script.len()).unwrap();
    let mut reply = [0; 512];
    let len = redis.read(&mut reply).unwrap();
    let text = String::from_utf8_lossy(&reply[..len]).into_owned();
    text.trim_start_matches(':').trim().to_owned()
}

fn config(uplink: Ports, tls: bool, listen: u16, admin: u16) -> String {
    let uplink = match tls {
        true => serde_json::json!({
            "addr": format!("localhost:{}", uplink.tls), "tls": true, "cacertfile": CA,
        }),
        false => serde_json::json!({ "addr": format!("127.0.0.1:{}", uplink.plain) }),
    };
    serde_json::json!({
        "uplink": uplink,
        "listen": { "addr": format!("127.0.0.1:{listen}") },
        "admin": { "addr": format!("127.0.0.1:{admin}") },
    })
    .to_string()
}

/// One request: when it was due, and how long it took from then on.
type Sample = (Instant, Duration);

#[derive(Default)]
struct Load {
    samples: Mutex<Vec<Sample>>,
    errors: AtomicU64,
    done: AtomicBool,
}

/// What a client carries.
async fn carry(stream: &mut TcpStream, number: usize) {
    let commands = format!(
        "HELLO 3\r\nSELECT {}\r\nCLIENT SETNAME worker-{number}\r\nSUBSCRIBE news:{number}\r\n\
         ECHO ready\r\n",
        number % 16
    );
    stream.write_all(commands.as_bytes()).await.unwrap();
    let mut replies = Vec::new();
    while !replies.ends_with(b"$5\r\nready\r\n") {
        assert!(stream.read_buf(&mut replies).await.unwrap() > 0, "closed");
    }
}

async fn client(
    number: usize,
    port: u16,
    state: bool,
    (first, every): (Instant, Duration),
    load: Arc<Load>,
) -> u64 {
    let key = format!("n:{number}");
    let request = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len());
    let mut counted = 0;
    let mut samples = Vec::new();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    if state {
        carry(&mut stream, number).await;
    }
    let mut due = first;
    let mut reply = [0; 64];
    while !load.done.load(Ordering::Relaxed) {
        sleep_until(due.into()).await;
        let exchange = async {
            stream.write_all(request.as_bytes()).await?;
            stream.read(&mut reply).await
        };
        match exchange.await {
            Ok(len) if reply[..len].starts_with(b":") => counted += 1,
            // The connection is of no more use.
            Ok(_) | Err(_) => {
                load.errors.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        samples.push((due, due.elapsed()));
        due += every;
    }
    load.samples.lock().await.append(&mut samples);
    counted
}

async fn http(port: u16, head: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The longest and the 99.9th percentile, in milliseconds.
fn worst(samples: &[Sample], windows: &[(Instant, Instant)]) -> (f64, f64) {
    let inside = |at: &Instant| windows.iter().any(|(from, to)| from <= at && at <= to);
    let mut times: Vec<Duration> =
        samples.iter().filter(|(due, _)| inside(due)).map(|(_, time)| *time).collect();
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    (at(1.0), at(0.999))
}

struct Row {
    clients: usize,
    uplink: &'static str,
    data_mb: u64,
    errors: u64,
    lost: i64,
    calm: (f64, f64),
    switching: (f64, f64),
    /// Median and longest, in milliseconds.
    shut: (f64, f64),
    reload_ms: f64,
    /// Cores in use, calm and switching.
    cpu: (f64, f64),
    /// Resident memory for each client, in KiB, before any switch.
    memory: f64,
}

async fn run(clients: usize, uplink: &'static str, data_mb: u64, options: &Options) -> Row {
    let setup = Setup::start(uplink == "tls");
    setup.fill(data_mb);
    let load = Arc::new(Load::default());
    let every = Duration::from_secs_f64(clients as f64 / options.rate);
    let mut tasks = JoinSet::new();
    let empty = memory_kib(setup.proxy.pid(), "VmRSS");
    let start = Instant::now() + Duration::from_secs(2 + clients as u64 / 2000);
    for number in 0..clients {
        let first = start + every.mul_f64(number as f64 / clients as f64);
        let (port, state) = (setup.listen, options.state);
        tasks.spawn(client(number, port, state, (first, every), load.clone()));
    }
    // All have sent something, and have their uplink connections: for thousands with TLS, that
    // takes some seconds.
    let warm = Duration::from_secs(2 + clients as u64 / 400);
    sleep_until((start + every + warm).into()).await;
    let cpu = || cpu_seconds(setup.proxy.pid());
    let memory = memory_kib(setup.proxy.pid(), "VmRSS") - empty;
    let (calm_begun, cpu_begun) = (Instant::now(), cpu());
    sleep(CALM).await;
    let (calm_ended, cpu_calm) = (Instant::now(), cpu());
    let (command, records, shut) = match options.switch {
        true => ("switch", "switches", "held_ms"),
        false => ("reload", "reloads", "pause_ms"),
    };
    let mut windows = Vec::new();
    let mut reloads = Vec::new();
    for number in 0..options.reloads {
        setup.point_to((number + 1) % 2);
        let begun = Instant::now();
        let answer = http(setup.admin, "POST /cmd/", &format!("cmd={command}")).await;
        windows.push((begun - AROUND, Instant::now() + AROUND));
        assert_eq!(answer["ok"], true, "{answer}");
        let info = http(setup.admin, "GET /info.json", "").await;
        reloads.push(info[records][0].clone());
        sleep(BETWEEN).await;
    }
    let (switched, cpu_switched) = (Instant::now(), cpu());
    load.done.store(true, Ordering::Relaxed);
    let counted: u64 = tasks.join_all().await.into_iter().sum();
    // Both have it all where the data are moved.
    let present = options.reloads % 2;
    let servers: &[usize] = if options.switch { &[present] } else { &[0, 1] };
    let samples = load.samples.lock().await;
    let field = |name: &str| {
        let mut values: Vec<f64> =
            reloads.iter().map(|reload| reload[name].as_f64().unwrap()).collect();
        values.sort_by(f64::total_cmp);
        (values[values.len() / 2], values[values.len() - 1])
    };
    let cores = |cpu: f64, time: Duration| cpu / time.as_secs_f64();
    Row {
        clients,
        uplink,
        data_mb,
        errors: load.errors.load(Ordering::Relaxed),
        lost: counted as i64 - setup.counted(servers) as i64,
        calm: worst(&samples, &[(calm_begun, calm_ended)]),
        switching: worst(&samples, &windows),
        shut: field(shut),
        reload_ms: field("duration_ms").0,
        memory: memory as f64 / clients as f64,
        cpu: (
            cores(cpu_calm - cpu_begun, calm_ended - calm_begun),
            cores(cpu_switched - cpu_calm, switched - calm_ended),
        ),
    }
}

fn main() {
    let options = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            std::process::exit(64);
        }
    };
    let what = if options.switch { "switches of clients and data" } else { "reloads" };
    println!("{} {what} each, {} requests/s, times in ms\n", options.reloads, options.rate);
    println!(
        "| clients | uplink | data: MB | errors | lost or doubled | stall: calm | switching | p99.9: calm | \
         switching | gate shut: median | longest | reload: median | cores: calm | switching | \
         KiB each |"
    );
    println!("|{}", "--:|".repeat(15));
    for &clients in &options.clients {
        let sizes = |uplink| options.data_mb.iter().map(move |size| (uplink, *size));
        for (uplink, data_mb) in options.uplinks.iter().flat_map(sizes) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let row = runtime.block_on(run(clients, uplink, data_mb, &options));
            println!(
                "| {} | {} | {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {:.2} | {:.0} | \
                 {:.2} | {:.2} | {:.2} |",
                row.clients,
                row.uplink,
                row.data_mb,
                row.errors,
                row.lost,
                row.calm.0,
                row.switching.0,
                row.calm.1,
                row.switching.1,
                row.shut.0,
                row.shut.1,
                row.reload_ms,
                row.cpu.0,
                row.cpu.1,
                row.memory,
            );
        }
    }
}
