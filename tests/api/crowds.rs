//! Many at once: the last units, one cart, refunds, numbers. P7, P8, P9, P13.

use futures_util::future::join_all;
use mercat::contract::catalog::{CatalogError, HoldLine, HoldStock};
use mercat::messaging::RequestContext;
use mercat::types::HoldId;
use serde_json::{Value, json};

use crate::support::{Person, Reply, TestShop, id};

const BUYERS: usize = 12;
const STOCK: i64 = 5;

/// All check out and pay at once; gives for each the paid invoice or the refusal of the checkout.
async fn rush(shop: &TestShop, buyers: &[Person]) -> Vec<Result<Value, Reply>> {
    join_all(buyers.iter().map(|buyer| async move {
        let invoice = shop.check_out(buyer, "order").await;
        if invoice.status.as_u16() != 201 {
            return Err(invoice);
        }
        Ok(shop.pay(buyer, id(&invoice.json()), "tok_ok", "pay").await.expect(200))
    }))
    .await
}

/// So many were sold to, and the others cleanly refused.
async fn sold_exactly(
    shop: &TestShop,
    admin: &Person,
    buyers: &[Person],
    outcomes: &[Result<Value, Reply>],
    sold: usize,
) {
    for (buyer, outcome) in buyers.iter().zip(outcomes) {
        let invoices = shop.read(buyer, "/invoices").await;
        let count = invoices["items"].as_array().unwrap().len();
        match outcome {
            Ok(paid) => assert_eq!((count, &paid["status"]), (1, &json!("paid"))),
            Err(refusal) => {
                refusal.problem(409, "out_of_stock");
                assert_eq!(count, 0, "refused, and an invoice all the same: {invoices}");
                // The cart is as it was, and free.
                let cart = shop.read(buyer, &format!("/user/{}/cart", buyer.id)).await;
                assert!(cart["count"] != 0 && cart["invoice_id"].is_null(), "{cart}");
            }
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), sold);
    assert_eq!(shop.mails(admin, "receipt").await, sold);
    shop.is_sound().await;
}

async fn guests(shop: &TestShop) -> Vec<Person> {
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
    let outcomes = rush(&shop, &buyers).await;
    sold_exactly(&shop, &admin, &buyers, &outcomes, 5).await;
    assert_eq!(shop.stock(&product).await, 0);
}

#[actix_web::test]
async fn p07_last_units_of_two_products_in_either_order_are_sold_once() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let (tea, pot) = (shop.product(&admin, "TEA", 450, STOCK).await, shop.product(&admin, "POT", 2_599, STOCK).await);
    let buyers = guests(&shop).await;
    for (n, buyer) in buyers.iter().enumerate() {
        let (first, second) = if n % 2 == 0 { (&tea, &pot) } else { (&pot, &tea) };
        shop.add(buyer, first, 1).await;
        shop.add(buyer, second, 1).await;
    }
    let outcomes = rush(&shop, &buyers).await;
    sold_exactly(&shop, &admin, &buyers, &outcomes, 5).await;
    assert_eq!((shop.stock(&tea).await, shop.stock(&pot).await), (0, 0));
}

#[actix_web::test]
async fn p07_two_lines_of_one_product_are_one_wish() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 450, STOCK).await;
    let buyers = guests(&shop).await;
    for buyer in &buyers {
        shop.add(buyer, &product, 1).await;
        assert_eq!(shop.add(buyer, &product, 1).await["quantity"], 2);
    }
    let outcomes = rush(&shop, &buyers).await;
    sold_exactly(&shop, &admin, &buyers, &outcomes, 2).await;
    assert_eq!(shop.stock(&product).await, 1);
    // The catalog itself, for whoever asks it with two lines.
    let line = HoldLine { product_id: product.parse().unwrap(), quantity: 1 };
    let hold = async |lines: Vec<HoldLine>| {
        let expires_at = shop.clock.now().plus(std::time::Duration::from_secs(600));
        let wish = HoldStock { hold: HoldId::new(), lines, expires_at };
        shop.app().clients.catalog.call(RequestContext::internal("test"), wish).await
    };
    assert!(matches!(hold(vec![line, line]).await, Err(CatalogError::OutOfStock { left: 1, .. })));
    assert_eq!(shop.stock(&product).await, 1);
    assert!(hold(vec![line]).await.is_ok());
    assert_eq!(shop.stock(&product).await, 0);
    shop.is_sound().await;
}

#[actix_web::test]
async fn p08_a_hundred_parallel_adds_of_one_are_a_hundred() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let (tea, pot) = (shop.product(&admin, "TEA", 3, 1_000).await, shop.product(&admin, "POT", 5, 1_000).await);
    let guest = shop.guest().await;
    let adds = (0..100).flat_map(|_| [&tea, &pot]).map(|product| shop.add(&guest, product, 1));
    let lines = join_all(adds).await;
    // Each saw a count of its own: some serial order.
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
    shop.is_sound().await;
}

#[actix_web::test]
async fn p09_a_cart_whose_checkout_runs_refuses_edits() {
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
        let call = shop.call(method, path).as_(&customer);
        let call = if body.is_null() { call } else { call.json(&body) };
        let refused = call.send().await.problem(409, "checkout_in_progress");
        assert_eq!(refused["invoice_id"], invoice["id"], "{method} {path}");
    }
    let frozen = shop.read(&customer, &cart).await;
    assert_eq!((&frozen["count"], &frozen["invoice_id"]), (&json!(2), &invoice["id"]));
    let paid = shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect(200);
    assert_eq!(paid["total"], 900);
    shop.add(&customer, &pot, 1).await;
    shop.is_sound().await;
}

#[actix_web::test]
async fn p09_adds_that_race_with_the_checkout_are_on_the_invoice_or_refused() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 450, 1_000).await;
    let guest = shop.guest().await;
    shop.add(&guest, &product, 1).await;
    let cart = format!("/user/{}/cart", guest.id);
    let line = json!({ "product_id": product, "quantity": 1 });
    let add = || shop.call("POST", &cart).as_(&guest).json(&line).send();
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
            reply.problem(409, "checkout_in_progress");
        }
    }
    assert_eq!((&invoice["lines"][0]["quantity"], &invoice["total"]), (&json!(added), &json!(450 * added)));
    let paid = shop.pay(&guest, id(&invoice), "tok_ok", "pay").await.expect(200);
    assert_eq!(paid["total"], 450 * added);
    assert_eq!(shop.stock(&product).await, 1_000 - added);
    assert_eq!(shop.read(&guest, &cart).await["count"], 0);
    shop.is_sound().await;
}

#[actix_web::test]
async fn p13_refunds_at_once_never_exceed_what_was_captured() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 10).await;
    let invoice = shop.checked_out(&customer, &product).await;
    let path = format!("/invoices/{}", id(&invoice));
    shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect(200);
    let refund = async |key: String, body: Value| {
        shop.call("POST", &format!("{path}/refund")).as_(&admin).key(&key).json(&body).send().await
    };
    let replies = join_all((0..20).map(|n| refund(format!("part-{n}"), json!({ "amount": 100 })))).await;
    let done = replies.iter().filter(|reply| reply.status.as_u16() == 200).count();
    for reply in replies.iter().filter(|reply| reply.status.as_u16() != 200) {
        reply.problem(409, "refund_too_large");
    }
    assert_eq!((done, &shop.read(&admin, &path).await["refunded"]), (4, &json!(400)));
    let replies = join_all((0..20).map(|n| refund(format!("rest-{n}"), json!({ "restock": true })))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status.as_u16() == 200).count(), 1);
    let now = shop.read(&admin, &path).await;
    assert_eq!((&now["refunded"], &now["status"]), (&json!(450), &json!("refunded")));
    assert_eq!((shop.stock(&product).await, shop.mails(&admin, "refund").await), (10, 5));
    shop.is_sound().await;
}

#[actix_web::test]
async fn p13_numbers_have_no_gap_and_totals_no_rounding() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 333, 20).await;
    let buyers = guests(&shop).await;
    for (n, buyer) in (1..).zip(&buyers) {
        shop.add(buyer, &product, n).await;
    }
    // Some are refused, for stock; some are given up; one order is no order of goods and large.
    let outcomes = join_all(buyers.iter().map(|buyer| shop.check_out(buyer, "order"))).await;
    for (buyer, outcome) in buyers.iter().zip(&outcomes).step_by(3) {
        if outcome.status.as_u16() == 201 {
            let cart = format!("/user/{}/cart/checkout", buyer.id);
            shop.call("DELETE", &cart).as_(buyer).send().await.expect(204);
        }
    }
    let large = json!({ "user_id": buyers[0].id, "currency": "EUR", "lines": [
        { "description": "Work", "quantity": 9_999, "unit_price": 999_999_999_999_i64 },
        { "description": "More", "quantity": 1, "unit_price": 1 },
    ] });
    let wrong = json!({ "user_id": buyers[0].id, "currency": "EUR", "lines": [] });
    join_all((0..8).map(|n| {
        let body = if n % 2 == 0 { &large } else { &wrong };
        shop.call("POST", "/invoices").as_(&admin).json(body).send()
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
    shop.is_sound().await;
}
