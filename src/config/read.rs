//! From text to the serde mirror, with every fault instead of serde's first one.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::Fault;
use super::raw::Raw;

/// Each fault that serde finds is noted, its field removed, and the rest read again.
pub(super) fn read(text: &str) -> (Raw, Vec<Fault>) {
    let mut faults = Vec::new();
    let mut value: Value = match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(other) => {
            faults.push(Fault::new(format!("expected an object, found {}", kind(&other))));
            return (Raw::default(), faults);
        }
        Err(error) => {
            faults.push(Fault::new(format!("not JSON: {error}")));
            return (Raw::default(), faults);
        }
    };
    loop {
        let error = match serde_path_to_error::deserialize::<_, Raw>(value.clone()) {
            Ok(raw) => {
                if faults.is_empty() {
                    faults.extend(twice(text));
                }
                return (raw, faults);
            }
            Err(error) => error,
        };
        let path = error.path().clone();
        faults.push(Fault::new(format!("{path}: {}", why(&value, &path, error.inner()))));
        if !remove(&mut value, &path) {
            return (Raw::default(), faults);
        }
    }
}

/// A `Value` keeps the last of two fields of one name; nothing may be ignored silently.
fn twice(text: &str) -> Option<Fault> {
    let error =
        serde_path_to_error::deserialize::<_, Raw>(&mut serde_json::Deserializer::from_str(text))
            .err()?;
    Some(Fault::new(format!("{}: {}", error.path(), error.inner())))
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
