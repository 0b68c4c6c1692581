//! What can go wrong with notifications, in their own words.

use serde::{Deserialize, Serialize};

use crate::messaging::{DomainError, ErrorKind, Failure};
use crate::types::FieldError;

/// An error of the notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum NotificationsError {
    /// No such notification of the caller's.
    #[error("there is no such notification of yours")]
    NotificationNotFound,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Failure(#[from] Failure),
}

crate::failures_become!(NotificationsError);

impl DomainError for NotificationsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotificationNotFound => ErrorKind::NotFound,
            Self::Failure(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Failure(failure) => failure.fields(),
            _ => &[],
        }
    }
}
