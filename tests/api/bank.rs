//! A bank outside the shop, with books of its own that no crash of the shop touches, and the hand that ends the
//! process after a durable step. Both come in by the laboratory's door: whoever opens a shop while it stands in a world
//! gets that world's bank, and one thread for all domains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mercat::domains::payments::{
    self, Charge, ChargeOutcome, ChargeStatus, PaymentProvider, ProviderEvent, ProviderEventKind, RefundOutcome,
    RefundRequest, WebhookError,
};
use mercat::fault_injection::{self, FaultInjector, InjectedFault, InjectionPoint};
use mercat::settings::Settings;
use mercat::types::{Amount, Clock, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::TestShop;

/// What the bank's news is signed with.
pub const SEAL: &str = "the bank's seal";

/// How the line to the bank is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Line {
    /// What is asked is done and answered.
    #[default]
    Good,
    /// What is asked is done, and no answer comes.
    NoAnswer,
    /// Nothing arrives.
    Broken,
}

/// What the bank has written, and how it is to be.
#[derive(Default)]
pub struct Books {
    /// Money taken: for which invoice, how much, by the shop's key.
    pub captures: BTreeMap<String, (String, Amount)>,
    /// Money given back: of which capture, how much, by the shop's key.
    pub refunds: BTreeMap<String, (String, Amount)>,
    /// Charges that were looked up and will never be done.
    never: BTreeSet<String>,
    /// The keys that it was asked for, in order.
    pub looked_up: Vec<String>,
    pub line: Line,
    /// Whether the answer to the next charge waits until this is taken back.
    pub holds_next: bool,
    held: BTreeSet<String>,
    /// How many durable steps the process still has; none is for ever.
    life: Option<usize>,
    /// The durable steps so far.
    pub steps: usize,
    is_dead: bool,
}

/// The bank, and the world of the shop that asks it. Clones are the same.
#[derive(Clone, Default)]
pub struct Bank(Arc<Mutex<Books>>, Arc<Notify>);

impl Bank {
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a shop whose money this bank takes. Everything that is opened in it lives on this thread.
    pub async fn shop(&self, dir: TempDir, clock: Clock, change: impl FnOnce(&mut Settings)) -> TestShop {
        fault_injection::install(Some(Arc::new(self.clone())));
        let bank = self.clone();
        payments::set_test_provider(Some(Arc::new(move || Box::new(bank.clone()))));
        let shop = TestShop::at(dir, clock, change).await;
        fault_injection::install(None);
        payments::set_test_provider(None);
        shop
    }

    pub async fn new_shop(&self) -> TestShop {
        self.shop(tempfile::tempdir().unwrap(), Clock::system(), |_| {}).await
    }

    /// Gives the process this many durable steps, none for ever, and begins to count anew.
    pub fn live(&self, steps: Option<usize>) {
        let mut books = self.books();
        (books.life, books.steps, books.is_dead) = (steps, 0, false);
    }

    /// Waits for the death of the process.
    pub async fn death(&self) {
        self.1.notified().await;
    }

    /// The one capture for an invoice: its key and how much.
    pub fn capture_of(&self, invoice: &str) -> (String, Amount) {
        let books = self.books();
        let mut of_it = books.captures.iter().filter(|(_, (of, _))| of == invoice);
        let (key, (_, amount)) = of_it.next().unwrap_or_else(|| panic!("{invoice} was never charged"));
        assert!(of_it.next().is_none(), "{invoice} was charged twice");
        (key.clone(), *amount)
    }

    /// How much of an invoice's money the bank has for the shop.
    pub fn balance_of(&self, invoice: &str) -> Amount {
        let books = self.books();
        let of_it = books.captures.iter().filter(|(_, (of, _))| of == invoice);
        of_it
            .map(|(key, (_, taken))| {
                let back: Amount = books.refunds.values().filter(|(of, _)| of == key).map(|(_, amount)| amount).sum();
                taken - back
            })
            .sum()
    }

    /// How many captures and refunds it has written.
    pub fn entries(&self) -> (usize, usize) {
        let books = self.books();
        (books.captures.len(), books.refunds.len())
    }

    /// Lets the answer go that was held back.
    pub fn release(&self) {
        self.books().held.clear();
    }

    /// Waits until the bank has charged somebody for an invoice; the key.
    pub async fn charged(&self, invoice: &str) -> String {
        loop {
            let found = self.books().captures.iter().find(|(_, (of, _))| of == invoice).map(|(key, _)| key.clone());
            match found {
                Some(key) => return key,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// What the bank says to the shop by itself about a capture.
    pub fn news(&self, name: &str, invoice: &str) -> Value {
        let (key, amount) = self.capture_of(invoice);
        json!({ "id": name, "charge": key, "amount": amount, "currency": "EUR" })
    }
}

impl PaymentProvider for Bank {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(async move {
            let key = charge.key;
            {
                let mut books = self.books();
                if books.line == Line::Broken {
                    return ChargeOutcome::Unknown;
                }
                if charge.token == "tok_declined" {
                    return ChargeOutcome::Declined;
                }
                if books.never.contains(&key) {
                    return ChargeOutcome::Failed;
                }
                books.captures.entry(key.clone()).or_insert((charge.invoice.to_string(), charge.amount));
                if std::mem::take(&mut books.holds_next) {
                    books.held.insert(key.clone());
                }
            }
            while self.books().held.contains(&key) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if self.books().line == Line::NoAnswer { ChargeOutcome::Unknown } else { ChargeOutcome::Captured }
        })
    }

    fn refund(&self, back: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(async move {
            let mut books = self.books();
            if books.line == Line::Broken {
                return RefundOutcome::Unknown;
            }
            if !books.refunds.contains_key(&back.key) {
                let taken = books.captures.get(&back.charge).map_or(0, |(_, amount)| *amount);
                let gone: Amount =
                    books.refunds.values().filter(|(of, _)| *of == back.charge).map(|(_, amount)| amount).sum();
                // Whoever lets the shop ask for more than it took sees it in the balance.
                if gone >= taken {
                    return RefundOutcome::Failed;
                }
                books.refunds.insert(back.key, (back.charge, back.amount));
            }
            if books.line == Line::NoAnswer { RefundOutcome::Unknown } else { RefundOutcome::Done }
        })
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(async move {
            let mut books = self.books();
            books.looked_up.push(key.clone());
            if books.line != Line::Good {
                return ChargeStatus::Unknown;
            }
            if books.captures.contains_key(&key) {
                return ChargeStatus::Captured;
            }
            books.never.insert(key);
            ChargeStatus::NotCharged
        })
    }

    fn verify_webhook(&self, body: &str, signature: &str, _: Timestamp) -> Result<ProviderEvent, WebhookError> {
        if signature != SEAL {
            return Err(WebhookError::InvalidSignature);
        }
        let news: Value = serde_json::from_str(body).map_err(|_| WebhookError::Malformed)?;
        let text = |name: &str| news[name].as_str().unwrap_or_default().to_owned();
        let kind = ProviderEventKind::Captured {
            charge: text("charge"),
            amount: news["amount"].as_i64().ok_or(WebhookError::Malformed)?,
            currency: text("currency").parse().map_err(|_| WebhookError::Malformed)?,
        };
        Ok(ProviderEvent { id: text("id"), kind })
    }
}

impl FaultInjector for Bank {
    fn inject(&self, step: InjectionPoint) -> (Duration, InjectedFault) {
        let mut books = self.books();
        if matches!(step, InjectionPoint::Committed(_)) && !books.is_dead {
            books.steps += 1;
            if books.life.is_some_and(|life| books.steps >= life) {
                books.is_dead = true;
                self.1.notify_one();
            }
        }
        (Duration::ZERO, InjectedFault::None)
    }

    fn is_stopped(&self) -> bool {
        self.books().is_dead
    }

    fn new_id(&self) -> uuid::Uuid {
        uuid::Uuid::now_v7()
    }
}
