//! The data: the new server becomes a copy of the old one, a master, and the old one its replica.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::super::panics::point;
use super::felt::{FELT, Felt};
use super::progress::Switching;
use super::source::Source;
use super::undo::{Undo, follow, set};
use super::watch::{RECEIVED, ReplicationSide, ReplicationWatch, STALLED, is_saving};
use crate::config::{Address, Login};
use crate::server::{Error, History, Info, Replication, Server};

/// How often the servers are asked while clients are served.
pub(super) const LOOK: Duration = Duration::from_millis(50);
/// How often a server is asked while clients are held.
const LOOK_OFTEN: Duration = Duration::from_millis(1);
/// The new server is as good as equal if it catches up in this time.
const CLOSE: Duration = Duration::from_millis(10);

/// How long the old server may take to answer whether it is still there, once a switch was not done.
const PROBE: Duration = Duration::from_secs(1);

/// The server that clients use, and the one that they will use.
#[derive(Debug)]
pub(in super::super) struct Pair {
    pub(in super::super) old: Server,
    pub(in super::super) new: Server,
    /// What the new server had received before its first synchronisation, while that is on its way.
    received_before: Option<u64>,
    /// How many replicated commands the new server had refused before, if it counts them.
    refused_before: Option<u64>,
    /// The new server's history since it was promoted: an empty server that comes in its place has another.
    pub(super) promoted: Option<String>,
}

/// The new server has applied everything.
#[derive(Debug)]
pub(in super::super) struct CaughtUp {
    pub(super) old: Replication,
    pub(super) new: Replication,
}

/// Sets how a server logs in at its master, and whether it does that by TLS.
pub(super) async fn log_in(
    server: &mut Server,
    source: &Source,
    login: Option<&Login>,
    undo: &mut Vec<Undo>,
) -> Result<(), Error> {
    let user = login.and_then(|login| login.user.clone()).unwrap_or_default();
    let pass = login.map(|login| login.pass.expose_secret().to_owned()).unwrap_or_default();
    let tls = if source.tls { "yes" } else { "no" };
    for (name, wanted) in
        [("masteruser", user), ("masterauth", pass), ("tls-replication", tls.to_owned())]
    {
        let present = match server.setting(name).await {
            Ok(present) => present.unwrap_or_default(),
            // A user that may not look has set it right, or will be told by the replication.
            Err(Error::Refused { .. }) => continue,
            Err(why) => return Err(why),
        };
        // A server without TLS knows no such setting.
        if present == wanted || (present.is_empty() && wanted == "no") {
            continue;
        }
        undo.push(Undo::Set(name, present.into()));
        let set = set(server, name, &wanted.into()).await;
        if matches!(set, Err(Error::Refused { .. })) {
            undo.pop();
        }
        set?;
    }
    Ok(())
}

/// Sets one setting at the new server as it is at the old one, if that makes a difference.
async fn copy_setting(
    felt: Felt,
    old: &mut Server,
    new: &mut Server,
    undo: &mut Vec<Undo>,
) -> Result<(), Error> {
    let Some(was) = old.setting(felt.name).await? else { return Ok(()) };
    let Some(is) = new.setting(felt.name).await? else { return Ok(()) };
    let wanted = felt.meaning(&was);
    if wanted == felt.meaning(&is) {
        return Ok(());
    }
    undo.push(Undo::Set(felt.name, is.into()));
    let set = set(new, felt.name, &wanted.into()).await;
    if matches!(set, Err(Error::Refused { .. })) {
        undo.pop();
    }
    set
}

impl Pair {
    pub(in super::super) fn new(old: Server, new: Server) -> Self {
        Pair { old, new, received_before: None, refused_before: None, promoted: None }
    }

    /// What an operator can do after a failed switch if no server is left for the clients; empty otherwise. `to` is
    /// the new server, if the file does not name it.
    pub(super) async fn advice(&mut self, to: Option<&Address>) -> String {
        match timeout(PROBE, self.old.ask(&["PING"])).await {
            Ok(Err(why)) if why.is_end() => {}
            Ok(_) | Err(_) => return String::new(),
        }
        let (old, new) = (self.old.addr(), self.new.addr());
        let reload = match to {
            None => format!(
                "cmd=reload. The configuration file names {new}: a start of the proxy uses that, too"
            ),
            Some(to) => format!("put {to} into the configuration file, then cmd=reload"),
        };
        format!(
            "; clients cannot be served, for nothing listens at {old}. Restart it; or go on without its \
             data, with what {new} has: {reload}"
        )
    }

    /// Counts the commands that the new server refuses from now on: it lacks what they wrote.
    pub(in super::super) fn counts_from(&mut self, info: &Info) {
        self.refused_before = info.refused();
    }

    /// Sets at the new server what clients feel of the old one's settings, and says what it refused.
    pub(super) async fn copy_settings(
        &mut self,
        undo: &mut Vec<Undo>,
    ) -> Result<Vec<String>, Error> {
        let mut refused = Vec::new();
        for felt in FELT.into_iter().filter(|felt| felt.is_copied) {
            let name = felt.name;
            let copied = copy_setting(felt, &mut self.old, &mut self.new, undo).await;
            match copied {
                Ok(()) => {}
                Err(Error::Refused { answer, .. }) => {
                    refused.push(format!("{name} is not as at the old uplink: {answer}"));
                }
                Err(why) => return Err(why),
            }
        }
        Ok(refused)
    }

    /// Makes the new server a replica of the old one.
    pub(super) async fn set_up(
        &mut self,
        source: &Source,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Error> {
        let info = self.new.info().await?;
        let before = Replication::of(&info);
        self.received_before = Some(info.number(RECEIVED).unwrap_or(0));
        let login = self.old.dialler().config.login.clone();
        let wanted = (source.host.clone(), source.port);
        // A password is not for another master: neither the new one on the way there, nor the other
        // way round on the way back. What is noted first is undone last.
        if let Some(master) = before.master.filter(|_| !before.is_master) {
            let is_other = master != wanted;
            undo.push(Undo::Follow(Some(master)));
            if is_other && login.is_some() {
                follow(&mut self.new, None).await?;
            }
        }
        log_in(&mut self.new, source, login.as_ref(), undo).await?;
        undo.push(Undo::Follow(None));
        follow(&mut self.new, Some(&wanted)).await
    }

    /// Waits until the new server has everything, but for what was written just now.
    pub(in super::super) async fn synchronise(
        &mut self,
        switching: &Switching,
        limit: Duration,
    ) -> Result<(), String> {
        let mut last_lag = Duration::MAX;
        let mut watch = ReplicationWatch::new();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            watch.patience()?;
            let old = watch.hear(ReplicationSide::Old, self.old.info().await);
            if let Some(info) = &old {
                watch.look_at_old(info);
            }
            if let Some(info) = watch.hear(ReplicationSide::New, self.new.info().await) {
                let new = Replication::of(&info);
                watch.look_at_new(&info, &new);
                self.count(&info, &new, switching);
                let snapshot = old.as_ref().and_then(|old| ReplicationWatch::snapshot(old, &new));
                switching.snapshot(snapshot);
                let old = old.map(|info| Replication::of(&info));
                self.took_all(&info)?;
                if new.is_master {
                    let addr = self.new.addr();
                    return Err(format!("{addr} is no replica any more: was it restarted?"));
                }
                if let Some(old) = &old {
                    watch.compare(old, &new);
                }
                let doing = watch.doing(&info, &new);
                if new.is_up && is_saving(&info) {
                    // What it received is not on its disk yet: if it died now, it would come back
                    // empty, and its replica with it.
                    switching.waits_for("the new uplink writes what it received to its disk");
                    continue;
                }
                // How long it takes to catch up says more, once that is known.
                if !new.is_up || last_lag == Duration::MAX {
                    switching.waits_for(&doing);
                }
                let Some(old) = old else { continue };
                if is_copy(&new, &old.history)
                    && let Some(lag) = self.lag(old.history, switching).await
                {
                    let wanted = limit / 4;
                    // It may not get better than it is: the way takes its time.
                    let is_steady = lag <= wanted && lag > last_lag / 2;
                    if lag <= CLOSE.min(wanted) || is_steady {
                        return Ok(());
                    }
                    last_lag = lag;
                    let (takes, wanted) = (lag.as_millis(), wanted.as_millis());
                    switching.waits_for(&format!(
                        "the new uplink catches up: that takes {takes} ms, {wanted} are wanted"
                    ));
                }
            }
        }
    }

    /// Fails if the new server refused a command that was replicated to it: it lacks what that wrote.
    fn took_all(&self, info: &Info) -> Result<(), String> {
        let refused = info.refused().unwrap_or(0);
        // It counts anew when it is restarted.
        let before = self.refused_before.filter(|before| *before <= refused);
        match refused - before.unwrap_or(0) {
            0 => Ok(()),
            more => Err(format!(
                "{} refused {more} of the commands that were replicated to it: its log says which",
                self.new.addr()
            )),
        }
    }

    /// Counts the bytes of the first synchronisation. A server before version 7 tells them only while that
    /// is on its way.
    fn count(&mut self, info: &Info, new: &Replication, switching: &Switching) {
        let Some(before) = self.received_before else { return };
        let received = info.number(RECEIVED).unwrap_or(0).saturating_sub(before);
        switching.synced(received.max(new.read_bytes), new.total_bytes);
        if new.is_synchronised() {
            self.received_before = None;
        }
    }

    /// How long the new server takes to have what the old one had; `None` if it stops following.
    async fn lag(&mut self, goal: History, switching: &Switching) -> Option<Duration> {
        let begun = Instant::now();
        let mut behind = None;
        loop {
            let new = self.new.replication().await.ok()?;
            if !is_copy(&new, &goal) || begun.elapsed() > STALLED {
                return None;
            }
            let bytes = goal.offset.saturating_sub(new.applied);
            behind.get_or_insert(bytes);
            if bytes == 0 {
                let time = begun.elapsed();
                switching.lags(behind.unwrap_or(0), time);
                return Some(time);
            }
            sleep(LOOK_OFTEN).await;
        }
    }

    /// Waits, while clients are held, until the new server has applied everything that was written.
    pub(in super::super) async fn catch_up(&mut self) -> Result<CaughtUp, String> {
        let addr = self.old.addr();
        let old = self.old.replication().await.map_err(|why| format!("lost {addr}: {why}"))?;
        if !old.is_master {
            return Err(format!("{addr} is a master no more"));
        }
        loop {
            let addr = self.new.addr();
            let info = self.new.sections(&["replication", "stats"]).await;
            let info = info.map_err(|why| format!("lost {addr}: {why}"))?;
            let new = Replication::of(&info);
            if new.is_master || new.history.id != old.history.id {
                return Err(format!("{addr} does not follow any more"));
            }
            if new.applied >= old.history.offset && !new.is_syncing {
                self.took_all(&info)?;
                return Ok(CaughtUp { old, new });
            }
            if !new.is_up {
                return Err(format!("the replication to {addr} broke"));
            }
            sleep(LOOK_OFTEN).await;
        }
    }

    /// Holds direct writers by CLIENT PAUSE WRITE at the old server; it expires by itself.
    pub(super) async fn pause_writers(
        &mut self,
        time: Duration,
        undo: &mut Vec<Undo>,
    ) -> Result<(), Error> {
        // Not without the right to end it.
        self.old.tell(&["CLIENT", "UNPAUSE"]).await?;
        undo.push(Undo::Unpause);
        let time = time.as_millis().to_string();
        self.old.tell(&["CLIENT", "PAUSE", &time, "WRITE"]).await.map(drop)
    }

    /// Waits until the new server, a master, has so many replicas that it takes writes.
    pub(super) async fn has_replicas(&mut self, wanted: u64) -> Result<(), Error> {
        loop {
            let info = self.new.sections(&["replication"]).await?;
            if info.number("min_slaves_good_slaves").is_none_or(|good| good >= wanted) {
                return Ok(());
            }
            sleep(LOOK_OFTEN).await;
        }
    }

    /// Makes the new server a master, with all that the old one has written. If it cannot be seen to
    /// be one, it counts as none: nobody has written to it.
    pub(super) async fn promote(&mut self, old: &Replication) -> Result<(), String> {
        let told = follow(&mut self.new, None).await;
        point("switch:promoted");
        let addr = self.new.addr();
        match self.new.replication().await {
            Ok(new) if new.is_master => self.has_followed(&new, old),
            Ok(_) => Err(format!(
                "{addr} is not promoted{}",
                told.err().map(|why| format!(": {why}")).unwrap_or_default()
            )),
            Err(why) => Err(format!("whether {addr} is promoted is not known: {why}")),
        }
    }

    /// Waits until somebody has made the new server a master, with all that the old one has written.
    pub(super) async fn becomes_master(&mut self, old: &Replication) -> Result<(), String> {
        loop {
            if let Ok(new) = self.new.replication().await
                && new.is_master
            {
                return self.has_followed(&new, old);
            }
            sleep(LOOK_OFTEN).await;
        }
    }

    /// Notes the history of the new server, a master now, which goes on with that of the old one.
    fn has_followed(&mut self, new: &Replication, old: &Replication) -> Result<(), String> {
        let continues = |it: &History| it.id == old.history.id && it.offset >= old.history.offset;
        if !new.earlier.as_ref().is_some_and(continues) {
            let addr = self.new.addr();
            return Err(format!("{addr} is not what was promoted: was it restarted?"));
        }
        self.promoted = Some(new.history.id.clone());
        Ok(())
    }
}

/// Whether a server is a synchronised replica with this history.
fn is_copy(new: &Replication, history: &History) -> bool {
    !history.id.is_empty()
        && !new.is_master
        && new.is_synchronised()
        && new.history.id == history.id
}
