//! The business domains. Each is an actor with a database of its own; the others reach it by the messages in
//! [`crate::contract`] only.
//!
//! A domain folder has `mod.rs` (scope, subscriptions, `open`), `actor.rs` (one handler per message), `store.rs` (the only
//! SQL), `model.rs` (pure rules), `schema.rs` (its tables) and `tests.rs`. No domain imports another's store or model.

pub mod cart;
pub mod catalog;
pub mod comments;
pub mod mailer;
pub mod notifications;
pub mod payments;
pub mod stats;
pub mod users;
