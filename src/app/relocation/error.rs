//! What can go wrong when a domain is moved.

use serde::{Deserialize, Serialize};

use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::FieldError;

/// Why a domain was not moved. Unless it says otherwise, it is where it was and goes on there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PlacementError {
    /// No such domain.
    #[error("there is no such domain")]
    DomainNotFound,
    /// Something is in the way.
    #[error("{reason}")]
    CannotMove {
        /// What, and what to do about it.
        reason: String,
    },
    /// One at a time.
    #[error("another domain is being moved; ask again when that is done")]
    MoveInProgress,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(PlacementError);
crate::impl_from_storage_error!(PlacementError);

impl PlacementError {
    /// Says what is in the way.
    pub fn because(reason: impl Into<String>) -> Self {
        Self::CannotMove { reason: reason.into() }
    }
}

impl DomainError for PlacementError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::DomainNotFound => ErrorKind::NotFound,
            Self::CannotMove { .. } | Self::MoveInProgress => ErrorKind::Conflict,
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
