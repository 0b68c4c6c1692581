//! The HTTP API from outside: a whole shop in this process, on a free port, with databases of its own.
//!
//! Contains: what clients of the API rely on, and the numbered guarantees of payments, stock, carts and HTTP. Does not
//! contain: the command line (`tests/cli`), real processes and crashes of the binary (`tests/e2e`).
#![allow(clippy::unwrap_used, reason = "a test stops at the first unexpected value")]

mod addresses;
mod audit_log;
mod authorization;
#[path = "../common/mod.rs"]
mod common;
mod concurrency;
mod conditional_requests;
mod cross_origin;
mod disabled_domains;
mod fake_provider;
mod fuzzing;
mod handler_panics;
mod idempotency;
mod idempotency_all_routes;
mod invalid_requests;
mod live;
mod metrics;
mod mutation;
mod payment_provider;
mod process_death;
mod purchase;
mod rate_limits;
mod raw_http;
mod refunds_and_webhooks;
mod sessions;
mod stock_denial;
mod support;
mod tax_and_addresses;
mod topology;
