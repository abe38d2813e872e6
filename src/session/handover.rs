//! A new generation: the uplink is exchanged at a safe point, for one that was made ready before.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::awaited::Awaited;
use super::close::Reason;
use super::commands::Silence;
use super::outbox::Outbox;
use super::owed::Name;
use super::state::Carried;
use super::{Dial, Link, Session, poll_read, replay};
use crate::generation::Generation;
use crate::resp::reply;
use crate::transport::{Peer, Stream};

/// What a session is told by name. All of them also see a stop and a new generation.
#[derive(Debug)]
pub enum Order {
    /// To connect to the next uplink, while the present one still serves.
    Prepare(Arc<Preparation>, OwnedSemaphorePermit),
    /// To forget that.
    Abandon(OwnedSemaphorePermit),
    /// To take the new generation now, if it has not yet.
    Settle(OwnedSemaphorePermit),
    /// To tell which request it waits for.
    Report(mpsc::UnboundedSender<Running>, OwnedSemaphorePermit),
}

/// New uplink connections, on their way.
#[derive(Debug)]
pub struct Preparation {
    generation: Arc<Generation>,
    ready: AtomicU64,
    fault: OnceLock<String>,
}

/// A request that keeps the gate from being quiet.
#[derive(Debug, Clone)]
pub struct Running {
    /// The command's name.
    pub command: String,
    /// Who sent it.
    pub client: Peer,
    /// Since when the uplink has it; `None` while the client has not sent all of it.
    pub since: Option<Instant>,
    /// The client does not read its replies.
    pub unread: bool,
}

/// What became of the sessions at all reloads so far.
#[derive(Debug, Default)]
pub struct Moves {
    /// Their uplink was exchanged.
    pub moved: AtomicU64,
    /// They were closed, for what they had cannot be carried.
    pub closed: AtomicU64,
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Running { command, client, .. } = self;
        let command = command.to_ascii_uppercase();
        match self.since {
            Some(since) => {
                write!(f, "{command} of {client} for {:.1} s", since.elapsed().as_secs_f64())?;
            }
            None => write!(f, "{command} of {client}, which has not sent all of it")?,
        }
        if self.unread { f.write_str(", which does not read its replies") } else { Ok(()) }
    }
}

impl Preparation {
    /// For the uplink of this generation.
    pub fn new(generation: Arc<Generation>) -> Arc<Self> {
        Arc::new(Preparation { generation, ready: AtomicU64::new(0), fault: OnceLock::new() })
    }

    /// Connections that are ready.
    pub fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// Why one of them could not be made.
    pub fn fault(&self) -> Option<&String> {
        self.fault.get()
    }
}

/// A session's next uplink connection.
pub(super) struct Next {
    /// Of this generation, and no other of the same number.
    generation: Arc<Generation>,
    /// What it was told.
    told: Carried,
    link: NextLink,
}

enum NextLink {
    Dialling(Dial),
    Ready(Stream),
}

impl Session {
    /// A stop, a new generation, an order.
    pub(super) fn read_news(&mut self) {
        let orders = self.member.read_news();
        if self.shared.stop.is_stopping() {
            self.end(Reason::Stopped);
        }
        if self.shared.current.number() != self.generation.number {
            self.take_generation();
        }
        for order in orders {
            match order {
                Order::Prepare(preparation, permit) => self.prepare(preparation, permit),
                Order::Abandon(_permit) => self.next = None,
                // Done by now.
                Order::Settle(_permit) => {}
                Order::Report(to, _permit) => {
                    if let Some(running) = self.running() {
                        // Nobody listens any more: it is too late for the answer.
                        let _ = to.send(running);
                    }
                }
            }
        }
    }

    fn running(&self) -> Option<Running> {
        if self.passes.held() == 0 {
            return None;
        }
        // A request without a reply, of which the client has not sent all.
        let silent = || (Name::new(self.intake.scanner.name()), None);
        let (name, since) = self.owed.oldest_admitted().unwrap_or_else(silent);
        let unread = !self.to_client.is_clear();
        Some(Running { command: name.text(), client: self.peer, since, unread })
    }

    fn prepare(&mut self, preparation: Arc<Preparation>, permit: OwnedSemaphorePermit) {
        // For an earlier generation that did not come.
        self.next = None;
        let needed = matches!(self.uplink, Link::Live(_) | Link::Dialling(_));
        if !needed || self.ending.is_some() || self.uncarried().is_some() {
            return;
        }
        let (generation, told) = (preparation.generation.clone(), self.state.carried());
        let shared = self.shared.clone();
        let link = NextLink::Dialling(Box::pin(async move {
            let _permit = permit;
            // One that says nothing may be refused all the same (`maxclients`).
            let result = preparation.generation.uplink.dial_alive(&replay::requests(told)).await;
            shared.metrics.count_connect(&result);
            match &result {
                Ok(_) => {
                    preparation.ready.fetch_add(1, Ordering::Relaxed);
                }
                // The first one counts.
                Err(why) => drop(preparation.fault.set(why.to_string())),
            }
            result
        }));
        self.next = Some(Box::new(Next { generation, told, link }));
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) {
        let Some(next) = &mut self.next else { return };
        let NextLink::Dialling(dial) = &mut next.link else { return };
        match dial.as_mut().poll(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(stream)) => next.link = NextLink::Ready(stream),
            // The reload knows.
            Poll::Ready(Err(_)) => self.next = None,
        }
    }

    /// What a handover would lose.
    pub(super) fn uncarried(&self) -> Option<&'static str> {
        if self.intake.queued.is_some() {
            return Some("an open transaction");
        }
        if self.intake.silence == Silence::Always {
            return Some("CLIENT REPLY OFF");
        }
        self.state.uncarried()
    }

    /// Takes the generation in force. The gate was quiet when it came, so this session is at a
    /// safe point, but for what [`Session::uncarried`] names.
    fn take_generation(&mut self) {
        let generation = self.shared.current.load();
        let replaced = generation.uplink_since != self.generation.uplink_since;
        let before = std::mem::replace(&mut self.generation, generation);
        if !self.owed.is_empty() && self.earlier.is_none() {
            self.earlier = Some(Box::new((Instant::now(), before)));
        }
        let next = self.next.take();
        if self.generation.listen.config.login.is_none() {
            self.intake.authenticate(true);
        }
        self.set_taps();
        if replaced && !matches!(self.uplink, Link::Absent | Link::Lost) {
            match self.uncarried() {
                None => self.exchange(next),
                Some(what) => {
                    self.shared.moves.closed.fetch_add(1, Ordering::Relaxed);
                    self.lose_uplink(Reason::NotCarried(what));
                }
            }
        }
    }

    fn exchange(&mut self, next: Option<Box<Next>>) {
        // What is still owed are replies to the proxy's own requests, and what waits behind them.
        for local in std::mem::take(&mut self.owed).into_locals() {
            self.send_local(&local);
        }
        self.to_uplink = Outbox::default();
        self.replies = reply::Scanner::default();
        (self.hiding, self.partial) = (false, false);
        self.uplink = Link::Absent;
        self.shared.moves.moved.fetch_add(1, Ordering::Relaxed);
        // Without one that is ready, the next request will dial.
        let made_ready = next.filter(|next| Arc::ptr_eq(&next.generation, &self.generation));
        let Some(next) = made_ready else { return };
        if let NextLink::Ready(mut stream) = next.link
            && is_quiet(&mut stream)
        {
            for request in replay::difference(next.told, self.state.carried()) {
                self.to_uplink.push(&request);
                self.owed.push(Awaited::Own, b"");
            }
            self.uplink = Link::Live(stream);
            self.exchanged = true;
        }
    }
}

/// Nothing came since it was made ready, and it is not closed.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    poll_read(stream, &mut cx, &mut [0]).is_pending()
}
