//! The part of a reload that clients could feel: they are moved to another uplink.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::reload::Done;
use super::sides::Sides;
use super::{Controller, Error, NAMED, WOKEN, named};
use crate::config::Fault;
use crate::generation::Generation;
use crate::limits;
use crate::reception::Sockets;
use crate::session::{Finish, Order, Preparation, marks};
use crate::transport::Peer;

/// Connections to the new uplink that are made at once.
const CONNECTS: u32 = 8;
/// Sessions that tell the new uplink the rest at once.
const FINISHED: u32 = 256;
/// For how long it is believed that the new uplink lives.
const FRESH: Duration = Duration::from_millis(100);
/// How often it is looked for commands that wait for data.
const LOOK: Duration = Duration::from_millis(5);

/// What is exchanged.
pub(super) struct Swap<'a> {
    pub(super) before: &'a Arc<Generation>,
    pub(super) sockets: &'a Sockets,
    pub(super) preparation: Arc<Preparation>,
}

pub(super) fn refused(fault: Fault) -> Error {
    Error::Refused(vec![fault])
}

/// Each session needs one more while it is moved.
pub(super) fn few_descriptors(sessions: usize) -> Option<Fault> {
    let needed = sessions + limits::SPARE;
    let left = limits::descriptors_left().filter(|left| *left < needed)?;
    Some(Fault::new(format!(
        "too few file descriptors to connect all clients to the new uplink: {needed} are needed, \
         {left} are left (ulimit -n)"
    )))
}

impl Controller {
    /// Every session that has an uplink connection makes one to the new uplink, while the old one
    /// still serves.
    pub(super) async fn prepare(
        &self,
        generation: &Arc<Generation>,
        sides: &mut Sides,
    ) -> Result<Arc<Preparation>, Error> {
        if let Some(fault) = few_descriptors(self.shared.roster.len()) {
            return Err(refused(fault));
        }
        let preparation =
            Preparation::new(generation.clone(), sides.marker.clone(), sides.are_related());
        let failed = || preparation.fault().is_some();
        let prepare = |permit| Order::Prepare(preparation.clone(), permit);
        self.shared.roster.tell_each(CONNECTS, failed, prepare).await;
        let addr = &generation.uplink.config.addr;
        let mut fault = preparation.fault().map(|why| {
            let ready = preparation.ready();
            Fault::new(format!(
                "could not connect to uplink: {addr} for all clients ({ready} connected): {why}"
            ))
        });
        if fault.is_none() {
            let limit = generation.settings.connect_time_limit;
            let loading =
                timeout(limit, sides.load_scripts(|stamp| self.shared.scripts.since(stamp)));
            if !matches!(loading.await, Ok(Ok(()))) {
                fault = Some(Fault::new(format!("could not load scripts at uplink: {addr}")));
            }
        }
        if fault.is_none() {
            // It may have died since it was verified.
            fault = generation.uplink.verify().await.err();
        }
        match fault {
            None => Ok(preparation),
            Some(fault) => {
                self.abandon().await;
                Err(refused(fault))
            }
        }
    }

    pub(super) async fn abandon(&self) {
        self.shared.ids.abandon();
        self.shared.roster.tell_each(WOKEN, || false, Order::Abandon).await;
    }

    /// What the clients feel: running requests end, those with more than a database are told
    /// about at the new uplink, and one pointer is exchanged.
    pub(super) async fn swap(
        &self,
        swap: Swap<'_>,
        sides: &mut Sides,
        done: &mut Done,
    ) -> Result<(), Error> {
        let Swap { before, sockets, preparation } = swap;
        let generation = preparation.generation();
        let limit = before.settings.pause_time_limit;
        let was_open = self.shared.gate.is_open();
        let begun = Instant::now();
        let deadline = begun + limit;
        let hold = self.shared.gate.pause();
        if !self.quiesce(hold.quiesced_by(deadline), sides, deadline).await {
            let running = self.running().await;
            drop(hold);
            self.abandon().await;
            let (limit, names) = (limit.as_millis(), named(&running));
            done.held_up_by = running;
            return Err(Error::TimeLimit(format!(
                "not paused within {limit} ms; the reload is cancelled and the old uplink goes \
                 on; still running: {names}"
            )));
        }
        if let Err(why) = self.finish(&preparation, sides, begun, deadline).await {
            // Before anything goes to the old uplink again.
            self.abandon().await;
            return Err(why);
        }
        self.reception.retire(sockets, before);
        self.shared.ids.exchange();
        self.shared.current.exchange(generation.clone());
        // Before the gate opens: whoever is let in must see it.
        self.shared.roster.announce();
        drop(hold);
        if was_open {
            let pause = begun.elapsed();
            self.shared.metrics.reload_pauses.observe(pause, 1);
            done.pause = Some(pause);
        }
        Ok(())
    }

    /// Waits until nothing is in flight. Commands that wait for data are not waited for: they are
    /// interrupted, and asked again later.
    async fn quiesce(
        &self,
        quiesced: impl Future<Output = bool>,
        sides: &mut Sides,
        deadline: Instant,
    ) -> bool {
        tokio::pin!(quiesced);
        loop {
            if let Some(quiesced) = quiesced.as_mut().now_or_never() {
                return quiesced;
            }
            // Whoever is asked is listened to to the end.
            self.interrupt(sides, deadline).await;
            tokio::select! {
                biased;
                quiesced = quiesced.as_mut() => return quiesced,
                () = sleep(LOOK) => {}
            }
        }
    }

    async fn interrupt(&self, sides: &mut Sides, deadline: Instant) {
        if !sides.may_unblock {
            return;
        }
        let (tell, mut told) = mpsc::unbounded_channel();
        let blocked = |bits: u32| bits & marks::BLOCKED > 0;
        let order = |permit| Order::Interrupt(tell.clone(), permit);
        let asking = self.shared.roster.tell_marked(blocked, WOKEN, || false, order);
        // A busy worker has until the next time.
        let _ = timeout_at(deadline, asking).await;
        let mut commands = Vec::new();
        while let Ok(command) = told.try_recv() {
            commands.push(command);
        }
        if !commands.is_empty() {
            sides.interrupt(commands, deadline).await;
        }
    }

    /// Nothing is in flight. What could not be told before is told the new uplink now; up to the
    /// end of this, everything can be undone.
    async fn finish(
        &self,
        preparation: &Arc<Preparation>,
        sides: &mut Sides,
        begun: Instant,
        deadline: Instant,
    ) -> Result<(), Error> {
        let addr = &preparation.generation().uplink.config.addr;
        let late = |what: &str| {
            Error::TimeLimit(format!(
                "{what} in time; the reload is cancelled and the old uplink goes on"
            ))
        };
        let finish = Finish::new(preparation.clone(), sides.may_list, sides.old_is_gone());
        let failed = || finish.fault().is_some();
        for redirects in [0, marks::REDIRECTS] {
            let last =
                |bits: u32| bits & (marks::LAST | marks::REDIRECTS) == marks::LAST | redirects;
            let order = |permit| Order::Finish(finish.clone(), permit);
            let telling = self.shared.roster.tell_marked(last, FINISHED, failed, order);
            if timeout_at(deadline, telling).await.is_err() {
                let clients = finish.unfinished();
                let named: Vec<String> = clients.iter().take(NAMED).map(Peer::to_string).collect();
                let (count, named) = (clients.len(), named.join(", "));
                return Err(late(&format!(
                    "the state of {count} clients ({named}) could not be handed over"
                )));
            }
        }
        if let Some(why) = finish.fault() {
            return Err(refused(Fault::new(format!(
                "could not hand over to uplink: {addr} {why}"
            ))));
        }
        sides.ask_watched(finish.take_watching(), deadline).await;
        let scripts = sides.load_scripts(|stamp| self.shared.scripts.since(stamp));
        if !matches!(timeout_at(deadline, scripts).await, Ok(Ok(()))) {
            return Err(refused(Fault::new(format!("could not load scripts at uplink: {addr}"))));
        }
        // What was written to a master reaches its replica before this does.
        if sides.marker.is_some() && (preparation.is_listened() || sides.is_replica()) {
            preparation.published();
            match timeout_at(deadline, sides.publish_mark()).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    return Err(refused(Fault::new(format!("lost uplink: {addr}: {why}"))));
                }
                Err(_) => {
                    return Err(late(
                        "the new uplink, a replica of the old one, has not caught up with it",
                    ));
                }
            }
        }
        if begun.elapsed() > FRESH {
            // It may have died while a running request was waited for.
            preparation.generation().uplink.verify().await.map_err(refused)?;
        }
        Ok(())
    }
}
