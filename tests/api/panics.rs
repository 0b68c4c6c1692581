//! A handler that panics costs one call: the caller hears 500, nobody else notices.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;

use crate::run;
use crate::support::{PATIENCE, TestShop};

/// How the shop is, once that is as wished: how a domain in another process is, is heard within two seconds.
async fn health(shop: &TestShop, wished: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let health = shop.get("!/health").await.expect(200);
        if wished(&health) {
            return health;
        }
        assert!(begun.elapsed() < PATIENCE, "{health}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix_web::test]
async fn a_panic_in_a_domain_costs_one_call() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let path = format!("/product/{product}");
    let cart = format!("/user/{}/cart", customer.id);
    // Other domains are busy meanwhile.
    let others = join_all((0..40).map(|n| {
        let (shop, customer, cart) = (&shop, &customer, &cart);
        async move {
            match n % 4 {
                0 => shop.call("GET", "/me").as_(customer).send().await.expect(200),
                1 => shop.call("GET", "/notifications").as_(customer).send().await.expect(200),
                2 => shop.call("GET", "/invoices").as_(customer).send().await.expect(200),
                _ => shop.call("GET", cart).as_(customer).send().await.expect(200),
            };
        }
    }));
    let broken = async {
        for _ in 0..3 {
            let broken = shop.call("GET", &path).header("x-test-panic", "catalog.GetProduct").send().await;
            broken.problem(500, "internal");
            shop.get(&path).await.expect(200);
        }
    };
    futures_util::future::join(others, broken).await;
    let health = health(&shop, |health| health["domains"]["catalog"]["restarts"] == 3).await;
    assert_eq!(health["domains"]["users"]["restarts"], 0);
    assert_eq!(health["status"], "up");
    shop.is_sound().await;
}

#[actix_web::test]
async fn a_domain_that_dies_too_often_is_503_and_the_others_go_on() {
    let shop = TestShop::open().await;
    let customer = shop.customer("ada@example.com").await;
    for _ in 0..5 {
        let call = shop.call("GET", "/products").header("x-test-panic", "catalog.ListProducts");
        assert!(call.send().await.status.is_server_error());
    }
    let reply = shop.get("/products").await;
    reply.problem(503, "unavailable");
    shop.call("GET", "/me").as_(&customer).send().await.expect(200);
    shop.get("!/healthz").await.expect(200);
    let health = health(&shop, |health| health["domains"]["catalog"]["status"] == "down").await;
    assert_eq!(health["status"], "degraded");
    let ready = shop.get("!/readyz").await;
    if run::is_split() {
        // It is down for every gateway alike.
        ready.expect(200);
    } else {
        ready.problem(503, "not_ready");
    }
}
