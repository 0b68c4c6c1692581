//! Who takes the money: what a provider must be able to do, and the built-in one for trying out.
//!
//! A new provider is another implementation of [`PaymentProvider`], as [`super::stripe`] is; nothing else here knows
//! one.
//! Never enters: the state of an invoice, who may pay it, events.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::store;
use crate::messaging::CommonError;
use crate::store::{LockSet, Store};
use crate::types::{Amount, Currency, InvoiceId, Timestamp};

/// How long `tok_slow` takes.
const SLOW: Duration = Duration::from_secs(3);

/// Money to be taken.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Our name for this try, never used for another.
    pub key: String,
    /// What it is for, as the provider will show it in its books.
    pub invoice: InvoiceId,
    /// How much, in minor units.
    pub amount: Amount,
    /// Of the amount.
    pub currency: Currency,
    /// What the provider gave the buyer's browser for the card. Never kept, never logged.
    pub token: String,
}

/// Money to be given back.
#[derive(Debug, Clone)]
pub struct RefundRequest {
    /// Our name for this try, never used for another.
    pub key: String,
    /// The key of the charge it comes from.
    pub charge: String,
    /// How much, in minor units.
    pub amount: Amount,
    /// Of the amount.
    pub currency: Currency,
}

/// What became of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeOutcome {
    /// The money is ours.
    Captured,
    /// The card's bank says no. Certainly not done.
    Declined,
    /// The card's bank wants to hear from the buyer first (3-D Secure). Certainly not done, and given up.
    NeedsBuyer,
    /// The token is none of the provider's. Certainly not done.
    UnknownToken,
    /// The provider does not take so much, so little, or this currency. Certainly not done.
    AmountRefused,
    /// The provider failed. Certainly not done.
    Failed,
    /// No answer came: nobody here knows. Ask [`PaymentProvider::lookup`].
    Unknown,
}

/// What became of a return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundOutcome {
    /// The money went back.
    Done,
    /// Certainly not done.
    Failed,
    /// The provider cannot give back so much or so little. Certainly not done.
    AmountRefused,
    /// No answer came, or it is still on its way: ask again with the same key.
    Unknown,
}

/// What the provider knows of a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeStatus {
    /// The money is ours.
    Captured,
    /// It was not taken, and under this key never will be.
    NotCharged,
    /// No answer came: ask again later.
    Unknown,
}

/// What a provider told the shop by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderEvent {
    /// Its name for this piece of news; told twice, it is one.
    pub id: String,
    /// What it says.
    pub about: ProviderEventKind,
}

/// What a piece of news says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderEventKind {
    /// The money of the charge under this key is ours.
    Captured {
        /// The key of the charge.
        charge: String,
        /// How much, in minor units.
        amount: Amount,
        /// Of the amount.
        currency: Currency,
    },
    /// The money of the return under this key went back.
    RefundOutcome {
        /// The key of the return.
        back: String,
    },
    /// Something happened to the charge or the return under this key: ask what.
    Changed {
        /// The key.
        key: String,
    },
    /// An event that does not concern the shop.
    Irrelevant,
}

/// Why news is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookError {
    /// This provider tells nothing by itself.
    WebhooksUnsupported,
    /// It is not signed by the provider, or too long ago.
    NotSigned,
    /// It is signed and cannot be read.
    Unreadable,
}

/// Somebody who takes and returns money.
///
/// The first three are idempotent by key: asked again with the same key, the provider does nothing more and answers as at
/// first. Each ends in its own time limit with `Unknown` rather than never.
pub trait PaymentProvider: Send + Sync + 'static {
    /// Takes money.
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome>;

    /// Gives money back.
    fn refund(&self, back: RefundRequest) -> BoxFuture<'_, RefundOutcome>;

    /// Says what became of the charge under this key. `ChargeStatus::NotCharged` is a promise that it will not be done later
    /// either: a provider whose request may still be on its way cancels it first, or answers `Unknown`.
    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus>;

    /// Reads what the provider told by itself, as it came, if its signature shows that it did.
    fn read_news(&self, _body: &str, _signature: &str, _now: Timestamp) -> Result<ProviderEvent, WebhookError> {
        Err(WebhookError::WebhooksUnsupported)
    }
}

/// Takes no real money. Its books are a table of their own, so that it remembers across a crash like a real one.
pub struct TestProvider {
    store: Store,
}

impl TestProvider {
    /// A provider that keeps its books in `store`.
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    async fn take(&self, charge: Charge) -> ChargeOutcome {
        let touch = LockSet::key("book", &charge.key);
        match self
            .store
            .write_locked(touch, move |tx| Ok::<_, CommonError>(store::book_capture(tx.conn, &charge, tx.now)?))
            .await
        {
            Ok(true) => ChargeOutcome::Captured,
            Ok(false) => ChargeOutcome::Failed,
            Err(failure) => {
                log::warn!("payments: the test provider's book cannot be written: {failure}");
                ChargeOutcome::Unknown
            }
        }
    }
}

impl PaymentProvider for TestProvider {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(async move {
            match charge.token.as_str() {
                "tok_ok" => self.take(charge).await,
                "tok_declined" => ChargeOutcome::Declined,
                "tok_error" => ChargeOutcome::Failed,
                "tok_slow" => {
                    // The money moves in the middle, so that a crash may fall on either side of it.
                    tokio::time::sleep(SLOW / 2).await;
                    let charged = self.take(charge).await;
                    tokio::time::sleep(SLOW / 2).await;
                    charged
                }
                "tok_flaky" => {
                    // Once for each invoice, not for each key: a repetition is a new try with a new key.
                    let invoice = charge.invoice;
                    let failed = self
                        .store
                        .write(move |tx| Ok::<_, CommonError>(store::book_failure(tx.conn, invoice, tx.now)?));
                    match failed.await {
                        Ok(true) | Err(_) => ChargeOutcome::Failed,
                        Ok(false) => self.take(charge).await,
                    }
                }
                _ => ChargeOutcome::UnknownToken,
            }
        })
    }

    fn refund(&self, back: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(async move {
            match self.store.write(move |tx| Ok::<_, CommonError>(store::book_refund(tx.conn, &back, tx.now)?)).await {
                Ok(true) => RefundOutcome::Done,
                Ok(false) => RefundOutcome::Failed,
                Err(_) => RefundOutcome::Unknown,
            }
        })
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(async move {
            match self.store.write(move |tx| Ok::<_, CommonError>(store::book_settle(tx.conn, &key, tx.now)?)).await {
                Ok(true) => ChargeStatus::Captured,
                Ok(false) => ChargeStatus::NotCharged,
                Err(_) => ChargeStatus::Unknown,
            }
        })
    }
}
