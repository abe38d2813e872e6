//! Requests that are too long to be held until their end: they go up as they come.

use super::Session;
use super::intake::Route;
use super::protocol::transaction::Transaction;
use crate::resp::Args;

/// The longest request that is held until its end. A longer one goes up as it comes.
const MAX_HELD: usize = 64 * 1024;

impl Session {
    /// A request that is too long to be held goes up from now on as it comes, unless the gate is shut.
    pub(super) fn stream_long(&mut self) {
        let Route::Held(class, args) = self.intake.route else { return };
        // What is announced need not come: the uplink may refuse it at once.
        let announced = self.intake.held.len() as u64 + self.intake.scanner.bulk_left();
        if announced <= self.room() as u64 || self.intake.scanner.undecided() {
            return;
        }
        if self.intake.awaits_script(class) && self.has_room_for_script(announced) {
            return;
        }
        self.unsubscribe_late();
        match self.long_head(class, args) {
            Err(shut) => self.park(shut.into(), &[]),
            Ok(route) => {
                self.intake.route = route;
                let held = std::mem::take(&mut self.intake.held);
                if route == Route::Stream {
                    self.note_brought(class, Args::new(&held));
                    self.link.push_once(&held);
                }
            }
        }
    }

    /// How much of the present request may be held.
    fn room(&self) -> usize {
        self.requested.transaction().map_or(0, Transaction::room).max(MAX_HELD)
    }

    /// A script is remembered whatever its length, as long as there is room for all that are coming.
    fn has_room_for_script(&mut self, announced: u64) -> bool {
        let Ok(bytes) = usize::try_from(announced) else { return false };
        if self.intake.long_script.as_ref().is_some_and(|room| room.is_for(bytes)) {
            return true;
        }
        self.intake.long_script = self.shared.scripts.room(bytes);
        self.intake.long_script.is_some()
    }

    /// The long script has gone up.
    pub(super) fn give_back_room(&mut self) {
        let intake = &mut self.intake;
        if intake.long_script.is_some()
            && intake.held.is_empty()
            && intake.parked.is_none()
            && self.link.out.is_clear()
        {
            intake.long_script = None;
        }
    }
}
