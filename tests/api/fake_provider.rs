//! A payment provider outside the shop, with a ledger that no crash of the shop affects, and a crash of the process
//! after a chosen number of commits. Both are installed for the current thread: a shop that is opened meanwhile uses
//! the provider, and runs all its domains on this thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mercat::domains::payments::{
    self, Charge, ChargeOutcome, ChargeStatus, PaymentProvider, ProviderEvent, ProviderEventKind, RefundOutcome,
    RefundRequest, WebhookError,
};
use mercat::fault_injection::{self, FaultInjector, InjectedFault, InjectionPoint};
use mercat::settings::Settings;
use mercat::types::{Amount, Clock, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::TestShop;

/// Signature of the webhook events of this provider.
pub const WEBHOOK_SECRET: &str = "the signature of the fake provider";

/// Fault on the network between shop and provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkFault {
    /// Calls are carried out and answered.
    #[default]
    None,
    /// Calls are carried out; their responses are lost.
    ResponseLost,
    /// Calls do not arrive.
    Unreachable,
}

/// Entries of the provider, and how it is to behave.
#[derive(Default)]
pub struct Ledger {
    /// Captures by idempotency key: invoice and amount.
    pub captures: BTreeMap<String, (String, Amount)>,
    /// Refunds by idempotency key: key of the capture and amount.
    pub refunds: BTreeMap<String, (String, Amount)>,
    /// Keys that were looked up before any charge; a later charge under them fails.
    failed_keys: BTreeSet<String>,
    /// Keys that were looked up, in order.
    pub lookups: Vec<String>,
    pub network: NetworkFault,
    /// Whether the response to the next charge is held until `release_responses`.
    pub hold_next_response: bool,
    held_responses: BTreeSet<String>,
    /// Commits after which the process crashes; `None` for failed_keys.
    crash_after: Option<usize>,
    /// Commits so far.
    pub commits: usize,
    is_crashed: bool,
}

/// Payment provider and fault injector of one shop. Clones share their state.
#[derive(Clone, Default)]
pub struct FakeProvider(Arc<Mutex<Ledger>>, Arc<Notify>);

impl FakeProvider {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock()
    }

    /// Opens a shop that uses this provider. All its domains run on this thread.
    pub async fn open_shop_in(&self, dir: TempDir, clock: Clock, change: impl FnOnce(&mut Settings)) -> TestShop {
        fault_injection::install(Some(Arc::new(self.clone())));
        let provider = self.clone();
        payments::set_test_provider(Some(Arc::new(move || Box::new(provider.clone()))));
        let shop = TestShop::open_in(dir, clock, change).await;
        fault_injection::install(None);
        payments::set_test_provider(None);
        shop
    }

    pub async fn open_shop(&self) -> TestShop {
        self.open_shop_in(tempfile::tempdir().unwrap(), Clock::system(), |_| {}).await
    }

    /// Crashes the process after this many commits, counted from now; `None` for failed_keys.
    pub fn crash_after(&self, commits: Option<usize>) {
        let mut ledger = self.ledger();
        (ledger.crash_after, ledger.commits, ledger.is_crashed) = (commits, 0, false);
    }

    /// Waits until the process has crashed.
    pub async fn crashed(&self) {
        self.1.notified().await;
    }

    /// Key and amount of the only capture for an invoice.
    pub fn capture_of(&self, invoice: &str) -> (String, Amount) {
        let ledger = self.ledger();
        let mut captures = ledger.captures.iter().filter(|(_, (of, _))| of == invoice);
        let (key, (_, amount)) = captures.next().unwrap_or_else(|| panic!("{invoice} was never charged"));
        assert!(captures.next().is_none(), "{invoice} was charged twice");
        (key.clone(), *amount)
    }

    /// Amount captured for an invoice, less refunds.
    pub fn balance_of(&self, invoice: &str) -> Amount {
        let ledger = self.ledger();
        let captures = ledger.captures.iter().filter(|(_, (of, _))| of == invoice);
        captures
            .map(|(key, (_, taken))| {
                let back: Amount = ledger.refunds.values().filter(|(of, _)| of == key).map(|(_, amount)| amount).sum();
                taken - back
            })
            .sum()
    }

    /// Number of captures and of refunds.
    pub fn entry_counts(&self) -> (usize, usize) {
        let ledger = self.ledger();
        (ledger.captures.len(), ledger.refunds.len())
    }

    /// Sends the responses that were held_responses.
    pub fn release_responses(&self) {
        self.ledger().held_responses.clear();
    }

    /// Waits until an invoice has been charged; returns the idempotency key.
    pub async fn wait_for_capture(&self, invoice: &str) -> String {
        loop {
            let found = self.ledger().captures.iter().find(|(_, (of, _))| of == invoice).map(|(key, _)| key.clone());
            match found {
                Some(key) => return key,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Webhook event about the capture for an invoice.
    pub fn webhook_event(&self, name: &str, invoice: &str) -> Value {
        let (key, amount) = self.capture_of(invoice);
        json!({ "id": name, "charge": key, "amount": amount, "currency": "EUR" })
    }
}

impl PaymentProvider for FakeProvider {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(async move {
            let key = charge.key;
            {
                let mut ledger = self.ledger();
                if ledger.network == NetworkFault::Unreachable {
                    return ChargeOutcome::Unknown;
                }
                if charge.token == "tok_declined" {
                    return ChargeOutcome::Declined;
                }
                if ledger.failed_keys.contains(&key) {
                    return ChargeOutcome::Failed;
                }
                ledger.captures.entry(key.clone()).or_insert((charge.invoice.to_string(), charge.amount));
                if std::mem::take(&mut ledger.hold_next_response) {
                    ledger.held_responses.insert(key.clone());
                }
            }
            while self.ledger().held_responses.contains(&key) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if self.ledger().network == NetworkFault::ResponseLost {
                ChargeOutcome::Unknown
            } else {
                ChargeOutcome::Captured
            }
        })
    }

    fn refund(&self, refund: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(async move {
            let mut ledger = self.ledger();
            if ledger.network == NetworkFault::Unreachable {
                return RefundOutcome::Unknown;
            }
            if !ledger.refunds.contains_key(&refund.key) {
                let captured = ledger.captures.get(&refund.charge).map_or(0, |(_, amount)| *amount);
                let refunded: Amount =
                    ledger.refunds.values().filter(|(of, _)| *of == refund.charge).map(|(_, amount)| amount).sum();
                // A shop that refunds more than was captured shows in the balance.
                if refunded >= captured {
                    return RefundOutcome::Failed;
                }
                ledger.refunds.insert(refund.key, (refund.charge, refund.amount));
            }
            if ledger.network == NetworkFault::ResponseLost { RefundOutcome::Unknown } else { RefundOutcome::Done }
        })
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(async move {
            let mut ledger = self.ledger();
            ledger.lookups.push(key.clone());
            if ledger.network != NetworkFault::None {
                return ChargeStatus::Unknown;
            }
            if ledger.captures.contains_key(&key) {
                return ChargeStatus::Captured;
            }
            ledger.failed_keys.insert(key);
            ChargeStatus::NotCharged
        })
    }

    fn verify_webhook(&self, body: &str, signature: &str, _: Timestamp) -> Result<ProviderEvent, WebhookError> {
        if signature != WEBHOOK_SECRET {
            return Err(WebhookError::InvalidSignature);
        }
        let event: Value = serde_json::from_str(body).map_err(|_| WebhookError::Malformed)?;
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let kind = ProviderEventKind::Captured {
            charge: text("charge"),
            amount: event["amount"].as_i64().ok_or(WebhookError::Malformed)?,
            currency: text("currency").parse().map_err(|_| WebhookError::Malformed)?,
        };
        Ok(ProviderEvent { id: text("id"), kind })
    }
}

impl FaultInjector for FakeProvider {
    fn inject(&self, step: InjectionPoint) -> (Duration, InjectedFault) {
        let mut ledger = self.ledger();
        if matches!(step, InjectionPoint::Committed(_)) && !ledger.is_crashed {
            ledger.commits += 1;
            if ledger.crash_after.is_some_and(|crash_after| ledger.commits >= crash_after) {
                ledger.is_crashed = true;
                self.1.notify_one();
            }
        }
        (Duration::ZERO, InjectedFault::None)
    }

    fn is_stopped(&self) -> bool {
        self.ledger().is_crashed
    }

    fn new_id(&self) -> uuid::Uuid {
        uuid::Uuid::now_v7()
    }
}
