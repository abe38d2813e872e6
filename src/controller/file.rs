//! The configuration file names the uplink that was switched to: the next start goes there, too.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use super::error::{Error, refused};
use super::state::Controller;
use crate::config::{Address, Fault};
use crate::config_file::{self, Outdated};
use crate::generation::Generation;
use crate::lock::lock;

/// How often it is looked whether somebody has changed the file.
const LOOK: Duration = Duration::from_secs(1);
/// How long a file may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

impl Controller {
    /// Has the file name the uplink `uplink` in the place of `from`. Gives what is left to be done by hand.
    pub(super) async fn name_uplink(
        self: &Arc<Self>,
        from: &str,
        uplink: &Address,
    ) -> Option<Outdated> {
        let (from, to) = (from.to_owned(), uplink.to_string());
        let Some(file) = self.file.clone() else {
            let why = "it came from standard input, and a start must get another one".to_owned();
            let file = "the configuration".into();
            let outdated = Outdated { file, line: None, from, to, why };
            lock(&self.inner).outdated = Some(outdated.clone());
            return Some(outdated);
        };
        let named = {
            let (file, from, to) = (file.clone(), from.clone(), to.clone());
            spawn_blocking(move || config_file::name_uplink(&file, &from, &to))
        };
        let outdated = match timeout(WRITTEN_WITHIN, named).await {
            Ok(Ok(named)) => named.err(),
            Ok(Err(_)) | Err(_) => Some(Outdated {
                why: "it could not be written in time".to_owned(),
                line: None,
                file,
                from,
                to,
            }),
        };
        lock(&self.inner).outdated.clone_from(&outdated);
        match &outdated {
            None => info!(uplink = %uplink, "the configuration file names the uplink"),
            Some(outdated) => {
                error!("{outdated}");
                tokio::spawn(self.clone().await_file(outdated.clone()));
            }
        }
        outdated
    }

    /// Waits until the file names the uplink.
    async fn await_file(self: Arc<Self>, outdated: Outdated) {
        loop {
            tokio::select! {
                () = self.shared.stop.begun() => return,
                () = sleep(LOOK) => {}
            }
            if lock(&self.inner).outdated.as_ref() != Some(&outdated) {
                return;
            }
            let (file, to) = (outdated.file.clone(), outdated.to.clone());
            if matches!(spawn_blocking(move || config_file::names(&file, &to)).await, Ok(true)) {
                lock(&self.inner).outdated = None;
                info!(uplink = outdated.to, "the configuration file names the uplink now");
                return;
            }
        }
    }

    /// Refuses to go back to the uplink before the last switch for no other reason than that the file still names it.
    pub(super) fn not_outdated(&self, generation: &Generation) -> Result<(), Error> {
        let inner = lock(&self.inner);
        let addr = generation.uplink.config.addr.to_string();
        match inner.outdated.as_ref().filter(|it| it.from == addr) {
            Some(outdated) => Err(refused(Fault::new(format!(
                "uplink: {addr} is the one before the last switch: {outdated} (force=true takes the file as it is)"
            )))),
            None => Ok(()),
        }
    }
}
