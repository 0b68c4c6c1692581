//! Messages, errors and events of each domain: serde types with their documentation.
//!
//! The same struct is the mailbox message, the gRPC payload, the REST body and the event, so every name and field is part
//! of a wire format: new fields are `Option` or `#[serde(default)]`, and nothing is renamed or given another meaning.
//! `tests/contract.rs` keeps the encoding of every message and event in a golden file and reads all former ones.
//!
//! Does not contain: actors, SQL, HTTP, business rules. Imports only `messaging` and `types`.

pub mod cart;
pub mod catalog;
pub mod comments;
pub mod mailer;
pub mod notifications;
pub mod payments;
pub mod placement;
pub mod stats;
pub mod users;
