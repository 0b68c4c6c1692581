//! The messages, errors and events of each domain: serde types and their documentation, and nothing that runs.
//!
//! A name here is on a wire: the same struct is the mailbox message, the gRPC payload, the REST body and the event.
//! New fields are `Option` or `#[serde(default)]`; nothing is renamed or given a new meaning. Does not contain: actors,
//! SQL, HTTP. Imports nothing but `messaging` and `types`.

pub mod cart;
pub mod catalog;
pub mod comments;
pub mod mailer;
pub mod notifications;
pub mod payments;
pub mod stats;
pub mod users;
