//! A reload's own connections to the old uplink and to the new one, beside those of the clients.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::interrupting::interrupt;
use super::loading::Loading;
use crate::changeover::{Interrupt, Marker, Watching};
use crate::config::Fault;
use crate::generation::{Generation, MAY_NOT_UNBLOCK};
use crate::resp::encode;
use crate::server::{Info, OwnConnection, Replication, clients};
use crate::uplink::{Answer, Error, Script, unblock};

/// Ids that are asked about at once.
const BATCH: usize = 200;
/// How long a message may take from the old uplink to a new one that is its replica.
const REHEARSED_WITHIN: Duration = Duration::from_secs(10);

/// Connections to both uplinks, and what their users may do.
#[derive(Debug)]
pub(super) struct Links {
    /// The connection to the old uplink; lost if there is none, for the old uplink may be on its last legs, or full.
    old: OwnConnection,
    /// Why nothing more can be asked of the old uplink.
    lost: Option<Lost>,
    /// Why there is no connection to the old uplink.
    no_connection: Option<String>,
    new: OwnConnection,
    /// The channel for the mark, if both users may have it.
    pub(super) marker: Option<Arc<Marker>>,
    relation: Relation,
    /// What an operator should know of the new uplink's role.
    warning: Option<String>,
    /// The new uplink says that it is a replica.
    pub(super) new_is_replica: bool,
    /// What the old uplink's user may do.
    pub(super) rights: Rights,
    /// Loads the clients' scripts at the new uplink.
    pub(super) loading: Loading,
}

/// What a user may do that not every user may.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rights {
    /// Use CLIENT UNBLOCK.
    pub(super) may_unblock: bool,
    /// Use CLIENT LIST.
    pub(super) may_list: bool,
}

/// What goes on at the old uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OldIs {
    /// Others than the clients may write and publish there.
    InUse,
    /// It is lost, and is not asked.
    Lost,
    /// It holds all that is written or published there: there is nothing that a mark would come after.
    Paused,
}

/// What became of the old uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// The uplink took the connection, or did not even refuse it, and says nothing.
    Silent,
    /// The uplink is not there any more.
    Gone,
}

impl Lost {
    /// What became of the uplink, if that can be told from why there is no connection.
    fn of(why: &Error) -> Option<Lost> {
        match (why.is_silence(), why.is_absence()) {
            (true, _) => Some(Lost::Silent),
            (false, true) => Some(Lost::Gone),
            (false, false) => None,
        }
    }
}

/// Who replicates whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    None,
    /// Both addresses lead to one server.
    Same,
    /// What is published at the old uplink reaches the new one.
    NewFollowsOld,
    /// What is published at the new uplink reaches the old one.
    OldFollowsNew,
}

impl Links {
    /// Connects, and finds out what is allowed. A replica that is cut off from its master, or whose
    /// master may be the very uplink that does not answer, is refused without `force`.
    pub(super) async fn open(
        before: &Generation,
        generation: &Generation,
        is: OldIs,
        force: bool,
    ) -> Result<Self, Fault> {
        let limit = generation.settings.connect_time_limit;
        let addr = &generation.uplink.config.addr;
        let fault = |why: Error| Fault::new(format!("could not connect to uplink: {addr}: {why}"));
        let mut new = OwnConnection::new(generation.uplink.clone());
        new.dial(hello()).await.map_err(fault)?;
        let mut old = OwnConnection::new(before.uplink.clone());
        let refusal = match is {
            OldIs::Lost => Some(Error::Lost(io::ErrorKind::NotConnected.into())),
            OldIs::InUse | OldIs::Paused => old.dial(hello()).await.err(),
        };
        let mut lost = match is {
            OldIs::Lost => Some(Lost::Gone),
            OldIs::InUse | OldIs::Paused => refusal.as_ref().and_then(Lost::of),
        };
        if let Some(why) = refusal.as_ref().filter(|_| is != OldIs::Lost) {
            let addr = &before.uplink.config.addr;
            warn!(%addr, %why, "no connection of the reload's own to the present uplink");
        }
        let old_says = timeout(limit, replication(&mut old)).await;
        let has_old = refusal.is_none() && old_says.is_ok();
        if old_says.is_err() {
            lost = Some(Lost::Silent);
        }
        let Ok(new_says) = timeout(limit, replication(&mut new)).await else {
            return Err(fault(Error::TimeLimit(limit)));
        };
        let old_says = old_says.ok().flatten();
        let is_replica = new_says.as_ref().is_some_and(|(_, new)| !new.is_master);
        let is_cut_off = new_says.as_ref().is_some_and(|(_, new)| !new.is_master && !new.is_up);
        let fault = match (is_cut_off, !has_old && is_replica) {
            _ if old_says.as_ref().zip(new_says.as_ref()).is_some_and(|(a, b)| a.0 == b.0) => None,
            (true, _) => Some("and its link to its master is not up"),
            (false, true) => Some("and the present uplink, which may be its master, is lost"),
            (false, false) => None,
        };
        if let Some(fault) = fault.filter(|_| !force) {
            return Err(Fault::new(format!("uplink: {addr} is a replica, {fault}")));
        }
        let warning = is_replica.then(|| {
            let fault = fault.map(|fault| format!(", {fault}")).unwrap_or_default();
            format!(
                "uplink: {addr} is a replica{fault}: until it is promoted, what clients write there is \
                 refused (READONLY) or, if it is writable, will be lost"
            )
        });
        let relation = relation(old_says, new_says);
        let rights = timeout(limit, rights(&mut old)).await.unwrap_or_default();
        if !rights.may_unblock && !old.is_lost() {
            warn!("{MAY_NOT_UNBLOCK}");
        }
        let mut links = Links {
            old,
            lost,
            no_connection: refusal.map(|why| why.to_string()),
            new,
            marker: None,
            relation,
            warning,
            new_is_replica: is_replica,
            rights,
            loading: Loading::new(generation.uplink.clone()),
        };
        if is == OldIs::InUse
            && let Some(marker) = Marker::new()
        {
            let can_mark = timeout(limit, links.can_mark(&marker)).await;
            links.marker = can_mark.unwrap_or(false).then_some(marker);
        }
        Ok(links)
    }

    /// Whether what is published at the old uplink reaches the new one, after everything that was
    /// written there before.
    pub(super) fn is_replica(&self) -> bool {
        self.relation == Relation::NewFollowsOld
    }

    /// What an operator should know of the new uplink's role.
    pub(super) fn warning(&self) -> Option<&String> {
        self.warning.as_ref()
    }

    /// There is no connection to the old uplink.
    pub(super) fn old_is_lost(&self) -> bool {
        self.old.is_lost()
    }

    /// The old uplink answers no question.
    pub(super) fn old_is_gone(&self) -> bool {
        self.lost.is_some()
    }

    /// Why commands that wait at the old uplink are not interrupted, if there is no connection that could
    /// ask for that.
    pub(super) fn cannot_ask(&self) -> Option<&str> {
        self.no_connection.as_deref()
    }

    /// What is in flight at the old uplink cannot be expected to be answered.
    pub(super) fn old_is_silent(&self) -> bool {
        self.lost == Some(Lost::Silent)
    }

    /// What is published at one uplink comes to the other.
    pub(super) fn are_related(&self) -> bool {
        self.relation != Relation::None
    }

    /// No message would be lost or doubled, whoever publishes.
    pub(super) fn has_exact_messages(&self) -> bool {
        self.marker.is_some() && self.are_related()
    }

    /// Both users may have a channel of the proxy's own.
    async fn can_mark(&mut self, marker: &Marker) -> bool {
        if self.old.is_lost() {
            return false;
        }
        let script = |answer| {
            let mut script = Script::default();
            script.repeat(&marker.subscribe(), "SSUBSCRIBE", Answer::Confirmations(1));
            script.repeat(&marker.try_publishing(), "SPUBLISH", answer);
            script
        };
        if self.new.tell(script(Answer::NoError)).await.is_err()
            || self.old.tell(script(Answer::NoError)).await.is_err()
        {
            return false;
        }
        // What it publishes is answered before all those are written to who listen, if it is none of
        // them.
        let mut quiet = Script::default();
        quiet.repeat(&marker.unsubscribe(), "SUNSUBSCRIBE", Answer::Confirmations(1));
        self.old.tell(quiet).await.is_ok()
    }

    /// Has these commands interrupted, and tells who was.
    pub(super) async fn interrupt(&mut self, commands: Vec<Interrupt>, deadline: Instant) {
        if self.rights.may_unblock {
            // If it fails, the connection is lost.
            let _ = timeout_at(deadline, interrupt(&mut self.old, commands)).await;
        }
    }

    /// Sets `untouched` for each client whose watched keys were not touched. Without an answer, keys count
    /// as touched.
    pub(super) async fn ask_watched(&mut self, watching: Vec<Watching>, deadline: Instant) {
        for some in watching.chunks(BATCH) {
            let asked = timeout_at(deadline, untouched(&mut self.old, some)).await;
            let Ok(Ok(untouched)) = asked else { return };
            for one in some.iter().filter(|one| untouched.contains(&one.id)) {
                one.untouched.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Publishes the mark so that it comes to all who wait for it. Where it comes to both uplinks,
    /// waits until it is at the new one: what was published before it is there, too.
    pub(super) async fn publish_mark(&mut self) -> io::Result<()> {
        let Some(marker) = &self.marker else { return Ok(()) };
        let at_old = self.relation != Relation::OldFollowsNew
            && self.old.ask(&[marker.publish()]).await.is_ok();
        if self.relation == Relation::None {
            return Ok(());
        }
        if !at_old {
            self.new.send(&marker.publish()).await?;
        }
        let mark = marker.message(true);
        self.new.await_frame(|frame| frame == mark).await
    }

    /// Of each of these scripts, whether clients will miss it: the old uplink knows it, as far as it
    /// tells, and the new one does not.
    pub(super) async fn missed(&mut self, shas: &[String], limit: Duration) -> Vec<bool> {
        if shas.is_empty() {
            return Vec::new();
        }
        let words = ["SCRIPT", "EXISTS"].into_iter().chain(shas.iter().map(String::as_str));
        let request = encode::request(words.collect::<Vec<_>>());
        let is_known = async |side: &mut OwnConnection| -> Option<Vec<bool>> {
            let asked = timeout(limit, side.ask(std::slice::from_ref(&request))).await;
            let answer = asked.ok()?.ok()?.concat();
            let mut lines = answer.strip_prefix(b"*")?.split(|byte| *byte == b'\n').skip(1);
            Some(shas.iter().map(|_| lines.next() == Some(b":1\r")).collect())
        };
        let old = is_known(&mut self.old).await.unwrap_or_else(|| vec![true; shas.len()]);
        let new = is_known(&mut self.new).await.unwrap_or_else(|| vec![false; shas.len()]);
        old.iter().zip(new).map(|(old, new)| *old && !new).collect()
    }

    /// Waits until what is published at the old uplink comes to the new one: a replica that was
    /// synchronised just now may get nothing for a second.
    pub(super) async fn rehearse(&mut self) -> Result<(), String> {
        if !self.is_replica() || self.marker.is_none() || self.old.is_lost() {
            return Ok(());
        }
        const WORD: &str = "rehearsal";
        let (old, new) = (&mut self.old, &mut self.new);
        let channel = format!("{}{WORD}", Marker::PREFIX);
        let listen = |name: &str| {
            let mut script = Script::default();
            let request = encode::request([name, channel.as_str()]);
            script.repeat(&request, name, Answer::Confirmations(1));
            script
        };
        let len = channel.len();
        let message = format!(">3\r\n$8\r\nsmessage\r\n${len}\r\n{channel}\r\n$9\r\n{WORD}\r\n");
        let rehearsed = timeout(REHEARSED_WITHIN, async {
            new.tell(listen("SSUBSCRIBE")).await.map_err(io::Error::other)?;
            old.ask(&[encode::request(["SPUBLISH", channel.as_str(), WORD])]).await?;
            new.await_frame(|frame| frame == message.as_bytes()).await?;
            new.tell(listen("SUNSUBSCRIBE")).await.map_err(io::Error::other)
        });
        match rehearsed.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(format!("lost an uplink: {why}")),
            Err(_) => {
                Err("what is published at the present uplink does not come to its replica, the \
                           new one"
                    .to_owned())
            }
        }
    }
}

/// HELLO 3: in RESP3, a connection can be subscribed and ask. A server without RESP3 has no marker, either.
fn hello() -> Script {
    let mut script = Script::default();
    script.ask("HELLO", &[b"3"], Answer::Anything);
    script
}

/// The ids of the connections whose watched keys were not touched.
async fn untouched(old: &mut OwnConnection, watching: &[Watching]) -> io::Result<HashSet<u64>> {
    // A key whose time is over counts as touched once somebody has looked at it.
    let mut requests = Vec::new();
    for (db, key) in watching.iter().flat_map(|one| &one.keys) {
        requests.push(encode::request(["SELECT", &db.to_string()]));
        requests.push(encode::request([&b"EXISTS"[..], key]));
    }
    let ids: Vec<String> = watching.iter().map(|one| one.id.to_string()).collect();
    let list = ["CLIENT", "LIST", "ID"].into_iter().chain(ids.iter().map(String::as_str));
    requests.push(encode::request(list.collect::<Vec<_>>()));
    let answers = old.ask(&requests).await?;
    let Some((list, looked)) = answers.split_last() else { return Ok(HashSet::new()) };
    let list = String::from_utf8_lossy(list);
    let is_clean = |id| clients(&list).any(|it| it.number("id") == Some(id) && it.is_clean());
    let mut looked = looked.chunks(2);
    let mut untouched = HashSet::new();
    for one in watching {
        let seen: Vec<_> = looked.by_ref().take(one.keys.len()).collect();
        let all_seen =
            seen.iter().all(|it| it.last().is_some_and(|answer| answer.starts_with(b":")));
        if all_seen && is_clean(one.id) {
            untouched.insert(one.id);
        }
    }
    Ok(untouched)
}

async fn rights(old: &mut OwnConnection) -> Rights {
    let Some(id) = old.id().map(|id| id.to_string()) else { return Rights::default() };
    let requests = [unblock::rehearsal(), encode::request(["CLIENT", "LIST", "ID", &id])];
    match old.ask(&requests).await.as_deref() {
        Ok([unblock, list]) => {
            Rights { may_unblock: unblock::is_allowed(unblock), may_list: !list.starts_with(b"-") }
        }
        _ => Rights::default(),
    }
}

fn relation(old: Option<(String, Replication)>, new: Option<(String, Replication)>) -> Relation {
    let (Some((old_run, old)), Some((new_run, new))) = (old, new) else { return Relation::None };
    match (old.is_master, new.is_master) {
        _ if old_run == new_run => Relation::Same,
        // Nothing comes to it.
        (_, false) if !new.is_up => Relation::None,
        _ if old.history.id != new.history.id => Relation::None,
        (true, false) => Relation::NewFollowsOld,
        (false, true) => Relation::OldFollowsNew,
        (true, true) | (false, false) => Relation::None,
    }
}

/// What a server is called since its start, and what it says of replication.
async fn replication(side: &mut OwnConnection) -> Option<(String, Replication)> {
    let requests = ["server", "replication"].map(|section| encode::request(["INFO", section]));
    let info = Info::read(&side.ask(&requests).await.ok()?.concat());
    let run_id = info.text("run_id")?.to_owned();
    // A stand-in that says less is no relation.
    info.text("role").zip(info.text("master_replid"))?;
    Some((run_id, Replication::of(&info)))
}
