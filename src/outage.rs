//! Whether the uplink is lost. One watcher finds out, for all sessions alike; a session whose connection broke
//! asks for its verdict, and goes by that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

/// What the watcher has found out.
#[derive(Debug)]
pub struct Outages {
    /// Looks at the uplink that sessions have asked for.
    asked: AtomicU64,
    ask: Notify,
    ask_now: Notify,
    /// The uplink has announced that it moves.
    moves: Notify,
    known: watch::Sender<Known>,
}

/// What the watcher knows.
#[derive(Debug, Clone)]
struct Known {
    /// The number of the last outage; 0 if there was none.
    number: u64,
    /// All looks that were asked for up to this one have been made.
    looked: u64,
    /// Since when the uplink is being looked at.
    looking: Option<Instant>,
    /// The outage that goes on.
    lost: Option<Loss>,
    /// When the uplink, which is there, closed the watcher's connection.
    cut: Option<Instant>,
}

/// For how long after the watcher's connection that of a client counts as one of many.
const CUT: Duration = Duration::from_secs(2);

/// An uplink that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Since when it is lost.
    pub since: Instant,
    /// Why, in words.
    pub why: String,
    /// Clients are not held any more.
    pub given_up: bool,
}

/// What a broken connection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The uplink is lost, for all; or it has closed all connections, and serves.
    Lost,
    /// The uplink is there, and is the same: it has closed this one connection.
    Alone,
}

impl Known {
    fn are_cut(&self) -> bool {
        self.cut.is_some_and(|at| at.elapsed() < CUT)
    }
}

impl Default for Outages {
    fn default() -> Self {
        let known = Known { number: 0, looked: 0, looking: None, lost: None, cut: None };
        Outages {
            asked: AtomicU64::new(0),
            ask: Notify::new(),
            ask_now: Notify::new(),
            moves: Notify::new(),
            known: watch::Sender::new(known),
        }
    }
}

impl Outages {
    /// How many outages have begun. A connection that was begun before the last of them is of no use.
    pub fn number(&self) -> u64 {
        self.known.borrow().number
    }

    /// The outage that goes on.
    pub fn loss(&self) -> Option<Loss> {
        self.known.borrow().lost.clone()
    }

    /// Why the uplink is lost, if nobody is held for it any more.
    pub fn given_up(&self) -> Option<String> {
        let known = self.known.borrow();
        known.lost.as_ref().filter(|loss| loss.given_up).map(|loss| loss.why.clone())
    }

    /// Completes when the uplink is lost. Cancel safe.
    pub async fn begun(&self) {
        // Without a watcher, the process ends.
        let _ = self.known.subscribe().wait_for(|known| known.lost.is_some()).await;
    }

    /// What it means that a connection broke that was begun after `number` outages. The watcher looks at the
    /// uplink, unless an outage has begun since.
    pub fn verdict(&self, number: u64) -> impl Future<Output = Verdict> + Send + Sync + use<> {
        self.verdict_by(number, &self.ask)
    }

    /// What it means that the uplink refuses requests on such a connection. The watcher looks at once.
    pub fn verdict_now(&self, number: u64) -> impl Future<Output = Verdict> + Send + Sync + use<> {
        self.verdict_by(number, &self.ask_now)
    }

    fn verdict_by(
        &self,
        number: u64,
        ask: &Notify,
    ) -> impl Future<Output = Verdict> + Send + Sync + use<> {
        let asked = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        ask.notify_one();
        let mut known = self.known.subscribe();
        async move {
            let heard = known.wait_for(|it| it.number > number || it.looked >= asked).await;
            match heard {
                Ok(it) if it.number == number && !it.are_cut() => Verdict::Alone,
                // Without a watcher, the process ends.
                _ => Verdict::Lost,
            }
        }
    }

    /// Completes when a session has asked for a look. Cancel safe.
    pub async fn asked(&self) {
        self.ask.notified().await;
    }

    /// For how long the uplink has owed the watcher an answer.
    pub fn silent_for(&self) -> Option<Duration> {
        self.known.borrow().looking.map(|since| since.elapsed())
    }

    /// Completes when a session has asked for a look at once. Cancel safe.
    pub async fn asked_now(&self) {
        self.ask_now.notified().await;
    }

    /// The uplink has announced that it moves: whoever finds out where it is, is to look again.
    pub fn uplink_moves(&self) {
        self.moves.notify_one();
    }

    /// Completes when the uplink has announced that it moves, since the last time or while this waits. Cancel safe.
    pub async fn moves(&self) {
        self.moves.notified().await;
    }

    /// A look begins: gives what to report when it is over.
    pub fn looking(&self) -> Look {
        self.known.send_if_modified(|known| {
            known.looking = Some(Instant::now());
            // Nobody waits for that.
            false
        });
        Look { asked: self.asked.load(Ordering::Acquire) }
    }

    /// The uplink serves. Gives the outage that this ends.
    pub fn is_up(&self, look: &Look) -> Option<Loss> {
        let mut ended = None;
        self.tell(look, |known| ended = known.lost.take());
        ended
    }

    /// The uplink serves, and has closed the watcher's connection: it closes many, and a client whose connection
    /// broke may connect again.
    pub fn all_are_cut(&self) {
        self.known.send_if_modified(|known| {
            known.cut = Some(Instant::now());
            // The look is not over yet.
            false
        });
    }

    /// The uplink is lost; an outage begins, unless one goes on.
    pub fn is_lost(&self, look: &Look, why: &str) {
        self.tell(look, |known| match &mut known.lost {
            Some(loss) => why.clone_into(&mut loss.why),
            none => {
                let since = Instant::now();
                *none = Some(Loss { since, why: why.to_owned(), given_up: false });
                known.number += 1;
            }
        });
    }

    /// Whether clients are held for it, from now on.
    pub fn give_up(&self, given_up: bool) {
        self.known.send_modify(|known| {
            if let Some(loss) = &mut known.lost {
                loss.given_up = given_up;
            }
        });
    }

    fn tell(&self, look: &Look, change: impl FnOnce(&mut Known)) {
        self.known.send_modify(|known| {
            known.looked = known.looked.max(look.asked);
            known.looking = None;
            change(known);
        });
    }
}

/// A look at the uplink, from its beginning on.
#[derive(Debug)]
pub struct Look {
    asked: u64,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn verdict(outages: &Outages) -> impl Future<Output = Verdict> + Unpin + use<> {
        Box::pin(outages.verdict(outages.number()))
    }

    #[tokio::test]
    async fn a_verdict_waits_for_a_look_that_begins_after_the_question() {
        let outages = Outages::default();
        let early = outages.looking();
        let mut asked = verdict(&outages);
        outages.asked().await;
        outages.is_up(&early);
        assert_eq!((&mut asked).now_or_never(), None, "what was seen before tells nothing");
        outages.is_up(&outages.looking());
        assert_eq!(asked.await, Verdict::Alone);
    }

    #[tokio::test]
    async fn an_outage_is_the_verdict_for_all_connections_that_were_there_before() {
        let outages = Outages::default();
        let (early, asked) = (outages.looking(), verdict(&outages));
        let number = outages.number();
        outages.is_lost(&early, "refused");
        assert_eq!(asked.await, Verdict::Lost);
        outages.is_up(&outages.looking());
        let later = outages.verdict(number);
        assert_eq!(later.await, Verdict::Lost, "one that finds out when it is over");
        assert_eq!(outages.number(), 1);
    }

    #[tokio::test]
    async fn an_announced_move_is_heard_once_by_whoever_waits_for_it_then_or_later() {
        let outages = Outages::default();
        assert!(outages.moves().now_or_never().is_none());
        outages.uplink_moves();
        outages.uplink_moves();
        outages.moves().await;
        assert!(outages.moves().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_with_the_watchers_is_not_alone() {
        let outages = Outages::default();
        let asked = verdict(&outages);
        let look = outages.looking();
        outages.all_are_cut();
        outages.is_up(&look);
        assert_eq!(asked.await, Verdict::Lost);
        assert_eq!((outages.number(), outages.loss()), (0, None));
    }

    #[test]
    fn an_outage_is_one_however_often_it_is_seen() {
        let outages = Outages::default();
        outages.is_lost(&outages.looking(), "refused");
        outages.give_up(true);
        outages.is_lost(&outages.looking(), "loading");
        let loss = outages.loss().expect("lost");
        assert_eq!((&loss.why[..], loss.given_up, outages.number()), ("loading", true, 1));
        outages.is_up(&outages.looking());
        assert_eq!((outages.loss(), outages.given_up()), (None, None));
        outages.is_lost(&outages.looking(), "refused");
        assert_eq!(outages.given_up(), None, "the next one begins anew");
        assert_eq!(outages.number(), 2);
    }
}
