//! Runs a program: first directly, which says what is to be expected, then through the proxy.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::frames::{self, Frame};
use super::place::Front;
use super::program::{Ids, Mode, Program, Step, Who};
use crate::common::{Client, LOOK};

/// After this, a blocked command does not end by itself: timeouts in programs are shorter, or longer
/// than any test.
const BLOCKS: Duration = Duration::from_millis(60);

/// A connection of a program's.
struct Wire {
    socket: Socket,
    bytes: Vec<u8>,
    closed: bool,
}

impl Wire {
    fn new(socket: impl Into<Socket>) -> Wire {
        Wire { socket: socket.into(), bytes: Vec::new(), closed: false }
    }

    /// A connection that is closed meanwhile is found out by reading.
    fn send(&mut self, step: &Step, ids: &Ids) {
        let bytes = step.bytes(ids);
        let cut = step.cut.map_or(0, |cut| bytes.len() * cut / 1000);
        let _ = self.socket.write_all(&bytes[..cut]);
        let _ = self.socket.write_all(&bytes[cut..]);
    }

    /// Reads once; whether something came.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 16384];
        match self.socket.read(&mut chunk) {
            // This process was stopped, and goes on.
            Err(why) if why.kind() == ErrorKind::Interrupted => self.read(),
            Ok(count @ 1..) => {
                self.bytes.extend_from_slice(&chunk[..count]);
                true
            }
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Ok(_) | Err(_) => {
                self.closed = true;
                false
            }
        }
    }

    /// All that has come.
    fn drain(&mut self) -> Vec<Frame> {
        self.socket.set_nonblocking(true).unwrap();
        while self.read() {}
        self.socket.set_nonblocking(false).unwrap();
        std::iter::from_fn(|| frames::take(&mut self.bytes)).collect()
    }
}

/// What became of a step.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heard {
    pub main: Vec<Frame>,
    pub peer: Vec<Frame>,
    pub main_closed: bool,
    pub peer_closed: bool,
    /// It was not done: the connection is closed, or it is not known how far the other one is.
    skipped: bool,
    /// The main connection is blocked now.
    blocked: bool,
    /// A reload was refused before it.
    pub refused: Option<String>,
}

/// A program's run.
pub struct Run {
    pub ids: Ids,
    pub heard: Vec<Heard>,
}

/// What directs both runs: a connection to the server that may do everything.
pub struct Control(pub Client);

impl Control {
    /// The ids of blocked clients. Before it says so, the server has done what it was sent: in each
    /// round of its loop, it looks at all connections, and then writes all replies.
    fn blocked(&mut self) -> Vec<String> {
        self.0.run("PING");
        self.0.run("PING");
        let list = self.0.run("CLIENT LIST");
        let blocked = list.lines().filter(|line| {
            let flags = line.split(' ').find_map(|word| word.strip_prefix("flags="));
            flags.is_some_and(|flags| flags.contains('b'))
        });
        blocked.map(|line| line[3..].split(' ').next().unwrap().to_owned()).collect()
    }

    /// The server's connections, but for this one, and those that the proxy has for itself.
    pub fn others(&mut self) -> Vec<String> {
        let own =
            |line: &str| line.contains(" user=director ") || line.contains(" name=redis-proxy");
        let list = self.0.run("CLIENT LIST");
        list.lines().filter(|line| !own(line)).map(str::to_owned).collect()
    }

    fn unblock(&mut self) {
        for id in self.blocked() {
            self.0.run(&format!("CLIENT UNBLOCK {id} TIMEOUT"));
        }
    }

    /// As if nothing had been run, and with the rights for this program.
    pub fn prepare(&mut self, mode: &Mode) {
        for command in ["FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH"] {
            self.0.run(command);
        }
        let (default, user) = match mode {
            Mode::Password => return,
            Mode::Plain => (&[][..], &[][..]),
            Mode::Restricted(rules) => (&rules[..], &[][..]),
            Mode::User(rules) => (&[][..], &rules[..]),
        };
        for (name, pass, rules) in [("default", "nopass", default), ("limited", ">secret", user)] {
            let all = format!("ACL SETUSER {name} reset on {pass} +@all ~* &*");
            assert_eq!(self.0.run(&all), "OK");
            for rule in rules {
                // An older server does not know all of these commands.
                self.0.run(&format!("ACL SETUSER {name} {rule}"));
            }
        }
    }
}

/// The program's two connections and what was heard.
struct Runner<'a> {
    main: Wire,
    peer: Wire,
    control: &'a mut Control,
    reloads: bool,
    ids: Ids,
    heard: Vec<Heard>,
}

impl Runner<'_> {
    fn wire(&mut self, who: Who) -> &mut Wire {
        match who {
            Who::Main => &mut self.main,
            Who::Peer => &mut self.peer,
        }
    }

    fn keep(&self, mut frames: Vec<Frame>) -> Vec<Frame> {
        frames.retain(|frame| !(self.reloads && frames::invalidates(frame)));
        frames
    }

    fn ask_id(&mut self, who: Who, patience: Duration) -> Option<u64> {
        let ids = self.ids;
        let wire = self.wire(who);
        wire.socket.set_read_timeout(Some(patience)).unwrap();
        wire.send(&Step::of(who, &["CLIENT ID"]), &ids);
        while wire.read() {
            if let Some(frame) = frames::take(&mut wire.bytes) {
                return frame.strip_prefix(':')?.parse().ok();
            }
        }
        None
    }

    fn ask_ids(&mut self, program: &Program, patience: Duration) {
        if program.mode == Mode::Password {
            let wire = &mut self.peer;
            wire.socket.set_read_timeout(Some(patience)).unwrap();
            wire.send(&Step::of(Who::Peer, &["AUTH secret"]), &Ids::default());
            wire.read();
            wire.bytes.clear();
        }
        self.ids.peer = self.ask_id(Who::Peer, patience);
        if program.asks_id {
            self.ids.main = self.ask_id(Who::Main, patience);
        }
    }
}

/// Straight to the server.
pub fn direct(program: &Program, socket: &str, control: &mut Control) -> Run {
    let connect = || Wire::new(UnixStream::connect(socket).unwrap());
    let (ids, heard) = (Ids::default(), Vec::new());
    let (main, peer) = (connect(), connect());
    let mut runner = Runner { main, peer, control, reloads: program.reloads, ids, heard };
    if matches!(program.mode, Mode::User(_)) {
        for wire in [&mut runner.main, &mut runner.peer] {
            wire.send(&Step::of(Who::Main, &["AUTH limited secret"]), &ids);
            wire.read();
            assert_eq!(wire.bytes, b"+OK\r\n");
            wire.bytes.clear();
        }
    }
    runner.ask_ids(program, BLOCKS * 100);
    let steps = program.whole();
    for (index, step) in steps.iter().enumerate() {
        let next = steps.get(index + 1).map(|step| step.by);
        runner.step_directly(step, next);
    }
    Run { ids: runner.ids, heard: runner.heard }
}

impl Runner<'_> {
    fn step_directly(&mut self, step: &Step, next: Option<Who>) {
        let last = self.heard.iter().rev().find(|heard| !heard.skipped);
        let (known, blocked) =
            last.map_or((true, false), |last| (!last.main.is_empty(), last.blocked));
        let unknown = step.by == Who::Peer && !known && !blocked && !self.main.closed;
        let mut heard = Heard { skipped: self.wire(step.by).closed || unknown, ..Heard::default() };
        if !heard.skipped {
            let ids = self.ids;
            self.wire(step.by).send(step, &ids);
            let sent = Instant::now();
            loop {
                // Who is blocked at a look that begins after the time does not go on by itself.
                let is_late = sent.elapsed() > BLOCKS;
                if self.control.blocked().is_empty() {
                    break;
                }
                if is_late {
                    heard.blocked = next == Some(Who::Peer);
                    if heard.blocked {
                        break;
                    }
                    self.control.unblock();
                }
                std::thread::sleep(LOOK);
            }
        }
        heard.main = self.main.drain();
        heard.peer = self.peer.drain();
        heard.main = self.keep(heard.main);
        heard.peer = self.keep(heard.peer);
        (heard.main_closed, heard.peer_closed) = (self.main.closed, self.peer.closed);
        self.heard.push(heard);
    }
}

/// Through the proxy, where as much is waited for as came directly. The last step may be cut
/// short: what is missing is a difference.
pub fn proxied(
    program: &Program,
    front: &mut Front,
    expected: &Run,
    control: &mut Control,
    patience: Duration,
) -> Run {
    let connect = || {
        let stream = TcpStream::connect(&front.addr).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire::new(stream)
    };
    let (ids, heard) = (Ids::default(), Vec::new());
    let (main, peer) = (connect(), connect());
    let mut runner = Runner { main, peer, control, reloads: program.reloads, ids, heard };
    runner.ask_ids(program, patience);
    for (step, expected) in program.whole().iter().zip(&expected.heard) {
        let mut heard = Heard { skipped: expected.skipped, ..Heard::default() };
        if program.reloads && !expected.skipped {
            heard.refused = front.reload().err();
        }
        if !expected.skipped {
            let ids = runner.ids;
            runner.wire(step.by).send(step, &ids);
        }
        let until = Instant::now() + patience;
        heard.main = runner.listen(Who::Main, expected, until);
        heard.peer = runner.listen(Who::Peer, expected, until);
        (heard.main_closed, heard.peer_closed) = (runner.main.closed, runner.peer.closed);
        while expected.blocked && runner.control.blocked().is_empty() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        heard.blocked = expected.blocked;
        let missing = |heard: &[Frame], expected: &[Frame]| heard.len() < expected.len();
        let ends = missing(&heard.main, &expected.main)
            || missing(&heard.peer, &expected.peer)
            || (heard.main_closed, heard.peer_closed)
                != (expected.main_closed, expected.peer_closed);
        runner.heard.push(heard);
        if ends {
            break;
        }
    }
    Run { ids: runner.ids, heard: runner.heard }
}

impl Runner<'_> {
    /// As many frames as are expected, or fewer if they do not come; and all up to the end if the
    /// connection should be closed.
    fn listen(&mut self, who: Who, expected: &Heard, until: Instant) -> Vec<Frame> {
        let (count, ends) = match who {
            Who::Main => (expected.main.len(), expected.main_closed),
            Who::Peer => (expected.peer.len(), expected.peer_closed),
        };
        let reloads = self.reloads;
        let mut heard = Vec::new();
        loop {
            let wire = self.wire(who);
            while heard.len() < count || ends {
                let Some(frame) = frames::take(&mut wire.bytes) else { break };
                if !(reloads && frames::invalidates(&frame)) {
                    heard.push(frame);
                }
            }
            if wire.closed || (heard.len() >= count && !ends) || Instant::now() > until {
                return heard;
            }
            wire.socket.set_read_timeout(Some(BLOCKS)).unwrap();
            if !wire.read() && !wire.closed && !expected.blocked {
                self.control.unblock();
            }
        }
    }
}
