//! Dependencies point one way: this reads the `use` lines and holds the table of
//! `doc/architecture.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A module and what it may use of this crate.
const ALLOWED: &[(&str, &[&str])] = &[
    ("main", &["app", "cli", "config", "ctl", "exit", "generation", "log", "signal"]),
    (
        "app",
        &[
            "admin",
            "controller",
            "generation",
            "limits",
            "listener",
            "notify",
            "reception",
            "shared",
            "signal",
            "worker",
        ],
    ),
    ("cli", &["config", "log"]),
    ("ctl", &["cli", "config", "dial", "exit", "signal", "tls", "transport"]),
    (
        "admin",
        &[
            "changeover",
            "config",
            "controller",
            "listener",
            "log",
            "metrics",
            "reception",
            "shared",
            "transport",
        ],
    ),
    (
        "controller",
        &[
            "changeover",
            "config",
            "gate",
            "generation",
            "limits",
            "lock",
            "log",
            "metrics",
            "notify",
            "reception",
            "resp",
            "shared",
            "transport",
            "uplink",
        ],
    ),
    ("reception", &["config", "generation", "listener", "raw", "session", "shared", "worker"]),
    ("listener", &["config", "log", "transport"]),
    ("worker", &[]),
    (
        "session",
        &[
            "changeover",
            "clock",
            "command",
            "config",
            "gate",
            "generation",
            "log",
            "metrics",
            "resp",
            "roster",
            "scripts",
            "shared",
            "strangers",
            "transport",
            "uplink",
        ],
    ),
    (
        "shared",
        &[
            "changeover",
            "gate",
            "generation",
            "metrics",
            "roster",
            "scripts",
            "stop",
            "strangers",
            "uplink",
        ],
    ),
    ("changeover", &["command", "generation", "random", "resp", "transport", "uplink"]),
    ("roster", &[]),
    ("scripts", &[]),
    ("raw", &["generation", "log", "metrics", "transport"]),
    ("generation", &["config", "tls", "transport", "uplink"]),
    ("uplink", &["command", "config", "dial", "resp", "tls", "transport"]),
    ("dial", &["config", "transport"]),
    ("tls", &["config"]),
    ("transport", &[]),
    ("clock", &[]),
    ("gate", &[]),
    ("limits", &[]),
    ("lock", &[]),
    ("metrics", &[]),
    ("notify", &[]),
    ("signal", &[]),
    ("stop", &[]),
    ("strangers", &[]),
    ("random", &[]),
    ("command", &[]),
    ("config", &[]),
    ("resp", &[]),
    ("log", &[]),
    ("exit", &[]),
];

/// These must not know an async runtime.
const PURE: &[&str] = &[
    "admin/host.rs",
    "admin/routes.rs",
    "changeover/client_ids.rs",
    "changeover/facets.rs",
    "command/mod.rs",
    "command/grammar.rs",
    "command/learnt.rs",
    "command/words.rs",
    "ctl/api.rs",
    "ctl/progress.rs",
    "ctl/render.rs",
    "metrics.rs",
    "gate/shard.rs",
    "resp/mod.rs",
    "resp/encode.rs",
    "resp/inline.rs",
    "resp/number.rs",
    "resp/reply.rs",
    "resp/request.rs",
    "session/protocol/auth.rs",
    "scripts.rs",
    "session/protocol/expected.rs",
    "session/blocking.rs",
    "session/protocol/effect.rs",
    "session/protocol/fieldsets.rs",
    "session/protocol/pending.rs",
    "session/protocol/queue.rs",
    "session/protocol/replay.rs",
    "session/protocol/state.rs",
    "session/protocol/frame_filter.rs",
    "session/protocol/tracking.rs",
    "session/protocol/transaction.rs",
    "uplink/script.rs",
    "config/mod.rs",
    "config/read.rs",
];

fn source(under: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(under).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { source(&path) } else { vec![path] }).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut seen = BTreeSet::new();
    for file in source(&root()) {
        let inside = file.strip_prefix(root()).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        seen.insert(module.to_owned());
        let (_, allowed) = ALLOWED
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} is not in the table"));
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().map(str::trim_start).filter(|line| line.starts_with("use ")) {
            let Some(rest) =
                line.strip_prefix("use crate::").or_else(|| line.strip_prefix("use redis_proxy::"))
            else {
                continue;
            };
            let names = rest.strip_prefix('{').map_or(vec![rest], |list| list.split(',').collect());
            for name in names {
                let end = name.trim().find(|c: char| !c.is_alphanumeric() && c != '_');
                let used = &name.trim()[..end.unwrap_or(name.trim().len())];
                assert!(
                    used == module || allowed.contains(&used),
                    "{}: {module} may not use {used}",
                    inside.display()
                );
            }
        }
    }
    let table: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, table);
}

#[test]
fn the_pure_parts_know_no_runtime() {
    for file in PURE {
        let text = fs::read_to_string(root().join(file)).unwrap();
        assert!(!text.contains("tokio"), "{file}");
    }
}

#[test]
fn files_stay_readable() {
    for file in source(&root()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 620, "{}: {lines} lines", file.display());
    }
}
