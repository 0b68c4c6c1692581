//! Payments with a provider that is slow, silent or early: P10, P11, P12.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use mercat::types::Clock;
use serde_json::{Value, json};

use crate::fake_provider::{FakeProvider, NetworkFault, WEBHOOK_SECRET};
use crate::support::{TestResponse, TestShop, TestUser, WAIT_TIMEOUT, id};

/// Sends a webhook event to the shop.
async fn send_webhook(shop: &TestShop, event: &Value) -> TestResponse {
    shop.call("POST", "/webhooks/stripe").header("stripe-signature", WEBHOOK_SECRET).json(event).send().await
}

/// Asserts one capture, one receipt and one notification per order, and the stock that remains.
async fn assert_settled_once(
    shop: &TestShop,
    provider: &FakeProvider,
    admin: &TestUser,
    customer: &TestUser,
    product: &str,
    invoice: &Value,
) {
    shop.assert_consistent().await;
    let now = shop.read(customer, &format!("/invoices/{}", id(invoice))).await;
    assert_eq!((&now["status"], &now["processing"]), (&json!("paid"), &json!(false)));
    assert_eq!(provider.capture_of(id(invoice)).1, invoice["total"].as_i64().unwrap());
    let orders = shop.read(customer, "/invoices?limit=100").await["items"].as_array().unwrap().len();
    assert_eq!(shop.count_emails(admin, "receipt").await, orders);
    assert_eq!(shop.count_notifications(customer, "invoice_paid").await, orders);
    assert_eq!(shop.stock_of(product).await, 100 - i64::try_from(orders).unwrap());
}

#[actix_web::test]
async fn p10_browser_and_webhook_settle_payment_once() {
    let provider = FakeProvider::default();
    let shop = provider.open_shop().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 100).await;
    let once =
        async |invoice: &Value| assert_settled_once(&shop, &provider, &admin, &customer, &product, invoice).await;

    // Browser first, then the webhook: once, redelivered, and as another event.
    let invoice = shop.checkout_with_one(&customer, &product).await;
    shop.pay(&customer, id(&invoice), "tok_ok", "first").await.expect(200);
    for name in ["evt_1", "evt_1", "evt_2"] {
        send_webhook(&shop, &provider.webhook_event(name, id(&invoice))).await.expect(200);
    }
    once(&invoice).await;

    // Webhook first, while the browser still waits; then ten at once.
    let invoice = shop.checkout_with_one(&customer, &product).await;
    provider.ledger().hold_next_response = true;
    let paying = shop.pay(&customer, id(&invoice), "tok_ok", "second");
    let webhooks = async {
        provider.wait_for_capture(id(&invoice)).await;
        let all = (0..10).map(|n| {
            let event = provider.webhook_event(&format!("evt_3_{}", n % 5), id(&invoice));
            let shop = &shop;
            async move { send_webhook(shop, &event).await.expect(200) }
        });
        join_all(all).await;
        let path = format!("/invoices/{}", id(&invoice));
        assert_eq!(shop.read(&customer, &path).await["status"], "paid");
        provider.release_responses();
    };
    let (paid, ()) = join(paying, webhooks).await;
    assert_eq!(paid.expect(200)["id"], invoice["id"]);
    once(&invoice).await;

    // The browser's response is lost: the webhook suffices, and a retry gets the response.
    let invoice = shop.checkout_with_one(&customer, &product).await;
    provider.ledger().network = NetworkFault::ResponseLost;
    shop.pay(&customer, id(&invoice), "tok_ok", "third").await.expect_problem(504, "deadline_exceeded");
    send_webhook(&shop, &provider.webhook_event("evt_4", id(&invoice))).await.expect(200);
    let again = shop.pay(&customer, id(&invoice), "tok_ok", "third").await;
    assert_eq!((&again.expect(200)["status"], again.is_replay()), (&json!("paid"), true));
    provider.ledger().network = NetworkFault::None;
    once(&invoice).await;

    // No webhook; a forged one and one with another amount change nothing.
    let invoice = shop.checkout_with_one(&customer, &product).await;
    provider.ledger().network = NetworkFault::ResponseLost;
    shop.pay(&customer, id(&invoice), "tok_ok", "fourth").await.expect_problem(504, "deadline_exceeded");
    let mut less = provider.webhook_event("evt_5", id(&invoice));
    less["amount"] = json!(1);
    send_webhook(&shop, &less).await.expect(200);
    let forged = shop.call("POST", "/webhooks/stripe").header("stripe-signature", "mine").json(&less);
    forged.send().await.expect_problem(400, "bad_signature");
    let path = format!("/invoices/{}", id(&invoice));
    assert_eq!(shop.read(&customer, &path).await["status"], "open");
    provider.ledger().network = NetworkFault::None;
    shop.poll_until(&customer, &path, |now| now["status"] == "paid").await;
    once(&invoice).await;
}

#[actix_web::test]
async fn p11_late_payment_is_refunded_automatically() {
    let (provider, clock) = (FakeProvider::default(), Clock::system());
    let dir = tempfile::tempdir().unwrap();
    let shop = provider.open_shop_in(dir, clock.clone(), |settings| settings.http.request_timeout = WAIT_TIMEOUT).await;
    let admin = shop.admin().await;
    let (ada, eve) = (shop.customer("ada@example.com").await, shop.customer("eve@example.com").await);
    let product = shop.product(&admin, "LAST", 450, 1).await;
    let product_path = format!("/product/{product}");

    // Ada's payment is held at the provider until her reservation has expired and Eve has bought the last one.
    let hers = shop.checkout_with_one(&ada, &product).await;
    provider.ledger().hold_next_response = true;
    let paying = shop.pay(&ada, id(&hers), "tok_ok", "pay");
    let meanwhile = async {
        provider.wait_for_capture(id(&hers)).await;
        clock.advance(shop.app().settings().payments.invoice_lifetime + Duration::from_secs(600));
        shop.poll_until(&admin, &product_path, |product| product["stock"] == 1).await;
        let invoice = shop.checkout_with_one(&eve, &product).await;
        shop.pay(&eve, id(&invoice), "tok_ok", "pay").await.expect(200);
        provider.release_responses();
        invoice
    };
    let (paid, eves) = join(paying, meanwhile).await;
    assert_eq!(paid.expect(200)["id"], hers["id"]);

    let path = format!("/invoices/{}", id(&hers));
    let back = shop.poll_until(&ada, &path, |invoice| invoice["status"] == "refunded").await;
    assert_eq!(back["refunded"], 450);
    shop.assert_consistent().await;
    assert_eq!((provider.balance_of(id(&hers)), provider.balance_of(id(&eves))), (0, 450));
    assert_eq!(provider.entry_counts(), (2, 1));
    assert_eq!(shop.stock_of(&product).await, 0);
    assert_eq!(
        (shop.count_emails(&admin, "refund").await, shop.count_notifications(&ada, "invoice_refunded").await),
        (1, 1)
    );
    assert_eq!(shop.count_notifications(&eve, "invoice_refunded").await, 0);
}

/// Waits until the provider has been asked once more for the state of a charge.
async fn wait_for_lookup(provider: &FakeProvider) {
    let (before, begun) = (provider.ledger().lookups.len(), Instant::now());
    while provider.ledger().lookups.len() == before {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "the provider is never asked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_web::test]
async fn p12_provider_timeout_is_reconciled_by_key() {
    let (provider, clock) = (FakeProvider::default(), Clock::system());
    let shop = provider.open_shop_in(tempfile::tempdir().unwrap(), clock.clone(), |_| {}).await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 100).await;

    // Captured, and the response is lost.
    let invoice = shop.checkout_with_one(&customer, &product).await;
    let path = format!("/invoices/{}", id(&invoice));
    let pay = async |key: &str| shop.pay(&customer, id(&invoice), "tok_ok", key).await;
    let is_processing = async || {
        let now = shop.read(&customer, &path).await;
        assert_eq!((&now["status"], &now["processing"]), (&json!("open"), &json!(true)));
    };
    provider.ledger().network = NetworkFault::ResponseLost;
    pay("pay").await.expect_problem(504, "deadline_exceeded");
    is_processing().await;
    pay("pay").await.expect_problem(409, "request_in_progress");
    pay("another").await.expect_problem(409, "payment_in_progress");
    shop.call("POST", &format!("{path}/void"))
        .with_user(&admin)
        .send()
        .await
        .expect_problem(409, "payment_in_progress");
    wait_for_lookup(&provider).await;
    let (key, _) = provider.capture_of(id(&invoice));
    assert!(provider.ledger().lookups.iter().all(|lookup| *lookup == key), "looked up by another key");
    // Nor does it expire meanwhile: it may have been paid.
    clock.advance(shop.app().settings().payments.invoice_lifetime + Duration::from_secs(1));
    wait_for_lookup(&provider).await;
    is_processing().await;
    provider.ledger().network = NetworkFault::None;
    shop.poll_until(&customer, &path, |now| now["status"] == "paid").await;
    let again = pay("pay").await;
    assert_eq!((&again.expect(200)["status"], again.is_replay()), (&json!("paid"), true));
    pay("another").await.expect_problem(409, "already_paid");
    assert_settled_once(&shop, &provider, &admin, &customer, &product, &invoice).await;

    // The request is lost: the provider will not carry it out later, and the buyer may try again.
    let invoice = shop.checkout_with_one(&customer, &product).await;
    let path = format!("/invoices/{}", id(&invoice));
    provider.ledger().network = NetworkFault::Unreachable;
    shop.pay(&customer, id(&invoice), "tok_ok", "lost").await.expect_problem(504, "deadline_exceeded");
    assert_eq!(shop.read(&customer, &path).await["processing"], true);
    provider.ledger().network = NetworkFault::None;
    shop.poll_until(&customer, &path, |now| now["processing"] == false).await;
    assert_eq!(
        (provider.balance_of(id(&invoice)), shop.count_notifications(&customer, "payment_failed").await),
        (0, 1)
    );
    let paid = shop.pay(&customer, id(&invoice), "tok_ok", "lost").await;
    assert_eq!((&paid.expect(200)["status"], paid.is_replay()), (&json!("paid"), false));
    assert_settled_once(&shop, &provider, &admin, &customer, &product, &invoice).await;

    // A refund without a response is retried under its key until its outcome is known.
    provider.ledger().network = NetworkFault::ResponseLost;
    let refund = shop
        .call("POST", &format!("{path}/refund"))
        .with_user(&admin)
        .idempotency_key("back")
        .json(&json!({ "amount": 100 }));
    refund.send().await.expect_problem(504, "deadline_exceeded");
    provider.ledger().network = NetworkFault::None;
    shop.poll_until(&customer, &path, |now| now["refunded"] == 100).await;
    assert_eq!((provider.balance_of(id(&invoice)), provider.ledger().refunds.len()), (350, 1));
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p09_charge_equals_invoice_despite_price_changes() {
    let provider = FakeProvider::default();
    let shop = provider.open_shop().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let (tea, pot) = (shop.product(&admin, "TEA", 333, 100).await, shop.product(&admin, "POT", 2_599, 100).await);
    shop.add(&customer, &tea, 7).await;
    shop.add(&customer, &pot, 1).await;
    // Added at one price, checked out at the current one, paid at that of the invoice.
    let price = async |product: &str, price: i64| {
        let patch = json!({ "price": price });
        shop.call("PATCH", &format!("/product/{product}")).with_user(&admin).json(&patch).send().await.expect(200);
    };
    price(&tea, 301).await;
    let invoice = shop.check_out(&customer, "order").await.expect(201);
    assert_eq!(invoice["total"], 7 * 301 + 2_599);
    price(&pot, 1).await;
    price(&tea, 99_999).await;
    let paid = shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect(200);
    assert_eq!((&paid["total"], &paid["lines"]), (&invoice["total"], &invoice["lines"]));
    let lines = paid["lines"].as_array().unwrap();
    let sum: i64 = lines.iter().map(|l| l["unit_price"].as_i64().unwrap() * l["quantity"].as_i64().unwrap()).sum();
    assert_eq!((sum, provider.capture_of(id(&invoice)).1), (7 * 301 + 2_599, 7 * 301 + 2_599));
    shop.assert_consistent().await;
}
