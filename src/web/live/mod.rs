//! SessionMessage: the open sockets of the gateway, WebSocket and server-sent events, and the hub that feeds them.
//!
//! Lives here: sessions (one actor a connection), which topics each may hear, the catching up of a user's own stream
//! without gap or duplicate, the dropping of readers that do not read. Never enters: what is told and in which words
//! (Notifications), who somebody is (Users; asked again whenever it may have changed), SQL.
//!
//! One way: the notifications domain's `Feed` → the [`Hub`]'s one task → each session's bounded mailbox → the wire.
//! One task and first-in-first-out mailboxes are why all subscribers of a topic see one order.
//!
//! What a listener that does not read costs: at most [`LiveSettings::queued_bytes_max`] of shared frames in its
//! mailbox, once more as much on its way to the socket, and one page of what it missed; then it is closed.

mod frame_limiter;
mod frames;
mod hub;
mod kill_switch;
mod origin;
mod session;
mod sse;
mod topic;
mod websocket;

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::FieldError;

pub use hub::{Hub, LiveSettings, Principal};
pub use kill_switch::{KillSwitch, on_connect};
pub use origin::origin_allowed;
pub use sse::{EventsQuery, start_sse};
pub use websocket::start_websocket;

/// Why a connection is not made live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum LiveError {
    /// A page of another site asks.
    #[error("a page of another site may not listen here")]
    ForeignOrigin,
    /// As many listen as may.
    #[error("too many listen at this moment; try again later")]
    TooManySockets,
    /// It asks for no WebSocket.
    #[error("this address speaks WebSocket (version 13) only; for server-sent events ask /api/v1/events")]
    NotAWebSocket,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

impl DomainError for LiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ForeignOrigin => ErrorKind::Forbidden,
            Self::TooManySockets => ErrorKind::Unavailable,
            Self::NotAWebSocket => ErrorKind::Malformed,
            Self::Common(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(failure) => failure.fields(),
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests;
