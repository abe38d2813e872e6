//! What one connection carries and awaits, by the bytes that pass: no runtime, no socket.
//!
//! - `state`: what the connection carries; `effect`: what a request changes of that
//! - `tracking`, `fieldsets`: of that, what CLIENT TRACKING and HIMPORT ask for
//! - `requested`: what the client has asked for, ahead of the replies
//! - `transaction`: what the client has sent since MULTI; `queue`: what the server has queued
//! - `pending`: the replies that are owed, in order; `expected`: what the next one means
//! - `replay`: what a fresh uplink must be told
//! - `frame_filter`: where the one uplink's messages end and the other's begin
//! - `auth`: AUTH and HELLO; `name`: of a command

pub mod auth;
pub mod effect;
pub mod expected;
pub mod fieldsets;
pub mod frame_filter;
pub mod name;
pub mod pending;
pub mod queue;
pub mod replay;
pub mod requested;
pub mod state;
pub mod tracking;
pub mod transaction;
