//! Orders that are never paid cannot keep the stock from buyers.

use std::time::Duration;

use futures_util::future::join_all;
use mercat::types::Clock;
use serde_json::json;

use crate::support::{TestResponse, TestShop, TestUser};

/// Longer than an invoice can be paid.
const EXPIRED: Duration = Duration::from_secs(31 * 60);

async fn shop(clock: &Clock) -> TestShop {
    TestShop::open_in(tempfile::tempdir().unwrap(), clock.clone(), |settings| {
        settings.limits.enabled = true;
        settings.limits.unpaid_per_user = 2;
        settings.limits.unpaid_per_network = 4;
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await
}

async fn check_out(shop: &TestShop, user: &TestUser, address: &str) -> TestResponse {
    let email = json!({ "email": "buyer@example.com" });
    let request = shop.call("POST", &format!("/user/{}/cart/checkout", user.id)).with_user(user).json(&email);
    request.header("x-forwarded-for", address).send().await
}

/// A guest with a unit of the product in the cart.
async fn buyer(shop: &TestShop, product: &str) -> TestUser {
    let guest = shop.guest().await;
    shop.add(&guest, product, 1).await;
    guest
}

/// Waits until the cart of a user is not locked any more.
async fn until_unlocked(shop: &TestShop, user: &TestUser) {
    shop.poll_until(user, &format!("/user/{}/cart", user.id), |cart| cart["invoice_id"].is_null()).await;
}

#[actix_web::test]
async fn unpaid_orders_of_one_address_are_limited_at_once() {
    let shop = shop(&Clock::system()).await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "tea", 100, 100).await;
    let buyers = join_all((0..10).map(|_| buyer(&shop, &product))).await;
    let replies = join_all(buyers.iter().map(|guest| check_out(&shop, guest, "203.0.113.1"))).await;
    let invoices: Vec<_> =
        replies.iter().filter(|reply| reply.status.as_u16() == 201).map(TestResponse::json).collect();
    assert_eq!(invoices.len(), 4, "{replies:?}");
    for refused in replies.iter().filter(|reply| reply.status.as_u16() != 201) {
        assert_eq!(refused.expect_problem(409, "too_many_unpaid_orders")["max"], 4);
    }
    assert_eq!(shop.stock_of(&product).await, 96, "the refused hold nothing");
    // Another address buys, and so does this one once an order is paid.
    check_out(&shop, &buyer(&shop, &product).await, "203.0.113.2").await.expect(201);
    let payer = buyers.iter().find(|guest| invoices[0]["user_id"] == *guest.id).unwrap();
    shop.pay(payer, invoices[0]["id"].as_str().unwrap(), "tok_ok", "k").await.expect(200);
    shop.drain_events().await;
    check_out(&shop, &buyer(&shop, &product).await, "203.0.113.1").await.expect(201);
    check_out(&shop, &buyer(&shop, &product).await, "203.0.113.1").await.expect_problem(409, "too_many_unpaid_orders");
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn orders_left_unpaid_count_for_their_buyer() {
    let clock = Clock::system();
    let shop = shop(&clock).await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "tea", 100, 100).await;
    let customer = shop.customer("ada@example.com").await;
    let key = shop.call("POST", "/api_keys").with_user(&customer).json(&json!({ "name": "script" })).send().await;
    let by_key = TestUser { token: key.expect(201)["token"].as_str().unwrap().to_owned(), ..customer.clone() };
    let guest = shop.guest().await;
    for (n, user) in [&guest, &customer, &by_key].into_iter().enumerate() {
        let address = format!("203.0.113.{n}");
        shop.add(user, &product, 1).await;
        // The API key acts for the customer, whose orders it shares.
        let left = if n == 2 { 0 } else { 2 };
        for _ in 0..left {
            check_out(&shop, user, &address).await.expect(201);
            clock.advance(EXPIRED);
            until_unlocked(&shop, user).await;
        }
        check_out(&shop, user, "203.0.113.99").await.expect_problem(409, "too_many_unpaid_orders");
    }
    clock.advance(Duration::from_secs(24 * 3_600));
    check_out(&shop, &customer, "203.0.113.1").await.expect(201);
}

#[actix_web::test]
async fn order_cancelled_at_once_does_not_count() {
    let shop = shop(&Clock::system()).await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "tea", 100, 100).await;
    let guest = buyer(&shop, &product).await;
    for _ in 0..6 {
        check_out(&shop, &guest, "203.0.113.1").await.expect(201);
        let path = format!("/user/{}/cart/checkout", guest.id);
        shop.call("DELETE", &path).with_user(&guest).send().await.expect(204);
        until_unlocked(&shop, &guest).await;
    }
}
