//! Who the uplink is, by what it says of itself; and what it means if that changes. Pure.

use crate::server::{Info, Replication};
use crate::uplink::is_without_data;

/// Who a server is, as far as it tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Another one at each start of the server.
    pub(super) run_id: Option<String>,
    /// The watch's own connection, as the server counts them.
    pub(super) connection: Option<u64>,
    /// That was made anew: the server has answered over another one before.
    pub(super) is_anew: bool,
    pub(super) is_master: Option<bool>,
    /// As a master: the history of its data.
    pub(super) history: Option<String>,
    /// As a replica: the history that it follows.
    pub(super) follows: Option<String>,
}

/// What became of the server that was the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is the same.
    None,
    /// It is the same, and has closed the watch's connection: perhaps all that it had.
    Cut,
    /// It was started anew. What connections had told it is gone.
    Restarted,
    /// It was a master, and is a replica now: it takes no writes.
    Demoted,
}

impl Identity {
    /// Reads INFO; `run_id` is what the server has said before on this connection.
    pub(super) fn read(info: &Info, run_id: Option<String>, connection: Option<u64>) -> Self {
        let replication = info.text("role").map(|_| Replication::of(info));
        let is_master = replication.as_ref().map(|it| it.is_master);
        let history = replication.map(|it| it.history.id).filter(|id| !id.is_empty());
        let (history, follows) = match is_master {
            Some(false) => (None, history),
            Some(true) | None => (history, None),
        };
        Identity {
            run_id: info.text("run_id").map(str::to_owned).or(run_id),
            connection,
            is_anew: false,
            is_master,
            history,
            follows,
        }
    }

    /// What became of this server, if it says this now.
    pub(super) fn becomes(&self, now: &Identity) -> Change {
        if self.is_master == Some(true) && now.is_master == Some(false) {
            return Change::Demoted;
        }
        let is_same = match (&self.run_id, &now.run_id) {
            (Some(before), Some(now)) => before == now,
            // A server counts its connections from its start on.
            _ => self.connection.zip(now.connection).is_none_or(|(before, now)| before <= now),
        };
        match (is_same, now.is_anew) {
            (false, _) => Change::Restarted,
            (true, true) => Change::Cut,
            (true, false) => Change::None,
        }
    }
}

/// Why a server does not serve, by its answer to a request.
pub(super) fn refusal(answer: &[u8]) -> Option<String> {
    is_without_data(answer).then(|| String::from_utf8_lossy(&answer[1..]).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(info: &str, connection: u64) -> Identity {
        Identity::read(&Info::read(info.replace(' ', "\r\n").as_bytes()), None, Some(connection))
    }

    #[test]
    fn a_server_is_another_after_a_restart_and_no_uplink_after_it_was_demoted() {
        let before = identity("role:master run_id:a", 7);
        for (info, connection, change) in [
            ("role:master run_id:a", 8, Change::None),
            ("role:master run_id:b", 8, Change::Restarted),
            ("role:slave run_id:a", 8, Change::Demoted),
            ("role:slave run_id:b", 3, Change::Demoted),
            // One that may not be asked.
            ("", 8, Change::None),
            ("", 7, Change::None),
            ("", 3, Change::Restarted),
        ] {
            assert_eq!(before.becomes(&identity(info, connection)), change, "{info}");
        }
        let replica = identity("role:slave run_id:a", 7);
        assert_eq!(replica.becomes(&before), Change::None, "it was promoted");
        assert_eq!(replica.becomes(&replica), Change::None, "it was one from the beginning");
        let anew = Identity { is_anew: true, ..before.clone() };
        assert_eq!(before.becomes(&anew), Change::Cut);
    }

    #[test]
    fn a_server_without_its_data_does_not_serve() {
        let loading = b"-LOADING Redis is loading the dataset in memory\r\n";
        let text = "LOADING Redis is loading the dataset in memory";
        assert_eq!(refusal(loading).as_deref(), Some(text));
        // It is slow, or has its own ideas, but it is there.
        for pong in ["+PONG\r\n", "-BUSY Redis is busy\r\n", "-NOPERM no\r\n", ":0\r\n"] {
            assert_eq!(refusal(pong.as_bytes()), None, "{pong}");
        }
    }
}
