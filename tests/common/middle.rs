//! A way to a server on which something can happen: at the first bytes of a kind, before they get
//! there, or after they were answered.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::acceptor::{Acceptor, Streams};

/// Passes bytes on to one address; it ends with its last clone.
#[derive(Clone)]
pub struct Middle(Arc<Ends>);

/// What belongs to all clones.
struct Ends {
    acceptor: Acceptor,
    shared: Arc<Shared>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.shared.slow_down(Duration::ZERO);
        // What it would have done may have a clone of its own.
        self.shared.trap.lock().unwrap().take();
        self.shared.passed.close();
    }
}

struct Shared {
    to: Mutex<String>,
    /// What goes to the server.
    passed: Streams,
    refuses: AtomicBool,
    /// What everything from the server takes.
    delay: Mutex<Duration>,
    other_delay: Condvar,
    trap: Mutex<Option<Trap>>,
}

/// Happens once.
struct Trap {
    needle: Vec<u8>,
    when: When,
    action: Box<dyn FnOnce() -> Then + Send>,
}

/// When it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the server has the bytes.
    Before,
    /// Once the server has answered, and before anybody knows.
    After,
}

/// What becomes of the connection afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    Pass,
    /// It is closed.
    Close,
    /// Nothing passes any more.
    Hold,
}

impl Middle {
    pub fn to(addr: &str) -> Middle {
        let shared = Arc::new(Shared {
            to: Mutex::new(addr.to_owned()),
            passed: Streams::default(),
            refuses: AtomicBool::new(false),
            delay: Mutex::default(),
            other_delay: Condvar::new(),
            trap: Mutex::default(),
        });
        let acceptor = Acceptor::start({
            let shared = shared.clone();
            move |client, streams| {
                let server = match shared.refuses.load(Ordering::Relaxed) {
                    true => None,
                    false => TcpStream::connect(shared.to.lock().unwrap().as_str()).ok(),
                };
                // Without one, it is closed at once.
                if let Some(server) = server {
                    let (client, server) = (Arc::new(client), Arc::new(server));
                    streams.watch(&client);
                    shared.clone().pass(client, server);
                }
            }
        });
        Middle(Arc::new(Ends { acceptor, shared }))
    }

    pub fn addr(&self) -> String {
        self.0.acceptor.addr.clone()
    }

    /// Closes every further connection at once, or does not any more.
    pub fn refuse(&self, refuses: bool) {
        self.0.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Whatever the server says takes this long.
    pub fn slow_down(&self, delay: Duration) {
        self.0.shared.slow_down(delay);
    }

    /// Another server is in the place of this one: what there is to it is lost.
    pub fn turn_to(&self, addr: &str) {
        addr.clone_into(&mut self.0.shared.to.lock().unwrap());
        self.0.shared.passed.close();
    }

    /// Has this done when `needle` is sent for the first time.
    pub fn at(&self, needle: &str, when: When, action: impl FnOnce() -> Then + Send + 'static) {
        let trap = Trap { needle: needle.as_bytes().to_vec(), when, action: Box::new(action) };
        *self.0.shared.trap.lock().unwrap() = Some(trap);
    }

    /// What was to be done was done, or begun.
    pub fn is_sprung(&self) -> bool {
        self.0.shared.trap.lock().unwrap().is_none()
    }
}

impl Shared {
    fn slow_down(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
        self.other_delay.notify_all();
    }

    /// Waits as long as what the server says takes; no longer, once that is changed.
    fn wait(&self) {
        let delay = self.delay.lock().unwrap();
        let wanted = *delay;
        let _ = self.other_delay.wait_timeout_while(delay, wanted, |now| *now == wanted).unwrap();
    }

    fn pass(self: Arc<Self>, client: Arc<TcpStream>, server: Arc<TcpStream>) {
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        // What is to be done once the answer is here.
        let after = Arc::new(Mutex::new(None::<Trap>));
        let held = Arc::new(AtomicBool::new(false));
        self.passed.watch(&server);
        let (up_from, up_to) = (client.clone(), server.clone());
        thread::spawn({
            let (shared, after, held) = (self.clone(), after.clone(), held.clone());
            move || {
                let mut sent = Vec::new();
                forward(&up_from, &up_to, &held, |chunk| {
                    sent.extend_from_slice(chunk);
                    let trap = shared.sprung_by(&sent);
                    let tail = sent.len().saturating_sub(64);
                    sent.drain(..tail);
                    match trap {
                        Some(trap) if trap.when == When::Before => (trap.action)(),
                        trap => {
                            if trap.is_some() {
                                *after.lock().unwrap() = trap;
                            }
                            Then::Pass
                        }
                    }
                });
            }
        });
        thread::spawn(move || {
            forward(&server, &client, &held, |_| {
                self.wait();
                let trap = after.lock().unwrap().take();
                trap.map_or(Then::Pass, |trap| (trap.action)())
            });
        });
    }

    fn sprung_by(&self, sent: &[u8]) -> Option<Trap> {
        let mut trap = self.trap.lock().unwrap();
        let found = |needle: &[u8]| sent.windows(needle.len()).any(|window| window == needle);
        trap.take_if(|trap| found(&trap.needle))
    }
}

fn forward(
    mut from: &TcpStream,
    mut to: &TcpStream,
    held: &AtomicBool,
    mut look: impl FnMut(&[u8]) -> Then,
) {
    let mut chunk = [0; 64 * 1024];
    while let Ok(len @ 1..) = from.read(&mut chunk) {
        match look(&chunk[..len]) {
            Then::Pass => {}
            Then::Close => break,
            Then::Hold => held.store(true, Ordering::Relaxed),
        }
        if !held.load(Ordering::Relaxed) && to.write_all(&chunk[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
