//! The whole shop from outside: the real binary, asked over HTTP and WebSocket and by a real browser, and killed.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod browser;
mod crash;
mod multi_process;
mod purchase;
mod relocation;
#[path = "../common/mod.rs"]
mod run;
mod server_outages;
mod support;
mod topology;
