//! The gateway from outside: a whole shop on a free port, asked as the world asks it.
#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

mod bank;
mod bare;
mod crowds;
mod deaths;
mod every_route;
mod figures;
mod live;
mod money;
mod panics;
mod provider;
mod replays;
mod rights;
#[path = "../common/mod.rs"]
mod run;
mod sessions;
mod support;
mod topology;
mod walk;
mod wrong;
