//! The provider of payments: a bank outside the shop, with books of its own that no crash of the shop touches. What was
//! sent to it is done, whether or not anybody still waits for the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mercat::domains::payments::{Charge, ChargeOutcome, ChargeStatus, PaymentProvider, RefundOutcome, RefundRequest};
use mercat::types::{Amount, InvoiceId, Timestamp};

use super::fault_injector::FaultInjector;
use super::rng::Dice;

/// What the bank has written under a key of the shop's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Money taken for an invoice.
    Capture(InvoiceId, Amount),
    /// Money given back of the capture under that key.
    Refund(String, Amount),
    /// Not taken, and never will be: with the answer that was given.
    Refused(ChargeOutcome),
}

/// What is on its way to the bank.
enum Order {
    Charge(Charge),
    RefundRequest(RefundRequest),
}

/// The bank's books.
#[derive(Default)]
pub struct Bank {
    pub books: BTreeMap<String, Entry>,
    on_its_way: Vec<(Timestamp, u64, Order)>,
    numbers: u64,
    flaky: BTreeSet<InvoiceId>,
    /// What a shop that keeps its books never asks for.
    pub wrongs: Vec<String>,
}

impl Order {
    fn key(&self) -> &str {
        match self {
            Self::Charge(charge) => &charge.key,
            Self::RefundRequest(back) => &back.key,
        }
    }
}

impl Bank {
    /// Does what has arrived by now, in the order of its arrival.
    pub fn work_off(&mut self, now: Timestamp) {
        while let Some(next) = (0..self.on_its_way.len()).min_by_key(|n| (self.on_its_way[*n].0, self.on_its_way[*n].1))
            && self.on_its_way[next].0 <= now
        {
            match self.on_its_way.swap_remove(next).2 {
                Order::Charge(charge) => self.charge(charge),
                Order::RefundRequest(back) => self.give_back(back),
            }
        }
    }

    fn send(&mut self, arrives: Timestamp, order: Order) {
        self.numbers += 1;
        self.on_its_way.push((arrives, self.numbers, order));
    }

    fn charge(&mut self, charge: Charge) {
        if self.books.contains_key(&charge.key) {
            return;
        }
        let entry = match charge.token.as_str() {
            "tok_declined" => Entry::Refused(ChargeOutcome::Declined),
            "tok_error" => Entry::Refused(ChargeOutcome::Failed),
            "tok_flaky" if self.flaky.insert(charge.invoice) => Entry::Refused(ChargeOutcome::Failed),
            "tok_ok" | "tok_slow" | "tok_flaky" => Entry::Capture(charge.invoice, charge.amount),
            _ => Entry::Refused(ChargeOutcome::UnknownToken),
        };
        self.books.insert(charge.key, entry);
    }

    fn give_back(&mut self, back: RefundRequest) {
        if self.books.contains_key(&back.key) {
            return;
        }
        let Some(Entry::Capture(_, taken)) = self.books.get(&back.charge) else {
            self.wrongs.push(format!("{} back of {}, which was never taken", back.amount, back.charge));
            return;
        };
        let returned: Amount = self.books.values().map(|entry| entry.returned_of(&back.charge)).sum();
        if back.amount > taken - returned {
            self.wrongs.push(format!("{} back of {}, of which {returned} went back", back.amount, back.charge));
            return;
        }
        self.books.insert(back.key, Entry::Refund(back.charge, back.amount));
    }

    /// What the bank says of a charge; one that is still on its way is stopped, or nothing can be said.
    fn known(&mut self, dice: &mut Dice, key: &str) -> ChargeStatus {
        if self.on_its_way.iter().any(|(_, _, order)| order.key() == key) {
            if dice.chance(500) {
                return ChargeStatus::Unknown;
            }
            self.on_its_way.retain(|(_, _, order)| order.key() != key);
        }
        match self.books.entry(key.to_owned()).or_insert(Entry::Refused(ChargeOutcome::Failed)) {
            Entry::Capture(..) => ChargeStatus::Captured,
            _ => ChargeStatus::NotCharged,
        }
    }
}

impl Entry {
    /// How much of the capture under this key it gave back.
    pub fn returned_of(&self, charge: &str) -> Amount {
        match self {
            Self::Refund(of, amount) if of == charge => *amount,
            _ => 0,
        }
    }
}

/// The shop's line to the bank.
pub struct Teller {
    world: FaultInjector,
}

/// How a question fares.
struct Way {
    /// Until it arrives, if it does.
    there: Option<Duration>,
    /// Until its answer does, if it does.
    back: Option<Duration>,
}

impl Teller {
    pub const fn new(world: FaultInjector) -> Self {
        Self { world }
    }

    fn way(&self, slow: bool) -> Way {
        let troubled = self.world.is_troubled();
        self.world.dice(|dice| {
            let there = match dice.below(100) {
                0..3 if troubled => None,
                // Longer than the shop's patience.
                3..5 if troubled => Some(dice.between(28_000, 50_000)),
                5..12 if troubled => Some(dice.between(100, 5_000)),
                _ => Some(dice.between(1, 40)),
            };
            let there = there.map(|millis| Duration::from_millis(if slow { millis + 1_500 } else { millis }));
            let back = match dice.below(100) {
                0..8 if troubled => None,
                _ => Some(Duration::from_millis(dice.between(1, 30))),
            };
            Way { there, back }
        })
    }

    /// Goes there and back; `None` when either is lost. Of a lost one the shop hears nothing until its patience ends,
    /// or at once that the line is broken.
    async fn travel<T>(&self, way: Way, hear: impl FnOnce() -> T) -> Option<T> {
        if let Some(there) = way.there {
            tokio::time::sleep(there).await;
        }
        self.hang_if_dead().await;
        let heard = way.there.map(|_| hear());
        if let (Some(heard), Some(back)) = (heard, way.back) {
            tokio::time::sleep(back).await;
            self.hang_if_dead().await;
            return Some(heard);
        }
        if self.world.dice(|dice| dice.chance(150)) {
            std::future::pending::<()>().await;
        }
        None
    }

    async fn hang_if_dead(&self) {
        if self.world.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

impl PaymentProvider for Teller {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(async move {
            self.hang_if_dead().await;
            let (key, way) = (charge.key.clone(), self.way(charge.token == "tok_slow"));
            self.world.note(format_args!(
                "charge {key} of {} by {}: {:?} {:?}",
                charge.invoice, charge.token, way.there, way.back
            ));
            if let Some(there) = way.there {
                self.world.bank(|bank, _, now| bank.send(now.plus(there), Order::Charge(charge)));
            }
            let heard = self.travel(way, || self.world.bank(|bank, _, _| bank.books.get(&key).cloned())).await;
            match heard.flatten() {
                Some(Entry::Capture(..)) => ChargeOutcome::Captured,
                Some(Entry::Refused(charged)) => charged,
                Some(Entry::Refund(..)) | None => ChargeOutcome::Unknown,
            }
        })
    }

    fn refund(&self, back: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        Box::pin(async move {
            self.hang_if_dead().await;
            let (key, way) = (back.key.clone(), self.way(false));
            self.world.note(format_args!("return {key} of {}: {:?} {:?}", back.charge, way.there, way.back));
            let refused = self.world.is_troubled() && self.world.dice(|dice| dice.chance(40));
            let known = self.world.bank(|bank, _, _| bank.books.contains_key(&key));
            if refused
                && !known
                && self.world.bank(|bank, _, _| bank.on_its_way.iter().all(|(_, _, order)| order.key() != key))
            {
                // Never got as far as the books: certainly not done.
                return RefundOutcome::Failed;
            }
            if let Some(there) = way.there {
                self.world.bank(|bank, _, now| bank.send(now.plus(there), Order::RefundRequest(back)));
            }
            let heard = self.travel(way, || self.world.bank(|bank, _, _| bank.books.get(&key).cloned())).await;
            match heard {
                Some(Some(Entry::Refund(..))) => RefundOutcome::Done,
                Some(_) => RefundOutcome::Failed,
                None => RefundOutcome::Unknown,
            }
        })
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        Box::pin(async move {
            self.hang_if_dead().await;
            let way = self.way(false);
            let known = self.travel(way, || self.world.bank(|bank, dice, _| bank.known(dice, &key))).await;
            self.world.note(format_args!("lookup {key}: {known:?}"));
            known.unwrap_or(ChargeStatus::Unknown)
        })
    }
}
