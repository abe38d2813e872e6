//! One client and its uplink: the loop that carries requests up and replies down.
//!
//! What a session is made of, each to be read alone:
//!
//! - `intake`: how far the client's requests were read; `reply_stream`: how far the uplink's replies were
//! - `link`: the connection to the uplink; `outbox`: what one side has yet to take
//! - `unanswered`: requests that can be sent again; `refused`: replies that say that they were not executed (pure)
//! - `blocking`: a command that waits for data (pure)
//! - `protocol`: what the connection carries and awaits (pure)
//! - `handover`: the way to the next uplink
//! - `dispensable`: clients that make room for others; `close`: why a session ended, and who is told
//! - `tap`: `log_messages`; `turn`: how much is read before others have their turn; `timer`
//!
//! What it does, in methods of `Session`. A file calls those above it in this list, never those below:
//!
//! - `log_messages`; `local_replies`: what the proxy says itself; `listening`: to clients that listen
//! - `handover/scripts`, `mark`, `facets`; `passes`: kept, and given back; `ending`: how a session ends
//! - `connection`: to the uplink; dialled, written to, lost; `login`: who is let in; `transactions`
//! - `handover/cutover`, `exchange`, `prepare`; `hold`: the uplink broke; `orders`: news is read, and acted upon
//! - `admission`: the gate is asked; `route`: what becomes of each request; `authentication`: AUTH and HELLO;
//!   `inspect`: requests whose arguments matter
//! - `parking`: input that is kept back; `long_requests`: requests that go up as they come; `questions`: what the
//!   uplink answers to the proxy itself
//! - `replies`: uplink -> client; `requests`: client -> uplink
//! - `patience`: clients that let others wait; `deadlines`: limits in time
//!
//! Words that mean one thing here: the uplink is *exchanged* when another one takes its place; a reply is *settled*
//! when it is matched with what is owed; a session is *waiting* while the gate counts it; input that is kept back
//! is *parked*, and a command that the uplink answers once there is data is *blocked*, or may be.
//!
//! A session without bytes in flight holds no buffers: both directions read into one buffer of
//! the thread, write straight out of it, and copy only what the other side did not take.

mod admission;
mod authentication;
mod blocking;
mod close;
mod connection;
mod deadlines;
mod dispensable;
mod ending;
mod handover;
mod hold;
mod inspect;
mod intake;
mod link;
mod listening;
mod local_replies;
mod log_messages;
mod login;
mod long_requests;
mod outbox;
mod parking;
mod passes;
mod patience;
mod protocol;
mod questions;
mod refused;
mod replies;
mod reply_stream;
mod requests;
mod route;
mod tap;
mod timer;
mod transactions;
mod turn;
mod unanswered;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::yield_now;
use tokio::time::timeout;
use tracing::debug;

use self::blocking::Blocking;
use self::close::{LAST_REPLIES, Reason};
use self::dispensable::Dispensable;
use self::handover::phase::Handover;
use self::intake::Intake;
use self::link::{Link, Linked};
use self::outbox::Outbox;
use self::protocol::auth::LoginAttempts;
use self::protocol::pending::Pending;
use self::protocol::requested::Requested;
use self::protocol::state::State;
use self::reply_stream::ReplyStream;
use self::tap::Taps;
use self::timer::Timer;
use self::turn::{READ_BUFFER, Turn};
use crate::changeover::Order;
use crate::gate::Passes;
use crate::generation::Generation;
use crate::metrics::{self, Recorder};
use crate::notices::Notice;
use crate::resp::encode;
use crate::roster::Member;
use crate::shared::Shared;
use crate::strangers::Stranger;
use crate::transport::{Peer, Socket, Stream, close_gently};

/// What one read may bring of a client that has not logged in.
const STRANGERS_READ: usize = 1024;
thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BUFFER].into_boxed_slice());
}

/// Serves one client until it or the proxy ends; `shard` is that of the worker it runs on.
/// `generation` is that of the listener where it came in.
pub async fn run(
    socket: Socket,
    peer: Peer,
    generation: Arc<Generation>,
    shared: Arc<Shared>,
    shard: usize,
) {
    let stranger = generation.listen.config.login.as_ref().map(|_| shared.strangers.enter());
    let client = {
        let stopping = pin!(shared.stop.begun());
        tokio::select! {
            client = handshake(socket, &generation, &shared) => client,
            () = sent_away(stranger.as_ref()) => Err(Reason::MadeRoom),
            () = stopping => return,
        }
    };
    let client = match client {
        Ok(client) => client,
        Err(reason) => return reason.log(peer),
    };
    let (client, reason) = serve(client, peer, generation, &shared, shard, stranger).await;
    reason.log(peer);
    let label = metrics::Reason { reason: reason.label() };
    debug_assert!(
        metrics::SESSION_ENDS.contains(&label.reason),
        "{} is not counted from 0",
        label.reason
    );
    shared.metrics.closed.get_or_create(&label).inc();
    if reason.client_listens() {
        close_gently(client).await;
    }
}

/// Serves a client whose connection is ready; gives that back at the end.
async fn serve(
    client: Stream,
    peer: Peer,
    generation: Arc<Generation>,
    shared: &Arc<Shared>,
    shard: usize,
    stranger: Option<Stranger>,
) -> (Stream, Reason) {
    // The task's waker, which never changes.
    let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
    let member = shared.roster.enrol(shard, waker);
    let mut session = Session::new(client, peer, shared, generation, member, shard);
    session.dispensable = stranger.map(Dispensable::not_logged_in);
    let reason = poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| session.poll(cx, scratch))).await;
    if let Some(id) = session.id {
        shared.ids.forget(id);
    }
    shared.ids.redirected(session.target, None);
    (session.client, reason)
}

async fn sent_away(stranger: Option<&Stranger>) {
    match stranger {
        Some(stranger) => stranger.sent_away().await,
        None => std::future::pending().await,
    }
}

/// Tells a client that there are too many, and closes.
pub async fn refuse(socket: Socket, peer: Peer, generation: Arc<Generation>, shared: Arc<Shared>) {
    debug!(client = %peer, "refused: max_clients are connected");
    match handshake(socket, &generation, &shared).await {
        Ok(mut client) => {
            let text = encode::error("ERR max number of clients reached");
            let told = tokio::io::AsyncWriteExt::write_all(&mut client, &text);
            if timeout(LAST_REPLIES, told).await.is_ok() {
                close_gently(client).await;
            }
        }
        Err(reason) => reason.log(peer),
    }
}

async fn handshake(
    socket: Socket,
    generation: &Generation,
    shared: &Shared,
) -> Result<Stream, Reason> {
    let limit = generation.settings.connect_time_limit;
    generation.listen.accept(socket, limit).await.map_err(|why| {
        shared.metrics.handshakes_failed.inc();
        why.into()
    })
}

struct Session {
    peer: Peer,
    client: Stream,
    to_client: Outbox,
    link: Link,
    shared: Arc<Shared>,
    generation: Arc<Generation>,
    /// The generation before, while requests run that began under it.
    earlier: Option<Box<Earlier>>,
    member: Member<Order>,
    recorder: Arc<Recorder>,
    passes: Passes,
    login: LoginAttempts,
    /// What the client was told last of those notices for which it listens.
    told: Notice,
    /// There may be a notice for the client.
    may_be_told: bool,
    /// The connection's id that the client has seen, or will see.
    id: Option<u64>,
    /// The id of the connection to which invalidations are redirected, as clients have seen it.
    target: Option<u64>,
    intake: Intake,
    /// What the client has asked for, ahead of the replies.
    requested: Requested,
    blocking: Blocking,
    pending: Pending,
    replies: ReplyStream,
    /// What the connection carries, by the replies that have come.
    state: State,
    handover: Handover,
    published: Published,
    /// What may yet be read of the uplink in this turn.
    turn_down: Turn,
    /// Set once no more requests are taken in.
    ending: Option<Reason>,
    /// When the last replies must have been read.
    read_by: Option<Instant>,
    /// The client will send no more; if nothing comes for it by then, it is given up.
    gone_by: Option<Instant>,
    /// Set while the client makes room for others: it has not logged in, or has hung up.
    dispensable: Option<Box<Dispensable>>,
    timer: Timer,
    taps: Option<Box<Taps>>,
}

/// What the facets that were published last were computed of, beside what marks its own changes.
#[derive(Debug, Default)]
struct Published {
    blocked: bool,
    in_handover: bool,
}

/// A generation that is in force no more.
struct Earlier {
    generation: Arc<Generation>,
    /// When another one was taken.
    replaced: Instant,
}

impl Session {
    fn new(
        client: Stream,
        peer: Peer,
        shared: &Arc<Shared>,
        generation: Arc<Generation>,
        member: Member<Order>,
        shard: usize,
    ) -> Self {
        let recorder = shared.metrics.recorder(shard);
        recorder.opened.add(1);
        let authenticated = generation.listen.config.login.is_none();
        let mut session = Session {
            peer,
            client,
            to_client: Outbox::default(),
            link: Link::default(),
            shared: shared.clone(),
            generation,
            earlier: None,
            member,
            recorder,
            passes: shared.gate.passes(shard),
            login: LoginAttempts::default(),
            told: Notice::default(),
            may_be_told: false,
            id: None,
            target: None,
            intake: Intake::new(authenticated),
            requested: Requested::new(authenticated),
            blocking: Blocking::None,
            pending: Pending::default(),
            replies: ReplyStream::default(),
            state: State::default(),
            handover: Handover::Idle,
            published: Published::default(),
            turn_down: Turn::default(),
            ending: None,
            read_by: None,
            gone_by: None,
            dispensable: None,
            timer: Timer::default(),
            taps: None,
        };
        session.set_taps();
        session
    }

    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Reason> {
        self.intake.turn.begin();
        self.turn_down.begin();
        if self.member.has_news() {
            self.read_news();
        }
        loop {
            self.poll_replies(cx, scratch);
            self.poll_requests(cx, scratch);
            self.tell_notice();
            // A link that has just come up may have something to read, and requests may have
            // waited for the client to take the proxy's own replies.
            let exchanged = std::mem::take(&mut self.link.was_exchanged) | self.poll_leave(cx);
            if !exchanged
                && !self.is_linked_anew(cx)
                && !self.poll_flush(cx)
                && !self.poll_standby(cx, scratch)
            {
                break;
            }
        }
        self.poll_deadlines(cx);
        self.poll_stranger(cx);
        self.publish_changes();
        if self.is_over() {
            return Poll::Ready(self.ending.take().unwrap_or(Reason::ClientClosed));
        }
        Poll::Pending
    }

    fn is_linked_anew(&mut self, cx: &mut Context<'_>) -> bool {
        match self.poll_link(cx) {
            Linked::AsBefore => false,
            Linked::Anew => true,
            Linked::RefusalsCount => {
                self.deliver_refusals(cx);
                true
            }
        }
    }
}

/// The other sessions of the thread have their turn, and what has come for them is looked for, before
/// this one goes on.
fn yield_turn(cx: &mut Context<'_>) {
    // The runtime wakes the task; there is nothing to be waited for.
    let _ = pin!(yield_now()).poll(cx);
}

fn poll_read(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    into: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(into);
    ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

#[cfg(test)]
mod tests;
