//! P3, step for step: the process dies after each durable step of an order, nobody having been told, and whoever asked
//! asks again under the same keys. `tests/e2e/crash.rs` kills the real program at moments that nobody chose.

use std::path::Path;
use std::time::Duration;

use futures_util::future::{Either, select};
use mercat::types::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bank::Bank;
use crate::support::{Person, Reply, TestShop, id};
use crate::{run, topology};

/// A shop that was opened once, to be copied, and who is in it.
struct Founded {
    dir: TempDir,
    admin: Person,
    customer: Person,
    product: String,
}

fn in_a_process<T>(life: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(life)
}

async fn found() -> Founded {
    // All of it on this thread, so that with the process every file is closed, and lies still to be copied.
    let shop = Bank::default().shop(tempfile::tempdir().unwrap(), Clock::system(), |_| {}).await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 10).await;
    shop.settle().await;
    Founded { dir: shop.leave().await, admin, customer, product }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Asks until it is done: what runs already is waited for, as a program would.
async fn done<F: Future<Output = Reply>>(status: u16, ask: impl Fn() -> F) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let reply = ask().await;
        let runs = reply.status.as_u16() == 409 && reply.json()["code"] == "request_in_progress";
        if !runs {
            return reply.expect(status);
        }
        assert!(begun.elapsed() < crate::support::PATIENCE, "it never ends: {}", reply.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One order and its return, each step under a key of its own. Gives the invoice.
async fn order(shop: &TestShop, founded: &Founded) -> Value {
    let Founded { admin, customer, product, .. } = founded;
    let cart = format!("/user/{}/cart", customer.id);
    let line = json!({ "product_id": product, "quantity": 2 });
    done(201, || shop.call("POST", &cart).as_(customer).key("add").json(&line).send()).await;
    let invoice = done(201, || shop.check_out(customer, "checkout")).await;
    let path = format!("/invoices/{}", id(&invoice));
    let paid = done(200, || shop.pay(customer, id(&invoice), "tok_ok", "pay")).await;
    assert_eq!((&paid["status"], &paid["id"]), (&json!("paid"), &invoice["id"]));
    // Goods that are not known to be sold cannot come back: the return is the next day's.
    shop.settle().await;
    let all = json!({ "restock": true });
    done(200, || shop.call("POST", &format!("{path}/refund")).as_(admin).key("refund").json(&all).send()).await
}

/// What must be there in the end, however often it was asked for.
async fn is_there_once(shop: &TestShop, founded: &Founded, bank: &Bank, invoice: &Value) {
    let Founded { admin, customer, product, .. } = founded;
    shop.is_sound().await;
    let invoices = shop.read(admin, "/invoices?limit=100").await;
    assert_eq!(invoices["items"].as_array().unwrap().len(), 1, "{invoices}");
    let only = &invoices["items"][0];
    assert_eq!(
        (&only["id"], &only["number"], &only["total"], &only["refunded"], &only["status"]),
        (&invoice["id"], &json!("INV-000001"), &json!(900), &json!(900), &json!("refunded"))
    );
    assert_eq!(bank.capture_of(id(invoice)).1, 900);
    assert_eq!(bank.entries(), (1, 1));
    assert_eq!(bank.balance_of(id(invoice)), 0);
    assert_eq!(shop.stock(product).await, 10);
    assert_eq!((shop.mails(admin, "receipt").await, shop.mails(admin, "refund").await), (1, 1));
    assert_eq!(shop.told(customer, "invoice_paid").await, 1);
    assert_eq!(shop.read(customer, &format!("/user/{}/cart", customer.id)).await["count"], 0);
}

#[test]
fn p03_dead_after_any_durable_step_and_asked_again_it_has_happened_once() {
    if run::server().is_some() {
        return topology::skipped("p03_dead_after_any_durable_step", "it ends processes by copies of their files");
    }
    let founded = in_a_process(found());
    let copied = || {
        let dir = tempfile::tempdir().unwrap();
        copy(founded.dir.path(), dir.path());
        dir
    };
    let one_worker = |settings: &mut mercat::settings::Settings| settings.http.workers = 1;
    // Nobody dies: how many steps there are.
    let steps = in_a_process(async {
        let bank = Bank::default();
        let shop = bank.shop(copied(), Clock::system(), one_worker).await;
        bank.live(None);
        let invoice = order(&shop, &founded).await;
        let steps = bank.books().steps;
        is_there_once(&shop, &founded, &bank, &invoice).await;
        shop.leave().await;
        steps
    });
    assert!(steps >= 10, "an order of {steps} durable steps");
    for life in 1..=steps {
        let bank = Bank::default();
        let dir = in_a_process(async {
            let shop = bank.shop(copied(), Clock::system(), one_worker).await;
            bank.live(Some(life));
            {
                let (order, death) = (std::pin::pin!(order(&shop, &founded)), std::pin::pin!(bank.death()));
                if let Either::Left(_) = select(order, death).await {
                    // The steps do not fall in the same way each time; then all of it was done before.
                    println!("life {life}: it lived");
                }
            }
            shop.leave().await
        });
        bank.live(None);
        in_a_process(async {
            let shop = bank.shop(dir, Clock::system(), one_worker).await;
            let invoice = order(&shop, &founded).await;
            is_there_once(&shop, &founded, &bank, &invoice).await;
            shop.leave().await;
        });
    }
}
