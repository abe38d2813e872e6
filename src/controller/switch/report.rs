//! What the preflight found.

use serde::Serialize;

/// Each check with its result.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    checks: Vec<Check>,
}

#[derive(Debug, Clone, Serialize)]
struct Check {
    name: &'static str,
    result: CheckResult,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum CheckResult {
    Ok,
    /// The switch can be done, but something may not be meant.
    Warning,
    /// The switch cannot be done, or must not.
    Failed,
    /// The server does not tell.
    Unknown,
}

impl Report {
    pub(super) fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, CheckResult::Ok, detail.into());
    }

    pub(super) fn warn(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, CheckResult::Warning, detail.into());
    }

    pub(super) fn fail(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, CheckResult::Failed, detail.into());
    }

    pub(super) fn unknown(&mut self, name: &'static str, detail: impl Into<String>) {
        self.add(name, CheckResult::Unknown, detail.into());
    }

    fn add(&mut self, name: &'static str, result: CheckResult, detail: String) {
        self.checks.push(Check { name, result, detail });
    }

    fn of(&self, result: CheckResult) -> Vec<String> {
        let those = self.checks.iter().filter(|check| check.result == result);
        those.map(|check| format!("{}: {}", check.name, check.detail)).collect()
    }

    /// How many checks there are.
    pub(super) fn len(&self) -> usize {
        self.checks.len()
    }

    /// The checks that forbid the switch.
    pub fn failures(&self) -> Vec<String> {
        self.of(CheckResult::Failed)
    }

    pub(super) fn warnings(&self) -> Vec<String> {
        self.of(CheckResult::Warning)
    }
}
