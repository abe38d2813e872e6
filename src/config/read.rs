//! From text to the serde mirror, with every fault instead of serde's first one.

use serde::Deserialize;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

use super::fault::Fault;
use super::raw::{RawConfig, RawUplink};
use super::twice::{self, Twice};

/// What could be read.
pub(super) struct ReadConfig {
    pub(super) raw: RawConfig,
    /// The paths of fields that are there and could not be read, or of all blocks.
    broken: Vec<String>,
    twice: Vec<Twice>,
    /// A field of the `uplink` block stands at the top level, as where a brace is misplaced.
    uplink_strays: bool,
    pub(super) faults: Vec<Fault>,
}

/// A block within a block.
const SENTINEL: &str = "uplink.sentinel";

const BLOCKS: [&str; 4] = ["uplink", "listen", "listen_raw", "admin"];

impl ReadConfig {
    /// Whether this block, or this field, is there and could not be read.
    pub(super) fn is_broken(&self, path: &str) -> bool {
        self.broken.iter().any(|broken| broken == path)
    }

    /// Whether this block, or any of its fields, could not be read, or was given twice.
    /// The block is not what was meant, then.
    pub(super) fn has_faults(&self, block: &str) -> bool {
        let within = |path: &String| path.split('.').next() == Some(block);
        let of_it = |it: &Twice| it.block.unwrap_or(&it.field).split('.').next() == Some(block);
        let strays = block == "uplink" && self.uplink_strays;
        strays || self.broken.iter().any(within) || self.twice.iter().any(of_it)
    }
}

/// Each fault that serde finds is noted, its field removed, and the rest read again.
pub(super) fn read(text: &str) -> ReadConfig {
    let nothing = |fault: String| ReadConfig {
        raw: RawConfig::default(),
        broken: BLOCKS.map(str::to_owned).into(),
        twice: Vec::new(),
        uplink_strays: false,
        faults: vec![Fault::new(fault)],
    };
    let mut value: Value = match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(other) => return nothing(format!("expected an object, found {}", kind(&other))),
        Err(error) => return nothing(format!("not JSON: {error}")),
    };
    let twice = twice::find(text, &BLOCKS, SENTINEL);
    let mut faults: Vec<Fault> = twice.iter().map(|it| Fault::new(it.to_string())).collect();
    let (mut broken, mut uplink_strays) = (Vec::new(), false);
    for block in BLOCKS.into_iter().chain([SENTINEL]) {
        // serde would take an array for an object's fields in their order.
        let pointer = format!("/{}", block.replace('.', "/"));
        if let Some(value @ Value::Array(_)) = value.pointer_mut(&pointer) {
            faults.push(Fault::new(format!("{block}: expected an object, found an array")));
            broken.push(block.to_owned());
            *value = Value::Null;
        }
    }
    loop {
        let error = match serde_path_to_error::deserialize::<_, RawConfig>(value.clone()) {
            Ok(raw) => return ReadConfig { raw, broken, twice, uplink_strays, faults },
            Err(error) => error,
        };
        let path = error.path().clone();
        let why = why(&value, &path, error.inner());
        uplink_strays |= is_of_uplink(&path);
        faults.push(Fault::new(format!("{path}: {why}")));
        broken.push(path.to_string());
        if !remove(&mut value, &path) {
            return ReadConfig { raw: RawConfig::default(), broken, twice, uplink_strays, faults };
        }
    }
}

/// Whether the `uplink` block has a field of this name.
fn is_of_uplink(path: &Path) -> bool {
    let block = json!({ path.to_string(): null });
    RawUplink::deserialize(block).is_ok()
}

const UNKNOWN: &str = "unknown field";

/// serde's own text quotes the value that it found, which may be a password in the wrong place.
fn why(value: &Value, path: &Path, error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with(UNKNOWN) {
        let known = text.split_once(", expected ").map_or("", |(_, known)| known);
        return format!("{UNKNOWN}; known here: {}", known.trim_start_matches("one of "));
    }
    let expected = match text.rsplit_once(", expected ") {
        Some((_, "u64" | "u32")) => "a whole number, not negative",
        Some((_, expected)) if expected.starts_with("struct") => "an object",
        Some((_, expected)) => expected,
        None => "another value",
    };
    format!("expected {expected}, found {}", at(value, path).map_or("nothing", kind))
}

fn at<'a>(value: &'a Value, path: &Path) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Map { key } => value.get(key),
        Segment::Seq { index } => value.get(index),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// Removes the field at this path.
fn remove(value: &mut Value, path: &Path) -> bool {
    let mut keys: Vec<&str> = Vec::new();
    for segment in path {
        match segment {
            Segment::Map { key } => keys.push(key),
            // A list with one wrong item is wrong.
            Segment::Seq { .. } => break,
            Segment::Enum { .. } | Segment::Unknown => return false,
        }
    }
    let Some((last, parents)) = keys.split_last() else { return false };
    let mut value = value;
    for key in parents {
        match value.get_mut(key) {
            Some(next) => value = next,
            None => return false,
        }
    }
    value.as_object_mut().is_some_and(|object| object.remove(*last).is_some())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
