//! Numbers as people read them: bytes, times, counts. Pure.

use indicatif::HumanBytes;

/// A number of bytes.
pub(super) fn bytes(count: u64) -> String {
    HumanBytes(count).to_string()
}

/// A time, to a tenth or so.
pub(super) fn time(ms: f64) -> String {
    match ms / 1000.0 {
        seconds if seconds < 0.001 => format!("{ms:.2} ms"),
        seconds if seconds < 1.0 => format!("{ms:.1} ms"),
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        seconds => {
            let minutes = seconds as u64 / 60;
            match minutes {
                0..60 => format!("{minutes} min {} s", seconds as u64 % 60),
                60..1440 => format!("{} h {} min", minutes / 60, minutes % 60),
                _ => format!("{} d {} h", minutes / 1440, minutes / 60 % 24),
            }
        }
    }
}

/// A time in seconds, as [`time`] says it.
pub(super) fn seconds(seconds: f64) -> String {
    time(seconds * 1000.0)
}

/// A number of things, of which one is called `one`.
pub(super) fn count(number: u64, one: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {one}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_people_would_use() {
        for (ms, text) in [
            (0.04, "0.04 ms"),
            (3.456, "3.5 ms"),
            (1234.0, "1.2 s"),
            (61_000.0, "1 min 1 s"),
            (3_660_000.0, "1 h 1 min"),
            (90_000_000.0, "1 d 1 h"),
        ] {
            assert_eq!(time(ms), text);
        }
    }
}
