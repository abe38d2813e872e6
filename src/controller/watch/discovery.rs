//! The uplink is looked for where the configuration names no address, or a name: if it should be another server,
//! all clients are moved there, together.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info, warn};

use super::super::links::OldIs;
use super::super::outcome::By;
use super::super::panics::{caught, point};
use super::super::reload::Target;
use super::super::state::Controller;
use crate::config::{Address, Lookup};
use crate::discovery::{Directory, Finder, Finding, Present};
use crate::generation::Generation;
use crate::lock::lock;
use crate::uplink::Place;

/// Between two looks while the uplink serves.
const EVERY: Duration = Duration::from_secs(2);
/// How soon it is looked again whether the time is right for a look.
const SOON: Duration = Duration::from_millis(100);
/// Between two looks while it is lost, at first and at most: it doubles.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
/// Between two tries to move clients, at first and at most: it doubles.
const MOVE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// How long an uplink may owe an answer before it is lost, where there is another one.
const SILENT: Duration = Duration::from_secs(1);
/// So often in succession an uplink that serves is not what its name stands for before clients are moved: a name
/// may be answered in part.
const LOOKUPS: u32 = 2;

/// How the looks have gone so far.
struct Search {
    finder: Finder,
    directory: Arc<Directory>,
    /// So often in succession another server was found for a name.
    found: u32,
    again: Duration,
    move_again: Duration,
    /// What was told last of why nobody is found.
    told: String,
}

impl Search {
    fn of(generation: &Generation) -> Self {
        Search {
            finder: Finder::listening(generation.directory.clone()),
            directory: generation.directory.clone(),
            found: 0,
            again: AGAIN.0,
            move_again: MOVE_AGAIN.0,
            told: String::new(),
        }
    }
}

impl Controller {
    /// Looks for the uplink until the process stops, whatever panics.
    pub async fn discover_always(self: Arc<Self>) {
        while let Err(why) = caught(self.discover()).await {
            error!(%why, "the search for the uplink begins anew");
            // The next one may panic as well.
            sleep(EVERY).await;
        }
    }

    async fn discover(self: &Arc<Self>) {
        let mut search = Search::of(&self.shared.current.load());
        loop {
            let generation = self.shared.current.load();
            if !Arc::ptr_eq(&generation.directory, &search.directory) {
                search = Search::of(&generation);
            }
            if generation.directory.is_fixed() {
                self.disputes(None);
                tokio::select! {
                    () = self.shared.current.exchanged(generation.number) => continue,
                    () = self.shared.stop.begun() => return,
                }
            }
            if !self.may_look() {
                sleep(SOON).await;
                continue;
            }
            let present = self.present(&generation);
            let finding = tokio::select! {
                biased;
                () = self.shared.stop.begun() => return,
                () = self.shared.current.exchanged(generation.number) => continue,
                finding = search.finder.look(present.as_ref()) => finding,
            };
            point("discovery:found");
            self.tell(&mut search, present.as_ref(), &finding);
            if let Some(place) = search.certainly(&generation, present.as_ref(), finding) {
                if self.move_to(place, &generation).await {
                    search.has_moved();
                    // It is for the watch to look at it first.
                    sleep(SOON).await;
                } else {
                    sleep(search.move_again).await;
                    search.move_again = (search.move_again * 2).min(MOVE_AGAIN.1);
                }
                continue;
            }
            if present.is_some_and(|it| it.is_up) {
                search.again = AGAIN.0;
                tokio::select! {
                    () = sleep(EVERY) => {}
                    () = search.finder.told() => {}
                    () = self.shared.outages.begun() => {}
                    () = self.shared.outages.moves() => {}
                    () = self.shared.current.exchanged(generation.number) => {}
                    () = self.shared.stop.begun() => return,
                }
            } else {
                tokio::select! {
                    () = sleep(search.again) => {}
                    () = search.finder.told() => {}
                    () = self.shared.current.exchanged(generation.number) => {}
                    () = self.shared.stop.begun() => return,
                }
                search.again = (search.again * 2).min(AGAIN.1);
            }
        }
    }

    /// Whether it is known who the uplink is, and nobody is changing that.
    fn may_look(&self) -> bool {
        let is_lost = self.shared.outages.loss().is_some();
        let inner = lock(&self.inner);
        is_lost || (inner.identity.is_some() && inner.change.is_none())
    }

    /// Who the uplink is now; `None` if none was found so far.
    fn present(&self, generation: &Generation) -> Option<Present> {
        let place = generation.uplink.place();
        if matches!(place.addr, Address::Sought(_)) {
            return None;
        }
        let is_up = self.shared.outages.loss().is_none();
        let inner = lock(&self.inner);
        let identity = inner.identity.clone().unwrap_or_default();
        Some(Present {
            place,
            is_up,
            is_master: identity.is_master,
            run_id: identity.run_id,
            history: inner.history_of(generation),
            follows: inner.follows.clone(),
            forks: inner.forks.clone(),
        })
    }

    /// Says what is new of a finding.
    fn tell(&self, search: &mut Search, present: Option<&Present>, finding: &Finding) {
        let (why, is_up) = (finding.why(), present.is_some_and(|it| it.is_up));
        let (is_disputed, forks) = match finding {
            Finding::Disputed { forks, .. } => (true, forks.clone()),
            _ => (false, Vec::new()),
        };
        self.disputes(is_disputed.then_some(why));
        {
            let mut inner = lock(&self.inner);
            if is_up {
                inner.forks = forks;
            }
            inner.unfound = Some(why.to_owned()).filter(|why| !is_up && !why.is_empty());
        }
        if why == search.told {
            return;
        }
        why.clone_into(&mut search.told);
        match (why, is_up) {
            _ if is_disputed => {}
            ("", _) => {}
            (why, true) => warn!(why, "the uplink stays where it is, for now"),
            (why, false) => warn!(why, "no server is found that could be the uplink"),
        }
    }

    /// Notes whether several servers could be the uplink.
    fn disputes(&self, dispute: Option<&str>) {
        let before = std::mem::replace(&mut lock(&self.inner).dispute, dispute.map(str::to_owned));
        match dispute {
            Some(dispute) if before.as_deref() != Some(dispute) => {
                error!(dispute, "the uplink stays where it is, for nobody can tell which is right");
            }
            None if before.is_some() => info!("there is no dispute any more who is the uplink"),
            Some(_) | None => {}
        }
    }

    /// Moves all clients to the uplink at this place.
    async fn move_to(self: &Arc<Self>, place: Place, generation: &Generation) -> bool {
        let from = &generation.uplink.config.addr;
        let at = place.pin.map(|at| at.to_string());
        info!(%from, to = %place.addr, at, "the uplink is another server: clients are moved there");
        let silent = self.shared.outages.silent_for().is_some_and(|since| since > SILENT);
        if silent && self.shared.outages.loss().is_none() {
            // Nobody waits for its answers, then.
            let look = self.shared.outages.looking();
            self.uplink_is_lost(&look, &format!("it does not answer, and {} is there", place.addr));
        }
        let old = match self.shared.outages.loss() {
            Some(_) => OldIs::Lost,
            None => OldIs::InUse,
        };
        let target = Target::Uplink { place, number: generation.number, old };
        match self.clone().change(target, By::Discovery, false).await {
            Ok(_) => true,
            Err(why) => {
                if why.record.is_none() {
                    info!(why = %why.error, "clients are not moved yet");
                }
                false
            }
        }
    }
}

impl Search {
    /// All begins anew, but for the connections.
    fn has_moved(&mut self) {
        (self.again, self.move_again) = (AGAIN.0, MOVE_AGAIN.0);
        self.found = 0;
        self.told.clear();
    }

    /// Where the uplink is, if that is certain enough to move clients there.
    fn certainly(
        &mut self,
        generation: &Generation,
        present: Option<&Present>,
        finding: Finding,
    ) -> Option<Place> {
        let Finding::Move(place) = finding else {
            self.found = 0;
            return None;
        };
        self.found += 1;
        let is_name = matches!(generation.directory.lookup, Lookup::Addr(_));
        let is_up = present.is_some_and(|it| it.is_up);
        (!is_name || !is_up || self.found >= LOOKUPS).then_some(place)
    }
}
