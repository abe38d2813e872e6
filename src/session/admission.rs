//! Requests ask the gate to be let in.

use super::Session;
use super::protocol::expected::Expected;
use crate::gate::GateShut;

impl Session {
    /// Asks the gate to let a request in. A new generation came before the gate opened, so whoever is let
    /// in sees it.
    pub(super) fn admit(&mut self) -> Result<(), GateShut> {
        if self.intake.admitted == 0 {
            self.enter()?;
        }
        self.intake.admitted += 1;
        Ok(())
    }

    /// Takes one pass more, unless the gate is shut, or this session is to move first.
    fn enter(&mut self) -> Result<(), GateShut> {
        // A transaction that only this uplink can finish passes the shut gate, which waits for it.
        if self.requested.pinned_since.is_some() {
            self.passes.add(1);
        } else {
            self.passes.enter()?;
        }
        if self.member.has_news() {
            self.read_news();
            // An outage has taken the pass back.
            let is_held = self.link.is_between_uplinks() || self.passes.held() == 0;
            if self.ending.is_some() || self.handover.is_leaving() || is_held {
                self.release(self.passes.held().min(1));
                return Err(GateShut);
            }
        }
        Ok(())
    }

    /// Asks for the pass of a request that had stalled, of which more comes.
    pub(super) fn readmit(&mut self) -> Result<(), GateShut> {
        self.enter()?;
        self.intake.stalled = false;
        Ok(())
    }

    /// Undoes the last admission: the request needs nothing of the uplink.
    pub(super) fn take_back_admitted(&mut self) {
        self.intake.admitted -= 1;
        // The others were not counted at the gate yet.
        if self.intake.admitted == 0 {
            self.release(1);
        }
    }

    /// Notes what answers an admitted request, which goes up next.
    pub(super) fn expect(&mut self, awaited: Expected) {
        let audience = self.take_audience();
        self.pending.push(awaited, self.intake.scanner.name(), audience);
    }
}
