//! A payment provider outside the shop: its ledger survives the shop's crashes. A call that was sent is executed even
//! when its caller no longer waits for the reply.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mercat::domains::payments::{Charge, ChargeOutcome, ChargeStatus, PaymentProvider, RefundOutcome, RefundRequest};
use mercat::types::{Amount, InvoiceId, Timestamp};

use super::fault_injector::SimFaults;
use super::rng::Rng;

/// Entry of the provider's ledger under an idempotency key of the shop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerEntry {
    /// Money captured for an invoice.
    Capture(InvoiceId, Amount),
    /// Money refunded of the capture under that key.
    Refund(String, Amount),
    /// Definitely not captured, with the outcome that was reported.
    Refused(ChargeOutcome),
}

/// A call that has not arrived yet.
enum QueuedCall {
    Charge(Charge),
    Refund(RefundRequest),
}

/// The provider's ledger and the calls on their way to it.
#[derive(Default)]
pub struct FakeProvider {
    pub ledger: BTreeMap<String, LedgerEntry>,
    queue: Vec<(Timestamp, u64, QueuedCall)>,
    sequence: u64,
    flaky: BTreeSet<InvoiceId>,
    /// Calls that a consistent shop never makes.
    pub protocol_violations: Vec<String>,
}

impl QueuedCall {
    fn key(&self) -> &str {
        match self {
            Self::Charge(charge) => &charge.key,
            Self::Refund(refund) => &refund.key,
        }
    }
}

impl FakeProvider {
    /// Executes the calls that have arrived by `now`, in order of arrival.
    pub fn process_queue(&mut self, now: Timestamp) {
        while let Some(next) = (0..self.queue.len()).min_by_key(|n| (self.queue[*n].0, self.queue[*n].1))
            && self.queue[next].0 <= now
        {
            match self.queue.swap_remove(next).2 {
                QueuedCall::Charge(charge) => self.charge(charge),
                QueuedCall::Refund(refund) => self.refund(refund),
            }
        }
    }

    fn enqueue(&mut self, arrives: Timestamp, call: QueuedCall) {
        self.sequence += 1;
        self.queue.push((arrives, self.sequence, call));
    }

    fn charge(&mut self, charge: Charge) {
        if self.ledger.contains_key(&charge.key) {
            return;
        }
        let entry = match charge.token.as_str() {
            "tok_declined" => LedgerEntry::Refused(ChargeOutcome::Declined),
            "tok_error" => LedgerEntry::Refused(ChargeOutcome::Failed),
            "tok_flaky" if self.flaky.insert(charge.invoice) => LedgerEntry::Refused(ChargeOutcome::Failed),
            "tok_ok" | "tok_slow" | "tok_flaky" => LedgerEntry::Capture(charge.invoice, charge.amount),
            _ => LedgerEntry::Refused(ChargeOutcome::UnknownToken),
        };
        self.ledger.insert(charge.key, entry);
    }

    fn refund(&mut self, refund: RefundRequest) {
        if self.ledger.contains_key(&refund.key) {
            return;
        }
        let Some(LedgerEntry::Capture(_, captured)) = self.ledger.get(&refund.charge) else {
            self.protocol_violations
                .push(format!("{} refunded of {}, which was never captured", refund.amount, refund.charge));
            return;
        };
        let refunded: Amount = self.ledger.values().map(|entry| entry.refunded_of(&refund.charge)).sum();
        if refund.amount > captured - refunded {
            self.protocol_violations.push(format!(
                "{} refunded of {}, of which {refunded} was refunded before",
                refund.amount, refund.charge
            ));
            return;
        }
        self.ledger.insert(refund.key, LedgerEntry::Refund(refund.charge, refund.amount));
    }

    /// Looks a charge up. One that is still on its way is cancelled, or its status is unknown.
    fn lookup(&mut self, rng: &mut Rng, key: &str) -> ChargeStatus {
        if self.queue.iter().any(|(_, _, call)| call.key() == key) {
            if rng.chance(500) {
                return ChargeStatus::Unknown;
            }
            self.queue.retain(|(_, _, call)| call.key() != key);
        }
        match self.ledger.entry(key.to_owned()).or_insert(LedgerEntry::Refused(ChargeOutcome::Failed)) {
            LedgerEntry::Capture(..) => ChargeStatus::Captured,
            _ => ChargeStatus::NotCharged,
        }
    }
}

impl LedgerEntry {
    /// Amount that this entry refunds of the capture under the key `charge`.
    pub fn refunded_of(&self, charge: &str) -> Amount {
        match self {
            Self::Refund(of, amount) if of == charge => *amount,
            _ => 0,
        }
    }
}

/// The shop's connection to the provider, with network faults.
pub struct ProviderConnection {
    faults: SimFaults,
}

/// Delays of one call.
struct NetworkFate {
    /// Time until the call arrives; `None` if it is lost.
    request_delay: Option<Duration>,
    /// Time until the reply arrives; `None` if it is lost.
    reply_delay: Option<Duration>,
}

impl ProviderConnection {
    pub const fn new(faults: SimFaults) -> Self {
        Self { faults }
    }

    fn next_fault(&self, slow: bool) -> NetworkFate {
        let faults_enabled = self.faults.has_faults();
        self.faults.rng(|rng| {
            let request_delay = match rng.below(100) {
                0..3 if faults_enabled => None,
                // Longer than the shop's timeout.
                3..5 if faults_enabled => Some(rng.between(28_000, 50_000)),
                5..12 if faults_enabled => Some(rng.between(100, 5_000)),
                _ => Some(rng.between(1, 40)),
            };
            let request_delay =
                request_delay.map(|millis| Duration::from_millis(if slow { millis + 1_500 } else { millis }));
            let reply_delay = match rng.below(100) {
                0..8 if faults_enabled => None,
                _ => Some(Duration::from_millis(rng.between(1, 30))),
            };
            NetworkFate { request_delay, reply_delay }
        })
    }

    /// Delays the call and its reply; `None` when either is lost. The caller of a lost call waits until its timeout, or
    /// learns at once that the connection is broken.
    async fn transmit<T>(&self, fate: NetworkFate, execute: impl FnOnce() -> T) -> Option<T> {
        if let Some(request_delay) = fate.request_delay {
            tokio::time::sleep(request_delay).await;
        }
        self.hang_if_crashed().await;
        let reply = fate.request_delay.map(|_| execute());
        if let (Some(reply), Some(reply_delay)) = (reply, fate.reply_delay) {
            tokio::time::sleep(reply_delay).await;
            self.hang_if_crashed().await;
            return Some(reply);
        }
        if self.faults.rng(|rng| rng.chance(150)) {
            std::future::pending::<()>().await;
        }
        None
    }

    async fn hang_if_crashed(&self) {
        if self.faults.is_crashed() {
            std::future::pending::<()>().await;
        }
    }
}

impl PaymentProvider for ProviderConnection {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(async move {
            self.hang_if_crashed().await;
            let (key, fate) = (charge.key.clone(), self.next_fault(charge.token == "tok_slow"));
            self.faults.note(format_args!(
                "charge {key} of {} by {}: {:?} {:?}",
                charge.invoice, charge.token, fate.request_delay, fate.reply_delay
            ));
            if let Some(request_delay) = fate.request_delay {
                self.faults.provider(|provider, _, now| {
                    provider.enqueue(now.saturating_add(request_delay), QueuedCall::Charge(charge))
                });
            }
            let entry =
                self.transmit(fate, || self.faults.provider(|provider, _, _| provider.ledger.get(&key).cloned())).await;
            match entry.flatten() {
                Some(LedgerEntry::Capture(..)) => ChargeOutcome::Captured,
                Some(LedgerEntry::Refused(outcome)) => outcome,
                Some(LedgerEntry::Refund(..)) | None => ChargeOutcome::Unknown,
            }
        })
    }

    fn refund(&self, refund: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(async move {
            self.hang_if_crashed().await;
            let (key, fate) = (refund.key.clone(), self.next_fault(false));
            self.faults.note(format_args!(
                "refund {key} of {}: {:?} {:?}",
                refund.charge, fate.request_delay, fate.reply_delay
            ));
            let refused = self.faults.has_faults() && self.faults.rng(|rng| rng.chance(40));
            let is_recorded = self.faults.provider(|provider, _, _| provider.ledger.contains_key(&key));
            if refused
                && !is_recorded
                && self.faults.provider(|provider, _, _| provider.queue.iter().all(|(_, _, call)| call.key() != key))
            {
                // Never reached the ledger: definitely not done.
                return RefundOutcome::Failed;
            }
            if let Some(request_delay) = fate.request_delay {
                self.faults.provider(|provider, _, now| {
                    provider.enqueue(now.saturating_add(request_delay), QueuedCall::Refund(refund))
                });
            }
            let entry =
                self.transmit(fate, || self.faults.provider(|provider, _, _| provider.ledger.get(&key).cloned())).await;
            match entry {
                Some(Some(LedgerEntry::Refund(..))) => RefundOutcome::Done,
                Some(_) => RefundOutcome::Failed,
                None => RefundOutcome::Unknown,
            }
        })
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(async move {
            self.hang_if_crashed().await;
            let fate = self.next_fault(false);
            let status =
                self.transmit(fate, || self.faults.provider(|provider, rng, _| provider.lookup(rng, &key))).await;
            self.faults.note(format_args!("lookup {key}: {status:?}"));
            status.unwrap_or(ChargeStatus::Unknown)
        })
    }
}
