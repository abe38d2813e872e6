//! A Redis proxy that lets you replace the Redis behind a running system without a client
//! noticing.
//!
//! The path of a request, which is also the order in which to read the modules:
//!
//! ```text
//! main       argv -> configuration -> runtime -> exit code
//! app        puts the parts together, hears signals, stops
//! reception  who is let in, and where               listener   accepts
//! worker     the thread that a client is given to
//! session    one client and its uplink              raw        ... whose bytes are not looked at
//!   resp       where its requests end                 command    which of them matter, and why
//!   gate       lets them in, or holds them            roster     tells it of a reload
//!   uplink     dials the Redis behind                 scripts    that went by
//!   discovery  finds out which that is
//! shared     what all sessions share                changeover what they and the controller say
//! controller pause, reload, stop                    admin      the HTTP API that asks for them
//!   server     a Redis server, asked by the proxy
//! cli        the command line                       ctl        asks that API, from there
//! ```
//!
//! Below these: [`generation`] (a loaded configuration), [`config`], [`tls`], [`dial`], [`transport`],
//! [`clock`], [`stop`], [`strangers`], [`crowd`], [`metrics`], [`signal`], [`notices`], [`notify`], [`limits`],
//! [`lock`], [`log`], [`outage`], [`config_file`], [`redact`], [`random`], [`exit`].

pub mod admin;
pub mod app;
pub mod changeover;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod config_file;
pub mod controller;
pub mod crowd;
pub mod ctl;
pub mod dial;
pub mod discovery;
pub mod exit;
pub mod gate;
pub mod generation;
pub mod limits;
pub mod listener;
pub mod lock;
pub mod log;
pub mod metrics;
pub mod notices;
pub mod notify;
pub mod outage;
pub mod random;
pub mod raw;
pub mod reception;
pub mod redact;
pub mod resp;
pub mod roster;
pub mod scripts;
pub mod server;
pub mod session;
pub mod shared;
pub mod signal;
pub mod stop;
pub mod strangers;
pub mod tls;
pub mod transport;
pub mod uplink;
pub mod worker;
