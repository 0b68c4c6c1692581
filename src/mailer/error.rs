//! What can go wrong with mail, in its own words.

use serde::{Deserialize, Serialize};

use crate::messaging::{DomainError, ErrorKind, Failure};
use crate::types::FieldError;

/// An error of the mailer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum MailerError {
    /// No such mail.
    #[error("there is no such e-mail")]
    EmailNotFound,
    /// One person would get too many.
    #[error("this recipient has had {max} e-mails within the hour; try again in {retry_after} seconds")]
    RecipientLimit {
        /// How many an hour.
        max: u32,
        /// Seconds until one more is taken.
        retry_after: u64,
    },
    /// Only people who have an account may get mail.
    #[error("no user has this e-mail address, and this shop writes to its users only")]
    UnknownRecipient,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Failure(#[from] Failure),
}

crate::failures_become!(MailerError);

impl DomainError for MailerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::EmailNotFound => ErrorKind::NotFound,
            Self::RecipientLimit { .. } => ErrorKind::TooMany,
            Self::UnknownRecipient => ErrorKind::Forbidden,
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
