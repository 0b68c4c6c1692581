//! What can go wrong with money, in its own words.

use serde::{Deserialize, Serialize};

use crate::messaging::{DomainError, ErrorKind, Failure};
use crate::types::{Amount, FieldError};

/// An error of payments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PaymentsError {
    /// No such invoice, or not for the caller.
    #[error("there is no such invoice")]
    InvoiceNotFound,
    /// The provider says no. The invoice is still open.
    #[error("the card was declined; the invoice is still open, try another card")]
    CardDeclined,
    /// The provider does not know the token. The invoice is still open.
    #[error("the payment token is not one the provider knows; nothing was charged")]
    UnknownToken,
    /// It was paid before.
    #[error("this invoice is paid already")]
    AlreadyPaid,
    /// It ran out.
    #[error("this invoice has expired and cannot be paid; check out again")]
    InvoiceExpired,
    /// It was taken back.
    #[error("this invoice was voided and cannot be paid")]
    InvoiceVoid,
    /// A payment of it is under way.
    #[error("a payment of this invoice is under way; look at the invoice in a moment")]
    PaymentInProgress,
    /// Only a paid invoice can be refunded.
    #[error("only a paid invoice can be refunded")]
    NotPaid,
    /// Only an open invoice can be voided.
    #[error("only an open invoice can be voided; refund a paid one")]
    NotOpen,
    /// More than is left of what was taken.
    #[error("at most {left} (minor units) of this invoice can still be refunded")]
    RefundTooLarge {
        /// How much is left, in minor units.
        left: Amount,
    },
    /// The provider failed. It is safe to try again.
    #[error("the payment provider failed; nothing is lost, it is safe to try again")]
    ProviderFailed,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Failure(#[from] Failure),
}

crate::failures_become!(PaymentsError);

impl DomainError for PaymentsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvoiceNotFound => ErrorKind::NotFound,
            Self::CardDeclined => ErrorKind::PaymentRequired,
            Self::UnknownToken => ErrorKind::Invalid,
            Self::AlreadyPaid
            | Self::InvoiceExpired
            | Self::InvoiceVoid
            | Self::PaymentInProgress
            | Self::NotPaid
            | Self::NotOpen
            | Self::RefundTooLarge { .. } => ErrorKind::Conflict,
            Self::ProviderFailed => ErrorKind::Upstream,
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
