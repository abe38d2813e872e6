//! Medians, ratios, and the table.

use crate::machine::Target;

/// One visit to one target.
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
    /// Microseconds of the target's process for each request.
    pub(crate) cpu_us: Option<f64>,
}

/// All visits.
#[derive(Default)]
pub(crate) struct Table {
    samples: Vec<(&'static str, Target, Sample)>,
}

impl Table {
    pub(crate) fn add(&mut self, case: &'static str, target: Target, sample: Sample) {
        self.samples.push((case, target, sample));
    }

    fn median(
        &self,
        case: &str,
        target: Target,
        value: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        let of_this = |it: &&(&str, Target, Sample)| it.0 == case && it.1 == target;
        let mut values: Vec<f64> =
            self.samples.iter().filter(of_this).filter_map(|it| value(&it.2)).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    pub(crate) fn print(&self) {
        if self.samples.is_empty() {
            return;
        }
        println!("medians; in parentheses against haproxy");
        println!(
            "| {:<8} | {:<8} | {:>17} | {:>14} | {:>14} | {:>15} |",
            "case", "target", "requests/s", "p50 ms", "p99 ms", "cpu us/request"
        );
        println!("|{:-<10}|{:-<10}|{:->19}|{:->16}|{:->16}|{:->17}|", "", "", ":", ":", ":", ":");
        let mut cases: Vec<&str> = Vec::new();
        for (case, ..) in &self.samples {
            if cases.last() != Some(case) {
                cases.push(case);
            }
        }
        for case in cases {
            let seen = |target: &Target| self.samples.iter().any(|it| it.1 == *target);
            for target in Target::ALL.into_iter().filter(seen) {
                let cell = |digits: usize, value: fn(&Sample) -> Option<f64>| {
                    let Some(own) = self.median(case, target, value) else {
                        return "-".to_owned();
                    };
                    match self.median(case, Target::Haproxy, value) {
                        Some(peer) if matches!(target, Target::Ours | Target::Baseline) => {
                            format!("{own:.digits$} ({:.2})", own / peer)
                        }
                        _ => format!("{own:.digits$}       "),
                    }
                };
                println!(
                    "| {case:<8} | {:<8} | {:>17} | {:>14} | {:>14} | {:>15} |",
                    target.name(),
                    cell(0, |it| Some(it.per_second)),
                    cell(3, |it| Some(it.p50)),
                    cell(3, |it| Some(it.p99)),
                    cell(2, |it| it.cpu_us),
                );
            }
        }
    }
}

pub(crate) fn print_idle(figures: &[(Target, f64)]) {
    println!("resident memory for each of 5000 idle connections, on a fresh process:");
    for (target, kib) in figures {
        println!("  {:<8} {kib:.2} KiB", target.name());
    }
}

pub(crate) fn print_large(kib: u64) {
    println!("resident memory grew during SET and GET of 64 MiB: {kib} KiB at most");
}

pub(crate) fn print_gate(own: f64, shared: f64) {
    println!(
        "in and out of the gate, all cores at once: {own:.0} ns each through a shard for each"
    );
    println!("core, {shared:.0} ns through one for all ({:.1} times as much)", shared / own);
}
