//! Lua scripts that went by, so that another uplink can be told them: since Redis 7, replication
//! does not carry what SCRIPT LOAD and EVAL leave in a server's memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// Bytes that are kept of either kind.
const MOST: usize = 16 * 1024 * 1024;

/// The scripts of one process.
#[derive(Debug)]
pub struct Scripts {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// By SCRIPT LOAD: whoever did that will go on to call them by their hashes.
    loaded: Bounded,
    /// By EVAL, which some clients give a new script each time.
    evaluated: Bounded,
    /// Counts the scripts that came.
    stamp: u64,
}

/// Those that were used last.
#[derive(Debug)]
struct Bounded {
    /// Each with the stamp of when it came.
    scripts: LruCache<Box<[u8]>, u64>,
    bytes: usize,
}

impl Bounded {
    fn new() -> Self {
        Bounded { scripts: LruCache::unbounded(), bytes: 0 }
    }

    /// True if it is new.
    fn add(&mut self, script: &[u8], stamp: u64) -> bool {
        if self.scripts.get(script).is_some() || script.len() > MOST {
            return false;
        }
        self.bytes += script.len();
        self.scripts.put(script.into(), stamp);
        while self.bytes > MOST
            && let Some((oldest, _)) = self.scripts.pop_lru()
        {
            self.bytes -= oldest.len();
        }
        true
    }
}

impl Default for Scripts {
    fn default() -> Self {
        let (loaded, evaluated) = (Bounded::new(), Bounded::new());
        Scripts { kept: Mutex::new(Kept { loaded, evaluated, stamp: 0 }) }
    }
}

impl Scripts {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// EVAL brought this one.
    pub fn evaluated(&self, script: &[u8]) {
        let kept = &mut *self.kept();
        kept.stamp += u64::from(kept.evaluated.add(script, kept.stamp + 1));
    }

    /// SCRIPT LOAD brought this one.
    pub fn loaded(&self, script: &[u8]) {
        let kept = &mut *self.kept();
        kept.stamp += u64::from(kept.loaded.add(script, kept.stamp + 1));
    }

    /// SCRIPT FLUSH.
    pub fn flushed(&self) {
        let kept = &mut *self.kept();
        (kept.loaded, kept.evaluated) = (Bounded::new(), Bounded::new());
    }

    /// Those that came after the stamp, and the present stamp.
    pub fn since(&self, stamp: u64) -> (Vec<Box<[u8]>>, u64) {
        let kept = self.kept();
        let all = kept.loaded.scripts.iter().chain(kept.evaluated.scripts.iter());
        let new = all.filter(|(_, came)| **came > stamp).map(|(script, _)| script.clone());
        (new.collect(), kept.stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_is_told_once() {
        let scripts = Scripts::default();
        scripts.evaluated(b"return 1");
        scripts.evaluated(b"return 1");
        scripts.loaded(b"return 2");
        let (all, stamp) = scripts.since(0);
        assert_eq!(all.len(), 2);
        assert_eq!(scripts.since(stamp), (Vec::new(), stamp));
        scripts.evaluated(b"return 3");
        assert_eq!(scripts.since(stamp).0, [Box::from(&b"return 3"[..])]);
        scripts.flushed();
        assert!(scripts.since(0).0.is_empty());
    }

    #[test]
    fn those_that_were_not_used_for_longest_go() {
        let scripts = Scripts::default();
        let script = |number: usize| format!("return {number} --{}", "x".repeat(1024 * 1024));
        scripts.loaded(b"kept apart");
        for number in 0..20 {
            scripts.evaluated(script(number).as_bytes());
            scripts.evaluated(script(0).as_bytes());
        }
        let (left, _) = scripts.since(0);
        assert_eq!(left.len(), 16, "15 of somewhat more than a MiB, and the one kept apart");
        let has =
            |number| left.iter().any(|it| it.starts_with(format!("return {number} ").as_bytes()));
        assert!(has(0) && has(19) && !has(1));
    }
}
