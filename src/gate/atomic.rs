//! What `shard` is made of; loom's own in `tests/loom`.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
