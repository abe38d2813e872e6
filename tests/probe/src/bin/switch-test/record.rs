//! What a proxy says of a switch or failover that is done.

use std::time::Duration;

use probe::screen::Screen;
use serde_json::Value;

/// Milliseconds in a record.
pub fn millis(it: &Value) -> Duration {
    Duration::try_from_secs_f64(it.as_f64().unwrap_or(0.0) / 1e3).unwrap_or_default()
}

/// How long clients were held.
pub fn held(record: &Value) -> Duration {
    millis(&record["held_ms"])
}

/// Shows what the proxy warns of.
pub fn show_warnings(record: &Value, screen: &Screen) {
    for warning in record["warnings"].as_array().into_iter().flatten() {
        screen.line(&format!("warning: {}", warning.as_str().unwrap_or("?")));
    }
}
