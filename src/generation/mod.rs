//! One immutable, numbered, loaded configuration with its TLS material; and the one in force.

mod endpoint;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, warn};

pub use self::endpoint::{Endpoint, HandshakeError, Shown};
use crate::config::{Address, Draft, Fault, Faulty, Listen, Lookup, Settings};
use crate::discovery::{Directory, Finder, Finding};
use crate::lock::lock;
use crate::resp::encode;
use crate::server::{Info, Replication};
use crate::tls;
use crate::uplink::{self, Dialler, Fresh, Place};

/// For the log.
pub const MAY_NOT_UNBLOCK: &str = "the uplink's user may not use CLIENT UNBLOCK: a reload will wait \
     for commands that wait for data";

/// What is asked of an uplink before it is put in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It serves clients.
    Serving,
    /// It lets the proxy in; it may be loading its data yet.
    Reachable,
}

/// What sessions and listeners hold on to.
#[derive(Debug)]
pub struct Generation {
    /// Counts from 1.
    pub number: u64,
    /// The generation that last changed the uplink: connections made since then are kept.
    pub uplink_since: u64,
    /// The way to the uplink.
    pub uplink: Arc<Dialler>,
    /// How the uplink is found.
    pub directory: Arc<Directory>,
    /// The history of the uplink's data, if it was a master when it was verified, and was asked.
    pub history: Option<String>,
    /// The connection over which the uplink was verified.
    greeted: Mutex<Option<Fresh>>,
    /// Where clients connect.
    pub listen: Endpoint,
    /// Where unmanaged clients connect.
    pub listen_raw: Option<Endpoint>,
    /// The HTTP API.
    pub admin: Option<Endpoint>,
    /// The top level.
    pub settings: Settings,
    /// The file, as it may be shown.
    pub shown: serde_json::Value,
    /// For whoever put it in force: a password is empty, and what was withdrawn by that, or with it.
    pub warnings: Vec<String>,
}

/// What a configuration is loaded for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To see what is wrong with it.
    Check,
    /// To start with it. An uplink that cannot be reached yet is waited for.
    Start,
    /// To put it in force in the place of this one, once the uplink is ready for that.
    Change(&'a Generation, Readiness),
}

/// Loads what `draft` names and connects to the uplink, to report every fault at once.
pub async fn load(draft: Draft, purpose: Purpose<'_>) -> Result<Generation, Vec<Fault>> {
    let Draft { uplink, listen, listen_raw, admin, faulty, settings, .. } = draft;
    let Draft { mut faults, warnings, empty_passwords, shown, .. } = draft;
    for warning in warnings.iter().chain(&empty_passwords) {
        warn!("{warning}");
    }
    let limit = settings.connect_time_limit;
    // Files may be slow, or never come (on a network, or a pipe).
    let loading = spawn_blocking(move || {
        let of_it = |it: &Faulty| tls::verify_files(it.block, &it.files);
        let mut faults: Vec<Fault> = faulty.iter().flat_map(of_it).collect();
        let mut endpoint = |block, listen: Option<Listen>| {
            listen.and_then(|listen| note(Endpoint::new(block, listen), &mut faults))
        };
        let endpoints = (
            endpoint("listen", listen),
            endpoint("listen_raw", listen_raw),
            endpoint("admin", admin),
        );
        let directory = uplink.and_then(|block| note(Directory::new(block, limit), &mut faults));
        (endpoints, directory, faults)
    });
    let Ok(Ok(((listen, listen_raw, admin), directory, more))) = timeout(limit, loading).await
    else {
        let limit = limit.as_millis();
        let why = format!("certificate and key files could not be read within {limit} ms");
        faults.push(Fault::new(why));
        return Err(faults);
    };
    faults.extend(more);
    let found = match directory.map(Arc::new) {
        Some(directory) => note(found(&directory, purpose).await, &mut faults),
        None => None,
    };
    let (Some(found), Some(listen), true) = (found, listen, faults.is_empty()) else {
        return Err(faults);
    };
    let before = purpose.before();
    let withdrawn = before.map(|before| withdrawn(before, &listen, listen_raw.as_ref()));
    let withdrawn = withdrawn.unwrap_or_default();
    for warning in &withdrawn {
        // As loud as can be: it may be a slip.
        error!("{warning}");
    }
    let number = before.map_or(1, |before| before.number + 1);
    let found_at = found.uplink.config.addr.clone();
    let kept = before.filter(|_| found.is_kept);
    Ok(Generation {
        number,
        uplink_since: kept.map_or(number, |before| before.uplink_since),
        uplink: found.uplink,
        directory: found.directory,
        history: found.history,
        greeted: Mutex::new(found.greeted),
        listen,
        listen_raw,
        admin,
        settings,
        shown: with_address(shown, &found_at),
        // A password whose field is left out was withdrawn on purpose: that alone is no warning.
        warnings: match empty_passwords.is_empty() {
            true => Vec::new(),
            false => [empty_passwords, withdrawn].concat(),
        },
    })
}

impl Purpose<'_> {
    fn before(&self) -> Option<&Generation> {
        match self {
            Purpose::Check | Purpose::Start => None,
            Purpose::Change(before, _) => Some(before),
        }
    }
}

/// The uplink, once it was found and greeted.
struct Found {
    directory: Arc<Directory>,
    uplink: Arc<Dialler>,
    /// It is that of the generation before.
    is_kept: bool,
    greeted: Option<Fresh>,
    history: Option<String>,
}

/// Finds the uplink, and connects to it.
async fn found(directory: &Arc<Directory>, purpose: Purpose<'_>) -> Result<Found, Vec<Fault>> {
    let place = find(directory, purpose).await;
    let is_awaited =
        matches!(purpose, Purpose::Start) && !matches!(place, Err(Finding::Refused(_)));
    let uplink = match place {
        Ok(place) => directory.leads_to(&place),
        Err(finding) if is_awaited => {
            warn!(why = finding.why(), "the uplink is not found yet");
            directory.unfound()
        }
        Err(finding) => {
            let (lookup, why) = (&directory.lookup, finding.why());
            Err(Fault::new(format!("could not connect to uplink: {lookup}: {why}")))
        }
    };
    arrive(directory, uplink.map_err(|fault| vec![fault])?, purpose).await
}

/// Connects to the uplink.
async fn arrive(
    directory: &Arc<Directory>,
    uplink: Dialler,
    purpose: Purpose<'_>,
) -> Result<Found, Vec<Fault>> {
    let is_kept = match purpose.before() {
        Some(before) => uplink.goes_on(&before.uplink).await,
        None => false,
    };
    let greeted = greet(&uplink, is_kept, purpose).await;
    let mut greeted = greeted.map_err(|why| vec![uplink.fault(&why)])?;
    let history = match &mut greeted {
        Some(fresh) if directory.wants_master() => history(fresh, uplink.time_limit).await,
        Some(_) | None => None,
    };
    let (directory, uplink) = (directory.clone(), Arc::new(uplink));
    Ok(Found { directory, uplink, is_kept, greeted, history })
}

/// The history of a master's data.
async fn history(fresh: &mut Fresh, limit: Duration) -> Option<String> {
    let question = [encode::request(["INFO", "replication"])];
    let said = timeout(limit, fresh.ask(&question)).await.ok()?.ok()?;
    let replication = Replication::of(&Info::read(&said.concat()));
    replication.is_master.then_some(replication.history.id)
}

/// Where the uplink is. One that is found in the same way as before is where it was: whether it should be
/// elsewhere is found out while clients are served.
async fn find(directory: &Arc<Directory>, purpose: Purpose<'_>) -> Result<Place, Finding> {
    let before = purpose.before();
    if let Lookup::Addr(addr) = &directory.lookup {
        return Ok(Place::from(addr));
    }
    if let Some(before) = before.filter(|it| it.directory.lookup == directory.lookup) {
        directory.goes_on_from(&before.directory);
        return Ok(before.uplink.place());
    }
    let addr = before.map(|before| &before.uplink.config.addr);
    match Finder::new(directory.clone()).find(addr).await {
        Finding::Move(place) => Ok(place),
        other => Err(other),
    }
}

/// Connects to the uplink, for this purpose. Gives a connection to one that serves, unless there is one
/// already.
async fn greet(
    uplink: &Dialler,
    is_kept: bool,
    purpose: Purpose<'_>,
) -> Result<Option<Fresh>, uplink::Error> {
    match purpose {
        Purpose::Check | Purpose::Start => match uplink.verify().await {
            Ok(mut fresh) => {
                if !uplink.may_unblock(&mut fresh).await {
                    warn!("{MAY_NOT_UNBLOCK}");
                }
                Ok(Some(fresh))
            }
            Err(why) if matches!(purpose, Purpose::Start) && why.is_away() => {
                warn!(addr = %uplink.config.addr, %why, "the uplink cannot be reached yet");
                Ok(None)
            }
            Err(why) => Err(why),
        },
        // Whether it answers is no matter: nobody is moved.
        Purpose::Change(_, Readiness::Serving) if is_kept => {
            uplink.verify_in_use().await.map(|()| None)
        }
        // It is the uplink before that matters, and that is asked when the time comes.
        Purpose::Change(_, Readiness::Serving) => uplink.verify().await.map(Some),
        Purpose::Change(_, Readiness::Reachable) => uplink.verify_reachable().await,
    }
}

impl Generation {
    /// What is in force, with the uplink at another place.
    pub async fn moved_to(
        before: &Generation,
        place: &Place,
        readiness: Readiness,
    ) -> Result<Generation, Vec<Fault>> {
        let number = before.number + 1;
        let directory = before.directory.moved_to(place).map_err(|fault| vec![fault])?;
        let uplink = directory.leads_to(place).map_err(|fault| vec![fault])?;
        let found = arrive(&directory, uplink, Purpose::Change(before, readiness)).await?;
        Ok(Generation {
            number,
            uplink_since: if found.is_kept { before.uplink_since } else { number },
            uplink: found.uplink,
            directory: found.directory,
            history: found.history,
            greeted: Mutex::new(found.greeted),
            listen: before.listen.clone(),
            listen_raw: before.listen_raw.clone(),
            admin: before.admin.clone(),
            settings: before.settings.clone(),
            shown: with_address(before.shown.clone(), &place.addr),
            warnings: Vec::new(),
        })
    }

    /// The connection over which the uplink was verified, once, if it was.
    pub fn take_greeted(&self) -> Option<Fresh> {
        lock(&self.greeted).take()
    }
}

#[cfg(test)]
impl Generation {
    /// What this valid configuration says. The uplink is another one with each number, and nobody has looked
    /// whether it serves.
    pub fn unverified(draft: Draft, number: u64) -> Self {
        let uplink = draft.uplink.expect("an uplink");
        let limit = draft.settings.connect_time_limit;
        let directory = Arc::new(Directory::new(uplink, limit).expect("no TLS"));
        Generation {
            number,
            uplink_since: number,
            uplink: Arc::new(directory.unfound().expect("an address")),
            directory,
            history: None,
            greeted: Mutex::default(),
            listen: Endpoint::new("listen", draft.listen.expect("a listener")).expect("no TLS"),
            listen_raw: None,
            admin: None,
            settings: draft.settings,
            shown: draft.shown,
            warnings: Vec::new(),
        }
    }
}

/// The file as it may be shown, with the address at which the uplink was found.
fn with_address(mut shown: serde_json::Value, addr: &Address) -> serde_json::Value {
    let addr = match addr {
        Address::Sought(_) => String::new(),
        Address::Tcp { .. } | Address::Unix(_) => addr.to_string(),
    };
    shown["uplink"]["addr"] = addr.into();
    shown
}

/// What clients need to be let in under `before`, and no more.
fn withdrawn(before: &Generation, listen: &Endpoint, raw: Option<&Endpoint>) -> Vec<String> {
    let asks_for_certificates =
        |it: &Endpoint| it.config.tls.as_ref().is_some_and(|tls| tls.cacertfile.is_some());
    let mut warnings = Vec::new();
    if before.listen.config.login.is_some() && listen.config.login.is_none() {
        warnings.push(
            "listen.pass is withdrawn: so far, clients need a password, and with this \
             configuration they need none"
                .to_owned(),
        );
    }
    let blocks = [
        ("listen", Some(&before.listen), Some(listen)),
        ("listen_raw", before.listen_raw.as_ref(), raw),
    ];
    for (name, before, now) in blocks {
        if before.is_some_and(asks_for_certificates)
            && now.is_some_and(|now| !asks_for_certificates(now))
        {
            warnings.push(format!(
                "{name}.cacertfile is withdrawn: so far, clients need a certificate, and with this \
                 configuration they need none"
            ));
        }
    }
    warnings
}

/// The generation in force, exchanged whole.
#[derive(Debug)]
pub struct Current {
    generation: Mutex<Arc<Generation>>,
    number: AtomicU64,
    exchanged: Notify,
}

impl Current {
    /// Begins with this one.
    pub fn new(generation: Arc<Generation>) -> Self {
        let number = AtomicU64::new(generation.number);
        Current { generation: Mutex::new(generation), number, exchanged: Notify::new() }
    }

    /// The one in force.
    pub fn load(&self) -> Arc<Generation> {
        lock(&self.generation).clone()
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Puts another in force.
    pub fn exchange(&self, generation: Arc<Generation>) {
        let number = generation.number;
        *lock(&self.generation) = generation;
        self.number.store(number, Ordering::Release);
        self.exchanged.notify_waiters();
    }

    /// Completes when another one than that of this number is in force. Cancel safe.
    pub async fn exchanged(&self, number: u64) {
        let exchanged = self.exchanged.notified();
        if self.number() == number {
            exchanged.await;
        }
    }
}

fn note<T>(result: Result<T, Vec<Fault>>, faults: &mut Vec<Fault>) -> Option<T> {
    result.map_err(|more| faults.extend(more)).ok()
}
