//! From text to the serde mirror, with every fault instead of serde's first one.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::Fault;
use super::raw::Raw;

/// What could be read.
pub(super) struct Read {
    pub(super) raw: Raw,
    /// Blocks that are there and could not be read, or all of them.
    pub(super) broken: Vec<String>,
    pub(super) faults: Vec<Fault>,
}

const BLOCKS: [&str; 4] = ["uplink", "listen", "listen_raw", "admin"];

/// Each fault that serde finds is noted, its field removed, and the rest read again.
pub(super) fn read(text: &str) -> Read {
    let nothing = |fault: String| Read {
        raw: Raw::default(),
        broken: BLOCKS.map(str::to_owned).into(),
        faults: vec![Fault::new(fault)],
    };
    let mut value: Value = match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(other) => return nothing(format!("expected an object, found {}", kind(&other))),
        Err(error) => return nothing(format!("not JSON: {error}")),
    };
    let mut broken = Vec::new();
    let mut faults = Vec::from_iter(twice(text));
    for block in BLOCKS {
        // serde would take an array for an object's fields in their order.
        if matches!(&value[block], Value::Array(_)) {
            faults.push(Fault::new(format!("{block}: expected an object, found an array")));
            broken.push(block.to_owned());
            value[block] = Value::Null;
        }
    }
    loop {
        let error = match serde_path_to_error::deserialize::<_, Raw>(value.clone()) {
            Ok(raw) => return Read { raw, broken, faults },
            Err(error) => error,
        };
        let path = error.path().clone();
        faults.push(Fault::new(format!("{path}: {}", why(&value, &path, error.inner()))));
        broken.push(path.to_string());
        if !remove(&mut value, &path) {
            return Read { raw: Raw::default(), broken, faults };
        }
    }
}

/// A `Value` keeps the last of two fields of one name; nothing may be ignored silently.
fn twice(text: &str) -> Option<Fault> {
    let error =
        serde_path_to_error::deserialize::<_, Raw>(&mut serde_json::Deserializer::from_str(text))
            .err()?;
    let why = error.inner().to_string();
    let path = match error.path().to_string() {
        top if top == "." => String::new(),
        path => format!("{path}: "),
    };
    why.starts_with("duplicate field").then(|| Fault::new(path + &why))
}

/// serde's own text quotes the value that it found, which may be a password in the wrong place.
fn why(value: &Value, path: &Path, error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.starts_with("unknown field") {
        let known = text.split_once(", expected ").map_or("", |(_, known)| known);
        return format!("unknown field; known here: {}", known.trim_start_matches("one of "));
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

fn remove(value: &mut Value, path: &Path) -> bool {
    let mut keys: Vec<&str> = Vec::new();
    for segment in path {
        match segment {
            Segment::Map { key } => keys.push(key),
            Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => return false,
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
