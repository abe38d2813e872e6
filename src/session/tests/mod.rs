//! Sessions without processes: orders of request, reply, handover, gate, hang-up and time that real processes
//! meet by luck. A seed is one schedule, and repeats it.
//!
//! - `REDIS_PROXY_SCHEDULES`: how many are tried
//! - `REDIS_PROXY_SEED`: the first one

mod change;
mod facets;
mod program;
mod random;
mod redis;

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::catch_unwind;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::advance;

use self::change::change;
use self::program::{CHANNEL, Program};
use self::random::Random;
use self::redis::World;
use super::close::Reason;
use super::serve;
use crate::config;
use crate::gate::Hold;
use crate::generation::Generation;
use crate::shared::Shared;
use crate::transport::memory::{self, End};
use crate::transport::{Peer, Stream};

/// What happens before it is seen to that all comes to an end.
const STEPS: usize = 500;
const CLIENTS: usize = 3;

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future that is polled only when the schedule says so, and only once it was woken.
struct Task<T> {
    future: Option<Pin<Box<dyn Future<Output = T>>>>,
    woken: Arc<Flag>,
}

impl<T> Task<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        let woken = Arc::new(Flag(AtomicBool::new(true)));
        Task { future: Some(Box::pin(future)), woken }
    }

    fn is_over(&self) -> bool {
        self.future.is_none()
    }

    /// False if there was nothing to do.
    fn poll(&mut self) -> (bool, Option<T>) {
        let Some(future) = &mut self.future else { return (false, None) };
        if !self.woken.0.swap(false, Ordering::Relaxed) {
            return (false, None);
        }
        let waker = Waker::from(self.woken.clone());
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => (true, None),
            Poll::Ready(result) => {
                self.future = None;
                (true, Some(result))
            }
        }
    }
}

struct Client {
    program: Program,
    sent: usize,
    received: Vec<u8>,
    /// `None` once it has hung up.
    end: Option<End>,
    session: Task<(Stream, Reason)>,
    /// Elements that were pushed to its list.
    fed: u64,
}

struct Schedule {
    random: Random,
    world: Rc<RefCell<World>>,
    shared: Arc<Shared>,
    clients: Vec<Client>,
    change: Option<Task<bool>>,
    generations: u64,
    /// The server that is the uplink.
    at: usize,
    pause: Option<Hold>,
    published: u64,
    /// The servers let the proxy have a channel of its own. Otherwise, subscribers may miss what is published
    /// while the gate is shut, or get it twice.
    has_channel: bool,
}

fn generation(number: u64, server: usize) -> Arc<Generation> {
    let text = format!(
        r#"{{"uplink": {{"addr": "redis-{server}.test:6379"}}, "listen": {{"addr": "127.0.0.1:1"}},
            "admin": {{"addr": "127.0.0.1:2"}}}}"#
    );
    Arc::new(Generation::unverified(config::parse(&text), number))
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let has_channel = !random.one_in(4);
        let world = Rc::<RefCell<World>>::default();
        for server in 0..2 {
            let there = world.clone();
            let accept = move |end| {
                there.borrow_mut().servers[server].accept(end);
                Ok(())
            };
            let room = [8, 300, 64 * 1024][random.below(3)];
            memory::listen(&format!("redis-{server}.test:6379"), room, Box::new(accept));
        }
        let shared = Shared::new(generation(1, 0), 1);
        let clients = (0..CLIENTS).map(|number| {
            let room = [16, 200, 64 * 1024][random.below(3)];
            let (near, far) = memory::pair(room);
            let port = u16::try_from(number + 1).expect("few clients");
            let peer = Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let session = {
                let shared = shared.clone();
                let generation = shared.current.load();
                async move { serve(Stream::Memory(far), peer, generation, &shared, 0, None).await }
            };
            Client {
                program: Program::new(number, &mut random),
                sent: 0,
                received: Vec::new(),
                end: Some(near),
                session: Task::new(session),
                fed: 0,
            }
        });
        let clients = clients.collect();
        Schedule {
            random,
            world,
            shared,
            clients,
            change: None,
            generations: 1,
            at: 0,
            pause: None,
            published: 0,
            has_channel,
        }
    }

    /// Sends some of what a client has to send.
    fn write(&mut self, client: usize, most: usize) -> bool {
        let client = &mut self.clients[client];
        let Some(end) = &client.end else { return false };
        let rest = &client.program.bytes[client.sent..];
        let written = end.write(&rest[..rest.len().min(most)]).unwrap_or(0);
        client.sent += written;
        written > 0
    }

    fn read(&mut self, client: usize) -> bool {
        let client = &mut self.clients[client];
        let Some(bytes) = client.end.as_ref().and_then(End::read) else { return false };
        client.received.extend(&bytes);
        !bytes.is_empty()
    }

    fn feed(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.fed += 1;
        let (name, value) = (format!("list{number}"), client.fed.to_string());
        self.world.borrow_mut().push(name.as_bytes(), value.as_bytes());
    }

    fn publish(&mut self) {
        self.published += 1;
        self.world.borrow_mut().publish(CHANNEL, self.published.to_string().as_bytes());
    }

    fn begin_change(&mut self) {
        self.generations += 1;
        let to = 1 - self.at;
        let (shared, world) = (self.shared.clone(), self.world.clone());
        let next = generation(self.generations, to);
        let seed = self.random.below(1 << 30) as u64;
        self.change = Some(Task::new(change(shared, world, next, to, self.has_channel, seed)));
    }

    fn poll_change(&mut self) -> bool {
        let Some(change) = &mut self.change else { return false };
        let (worked, changed) = change.poll();
        if let Some(changed) = changed {
            self.change = None;
            if changed {
                self.at = 1 - self.at;
            }
        }
        worked
    }

    fn any_connection(&mut self) -> Option<(usize, u64)> {
        let at = self.random.below(2);
        let ids = self.world.borrow().servers[at].ids();
        (!ids.is_empty()).then(|| (at, ids[self.random.below(ids.len())]))
    }

    /// Does one thing, whatever comes to mind.
    async fn step(&mut self) {
        let client = self.random.below(CLIENTS);
        match self.random.below(24) {
            0..4 => {
                let most = [1, 7, 40, 1000][self.random.below(4)];
                self.write(client, most);
            }
            4 | 5 => {
                self.read(client);
            }
            6..11 => {
                self.clients[client].session.poll();
            }
            11..14 => {
                if let Some((at, id)) = self.any_connection() {
                    self.world.borrow_mut().execute(at, id);
                }
            }
            14..17 => {
                if let Some((at, id)) = self.any_connection() {
                    let most = [1, 5, 1000][self.random.below(3)];
                    self.world.borrow_mut().deliver(at, id, most);
                }
            }
            17 => match self.random.below(3) {
                0 => self.feed(client),
                _ => self.publish(),
            },
            18..22 => match &self.change {
                None if self.random.one_in(4) => self.begin_change(),
                None => {}
                Some(_) => {
                    self.poll_change();
                }
            },
            22 => match self.pause.take() {
                Some(hold) => drop(hold),
                None if self.random.one_in(4) => self.pause = Some(self.shared.gate.pause()),
                None => {}
            },
            _ => match self.random.below(40) {
                0 => self.clients[client].end = None,
                _ => {
                    advance(Duration::from_millis(self.random.below(8) as u64)).await;
                    self.world.borrow_mut().expire();
                }
            },
        }
        // The runtime has its turn, and no more.
        yield_now().await;
    }

    /// Sees to it that all comes to an end.
    async fn finish(&mut self) -> Result<(), String> {
        self.pause = None;
        let mut is_last_published = false;
        for _ in 0..20_000 {
            let mut worked = false;
            for client in 0..CLIENTS {
                worked |= self.write(client, usize::MAX);
                worked |= self.clients[client].session.poll().0;
                worked |= self.read(client);
            }
            worked |= self.poll_change();
            for at in 0..2 {
                let ids = self.world.borrow().servers[at].ids();
                for id in ids {
                    worked |= self.world.borrow_mut().execute(at, id);
                    worked |= self.world.borrow_mut().deliver(at, id, usize::MAX);
                }
            }
            yield_now().await;
            if worked {
                continue;
            }
            let waits = |client: &Client| {
                client.end.is_some() && !client.program.rest(&client.received).is_empty()
            };
            let waiting: Vec<usize> = (0..CLIENTS).filter(|at| waits(&self.clients[*at])).collect();
            if self.change.is_some() {
                advance(Duration::from_millis(5)).await;
            } else if !waiting.is_empty() {
                for client in waiting {
                    // One that waits for an element gets it.
                    if self.world.borrow().data.list(format!("list{client}").as_bytes()).is_empty()
                    {
                        self.feed(client);
                    }
                }
                advance(Duration::from_millis(10)).await;
                self.world.borrow_mut().expire();
            } else if !is_last_published {
                is_last_published = true;
                self.publish();
            } else {
                return self.verdict();
            }
        }
        let rest = |client: &Client| client.program.rest(&client.received).to_vec();
        let left: Vec<_> = self.clients.iter().map(rest).collect();
        let hung_up: Vec<_> = self.clients.iter().map(|client| client.end.is_none()).collect();
        Err(format!(
            "it comes to no end: in a handover: {}; in flight: {}; hung up: {hung_up:?}; not answered: {left:?}",
            self.change.is_some(),
            self.shared.gate.in_flight(),
        ))
    }

    fn verdict(&self) -> Result<(), String> {
        for (number, client) in self.clients.iter().enumerate() {
            let left = self.world.borrow().data.list(format!("list{number}").as_bytes());
            let hung_up = client.end.is_none();
            if client.session.is_over() && !hung_up {
                return Err(format!("client {number} was closed"));
            }
            if let Some(fault) =
                client.program.fault(&client.received, &left, hung_up, self.has_channel)
            {
                return Err(format!("client {number}: {fault}"));
            }
        }
        if self.shared.gate.in_flight() > 0 {
            return Err(format!("{} passes were not given back", self.shared.gate.in_flight()));
        }
        Ok(())
    }
}

fn run(seed: u64) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut schedule = Schedule::new(seed);
        for _ in 0..STEPS {
            schedule.step().await;
        }
        let result = schedule.finish().await;
        if result.is_err() {
            schedule.world.borrow().events.iter().for_each(|event| eprintln!("{event}"));
        }
        result
    })
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_order_of_events_in_a_handover_is_seen_by_a_client() {
    let (first, count) = (setting("REDIS_PROXY_SEED", 1), setting("REDIS_PROXY_SCHEDULES", 2000));
    for seed in first..first + count {
        let ended = catch_unwind(|| run(seed)).unwrap_or_else(|_| Err("a panic".to_owned()));
        if let Err(fault) = ended {
            panic!("REDIS_PROXY_SEED={seed} REDIS_PROXY_SCHEDULES=1: {fault}");
        }
    }
}
