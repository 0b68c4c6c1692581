//! Live sessions of the gateway, over WebSocket and server-sent events, and the hub that feeds them.
//!
//! Contains: sessions (one actor per connection), the rights to topics, the replay of a user's own stream without gap
//! or duplicate, the eviction of clients that do not read. Does not contain: the notifications and their texts
//! (notifications), accounts and tokens (users; asked again whenever a session's rights may have changed), SQL.
//!
//! Data flows one way: the `Feed` of the notifications domain → the [`Hub`]'s one task → each session's bounded mailbox
//! → the connection. One task and first-in-first-out mailboxes give all subscribers of a topic the same order.
//!
//! A client that does not read costs at most [`LiveSettings::queued_bytes_max`] of shared frames in its session's
//! mailbox, the same again on the way to the socket, and one page of missed notifications; then it is closed.

mod close_cause;
mod domain_calls;
mod error;
mod frame_limiter;
mod frames;
mod hub;
mod kill_switch;
mod message;
mod registry;
mod session;
mod settings;
mod sse;
mod token_bucket;
mod topic;
mod websocket;

pub use domain_calls::Principal;
pub use error::LiveError;
pub use hub::Hub;
pub use kill_switch::KillSwitch;
pub use settings::LiveSettings;
pub use sse::{EventsQuery, start_sse};
pub use websocket::start_websocket;

#[cfg(test)]
mod tests;
