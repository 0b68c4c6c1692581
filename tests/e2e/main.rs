//! The real binary from outside: over HTTP and WebSocket, in a browser, in several processes, killed and restarted.
//!
//! Does not contain: single endpoints (`tests/api`), commands and their output (`tests/cli`).
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod browser;
#[path = "../common/mod.rs"]
mod common;
mod crash;
mod multi_process;
mod purchase;
mod relocation;
mod server_outages;
mod support;
mod topology;
