//! The staff and the time: refunds, voids, new stock; and the clock, which jumps.

use std::rc::Rc;
use std::time::Duration;

use mercat::types::InvoiceId;

use super::customer_workload::{Ask, Everybody, People, Want, ask_all};
use super::rng::Dice;
use super::scenario::Shop;

/// What the staff wants next: one thing, or two at once.
fn choose(people: &mut People, dice: &mut Dice) -> Vec<Ask> {
    let invoices: Vec<InvoiceId> = people.buyers.iter().flat_map(|buyer| buyer.invoices.clone()).collect();
    let product = *dice.pick(&people.products).unwrap();
    let stock = Want::Stock { product, stock: i64::try_from(dice.below(4)).unwrap() };
    let paid = if dice.chance(850) { dice.pick(&people.paid) } else { dice.pick(&invoices) }.copied();
    let some = paid.map(|invoice| (invoice, people.totals.get(&invoice).copied().unwrap_or(1).max(1)));
    // Sometimes more than there is.
    let part = |invoice, total: i64, dice: &mut Dice| {
        let amount = i64::try_from(dice.between(1, total.unsigned_abs() * 13 / 10)).unwrap();
        Want::Refund { invoice, amount: Some(amount), restock: false }
    };
    let wants = match (some, dice.below(100)) {
        (Some((invoice, _)), 0..12) => vec![Want::Refund { invoice, amount: None, restock: dice.chance(500) }],
        (Some((invoice, total)), 12..30) => vec![part(invoice, total, dice)],
        (Some((invoice, total)), 30..46) => vec![part(invoice, total, dice), part(invoice, total, dice)],
        (Some((invoice, total)), 46..52) => {
            vec![part(invoice, total, dice), Want::Refund { invoice, amount: None, restock: dice.chance(500) }]
        }
        (_, 52..60) => vec![dice.pick(&invoices).map_or(stock, |invoice| Want::Void { invoice: *invoice })],
        _ => vec![stock],
    };
    wants.into_iter().map(|want| people.ask(None, want)).collect()
}

/// Asks for what the staff has no answer to.
pub async fn settle(shop: &Shop, people: &Everybody) {
    let all = people.borrow().staff_pending.clone();
    let open = ask_all(shop, people, &all).await;
    people.borrow_mut().staff_pending = open;
}

/// The staff's life in one process.
pub async fn work(shop: Rc<Shop>, people: Everybody) {
    for _ in 0..30 {
        let pause = shop.world.dice(|dice| dice.between(5, 150));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if people.borrow().staff_pending.is_empty() {
            let next = shop.world.dice(|dice| choose(&mut people.borrow_mut(), dice));
            people.borrow_mut().staff_pending = next;
        }
        settle(&shop, &people).await;
    }
}

/// Time passes faster than anything happens: invoices run out, and sometimes what is held for them too.
pub async fn pass(shop: Rc<Shop>) {
    loop {
        let pause = shop.world.dice(|dice| dice.between(50, 400));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let jump = shop.world.dice(|dice| match dice.below(100) {
            0..4 => Some(dice.between(30, 65)),
            4..8 => Some(dice.between(360, 420)),
            _ => None,
        });
        if let Some(seconds) = jump {
            shop.world.jump(Duration::from_secs(seconds));
        }
    }
}
