//! `Type=notify-reload`: what systemd is told, and when.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;
use serde_json::json;

use crate::common::{FakeUplink, PATIENCE, Proxy, config, redis};

/// The end of systemd that services talk to.
struct Systemd {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Systemd {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Systemd { socket, dir }
    }

    fn path(&self) -> String {
        self.dir.path().join("notify").display().to_string()
    }

    fn message(&self) -> String {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// The next message with this in it; those before it are passed over.
    fn hears(&self, what: &str) -> String {
        loop {
            let message = self.message();
            if message.contains(what) {
                return message;
            }
        }
    }
}

/// Of the clock that systemd reads.
fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

#[test]
fn systemd_hears_of_start_reload_and_stop() {
    let (one, two) = (redis(), redis());
    let systemd = Systemd::new();
    let before = config(&one.addr(), json!({}));
    let mut proxy = Proxy::start_in(&[("NOTIFY_SOCKET", &systemd.path())], &before);
    let ready = systemd.hears("READY=1");
    assert!(
        ready.contains(&format!("STATUS=Running: 0 clients, uplink {}", one.addr())),
        "{ready}"
    );

    proxy.rewrite(&config(&two.addr(), json!({})));
    let asked = monotonic_usec();
    proxy.signal(Signal::HUP);
    let reloading = systemd.hears("RELOADING=1");
    let stamp = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let stamp: u64 = stamp.parse().unwrap();
    assert!(asked <= stamp && stamp <= monotonic_usec());
    let ready = systemd.hears("READY=1");
    assert!(ready.contains(&format!("uplink {}, generation 2", two.addr())), "{ready}");

    // A refused one is over, too, and says why; what it quotes ends no line.
    let mut refused = config("127.0.0.1:1", json!({}));
    refused["a\nWATCHDOG=trigger\nb"] = json!(1);
    proxy.rewrite(&refused);
    proxy.signal(Signal::HUP);
    systemd.hears("RELOADING=1");
    let ready = systemd.hears("READY=1");
    assert!(ready.contains("the last reload failed: the configuration is refused"), "{ready}");
    assert!(!ready.lines().any(|line| line.starts_with("WATCHDOG")), "{ready}");
    assert!(ready.contains(&format!("uplink {}, generation 2", two.addr())), "{ready}");

    proxy.cmd("pause").expect_ok();
    systemd.hears("STATUS=Paused for ");
    proxy.cmd("unpause").expect_ok();
    systemd.hears("STATUS=Running");
    proxy.signal(Signal::TERM);
    systemd.hears("STOPPING=1");
    assert_eq!(proxy.ended().code(), Some(0));
}

#[test]
fn a_reload_that_a_stop_ends_is_not_ready_again() {
    let (redis, fake) = (redis(), FakeUplink::bind());
    let systemd = Systemd::new();
    let before = config(&redis.addr(), json!({}));
    let mut proxy = Proxy::start_in(&[("NOTIFY_SOCKET", &systemd.path())], &before);
    systemd.hears("READY=1");
    proxy.rewrite(&config(&fake.addr(), json!({})));
    proxy.signal(Signal::HUP);
    let _silent = fake.accept();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.ended().code(), Some(0));
    systemd.hears("STOPPING=1");
    systemd.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(len) = systemd.socket.recv(&mut buffer) {
        assert!(!String::from_utf8_lossy(&buffer[..len]).contains("READY=1"));
    }
}

#[test]
fn the_watchdog_is_told_in_time() {
    let redis = redis();
    let systemd = Systemd::new();
    let environment = [("NOTIFY_SOCKET", &*systemd.path()), ("WATCHDOG_USEC", "200000")];
    let _proxy = Proxy::start_in(&environment, &config(&redis.addr(), json!({})));
    for _ in 0..5 {
        systemd.hears("WATCHDOG=1");
    }
}

#[test]
fn without_systemd_nothing_is_missing() {
    let redis = redis();
    let nowhere = [("NOTIFY_SOCKET", "/nowhere/notify"), ("WATCHDOG_USEC", "200000")];
    let proxy = Proxy::start_in(&nowhere, &config(&redis.addr(), json!({})));
    assert_eq!(proxy.client().ask(&["PING"]), "+PONG");
}
