//! What can go wrong with users, in their own words.

use serde::{Deserialize, Serialize};

use crate::messaging::{DomainError, ErrorKind, Failure};
use crate::types::FieldError;

/// An error of the users domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum UsersError {
    /// No such user.
    #[error("there is no such user")]
    UserNotFound,
    /// Another account has this address.
    #[error("another account has this e-mail address; sign in, or reset its password")]
    EmailTaken,
    /// Address or password is wrong; which one is not said.
    #[error("e-mail or password is wrong")]
    BadCredentials,
    /// The bearer token is none of ours, has ended or was signed out.
    #[error("the token is not valid or has expired; sign in again")]
    InvalidToken,
    /// The mailed token is none of ours, was used or is too old.
    #[error("this link is not valid, was used before or is too old; ask for a new one")]
    InvalidLink,
    /// Somebody must run the shop.
    #[error("the last administrator cannot leave; name another one first")]
    LastAdmin,
    /// No such key.
    #[error("there is no such API key")]
    ApiKeyNotFound,
    /// A user may have only so many keys.
    #[error("there are as many API keys as one user may have; delete one first")]
    TooManyApiKeys,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Failure(#[from] Failure),
}

crate::failures_become!(UsersError);

impl DomainError for UsersError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UserNotFound | Self::ApiKeyNotFound => ErrorKind::NotFound,
            Self::EmailTaken | Self::LastAdmin | Self::TooManyApiKeys => ErrorKind::Conflict,
            Self::BadCredentials | Self::InvalidToken => ErrorKind::Unauthenticated,
            Self::InvalidLink => ErrorKind::Invalid,
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
