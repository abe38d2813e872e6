//! What is counted, and how it is told to Prometheus. It knows nobody.
//!
//! What happens with every request is recorded by the worker on which it happens, in numbers that
//! nobody else writes: no lock, no shared cache line. What is rare uses the library's own types.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// Why sessions end, as the count of them says.
pub const SESSION_ENDS: [&str; 16] = [
    "client_closed",
    "client_lost",
    "quit",
    "client_protocol",
    "other_protocol",
    "unread",
    "unfinished",
    "no_login",
    "stopped",
    "withdrawn",
    "not_carried",
    "uplink_unavailable",
    "uplink_closed",
    "uplink_lost",
    "uplink_protocol",
    "time_limit",
];

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// Of the two histograms that the older program had; in nanoseconds.
const DURATIONS: &[u64] = &[50 * US, 100 * US, 250 * US, 500 * US, MS, 2_500 * US, 5 * MS, 10 * MS];
const DELAYS: &[u64] = &[US, 5 * US, 10 * US, 25 * US, 50 * US, 100 * US, 250 * US, 500 * US];
/// Of what people wait for.
const WAITS: &[u64] = &[
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    100 * MS,
    S,
    10 * S,
    100 * S,
];

/// How a connection to the uplink, a reload and a switch may end. What can be counted is there from
/// the start, with 0: a counter that is born with 1 has not increased, for Prometheus.
const CONNECTS: [&str; 2] = ["ok", "failed"];
const RELOADS: [&str; 3] = ["done", "refused", "cancelled"];
const SWITCHES: [&str; 3] = ["done", "refused", "rolled back"];

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    workers: Vec<Arc<Recorder>>,
    /// Sessions that ended, and why.
    pub closed: Family<Reason, Counter>,
    /// Clients beyond `max_clients`.
    pub refused: Counter,
    /// TLS handshakes of clients that failed.
    pub handshakes_failed: Counter,
    /// Wrong passwords, or users, that clients gave.
    pub logins_failed: Counter,
    /// Connections to the uplink, made or not.
    connects: Family<ResultLabel, Counter>,
    /// Reloads that ended.
    pub reloads: Family<ResultLabel, Counter>,
    /// Switches.
    pub switches: Family<ResultLabel, Counter>,
    /// How long the gate was shut; recorded by the controller alone.
    pub reload_pauses: Histogram,
    /// How long an operator had the gate shut.
    pub operator_pauses: Histogram,
    /// Times that the uplink was lost.
    pub outages: Counter,
    /// How long it was.
    pub outage_durations: Histogram,
    /// Requests that were asked again after an outage, or after a refusal.
    pub asked_again: Counter,
    /// Clients that were closed with a request whose outcome nobody knows.
    pub outcomes_unknown: Counter,
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why.
    pub reason: &'static str,
}

/// A label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// How it went.
    pub result: &'static str,
}

/// What the sessions of one worker record; nobody else may.
#[derive(Debug)]
#[repr(align(128))]
pub struct Recorder {
    /// Sessions that began.
    pub opened: Tally,
    /// Requests that the uplink has answered.
    pub requests: Tally,
    /// Bytes read from clients.
    pub up: Tally,
    /// Bytes read from uplinks.
    pub down: Tally,
    /// From a request's last byte sent to its reply read.
    pub durations: Histogram,
    /// What the proxy adds to that.
    pub delays: Histogram,
    /// Time spent at the shut gate.
    pub parked: Histogram,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder {
            opened: Tally::default(),
            requests: Tally::default(),
            up: Tally::default(),
            down: Tally::default(),
            durations: Histogram::new(DURATIONS),
            delays: Histogram::new(DELAYS),
            parked: Histogram::new(WAITS),
        }
    }
}

/// A number that one thread writes.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    /// Adds; two threads that did so at once would lose a part.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Times in nanoseconds, that one thread writes.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// The last one that is used is for what is above all bounds. Not a slice elsewhere: what one
    /// worker writes must not share a cache line with what another does.
    counts: [Tally; WAITS.len() + 1],
    sum: Tally,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        Histogram { bounds, counts: Default::default(), sum: Tally::default() }
    }

    /// Counts this time so many times.
    #[inline]
    pub fn observe(&self, time: Duration, times: u32) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.bounds.partition_point(|bound| *bound < nanoseconds);
        self.counts[bucket].add(u64::from(times));
        self.sum.add(nanoseconds.saturating_mul(u64::from(times)));
    }
}

/// Several histograms of one kind, as one.
struct Sum<'a> {
    parts: Vec<&'a Histogram>,
    /// Of its unit, for each nanosecond.
    scale: f64,
}

impl Sum<'_> {
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
    ) -> std::fmt::Result {
        let mut encoder = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        let total = |bucket: usize| self.parts.iter().map(|part| part.counts[bucket].value()).sum();
        let bounds = self.parts.first().map_or(&[][..], |part| part.bounds);
        let above = bounds.iter().map(|bound| *bound as f64 * self.scale).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = above.zip((0..).map(total)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum: f64 = self.parts.iter().map(|part| part.sum.value() as f64 * self.scale).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Metrics {
    /// All zero; sessions end for these reasons.
    pub fn new(workers: usize, reasons: &[&'static str]) -> Arc<Self> {
        Arc::new(Metrics {
            workers: (0..workers.max(1)).map(|_| Arc::default()).collect(),
            closed: zeroes(reasons, |reason| Reason { reason }),
            refused: Counter::default(),
            handshakes_failed: Counter::default(),
            logins_failed: Counter::default(),
            connects: zeroes(&CONNECTS, |result| ResultLabel { result }),
            reloads: zeroes(&RELOADS, |result| ResultLabel { result }),
            switches: zeroes(&SWITCHES, |result| ResultLabel { result }),
            reload_pauses: Histogram::new(WAITS),
            operator_pauses: Histogram::new(WAITS),
            outages: Counter::default(),
            outage_durations: Histogram::new(WAITS),
            asked_again: Counter::default(),
            outcomes_unknown: Counter::default(),
        })
    }

    /// What the sessions of this worker record.
    pub fn recorder(&self, worker: usize) -> Arc<Recorder> {
        self.workers[worker % self.workers.len()].clone()
    }

    /// A connection to the uplink was made, or not.
    pub fn count_connect<T, E>(&self, result: &Result<T, E>) {
        let outcome = ResultLabel { result: if result.is_ok() { "ok" } else { "failed" } };
        self.connects.get_or_create(&outcome).inc();
    }

    /// In Prometheus's text format, with these gauges: name, help, value; and so many lines of the log
    /// that were dropped.
    pub fn encode(
        self: &Arc<Self>,
        gauges: impl IntoIterator<Item = (&'static str, &'static str, i64)>,
        log_lines_dropped: u64,
    ) -> String {
        let mut registry = Registry::default();
        for (name, help, value) in gauges {
            registry.register(name, help, ConstGauge::new(value));
        }
        let counters = [
            ("redis_proxy_clients_refused", "Clients beyond max_clients", &self.refused),
            (
                "redis_proxy_tls_handshake_failures",
                "TLS handshakes of clients that failed",
                &self.handshakes_failed,
            ),
            (
                "redis_proxy_login_failures",
                "Wrong passwords, or users, that clients gave",
                &self.logins_failed,
            ),
            ("redis_proxy_uplink_outages", "Times that the uplink was lost", &self.outages),
            (
                "redis_proxy_requests_asked_again",
                "Requests that were asked again, after the uplink was lost or refused them",
                &self.asked_again,
            ),
            (
                "redis_proxy_outcomes_unknown",
                "Clients that were closed because nobody knows what became of their requests",
                &self.outcomes_unknown,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "redis_proxy_log_lines_dropped",
            "Lines of the log that could not be written, or came too fast",
            ConstCounter::new(log_lines_dropped),
        );
        registry.register(
            "redis_proxy_sessions_closed",
            "Sessions that ended, by reason",
            self.closed.clone(),
        );
        registry.register(
            "redis_proxy_uplink_connects",
            "Connections to the uplink that were made, or failed",
            self.connects.clone(),
        );
        registry.register("redis_proxy_reloads", "Reloads, by result", self.reloads.clone());
        registry.register("redis_proxy_switches", "Switches, by result", self.switches.clone());
        registry.register_collector(Box::new(Recorded(self.clone())));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

fn zeroes<L: Clone + Hash + Eq>(
    values: &[&'static str],
    label: impl Fn(&'static str) -> L,
) -> Family<L, Counter> {
    let family = Family::<L, Counter>::default();
    for value in values {
        drop(family.get_or_create(&label(value)));
    }
    family
}

/// From OpenMetrics to Prometheus's older text format, where a counter's family has the name of its
/// samples.
pub fn as_plain_text(openmetrics: &str) -> String {
    let counters: Vec<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::new();
    for line in openmetrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT")) {
        let mut words = line.splitn(4, ' ');
        let named = (words.next(), words.next(), words.next());
        match (named, words.next()) {
            ((Some("#"), Some(what), Some(name)), Some(rest)) if counters.contains(&name) => {
                text += &format!("# {what} {name}_total {rest}\n");
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

/// What is not of the library's own types.
#[derive(Debug)]
struct Recorded(Arc<Metrics>);

impl Collector for Recorded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let total = |of: fn(&Recorder) -> &Tally| -> u64 {
            self.0.workers.iter().map(|worker| of(worker).value()).sum()
        };
        let counters: [(&str, &str, u64); 4] = [
            (
                "redis_proxy_requests",
                "Requests that the uplink has answered",
                total(|worker| &worker.requests),
            ),
            ("redis_proxy_sessions_opened", "Sessions begun", total(|worker| &worker.opened)),
            ("redis_proxy_client_bytes", "Bytes read from clients", total(|worker| &worker.up)),
            ("redis_proxy_uplink_bytes", "Bytes read from uplinks", total(|worker| &worker.down)),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        let each = |of: fn(&Recorder) -> &Histogram, scale| Sum {
            parts: self.0.workers.iter().map(|worker| of(worker)).collect(),
            scale,
        };
        let one = |of| Sum { parts: vec![of], scale: 1e-9 };
        each(|worker| &worker.durations, 1.0).encode(
            &mut encoder,
            "rproxy_request_durations_nanoseconds",
            "From a request's last byte sent to the uplink to its reply's last byte read",
            None,
        )?;
        each(|worker| &worker.delays, 1.0).encode(
            &mut encoder,
            "rproxy_request_delays_nanoseconds",
            "What the proxy adds to each request and reply; time parked is not in it",
            None,
        )?;
        each(|worker| &worker.parked, 1e-9).encode(
            &mut encoder,
            "redis_proxy_parked",
            "Time that requests waited at the shut gate",
            Some(&Unit::Seconds),
        )?;
        one(&self.0.reload_pauses).encode(
            &mut encoder,
            "redis_proxy_reload_pause",
            "How long a reload, or a switch, kept the gate shut",
            Some(&Unit::Seconds),
        )?;
        one(&self.0.operator_pauses).encode(
            &mut encoder,
            "redis_proxy_operator_pause",
            "How long an operator's pause lasted",
            Some(&Unit::Seconds),
        )?;
        one(&self.0.outage_durations).encode(
            &mut encoder,
            "redis_proxy_uplink_outage",
            "How long the uplink was lost",
            Some(&Unit::Seconds),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_as_one() {
        let metrics = Metrics::new(2, &["quit"]);
        for worker in 0..2 {
            let recorder = metrics.recorder(worker);
            recorder.requests.add(2);
            recorder.durations.observe(Duration::from_micros(50), 2);
            recorder.durations.observe(Duration::from_secs(1), 1);
        }
        metrics.closed.get_or_create(&Reason { reason: "quit" }).inc();
        let text = metrics.encode([("rproxy_active_requests", "Requests in flight", 7)], 3);
        for line in [
            "redis_proxy_requests_total 4",
            "rproxy_active_requests 7",
            "redis_proxy_log_lines_dropped_total 3",
            "redis_proxy_sessions_closed_total{reason=\"quit\"} 1",
            "rproxy_request_durations_nanoseconds_bucket{le=\"50000.0\"} 4",
            "rproxy_request_durations_nanoseconds_bucket{le=\"10000000.0\"} 4",
            "rproxy_request_durations_nanoseconds_bucket{le=\"+Inf\"} 6",
            "rproxy_request_durations_nanoseconds_count 6",
            "rproxy_request_durations_nanoseconds_sum 2000200000.0",
            "redis_proxy_reload_pause_seconds_count 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }
}
