//! Whether the first synchronisation gets on, and what it waits for.

use std::time::Duration;

use tokio::time::Instant;

use super::super::server::{Error, Info, Replication};

/// For how long nothing may have moved.
pub(super) const STALLED: Duration = Duration::from_secs(60);
/// For how long a server may not answer.
const SILENT: Duration = Duration::from_secs(10);
/// How often the new server may begin to copy everything.
const COPIES: u64 = 10;

/// Bytes that came by replication, since version 7.
pub(super) const RECEIVED: &str = "total_net_repl_input_bytes";

/// One of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Old,
    New,
}

/// Whether anything moves.
pub(super) struct Watch {
    moved_at: Instant,
    last: Vec<Option<String>>,
    trouble: String,
    /// Who does not answer, since when, and what was heard last.
    silent: Option<(At, Instant, String)>,
    /// Since when the new server has been the replica of another one.
    strange: Option<Instant>,
    /// How many full synchronisations the old server had begun, and has.
    copies: Option<(u64, u64)>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Watch {
            moved_at: Instant::now(),
            last: Vec::new(),
            trouble: "it was not answered".to_owned(),
            silent: None,
            strange: None,
            copies: None,
        }
    }

    pub(super) fn patience(&self) -> Result<(), String> {
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

    pub(super) fn hear<T>(&mut self, at: At, answer: Result<T, Error>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.silent.take_if(|(silent, ..)| *silent == at);
                Some(answer)
            }
            Err(why) => {
                let name = match at {
                    At::Old => "present",
                    At::New => "new",
                };
                let since = self.silent.as_ref().filter(|it| it.0 == at);
                let since = since.map_or(Instant::now(), |(_, since, _)| *since);
                self.silent = Some((at, since, format!("lost the {name} uplink: {why}")));
                None
            }
        }
    }

    /// The old server is at work for the new one.
    pub(super) fn look_at_old(&mut self, old: &Info) {
        if is_saving(old) {
            self.moved_at = Instant::now();
        }
        if let Some(begun) = old.number("sync_full") {
            self.copies = Some((self.copies.map_or(begun, |(first, _)| first), begun));
        }
    }

    /// Right after a link was made, one may know less than the other.
    pub(super) fn compare(&mut self, old: &Replication, new: &Replication) {
        let is_strange = new.is_synchronised() && new.history.id != old.history.id;
        if !is_strange {
            self.strange = None;
        } else if self.strange.is_none() {
            self.strange = Some(Instant::now());
        }
    }

    /// The new server is at work.
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

/// It writes a snapshot: for its disk, or for a replica.
pub(super) fn is_saving(info: &Info) -> bool {
    ["rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"]
        .iter()
        .any(|name| info.number(name) == Some(1))
}
