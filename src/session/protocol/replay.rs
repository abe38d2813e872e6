//! What another uplink must be told before it can serve a client in this state. Pure.
//!
//! Most is told ahead of time, while the old uplink serves (`prepared`, and `difference` where
//! something changed since). The rest only once nothing is in flight any more ([`Finals`]): it would
//! make the connection unfit to be told anything else, or its time matters.

use super::state::{Carried, Extras, State};
use super::tracking::Tracking;
use super::transaction::{Fate, Transaction};
use crate::changeover::client_ids::{At, ClientIds};
use crate::command::Channel;
use crate::resp::{Args, encode};
use crate::uplink::{Answer, Script};

/// A request that concerns the next one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneShot {
    /// CLIENT CACHING, with YES or NO.
    Caching(bool),
    Asking,
}

/// What a connection that nobody has used yet is told.
pub fn prepared(state: &Carried) -> Script {
    difference(&Carried::default(), state).unwrap_or_default()
}

/// What one lacks that was told of an earlier state; `None` if it cannot be told any more.
pub fn difference(told: &Carried, state: &Carried) -> Option<Script> {
    let mut script = Script::default();
    if told == state {
        return Some(script);
    }
    let fresh = Extras::default();
    let (before, after) = (told.extras().unwrap_or(&fresh), state.extras().unwrap_or(&fresh));
    // In RESP2, it listens to nothing but subscriptions now.
    if told.subscribed() && !told.resp3 && !is_same_but_channels(told, before, state, after) {
        return None;
    }
    changes(&mut script, told, before, state, after);
    Some(script)
}

fn is_same_but_channels(told: &Carried, before: &Extras, state: &Carried, after: &Extras) -> bool {
    let mut before = before.clone();
    before.channels.clone_from(&after.channels);
    let mut rest = Script::default();
    changes(&mut rest, told, &before, state, after);
    rest.is_empty()
}

fn changes(script: &mut Script, told: &Carried, before: &Extras, state: &Carried, after: &Extras) {
    if told.resp3 != state.resp3 {
        let version: &[u8] = if state.resp3 { b"3" } else { b"2" };
        script.ask("HELLO", &[version], Answer::NoError);
    }
    if before.name != after.name {
        script.ask("CLIENT SETNAME", &[&after.name[..]], Answer::NoError);
    }
    // A server that knows no such thing does without.
    for (name, before, after) in [
        (&b"LIB-NAME"[..], &before.lib_name, &after.lib_name),
        (b"LIB-VER", &before.lib_ver, &after.lib_ver),
    ] {
        if before != after {
            script.ask("CLIENT SETINFO", &[name, after], Answer::Anything);
        }
    }
    for (name, before, after, answer) in [
        ("NO-EVICT", before.no_evict, after.no_evict, Answer::Anything),
        ("NO-TOUCH", before.no_touch, after.no_touch, Answer::Anything),
        ("IMPORT-SOURCE", before.import_source, after.import_source, Answer::NoError),
    ] {
        if before != after {
            let on: &[u8] = if after { b"ON" } else { b"OFF" };
            script.ask(&format!("CLIENT {name}"), &[on], answer);
        }
    }
    after.fieldsets.tell(script, &before.fieldsets);
    for name in after.capabilities.difference(&before.capabilities) {
        script.ask("CLIENT CAPA", &[&name[..]], Answer::Anything);
    }
    if before.readonly != after.readonly {
        script.ask(if after.readonly { "READONLY" } else { "READWRITE" }, &[], Answer::NoError);
    }
    if told.db != state.db {
        select(script, state.db);
    }
    if before.tracking != after.tracking {
        if before.tracking.as_ref().is_some_and(|tracking| tracking.redirect.is_none()) {
            script.ask("CLIENT TRACKING", &[b"OFF"], Answer::NoError);
        }
        // Whom to send invalidations to is known when all are connected.
        if let Some(tracking) = after.tracking.as_ref().filter(|it| it.redirect.is_none()) {
            track(script, tracking, None);
        }
    }
    for (channel, begin, end) in [
        (Channel::Name, "SUBSCRIBE", "UNSUBSCRIBE"),
        (Channel::Pattern, "PSUBSCRIBE", "PUNSUBSCRIBE"),
        (Channel::Shard, "SSUBSCRIBE", "SUNSUBSCRIBE"),
    ] {
        channels(script, begin, channel, after, before);
        channels(script, end, channel, before, after);
    }
}

/// Those that `these` have and `others` have not.
fn channels(script: &mut Script, name: &str, kind: Channel, these: &Extras, others: &Extras) {
    let names: Vec<&[u8]> = these
        .channels
        .difference(&others.channels)
        .filter(|(channel, _)| *channel == kind)
        .map(|(_, name)| &name[..])
        .collect();
    for names in names.chunks(1000) {
        let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
        script.ask(name, names, Answer::Confirmations(count));
    }
}

fn select(script: &mut Script, db: u32) {
    script.ask("SELECT", &[db.to_string().as_bytes()], Answer::NoError);
}

/// Tracking of all keys is told in a request of its own: as a prefix, an empty name would overlap the others.
fn track(script: &mut Script, tracking: &Tracking, redirect: Option<u64>) {
    let redirect = redirect.map(|id| id.to_string());
    let mut args: Vec<&[u8]> = vec![b"ON"];
    if let Some(id) = &redirect {
        args.extend([b"REDIRECT", id.as_bytes()]);
    }
    args.extend(tracking.options.iter().map(|option| &option[..]));
    let mut with_prefixes = args.clone();
    for prefix in tracking.prefixes.iter().filter(|prefix| !prefix.is_empty()) {
        with_prefixes.extend([b"PREFIX", &prefix[..]]);
    }
    if with_prefixes.len() > args.len() {
        script.ask("CLIENT TRACKING", &with_prefixes, Answer::NoError);
    }
    if with_prefixes.len() == args.len() || tracking.prefixes.contains(&b""[..]) {
        script.ask("CLIENT TRACKING", &args, Answer::NoError);
    }
}

/// What is told last.
#[derive(Debug, Clone, Copy)]
pub struct Finals<'a> {
    /// For the ids that requests in the transaction name.
    pub ids: &'a ClientIds,
    pub at: At,
    pub state: &'a State,
    pub transaction: Option<&'a Transaction>,
    /// How many of its requests were answered; the others are sent again by themselves.
    pub queued: usize,
    /// The watched keys are told: none is known to be touched.
    pub watches: bool,
    /// A request of the transaction was refused.
    pub aborted: bool,
    pub one_shot: Option<OneShot>,
    /// The id, there, of the connection to which invalidations go.
    pub redirect: Option<u64>,
    /// How many databases the present uplink has, if it has told.
    pub databases: Option<u32>,
}

impl Finals<'_> {
    /// Whether there is anything that can only be told last.
    pub fn is_needed(&self) -> bool {
        self.state.watching()
            || self.state.monitor
            || self.one_shot.is_some()
            || self.transaction.is_some()
            || self.state.tracking().is_some_and(|tracking| tracking.redirect.is_some())
    }

    /// Keys are watched before the old uplink is asked whether they were touched.
    pub fn script(&self, script: &mut Script) {
        if let Some(tracking) = self.state.tracking()
            && tracking.redirect.is_some()
            && self.redirect.is_some()
        {
            track(script, tracking, self.redirect);
        }
        self.watch(script);
        if let Some(transaction) = self.transaction.filter(|_| !self.aborted) {
            // If one is not there that is at the present uplink, what follows its SELECT would go into
            // another.
            let is_here = |db: &&u32| self.databases.is_none_or(|count| **db < count);
            let databases: Vec<_> = transaction.databases().iter().filter(is_here).collect();
            for db in &databases {
                let db = db.to_string();
                script.ask("SELECT", &[db.as_bytes()], Answer::NoErrorOfItsOwn);
            }
            if !databases.is_empty() {
                select(script, self.state.db);
            }
        }
        if self.state.monitor {
            script.ask("MONITOR", &[], Answer::NoError);
        }
        // Where these were refused before, they will be again.
        match self.one_shot {
            Some(OneShot::Caching(on)) => {
                let on: &[u8] = if on { b"YES" } else { b"NO" };
                script.ask("CLIENT CACHING", &[on], Answer::Anything);
            }
            Some(OneShot::Asking) => script.ask("ASKING", &[], Answer::Anything),
            None => {}
        }
    }

    fn watch(&self, script: &mut Script) {
        let Some(watched) = self.state.watched().filter(|_| self.watches) else { return };
        let mut db = self.state.db;
        for keys in watched.keys.chunk_by(|one, other| one.0 == other.0) {
            if keys[0].0 != db {
                db = keys[0].0;
                select(script, db);
            }
            for keys in keys.chunks(1000) {
                let names: Vec<&[u8]> = keys.iter().map(|(_, key)| &key[..]).collect();
                script.ask("WATCH", &names, Answer::NoError);
            }
        }
        if db != self.state.db {
            select(script, self.state.db);
        }
    }

    /// What is told after all that: a replica would not queue what writes. A transaction that is
    /// aborted already needs nothing of what was queued.
    pub fn queue(&self, script: &mut Script) {
        let Some(transaction) = self.transaction else { return };
        script.ask("MULTI", &[], Answer::NoError);
        if self.aborted {
            script.repeat(&refused(), "AUTH", Answer::Error);
            return;
        }
        for frame in transaction.frames().iter().take(self.queued) {
            let answer = match frame.fate {
                Fate::Queued => Answer::Queued,
                Fate::Refused => Answer::Anything,
            };
            let frame = &frame.bytes;
            let mapped = match Args::new(frame).next() {
                Some(name) if name.eq_ignore_ascii_case(b"CLIENT") => {
                    self.ids.request(self.at, &Args::new(frame).collect::<Vec<_>>())
                }
                _ => None,
            };
            let frame = mapped.as_deref().unwrap_or(frame);
            script.repeat(frame, "a request in a transaction", answer);
        }
    }
}

/// A request that every server refuses, so that a transaction is aborted.
pub fn refused() -> Vec<u8> {
    encode::request(["AUTH"])
}

#[cfg(test)]
mod tests {
    use super::super::effect::Effect;
    use super::super::state::{Confirmation, Confirmed, Subscription};
    use super::*;

    fn text(script: Script) -> String {
        String::from_utf8_lossy(&script.into_bytes()).replace("\r\n", " ")
    }

    fn state(effects: impl IntoIterator<Item = Effect>) -> State {
        let mut state = State::default();
        effects.into_iter().for_each(|effect| state.apply(effect));
        state
    }

    fn subscribe(state: &mut State, channel: Channel, on: bool, names: &[&str]) {
        for (at, name) in names.iter().enumerate() {
            let now = if on { at + 1 } else { 0 };
            let now = i64::try_from(now).expect("few");
            let subscription = if on { Subscription::Begun } else { Subscription::Ended };
            let confirmation = Confirmation { channel, subscription };
            state.confirmed(confirmation, Confirmed::Is(name.as_bytes().into()), now);
        }
    }

    fn channels(names: &[&str]) -> Vec<Box<[u8]>> {
        names.iter().map(|name| name.as_bytes().into()).collect()
    }

    #[test]
    fn a_fresh_connection_is_told_everything() {
        let mut state = state([Effect::Select(7), Effect::Name(b"me".as_slice().into())]);
        subscribe(&mut state, Channel::Name, true, &["a", "b"]);
        state.resp3 = true;
        assert_eq!(
            text(prepared(&state.carried())),
            "*2 $5 HELLO $1 3 *3 $6 CLIENT $7 SETNAME $2 me *2 $6 SELECT $1 7 \
             *3 $9 SUBSCRIBE $1 a $1 b "
        );
        assert!(prepared(&State::default().carried()).is_empty());
        let nothing = difference(&state.carried(), &state.carried()).expect("it can be told");
        assert!(nothing.is_empty());
    }

    #[test]
    fn one_that_knows_an_earlier_state_is_told_what_changed() {
        let before = state([Effect::Select(7), Effect::Name(b"me".as_slice().into())]);
        let mut after = state([Effect::Name(b"you".as_slice().into())]);
        let script = difference(&before.carried(), &after.carried()).expect("it can be told");
        assert_eq!(text(script), "*3 $6 CLIENT $7 SETNAME $3 you *2 $6 SELECT $1 0 ");
        subscribe(&mut after, Channel::Pattern, true, &["a*"]);
        let told = after.carried();
        subscribe(&mut after, Channel::Shard, true, &["s"]);
        subscribe(&mut after, Channel::Pattern, false, &["a*"]);
        let script = difference(&told, &after.carried()).expect("it listens to that");
        assert_eq!(text(script), "*2 $12 PUNSUBSCRIBE $2 a* *2 $10 SSUBSCRIBE $1 s ");
        after.apply(Effect::Select(3));
        assert!(
            difference(&told, &after.carried()).is_none(),
            "it listens to nothing but subscriptions"
        );
    }

    #[test]
    fn keys_are_watched_in_their_databases_before_the_queue() {
        let mut state = state([]);
        for (db, key) in [(0, "a"), (2, "b"), (2, "c")] {
            state.apply(Effect::Select(db));
            state.apply(Effect::Watch(channels(&[key])));
        }
        let mut transaction = Transaction::default();
        transaction.push(Some(b"*1\r\n$4\r\nPING\r\n"), Fate::Queued);
        let last = |aborted: bool| {
            let mut script = Script::default();
            let ids = ClientIds::new(1);
            let last = Finals {
                ids: &ids,
                at: At::Next,
                state: &state,
                transaction: Some(&transaction),
                queued: 1,
                watches: true,
                aborted,
                one_shot: None,
                redirect: None,
                databases: None,
            };
            last.script(&mut script);
            last.queue(&mut script);
            text(script)
        };
        let watches = "*2 $6 SELECT $1 0 *2 $5 WATCH $1 a *2 $6 SELECT $1 2 *3 $5 WATCH $1 b $1 c ";
        assert_eq!(last(false), format!("{watches}*1 $5 MULTI *1 $4 PING "));
        assert_eq!(
            last(true),
            format!("{watches}*1 $5 MULTI *1 $4 AUTH "),
            "what was refused must not be executed"
        );
    }
}
