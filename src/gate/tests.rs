use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::task::{Wake, Waker};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Far away, but not too far to be added to.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn poll(future: impl Future) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[tokio::test]
async fn a_pause_refuses_new_requests_and_waits_for_running_ones() {
    let gate = Gate::new(2);
    let (mut one, mut two) = (gate.passes(0), gate.passes(1));
    assert_eq!((one.enter(), two.enter()), (Ok(()), Ok(())));
    one.add(2);
    let hold = gate.pause();
    assert_eq!((one.enter(), two.enter()), (Err(GateShut), Err(GateShut)));
    assert_eq!(gate.in_flight(), 4);
    assert!(!hold.quiesced_by(Instant::now()).await);
    one.leave(3);
    assert!(!hold.quiesced_by(Instant::now()).await);
    two.leave(1);
    assert!(hold.quiesced_by(later()).await);
}

#[test]
fn holds_do_not_undo_one_another() {
    let gate = Gate::new(1);
    let mut passes = gate.passes(0);
    let (first, second) = (gate.pause(), gate.pause());
    drop(first);
    assert_eq!(passes.enter(), Err(GateShut));
    assert!(!poll(gate.wait()));
    drop(second);
    assert!(poll(gate.wait()));
    assert_eq!(passes.enter(), Ok(()));
}

#[test]
fn a_session_that_is_dropped_gives_its_passes_back() {
    let gate = Gate::new(1);
    let mut passes = gate.passes(0);
    assert_eq!(passes.enter(), Ok(()));
    passes.add(6);
    assert_eq!(passes.held(), 7);
    drop(passes);
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn counts_are_exact_after_a_panic() {
    let gate = Gate::new(1);
    let hold = gate.pause();
    let mut passes = gate.passes(0);
    drop(hold);
    assert_eq!(passes.enter(), Ok(()));
    let waiting = gate.wait();
    let session = std::thread::spawn(move || {
        let _in_its_hands = (passes, waiting);
        panic!("a session that fails, for this test");
    });
    session.join().expect_err("it panics");
    assert_eq!((gate.in_flight(), gate.waiting()), (0, 0));
}

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future that is polled as an executor would: at first, and when it was woken.
struct Polled<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    woken: Arc<Woken>,
    result: Option<T>,
}

impl<T> Polled<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        Polled { future: Box::pin(future), woken, result: None }
    }

    fn is_done(&mut self) -> bool {
        if self.result.is_none() && self.woken.0.swap(false, Ordering::Relaxed) {
            let waker = Waker::from(self.woken.clone());
            if let Poll::Ready(result) = self.future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                self.result = Some(result);
            }
        }
        self.result.is_some()
    }
}

const SESSIONS: usize = 4;

#[derive(Debug, Clone)]
enum Op {
    Enter(usize),
    Add(usize, u32),
    Leave(usize),
    EndSession(usize),
    Pause,
    Release(usize),
    Wait(usize),
    Quiesce(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let session = || 0..SESSIONS;
    prop_oneof![
        4 => session().prop_map(Op::Enter),
        1 => (session(), 1..5u32).prop_map(|(session, more)| Op::Add(session, more)),
        3 => session().prop_map(Op::Leave),
        1 => session().prop_map(Op::EndSession),
        2 => Just(Op::Pause),
        3 => (0..4usize).prop_map(Op::Release),
        2 => session().prop_map(Op::Wait),
        2 => (0..4usize).prop_map(Op::Quiesce),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is done to it, the gate does what a few counters say, and wakes everybody whose
    /// time has come.
    #[test]
    fn the_gate_is_its_model(ops in vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        let _inside = runtime.enter();
        let gate = Gate::new(2);
        let mut sessions: Vec<Passes> = (0..SESSIONS).map(|shard| gate.passes(shard)).collect();
        let mut held = [0; SESSIONS];
        let mut holds: Vec<Hold> = Vec::new();
        let mut waiting: Vec<Option<Polled<()>>> = (0..SESSIONS).map(|_| None).collect();
        let mut quiesced: Vec<Polled<bool>> = Vec::new();
        for op in ops {
            match op {
                Op::Enter(session) => {
                    let admitted = sessions[session].enter().is_ok();
                    prop_assert_eq!(admitted, holds.is_empty());
                    held[session] += u32::from(admitted);
                }
                Op::Add(session, more) if held[session] > 0 => {
                    sessions[session].add(more);
                    held[session] += more;
                }
                Op::Leave(session) if held[session] > 0 => {
                    sessions[session].leave(1);
                    held[session] -= 1;
                }
                Op::EndSession(session) => {
                    sessions[session] = gate.passes(session);
                    held[session] = 0;
                    waiting[session] = None;
                }
                Op::Pause => holds.push(gate.pause()),
                Op::Release(hold) if hold < holds.len() => {
                    drop(holds.swap_remove(hold));
                    if holds.is_empty() {
                        // Nobody waits for an open gate to be quiet.
                        quiesced.clear();
                    }
                }
                Op::Wait(session) => waiting[session] = Some(Polled::new(gate.wait())),
                Op::Quiesce(hold) if hold < holds.len() => {
                    quiesced.push(Polled::new(holds[hold].quiesced_by(later())));
                }
                Op::Add(..) | Op::Leave(_) | Op::Release(_) | Op::Quiesce(_) => {}
            }
            let in_flight: u32 = held.iter().sum();
            prop_assert_eq!(gate.in_flight(), u64::from(in_flight));
            prop_assert_eq!(gate.is_open(), holds.is_empty());
            prop_assert_eq!(gate.waiting() as usize, waiting.iter().flatten().count());
            for future in waiting.iter_mut().flatten() {
                // One that was let through stays so, even if the gate is shut again.
                let before = future.result.is_some();
                prop_assert_eq!(future.is_done(), before || holds.is_empty());
            }
            for future in &mut quiesced {
                let before = future.result.is_some();
                prop_assert_eq!(future.is_done(), before || in_flight == 0);
            }
        }
    }
}
