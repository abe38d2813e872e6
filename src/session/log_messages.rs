//! `log_messages`: what goes by is shown to the taps.

use super::Session;
use super::protocol::pending::View;
use super::tap::{Tap, Taps};

impl Session {
    /// Taps both directions, or does so no more: `log_messages` may change at a reload.
    pub(super) fn set_taps(&mut self) {
        match (self.generation.settings.log_messages, &self.taps) {
            (true, None) => {
                let up = Tap::begin(self.intake.scanner.in_frame());
                let down = Tap::begin(self.replies.scanner.in_frame());
                self.taps = Some(Box::new(Taps { up, down }));
            }
            (false, Some(_)) => self.taps = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The bytes of the present request so far are not shown.
    pub(super) fn restart_tap(&mut self) {
        if let Some(taps) = &mut self.taps {
            taps.up.restart();
        }
    }

    /// The present reply is complete: it is logged.
    pub(super) fn log_reply(&mut self) {
        if let Some(taps) = &mut self.taps {
            let hidden = self.replies.view == View::Hidden && self.pending.is_heard();
            taps.down.reply(self.peer, hidden || self.pending.is_secret());
        }
    }
}
