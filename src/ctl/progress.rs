//! What is new in a switch since the last look. Pure.

use super::api::{SwitchStage, Switching};
use super::units::{bytes, time};

/// How far the stages were told of.
#[derive(Debug, Default)]
pub(super) struct Progress {
    begun: usize,
    ended: usize,
}

/// What happened to a stage.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StageNews {
    Began(String),
    Ended(String, f64),
}

impl Progress {
    /// What was not told yet of the stages. A stage that was not seen while it was on has only ended.
    pub(super) fn advance(&mut self, stages: &[SwitchStage]) -> Vec<StageNews> {
        let mut steps = Vec::new();
        for (at, SwitchStage { stage, ms }) in stages.iter().enumerate() {
            match ms {
                Some(ms) if at >= self.ended => {
                    steps.push(StageNews::Ended(stage.clone(), *ms));
                    self.ended = at + 1;
                    self.begun = self.begun.max(self.ended);
                }
                None if at >= self.begun => {
                    steps.push(StageNews::Began(stage.clone()));
                    self.begun = at + 1;
                }
                Some(_) | None => {}
            }
        }
        steps
    }
}

impl StageNews {
    /// The switch is over.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            StageNews::Began(_) => false,
            StageNews::Ended(..) => true,
        }
    }

    /// The news as a line of its own.
    pub(super) fn line(&self) -> String {
        match self {
            StageNews::Began(stage) => format!("{stage} ..."),
            StageNews::Ended(stage, ms) => format!("{stage}: took {}", time(*ms)),
        }
    }
}

/// How far the present stage is, and what it waits for.
pub(super) fn detail(now: &Switching) -> String {
    let copied = now.sync.as_ref().map(|sync| match sync.total_bytes {
        Some(total @ 1..) => {
            let percent = 100.0 * sync.read_bytes as f64 / total as f64;
            format!("{} of {} ({percent:.0} %)", bytes(sync.read_bytes), bytes(total))
        }
        Some(0) | None => format!("{} copied", bytes(sync.read_bytes)),
    });
    let made = now.snapshot.as_ref().map(|it| {
        let percent = 100.0 * it.keys as f64 / it.total_keys.max(1) as f64;
        format!("{} of {} keys ({percent:.0} %)", it.keys, it.total_keys)
    });
    let parts = [copied, made, lag(now), Some(now.waiting_for.clone()).filter(|it| !it.is_empty())];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn lag(now: &Switching) -> Option<String> {
    match (now.lag_bytes, now.lag_ms) {
        (Some(behind), Some(ms)) => Some(format!("{} or {} behind", bytes(behind), time(ms))),
        (Some(behind), None) => Some(format!("{} behind", bytes(behind))),
        (None, Some(ms)) => Some(format!("{} behind", time(ms))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::{Snapshot, Sync};
    use super::*;

    fn stages(list: &[(&str, Option<f64>)]) -> Vec<SwitchStage> {
        list.iter().map(|(stage, ms)| SwitchStage { stage: (*stage).to_owned(), ms: *ms }).collect()
    }

    #[test]
    fn each_stage_is_told_of_once_as_it_begins_and_as_it_ends() {
        let (mut progress, mut told) = (Progress::default(), Vec::new());
        for seen in [
            &[][..],
            &[("preflight", None)],
            &[("preflight", None)],
            // Between two looks, one stage has ended and another has come and gone.
            &[("preflight", Some(2.0)), ("replicating", Some(3.0)), ("ready", None)],
            &[("preflight", Some(2.0)), ("replicating", Some(3.0)), ("ready", Some(1.0))],
        ] {
            told.extend(progress.advance(&stages(seen)).iter().map(StageNews::line));
        }
        let wanted = [
            "preflight ...",
            "preflight: took 2.0 ms",
            "replicating: took 3.0 ms",
            "ready ...",
            "ready: took 1.0 ms",
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_detail_is_the_data_then_the_lag_then_the_reason() {
        let mut now = Switching { waiting_for: "the data".to_owned(), ..Switching::default() };
        assert_eq!(detail(&now), "the data");
        now.sync = Some(Sync { read_bytes: 1024, total_bytes: None });
        assert_eq!(detail(&now), "1.00 KiB copied; the data");
        now.sync = Some(Sync { read_bytes: 1024, total_bytes: Some(4096) });
        assert_eq!(detail(&now), "1.00 KiB of 4.00 KiB (25 %); the data");
        now.snapshot = Some(Snapshot { keys: 50, total_keys: 200 });
        assert_eq!(detail(&now), "1.00 KiB of 4.00 KiB (25 %); 50 of 200 keys (25 %); the data");
        (now.sync, now.snapshot) = (None, None);
        (now.lag_bytes, now.lag_ms) = (Some(12), Some(3.5));
        assert_eq!(detail(&now), "12 B or 3.5 ms behind; the data");
    }
}
