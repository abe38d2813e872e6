//! What a session is like is known before anybody finds the gate quiet.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use super::generation;
use crate::changeover::{Attempt, facets};
use crate::command::{Channel, Timeout};
use crate::resp::encode;
use crate::session::Session;
use crate::session::handover::phase::Handover;
use crate::session::handover::standby::{Standby, StandbyLink};
use crate::session::protocol::effect::Effect;
use crate::session::protocol::replay::OneShot;
use crate::session::protocol::requested::Silence;
use crate::session::protocol::state::{Confirmation, Confirmed, Subscription};
use crate::session::turn::READ_BUFFER;
use crate::shared::Shared;
use crate::transport::memory;
use crate::transport::{Peer, Stream};

/// The controller, which looks at the facets at the moment at which it hears that the gate is quiet.
struct Controller {
    shared: Arc<Shared>,
    seen: AtomicU32,
}

impl Wake for Controller {
    fn wake(self: Arc<Self>) {
        let facets = self.shared.roster.facets();
        self.seen.store(facets.iter().fold(0, |all, bits| all | bits), Ordering::Relaxed);
    }
}

/// Something that changes what a session is like, and the facets that it has then.
type Change = (&'static str, fn(&mut Session), u32);

const CHANGES: &[Change] = &[
    ("MONITOR", |it| it.state.apply(Effect::Monitor), facets::MONITOR | facets::CUTOVER),
    (
        "WATCH",
        |it| it.state.apply(Effect::Watch(vec![Box::from(&b"key"[..])])),
        facets::WATCHING | facets::CUTOVER,
    ),
    (
        "a key was touched",
        |it| it.state.touch(),
        facets::WATCHING | facets::TOUCHED | facets::CUTOVER,
    ),
    (
        "SUBSCRIBE",
        |it| {
            let (channel, subscription) = (Channel::Name, Subscription::Begun);
            let name = Confirmed::Is(Box::from(&b"c"[..]));
            it.state.confirmed(Confirmation { channel, subscription }, name, 1);
        },
        facets::SUBSCRIBED | facets::CUTOVER,
    ),
    (
        "MULTI",
        |it| drop(it.requested.set_transaction(Some(Box::default()))),
        facets::TRANSACTION | facets::CUTOVER,
    ),
    ("ASKING", |it| it.requested.set_one_shot(Some(OneShot::Asking)), facets::CUTOVER),
    ("CLIENT MAINT_NOTIFICATIONS ON", |it| it.state.listen(true), facets::LISTENS),
    ("CLIENT REPLY OFF", |it| it.requested.set_silence(Silence::Always), facets::SILENT),
    (
        "BLPOP",
        |it| {
            let frame = encode::request(["BLPOP", "key", "0"]);
            it.blocking.send(&frame, Timeout::Last, false, Instant::now());
        },
        facets::BLOCKED,
    ),
    (
        "the next uplink does not take it",
        |it| {
            let next = Attempt::new(generation(2, 1), None, false, false);
            it.handover = Handover::Prepared(Box::new(Standby {
                attempt: next,
                primed: it.state.carried(),
                link: StandbyLink::Refused,
                listens: None,
                marker: None,
                redirected: false,
                complete: false,
                permit: None,
            }));
        },
        facets::CUTOVER,
    ),
];

fn session(shared: &Arc<Shared>) -> (Session, memory::End) {
    let (near, far) = memory::pair(1000);
    let member = shared.roster.enrol(0, Waker::noop().clone());
    let generation = shared.current.load();
    (Session::new(Stream::Memory(far), Peer::Unix, shared, generation, member, 0), near)
}

#[test]
fn facets_are_published_before_passes_go_back() {
    for (what, change, wanted) in CHANGES {
        let shared = Shared::new(generation(1, 0), 1);
        let (mut session, _end) = session(&shared);
        session.passes.enter().expect("the gate is open");
        let hold = shared.gate.pause();
        let controller = Arc::new(Controller { shared, seen: AtomicU32::new(0) });
        let waker = Waker::from(controller.clone());
        let mut quiet = pin!(hold.quiesced());
        assert!(quiet.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        change(&mut session);
        session.release(1);
        assert_eq!(controller.seen.load(Ordering::Relaxed), *wanted, "{what}");
        assert!(quiet.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }
}

#[tokio::test]
async fn facets_are_published_at_the_end_of_a_turn() {
    for (what, change, wanted) in CHANGES {
        let shared = Shared::new(generation(1, 0), 1);
        let (mut session, _end) = session(&shared);
        let turn = |session: &mut Session| {
            let polled =
                session.poll(&mut Context::from_waker(Waker::noop()), &mut vec![0; READ_BUFFER]);
            assert!(matches!(polled, Poll::Pending), "{what}: {polled:?}");
        };
        turn(&mut session);
        assert_eq!(shared.roster.facets(), [0]);
        change(&mut session);
        turn(&mut session);
        assert_eq!(shared.roster.facets(), [*wanted], "{what}");
    }
}

#[tokio::test]
async fn a_handover_that_was_given_up_leaves_no_facets() {
    let shared = Shared::new(generation(1, 0), 1);
    let (mut session, _end) = session(&shared);
    let (_, refuse, _) = CHANGES.last().expect("the next uplink");
    refuse(&mut session);
    session.publish_changes();
    assert_eq!(shared.roster.facets(), [facets::CUTOVER]);
    session.handover = Handover::Idle;
    session.publish_changes();
    assert_eq!(shared.roster.facets(), [0]);
}
