//! A failover: which of the replicas that are there already becomes the uplink.

use std::cmp::Reverse;

use super::super::error::{Error, refused};
use crate::config::{Address, Fault, Lookup};
use crate::discovery::{Finder, KnownReplica};
use crate::generation::Generation;
use crate::uplink::Place;

/// The replica at this address, or the best of those that have the uplink's history.
pub(super) async fn choose(
    before: &Generation,
    history: Option<String>,
    to: Option<&Address>,
) -> Result<Place, Error> {
    let fault = |text: String| refused(Fault::new(text));
    if let Lookup::Addr(_) = before.directory.lookup {
        let text = "a failover is for an uplink that is found by addrs or by sentinel; with addr, \
                    use cmd=switch&to=host:port&prepared=true";
        return Err(fault(text.to_owned()));
    }
    let mut finder = Finder::new(before.directory.clone());
    let present = &before.uplink.config.addr;
    if to == Some(present) {
        return Err(fault(format!("to: {present} is the present uplink")));
    }
    let known = finder.replicas(present).await.map_err(fault)?;
    let fit = |it: &&KnownReplica| history.as_ref().is_none_or(|history| it.history == *history);
    let fit: Vec<&KnownReplica> = known.fit.iter().filter(fit).collect();
    let chosen = match to {
        Some(to) => fit.iter().find(|it| it.place.addr == *to).copied(),
        None => best(&fit),
    };
    match (chosen, to) {
        (Some(it), _) => Ok(it.place.clone()),
        (None, Some(to)) => Err(fault(format!(
            "to: {to} is no replica of the uplink that could take its place: {}",
            known.others()
        ))),
        (None, None) => Err(fault(format!(
            "no replica of the uplink is there that could take its place: {}",
            known.others()
        ))),
    }
}

/// As Sentinels choose: by priority, then by how much it has.
fn best<'a>(fit: &[&'a KnownReplica]) -> Option<&'a KnownReplica> {
    let may_be = fit.iter().copied().filter(|it| it.priority > 0);
    may_be.min_by_key(|it| (it.priority, Reverse(it.applied), it.run_id.clone()))
}
