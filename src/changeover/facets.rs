//! What a session carries, as bits that the roster keeps.

/// A transaction is open.
pub const TRANSACTION: u32 = 1;
/// Keys are watched.
pub const WATCHING: u32 = 1 << 1;
/// A command waits for data.
pub const BLOCKED: u32 = 1 << 2;
/// There are subscriptions.
pub const SUBSCRIBED: u32 = 1 << 3;
/// Client-side caching is on.
pub const TRACKING: u32 = 1 << 4;
/// MONITOR.
pub const MONITOR: u32 = 1 << 5;
/// CLIENT REPLY OFF.
pub const SILENT: u32 = 1 << 6;
/// There is something that can only be done while nothing is in flight.
pub const CUTOVER: u32 = 1 << 7;
/// Invalidations go to another connection, which must be there before.
pub const REDIRECTS: u32 = 1 << 8;
/// A key was touched that is watched, and the present uplink does not know it.
pub const TOUCHED: u32 = 1 << 9;
/// The client listens: it is told when clients are held, and when not any more.
pub const LISTENS: u32 = 1 << 10;
