//! A way to a server on which something can happen: at the first bytes of a kind, before they get
//! there, or after they were answered.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Passes bytes on to one address; it ends with the test's process.
#[derive(Clone)]
pub struct Middle {
    addr: String,
    shared: Arc<Shared>,
}

struct Shared {
    to: Mutex<String>,
    /// What goes to the server.
    passed: Mutex<Vec<TcpStream>>,
    refuses: AtomicBool,
    /// Milliseconds that everything from the server takes.
    delay: AtomicU64,
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = Arc::new(Shared {
            to: Mutex::new(addr.to_owned()),
            passed: Mutex::default(),
            refuses: AtomicBool::new(false),
            delay: AtomicU64::new(0),
            trap: Mutex::default(),
        });
        let middle =
            Middle { addr: listener.local_addr().unwrap().to_string(), shared: shared.clone() };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = match shared.refuses.load(Ordering::Relaxed) {
                    true => None,
                    false => TcpStream::connect(shared.to.lock().unwrap().as_str()).ok(),
                };
                // Without one, it is closed at once.
                if let Some(server) = server {
                    shared.clone().pass(client, server);
                }
            }
        });
        middle
    }

    pub fn addr(&self) -> String {
        self.addr.clone()
    }

    /// Closes every further connection at once, or does not any more.
    pub fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Whatever the server says takes this long.
    pub fn slow_down(&self, delay: Duration) {
        self.shared.delay.store(delay.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }

    /// Another server is in the place of this one: what there is to it is lost.
    pub fn turn_to(&self, addr: &str) {
        addr.clone_into(&mut self.shared.to.lock().unwrap());
        for stream in self.shared.passed.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Has this done when `needle` is sent for the first time.
    pub fn at(&self, needle: &str, when: When, action: impl FnOnce() -> Then + Send + 'static) {
        let trap = Trap { needle: needle.as_bytes().to_vec(), when, action: Box::new(action) };
        *self.shared.trap.lock().unwrap() = Some(trap);
    }

    /// What was to be done was done, or begun.
    pub fn is_sprung(&self) -> bool {
        self.shared.trap.lock().unwrap().is_none()
    }
}

impl Shared {
    fn pass(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        // What is to be done once the answer is here.
        let after = Arc::new(Mutex::new(None::<Trap>));
        let held = Arc::new(AtomicBool::new(false));
        let copy = |from: &TcpStream, to: &TcpStream| (from.try_clone(), to.try_clone());
        let (Ok(up_from), Ok(up_to)) = copy(&client, &server) else { return };
        let (Ok(down_from), Ok(down_to)) = copy(&server, &client) else { return };
        self.passed.lock().unwrap().extend(server.try_clone());
        thread::spawn({
            let (shared, after, held) = (self.clone(), after.clone(), held.clone());
            move || {
                let mut sent = Vec::new();
                forward(up_from, up_to, &held, |chunk| {
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
            forward(down_from, down_to, &held, |_| {
                thread::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed)));
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
    mut from: TcpStream,
    mut to: TcpStream,
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
