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
    /// The buyer's bank wants to hear from the buyer first. The invoice is still open.
    #[error("the card's bank asks its owner to confirm payments, which this shop cannot do; try another card")]
    AuthenticationRequired,
    /// The provider cannot move so much, so little, or this currency. The invoice is still open.
    #[error("the payment provider cannot move this amount in this currency; nothing was moved")]
    AmountRefused,
    /// What is said to come from the provider does not.
    #[error("the signature is not the provider's for this body, or it is too old")]
    BadSignature,
    /// What comes from the provider cannot be read.
    #[error("the message is signed, but it cannot be read")]
    UnreadableNews,
    /// The provider of this shop tells nothing by itself, or has no secret to sign with.
    #[error("this shop hears of no provider here: it takes no messages without payments.stripe_webhook_secrets")]
    NoWebhooks,
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
            Self::InvoiceNotFound | Self::NoWebhooks => ErrorKind::NotFound,
            Self::CardDeclined | Self::AuthenticationRequired => ErrorKind::PaymentRequired,
            Self::UnknownToken | Self::AmountRefused => ErrorKind::Invalid,
            Self::BadSignature | Self::UnreadableNews => ErrorKind::Malformed,
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
