//! The administrators' workload (refunds, voids, new stock) and the jumps of the simulated clock.

use std::rc::Rc;
use std::time::Duration;

use mercat::types::InvoiceId;

use super::customer_workload::{Operation, PendingOperation, Population, SharedPopulation, execute_all};
use super::rng::Rng;
use super::scenario::Shop;

/// Chooses the administrators' next operations: one, or two at once.
fn next_operations(population: &mut Population, rng: &mut Rng) -> Vec<PendingOperation> {
    let invoices: Vec<InvoiceId> = population.customers.iter().flat_map(|customer| customer.invoices.clone()).collect();
    let product = *rng.pick(&population.products).unwrap();
    let stock = Operation::Stock { product, stock: i64::try_from(rng.below(4)).unwrap() };
    let paid = if rng.chance(850) { rng.pick(&population.paid) } else { rng.pick(&invoices) }.copied();
    let some = paid.map(|invoice| (invoice, population.totals.get(&invoice).copied().unwrap_or(1).max(1)));
    // Up to 1.3 times the invoice's total, so some refunds are too large.
    let part = |invoice, total: i64, rng: &mut Rng| {
        let amount = i64::try_from(rng.between(1, total.unsigned_abs() * 13 / 10)).unwrap();
        Operation::Refund { invoice, amount: Some(amount), restock: false }
    };
    let operations = match (some, rng.below(100)) {
        (Some((invoice, _)), 0..12) => vec![Operation::Refund { invoice, amount: None, restock: rng.chance(500) }],
        (Some((invoice, total)), 12..30) => vec![part(invoice, total, rng)],
        (Some((invoice, total)), 30..46) => vec![part(invoice, total, rng), part(invoice, total, rng)],
        (Some((invoice, total)), 46..52) => {
            vec![part(invoice, total, rng), Operation::Refund { invoice, amount: None, restock: rng.chance(500) }]
        }
        (_, 52..60) => vec![rng.pick(&invoices).map_or(stock, |invoice| Operation::Void { invoice: *invoice })],
        _ => vec![stock],
    };
    operations.into_iter().map(|operation| population.new_operation(None, operation)).collect()
}

/// Executes the administrators' operations that have no definite reply yet.
pub async fn retry_pending(shop: &Shop, population: &SharedPopulation) {
    let all = population.borrow().admin_pending.clone();
    let unresolved = execute_all(shop, population, &all).await;
    population.borrow_mut().admin_pending = unresolved;
}

/// Runs the administrators' workload in one process.
pub async fn run_admin(shop: Rc<Shop>, population: SharedPopulation) {
    for _ in 0..30 {
        let delay = shop.faults.rng(|rng| rng.between(5, 150));
        tokio::time::sleep(Duration::from_millis(delay)).await;
        if population.borrow().admin_pending.is_empty() {
            let next = shop.faults.rng(|rng| next_operations(&mut population.borrow_mut(), rng));
            population.borrow_mut().admin_pending = next;
        }
        retry_pending(&shop, &population).await;
    }
}

/// Advances the clock by jumps without a timer in between: invoices expire, and sometimes their stock holds too.
pub async fn advance_time(shop: Rc<Shop>) {
    loop {
        let delay = shop.faults.rng(|rng| rng.between(50, 400));
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let jump = shop.faults.rng(|rng| match rng.below(100) {
            0..4 => Some(rng.between(30, 65)),
            4..8 => Some(rng.between(360, 420)),
            _ => None,
        });
        if let Some(seconds) = jump {
            shop.faults.advance_clock(Duration::from_secs(seconds));
        }
    }
}
