//! `log_messages`: what goes by is shown to the taps.

use super::Session;
use super::protocol::pending::View;
use super::tap::{Tap, Taps};

impl Session {
    /// `log_messages` may change at a reload.
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

    pub(super) fn restart_tap(&mut self) {
        if let Some(taps) = &mut self.taps {
            taps.up.restart();
        }
    }

    pub(super) fn log_reply(&mut self) {
        if let Some(taps) = &mut self.taps {
            let hidden = self.replies.view == View::Hidden && self.pending.is_heard();
            taps.down.reply(self.peer, hidden || self.pending.is_secret());
        }
    }
}
