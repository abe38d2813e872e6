//! Publishers that number their messages, and subscribers that hear all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Msg, RedisResult, Value, cmd};

use super::client::{Client, query};
use super::group::{Group, Part};
use super::ledger::{Sent, Stream};
use super::tally::Tally;

/// Published when nothing more comes, again and again: a subscriber may be away.
const END: &str = "end";
const END_AGAIN: Duration = Duration::from_millis(100);

/// Publishers with a channel each, and subscribers to all of these.
#[derive(Debug)]
pub struct News {
    channels: Vec<String>,
    given_up: Arc<AtomicBool>,
    publishers: Group<(Tally, Sent)>,
    subscribers: Group<Subscriber>,
}

/// What one heard of each publisher.
#[derive(Debug)]
struct Subscriber {
    tally: Tally,
    streams: Vec<Stream>,
}

impl News {
    /// The publishers begin when all subscribers are subscribed.
    pub fn start(
        number: usize,
        publishers: Vec<Client>,
        subscribers: Vec<Client>,
    ) -> RedisResult<Self> {
        let name = |client: &Client, it| client.run.key(&format!("news:{number}:{it}"));
        let channels: Vec<String> =
            publishers.iter().enumerate().map(|(it, client)| name(client, it)).collect();
        let sent: Arc<[AtomicU64]> = channels.iter().map(|_| AtomicU64::new(0)).collect();
        let mut news = News {
            channels,
            given_up: Arc::default(),
            publishers: Group::default(),
            subscribers: Group::default(),
        };
        let (ready, subscribed) = channel();
        let hearers = subscribers.len() as u64;
        for (it, client) in subscribers.into_iter().enumerate() {
            let stream = |publisher| {
                Stream::new(format!(
                    "news {number}: subscriber {it}: message of publisher {publisher}"
                ))
            };
            let (command, names) = match it % 2 {
                0 => ("SUBSCRIBE", news.channels.clone()),
                _ => ("PSUBSCRIBE", vec![client.run.key(&format!("news:{number}:*"))]),
            };
            let hearing = Hearing {
                command,
                names,
                channels: news.channels.clone(),
                sent: sent.clone(),
                streams: (0..news.channels.len()).map(stream).collect(),
                ended: vec![false; news.channels.len()],
                given_up: news.given_up.clone(),
            };
            let ready = ready.clone();
            news.subscribers.spawn(move || hear(client, hearing, ready));
        }
        drop(ready);
        for first in subscribed {
            first?;
        }
        for (it, client) in publishers.into_iter().enumerate() {
            let (channel, sent) = (news.channels[it].clone(), sent.clone());
            news.publishers.spawn(move || publish(client, &channel, &sent[it], hearers));
        }
        Ok(news)
    }

    /// Waits for the publishers, then until the subscribers know that this was all.
    pub fn finish(self, control: &mut Client) -> Part {
        let mut part = Part::default();
        let mut sent = Vec::new();
        for (tally, numbers) in self.publishers.join(&mut part) {
            part.tally.add(&tally);
            sent.push(numbers);
        }
        let until = Instant::now() + control.run.patience;
        while !self.subscribers.is_finished() && Instant::now() < until {
            for channel in &self.channels {
                control
                    .unmeasured(|connection| query::<u64>(connection, &["PUBLISH", channel, END]));
            }
            thread::sleep(END_AGAIN);
        }
        self.given_up.store(true, Ordering::Relaxed);
        for subscriber in self.subscribers.join(&mut part) {
            part.tally.add(&subscriber.tally);
            for (stream, sent) in subscriber.streams.into_iter().zip(&sent) {
                part.faults.add(stream.ended(sent));
            }
        }
        part
    }
}

/// What a publisher has sent, and which of it need not have come.
#[derive(Debug, Default)]
struct Published {
    sent: Sent,
    /// As of the last look.
    changes: u64,
    /// Since a crash, until all subscribers are seen to be subscribed again.
    some_are_away: bool,
}

impl Published {
    /// Whether there was a crash since the last look. Redis answers before it has written to all subscribers, and has
    /// written to all before it answers again: what was answered last before a crash may be lost with it.
    fn crashed(&mut self, changes: u64) -> bool {
        let crashed = std::mem::replace(&mut self.changes, changes) != changes;
        if crashed {
            let last = self.sent.last;
            self.sent.unknown.extend([last.saturating_sub(1), last]);
            self.some_are_away = true;
        }
        crashed
    }

    /// The last message was heard by all subscribers, or not by all, or its outcome is unknown.
    fn answered(&mut self, by_all: Option<bool>, changes: u64, crash_is_on: bool) {
        if !self.crashed(changes) && by_all == Some(true) && !crash_is_on {
            self.some_are_away = false;
        }
        if by_all.is_none() || self.some_are_away && by_all == Some(false) {
            self.sent.unknown.insert(self.sent.last);
        }
    }
}

fn publish(mut client: Client, channel: &str, newest: &AtomicU64, hearers: u64) -> (Tally, Sent) {
    let mut published = Published { changes: client.run.changes(), ..Published::default() };
    while client.turn() {
        published.sent.last += 1;
        let number = published.sent.last;
        newest.store(number, Ordering::SeqCst);
        let message = format!("{number}:{}", client.run.now());
        let heard = client.write::<u64>(&["PUBLISH", channel, &message]);
        let (changes, crash_is_on) = (client.run.changes(), client.run.crash_is_on());
        published.answered(heard.map(|heard| heard >= hearers), changes, crash_is_on);
    }
    published.crashed(client.run.changes());
    (client.tally, published.sent)
}

/// What a subscriber knows.
struct Hearing {
    command: &'static str,
    names: Vec<String>,
    channels: Vec<String>,
    sent: Arc<[AtomicU64]>,
    streams: Vec<Stream>,
    ended: Vec<bool>,
    given_up: Arc<AtomicBool>,
}

fn hear(mut client: Client, mut hearing: Hearing, ready: Sender<RedisResult<()>>) -> Subscriber {
    let mut ready = Some(ready);
    while let Err(why) = hearing.subscribed(&mut client, &mut ready) {
        client.failed(&why, Instant::now());
        hearing.streams.iter_mut().for_each(Stream::away);
        if let Some(ready) = ready.take() {
            // The run will not begin.
            let _ = ready.send(Err(why));
            break;
        }
        if hearing.given_up.load(Ordering::Relaxed) {
            break;
        }
    }
    Subscriber { tally: client.tally, streams: hearing.streams }
}

impl Hearing {
    /// Hears everything until all have ended.
    fn subscribed(
        &mut self,
        client: &mut Client,
        ready: &mut Option<Sender<RedisResult<()>>>,
    ) -> RedisResult<()> {
        let Client { run, tally, connection, .. } = client;
        // The library's own way does not notice that a subscription is refused.
        let command = cmd(self.command).arg(&self.names).get_packed_command();
        connection.send_packed_command(&command)?;
        let mut confirmed = 0;
        while self.ended.contains(&false) {
            let response = connection.recv_response()?;
            if let Value::ServerError(why) = response {
                return Err(why.into());
            }
            let Some(message) = Msg::from_owned_value(response) else {
                confirmed += 1;
                if confirmed == self.names.len()
                    && let Some(ready) = ready.take()
                {
                    // A task that waits for this one waits for all.
                    let _ = ready.send(Ok(()));
                }
                continue;
            };
            let name = message.get_channel_name();
            let Some(publisher) = self.channels.iter().position(|it| it == name) else { continue };
            let before = self.streams[publisher].faults.count();
            if let Some(sent) = self.heard(publisher, &message) {
                tally.done(run.since(sent), &run.live);
            }
            run.live.wrong(self.streams[publisher].faults.count() - before);
        }
        Ok(())
    }

    /// When it was sent.
    fn heard(&mut self, publisher: usize, message: &Msg) -> Option<u64> {
        let payload = String::from_utf8_lossy(message.get_payload_bytes());
        if payload == END {
            self.ended[publisher] = true;
            return None;
        }
        let parsed = payload.split_once(':').and_then(|(number, sent)| {
            Some((number.parse::<u64>().ok()?, sent.parse::<u64>().ok()?))
        });
        let newest = self.sent[publisher].load(Ordering::SeqCst);
        let Some((number, sent)) = parsed else {
            self.streams[publisher].foreign(&payload);
            return None;
        };
        self.streams[publisher].came(number, newest);
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_hear_a_message_is_excused_by_a_crash_until_all_are_subscribed_again() {
        let mut published = Published::default();
        let mut answered = |by_all, changes, crash_is_on| {
            published.sent.last += 1;
            published.answered(Some(by_all), changes, crash_is_on);
            published.sent.unknown.contains(&published.sent.last)
        };
        assert!(!answered(false, 0, false), "there was no crash");
        assert!(answered(true, 1, true), "it may be lost with the crash");
        assert!(!answered(true, 1, true));
        assert!(answered(false, 1, true), "that was the server that is killed");
        assert!(answered(false, 2, false));
        assert!(answered(false, 2, false));
        assert!(!answered(true, 2, false));
        assert!(!answered(false, 2, false), "all were subscribed again");
    }
}
