//! The provider `test`, for development and tests. It moves no real money.
//!
//! Its ledger is a table in the database of payments, so that it remembers across a crash as a real provider does.
//! The payment token selects the outcome: `tok_ok`, `tok_declined`, `tok_error`, `tok_slow`, `tok_flaky`.

mod store;

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::provider::{Charge, ChargeOutcome, ChargeStatus, PaymentProvider, RefundOutcome, RefundRequest};
use crate::messaging::CommonError;
use crate::store::{LockSet, Store};

/// Duration of a charge with `tok_slow`.
const SLOW_CHARGE_DURATION: Duration = Duration::from_secs(3);

/// A provider that records charges and refunds in its own ledger.
pub struct TestProvider {
    store: Store,
}

impl TestProvider {
    /// Creates a provider with its ledger in `store`.
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    async fn record_capture(&self, charge: Charge) -> ChargeOutcome {
        let locks = LockSet::key("test_ledger", &charge.key);
        let recorded = self
            .store
            .write_locked(locks, move |tx| Ok::<_, CommonError>(store::capture(tx.conn, &charge, tx.now)?))
            .await;
        match recorded {
            Ok(true) => ChargeOutcome::Captured,
            Ok(false) => ChargeOutcome::Failed,
            Err(error) => {
                log::warn!("payments: test provider ledger write failed: {error}");
                ChargeOutcome::Unknown
            }
        }
    }
}

impl PaymentProvider for TestProvider {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(async move {
            match charge.token.as_str() {
                "tok_ok" => self.record_capture(charge).await,
                "tok_declined" => ChargeOutcome::Declined,
                "tok_error" => ChargeOutcome::Failed,
                "tok_slow" => {
                    // The capture is in the middle, so that a crash can happen before and after it.
                    tokio::time::sleep(SLOW_CHARGE_DURATION / 2).await;
                    let outcome = self.record_capture(charge).await;
                    tokio::time::sleep(SLOW_CHARGE_DURATION / 2).await;
                    outcome
                }
                "tok_flaky" => {
                    // Fails once per invoice, not once per key: a retry is a new attempt with a new key.
                    let invoice = charge.invoice;
                    let is_first = self
                        .store
                        .write(move |tx| Ok::<_, CommonError>(store::record_failure(tx.conn, invoice, tx.now)?));
                    match is_first.await {
                        Ok(true) | Err(_) => ChargeOutcome::Failed,
                        Ok(false) => self.record_capture(charge).await,
                    }
                }
                _ => ChargeOutcome::UnknownToken,
            }
        })
    }

    fn refund(&self, request: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(async move {
            match self.store.write(move |tx| Ok::<_, CommonError>(store::refund(tx.conn, &request, tx.now)?)).await {
                Ok(true) => RefundOutcome::Done,
                Ok(false) => RefundOutcome::Failed,
                Err(_) => RefundOutcome::Unknown,
            }
        })
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(async move {
            match self.store.write(move |tx| Ok::<_, CommonError>(store::settle(tx.conn, &key, tx.now)?)).await {
                Ok(true) => ChargeStatus::Captured,
                Ok(false) => ChargeStatus::NotCharged,
                Err(_) => ChargeStatus::Unknown,
            }
        })
    }
}
