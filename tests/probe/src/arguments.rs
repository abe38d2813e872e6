//! What command lines give, within what a run can take.

use std::fmt::Display;
use std::str::FromStr;

use super::plan::FEWEST;

/// How many clients.
pub fn clients(text: &str) -> Result<usize, String> {
    within(text, FEWEST, 100_000)
}

/// A time.
pub fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.001, 1e6)
}

/// Operations a second.
pub fn rate(text: &str) -> Result<f64, String> {
    within(text, 0.1, 1e7)
}

fn within<T>(text: &str, least: T, most: T) -> Result<T, String>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let number = text.parse().map_err(|why| format!("{why}"))?;
    match (&least..=&most).contains(&&number) {
        true => Ok(number),
        false => Err(format!("expected {least} to {most}")),
    }
}
