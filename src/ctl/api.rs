//! What the admin API says, as far as people are told of it. Pure.
//!
//! The proxy may be of another version than this program: what is absent, or null, is nothing.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config_file::{self, Outdated};

/// The state, as `/info.json` tells it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProxyInfo {
    pub(super) state_str: String,
    pub(super) version: String,
    pub(super) generation: u64,
    pub(super) uptime_seconds: f64,
    pub(super) clients: u64,
    pub(super) active_requests: u64,
    pub(super) waiting_requests: u64,
    pub(super) raw_connections: u64,
    pub(super) uplink_up: Option<bool>,
    pub(super) uplink_error: String,
    pub(super) remarks: Vec<String>,
    pub(super) paused_seconds: Option<f64>,
    pub(super) pause_ends_in_seconds: Option<f64>,
    pub(super) reloading: Option<Reloading>,
    pub(super) reloads: Vec<ReloadRecord>,
    pub(super) switching: Option<Switching>,
    /// [`SwitchRecord`]s.
    pub(super) switches: Vec<Value>,
    pub(super) config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) uplink: Block,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Block {
    pub(super) addr: String,
    pub(super) tls: bool,
}

/// A reload that is running.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reloading {
    pub(super) by: String,
    pub(super) stage: String,
    pub(super) seconds: f64,
}

/// A reload that has ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ReloadRecord {
    pub(super) at_unix_seconds: f64,
    pub(super) by: String,
    pub(super) result: String,
    pub(super) generation: u64,
    pub(super) uplink: String,
    pub(super) duration_ms: f64,
    pub(super) pause_ms: Option<f64>,
    pub(super) sessions_moved: u64,
    pub(super) sessions_closed: u64,
    pub(super) closed: Vec<Closed>,
    pub(super) faults: Vec<String>,
    pub(super) held_up_by: Vec<HeldUp>,
    pub(super) warnings: Vec<String>,
}

/// A switch that is running.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Switching {
    pub(super) by: String,
    pub(super) stage: String,
    pub(super) seconds: f64,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) stages: Vec<SwitchStage>,
    pub(super) waiting_for: String,
    pub(super) sync: Option<Sync>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) lag_bytes: Option<u64>,
    pub(super) lag_ms: Option<f64>,
}

/// The first synchronisation.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Sync {
    pub(super) read_bytes: u64,
    pub(super) total_bytes: Option<u64>,
}

/// The snapshot that the present uplink makes for the new one.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct Snapshot {
    pub(super) keys: u64,
    pub(super) total_keys: u64,
}

/// One of the steps of a switch.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct SwitchStage {
    pub(super) stage: String,
    /// How long the stage took; `None` while it is on.
    pub(super) ms: Option<f64>,
}

/// A switch that has ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SwitchRecord {
    pub(super) at_unix_seconds: f64,
    pub(super) by: String,
    pub(super) result: String,
    pub(super) reason: String,
    pub(super) faults: Vec<String>,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) duration_ms: f64,
    pub(super) held_ms: Option<f64>,
    pub(super) sync_bytes: Option<u64>,
    pub(super) stages: Vec<SwitchStage>,
    pub(super) fenced: bool,
    pub(super) warnings: Vec<String>,
    pub(super) outdated: Option<Outdated>,
    /// What this program has changed in the file.
    #[serde(skip)]
    pub(super) named: Option<Outdated>,
    pub(super) not_undone: Vec<String>,
    pub(super) sessions_moved: u64,
    pub(super) sessions_closed: u64,
    pub(super) closed: Vec<Closed>,
}

impl SwitchRecord {
    /// Has the configuration file name the new uplink, where the proxy may not write it and this program may.
    pub(super) fn name_uplink(&mut self) {
        let is_it = |it: &Outdated| config_file::names(&it.file, &it.from);
        let Some(outdated) = self.outdated.take_if(|it| is_it(it)) else { return };
        let told = outdated.to_string();
        self.warnings.retain(|warning| *warning != told);
        self.outdated =
            config_file::name_uplink(&outdated.file, &outdated.from, &outdated.to).err();
        match &self.outdated {
            Some(outdated) => self.warnings.push(outdated.to_string()),
            None => self.named = Some(outdated),
        }
    }
}

/// A client that is, or would be, closed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Closed {
    pub(super) client: String,
    pub(super) reason: String,
}

/// A request that is in the way.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct HeldUp {
    pub(super) command: String,
    pub(super) client: String,
    pub(super) seconds: f64,
}

/// What was found out before a switch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Preflight {
    pub(super) checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) result: String,
    pub(super) detail: String,
}

/// What a reload would do.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Prediction {
    pub(super) uplink: String,
    pub(super) uplink_changes: bool,
    pub(super) clients: u64,
    pub(super) moved: u64,
    pub(super) waited_for: u64,
    pub(super) closed: Vec<Closed>,
    pub(super) uncertain: Vec<Closed>,
    pub(super) held_up_by: Vec<HeldUp>,
    pub(super) may_unblock: bool,
    pub(super) may_list: bool,
    pub(super) exact_messages: bool,
    pub(super) replica: bool,
    pub(super) unknown_scripts: u64,
    pub(super) unknown_script_calls: u64,
    pub(super) warnings: Vec<String>,
}

impl ProxyInfo {
    pub(super) fn of(answer: &Value) -> serde_json::Result<Self> {
        read(answer)
    }
}

impl SwitchRecord {
    /// Reads a record; `None` if it has no result.
    pub(super) fn of(record: &Value) -> Option<Self> {
        read(record).ok().filter(|record: &SwitchRecord| !record.result.is_empty())
    }
}

impl Preflight {
    pub(super) fn of(answer: &Value) -> Option<Self> {
        read(answer.get("preflight")?).ok()
    }
}

impl Prediction {
    pub(super) fn of(answer: &Value) -> Option<Self> {
        read(answer.get("prediction")?).ok()
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> serde_json::Result<T> {
    serde_json::from_value(without_nulls(value.clone()))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let given = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(given.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
