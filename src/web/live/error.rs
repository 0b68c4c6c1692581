//! Errors that keep a connection from becoming a live session.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::FieldError;

/// Error of a connection that does not become a live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum LiveError {
    /// The request comes from a page of another site.
    #[error("a page of another site may not listen here")]
    ForeignOrigin,
    /// The limit of sessions is reached, or the process is stopping.
    #[error("too many listen at this moment; try again later")]
    TooManySockets,
    /// The request is no WebSocket handshake.
    #[error("this address speaks WebSocket (version 13) only; for server-sent events ask /api/v1/events")]
    NotAWebSocket,
    /// An error that any request can have.
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
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
