//! Scripts are loaded at the new uplink: ahead, while clients are served, and the last few in the
//! pause. A script that cannot be loaded refuses nothing: its client is told NOSCRIPT, as by a
//! server that was restarted, and client libraries bring it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use crate::redact::without_arguments;
use crate::resp::encode;
use crate::server::OwnConnection;
use crate::shared::Shared;
use crate::uplink::{Dialler, Script};

/// Scripts that are sent at once, and their bytes.
const BATCH: usize = 200;
const BATCH_BYTES: usize = 256 * 1024;
/// How often the scripts that came during the loading are loaded before the pause, too.
const ROUNDS: usize = 10;
/// How long clients are held for the scripts that came last.
const IN_PAUSE: Duration = Duration::from_millis(50);
/// How often the log tells how many scripts are loaded.
const TOLD: Duration = Duration::from_secs(5);

/// Loads scripts over a connection of its own, so that a slow server holds up nothing else.
#[derive(Debug)]
pub(super) struct Loading {
    connection: OwnConnection,
    /// Why no more can be loaded.
    lost: Option<String>,
    /// Scripts up to this stamp were taken.
    stamp: u64,
    left: VecDeque<Arc<[u8]>>,
    loaded: usize,
    /// Scripts that the server refused, and what it said of the first.
    refused: Option<(usize, String)>,
}

impl Loading {
    pub(super) fn new(dialler: Arc<Dialler>) -> Self {
        Loading {
            connection: OwnConnection::new(dialler),
            lost: None,
            stamp: 0,
            left: VecDeque::new(),
            loaded: 0,
            refused: None,
        }
    }

    /// Loads all scripts that clients have used, for as long as the server goes on answering.
    pub(super) async fn ahead(&mut self, shared: &Shared) {
        let mut told = Instant::now();
        for _ in 0..ROUNDS {
            self.take_new(shared);
            // A few more are no matter.
            if self.left.is_empty() {
                return;
            }
            while !self.left.is_empty() && self.lost.is_none() {
                let limit = self.connection.dialler.time_limit;
                self.load_some(Instant::now() + limit).await;
                if told.elapsed() > TOLD {
                    told = Instant::now();
                    info!(loaded = self.loaded, left = self.left.len(), "scripts are loaded");
                }
            }
        }
    }

    /// Loads the scripts that came since [`Loading::ahead`]. Clients are held.
    pub(super) async fn rest(&mut self, shared: &Shared, deadline: Instant) {
        self.take_new(shared);
        let deadline = deadline.min(Instant::now() + IN_PAUSE);
        while !self.left.is_empty() && self.lost.is_none() {
            self.load_some(deadline).await;
        }
    }

    /// Which scripts could not be loaded, and why.
    pub(super) fn warnings(&self) -> Vec<String> {
        let addr = &self.connection.dialler.config.addr;
        let refused = self.refused.iter().map(|(count, first)| {
            format!("uplink: {addr} refused {count} of the scripts that clients use: {first}")
        });
        let lost = self.lost.iter().filter(|_| !self.left.is_empty()).map(|why| {
            let left = self.left.len();
            format!("{left} of the scripts that clients use could not be loaded at uplink: {addr}: {why}")
        });
        refused.chain(lost).collect()
    }

    fn take_new(&mut self, shared: &Shared) {
        let (new, stamp) = shared.scripts.since(self.stamp);
        self.stamp = stamp;
        self.left.extend(new);
    }

    /// Loads the next few scripts.
    async fn load_some(&mut self, deadline: Instant) {
        let mut bytes = 0;
        let fits = |script: &&Arc<[u8]>| {
            bytes += script.len();
            bytes == script.len() || bytes <= BATCH_BYTES
        };
        let load = |script: &Arc<[u8]>| encode::request([b"SCRIPT", &b"LOAD"[..], script]);
        let requests: Vec<_> = self.left.iter().take(BATCH).take_while(fits).map(load).collect();
        let asked = async {
            if self.connection.is_lost() {
                self.connection.dial(Script::default()).await.map_err(|why| why.to_string())?;
            }
            self.connection.ask(&requests).await.map_err(|why| why.to_string())
        };
        match timeout_at(deadline, asked).await {
            Ok(Ok(answers)) => {
                self.left.drain(..answers.len());
                self.loaded += answers.len();
                answers.iter().for_each(|answer| self.note(answer));
            }
            Ok(Err(why)) => self.lost = Some(why),
            Err(_) => self.lost = Some("no answer in time".to_owned()),
        }
    }

    fn note(&mut self, answer: &[u8]) {
        let Some(error) = answer.strip_prefix(b"-") else { return };
        let error = String::from_utf8_lossy(error);
        let error = without_arguments(&error);
        // It would have been refused where it came from, too.
        if error.starts_with("ERR ") && !error.starts_with("ERR unknown command") {
            debug!(error, "not a script");
            return;
        }
        self.refused.get_or_insert((0, error.to_owned())).0 += 1;
    }
}
