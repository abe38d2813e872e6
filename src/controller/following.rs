//! A reload to a replica of the present uplink is a switch without the promotion: its lag is waited for
//! while clients are served, and what was written last is waited for in the pause.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::error::{Error, refused};
use super::links::Links;
use super::outcome::By;
use super::switch::progress::Switching;
use super::switch::replication::Pair;
use crate::config::Fault;
use crate::generation::Generation;
use crate::server::Server;

/// How long a replica may take, all in all, to come close to its master. Nobody is held for it.
const CLOSE_WITHIN: Duration = Duration::from_secs(60);

/// The two uplinks, if the new one follows the old one; otherwise there is nothing to be waited for.
pub(super) struct Following {
    pair: Option<Pair>,
    /// How far the new uplink is, which nobody looks at.
    progress: Switching,
    limit: Duration,
}

impl Following {
    /// Waits until the new uplink is close behind the old one.
    pub(super) async fn of(
        by: By,
        before: &Arc<Generation>,
        generation: &Arc<Generation>,
        links: &Links,
    ) -> Result<Self, Error> {
        let new_pair = || {
            Pair::new(Server::new(before.uplink.clone()), Server::new(generation.uplink.clone()))
        };
        let mut following = Following {
            pair: links.is_replica().then(new_pair),
            progress: Switching::new(by, before.uplink.config.addr.to_string()),
            limit: before.settings.pause_time_limit,
        };
        if let Some(pair) = &mut following.pair {
            let info = pair.new.info().await;
            let addr = &generation.uplink.config.addr;
            pair.counts_from(&info.map_err(|why| fault(format!("uplink: {addr}: {why}")))?);
        }
        following.synchronise().await?;
        Ok(following)
    }

    /// Synchronises again, and tests that messages reach the replica.
    pub(super) async fn closely(&mut self, links: &mut Links) -> Result<(), Error> {
        self.synchronise().await?;
        links.rehearse().await.map_err(fault)
    }

    async fn synchronise(&mut self) -> Result<(), Error> {
        let Some(pair) = &mut self.pair else { return Ok(()) };
        let synchronised =
            timeout(CLOSE_WITHIN, pair.synchronise(&self.progress, self.limit)).await;
        synchronised
            .unwrap_or_else(|_| {
                let (addr, seconds) = (pair.new.addr(), CLOSE_WITHIN.as_secs());
                Err(format!(
                    "uplink: {addr} is a replica of the present one, and was not close enough behind \
                     it within {seconds} s"
                ))
            })
            .map_err(fault)
    }

    /// Waits, while clients are held, until everything that was written is at the new uplink.
    pub(super) async fn catch_up(&mut self) -> Result<(), Error> {
        match &mut self.pair {
            Some(pair) => pair.catch_up().await.map(drop).map_err(fault),
            None => Ok(()),
        }
    }
}

fn fault(why: String) -> Error {
    refused(Fault::new(why))
}
