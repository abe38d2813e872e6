//! One thing that is wrong with a configuration.

use std::fmt;

/// One line, with the path of the field that it is about. It never holds a value that might be
/// a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    /// `text` names the field.
    pub fn new(text: impl Into<String>) -> Self {
        Fault(text.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
