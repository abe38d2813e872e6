//! The integration tests: one file for each promise, all in one binary.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

mod admin_api;
mod architecture;
mod auth;
mod backpressure;
mod bad_input;
mod client_library;
mod command_line;
mod commands_under_load;
mod configuration;
mod ctl;
mod fencing;
mod handover_faults;
mod handovers;
mod listeners;
mod log_messages;
mod page;
mod pausing;
mod pipelines;
mod probe;
mod pubsub;
mod random_programs;
mod raw_listener;
mod reloads;
mod replicate_from;
mod resp_replies;
mod resp_requests;
mod stop;
mod switch_faults;
mod switch_outlook;
mod switch_settings;
mod switch_users;
mod switches;
mod systemd;
mod time_limits;
mod tls;
mod uplinks;
