//! Settings of a server that its clients feel, and whether two values of one mean the same. Pure.

use std::collections::BTreeSet;

/// A setting that clients feel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Felt {
    pub(super) name: &'static str,
    kind: FeltKind,
    /// `settings=copy` sets it at the new server as it is at the old one.
    pub(super) is_copied: bool,
}

/// What the value of a setting is.
#[derive(Debug, Clone, Copy)]
enum FeltKind {
    Text,
    /// Letters, in any order.
    Events,
    /// Four words for each class of clients.
    Buffers,
}

/// All settings that clients feel.
pub(super) const FELT: [Felt; 7] = [
    Felt { name: "notify-keyspace-events", kind: FeltKind::Events, is_copied: true },
    Felt { name: "timeout", kind: FeltKind::Text, is_copied: true },
    Felt { name: "client-output-buffer-limit", kind: FeltKind::Buffers, is_copied: true },
    Felt { name: "proto-max-bulk-len", kind: FeltKind::Text, is_copied: true },
    Felt { name: "maxmemory", kind: FeltKind::Text, is_copied: true },
    Felt { name: "maxmemory-policy", kind: FeltKind::Text, is_copied: true },
    // Since version 7 a second name for busy-reply-threshold.
    Felt { name: "lua-time-limit", kind: FeltKind::Text, is_copied: false },
];

impl Felt {
    /// What of a value concerns clients: this is what is compared and copied.
    pub(super) fn meaning(self, value: &str) -> String {
        match self.kind {
            FeltKind::Text => value.to_owned(),
            FeltKind::Events => {
                let all = value.replace('A', "g$lshzxetd");
                all.chars().collect::<BTreeSet<_>>().into_iter().collect()
            }
            FeltKind::Buffers => {
                let words: Vec<_> = value.split_whitespace().collect();
                let (classes, _) = words.as_chunks::<4>();
                // Those of replicas are the server's own matter.
                let of_clients = classes.iter().filter(|it| ["normal", "pubsub"].contains(&it[0]));
                of_clients.map(|it| it.join(" ")).collect::<Vec<_>>().join(" ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_by_what_they_mean_to_clients() {
        let felt = |name: &str| *FELT.iter().find(|it| it.name == name).expect("a setting");
        for (name, one, other, same) in [
            ("notify-keyspace-events", "AKE", "KEA", true),
            ("notify-keyspace-events", "AK", "g$lshzxetdK", true),
            ("notify-keyspace-events", "", "KEx", false),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 1 2 3 pubsub 4 5 6",
                "normal 0 0 0 slave 7 8 9 pubsub 4 5 6",
                true,
            ),
            ("client-output-buffer-limit", "normal 0 0 0", "normal 1 0 0", false),
            ("timeout", "0", "300", false),
        ] {
            let is_same = felt(name).meaning(one) == felt(name).meaning(other);
            assert_eq!(is_same, same, "{name}: {one} {other}");
        }
        let buffers = felt("client-output-buffer-limit").meaning("slave 1 2 3 pubsub 4 5 6");
        assert_eq!(buffers, "pubsub 4 5 6");
    }
}
