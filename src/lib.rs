//! Mercat: a shop's whole backend in one binary.
//!
//! The map: a request flows one way, `web` → [`messaging`] → a domain's actor → its [`store`] → reply; news flows
//! back as [`events`]. Each domain is one closed room whose only door is its messages. [`app`] puts one process
//! together and is the only place that knows which domain is where.

pub mod app;
pub mod backup;
pub mod cli;
pub mod consistency_check;
pub mod contract;
pub mod demo;
pub mod domains;
pub mod events;
#[cfg(feature = "test-hooks")]
pub mod fault_injection;
pub mod histogram;
pub mod messaging;
mod outgoing_http;
pub mod runtime;
pub mod settings;
pub mod store;
pub mod tasks;
#[cfg(test)]
mod two_process_tests;
pub mod types;
pub mod web;
