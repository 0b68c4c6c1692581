//! Mercat: a shop's whole backend in one binary.
//!
//! The map: a request flows one way, `web` → [`messaging`] → a domain's actor → its [`store`] → reply; news flows
//! back as [`events`]. Each domain is one closed room whose only door is its messages. [`app`] puts one process
//! together and is the only place that knows which domain is where.

pub mod app;
pub mod backup;
pub mod check;
pub mod cli;
pub mod contract;
pub mod demo;
pub mod domains;
pub mod events;
pub mod ground;
pub mod messaging;
pub mod meters;
pub mod settings;
#[cfg(feature = "test-hooks")]
pub mod simulation;
pub mod store;
#[cfg(test)]
mod twins;
pub mod types;
pub mod web;
