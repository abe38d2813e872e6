//! Whether the first synchronisation gets on, and what it waits for.

use std::time::Duration;

use tokio::time::Instant;

use crate::server::{Error, Info, Replication};

/// How long the replication may stand still.
pub(super) const STALLED: Duration = Duration::from_secs(60);
/// How long a server may not answer.
const SILENT: Duration = Duration::from_secs(10);
/// How often the new server may begin to copy everything.
const COPIES: u64 = 10;

/// Bytes that came by replication, since version 7.
pub(super) const RECEIVED: &str = "total_net_repl_input_bytes";

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplicationSide {
    Old,
    New,
}

/// Whether the replication moves, and what is wrong if it does not.
pub(super) struct ReplicationWatch {
    moved_at: Instant,
    last: Vec<Option<String>>,
    trouble: String,
    /// Who does not answer, since when, and what was heard last.
    silent: Option<(ReplicationSide, Instant, String)>,
    /// Why there is nothing more to be heard: a server has ended.
    ended: Option<String>,
    /// Since when the new server has been the replica of another one.
    strange: Option<Instant>,
    /// How many full synchronisations the old server had begun, and has.
    copies: Option<(u64, u64)>,
}

impl ReplicationWatch {
    pub(super) fn new() -> Self {
        ReplicationWatch {
            moved_at: Instant::now(),
            last: Vec::new(),
            trouble: "it was not answered".to_owned(),
            silent: None,
            ended: None,
            strange: None,
            copies: None,
        }
    }

    pub(super) fn patience(&self) -> Result<(), String> {
        if let Some(why) = &self.ended {
            return Err(why.clone());
        }
        if let Some((_, since, why)) = &self.silent
            && since.elapsed() > SILENT
        {
            return Err(why.clone());
        }
        if self.strange.is_some_and(|since| since.elapsed() > SILENT) {
            return Err(self.trouble.clone());
        }
        if let Some((first, last)) = self.copies
            && last.saturating_sub(first) >= COPIES
        {
            return Err(format!(
                "the new uplink has begun {COPIES} times to copy everything, and has never ended it: \
                 its log says why (can it read the present one's data?)"
            ));
        }
        if self.moved_at.elapsed() > STALLED {
            let (stalled, trouble) = (STALLED.as_secs(), &self.trouble);
            return Err(format!("the replication has not moved for {stalled} s: {trouble}"));
        }
        Ok(())
    }

    pub(super) fn hear<T>(&mut self, at: ReplicationSide, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.silent.take_if(|(silent, ..)| *silent == at);
                Some(answer)
            }
            Err(why) => {
                let name = match at {
                    ReplicationSide::Old => "present",
                    ReplicationSide::New => "new",
                };
                let since = self.silent.as_ref().filter(|it| it.0 == at);
                let since = since.map_or(Instant::now(), |(_, since, _)| *since);
                let text = format!("lost the {name} uplink: {why}");
                if why.is_end() {
                    self.ended = Some(text.clone());
                }
                self.silent = Some((at, since, text));
                None
            }
        }
    }

    /// Notes if the old server is at work for the new one.
    pub(super) fn look_at_old(&mut self, old: &Info) {
        if is_saving(old) {
            self.moved_at = Instant::now();
        }
        if let Some(begun) = old.number("sync_full") {
            self.copies = Some((self.copies.map_or(begun, |(first, _)| first), begun));
        }
    }

    /// Notes if the new server follows another one. Right after it was connected, it may only seem so.
    pub(super) fn compare(&mut self, old: &Replication, new: &Replication) {
        let is_strange = new.is_synchronised() && new.history.id != old.history.id;
        if !is_strange {
            self.strange = None;
        } else if self.strange.is_none() {
            self.strange = Some(Instant::now());
        }
    }

    /// Notes if the new server is at work.
    pub(super) fn look_at_new(&mut self, info: &Info, new: &Replication) {
        let fields = [
            "master_sync_read_bytes",
            "loading_loaded_bytes",
            "slave_read_repl_offset",
            "slave_repl_offset",
            RECEIVED,
        ];
        let now: Vec<_> = fields.iter().map(|name| info.text(name).map(str::to_owned)).collect();
        if is_saving(info) || now != self.last {
            (self.last, self.moved_at) = (now, Instant::now());
        }
        if new.is_synchronised() {
            self.copies = None;
        }
    }

    /// How much of the snapshot for the new server is made, in keys, if the present one tells.
    pub(super) fn snapshot(old: &Info, new: &Replication) -> Option<(u64, u64)> {
        let total = old.number("current_save_keys_total").filter(|total| *total > 0)?;
        let done = old.number("current_save_keys_processed")?;
        new.is_syncing.then_some((done.min(total), total))
    }

    /// What is going on, for people.
    pub(super) fn doing(&mut self, info: &Info, new: &Replication) -> String {
        let master = new.master.as_ref();
        let master = master.map(|(host, port)| format!("{host}:{port}")).unwrap_or_default();
        if info.number("loading") == Some(1) {
            return "the new uplink loads the data".to_owned();
        }
        if new.is_syncing && new.read_bytes == 0 {
            self.trouble = "the present uplink does not begin to send".to_owned();
            return "the present uplink makes a snapshot of the data".to_owned();
        }
        if new.is_syncing {
            self.trouble = format!("nothing more comes from {master}");
            return "the new uplink receives the data".to_owned();
        }
        if !new.is_up {
            self.trouble = format!(
                "the new uplink's link to {master} is down (can it reach that, with TLS and the \
                 password? its log tells)"
            );
            return format!("the new uplink connects to {master}");
        }
        self.trouble = match self.strange {
            Some(_) => format!("the new uplink follows {master}, which is not the present uplink"),
            None => format!("nothing comes from {master}"),
        };
        "the new uplink catches up".to_owned()
    }
}

/// Whether a server writes a snapshot, for its disk or for a replica.
pub(super) fn is_saving(info: &Info) -> bool {
    ["rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"]
        .iter()
        .any(|name| info.number(name) == Some(1))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::config::{Address, Uplink};
    use crate::uplink::{Dialler, Script};

    /// Of an address where nobody listens.
    async fn refusal() -> Error {
        let addr = Address::Tcp { host: "127.0.0.1".to_owned(), port: 1 };
        let dialler = Dialler::new("uplink", Uplink { addr, login: None, tls: None }, SILENT);
        let dialled = dialler.expect("there is no file to be read").dial(Script::default()).await;
        dialled.expect_err("nobody listens").into()
    }

    #[tokio::test]
    async fn a_server_that_has_ended_is_not_waited_for_and_one_that_is_silent_is() {
        let lost = || Err::<(), _>(Error::Lost(io::ErrorKind::ConnectionReset.into()));
        let mut watch = ReplicationWatch::new();
        assert!(watch.hear(ReplicationSide::Old, lost()).is_none());
        assert_eq!(watch.patience(), Ok(()));
        assert!(watch.hear(ReplicationSide::New, Err::<(), _>(Error::TimeLimit(SILENT))).is_none());
        assert_eq!(watch.patience(), Ok(()));
        assert!(watch.hear(ReplicationSide::Old, Err::<(), _>(refusal().await)).is_none());
        let why = watch.patience().expect_err("it has ended");
        assert!(why.starts_with("lost the present uplink: could not connect"), "{why}");
    }
}
