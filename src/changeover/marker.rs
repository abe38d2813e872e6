//! The mark: what is published on a channel of the proxy's own, so that each subscriber's last message of
//! the old uplink is known, and the first one of the new.

use std::sync::{Arc, OnceLock};

use crate::random;
use crate::resp::encode;

/// The proxy's own channel. It is a shard channel, so that nobody's pattern matches it.
#[derive(Debug)]
pub struct Marker {
    channel: String,
    /// Nobody knows it before it is published, so nobody else can publish the mark.
    secret: String,
}

impl Marker {
    /// What the names of all such channels begin with.
    pub const PREFIX: &str = "__redis-proxy__:";

    /// A channel that nobody else has; `None` if the system has no randomness to give.
    pub fn new() -> Option<Arc<Self>> {
        let channel = format!("{}{}", own_channels().as_ref()?, random::token()?);
        Some(Arc::new(Marker { channel, secret: random::token()? }))
    }

    /// Whether a channel is one of those that only the proxy may use.
    pub fn is_own(channel: &[u8]) -> bool {
        own_channels().as_ref().is_some_and(|own| channel.starts_with(own.as_bytes()))
    }

    /// The request to subscribe to the channel.
    pub fn subscribe(&self) -> Vec<u8> {
        encode::request(["SSUBSCRIBE", &self.channel])
    }

    /// The request to unsubscribe from the channel.
    pub fn unsubscribe(&self) -> Vec<u8> {
        encode::request(["SUNSUBSCRIBE", &self.channel])
    }

    /// The request to publish the mark.
    pub fn publish(&self) -> Vec<u8> {
        encode::request(["SPUBLISH", &self.channel, &self.secret])
    }

    /// The request that finds out whether the mark may be published; nobody hears it.
    pub fn try_publishing(&self) -> Vec<u8> {
        encode::request(["SPUBLISH", &format!("{}:try", self.channel), ""])
    }

    /// The mark, as it arrives.
    pub fn message(&self, resp3: bool) -> Vec<u8> {
        self.frame(resp3, "smessage", &format!("${}\r\n{}", self.secret.len(), self.secret))
    }

    /// How the uplink confirms that the connection is subscribed, or unsubscribed; with the number of shard
    /// channels that are left.
    pub fn confirmation(&self, resp3: bool, on: bool, shards: i64) -> Vec<u8> {
        let name = if on { "ssubscribe" } else { "sunsubscribe" };
        self.frame(resp3, name, &format!(":{shards}"))
    }

    /// What all messages of the channel begin with.
    pub fn beginning(&self, resp3: bool) -> Vec<u8> {
        let (kind, channel) = (if resp3 { '>' } else { '*' }, &self.channel);
        format!("{kind}3\r\n$8\r\nsmessage\r\n${}\r\n{channel}\r\n", channel.len()).into_bytes()
    }

    fn frame(&self, resp3: bool, name: &str, last: &str) -> Vec<u8> {
        let (kind, channel) = (if resp3 { '>' } else { '*' }, &self.channel);
        let (name_len, len) = (name.len(), channel.len());
        format!("{kind}3\r\n${name_len}\r\n{name}\r\n${len}\r\n{channel}\r\n{last}\r\n")
            .into_bytes()
    }
}

/// What the channels of this process begin with. Another proxy may be among the clients, and has its own.
fn own_channels() -> &'static Option<String> {
    static OWN: OnceLock<Option<String>> = OnceLock::new();
    OWN.get_or_init(|| Some(format!("{}{}:", Marker::PREFIX, random::token()?)))
}
