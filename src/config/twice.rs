//! Fields that a file gives twice. serde's `Value` keeps the last of them; nothing may be ignored
//! silently.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The names in an object, each with those in its value, in the order of the text; none for what
/// is no object.
struct Names(Vec<(String, Names)>);

/// A field that stands twice in one object.
pub(super) struct Twice {
    /// The block, if it is a block's.
    pub(super) block: Option<&'static str>,
    pub(super) field: String,
}

impl fmt::Display for Twice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(block) = self.block {
            write!(f, "{block}: ")?;
        }
        write!(f, "duplicate field `{}`", self.field)
    }
}

/// Every field of the top level, of a block, and of the block `nested` within one, that is given twice.
pub(super) fn find(text: &str, blocks: &[&'static str], nested: &'static str) -> Vec<Twice> {
    // A text that is no JSON has that fault alone.
    let Ok(Names(top)) = serde_json::from_str(text) else { return Vec::new() };
    let mut twice = Vec::new();
    note(None, &top, &mut twice);
    for (name, Names(fields)) in &top {
        if let Some(block) = blocks.iter().find(|block| *block == name) {
            note(Some(block), fields, &mut twice);
            for (name, Names(fields)) in fields {
                if nested.strip_prefix(block).and_then(|it| it.strip_prefix('.')) == Some(name) {
                    note(Some(nested), fields, &mut twice);
                }
            }
        }
    }
    twice
}

fn note(block: Option<&'static str>, fields: &[(String, Names)], twice: &mut Vec<Twice>) {
    let mut seen = HashSet::new();
    let again = fields.iter().filter(|(field, _)| !seen.insert(field));
    twice.extend(again.map(|(field, _)| Twice { block, field: field.clone() }));
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamesVisitor)
    }
}

struct NamesVisitor;

impl<'de> Visitor<'de> for NamesVisitor {
    type Value = Names;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
        let mut names = Vec::new();
        while let Some(entry) = map.next_entry()? {
            names.push(entry);
        }
        Ok(Names(names))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Names(Vec::new()))
    }

    fn visit_unit<E>(self) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Names, E> {
        Ok(Names(Vec::new()))
    }
}
