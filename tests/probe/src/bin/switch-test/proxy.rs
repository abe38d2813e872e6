//! A proxy, its configuration, and its HTTP API.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use probe::admin::{Admin, AdminError};
use probe::screen::Screen;
use probe::target::Target;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::exercise::Ways;
use crate::place::Place;
use crate::process::{Process, Trouble, until};

/// One of the two.
pub struct Proxy {
    /// `A` or `B`.
    pub name: &'static str,
    /// Where its clients connect.
    pub addr: String,
    pass: SecretString,
    file: PathBuf,
    admin: Admin,
    process: Process,
}

impl Proxy {
    /// Starts it in front of `uplink`, and waits until it serves.
    pub fn start(
        name: &'static str,
        program: &Path,
        uplink: Value,
        place: &Place,
        stop: &AtomicBool,
    ) -> Result<Self, Trouble> {
        let pass = place.new_pass();
        let file = place.file(&format!("{name}.json"));
        write(&file, &config(uplink, &pass, place))?;
        let log = place.file(&format!("proxy-{name}.log"));
        let path = file.display().to_string();
        let args = ["--log-format", "json", "-f", &path];
        let said = format!("redis-proxy {name}");
        let mut process = Process::start(&said, program, &args, "", &log)?;
        let mut lines = Vec::new();
        until(&format!("{said} serves"), stop, || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let runs = lines.iter().any(|line: &Value| line["message"] == "running");
            if !runs {
                process.lives()?;
            }
            Ok(runs.then_some(()))
        })?;
        let addr_of = |block: &str| {
            let line = lines.iter().find(|it| it["message"] == "listening" && it["block"] == block);
            line.and_then(|it| it["addr"].as_str()).unwrap_or_default().to_owned()
        };
        let admin = Admin::new(&addr_of("admin"), None)?;
        Ok(Proxy { name, addr: addr_of("listen"), pass, file, admin, process })
    }

    /// For its clients.
    pub fn target(&self, place: &Place) -> Target {
        let (addr, tls, pass) = (self.addr.clone(), place.client_tls(), self.pass.clone());
        Target { addr, tls, user: None, pass: Some(pass) }
    }

    /// How it was started in front of this.
    pub fn introduction(&self, uplink: &str) -> String {
        format!("$ redis-proxy -f {}.json    # uplink: {uplink}", self.name)
    }

    /// As another proxy's `uplink`.
    pub fn uplink(&self, place: &Place) -> Value {
        let mut uplink = json!({ "addr": self.addr, "pass": self.pass.expose_secret() });
        place.trust(&mut uplink);
        uplink
    }

    /// Writes another uplink into its configuration.
    pub fn configure(&self, uplink: Value, place: &Place, screen: &Screen) -> Result<(), Trouble> {
        let addr = uplink["addr"].as_str().unwrap_or_default();
        screen.line(&format!("$ $EDITOR {}.json    # uplink: {addr}", self.name));
        write(&self.file, &config(uplink, &self.pass, place))
    }

    /// Gives it a command.
    pub fn command(&self, command: &str, (screen, stop): Ways<'_>) -> Result<Value, Trouble> {
        let typed = format!("curl -d {command} http://{}/cmd/", self.admin.addr());
        screen.line(&format!("$ {typed}"));
        let (status, answer) = self.admin.command(command, stop).map_err(|why| match why {
            AdminError::GivenUp => Trouble::Interrupted,
            AdminError::Url(_)
            | AdminError::Connect(..)
            | AdminError::Http(..)
            | AdminError::Request(..)
            | AdminError::Json(..) => Trouble::Admin(why),
        })?;
        match status.is_success() {
            true => Ok(answer),
            false => Err(Trouble::Refused(typed, answer)),
        }
    }

    /// The record of its last reload.
    pub fn last_reload(&self) -> Result<Value, Trouble> {
        Ok(self.admin.info()?["reloads"][0].clone())
    }

    /// Whether its uplink serves, as it says; `None` if it does not know.
    pub fn uplink_serves(&self) -> Result<Option<bool>, Trouble> {
        Ok(self.admin.info()?["uplink_up"].as_bool())
    }

    /// Whether its uplink serves, and is this server.
    pub fn serves_from(&self, addr: &str) -> Result<bool, Trouble> {
        let info = self.admin.info()?;
        Ok(info["uplink_up"] == true && info["config"]["uplink"]["addr"] == addr)
    }

    /// Ends it as a system manager does; its exit code must be 0.
    pub fn terminate(self, stop: &AtomicBool) -> Result<(), Trouble> {
        let status = self.process.terminate(stop)?;
        let said = format!("redis-proxy {}", self.name);
        if status.success() { Ok(()) } else { Err(Trouble::Ended(said, status)) }
    }
}

fn config(uplink: Value, pass: &SecretString, place: &Place) -> Value {
    let mut listen = json!({ "addr": "127.0.0.1:0", "pass": pass.expose_secret() });
    place.show(&mut listen);
    // Crashes may come one soon after the other.
    json!({
        "uplink": uplink,
        "listen": listen,
        "admin": { "addr": "127.0.0.1:0" },
        "hold_time_limit_ms": 50_000,
    })
}

fn write(file: &Path, config: &Value) -> Result<(), Trouble> {
    fs::write(file, config.to_string())
        .map_err(|why| Trouble::File(file.display().to_string(), why))
}
