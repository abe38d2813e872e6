//! The integration tests: one file for each promise, all in one binary.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod common;

mod admin_api;
mod architecture;
mod auth;
mod backpressure;
mod bad_input;
mod client_library;
mod clients_in_trouble;
mod command_line;
mod command_lists;
mod commands_under_load;
mod configuration;
mod ctl;
mod differential;
mod fencing;
mod grammar;
mod handover_faults;
mod handovers;
mod harness;
mod held_up;
mod learnt_commands;
mod listeners;
mod listening;
mod log;
mod log_messages;
mod log_text;
mod outages;
mod page;
mod panics;
mod pausing;
mod pipelines;
mod probe;
mod pubsub;
mod random_programs;
mod raw_listener;
mod reloads;
mod replicas;
mod replicate_from;
mod resp_replies;
mod resp_requests;
mod scripts;
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
mod value_lengths;
mod withdrawn;
