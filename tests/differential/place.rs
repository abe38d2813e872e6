//! Where programs run: a server, and a proxy in front of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::compare::compare;
use super::frames;
use super::program::{Mode, Program};
use super::run::{self, Control};
use crate::common::{LOOK, Proxy, Redis, config};

/// A server, and a proxy in front of it.
struct Place {
    redis: Redis,
    control: Control,
    front: Front,
}

/// A proxy, and its two ways to one server.
pub struct Front {
    pub addr: String,
    proxy: Proxy,
    configs: [Value; 2],
    reloads: usize,
}

impl Front {
    fn new(redis: &Redis, uplink: &Value, listen: &Value) -> Front {
        let configs =
            [json!({ "addr": redis.addr() }), json!({ "addr": redis.socket(), "network": "unix" })];
        let configs = configs.map(|way| {
            let listen = merged(json!({ "addr": "127.0.0.1:0" }), listen);
            let limits = json!({ "pause_time_limit_ms": 5000 });
            let more = json!({ "uplink": merged(way, uplink), "listen": listen });
            config("", merged(more, &limits))
        });
        let proxy = Proxy::start(&configs[0]);
        let mut front = Front { addr: proxy.addr(), proxy, configs, reloads: 0 };
        // After it, clients' ids are not the uplink's.
        assert_eq!(front.reload(), Ok(()));
        front
    }

    /// The proxy loads scripts that it has heard of; those of other programs are not wanted.
    fn forget_scripts(&self) {
        let mut client = self.proxy.client();
        // Where there is a password; elsewhere it is refused.
        client.run("AUTH secret");
        assert_eq!(client.run("SCRIPT FLUSH"), "OK");
    }

    pub fn reload(&mut self) -> Result<(), String> {
        self.reloads += 1;
        let answer = self.proxy.reload(&self.configs[self.reloads % 2]);
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    }
}

fn merged(mut one: Value, other: &Value) -> Value {
    one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
    one
}

impl Place {
    fn new(args: &[&str], uplink: &Value, listen: &Value) -> Place {
        let redis = Redis::start(&[&["--enable-debug-command", "yes"], args].concat());
        let mut control = redis.client();
        control.run("AUTH secret");
        control.run("ACL SETUSER director on nopass +@all ~* &*");
        control.run("AUTH director x");
        // Before the proxy starts, its user must be there.
        control.run("ACL SETUSER limited reset on >secret +@all ~* &*");
        // Numbers that programs make are none of a client's id.
        for _ in 0..frames::LEAST_ID {
            std::os::unix::net::UnixStream::connect(redis.socket()).unwrap();
        }
        let front = Front::new(&redis, uplink, listen);
        Place { redis, control: Control(control), front }
    }

    /// What is different, if anything is.
    fn difference(&mut self, program: &Program, patience: Duration) -> Option<String> {
        self.control.prepare(&program.mode);
        let expected = run::direct(program, &self.redis.socket(), &mut self.control);
        if program.mode != Mode::Password {
            self.control.prepare(&Mode::Plain);
        }
        self.front.forget_scripts();
        self.control.prepare(&program.mode);
        let got = run::proxied(program, &mut self.front, &expected, &mut self.control, patience);
        compare(program, &expected, &got).or_else(|| self.leftover(&program.mode, patience))
    }

    /// A client that is gone is gone at the server, too: what it had sent is not executed any
    /// more, under the next program.
    fn leftover(&mut self, mode: &Mode, patience: Duration) -> Option<String> {
        let until = Instant::now() + patience;
        loop {
            let clients = self.control.others();
            // The proxy watches its uplink over a connection that has no name if the user may give none.
            let unnamed = matches!(mode, Mode::Restricted(_) | Mode::User(_));
            if clients.len() <= usize::from(unnamed) {
                return None;
            }
            if Instant::now() > until {
                return Some(format!("after the end, the server has\n{}", clients.join("\n")));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// One of each kind; each is started when it is needed first.
#[derive(Default)]
pub struct Places {
    open: Option<Place>,
    user: Option<Place>,
    password: Option<Place>,
}

impl Places {
    fn of(&mut self, mode: &Mode) -> &mut Place {
        let none = json!({});
        match mode {
            Mode::Plain | Mode::Restricted(_) => {
                self.open.get_or_insert_with(|| Place::new(&[], &none, &none))
            }
            Mode::User(_) => self.user.get_or_insert_with(|| {
                Place::new(&[], &json!({ "user": "limited", "pass": "secret" }), &none)
            }),
            Mode::Password => self.password.get_or_insert_with(|| {
                let pass = json!({ "pass": "secret" });
                Place::new(&["--requirepass", "secret"], &pass, &pass)
            }),
        }
    }

    pub fn difference(&mut self, program: &Program, patience: Duration) -> Option<String> {
        let place = self.of(&program.mode);
        let result = catch_unwind(AssertUnwindSafe(|| place.difference(program, patience)));
        result.unwrap_or_else(|why| {
            let text = why.downcast_ref::<String>().cloned();
            self.forget(&program.mode);
            Some(format!("panicked: {text:?}"))
        })
    }

    /// The next program of this mode has a new server and a new proxy.
    pub fn forget(&mut self, mode: &Mode) {
        match mode {
            Mode::Plain | Mode::Restricted(_) => self.open = None,
            Mode::User(_) => self.user = None,
            Mode::Password => self.password = None,
        }
    }
}
