//! A handler that panics fails one call with 500 and affects no other.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use crate::common;
use crate::support::{TestShop, WAIT_TIMEOUT};

/// Polls `/health` until `expected` holds. The state of a domain in another process arrives within two seconds.
async fn health(shop: &TestShop, expected: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let health = shop.get("!/health").await.expect(200);
        if expected(&health) {
            return health;
        }
        assert!(begun.elapsed() < WAIT_TIMEOUT, "{health}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_web::test]
async fn panic_fails_one_call_only() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let path = format!("/product/{product}");
    let cart = format!("/user/{}/cart", customer.id);
    // Other domains serve requests meanwhile.
    let others = join_all((0..40).map(|n| {
        let (shop, customer, cart) = (&shop, &customer, &cart);
        async move {
            match n % 4 {
                0 => shop.call("GET", "/me").with_user(customer).send().await.expect(200),
                1 => shop.call("GET", "/notifications").with_user(customer).send().await.expect(200),
                2 => shop.call("GET", "/invoices").with_user(customer).send().await.expect(200),
                _ => shop.call("GET", cart).with_user(customer).send().await.expect(200),
            };
        }
    }));
    let broken = async {
        for _ in 0..3 {
            let broken = shop.call("GET", &path).header("x-test-panic", "catalog.GetProduct").send().await;
            broken.expect_problem(500, "internal");
            shop.get(&path).await.expect(200);
        }
    };
    futures_util::future::join(others, broken).await;
    let health = health(&shop, |health| health["domains"]["catalog"]["restarts"] == 3).await;
    assert_eq!(health["domains"]["users"]["restarts"], 0);
    assert_eq!(health["status"], "up");
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn domain_with_repeated_panics_returns_503() {
    let shop = TestShop::open().await;
    let customer = shop.customer("ada@example.com").await;
    for _ in 0..5 {
        let call = shop.call("GET", "/products").header("x-test-panic", "catalog.ListProducts");
        assert!(call.send().await.status.is_server_error());
    }
    let reply = shop.get("/products").await;
    reply.expect_problem(503, "unavailable");
    shop.call("GET", "/me").with_user(&customer).send().await.expect(200);
    shop.get("!/healthz").await.expect(200);
    let health = health(&shop, |health| health["domains"]["catalog"]["status"] == "down").await;
    assert_eq!(health["status"], "degraded");
    let ready = shop.get("!/readyz").await;
    if common::is_split() {
        // The domain is down for every gateway alike.
        ready.expect(200);
    } else {
        ready.expect_problem(503, "not_ready");
    }
}
