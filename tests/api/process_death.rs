//! P3: the process crashes after each commit of an order, before anyone is answered, and the client retries under the
//! same keys. `tests/e2e/crash.rs` kills the real binary at random moments.

use std::path::Path;
use std::time::Duration;

use futures_util::future::{Either, select};
use mercat::types::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fake_provider::FakeProvider;
use crate::support::{TestResponse, TestShop, TestUser, id};
use crate::{common, topology};

/// A shop to copy, and its users.
struct ShopTemplate {
    dir: TempDir,
    admin: TestUser,
    customer: TestUser,
    product: String,
}

fn run_process<T>(work: impl Future<Output = T>) -> T {
    actix_web::rt::System::new().block_on(work)
}

async fn create_template() -> ShopTemplate {
    // All on this thread, so that every file is closed with the process and can be copied.
    let shop = FakeProvider::default().open_shop_in(tempfile::tempdir().unwrap(), Clock::system(), |_| {}).await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 10).await;
    shop.drain_events().await;
    ShopTemplate { dir: shop.kill().await, admin, customer, product }
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

/// Sends a request, again while it is in progress, and returns the body.
async fn send_until_done<F: Future<Output = TestResponse>>(status: u16, send: impl Fn() -> F) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let reply = send().await;
        let runs = reply.status.as_u16() == 409 && reply.json()["code"] == "request_in_progress";
        if !runs {
            return reply.expect(status);
        }
        assert!(begun.elapsed() < crate::support::WAIT_TIMEOUT, "the request never ends: {}", reply.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Places one order and refunds it, each step under its own key. Returns the invoice.
async fn place_order(shop: &TestShop, template: &ShopTemplate) -> Value {
    let ShopTemplate { admin, customer, product, .. } = template;
    let cart = format!("/user/{}/cart", customer.id);
    let line = json!({ "product_id": product, "quantity": 2 });
    send_until_done(201, || shop.call("POST", &cart).with_user(customer).idempotency_key("add").json(&line).send())
        .await;
    let invoice = send_until_done(201, || shop.check_out(customer, "checkout")).await;
    let path = format!("/invoices/{}", id(&invoice));
    let paid = send_until_done(200, || shop.pay(customer, id(&invoice), "tok_ok", "pay")).await;
    assert_eq!((&paid["status"], &paid["id"]), (&json!("paid"), &invoice["id"]));
    // Only units known to be sold can be restocked.
    shop.drain_events().await;
    let all = json!({ "restock": true });
    send_until_done(200, || {
        shop.call("POST", &format!("{path}/refund")).with_user(admin).idempotency_key("refund").json(&all).send()
    })
    .await
}

/// Asserts that order and refund have happened exactly once.
async fn assert_happened_once(shop: &TestShop, template: &ShopTemplate, provider: &FakeProvider, invoice: &Value) {
    let ShopTemplate { admin, customer, product, .. } = template;
    shop.assert_consistent().await;
    let invoices = shop.read(admin, "/invoices?limit=100").await;
    assert_eq!(invoices["items"].as_array().unwrap().len(), 1, "{invoices}");
    let only = &invoices["items"][0];
    assert_eq!(
        (&only["id"], &only["number"], &only["total"], &only["refunded"], &only["status"]),
        (&invoice["id"], &json!("INV-000001"), &json!(900), &json!(900), &json!("refunded"))
    );
    assert_eq!(provider.capture_of(id(invoice)).1, 900);
    assert_eq!(provider.entry_counts(), (1, 1));
    assert_eq!(provider.balance_of(id(invoice)), 0);
    assert_eq!(shop.stock_of(product).await, 10);
    assert_eq!((shop.count_emails(admin, "receipt").await, shop.count_emails(admin, "refund").await), (1, 1));
    assert_eq!(shop.count_notifications(customer, "invoice_paid").await, 1);
    assert_eq!(shop.read(customer, &format!("/user/{}/cart", customer.id)).await["count"], 0);
}

#[test]
fn p03_crash_after_any_commit_and_retry_happen_once() {
    if common::postgres_url().is_some() {
        return topology::print_skipped("p03_dead_after_any_durable_step", "it copies database files");
    }
    let template = run_process(create_template());
    let copied = || {
        let dir = tempfile::tempdir().unwrap();
        copy(template.dir.path(), dir.path());
        dir
    };
    let one_worker = |settings: &mut mercat::settings::Settings| settings.http.workers = 1;
    // Without a crash: counts the commits.
    let steps = run_process(async {
        let provider = FakeProvider::default();
        let shop = provider.open_shop_in(copied(), Clock::system(), one_worker).await;
        provider.crash_after(None);
        let invoice = place_order(&shop, &template).await;
        let steps = provider.ledger().commits;
        assert_happened_once(&shop, &template, &provider, &invoice).await;
        shop.kill().await;
        steps
    });
    assert!(steps >= 10, "an order with {steps} commits");
    for commits in 1..=steps {
        let provider = FakeProvider::default();
        let dir = run_process(async {
            let shop = provider.open_shop_in(copied(), Clock::system(), one_worker).await;
            provider.crash_after(Some(commits));
            {
                let (order, crash) =
                    (std::pin::pin!(place_order(&shop, &template)), std::pin::pin!(provider.crashed()));
                if let Either::Left(_) = select(order, crash).await {
                    // The number of commits varies between runs; then all of it was done before.
                    println!("no crash after {commits} commits");
                }
            }
            shop.kill().await
        });
        provider.crash_after(None);
        run_process(async {
            let shop = provider.open_shop_in(dir, Clock::system(), one_worker).await;
            let invoice = place_order(&shop, &template).await;
            assert_happened_once(&shop, &template, &provider, &invoice).await;
            shop.kill().await;
        });
    }
}
