//! Who is the uplink: a name is looked up, servers are asked for their role, Sentinels for the master's address.
//!
//! - `sentinel`: Sentinels are asked, and listened to
//! - `choice`: what follows from what was heard (pure)

mod choice;
mod sentinel;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

pub use self::choice::{Finding, Present, ServerState};
use self::choice::{Heard, Named, first_of_addrs, of_addrs, of_name, of_sentinel};
use self::sentinel::{ANSWERS_WITHIN, MOST, Sentinels};
use crate::config::{Address, Fault, Lookup, Uplink, UplinkBlock};
use crate::dial;
use crate::lock::lock;
use crate::server::{Info, Replication, Server, within};
use crate::uplink::{Dialler, Place};

/// How the uplink is found, with the TLS material for that.
#[derive(Debug)]
pub struct Directory {
    /// What the configuration says.
    pub lookup: Lookup,
    /// The way to any of the servers, but for its address.
    servers: Dialler,
    /// The way to any of the Sentinels, but for its address.
    sentinels: Option<Dialler>,
    /// Sentinels that others have told of.
    learnt: Mutex<Vec<Address>>,
    /// The highest epoch that Sentinels have told.
    epoch: Mutex<u64>,
}

impl Directory {
    /// Loads the TLS material; connects nowhere.
    pub fn new(block: UplinkBlock, limit: Duration) -> Result<Self, Vec<Fault>> {
        let UplinkBlock { lookup, login, tls } = block;
        let addr = match &lookup {
            Lookup::Addr(addr) => addr.clone(),
            Lookup::Addrs(_) | Lookup::Sentinel(_) => Address::Sought(lookup.to_string()),
        };
        let servers = Dialler::new("uplink", Uplink { addr, login, tls }, limit);
        let sentinels = match &lookup {
            Lookup::Addr(_) | Lookup::Addrs(_) => None,
            Lookup::Sentinel(it) => {
                let (login, tls) = (it.login.clone(), it.tls.clone());
                let addr = Address::Sought(lookup.to_string());
                Some(Dialler::new("uplink.sentinel", Uplink { addr, login, tls }, limit))
            }
        };
        let (servers, sentinels) = match (servers, sentinels.transpose()) {
            (Ok(servers), Ok(sentinels)) => (servers, sentinels),
            (servers, sentinels) => {
                let faults = [servers.err(), sentinels.err()];
                return Err(faults.into_iter().flatten().flatten().collect());
            }
        };
        let (learnt, epoch) = (Mutex::default(), Mutex::default());
        Ok(Directory { lookup, servers, sentinels, learnt, epoch })
    }

    /// Goes on with what was learnt before, where the lookup is the same.
    pub fn goes_on_from(&self, before: &Directory) {
        if self.lookup == before.lookup {
            lock(&self.learnt).clone_from(&lock(&before.learnt));
            *lock(&self.epoch) = *lock(&before.epoch);
        }
    }

    /// What is to be dialled before anything was found.
    pub fn unfound(&self) -> Result<Dialler, Fault> {
        self.leads_to(&self.servers.place())
    }

    /// The way to the uplink, which is there.
    pub fn leads_to(&self, place: &Place) -> Result<Dialler, Fault> {
        self.servers.at(place)
    }

    /// How the uplink is found once it was moved to this place: one that is found by its address is there.
    pub fn moved_to(self: &Arc<Self>, place: &Place) -> Result<Arc<Self>, Fault> {
        match &self.lookup {
            Lookup::Addr(addr) if *addr != place.addr => Ok(Arc::new(Directory {
                lookup: Lookup::Addr(place.addr.clone()),
                servers: self.servers.at(place)?,
                sentinels: None,
                learnt: Mutex::default(),
                epoch: Mutex::default(),
            })),
            Lookup::Addr(_) | Lookup::Addrs(_) | Lookup::Sentinel(_) => Ok(self.clone()),
        }
    }

    /// Whether the uplink can be nowhere else than where the configuration says.
    pub fn is_fixed(&self) -> bool {
        match &self.lookup {
            Lookup::Addr(addr) => is_literal(addr),
            Lookup::Addrs(_) | Lookup::Sentinel(_) => false,
        }
    }

    /// Whether only a master can be the uplink.
    pub fn wants_master(&self) -> bool {
        !matches!(self.lookup, Lookup::Addr(_))
    }
}

/// Finds the uplink, again and again, over connections that are kept.
#[derive(Debug)]
pub struct Finder {
    directory: Arc<Directory>,
    servers: Vec<(Place, Server)>,
    sentinels: Option<Sentinels>,
    /// How long a server, a Sentinel or a resolver may take to answer. The others need not wait for it.
    patience: Duration,
}

impl Finder {
    /// Connects when it looks.
    pub fn new(directory: Arc<Directory>) -> Self {
        let sentinels = match (&directory.lookup, &directory.sentinels) {
            (Lookup::Sentinel(config), Some(base)) => {
                let learnt = lock(&directory.learnt).clone();
                Some(Sentinels::new(config, learnt, base))
            }
            _ => None,
        };
        Finder { directory, servers: Vec::new(), sentinels, patience: ANSWERS_WITHIN }
    }

    /// As [`Finder::new`], and hears of it when Sentinels name another master.
    pub fn listening(directory: Arc<Directory>) -> Self {
        let mut finder = Finder::new(directory);
        if let Some(sentinels) = &mut finder.sentinels {
            sentinels.listen();
        }
        finder
    }

    /// Looks for the uplink where nothing is known of it yet, but that it was at `before`. Whoever is slow is given
    /// time, where nobody is found without that.
    pub async fn find(&mut self, before: Option<&Address>) -> Finding {
        match self.find_once(before).await {
            found @ (Finding::Move(_) | Finding::Refused(_)) => return found,
            Finding::Stay | Finding::Nobody(_) | Finding::Disputed { .. } => {}
        }
        self.patience = self.directory.servers.time_limit;
        self.find_once(before).await
    }

    async fn find_once(&mut self, before: Option<&Address>) -> Finding {
        let directory = self.directory.clone();
        let Lookup::Addrs(addrs) = &directory.lookup else { return self.look(None).await };
        let heard = self.ask(addrs.iter().map(Place::from).collect()).await;
        first_of_addrs(before, &heard)
    }

    /// Looks who should be the uplink, where `present` is it now.
    pub async fn look(&mut self, present: Option<&Present>) -> Finding {
        let directory = self.directory.clone();
        match &directory.lookup {
            Lookup::Addr(addr) => self.look_up(addr, present).await,
            Lookup::Addrs(addrs) => {
                let is_other = |place: &Place| present.is_none_or(|it| it.place.addr != place.addr);
                let others = addrs.iter().map(Place::from).filter(is_other).collect();
                let finding = of_addrs(present, &self.ask(others).await);
                self.or_under_its_name(finding, present).await
            }
            Lookup::Sentinel(config) => {
                let Some(sentinels) = &mut self.sentinels else { return Finding::Stay };
                let seen = *lock(&directory.epoch);
                let named = Named { told: sentinels.ask(self.patience).await, seen };
                if let Some(newest) = named.newest() {
                    *lock(&directory.epoch) = newest;
                }
                *lock(&directory.learnt) = sentinels.addrs();
                let is_other = |place: &Place| present.is_none_or(|it| it.place.addr != place.addr);
                let others = named.places().filter(is_other).collect();
                let heard = self.ask(others).await;
                let finding = of_sentinel(present, &config.master, &named, &heard);
                self.or_under_its_name(finding, present).await
            }
        }
    }

    /// Where no other server was found in the place of one that is lost: under its name, it may have got another
    /// address.
    async fn or_under_its_name(&mut self, finding: Finding, present: Option<&Present>) -> Finding {
        let Some(lost) = present.filter(|it| !it.is_up) else { return finding };
        if matches!(finding, Finding::Move(_)) || is_literal(&lost.place.addr) {
            return finding;
        }
        match self.look_up(&lost.place.addr, present).await {
            renamed @ Finding::Move(_) => renamed,
            _ => finding,
        }
    }

    async fn look_up(&mut self, addr: &Address, present: Option<&Present>) -> Finding {
        let found = timeout(self.patience, dial::resolve(addr)).await;
        let addrs = match found {
            Ok(Ok(addrs)) => addrs,
            Ok(Err(why)) => return Finding::Nobody(why.to_string()),
            Err(_) => return Finding::Nobody(format!("could not resolve {addr} in time")),
        };
        let pin = present.and_then(|it| it.place.pin);
        let stands_for_present = pin.is_some_and(|pin| addrs.contains(&pin));
        if present.is_some_and(|it| it.is_up) && stands_for_present {
            return Finding::Stay;
        }
        let place = |at| Place { addr: addr.clone(), pin: Some(at) };
        let others = addrs.into_iter().filter(|at| Some(*at) != pin).take(MOST).map(place);
        of_name(present, &self.ask(others.collect()).await)
    }

    /// Asks the servers at these places who they are.
    async fn ask(&mut self, places: Vec<Place>) -> Vec<Heard> {
        self.servers.retain(|(place, _)| places.contains(place));
        for place in places {
            if self.servers.iter().all(|(known, _)| *known != place)
                && let Ok(dialler) = self.directory.leads_to(&place)
            {
                self.servers.push((place, Server::new(Arc::new(dialler))));
            }
        }
        let patience = self.patience;
        let asked = self.servers.iter_mut().map(async |(place, server)| {
            let state = who(server, patience).await.map(|info| ServerState::of(&info));
            Heard { place: place.clone(), state }
        });
        join_all(asked).await
    }

    /// Asks the replicas that are known, but the server at `present`, for what they have.
    pub async fn replicas(&mut self, present: &Address) -> Result<KnownReplicas, String> {
        let directory = self.directory.clone();
        let addrs = match (&directory.lookup, &mut self.sentinels) {
            (Lookup::Addrs(addrs), _) => addrs.clone(),
            (Lookup::Sentinel(_), Some(sentinels)) => {
                sentinels.replicas().await?.into_iter().map(|it| it.addr).collect()
            }
            _ => Vec::new(),
        };
        let mut known = KnownReplicas::default();
        for addr in addrs.into_iter().filter(|addr| addr != present) {
            let place = Place::from(&addr);
            let said = match self.server(&place) {
                Ok(mut server) => who(&mut server, self.patience).await,
                Err(why) => Err(why),
            };
            known.add(place, said);
        }
        Ok(known)
    }

    /// The server at this place.
    pub fn server(&self, place: &Place) -> Result<Server, String> {
        let dialler = self.directory.leads_to(place).map_err(|why| why.to_string())?;
        Ok(Server::new(Arc::new(dialler)))
    }

    /// The replicas that the Sentinels would promote.
    pub async fn eligible(&mut self) -> Result<Vec<Address>, String> {
        let Some(sentinels) = &mut self.sentinels else { return Ok(Vec::new()) };
        let replicas = sentinels.replicas().await?;
        Ok(replicas.into_iter().filter(|it| it.is_eligible).map(|it| it.addr).collect())
    }

    /// Has the Sentinels begin a failover.
    pub async fn fail_over(&mut self) -> Result<(), String> {
        match &mut self.sentinels {
            Some(sentinels) => sentinels.fail_over().await,
            None => Err("there is no Sentinel".to_owned()),
        }
    }

    /// Where the master is after a failover that the Sentinels have begun; `None` while that goes on.
    pub async fn outcome(&mut self) -> Result<Option<Address>, String> {
        match &mut self.sentinels {
            Some(sentinels) => sentinels.outcome().await,
            None => Err("there is no Sentinel".to_owned()),
        }
    }

    /// Completes when a Sentinel has told of another master. Cancel safe.
    pub async fn told(&self) {
        match &self.sentinels {
            Some(sentinels) => sentinels.told.notified().await,
            None => std::future::pending().await,
        }
    }
}

/// What a server says of itself and of replication, or why it says nothing.
async fn who(server: &mut Server, patience: Duration) -> Result<Info, String> {
    let said = within(patience, server.sections(&["server", "replication"])).await;
    said.map_err(|why| why.to_string())
}

/// A replica that is in step with its master.
#[derive(Debug, Clone)]
pub struct KnownReplica {
    /// Where it is.
    pub place: Place,
    /// The history of its data.
    pub history: String,
    /// How much of it the replica has.
    pub applied: u64,
    /// The lower, the better; 0: it must not be promoted.
    pub priority: u64,
    /// Another one at each start of the server.
    pub run_id: String,
}

/// What the replicas have said.
#[derive(Debug, Default)]
pub struct KnownReplicas {
    /// Those that could be promoted.
    pub fit: Vec<KnownReplica>,
    /// Why others could not, in words.
    unfit: Vec<String>,
}

impl KnownReplicas {
    fn add(&mut self, place: Place, said: Result<Info, String>) {
        let addr = place.addr.clone();
        let info = match said {
            Ok(info) => info,
            Err(why) => return self.unfit.push(format!("{addr}: {why}")),
        };
        let replication = Replication::of(&info);
        match (replication.is_master, replication.is_synchronised()) {
            (true, _) => self.unfit.push(format!("{addr} is a master")),
            (false, false) => self.unfit.push(format!("{addr} is not in step with its master")),
            (false, true) => self.fit.push(KnownReplica {
                place,
                history: replication.history.id,
                applied: replication.applied,
                priority: info.number("slave_priority").unwrap_or(100),
                run_id: info.text("run_id").unwrap_or_default().to_owned(),
            }),
        }
    }

    /// What is known of all of them, in words.
    pub fn others(&self) -> String {
        let fit = self.fit.iter().map(|it| match it.priority {
            0 => format!("{} has the priority 0", it.place.addr),
            _ => format!("{} is a replica that is in step with its master", it.place.addr),
        });
        let all: Vec<String> = fit.chain(self.unfit.iter().cloned()).collect();
        if all.is_empty() { "none is known".to_owned() } else { all.join("; ") }
    }
}

/// Whether this is no name, which may come to stand for another server.
fn is_literal(addr: &Address) -> bool {
    match addr {
        Address::Tcp { host, .. } => host.parse::<std::net::IpAddr>().is_ok(),
        Address::Unix(_) | Address::Sought(_) => true,
    }
}

impl ServerState {
    fn of(info: &Info) -> Self {
        let replication = Replication::of(info);
        ServerState {
            run_id: info.text("run_id").unwrap_or_default().to_owned(),
            is_master: replication.is_master,
            history: replication.history.id,
            earlier: replication.earlier,
            offset: replication.history.offset,
        }
    }
}
