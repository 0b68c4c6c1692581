//! The interface of a payment provider.
//!
//! A provider is an implementation of [`PaymentProvider`] with a folder of its own, such as [`super::stripe`] and
//! [`super::test_provider`]; no other module of this domain depends on one.
//! Does not contain: the state of an invoice, permission to pay it, events.

use futures_util::future::BoxFuture;

use super::DisputeStatus;
use crate::types::{Amount, Currency, InvoiceId, Timestamp};

/// A request to capture money.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Idempotency key of the payment attempt, unique among all charges.
    pub key: String,
    /// Invoice to pay, for the provider's records.
    pub invoice: InvoiceId,
    /// Amount to capture, in minor units of `currency`.
    pub amount: Amount,
    /// Currency of the amount.
    pub currency: Currency,
    /// Payment token that the provider issued to the buyer's browser. Must be neither stored nor logged.
    pub token: String,
}

/// A request to refund captured money.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    /// Idempotency key of the refund, unique among all refunds.
    pub key: String,
    /// Key of the charge to refund.
    pub charge: String,
    /// Amount to refund, in minor units of `currency`.
    pub amount: Amount,
    /// Currency of the amount.
    pub currency: Currency,
}

/// Result of a charge. All but `Captured` and `Unknown` are definitive failures: no money was or will be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeOutcome {
    /// The money is captured.
    Captured,
    /// The bank declined the card.
    Declined,
    /// The bank requires the buyer's confirmation (3-D Secure); the charge is cancelled.
    AuthenticationRequired,
    /// The provider did not issue the token, or it was used before.
    UnknownToken,
    /// The provider does not accept the amount or the currency.
    AmountRefused,
    /// The provider failed.
    Failed,
    /// The provider did not answer, so the outcome is unknown. [`PaymentProvider::lookup`] resolves it.
    Unknown,
}

/// Result of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundOutcome {
    /// The money is refunded.
    Done,
    /// A definitive failure.
    Failed,
    /// A definitive failure: the provider cannot refund so small or so large an amount.
    AmountRefused,
    /// The provider accepted the refund, and the bank has not confirmed it yet. A retry with the same key resolves it.
    Pending,
    /// The provider did not answer. A retry with the same key resolves it.
    Unknown,
}

/// State of a charge at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeStatus {
    /// The money is captured.
    Captured,
    /// No money was captured, and none ever will be under this key.
    NotCharged,
    /// The provider did not answer. A later lookup resolves it.
    Unknown,
}

/// A webhook event of the provider, with a verified signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEvent {
    /// Id that the provider gave the event; a redelivery carries the same one.
    pub id: String,
    /// Kind of the event, with its data.
    pub kind: ProviderEventKind,
}

/// Kind of a webhook event, with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderEventKind {
    /// The money of a charge is captured.
    Captured {
        /// Key of the charge.
        charge: String,
        /// Captured amount, in minor units of `currency`.
        amount: Amount,
        /// Currency of the amount.
        currency: Currency,
    },
    /// A refund is done.
    Refunded {
        /// Key of the refund.
        refund: String,
    },
    /// Refunds of a charge changed, perhaps one that was not requested through the shop.
    RefundsChanged {
        /// The provider's own id of the charge.
        provider_charge: String,
    },
    /// The buyer's bank demands a payment back, or decided about it.
    Disputed(ProviderDispute),
    /// A charge or a refund changed; the provider has to be queried for its state.
    Changed {
        /// Key of the charge or the refund.
        key: String,
    },
    /// An event that does not concern the shop.
    Irrelevant,
}

/// Dispute of a charge, as the provider reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderDispute {
    /// The provider's own id of the charge.
    pub provider_charge: String,
    /// State of the dispute.
    pub status: DisputeStatus,
    /// Disputed amount, in minor units of the charge's currency.
    pub amount: Amount,
    /// The bank's reason, in the provider's words.
    pub reason: String,
    /// Time by which evidence must be submitted.
    pub respond_by: Option<Timestamp>,
}

/// A completed refund that was made at the provider and not through the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderRefund {
    /// The provider's own id of the refund.
    pub id: String,
    /// Refunded amount, in minor units of the charge's currency.
    pub amount: Amount,
}

/// The provider did not answer a query, or its answer was malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProviderUnavailable;

/// Reason for rejecting a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookError {
    /// The provider has no webhooks, or no secret for them is configured.
    Unsupported,
    /// The signature is invalid or too old.
    InvalidSignature,
    /// The signature is valid, but the body is malformed.
    Malformed,
}

/// A service that captures and refunds money.
///
/// `capture`, `refund` and `lookup` are idempotent by key: a repeated call with the same key moves no money and
/// returns the first result. Each of them ends within a time limit of its own, with `Unknown` if need be.
pub trait PaymentProvider: Send + Sync + 'static {
    /// Captures money.
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome>;

    /// Refunds captured money.
    fn refund(&self, request: RefundRequest) -> BoxFuture<'_, RefundOutcome>;

    /// Looks up the state of the charge with this key. [`ChargeStatus::NotCharged`] is a promise that no money will be
    /// captured later either: a provider whose request may still be in flight cancels it first, or returns `Unknown`.
    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus>;

    /// Returns the key of the charge with this id of the provider; `None` if the shop did not make it.
    fn find_charge(&self, _provider_charge: String) -> BoxFuture<'_, Result<Option<String>, ProviderUnavailable>> {
        Box::pin(async { Ok(None) })
    }

    /// Lists the completed refunds of a charge that were not requested through the shop.
    fn list_foreign_refunds(
        &self,
        _provider_charge: String,
    ) -> BoxFuture<'_, Result<Vec<ProviderRefund>, ProviderUnavailable>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Verifies and parses a webhook.
    ///
    /// # Errors
    /// If the provider has no webhooks, the signature is invalid or the body is malformed.
    fn verify_webhook(&self, _body: &str, _signature: &str, _now: Timestamp) -> Result<ProviderEvent, WebhookError> {
        Err(WebhookError::Unsupported)
    }
}
