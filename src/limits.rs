//! What the system allows this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Each client needs two descriptors, its own and its uplink's, and a third while a reload makes
/// the next uplink's ready.
const EACH: u64 = 3;
/// Listeners, callers of the API, and the like.
const OTHERS: u64 = 256;
/// What a reload leaves for clients that come meanwhile, and for callers of the API.
pub const SPARE: usize = 64;

/// Raises the limit of file descriptors as far as that is allowed, and warns if it is too low.
pub fn allow_descriptors(max_clients: usize) {
    let needed = EACH * max_clients as u64 + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|now| now < needed) {
        let current = Some(limit.maximum.map_or(needed, |most| most.min(needed)));
        let wanted = Rlimit { current, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, wanted).is_err() || current < Some(needed) {
            let allowed = getrlimit(Resource::Nofile).current;
            warn!(needed, allowed, "too few file descriptors for max_clients");
        }
    }
}

/// How many more descriptors this process may open, if the system tells.
pub fn descriptors_left() -> Option<usize> {
    let allowed = getrlimit(Resource::Nofile).current?;
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count();
    Some(usize::try_from(allowed).ok()?.saturating_sub(open))
}
