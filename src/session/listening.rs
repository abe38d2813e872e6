//! Clients that listen: they are told when clients are held, and when that is over. The proxy answers
//! CLIENT MAINT_NOTIFICATIONS itself, for it alone knows.

use super::Session;
use super::route::OK;
use crate::command::words;
use crate::notices::Notice;
use crate::resp::encode;

pub(super) const NOT_IN_MULTI: &str =
    "ERR CLIENT MAINT_NOTIFICATIONS is not allowed inside a transaction";
const NEEDS_RESP3: &str = "ERR redis-proxy: CLIENT MAINT_NOTIFICATIONS ON needs RESP3 (HELLO 3)";
const ARGUMENTS: &str = "ERR wrong number of arguments for 'client|maint_notifications' command";
const SYNTAX: &str = "ERR syntax error";
/// In which form an uplink that moves would tell where to. The proxy's clients are never told to move.
const ENDPOINT_TYPES: [&str; 5] =
    ["internal-ip", "internal-fqdn", "external-ip", "external-fqdn", "none"];

/// Whether a CLIENT request is about notices.
pub(super) fn asks_for_notices(args: &[&[u8]]) -> bool {
    args.get(1).is_some_and(|sub| words::is(sub, "MAINT_NOTIFICATIONS"))
}

/// Whether the client is to listen, by the arguments of a valid CLIENT MAINT_NOTIFICATIONS.
fn wants_notices(args: &[&[u8]]) -> Result<bool, &'static str> {
    let [_, _, mode, options @ ..] = args else { return Err(ARGUMENTS) };
    let takes = |kind: &[u8]| ENDPOINT_TYPES.iter().any(|it| words::is(kind, it));
    match options {
        [] => {}
        [name, kind] if words::is(name, "MOVING-ENDPOINT-TYPE") && takes(kind) => {}
        _ => return Err(SYNTAX),
    }
    match words::is(mode, "ON") {
        false if !words::is(mode, "OFF") => Err(SYNTAX),
        on => Ok(on),
    }
}

impl Session {
    /// CLIENT MAINT_NOTIFICATIONS. All that the client has sent before is answered.
    pub(super) fn listen(&mut self, args: &[&[u8]]) {
        match wants_notices(args) {
            Err(text) => self.answer(encode::error(text)),
            Ok(true) if !self.state.resp3 => self.answer(encode::error(NEEDS_RESP3)),
            Ok(true) => {
                if !self.state.listens {
                    self.told = Notice::default();
                    self.state.listen(true);
                }
                self.hear_of_notices();
                self.answer(OK.to_vec());
            }
            Ok(false) => {
                // Whatever a client was told, it is also told the end of.
                let end = if self.state.listens { self.told.ended() } else { Vec::new() };
                self.state.listen(false);
                self.answer([&end, OK].concat());
            }
        }
    }

    /// There may be a notice for the client.
    pub(super) fn hear_of_notices(&mut self) {
        self.may_be_told = self.state.listens;
    }

    /// Tells the client whether it is held, if it listens: between two replies, and once it has taken what was sent
    /// before.
    #[inline]
    pub(super) fn tell_notice(&mut self) {
        if self.may_be_told && !self.replies.partial && self.to_client.is_clear() {
            self.may_be_told = false;
            self.send_notice();
        }
    }

    fn send_notice(&mut self) {
        let notice = self.shared.notices.last();
        let pushes = notice.after(std::mem::replace(&mut self.told, notice));
        // It may have sent RESET, or HELLO 2, since it heard that there is news.
        if self.state.listens && !pushes.is_empty() && self.ending.is_none() {
            self.send_local(&pushes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_those_that_client_libraries_send() {
        for (line, wanted) in [
            ("CLIENT MAINT_NOTIFICATIONS ON", Ok(true)),
            ("client maint_notifications off", Ok(false)),
            ("CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type external-ip", Ok(true)),
            ("CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type NONE", Ok(true)),
            ("CLIENT MAINT_NOTIFICATIONS OFF moving-endpoint-type internal-fqdn", Ok(false)),
            ("CLIENT MAINT_NOTIFICATIONS", Err(ARGUMENTS)),
            ("CLIENT MAINT_NOTIFICATIONS YES", Err(SYNTAX)),
            ("CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type", Err(SYNTAX)),
            ("CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type other", Err(SYNTAX)),
            ("CLIENT MAINT_NOTIFICATIONS ON endpoint none", Err(SYNTAX)),
            ("CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type none x", Err(SYNTAX)),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert!(asks_for_notices(&args), "{line}");
            assert_eq!(wants_notices(&args), wanted, "{line}");
        }
        assert!(!asks_for_notices(&[b"CLIENT", b"ID"]) && !asks_for_notices(&[b"CLIENT"]));
    }
}
