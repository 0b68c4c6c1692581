//! Concurrent requests for the last units, one cart, refunds and invoice numbers. P7, P8, P9, P13.

use futures_util::future::join_all;
use mercat::contract::catalog::{CatalogError, HoldLine, HoldStock};
use mercat::messaging::RequestContext;
use mercat::types::HoldId;
use serde_json::{Value, json};

use crate::support::{TestResponse, TestShop, TestUser, id};

const BUYERS: usize = 12;
const STOCK: i64 = 5;

/// Checks out and pays for all buyers at once. Returns for each the paid invoice or the rejected checkout.
async fn buy_all_at_once(shop: &TestShop, buyers: &[TestUser]) -> Vec<Result<Value, TestResponse>> {
    join_all(buyers.iter().map(|buyer| async move {
        let invoice = shop.check_out(buyer, "order").await;
        if invoice.status.as_u16() != 201 {
            return Err(invoice);
        }
        Ok(shop.pay(buyer, id(&invoice.json()), "tok_ok", "pay").await.expect(200))
    }))
    .await
}

/// Asserts that `sold` orders were paid and all others rejected without a trace.
async fn assert_sold_exactly(
    shop: &TestShop,
    admin: &TestUser,
    buyers: &[TestUser],
    outcomes: &[Result<Value, TestResponse>],
    sold: usize,
) {
    for (buyer, outcome) in buyers.iter().zip(outcomes) {
        let invoices = shop.read(buyer, "/invoices").await;
        let count = invoices["items"].as_array().unwrap().len();
        match outcome {
            Ok(paid) => assert_eq!((count, &paid["status"]), (1, &json!("paid"))),
            Err(refusal) => {
                refusal.expect_problem(409, "out_of_stock");
                assert_eq!(count, 0, "rejected, but an invoice exists: {invoices}");
                // The cart is unchanged and unlocked.
                let cart = shop.read(buyer, &format!("/user/{}/cart", buyer.id)).await;
                assert!(cart["count"] != 0 && cart["invoice_id"].is_null(), "{cart}");
            }
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), sold);
    assert_eq!(shop.count_emails(admin, "receipt").await, sold);
    shop.assert_consistent().await;
}

async fn guests(shop: &TestShop) -> Vec<TestUser> {
    join_all((0..BUYERS).map(|_| shop.guest())).await
}

#[actix_web::test]
async fn p07_last_units_are_sold_once() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 450, STOCK).await;
    let buyers = guests(&shop).await;
    for buyer in &buyers {
        shop.add(buyer, &product, 1).await;
    }
    let outcomes = buy_all_at_once(&shop, &buyers).await;
    assert_sold_exactly(&shop, &admin, &buyers, &outcomes, 5).await;
    assert_eq!(shop.stock_of(&product).await, 0);
}

#[actix_web::test]
async fn p07_last_units_of_two_products_are_sold_once() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let (tea, pot) = (shop.product(&admin, "TEA", 450, STOCK).await, shop.product(&admin, "POT", 2_599, STOCK).await);
    let buyers = guests(&shop).await;
    for (n, buyer) in buyers.iter().enumerate() {
        let (first, second) = if n % 2 == 0 { (&tea, &pot) } else { (&pot, &tea) };
        shop.add(buyer, first, 1).await;
        shop.add(buyer, second, 1).await;
    }
    let outcomes = buy_all_at_once(&shop, &buyers).await;
    assert_sold_exactly(&shop, &admin, &buyers, &outcomes, 5).await;
    assert_eq!((shop.stock_of(&tea).await, shop.stock_of(&pot).await), (0, 0));
}

#[actix_web::test]
async fn p07_two_lines_of_one_product_add_up() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 450, STOCK).await;
    let buyers = guests(&shop).await;
    for buyer in &buyers {
        shop.add(buyer, &product, 1).await;
        assert_eq!(shop.add(buyer, &product, 1).await["quantity"], 2);
    }
    let outcomes = buy_all_at_once(&shop, &buyers).await;
    assert_sold_exactly(&shop, &admin, &buyers, &outcomes, 2).await;
    assert_eq!(shop.stock_of(&product).await, 1);
    // The catalog message itself, with two lines of one product.
    let line = HoldLine { product_id: product.parse().unwrap(), quantity: 1 };
    let hold = async |lines: Vec<HoldLine>| {
        let expires_at = shop.clock.now().saturating_add(std::time::Duration::from_secs(600));
        let request = HoldStock { hold: HoldId::new(), lines, expires_at };
        shop.app().clients.catalog.call(RequestContext::internal("test"), request).await
    };
    assert!(matches!(hold(vec![line, line]).await, Err(CatalogError::OutOfStock { left: 1, .. })));
    assert_eq!(shop.stock_of(&product).await, 1);
    assert!(hold(vec![line]).await.is_ok());
    assert_eq!(shop.stock_of(&product).await, 0);
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p08_hundred_parallel_adds_give_quantity_100() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let (tea, pot) = (shop.product(&admin, "TEA", 3, 1_000).await, shop.product(&admin, "POT", 5, 1_000).await);
    let guest = shop.guest().await;
    let adds = (0..100).flat_map(|_| [&tea, &pot]).map(|product| shop.add(&guest, product, 1));
    let lines = join_all(adds).await;
    // Each response has a quantity of its own: some serial order.
    for product in [&tea, &pot] {
        let mut seen: Vec<i64> = lines
            .iter()
            .filter(|line| line["product_id"] == product.as_str())
            .map(|line| line["quantity"].as_i64().unwrap())
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=100).collect::<Vec<i64>>());
    }
    let cart = shop.read(&guest, &format!("/user/{}/cart", guest.id)).await;
    let quantities: Vec<&Value> = cart["items"].as_array().unwrap().iter().map(|item| &item["quantity"]).collect();
    assert_eq!((quantities, &cart["count"], &cart["total"]), (vec![&json!(100); 2], &json!(200), &json!(800)));
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p09_cart_in_checkout_rejects_edits() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let (tea, pot) = (shop.product(&admin, "TEA", 450, 100).await, shop.product(&admin, "POT", 2_599, 100).await);
    let customer = shop.customer("ada@example.com").await;
    let item = shop.add(&customer, &tea, 2).await;
    let invoice = shop.check_out(&customer, "order").await.expect(201);
    let cart = format!("/user/{}/cart", customer.id);
    let line = format!("{cart}/{}", id(&item));
    for (method, path, body) in [
        ("POST", &cart, json!({ "product_id": pot, "quantity": 1 })),
        ("POST", &cart, json!({ "product_id": tea, "quantity": 1 })),
        ("PUT", &line, json!({ "quantity": 1 })),
        ("PUT", &line, json!({ "quantity": 0 })),
        ("DELETE", &line, Value::Null),
        ("POST", &format!("{cart}/checkout"), json!({})),
    ] {
        let call = shop.call(method, path).with_user(&customer);
        let call = if body.is_null() { call } else { call.json(&body) };
        let refused = call.send().await.expect_problem(409, "checkout_in_progress");
        assert_eq!(refused["invoice_id"], invoice["id"], "{method} {path}");
    }
    let frozen = shop.read(&customer, &cart).await;
    assert_eq!((&frozen["count"], &frozen["invoice_id"]), (&json!(2), &invoice["id"]));
    let paid = shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect(200);
    assert_eq!(paid["total"], 900);
    shop.add(&customer, &pot, 1).await;
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p09_add_racing_checkout_is_invoiced_or_rejected() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 450, 1_000).await;
    let guest = shop.guest().await;
    shop.add(&guest, &product, 1).await;
    let cart = format!("/user/{}/cart", guest.id);
    let line = json!({ "product_id": product, "quantity": 1 });
    let add = || shop.call("POST", &cart).with_user(&guest).json(&line).send();
    let race = (0..40).map(|n| {
        let (shop, guest) = (&shop, &guest);
        async move { if n == 15 { shop.check_out(guest, "order").await } else { add().await } }
    });
    let replies = join_all(race).await;
    let invoice = replies[15].expect(201);
    let mut added = 1;
    for reply in replies.iter().enumerate().filter(|(n, _)| *n != 15).map(|(_, reply)| reply) {
        if reply.status.as_u16() == 201 {
            added += 1;
        } else {
            reply.expect_problem(409, "checkout_in_progress");
        }
    }
    assert_eq!((&invoice["lines"][0]["quantity"], &invoice["total"]), (&json!(added), &json!(450 * added)));
    let paid = shop.pay(&guest, id(&invoice), "tok_ok", "pay").await.expect(200);
    assert_eq!(paid["total"], 450 * added);
    assert_eq!(shop.stock_of(&product).await, 1_000 - added);
    assert_eq!(shop.read(&guest, &cart).await["count"], 0);
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p13_concurrent_refunds_never_exceed_capture() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 10).await;
    let invoice = shop.checkout_with_one(&customer, &product).await;
    let path = format!("/invoices/{}", id(&invoice));
    shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect(200);
    let refund = async |key: String, body: Value| {
        shop.call("POST", &format!("{path}/refund")).with_user(&admin).idempotency_key(&key).json(&body).send().await
    };
    let replies = join_all((0..20).map(|n| refund(format!("part-{n}"), json!({ "amount": 100 })))).await;
    let done = replies.iter().filter(|reply| reply.status.as_u16() == 200).count();
    for reply in replies.iter().filter(|reply| reply.status.as_u16() != 200) {
        reply.expect_problem(409, "refund_too_large");
    }
    assert_eq!((done, &shop.read(&admin, &path).await["refunded"]), (4, &json!(400)));
    let replies = join_all((0..20).map(|n| refund(format!("rest-{n}"), json!({ "restock": true })))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status.as_u16() == 200).count(), 1);
    let now = shop.read(&admin, &path).await;
    assert_eq!((&now["refunded"], &now["status"]), (&json!(450), &json!("refunded")));
    assert_eq!((shop.stock_of(&product).await, shop.count_emails(&admin, "refund").await), (10, 5));
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p13_invoice_numbers_are_gapless_and_totals_exact() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 333, 20).await;
    let buyers = guests(&shop).await;
    for (n, buyer) in (1..).zip(&buyers) {
        shop.add(buyer, &product, n).await;
    }
    // Some checkouts are rejected for stock, some cancelled; the invoices without products have large totals.
    let outcomes = join_all(buyers.iter().map(|buyer| shop.check_out(buyer, "order"))).await;
    for (buyer, outcome) in buyers.iter().zip(&outcomes).step_by(3) {
        if outcome.status.as_u16() == 201 {
            let cart = format!("/user/{}/cart/checkout", buyer.id);
            shop.call("DELETE", &cart).with_user(buyer).send().await.expect(204);
        }
    }
    let large = json!({ "user_id": buyers[0].id, "currency": "EUR", "lines": [
        { "description": "Work", "quantity": 9_999, "unit_price": 999_999_999_999_i64 },
        { "description": "More", "quantity": 1, "unit_price": 1 },
    ] });
    let wrong = json!({ "user_id": buyers[0].id, "currency": "EUR", "lines": [] });
    join_all((0..8).map(|n| {
        let body = if n % 2 == 0 { &large } else { &wrong };
        shop.call("POST", "/invoices").with_user(&admin).json(body).send()
    }))
    .await;
    let invoices = shop.read(&admin, "/invoices?limit=100").await["items"].as_array().unwrap().clone();
    for invoice in &invoices {
        let sum: i128 = invoice["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| {
                i128::from(line["unit_price"].as_i64().unwrap()) * i128::from(line["quantity"].as_i64().unwrap())
            })
            .sum();
        assert_eq!(i128::from(invoice["total"].as_i64().unwrap()), sum);
    }
    let orders = outcomes.iter().filter(|outcome| outcome.status.as_u16() == 201).count();
    assert!(orders > 0 && orders < BUYERS);
    let mut numbers: Vec<&str> = invoices.iter().map(|invoice| invoice["number"].as_str().unwrap()).collect();
    numbers.sort_unstable();
    let gapless: Vec<String> = (1..=orders + 4).map(|n| format!("INV-{n:06}")).collect();
    assert_eq!(numbers, gapless);
    shop.assert_consistent().await;
}
