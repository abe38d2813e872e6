//! Who should be the uplink, by what servers and Sentinels have said. Pure.

use crate::config::Address;
use crate::server::History;
use crate::uplink::Place;

/// The present uplink, as far as it is known.
#[derive(Debug, Clone)]
pub struct Present {
    /// Where it is.
    pub place: Place,
    /// It is not lost.
    pub is_up: bool,
    /// It is a master; `None` if it did not tell.
    pub is_master: Option<bool>,
    /// Another one at each start of the server.
    pub run_id: Option<String>,
    /// The history of its data, as it told when it was a master.
    pub history: Option<String>,
    /// As a replica, which it has become: the history that it follows.
    pub follows: Option<String>,
    /// The histories of servers that were masters beside it: they lack what was written to it since.
    pub forks: Vec<String>,
}

impl Present {
    /// It takes clients' writes, as far as is known.
    fn serves(&self) -> bool {
        self.is_up && self.is_master != Some(false)
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    pub(super) run_id: String,
    pub(super) is_master: bool,
    /// Its data's history, and the one before it was promoted.
    pub(super) history: String,
    pub(super) earlier: Option<History>,
    /// How much was written.
    pub(super) offset: u64,
}

impl ServerState {
    /// It has what the server with this history has written.
    fn has(&self, history: &str) -> bool {
        let earlier = self.earlier.as_ref().map(|it| it.id.as_str());
        !history.is_empty() && (self.history == history || earlier == Some(history))
    }
}

/// What was heard of the server at a place.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) place: Place,
    /// What it says, or why it says nothing.
    pub(super) state: Result<ServerState, String>,
}

/// What one Sentinel says.
#[derive(Debug, Clone)]
pub(super) struct Told {
    /// The Sentinel.
    pub(super) by: Address,
    /// The master's address, or why there is none.
    pub(super) master: Result<Address, Untold>,
    /// How new that is: the highest counts.
    pub(super) epoch: u64,
}

/// Why a Sentinel does not tell the master's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Untold {
    /// It knows no master of that name.
    UnknownName,
    /// It refuses the question or the password.
    Refused(String),
    /// It does not answer.
    Away(String),
}

/// What the Sentinels say.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    /// What each of them says.
    pub(super) told: Vec<Told>,
    /// The highest epoch that any has told before: whoever tells a lower one has missed a failover.
    pub(super) seen: u64,
}

impl Named {
    /// Where the master is, as the newest of what the Sentinels know.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        let newest = self.newest();
        let mut addrs: Vec<&Address> = Vec::new();
        for (addr, epoch) in self.answers() {
            if Some(epoch) == newest && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
        addrs.into_iter().map(Place::from)
    }

    fn answers(&self) -> impl Iterator<Item = (&Address, u64)> {
        self.told.iter().filter_map(|it| Some((it.master.as_ref().ok()?, it.epoch)))
    }

    /// The highest epoch that is told, if it is to be believed. Where most Sentinels begin with lower ones, they were
    /// set up anew.
    pub(super) fn newest(&self) -> Option<u64> {
        self.answers().map(|(_, epoch)| epoch).max().filter(|it| self.believes(*it))
    }

    fn believes(&self, epoch: u64) -> bool {
        epoch >= self.seen || self.answers().count() * 2 > self.told.len()
    }
}

/// What a look for the uplink has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The uplink is where it is.
    Stay,
    /// The uplink is there.
    Move(Place),
    /// Nobody is known who could be it in the place of the present one; and why, in words.
    Nobody(String),
    /// As [`Finding::Nobody`]. What is wrong is how it was asked: it will not get better by itself.
    Refused(String),
    /// Several servers could be the uplink, and nobody can tell which.
    Disputed {
        /// Which, in words.
        why: String,
        /// The histories of those that are masters beside an uplink that serves.
        forks: Vec<String>,
    },
}

impl Finding {
    /// Why the uplink was not found at another place; empty if it was, or if it was not looked for.
    pub fn why(&self) -> &str {
        match self {
            Finding::Stay | Finding::Move(_) => "",
            Finding::Nobody(why) | Finding::Refused(why) | Finding::Disputed { why, .. } => why,
        }
    }

    fn at(place: &Place) -> Self {
        Finding::Move(place.clone())
    }

    fn disputed(why: String) -> Self {
        Finding::Disputed { why, forks: Vec::new() }
    }
}

/// The uplink's name stands for these other servers.
pub(super) fn of_name(present: Option<&Present>, others: &[Heard]) -> Finding {
    let states = || others.iter().filter_map(|it| Some((&it.place, it.state.as_ref().ok()?)));
    // One server may have several addresses.
    let is_present = |state: &ServerState| {
        present.is_some_and(|it| it.is_up && it.run_id.as_ref() == Some(&state.run_id))
    };
    if states().any(|(_, state)| is_present(state)) {
        return Finding::Stay;
    }
    let was_master = present.is_none_or(|it| it.is_master != Some(false));
    match states().find(|(_, state)| state.is_master || !was_master) {
        Some((place, _)) => Finding::at(place),
        None => Finding::Nobody(said(others)),
    }
}

/// Of a list of servers, these are not the present uplink.
pub(super) fn of_addrs(present: Option<&Present>, others: &[Heard]) -> Finding {
    let masters = masters(others);
    let Some(present) = present else { return first_of(&masters, others) };
    let is_other =
        |(_, state): &&(&Place, &ServerState)| present.run_id.as_ref() != Some(&state.run_id);
    let strangers = masters.iter().filter(is_other).map(|(place, _)| &place.addr);
    if present.serves() {
        let mut all: Vec<&Address> = strangers.collect();
        if all.is_empty() {
            return Finding::Stay;
        }
        all.insert(0, &present.place.addr);
        let histories = masters.iter().filter(is_other).map(|(_, state)| state.history.clone());
        return Finding::Disputed { why: several(&all), forks: histories.collect() };
    }
    let Some(history) = &present.history else {
        return Finding::Nobody("the history of the uplink's data is not known yet".to_owned());
    };
    let is_fork = |state: &ServerState| present.forks.contains(&state.history);
    let follows = |state: &ServerState| present.follows.as_ref() == Some(&state.history);
    let is_heir = |state: &ServerState| state.has(history) && (!is_fork(state) || follows(state));
    let heirs: Vec<_> = masters.iter().filter(|(_, state)| is_heir(state)).collect();
    match (&heirs[..], &masters[..]) {
        ([(place, _)], _) => Finding::at(place),
        ([], []) => Finding::Nobody(said(others)),
        ([], [..]) => {
            let addrs: Vec<&Address> = masters.iter().map(|(place, _)| &place.addr).collect();
            Finding::Nobody(format!(
                "{} calls itself a master, but has not the data of {}, or not all",
                listed(&addrs),
                present.place.addr
            ))
        }
        ([..], _) => {
            let addrs: Vec<&Address> = heirs.iter().map(|(place, _)| &place.addr).collect();
            Finding::disputed(several(&addrs))
        }
    }
}

/// Of a list of servers, these are all. The uplink was at `before`.
pub(super) fn first_of_addrs(before: Option<&Address>, all: &[Heard]) -> Finding {
    let masters = masters(all);
    match masters.iter().find(|(place, _)| Some(&place.addr) == before) {
        Some((place, _)) => Finding::at(place),
        None => first_of(&masters, all),
    }
}

fn masters(heard: &[Heard]) -> Vec<(&Place, &ServerState)> {
    let states = heard.iter().filter_map(|it| Some((&it.place, it.state.as_ref().ok()?)));
    states.filter(|(_, state)| state.is_master).collect()
}

/// Nothing is known of an uplink before.
fn first_of(masters: &[(&Place, &ServerState)], all: &[Heard]) -> Finding {
    let is_heir = |(_, state): &&(&Place, &ServerState)| {
        let others = masters.iter().filter(|(_, other)| other.run_id != state.run_id);
        // What was written there since the promotion, it has not.
        let has_all_of = |other: &ServerState| {
            let earlier = state.earlier.as_ref();
            earlier.is_some_and(|it| it.id == other.history && it.offset >= other.offset)
        };
        others.into_iter().all(|(_, other)| has_all_of(other))
    };
    match (masters, masters.iter().find(is_heir)) {
        ([], _) => Finding::Nobody(said(all)),
        (_, Some((place, _))) => Finding::at(place),
        (_, None) => {
            let addrs: Vec<&Address> = masters.iter().map(|(place, _)| &place.addr).collect();
            Finding::disputed(several(&addrs))
        }
    }
}

/// The Sentinels have named these servers, or the present uplink.
pub(super) fn of_sentinel(
    present: Option<&Present>,
    master: &str,
    named: &Named,
    others: &[Heard],
) -> Finding {
    let places: Vec<Place> = named.places().collect();
    if places.is_empty() {
        let is_away = |it: &Told| matches!(it.master, Err(Untold::Away(_)));
        let why = untold(master, named);
        return match named.told.iter().any(is_away) {
            true => Finding::Nobody(why),
            false => Finding::Refused(why),
        };
    }
    let is_present = |place: &Place| present.is_some_and(|it| it.place.addr == place.addr);
    let is_named = places.iter().any(is_present);
    let masters = masters(others);
    let is_same = |state: &ServerState| {
        present.is_some_and(|it| it.is_up && it.run_id.as_ref() == Some(&state.run_id))
    };
    match &masters[..] {
        _ if is_named && present.is_some_and(Present::serves) => match masters.is_empty() {
            true => Finding::Stay,
            false => Finding::disputed(disagree(&places)),
        },
        [] if is_named => Finding::Nobody("the Sentinels know no other master".to_owned()),
        [] => Finding::Nobody(said(others)),
        [(_, state)] if is_same(state) => Finding::Stay,
        [(place, _)] => Finding::at(place),
        [..] => Finding::disputed(disagree(&places)),
    }
}

fn several(addrs: &[&Address]) -> String {
    format!("several servers call themselves masters: {}", listed(addrs))
}

fn disagree(places: &[Place]) -> String {
    let addrs: Vec<&Address> = places.iter().map(|place| &place.addr).collect();
    format!("the Sentinels name different masters: {}", listed(&addrs))
}

fn listed(addrs: &[&Address]) -> String {
    addrs.iter().map(|addr| addr.to_string()).collect::<Vec<_>>().join(", ")
}

/// Why none of these is a master.
fn said(all: &[Heard]) -> String {
    let each = all.iter().map(|it| match &it.state {
        Ok(state) if state.is_master => format!("{} is a master", it.place.addr),
        Ok(_) => format!("{} is a replica", it.place.addr),
        Err(why) => format!("{}: {why}", it.place.addr),
    });
    let each: Vec<String> = each.collect();
    if each.is_empty() { "no other server is known".to_owned() } else { each.join("; ") }
}

/// Why no Sentinel has named a master.
fn untold(master: &str, named: &Named) -> String {
    let each = named.told.iter().map(|it| match &it.master {
        Ok(addr) => format!(
            "Sentinel {} has missed a failover: it names {addr} in the epoch {}, and {} has been told",
            it.by, it.epoch, named.seen
        ),
        Err(Untold::UnknownName) => format!("Sentinel {} knows no master {master}", it.by),
        Err(Untold::Refused(why) | Untold::Away(why)) => format!("Sentinel {}: {why}", it.by),
    });
    each.collect::<Vec<_>>().join("; ")
}
