//! One client and its uplink: the loop that carries requests up and replies down.
//!
//! - `requests`: client -> uplink
//! - `route`: what becomes of each request; `inspect`: by its arguments, too
//! - `replies`: uplink -> client
//! - `protocol`: what one connection carries and awaits (pure)
//! - `blocking`: commands that wait, and how to ask again (pure)
//! - `link`: the connection to the uplink
//! - `standby`: the next uplink, made ready while the present one serves
//! - `handover`: the uplink is exchanged for that of a new generation
//! - `cutover`: what of that can only be done while nothing is in flight
//! - `parking`: requests that were read and must wait
//! - `patience`: clients that let others wait
//! - `close`: why it ended, and who is told
//! - `tap`: `log_messages`
//! - `turn`: how much of one side is read before others have their turn (pure)
//!
//! A session without bytes in flight holds no buffers: both directions read into one buffer of
//! the thread, write straight out of it, and copy only what the other side did not take.

mod blocking;
mod close;
mod cutover;
mod handover;
mod inspect;
mod link;
mod outbox;
mod parking;
mod patience;
mod protocol;
mod replies;
mod requests;
mod route;
mod standby;
mod tap;
mod turn;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::debug;

use self::blocking::Blocked;
use self::close::Reason;
use self::cutover::Cutover;
use self::outbox::Outbox;
use self::patience::Dispensable;
use self::protocol::frame_filter::FrameFilter;
use self::protocol::pending::{Pending, View};
use self::protocol::requested::Requested;
use self::protocol::state::State;
use self::requests::Intake;
use self::standby::Standby;
use self::tap::Tap;
use self::turn::Turn;
use crate::changeover::{Marker, Order};
use crate::config::Login;
use crate::gate::{Passes, Waiting};
use crate::generation::Generation;
use crate::metrics::{self, Recorder};
use crate::resp::{encode, reply};
use crate::roster::Member;
use crate::shared::Shared;
use crate::strangers::Stranger;
use crate::transport::{Peer, Socket, Stream, close_gently};
use crate::uplink::{self, Fresh, Script};

/// What one read may bring. One buffer of this size exists for each thread.
const READ_BUFFER: usize = 64 * 1024;
/// What one read may bring of a client that has not logged in.
const STRANGERS_READ: usize = 1024;
/// How long a client may take to read its last replies; and how long one that will send no more is
/// kept while nothing comes for it.
const LAST_REPLIES: Duration = Duration::from_secs(5);

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
    let (client, reason) = {
        // The task's waker, which never changes.
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let member = shared.roster.enrol(shard, waker);
        let mut session = Session::new(client, peer, &shared, generation, member, shard);
        session.stranger = stranger.map(Dispensable::not_logged_in);
        let reason =
            poll_fn(|cx| SCRATCH.with_borrow_mut(|scratch| session.poll(cx, scratch))).await;
        if let Some(id) = session.id {
            shared.ids.forget(id);
        }
        shared.ids.redirected(session.target, None);
        (session.client, reason)
    };
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

type Dial = Pin<Box<dyn Future<Output = Result<Fresh, uplink::Error>> + Send>>;

/// The connection to the uplink.
enum Link {
    /// Not needed yet.
    Absent,
    Dialling(Dial),
    Live(Stream),
    /// Lost; the session ends.
    Lost,
}

struct Session {
    peer: Peer,
    client: Stream,
    uplink: Link,
    shared: Arc<Shared>,
    generation: Arc<Generation>,
    /// The generation before, and until when, for requests that were running then.
    earlier: Option<Box<(Instant, Arc<Generation>)>>,
    /// The password that the client has shown.
    let_in_by: Option<Arc<Login>>,
    member: Member<Order>,
    recorder: Arc<Recorder>,
    /// The id that the client has seen, or will; and that of the present uplink connection.
    id: Option<u64>,
    uplink_id: Option<u64>,
    /// The id of the connection to which invalidations are redirected, as clients have seen it.
    target: Option<u64>,
    /// For the next generation, made ready before it comes.
    standby: Option<Box<Standby>>,
    /// What is to be done while the gate is shut.
    cutover: Option<Box<Cutover>>,
    /// The old uplink has something to say yet before it is exchanged.
    leaving: bool,
    /// The uplink is about to close the connection, and the client stays.
    dismissed: bool,
    /// It has said all.
    marked: bool,
    /// What an uplink said, and was not looked at.
    unread: Vec<u8>,
    /// Frames that are not for the client.
    filter: Option<Box<FrameFilter>>,
    /// The proxy's own channel, while the present uplink sends what is published there.
    marker: Option<Arc<Marker>>,
    /// Somebody waits until the old uplink is let go.
    settling: Option<OwnedSemaphorePermit>,
    /// When it is let go, whatever it may have to say yet.
    leave_by: Option<Instant>,
    /// What the uplink must be told first, where another one was lost or let go.
    restore: Option<Box<Script>>,
    /// Waits until the gate opens, to dial without a request.
    revive: Option<Waiting>,
    /// The uplink is another one since it was last looked at.
    exchanged: bool,
    passes: Passes,
    /// What may yet be read of the client and of the uplink in this turn.
    turn_up: Turn,
    turn_down: Turn,
    /// When the present input was read.
    arrived: Instant,
    intake: Intake,
    requested: Requested,
    pending: Pending,
    state: State,
    /// A command that waits for data.
    blocked: Option<Box<Blocked>>,
    replies: reply::Scanner,
    /// What becomes of the present reply.
    view: View,
    /// Of one that is kept; an error if that was too long.
    kept: Option<Result<Vec<u8>, ()>>,
    /// A part of the present reply went down.
    partial: bool,
    to_uplink: Outbox,
    to_client: Outbox,
    /// Set once no more requests are taken in.
    ending: Option<Reason>,
    /// When the last replies must have been read.
    read_by: Option<Instant>,
    /// The client will send no more; if nothing comes for it by then, it is given up.
    gone_by: Option<Instant>,
    /// While the client has not logged in.
    stranger: Option<Box<Dispensable>>,
    /// What the uplink answered to the question for the connection's id, if that was an error.
    refusal: Option<Box<[u8]>>,
    /// Set for the oldest request, and looked at when it fires.
    timer: Option<Pin<Box<Sleep>>>,
    taps: Option<Box<Taps>>,
}

/// For `log_messages`.
struct Taps {
    up: Tap,
    down: Tap,
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
            uplink: Link::Absent,
            passes: shared.gate.passes(shard),
            intake: Intake::new(authenticated),
            requested: Requested::new(authenticated),
            generation,
            let_in_by: None,
            earlier: None,
            member,
            recorder,
            id: None,
            uplink_id: None,
            target: None,
            standby: None,
            cutover: None,
            leaving: false,
            dismissed: false,
            marked: false,
            unread: Vec::new(),
            filter: None,
            marker: None,
            settling: None,
            leave_by: None,
            restore: None,
            revive: None,
            exchanged: false,
            turn_up: Turn::default(),
            turn_down: Turn::default(),
            arrived: Instant::now(),
            pending: Pending::default(),
            state: State::default(),
            replies: reply::Scanner::default(),
            blocked: None,
            view: View::Shown,
            kept: None,
            partial: false,
            to_uplink: Outbox::default(),
            to_client: Outbox::default(),
            ending: None,
            read_by: None,
            gone_by: None,
            stranger: None,
            refusal: None,
            timer: None,
            taps: None,
            shared: shared.clone(),
        };
        session.set_taps();
        session
    }

    /// `log_messages` may change at a reload.
    fn set_taps(&mut self) {
        match (self.generation.settings.log_messages, &self.taps) {
            (true, None) => {
                let up = Tap::begin(self.intake.scanner.in_frame());
                let down = Tap::begin(self.replies.in_frame());
                self.taps = Some(Box::new(Taps { up, down }));
            }
            (false, Some(_)) => self.taps = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Reason> {
        self.turn_up.begin();
        self.turn_down.begin();
        if self.member.has_news() {
            self.read_news();
        }
        loop {
            self.poll_replies(cx, scratch);
            self.poll_requests(cx, scratch);
            // A link that has just come up may have something to read, and requests may have
            // waited for the client to take the proxy's own replies.
            let exchanged = std::mem::take(&mut self.exchanged) | self.poll_leave(cx);
            if !exchanged
                && !self.poll_dial(cx)
                && !self.poll_flush(cx)
                && !self.poll_standby(cx, scratch)
            {
                break;
            }
        }
        self.poll_deadline(cx);
        self.poll_stranger(cx);
        if self.is_over() {
            return Poll::Ready(self.ending.take().unwrap_or(Reason::ClientClosed));
        }
        Poll::Pending
    }

    /// True when the client has just taken all there was.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> bool {
        if self.to_client.is_clear() {
            return false;
        }
        match self.to_client.poll_clear(&mut self.client, cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(why)) => {
                self.lose_client(why);
                false
            }
        }
    }

    /// Takes in no more requests; what is owed will still be answered.
    fn end(&mut self, reason: Reason) {
        if self.ending.is_none() {
            self.drop_incomplete();
            self.ending = Some(reason);
        }
    }

    /// The client cannot be told anything more.
    fn lose_client(&mut self, why: io::Error) {
        self.to_client.clear();
        self.forget_owed();
        self.ending = Some(Reason::ClientLost(why));
    }

    fn forget_owed(&mut self) {
        self.pending.clear();
        self.blocked = None;
        self.requested.pinned_since = None;
        self.passes.leave(self.passes.held());
    }

    /// The client has hung up, or will send no more; it may still read.
    fn is_leaving_us(&mut self) {
        self.gone_by.get_or_insert_with(|| Instant::now() + LAST_REPLIES);
        let strangers = &self.shared.strangers;
        self.stranger.get_or_insert_with(|| Dispensable::hung_up(strangers.enter()));
    }

    fn is_over(&self) -> bool {
        match &self.ending {
            None => false,
            Some(Reason::ClientLost(_) | Reason::Unread) => true,
            // A blocked client that is gone must not be served: what is popped would be lost.
            Some(Reason::ClientClosed) if self.pending.is_blocked() => true,
            Some(_) => {
                self.pending.is_empty() && self.to_client.is_clear() && self.to_uplink.is_clear()
            }
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) {
        let oldest = self.pending.oldest();
        // A request that runs keeps the limit that it began with.
        let is_earlier =
            |taken: Instant| oldest.is_some_and(|it| it.sent.is_none_or(|at| at < taken));
        self.earlier.take_if(|earlier| !is_earlier(earlier.0));
        let generation = self.earlier.as_ref().map_or(&self.generation, |earlier| &earlier.1);
        let settings = &generation.settings;
        let request = oldest.and_then(|oldest| {
            let limit = match oldest.blocking {
                true => settings.blocking_time_limit,
                false => settings.read_time_limit,
            }?;
            // One that was interrupted has waited before.
            let since = self
                .blocked
                .as_ref()
                .filter(|_| oldest.blocking)
                .map_or(oldest.sent?, |blocked| blocked.since);
            Some((since + limit, limit))
        });
        if let Some((at, limit)) = request
            && self.poll_timer(at, cx).is_ready()
        {
            self.lose_uplink(Reason::TimeLimit(limit));
            self.poll_flush(cx);
        }
        if let Some(until) = self.intake.resumed.as_ref().and_then(|resumed| resumed.until)
            && self.poll_timer(until, cx).is_ready()
        {
            self.end_interrupted(self.timed_out());
            self.poll_flush(cx);
        }
        self.poll_patience(cx);
        if self.ending.is_some() && self.pending.is_empty() && !self.to_client.is_clear() {
            let at = *self.read_by.get_or_insert_with(|| Instant::now() + LAST_REPLIES);
            if self.poll_timer(at, cx).is_ready() {
                self.ending = Some(Reason::Unread);
            }
        }
    }

    /// Ready when it is `at` or later. The timer is left alone where it fires before that.
    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let at = at.into();
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
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
