//! The same wish twice, and at once.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{TestShop, new_product};

#[actix_web::test]
async fn p01_the_same_key_gives_the_first_answer_again_in_status_body_and_headers() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let create = |body: &Value| shop.call("POST", "/product/").as_(&admin).key("k1").json(body).send();
    let body = new_product("TEA", 400, 5);
    let first = create(&body).await;
    let product = first.expect(201);
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = create(&body).await;
    assert_eq!(again.expect(201), product);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    // Quoted is the same key; with another body it is another request.
    let quoted = shop.call("POST", "/product").as_(&admin).key("\"k1\"").json(&body).send().await;
    assert_eq!(quoted.expect(201), product);
    create(&new_product("TEA", 401, 5)).await.problem(422, "idempotency_key_reused");
    assert_eq!(shop.get("/products").await.expect(200)["items"].as_array().unwrap().len(), 1);
}

#[actix_web::test]
async fn p02_fifty_at_once_with_one_key_do_it_once() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let cart = format!("/user/{}/cart/", customer.id);
    let line = json!({ "product_id": product, "quantity": 1 });
    let all = (0..50).map(|_| shop.call("POST", &cart).as_(&customer).key("add").json(&line).send());
    let replies = join_all(all).await;
    let ran: Vec<_> = replies.iter().filter(|reply| reply.status.as_u16() == 201).collect();
    assert_eq!(ran.iter().filter(|reply| reply.header("idempotent-replayed").is_none()).count(), 1);
    for reply in &replies {
        if reply.status.as_u16() != 201 {
            reply.problem(409, "request_in_progress");
            assert!(reply.header("retry-after").is_some());
        }
    }
    assert_eq!(shop.call("GET", &cart).as_(&customer).send().await.expect(200)["count"], 1);
}

#[actix_web::test]
async fn p04_the_same_key_of_another_user_is_another_key() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let line = json!({ "product_id": product, "quantity": 1 });
    for email in ["ada@example.com", "eve@example.com"] {
        let person = shop.customer(email).await;
        let cart = format!("/user/{}/cart/", person.id);
        let reply = shop.call("POST", &cart).as_(&person).key("same").json(&line).send().await;
        reply.expect(201);
        assert_eq!(reply.header("idempotent-replayed"), None);
    }
}

#[actix_web::test]
async fn p05_money_moves_under_a_key_only() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let invoice = shop.checked_out(&customer, &product).await;
    let path = format!("/invoices/{}", invoice["id"].as_str().unwrap());
    let token = json!({ "token": "tok_ok" });
    let pay = || shop.call("POST", &format!("{path}/pay")).as_(&customer).json(&token);
    pay().send().await.problem(400, "idempotency_key_required");
    let refund = shop.call("POST", &format!("{path}/refund")).as_(&admin).send().await;
    refund.problem(400, "idempotency_key_required");
    let paid = pay().key("pay").send().await.expect(200);
    assert_eq!(paid["status"], "paid");
    let again = pay().key("pay").send().await;
    assert_eq!(again.expect(200)["id"], paid["id"]);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    pay().key("another").send().await.problem(409, "already_paid");
}

#[actix_web::test]
async fn an_answer_that_takes_too_long_is_unknown_and_said_to_be() {
    let shop = TestShop::with(|settings| settings.http.request_timeout = std::time::Duration::from_secs(1)).await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let invoice = shop.checked_out(&customer, &product).await;
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    // The provider takes three seconds over this one.
    let slow = || shop.call("POST", &pay).as_(&customer).key("slow").json(&json!({ "token": "tok_slow" })).send();
    slow().await.problem(504, "deadline_exceeded");
    // The rest of the shop does not wait.
    shop.call("GET", "/me").as_(&customer).send().await.expect(200);
    for _ in 0..100 {
        let again = slow().await;
        if again.status.as_u16() == 200 {
            assert_eq!(again.expect(200)["status"], "paid");
            return;
        }
        assert!(matches!(again.status.as_u16(), 409 | 504), "{again:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("never paid");
}
