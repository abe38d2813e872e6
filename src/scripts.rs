//! Lua scripts that went by, so that another uplink can be told them: since Redis 7, replication
//! does not carry what SCRIPT LOAD and EVAL leave in a server's memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use lru::LruCache;

use crate::lock::lock;

/// Bytes that are kept of either kind, [`OVERHEAD`] included.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Scripts that are kept of either kind.
const MOST: usize = 10_000;
/// What a script takes beside its own bytes: its places in both tables, and what the allocator adds.
const OVERHEAD: usize = 256;
/// Bytes that may be held of requests with long scripts, until these have come.
const MOST_COMING: usize = MOST_BYTES;
/// Hashes that are remembered of scripts that are not known.
const MOST_UNKNOWN: usize = 1000;

/// The SHA1 by which a server knows a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha([u8; 20]);

/// The scripts of one process.
#[derive(Debug, Default)]
pub struct Scripts {
    kept: Mutex<Kept>,
    coming: Arc<AtomicUsize>,
}

/// Room for a long script that is coming; given back when this is dropped.
#[derive(Debug)]
pub struct Coming {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Coming {
    /// Whether it is enough for so many.
    pub fn is_for(&self, bytes: usize) -> bool {
        bytes <= self.bytes
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Kept {
    /// Scripts that clients call by their hashes, or loaded for that.
    called: Bounded,
    /// Scripts that came by EVAL alone, which some clients give a new one each time.
    evaluated: Bounded,
    /// Counts the scripts that came.
    stamp: u64,
    /// How often EVALSHA named a script that never went by, or was forgotten.
    unknown: LruCache<Sha, u64>,
}

/// Scripts of one kind: those that were used last.
#[derive(Debug)]
struct Bounded {
    /// Each with the stamp of when it came, and its hash.
    scripts: LruCache<Arc<[u8]>, (u64, Sha)>,
    by_sha: HashMap<Sha, Arc<[u8]>>,
    bytes: usize,
}

impl Sha {
    fn of(script: &[u8]) -> Self {
        let mut sha = Sha([0; 20]);
        sha.0.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, script).as_ref());
        sha
    }

    /// From 40 hexadecimal digits, in any case.
    fn parse(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
        let mut sha = Sha([0; 20]);
        if text.len() != 2 * sha.0.len() {
            return None;
        }
        for (byte, pair) in sha.0.iter_mut().zip(text.chunks(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(sha)
    }

    /// The digits that a server takes.
    pub fn text(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Bounded {
    fn new() -> Self {
        Bounded { scripts: LruCache::unbounded(), by_sha: HashMap::new(), bytes: 0 }
    }

    fn cost(script: &[u8]) -> usize {
        script.len() + OVERHEAD
    }

    fn put(&mut self, script: Arc<[u8]>, stamp: u64, sha: Sha) {
        self.bytes += Bounded::cost(&script);
        self.by_sha.insert(sha, script.clone());
        self.scripts.put(script, (stamp, sha));
        while (self.bytes > MOST_BYTES || self.scripts.len() > MOST)
            && let Some((oldest, (_, sha))) = self.scripts.pop_lru()
        {
            self.by_sha.remove(&sha);
            self.bytes -= Bounded::cost(&oldest);
        }
    }

    /// Takes a script out.
    fn take(&mut self, script: &[u8]) -> Option<(Arc<[u8]>, u64, Sha)> {
        let (script, (stamp, sha)) = self.scripts.pop_entry(script)?;
        self.by_sha.remove(&sha);
        self.bytes -= Bounded::cost(&script);
        Some((script, stamp, sha))
    }
}

impl Default for Kept {
    fn default() -> Self {
        Kept {
            called: Bounded::new(),
            evaluated: Bounded::new(),
            stamp: 0,
            unknown: LruCache::unbounded(),
        }
    }
}

impl Kept {
    /// A script that EVALSHA and SCRIPT LOAD name is no passing one any more. False if it is not
    /// known.
    fn call(&mut self, script: &[u8]) -> bool {
        if self.called.scripts.get(script).is_some() {
            return true;
        }
        let Some((script, stamp, sha)) = self.evaluated.take(script) else { return false };
        self.called.put(script, stamp, sha);
        true
    }

    /// A new script has come.
    fn stamp(&mut self, sha: Sha) -> u64 {
        self.unknown.pop(&sha);
        self.stamp += 1;
        self.stamp
    }
}

impl Scripts {
    /// Room for so many bytes of a script that is coming, if there is any.
    pub fn room(&self, bytes: usize) -> Option<Coming> {
        let all = self.coming.clone();
        let more = |all: usize| all.checked_add(bytes).filter(|all| *all <= MOST_COMING);
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Coming { bytes, all })
    }

    /// EVAL brought this one.
    pub fn evaluated(&self, script: &[u8]) {
        let is_known = |kept: &mut Kept| {
            kept.called.scripts.get(script).is_some()
                || kept.evaluated.scripts.get(script).is_some()
        };
        if is_known(&mut lock(&self.kept)) || Bounded::cost(script) > MOST_BYTES {
            return;
        }
        // Not while others wait for the lock.
        let (sha, script_kept) = (Sha::of(script), Arc::from(script));
        let kept = &mut *lock(&self.kept);
        if !is_known(kept) {
            let stamp = kept.stamp(sha);
            kept.evaluated.put(script_kept, stamp, sha);
        }
    }

    /// SCRIPT LOAD brought this one.
    pub fn loaded(&self, script: &[u8]) {
        if lock(&self.kept).call(script) || Bounded::cost(script) > MOST_BYTES {
            return;
        }
        let (sha, script_kept) = (Sha::of(script), Arc::from(script));
        let kept = &mut *lock(&self.kept);
        if !kept.call(script) {
            let stamp = kept.stamp(sha);
            kept.called.put(script_kept, stamp, sha);
        }
    }

    /// EVALSHA names a script, by this text.
    pub fn called(&self, sha: &[u8]) {
        let Some(sha) = Sha::parse(sha) else { return };
        let kept = &mut *lock(&self.kept);
        let script = kept.called.by_sha.get(&sha).or_else(|| kept.evaluated.by_sha.get(&sha));
        if let Some(script) = script.cloned() {
            kept.call(&script);
            return;
        }
        *kept.unknown.get_or_insert_mut(sha, || 0) += 1;
        if kept.unknown.len() > MOST_UNKNOWN {
            kept.unknown.pop_lru();
        }
    }

    /// SCRIPT FLUSH.
    pub fn flushed(&self) {
        let kept = &mut *lock(&self.kept);
        *kept = Kept { stamp: kept.stamp, ..Kept::default() };
    }

    /// Another uplink is in force: which scripts the one before knew matters no more.
    pub fn moved(&self) {
        lock(&self.kept).unknown.clear();
    }

    /// The scripts that came after the stamp, those that are called by their hashes first; and the
    /// present stamp.
    pub fn since(&self, stamp: u64) -> (Vec<Arc<[u8]>>, u64) {
        let kept = lock(&self.kept);
        let all = kept.called.scripts.iter().chain(kept.evaluated.scripts.iter());
        let new = all.filter(|(_, (came, _))| *came > stamp).map(|(script, _)| script.clone());
        (new.collect(), kept.stamp)
    }

    /// Scripts that EVALSHA named since the uplink is in force, and that no other uplink can be told;
    /// each with how often. Of more than a thousand, those that were named last.
    pub fn unknown(&self) -> Vec<(Sha, u64)> {
        lock(&self.kept).unknown.iter().map(|(sha, calls)| (*sha, *calls)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scripts: &[Arc<[u8]>]) -> Vec<String> {
        scripts.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect()
    }

    #[test]
    fn each_script_is_told_once() {
        let scripts = Scripts::default();
        scripts.evaluated(b"return 1");
        scripts.evaluated(b"return 1");
        scripts.loaded(b"return 2");
        let (all, stamp) = scripts.since(0);
        assert_eq!(texts(&all), ["return 2", "return 1"], "what is called by its hash comes first");
        assert_eq!(scripts.since(stamp), (Vec::new(), stamp));
        scripts.evaluated(b"return 3");
        assert_eq!(texts(&scripts.since(stamp).0), ["return 3"]);
        scripts.loaded(b"return 3");
        assert_eq!(scripts.since(0).0.len(), 3, "one copy of each");
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
        let longer = vec![b'-'; MOST_BYTES];
        scripts.evaluated(&longer);
        scripts.loaded(&longer);
        assert_eq!(scripts.since(0).0.len(), 16, "one that is too long pushes nobody out");
    }

    #[test]
    fn there_is_only_so_much_room_for_long_scripts_that_are_coming() {
        let scripts = Scripts::default();
        let half = scripts.room(MOST_COMING / 2);
        assert!(half.is_some() && scripts.room(MOST_COMING).is_none());
        assert!(scripts.room(usize::MAX).is_none());
        drop(half);
        assert!(scripts.room(MOST_COMING).is_some());
    }

    #[test]
    fn many_small_scripts_are_bounded_by_their_number_and_with_their_overhead() {
        let scripts = Scripts::default();
        let most = |kept: &Bounded| {
            assert!(kept.scripts.len() <= MOST && kept.bytes <= MOST_BYTES);
            assert_eq!(kept.scripts.len(), kept.by_sha.len());
            let bytes: usize = kept.scripts.iter().map(|(it, _)| Bounded::cost(it)).sum();
            assert_eq!(kept.bytes, bytes);
        };
        for number in 0..MOST + 500 {
            scripts.evaluated(format!("return {number}").as_bytes());
            scripts.loaded(format!("return '{number}' --{}", "x".repeat(2000)).as_bytes());
        }
        most(&lock(&scripts.kept).evaluated);
        most(&lock(&scripts.kept).called);
        assert_eq!(lock(&scripts.kept).evaluated.scripts.len(), MOST);
        assert!(lock(&scripts.kept).called.scripts.len() < MOST, "their bytes were too many");
    }

    #[test]
    fn a_script_that_is_called_by_its_hash_outlives_those_that_are_evaluated_once() {
        let scripts = Scripts::default();
        scripts.evaluated(b"return 'used'");
        // As `redis-cli SCRIPT LOAD "return 'used'"` says.
        let sha = Sha::of(b"return 'used'").text();
        assert_eq!(Sha::parse(sha.as_bytes()), Some(Sha::of(b"return 'used'")));
        scripts.called(sha.to_ascii_uppercase().as_bytes());
        for number in 0..=MOST {
            scripts.evaluated(format!("return {number}").as_bytes());
        }
        assert!(texts(&scripts.since(0).0).contains(&"return 'used'".to_owned()));
        assert!(scripts.unknown().is_empty());
    }

    #[test]
    fn a_hash_is_what_a_server_says_it_is() {
        // `redis-cli SCRIPT LOAD "return 1"`
        assert_eq!(Sha::of(b"return 1").text(), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        for wrong in ["", "e0e1", "x0e1f9fabfc9d4800c877a703b823ac0578ff8db", "return 1"] {
            assert_eq!(Sha::parse(wrong.as_bytes()), None);
        }
    }

    #[test]
    fn scripts_that_are_called_and_not_known_are_counted_until_they_come() {
        let scripts = Scripts::default();
        let sha = |number: usize| Sha::of(number.to_string().as_bytes()).text();
        scripts.called(sha(1).as_bytes());
        scripts.called(sha(1).as_bytes());
        scripts.called(b"no hash");
        assert_eq!(scripts.unknown(), [(Sha::of(b"1"), 2)]);
        scripts.evaluated(b"1");
        assert!(scripts.unknown().is_empty());
        (0..2 * MOST_UNKNOWN).for_each(|number| scripts.called(sha(number).as_bytes()));
        assert_eq!(scripts.unknown().len(), MOST_UNKNOWN);
        scripts.moved();
        assert!(scripts.unknown().is_empty());
    }
}
