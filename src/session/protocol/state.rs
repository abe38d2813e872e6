//! What the connection to the uplink carries, learnt from requests and replies. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::effect::Effect;
use super::fieldsets::Fieldsets;
use super::tracking::Tracking;
use crate::command::Channel;

/// Bytes of names of channels that are remembered for one client.
const MAX_CHANNELS: usize = 16 * 1024 * 1024;
/// Bytes of keys that one client watches; with more, they are taken for touched at a handover.
const MAX_WATCHED: usize = 256 * 1024;
/// Keys that one client watches and that a handover watches again, while everybody waits: for each
/// key, Redis looks at all that the client watches already.
const MAX_WATCHED_KEYS: usize = 256;
/// Bytes of prefixes of keys that one client tracks.
const MAX_PREFIXES: usize = 256 * 1024;
/// Prefixes that one client tracks and that a handover tracks again: Redis compares each with all others.
const MAX_PREFIX_COUNT: usize = 1024;

/// Names of capabilities of one client, and the length of one.
const MAX_CAPABILITIES: usize = 64;

/// Where invalidations go to a client that speaks RESP2.
pub const INVALIDATIONS: &[u8] = b"__redis__:invalidate";

/// The state of one client's connection to Redis.
#[derive(Debug, Default)]
pub struct State {
    /// HELLO 3 was accepted.
    pub resp3: bool,
    /// MONITOR was accepted.
    pub monitor: bool,
    /// CLIENT MAINT_NOTIFICATIONS ON: the proxy tells the client when it is held. The uplink knows nothing of it.
    pub listens: bool,
    /// A watched key was touched before a handover: the next EXEC must fail.
    touched: bool,
    /// More channels than are remembered.
    channels_unknown: bool,
    /// More prefixes than are remembered.
    prefixes_unknown: bool,
    /// There were flags before a RESET that some versions keep.
    kept_flags: bool,
    /// Something of this is another than when it was published last.
    changed: bool,
    /// The database that SELECT chose.
    pub db: u32,
    channels: i64,
    patterns: i64,
    shards: i64,
    extras: Option<Arc<Extras>>,
    watched: Option<Box<Watched>>,
}

/// Keys that are watched.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Watched {
    /// Each with its database.
    pub keys: Vec<(u32, Box<[u8]>)>,
    /// There are more than are remembered.
    pub more: bool,
    bytes: usize,
}

/// What a connection can be told before the client's uplink is exchanged for it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Carried {
    pub resp3: bool,
    pub db: u32,
    extras: Option<Arc<Extras>>,
}

/// What most clients do not have.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Extras {
    pub name: Box<[u8]>,
    pub lib_name: Box<[u8]>,
    pub lib_ver: Box<[u8]>,
    pub no_evict: bool,
    pub no_touch: bool,
    pub readonly: bool,
    pub import_source: bool,
    pub capabilities: BTreeSet<Box<[u8]>>,
    pub tracking: Option<Tracking>,
    pub fieldsets: Fieldsets,
    pub channels: BTreeSet<(Channel, Box<[u8]>)>,
    /// Bytes of their names.
    channel_bytes: usize,
}

/// What was confirmed, of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmation {
    pub channel: Channel,
    pub subscription: Subscription,
}

/// What became of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    Begun,
    Ended,
}

/// Whose subscription was confirmed.
#[derive(Debug)]
pub enum Confirmed {
    Is(Box<[u8]>),
    /// That of one of all channels, which all end.
    OneOfAll,
    /// It was not looked at.
    Unknown,
}

impl Carried {
    pub fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// Cheap, and true only if there is no difference at all.
    pub fn is(&self, state: &State) -> bool {
        let same = match (&self.extras, &state.extras) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same && self.resp3 == state.resp3 && self.db == state.db
    }

    pub fn subscribed(&self) -> bool {
        self.extras().is_some_and(|extras| !extras.channels.is_empty())
    }

    /// All of it but the subscriptions.
    pub fn without_channels(&self) -> Carried {
        let mut carried = self.clone();
        if let Some(extras) = carried.extras.as_mut().filter(|it| !it.channels.is_empty()) {
            let extras = Arc::make_mut(extras);
            (extras.channels, extras.channel_bytes) = (BTreeSet::new(), 0);
        }
        carried
    }
}

impl State {
    /// What a connection can be told at any time.
    pub fn carried(&self) -> Carried {
        Carried { resp3: self.resp3, db: self.db, extras: self.extras.clone() }
    }

    pub fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// What a handover would lose.
    pub fn uncarried(&self) -> Option<&'static str> {
        if self.channels_unknown {
            Some("more subscriptions than are remembered")
        } else if self.prefixes_unknown {
            Some("more prefixes to track than are remembered")
        } else if self.extras().is_some_and(|extras| extras.fieldsets.are_too_many()) {
            Some("more HIMPORT fieldsets than are remembered")
        } else {
            None
        }
    }

    /// In RESP2, published messages come as arrays that answer nothing.
    pub fn subscribed(&self) -> bool {
        self.channels + self.patterns + self.shards > 0
    }

    /// Something may come that answers nothing, and is no push.
    #[inline]
    pub fn hears_unasked(&self) -> bool {
        self.monitor || self.subscribed()
    }

    /// How many subscriptions of a kind there are.
    pub fn subscriptions(&self, channel: Channel) -> i64 {
        match channel {
            Channel::Name => self.channels,
            Channel::Pattern => self.patterns,
            Channel::Shard => self.shards,
        }
    }

    pub fn watched(&self) -> Option<&Watched> {
        self.watched.as_deref()
    }

    /// WATCH was accepted, and nothing since has ended it.
    pub fn watching(&self) -> bool {
        self.watched.is_some() || self.touched
    }

    pub fn tracking(&self) -> Option<&Tracking> {
        self.extras()?.tracking.as_ref()
    }

    /// Invalidations come to this client from others, as messages.
    pub fn hears_invalidations(&self) -> bool {
        !self.resp3
            && self.extras().is_some_and(|extras| {
                extras.channels.contains(&(Channel::Name, INVALIDATIONS.into()))
            })
    }

    /// Whether anything changed since the last [`State::changes_are_published`].
    #[inline]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    pub fn changes_are_published(&mut self) {
        self.changed = false;
    }

    /// The client has asked for notices, or for none.
    pub fn listen(&mut self, listens: bool) {
        self.listens = listens;
        self.changed = true;
    }

    /// A watched key was touched, and the uplink does not know it: the next EXEC must fail.
    pub fn touch(&mut self) {
        self.touched = true;
        self.changed = true;
    }

    /// The next EXEC must fail, for a watched key was touched before a handover.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// A confirmation came; it tells how many subscriptions there are now: those to shard
    /// channels alone, or those to channels and patterns together.
    pub fn confirmed(&mut self, confirmation: Confirmation, name: Confirmed, now: i64) {
        let channel = confirmation.channel;
        match channel {
            Channel::Name => self.channels = now - self.patterns,
            Channel::Pattern => self.patterns = now - self.channels,
            Channel::Shard => self.shards = now,
        }
        match name {
            Confirmed::Is(name) => self.note_channel(confirmation, name),
            Confirmed::OneOfAll | Confirmed::Unknown if self.subscriptions(channel) == 0 => {
                self.forget_channels(channel);
            }
            Confirmed::OneOfAll => {}
            Confirmed::Unknown => self.channels_unknown = true,
        }
        self.channels_unknown &= self.subscribed();
        self.changed = true;
    }

    fn note_channel(
        &mut self,
        Confirmation { channel, subscription }: Confirmation,
        name: Box<[u8]>,
    ) {
        let len = name.len() + 64;
        self.change(|extras| match subscription {
            Subscription::Begun => {
                if extras.channels.insert((channel, name)) {
                    extras.channel_bytes += len;
                }
            }
            Subscription::Ended => {
                if extras.channels.remove(&(channel, name)) {
                    extras.channel_bytes -= len;
                }
            }
        });
        if self.extras().is_some_and(|extras| extras.channel_bytes > MAX_CHANNELS) {
            self.channels_unknown = true;
            self.change(|extras| {
                extras.channels.clear();
                extras.channel_bytes = 0;
            });
        }
    }

    fn forget_channels(&mut self, channel: Channel) {
        self.change(|extras| {
            extras.channels.retain(|(kind, _)| *kind != channel);
            extras.channel_bytes = extras.channels.iter().map(|(_, name)| name.len() + 64).sum();
        });
    }

    /// One that is empty takes no memory.
    fn change(&mut self, how: impl FnOnce(&mut Extras)) {
        how(Arc::make_mut(self.extras.get_or_insert_default()));
        if self.extras().is_some_and(|extras| *extras == Extras::default()) {
            self.extras = None;
        }
        self.changed = true;
    }

    /// What was asked for has happened.
    pub fn apply(&mut self, effect: Effect) {
        self.changed = true;
        match effect {
            Effect::Select(db) => self.db = db,
            Effect::Name(name) => self.change(|extras| extras.name = name),
            Effect::LibName(name) => self.change(|extras| extras.lib_name = name),
            Effect::LibVer(version) => self.change(|extras| extras.lib_ver = version),
            Effect::NoEvict(on) => self.change(|extras| extras.no_evict = on),
            Effect::NoTouch(on) => self.change(|extras| extras.no_touch = on),
            Effect::Readonly(on) => self.change(|extras| extras.readonly = on),
            Effect::ImportSource(on) => self.change(|extras| extras.import_source = on),
            Effect::Capabilities(names) => self.change(|extras| {
                extras.capabilities.extend(names);
                // There are a handful, of a few letters.
                while extras.capabilities.len() > MAX_CAPABILITIES {
                    extras.capabilities.pop_last();
                }
                extras.capabilities.retain(|name| name.len() <= MAX_CAPABILITIES);
            }),
            Effect::Track(tracking) => self.track(*tracking),
            Effect::NoTracking => {
                self.prefixes_unknown = false;
                self.change(|extras| extras.tracking = None);
            }
            Effect::Fieldsets(change) => self.change(|extras| extras.fieldsets.apply(change)),
            Effect::Watch(keys) => self.watch(keys),
            Effect::WatchMany => self.watch_many(),
            Effect::Unwatch => {
                self.watched = None;
                self.touched = false;
            }
            Effect::Monitor => self.monitor = true,
        }
    }

    /// Prefixes add up; other options are as the last request says.
    fn track(&mut self, mut tracking: Tracking) {
        self.change(|extras| {
            if let Some(before) = extras.tracking.take()
                && tracking.has("BCAST")
            {
                tracking.prefixes.extend(before.prefixes);
            }
            extras.tracking = Some(tracking);
        });
        let Some(prefixes) = self.tracking().map(|tracking| &tracking.prefixes) else { return };
        let bytes: usize = prefixes.iter().map(|prefix| prefix.len() + 32).sum();
        if bytes > MAX_PREFIXES || prefixes.len() > MAX_PREFIX_COUNT {
            self.change(|extras| extras.tracking = None);
            self.prefixes_unknown = true;
        }
    }

    fn watch(&mut self, keys: Vec<Box<[u8]>>) {
        let db = self.db;
        let watched = self.watched.get_or_insert_default();
        if watched.more {
            return;
        }
        for key in keys {
            // Redis, too, watches a key once.
            if !watched.keys.iter().any(|known| *known.1 == *key && known.0 == db) {
                watched.bytes += key.len() + 64;
                watched.keys.push((db, key));
            }
            if watched.bytes > MAX_WATCHED || watched.keys.len() > MAX_WATCHED_KEYS {
                return self.watch_many();
            }
        }
    }

    fn watch_many(&mut self) {
        self.watched = Some(Box::new(Watched { more: true, ..Watched::default() }));
    }

    /// RESET was accepted. What the client said of its library stays.
    pub fn reset(&mut self) {
        let kept_flags = self.extras().is_some_and(|extras| extras.no_evict || extras.no_touch);
        let library = self.extras.take().map(|extras| Extras {
            lib_name: extras.lib_name.clone(),
            lib_ver: extras.lib_ver.clone(),
            ..Extras::default()
        });
        *self = State { kept_flags, ..State::default() };
        self.extras = library.filter(|library| *library != Extras::default()).map(Arc::new);
        self.changed = true;
    }

    /// Whether a RESET may have left flags; asked once.
    pub fn take_kept_flags(&mut self) -> bool {
        std::mem::take(&mut self.kept_flags)
    }

    /// HELLO was accepted.
    pub fn hello(&mut self, resp3: bool, name: Option<Box<[u8]>>) {
        self.resp3 = resp3;
        // There are no pushes in RESP2.
        self.listens &= resp3;
        self.changed = true;
        if let Some(name) = name {
            self.apply(Effect::Name(name));
        }
    }
}
