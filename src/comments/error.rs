//! What can go wrong with comments, in their own words.

use serde::{Deserialize, Serialize};

use crate::messaging::{DomainError, ErrorKind, Failure};
use crate::types::FieldError;

/// An error of the comments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CommentsError {
    /// No such product.
    #[error("there is no such product")]
    ProductNotFound,
    /// No such comment on this product, or not the caller's.
    #[error("there is no such comment of yours")]
    CommentNotFound,
    /// One comment a customer and product.
    #[error("you have commented on this product already; delete that comment first")]
    AlreadyCommented,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Failure(#[from] Failure),
}

crate::failures_become!(CommentsError);

impl DomainError for CommentsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ProductNotFound | Self::CommentNotFound => ErrorKind::NotFound,
            Self::AlreadyCommented => ErrorKind::Conflict,
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
