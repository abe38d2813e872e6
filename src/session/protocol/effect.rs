//! What a request changes in the connection, if it succeeds. Pure.

use std::collections::BTreeSet;

use super::fieldsets;
use super::tracking::Tracking;
use crate::changeover::client_ids as ids;
use crate::command::Class;

/// What a request changes in the connection, if it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Select(u32),
    Name(Box<[u8]>),
    LibName(Box<[u8]>),
    LibVer(Box<[u8]>),
    NoEvict(bool),
    NoTouch(bool),
    Readonly(bool),
    ImportSource(bool),
    Capabilities(Vec<Box<[u8]>>),
    Track(Box<Tracking>),
    NoTracking,
    Fieldsets(fieldsets::Change),
    Watch(Vec<Box<[u8]>>),
    /// More keys than were looked at.
    WatchMany,
    Unwatch,
    Monitor,
}

impl Effect {
    /// About how much memory it takes.
    pub fn size(&self) -> usize {
        let sum = |names: &[Box<[u8]>]| names.iter().map(|name| name.len() + 16).sum::<usize>();
        let own = match self {
            Effect::Watch(names) | Effect::Capabilities(names) => sum(names),
            Effect::Name(text) | Effect::LibName(text) | Effect::LibVer(text) => text.len(),
            Effect::Fieldsets(change) => change.size(),
            Effect::Track(tracking) => {
                sum(&tracking.options)
                    + tracking.prefixes.iter().map(|it| it.len() + 32).sum::<usize>()
            }
            Effect::Select(_)
            | Effect::NoEvict(_)
            | Effect::NoTouch(_)
            | Effect::Readonly(_)
            | Effect::ImportSource(_)
            | Effect::NoTracking
            | Effect::WatchMany
            | Effect::Unwatch
            | Effect::Monitor => 0,
        };
        own + size_of::<Effect>()
    }
}

/// What a request of this class would change; `args` are all arguments, the name included.
pub fn effect(class: Class, args: &[&[u8]]) -> Option<Effect> {
    let (_, rest) = args.split_first()?;
    let owned = || rest.iter().map(|arg| Box::from(*arg)).collect();
    match class {
        Class::Select => match rest {
            [db] => ids::number(db).and_then(|db| u32::try_from(db).ok()).map(Effect::Select),
            _ => None,
        },
        Class::Watch => Some(Effect::Watch(owned())),
        Class::Unwatch => Some(Effect::Unwatch),
        Class::Readonly(on) => Some(Effect::Readonly(on)),
        Class::Monitor => Some(Effect::Monitor),
        Class::Client => client(rest),
        Class::Import => fieldsets::Change::new(rest).map(Effect::Fieldsets),
        _ => None,
    }
}

fn client(args: &[&[u8]]) -> Option<Effect> {
    let (name, values) = args.split_first()?;
    let is = |arg: &[u8], word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
    let switch = |effect: fn(bool) -> Effect| match values {
        [on] => Some(effect(is(on, "ON"))),
        _ => None,
    };
    match (&name.to_ascii_uppercase()[..], values) {
        (b"SETNAME", [name]) => Some(Effect::Name((*name).into())),
        (b"SETINFO", [what, value]) if is(what, "LIB-NAME") => {
            Some(Effect::LibName((*value).into()))
        }
        (b"SETINFO", [what, value]) if is(what, "LIB-VER") => Some(Effect::LibVer((*value).into())),
        (b"NO-EVICT", _) => switch(Effect::NoEvict),
        (b"NO-TOUCH", _) => switch(Effect::NoTouch),
        (b"IMPORT-SOURCE", _) => switch(Effect::ImportSource),
        (b"CAPA", names) => {
            Some(Effect::Capabilities(names.iter().map(|name| Box::from(*name)).collect()))
        }
        (b"TRACKING", [on, options @ ..]) if is(on, "ON") => Some(track(options)),
        (b"TRACKING", _) => Some(Effect::NoTracking),
        _ => None,
    }
}

fn track(mut options: &[&[u8]]) -> Effect {
    let mut tracking = Tracking { options: Vec::new(), prefixes: BTreeSet::new(), redirect: None };
    loop {
        options = match options {
            [] => {
                // All keys: in addition to the prefixes that were there before.
                if tracking.has("BCAST") && tracking.prefixes.is_empty() {
                    tracking.prefixes.insert(Box::default());
                }
                return Effect::Track(Box::new(tracking));
            }
            [name, id, rest @ ..] if name.eq_ignore_ascii_case(b"REDIRECT") => {
                // 0 is for nobody.
                tracking.redirect = ids::number(id).filter(|id| *id > 0);
                rest
            }
            [name, prefix, rest @ ..] if name.eq_ignore_ascii_case(b"PREFIX") => {
                tracking.prefixes.insert((*prefix).into());
                rest
            }
            [option, rest @ ..] => {
                tracking.options.push((*option).into());
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_change_the_connection_are_told_from_others() {
        let of = |class, line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            effect(class, &args)
        };
        assert_eq!(of(Class::Select, "SELECT 7"), Some(Effect::Select(7)));
        for wrong in ["SELECT x", "SELECT +7", "SELECT 07", "SELECT -1", "SELECT 4294967296"] {
            assert_eq!(of(Class::Select, wrong), None, "{wrong}");
        }
        assert_eq!(of(Class::Client, "CLIENT no-evict on"), Some(Effect::NoEvict(true)));
        assert_eq!(of(Class::Client, "CLIENT LIST"), None);
        assert_eq!(of(Class::Client, "CLIENT"), None);
        let name = Some(Effect::Name(b"me".as_slice().into()));
        assert_eq!(of(Class::Client, "client setname me"), name);
        assert_eq!(of(Class::Client, "CLIENT TRACKING off"), Some(Effect::NoTracking));
        let on = of(Class::Client, "CLIENT TRACKING on REDIRECT 7 bcast PREFIX a PREFIX b NOLOOP");
        let Some(Effect::Track(tracking)) = on else { panic!("{on:?}") };
        assert_eq!(tracking.redirect, Some(7));
        assert!(tracking.has("BCAST") && tracking.has("NOLOOP") && !tracking.has("OPTIN"));
        assert_eq!(tracking.prefixes.len(), 2);
        let on = of(Class::Client, "CLIENT TRACKING on REDIRECT 5 PREFIX redirect PREFIX 7 BCAST");
        let Some(Effect::Track(tracking)) = on else { panic!("{on:?}") };
        assert_eq!((tracking.redirect, tracking.prefixes.len()), (Some(5), 2));
        let on = of(Class::Client, "CLIENT TRACKING on BCAST");
        let Some(Effect::Track(tracking)) = on else { panic!("{on:?}") };
        assert_eq!(tracking.prefixes, BTreeSet::from([Box::default()]));
    }
}
