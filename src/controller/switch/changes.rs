//! What a switch has changed so far, how that is undone, and the steps behind the promotion.

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::super::outcome::Done;
use super::super::panics::{Panicked, point};
use super::replication::Pair;
use super::source::Source;
use super::undo::{Undo, undo};
use crate::server::Replication;

/// What a master writes to its replicas so that they know that it lives, every ten seconds.
const PING: u64 = b"*1\r\n$4\r\nPING\r\n".len() as u64;

/// What a switch has done so far.
#[derive(Default)]
pub(super) struct SwitchProgress {
    pub(super) done: Done,
    /// How to undo what was done to the new server.
    pub(super) undo_new: Vec<Undo>,
    /// How to undo what was done to the old server.
    pub(super) undo_old: Vec<Undo>,
    pub(super) not_undone: Vec<String>,
    pub(super) warnings: Vec<String>,
    pub(super) fenced: bool,
}

impl SwitchProgress {
    /// If a part panicked that comes after the promotion, the answer warns of it, and says what
    /// remains to be done.
    pub(super) fn note<T>(&mut self, result: Result<T, Panicked>, remains: &str) {
        match (result, remains) {
            (Ok(_), _) => {}
            (Err(why), "") => self.warnings.push(why.to_string()),
            (Err(why), remains) => self.warnings.push(format!("{why}; {remains}")),
        }
    }

    /// Undoes what was done to both servers.
    pub(super) async fn roll_back(&mut self, pair: &mut Pair) {
        let (undo_old, undo_new) =
            (std::mem::take(&mut self.undo_old), std::mem::take(&mut self.undo_new));
        let (old, new) = tokio::join!(undo(&mut pair.old, undo_old), undo(&mut pair.new, undo_new));
        self.not_undone = [old, new].concat();
    }

    /// Clients are held yet: the new uplink would refuse what they write.
    pub(super) async fn await_replicas(&mut self, pair: &mut Pair, wanted: u64, deadline: Instant) {
        let having = timeout_at(deadline, pair.has_replicas(wanted));
        let missing = match having.await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => format!("whether it has them is not known: {why}"),
            Err(_) => "it has not had them in time".to_owned(),
        };
        self.warnings.push(format!(
            "the new uplink takes no write without {wanted} replicas (min-replicas-to-write), and \
             {missing}"
        ));
    }

    pub(super) async fn fence(&mut self, pair: &mut Pair, ways: &[Source], copied: &Replication) {
        if let Ok(now) = pair.old.replication().await
            && let bytes = now.history.offset.saturating_sub(copied.history.offset)
            && bytes > PING
        {
            self.warnings.push(format!(
                "{bytes} bytes were written past the proxy at the old uplink after it was left, and are lost"
            ));
        }
        point("switch:turning");
        match pair.fence(ways, &mut self.warnings).await {
            Ok(()) => {
                self.fenced = true;
                // Writers that were held are told that it is a replica; if not now, then before long.
                for held in std::mem::take(&mut self.undo_old) {
                    if let Err(why) = held.on(&mut pair.old).await {
                        debug!(
                            %why,
                            "could not unpause direct writers; the pause expires by itself"
                        );
                    }
                }
            }
            Err(why) => self.warnings.push(format!("the old uplink is not fenced: {why}")),
        }
    }
}
