//! Sentinels: real ones, and one that says what a test says.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::Pid;

use super::{Client, LOOK, Redis, eventually, own_host};

/// A real Sentinel with an address of its own; it ends with the test.
pub struct Sentinel {
    child: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    const PORT: u16 = 26379;
    /// The name of the master that it looks after.
    pub const MASTER: &str = "the-master";

    /// Three that know one another, the master, and so many replicas of it.
    pub fn three(master: &Redis, replicas: usize) -> [Sentinel; 3] {
        let sentinels = [(); 3].map(|()| Sentinel::start(master, ""));
        for sentinel in &sentinels {
            eventually("the Sentinels know all", || {
                sentinel.says("num-other-sentinels") == "2"
                    && sentinel.says("num-slaves") == replicas.to_string()
            });
        }
        sentinels
    }

    /// One that decides alone; `more` are lines for its configuration.
    pub fn start(master: &Redis, more: &str) -> Sentinel {
        let (host, dir) = (own_host(), tempfile::tempdir().unwrap());
        let (name, quorum) = (Sentinel::MASTER, 2);
        let (at, port) =
            master.addr().rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let config = format!(
            "bind {host}\nport {}\nsentinel announce-ip {host}\n\
             sentinel monitor {name} {at} {port} {quorum}\n\
             sentinel down-after-milliseconds {name} 1000\n\
             sentinel failover-timeout {name} 3000\n{more}\n",
            Sentinel::PORT
        );
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").current_dir(dir.path()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        eventually("the Sentinel listens", || {
            TcpStream::connect((host.as_str(), Sentinel::PORT)).is_ok()
        });
        Sentinel { child, host, _dir: dir }
    }

    /// `host:port`.
    pub fn addr(&self) -> String {
        format!("{}:{}", self.host, Sentinel::PORT)
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.addr())
    }

    /// A field of what it says of the master.
    pub fn says(&self, field: &str) -> String {
        let said = self.client().run(&format!("SENTINEL MASTER {}", Sentinel::MASTER));
        let mut words = said.trim_matches(['[', ']']).split(", ");
        words.find(|word| *word == field).and_then(|_| words.next()).unwrap_or_default().to_owned()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap()).unwrap()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Sentinel that says what a test says.
pub struct FakeSentinel {
    addr: String,
    says: Arc<Mutex<Says>>,
}

/// What a scripted Sentinel says.
#[derive(Debug, Clone)]
pub enum Says {
    /// That the master is at this address, in this epoch.
    Master(String, u64),
    /// That the master and its replica are at these addresses, that it begins a failover, and then that there is none.
    GivesUp(String, String),
    /// That it knows no such master.
    Unknown,
    /// Nothing at all.
    Nothing,
}

impl FakeSentinel {
    pub fn start(says: Says) -> FakeSentinel {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let says = Arc::new(Mutex::new(says));
        let shared = says.clone();
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let says = shared.clone();
                thread::spawn(move || serve(Client::of_uplink(tcp), &says));
            }
        });
        FakeSentinel { addr, says }
    }

    pub fn addr(&self) -> String {
        self.addr.clone()
    }

    pub fn says(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }
}

fn serve(mut client: Client, says: &Mutex<Says>) {
    while let Some(request) = client.try_request() {
        let says = says.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let words: Vec<&str> = request.iter().map(String::as_str).collect();
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let answer = match (&words[..], &says) {
            (_, Says::Nothing) => loop {
                thread::sleep(LOOK);
            },
            (["SUBSCRIBE", channel], _) => {
                format!("*3\r\n{}{}:1\r\n", bulk("subscribe"), bulk(channel))
            }
            (["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _], Says::Unknown) => "*-1\r\n".to_owned(),
            (["SENTINEL", _, _], Says::Unknown) => {
                "-ERR No such master with that name\r\n".to_owned()
            }
            (
                ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _],
                Says::Master(addr, _) | Says::GivesUp(addr, _),
            ) => {
                let (host, port) = addr.rsplit_once(':').unwrap();
                format!("*2\r\n{}{}", bulk(host), bulk(port))
            }
            (["SENTINEL", "MASTER", _], Says::GivesUp(..)) => {
                format!("*2\r\n{}{}", bulk("flags"), bulk("master"))
            }
            (["SENTINEL", "REPLICAS", _], Says::GivesUp(_, replica)) => {
                let (host, port) = replica.rsplit_once(':').unwrap();
                let fields = [bulk("ip"), bulk(host), bulk("port"), bulk(port)].concat();
                format!("*1\r\n*4\r\n{fields}")
            }
            (["SENTINEL", "FAILOVER", _], Says::GivesUp(..)) => "+OK\r\n".to_owned(),
            (["SENTINEL", "MASTER", _], Says::Master(_, epoch)) => {
                format!("*2\r\n{}{}", bulk("config-epoch"), bulk(&epoch.to_string()))
            }
            (["SENTINEL", "SENTINELS", _], _) => "*0\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        if client.try_send(answer.as_bytes()).is_err() {
            return;
        }
    }
}
