//! The staff and the time: refunds, voids, new stock; and the clock, which jumps.

use std::rc::Rc;
use std::time::Duration;

use mercat::types::InvoiceId;

use super::buyers::{Ask, Everybody, Heard, People, Want, ask};
use super::dice::Dice;
use super::history::Shop;

fn choose(people: &mut People, dice: &mut Dice) -> Ask {
    let invoices: Vec<InvoiceId> = people.buyers.iter().flat_map(|buyer| buyer.invoices.clone()).collect();
    let product = *dice.pick(&people.products).unwrap();
    let stock = Want::Stock { product, stock: i64::try_from(dice.below(5)).unwrap() };
    let want = match (dice.pick(&invoices).copied(), dice.below(100)) {
        (Some(invoice), 0..30) => Want::Refund { invoice, amount: None, restock: dice.chance(500) },
        (Some(invoice), 30..60) => {
            let total = people.totals.get(&invoice).copied().unwrap_or(1).max(1);
            let amount = i64::try_from(dice.between(1, total.unsigned_abs())).unwrap();
            Want::Refund { invoice, amount: Some(amount), restock: false }
        }
        (Some(invoice), 60..72) => Want::Void { invoice },
        _ => stock,
    };
    people.ask(None, want)
}

/// Asks for what the staff has no answer to.
pub async fn settle(shop: &Shop, people: &Everybody) {
    let Some(open) = people.borrow().staff_pending.clone() else { return };
    if !matches!(ask(shop, people, &open).await, Heard::Unknown(_)) {
        people.borrow_mut().staff_pending = None;
    }
}

/// The staff's life in one process.
pub async fn work(shop: Rc<Shop>, people: Everybody) {
    for _ in 0..10 {
        let pause = shop.world.dice(|dice| dice.between(10, 200));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if people.borrow().staff_pending.is_none() {
            let next = shop.world.dice(|dice| choose(&mut people.borrow_mut(), dice));
            people.borrow_mut().staff_pending = Some(next);
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
            0..7 => Some(dice.between(30, 65)),
            7..12 => Some(dice.between(360, 420)),
            _ => None,
        });
        if let Some(seconds) = jump {
            shop.world.jump(Duration::from_secs(seconds));
        }
    }
}
