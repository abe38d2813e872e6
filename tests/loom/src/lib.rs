//! Every interleaving of threads at the gate, by loom.
//!
//! The file under test is the proxy's own; only its atomics are loom's.

#![cfg(test)]

#[path = "../../../src/gate/shard.rs"]
mod shard;

/// What `shard` is made of.
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;

use crate::shard::Shard;

/// The number of the generation, and how many requests use it. Relaxed on purpose: what makes a
/// change visible must be the gate.
#[derive(Default)]
struct World {
    generation: AtomicU32,
    running: AtomicU32,
}

/// Threads are switched where they need not be at most so often: more finds nothing more, and
/// takes minutes.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn nothing_runs_once_all_shards_are_closed_and_empty_and_whoever_comes_later_sees_the_change() {
    model(|| {
        let shards = Arc::new([Shard::new(), Shard::new()]);
        let world = Arc::new(World::default());
        let sessions: Vec<_> = (0..2)
            .map(|session| {
                let (shards, world) = (shards.clone(), world.clone());
                thread::spawn(move || {
                    let shard = &shards[session];
                    if shard.enter() {
                        world.running.fetch_add(1, Ordering::Relaxed);
                        let generation = world.generation.load(Ordering::Relaxed);
                        // The same at the request's end as at its beginning.
                        assert_eq!(world.generation.load(Ordering::Relaxed), generation);
                        world.running.fetch_sub(1, Ordering::Relaxed);
                        shard.leave(1);
                    }
                })
            })
            .collect();
        shards.iter().for_each(Shard::close);
        if shards.iter().map(Shard::in_flight).sum::<u64>() == 0 {
            assert_eq!(world.running.load(Ordering::Relaxed), 0);
            world.generation.store(1, Ordering::Relaxed);
            assert!(!shards[0].enter() && !shards[1].enter());
        }
        shards.iter().for_each(Shard::open);
        for session in sessions {
            session.join().expect("the session ends");
        }
    });
}

#[test]
fn whoever_is_admitted_after_a_swap_sees_it() {
    model(|| {
        let shard = Arc::new(Shard::new());
        let world = Arc::new(World::default());
        shard.close();
        let session = {
            let (shard, world) = (shard.clone(), world.clone());
            thread::spawn(move || {
                if shard.enter() {
                    assert_eq!(world.generation.load(Ordering::Relaxed), 1);
                    shard.leave(1);
                }
            })
        };
        world.generation.store(1, Ordering::Relaxed);
        shard.open();
        session.join().expect("the session ends");
    });
}

#[test]
fn the_last_one_out_is_heard_of() {
    model(|| {
        let shard = Arc::new(Shard::new());
        let drained = Arc::new(Notify::new());
        let sessions: Vec<_> = (0..2)
            .map(|_| {
                let (shard, drained) = (shard.clone(), drained.clone());
                thread::spawn(move || {
                    if shard.enter() {
                        shard.add(1);
                        if shard.leave(1) {
                            drained.notify();
                        }
                        if shard.leave(1) {
                            drained.notify();
                        }
                    }
                })
            })
            .collect();
        shard.close();
        // A lost wake-up would be a deadlock here, which loom reports.
        while shard.in_flight() > 0 {
            drained.wait();
        }
        assert!(!shard.enter());
        for session in sessions {
            session.join().expect("the session ends");
        }
    });
}
