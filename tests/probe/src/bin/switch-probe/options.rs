//! The command line, and a proxy that is asked along.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use probe::admin::{Admin, AdminError};
use probe::arguments::{clients, rate, seconds};
use probe::target::{Target, Tls};
use probe::{PATIENCE, Plan};
use secrecy::SecretString;

const PASS: &str = "REDIS_PROBE_PASS";
const ADMIN_PASS: &str = "REDIS_PROBE_ADMIN_PASS";

/// Runs clients of several kinds through a Redis, or a proxy, and says whether anything was lost,
/// doubled, out of order, or ended in an error: to be run while what is behind the address is
/// replaced.
///
/// The password is read from the environment, REDIS_PROBE_PASS, or from a file.
/// Exit codes: 0 nothing was wrong, 1 something was, 64 wrong usage, 69 cannot begin.
#[derive(Debug, Parser)]
#[command(name = "switch-probe", version)]
pub struct Options {
    /// Where to connect
    #[arg(long, value_name = "HOST:PORT")]
    pub addr: String,

    /// Speak TLS
    #[arg(long)]
    tls: bool,

    /// Whom to trust (PEM); without it, whom this machine trusts
    #[arg(long, value_name = "FILE", requires = "tls")]
    cacert: Option<PathBuf>,

    /// Accept any certificate
    #[arg(long, requires = "tls")]
    skipverify: bool,

    /// The clients' own certificate (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["tls", "key"])]
    cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// The user; without it, the default user
    #[arg(long)]
    user: Option<String>,

    /// A file with the password
    #[arg(long, value_name = "FILE")]
    pass_file: Option<PathBuf>,

    /// How many clients, 11 at least
    #[arg(long, default_value_t = 50, value_parser = clients)]
    clients: usize,

    /// How long; without it, until Ctrl-C
    #[arg(long, value_parser = seconds)]
    pub seconds: Option<f64>,

    /// Operations a second that all clients begin together
    #[arg(long, default_value_t = 2000.0, value_parser = rate)]
    rate: f64,

    /// Seconds that a client waits for an answer before it counts an error
    #[arg(long, default_value_t = PATIENCE.as_secs_f64(), value_parser = seconds)]
    patience: f64,

    /// What all keys and channels begin with; without it, a name that nobody else has
    #[arg(long)]
    prefix: Option<String>,

    /// The proxy's HTTP API, to show what it does and say how long requests were held; a password
    /// is read from REDIS_PROBE_ADMIN_PASS
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

fn from_environment(name: &str) -> Option<SecretString> {
    std::env::var(name).ok().filter(|pass| !pass.is_empty()).map(SecretString::from)
}

impl Options {
    /// What is run.
    pub fn plan(&self) -> io::Result<Plan> {
        let pass = match &self.pass_file {
            None => from_environment(PASS),
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|why| {
                    io::Error::new(why.kind(), format!("could not read {}: {why}", file.display()))
                })?;
                Some(SecretString::from(text.trim_end_matches(['\r', '\n'])))
            }
        };
        let tls = self.tls.then(|| Tls {
            cacert: self.cacert.clone(),
            skip_verify: self.skipverify,
            identity: self.cert.clone().zip(self.key.clone()),
        });
        let target = Target { addr: self.addr.clone(), tls, user: self.user.clone(), pass };
        let (clients, rate, prefix) = (self.clients, self.rate, self.prefix.clone());
        let patience = Duration::from_secs_f64(self.patience);
        Ok(Plan { targets: vec![target], clients, rate, patience, prefix, crashes: false })
    }

    /// The proxy that is asked along.
    pub fn admin(&self) -> Result<Option<Beside>, AdminError> {
        let Some(url) = &self.admin else { return Ok(None) };
        let beside = Beside {
            admin: Admin::new(url, from_environment(ADMIN_PASS))?,
            begun: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            held: BTreeMap::new(),
        };
        beside.admin.info()?;
        Ok(Some(beside))
    }
}

/// A proxy, and what it did since this began.
pub struct Beside {
    admin: Admin,
    begun: f64,
    /// How long requests were held, by what did it and when it ended.
    held: BTreeMap<(&'static str, Duration), Duration>,
}

impl Beside {
    /// What it does now.
    pub fn look(&mut self) -> String {
        let info = match self.admin.info() {
            Ok(info) => info,
            Err(why) => return format!("; {why}"),
        };
        for (list, field) in [("switches", "held_ms"), ("reloads", "pause_ms")] {
            for record in info[list].as_array().into_iter().flatten() {
                let at = record["at_unix_seconds"].as_f64().filter(|at| *at >= self.begun);
                let (Some(at), Some(ms)) = (at, record[field].as_f64()) else { continue };
                let [at, held] = [at, ms / 1e3].map(Duration::try_from_secs_f64);
                if let (Ok(at), Ok(held)) = (at, held) {
                    self.held.insert((list, at), held);
                }
            }
        }
        match info["switching"]["stage"].as_str() {
            Some(stage) => format!("; switching: {stage}"),
            None => String::new(),
        }
    }

    /// How long requests were held, each time.
    pub fn held(self) -> Vec<Duration> {
        self.held.into_values().collect()
    }
}
