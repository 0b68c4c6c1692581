//! Idempotent requests: repetition, and what counts as the same request. P1, P4, P5, P6; P2 is in `idempotency_all_routes`, P3 in
//! `process_death`.

use std::time::Duration;

use mercat::settings::Settings;
use mercat::types::Clock;
use serde_json::{Value, json};

use crate::fake_provider::FakeProvider;
use crate::support::{TestResponse, TestShop, TestUser, WAIT_TIMEOUT, id, new_product};

#[actix_web::test]
async fn p01_same_key_returns_first_response() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let create =
        |body: &Value| shop.call("POST", "/product/").with_user(&admin).idempotency_key("k1").json(body).send();
    let body = new_product("TEA", 400, 5);
    let first = create(&body).await;
    let product = first.expect(201);
    assert_eq!(first.header("idempotent-replayed"), None);
    let again = create(&body).await;
    assert_eq!(again.expect(201), product);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(again.header("location"), first.header("location"));
    // A quoted key is the same key; with another body it is another request.
    let quoted = shop.call("POST", "/product").with_user(&admin).idempotency_key("\"k1\"").json(&body).send().await;
    assert_eq!(quoted.expect(201), product);
    create(&new_product("TEA", 401, 5)).await.expect_problem(422, "idempotency_key_reused");
    assert_eq!(shop.get("/products").await.expect(200)["items"].as_array().unwrap().len(), 1);
    shop.assert_consistent().await;
}

/// Everything that an order can change.
async fn state(shop: &TestShop, admin: &TestUser, customer: &TestUser) -> Vec<Value> {
    shop.assert_consistent().await;
    let mut state = Vec::new();
    for path in [
        "/products?variants=all",
        "/invoices?limit=100",
        "/emails?limit=100",
        "/notifications?limit=100",
        "/log?limit=100",
    ] {
        state.push(shop.read(admin, path).await);
    }
    // The rest of the summary depends on the time of the request.
    state.push(shop.read(admin, "/stats/summary").await["totals"].take());
    for path in [format!("/user/{}/cart", customer.id), "/notifications?limit=100".to_owned()] {
        state.push(shop.read(customer, &path).await);
    }
    state
}

#[actix_web::test]
async fn p01_order_repeated_step_by_step_is_one_order() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 10).await;
    let cart = format!("/user/{}/cart", customer.id);
    let mut steps: Vec<(&TestUser, String, &str, Value, u16)> = vec![
        (&customer, cart.clone(), "add", json!({ "product_id": product, "quantity": 3 }), 201),
        (&customer, format!("{cart}/checkout"), "order", json!({}), 201),
    ];
    let mut answers: Vec<Value> = Vec::new();
    let mut at = 0;
    while at < steps.len() {
        let (who, path, key, body, status) = &steps[at];
        let send = || shop.call("POST", path).with_user(who).idempotency_key(key).json(body).send();
        let first = send().await;
        let answer = first.expect(*status);
        assert!(!first.is_replay());
        let after = state(&shop, &admin, &customer).await;
        // This step again, and each step before it.
        let again = send().await;
        assert_eq!((again.expect(*status), again.is_replay()), (answer.clone(), true));
        for name in ["location", "content-type"] {
            assert_eq!(again.header(name), first.header(name), "{path}");
        }
        for ((who, path, key, body, status), before) in steps.iter().zip(&answers) {
            let again = shop.call("POST", path).with_user(who).idempotency_key(key).json(body).send().await;
            assert_eq!((again.expect(*status), again.is_replay()), (before.clone(), true));
        }
        assert_eq!(state(&shop, &admin, &customer).await, after, "{path} again has changed something");
        if at == 1 {
            let invoice = format!("/invoices/{}", id(&answer));
            steps.push((&customer, format!("{invoice}/pay"), "pay", json!({ "token": "tok_ok" }), 200));
            steps.push((&admin, format!("{invoice}/refund"), "part", json!({ "amount": 100 }), 200));
            steps.push((&admin, format!("{invoice}/refund"), "rest", json!({ "restock": true }), 200));
        }
        answers.push(answer);
        at += 1;
    }
    assert_eq!((shop.count_emails(&admin, "receipt").await, shop.count_emails(&admin, "refund").await), (1, 2));
    assert_eq!((shop.stock_of(&product).await, shop.count_notifications(&customer, "invoice_paid").await), (10, 1));
}

#[actix_web::test]
async fn p04_key_is_scoped_to_user_and_api_key() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let line = json!({ "product_id": product, "quantity": 1 });
    for email in ["ada@example.com", "eve@example.com"] {
        let user = shop.customer(email).await;
        let cart = format!("/user/{}/cart/", user.id);
        let add = async |user: &TestUser| {
            shop.call("POST", &cart).with_user(user).idempotency_key("same").json(&line).send().await
        };
        let reply = add(&user).await;
        assert_eq!((&reply.expect(201)["quantity"], reply.is_replay()), (&json!(1), false));
        for (n, name) in (2..).zip(["till", "phone"]) {
            let name = json!({ "name": name });
            let key = shop.call("POST", "/api_keys").with_user(&user).json(&name).send().await.expect(201);
            let till = TestUser { token: key["token"].as_str().unwrap().to_owned(), ..user.clone() };
            let reply = add(&till).await;
            assert_eq!((&reply.expect(201)["quantity"], reply.is_replay()), (&json!(n), false));
            assert!(add(&till).await.is_replay());
        }
        // Another session of the same user is the same user.
        let other_path = shop.sign_in(email).await;
        assert!(add(&other_path).await.is_replay());
    }
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p04_key_with_another_request_is_rejected() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let (tea, pot) = (shop.product(&admin, "TEA", 400, 100).await, shop.product(&admin, "POT", 900, 100).await);
    let customer = shop.customer("ada@example.com").await;
    let patch = |path: &str, price: i64, key: &str| {
        shop.call("PATCH", path).with_user(&admin).idempotency_key(key).json(&json!({ "price": price })).send()
    };
    let (teas, pots) = (format!("/product/{tea}"), format!("/product/{pot}"));
    patch(&teas, 500, "k").await.expect(200);
    patch(&teas, 501, "k").await.expect_problem(422, "idempotency_key_reused");
    patch(&pots, 500, "k").await.expect_problem(422, "idempotency_key_reused");
    patch(&format!("{teas}?currency=EUR"), 500, "k").await.expect_problem(422, "idempotency_key_reused");
    let deleted = shop.call("DELETE", &teas).with_user(&admin).idempotency_key("k").send().await;
    deleted.expect_problem(422, "idempotency_key_reused");
    // A request for another domain is another request too.
    let work = json!({ "user_id": customer.id, "currency": "EUR", "lines": [
        { "description": "Work", "quantity": 1, "unit_price": 1 }] });
    let invoice = shop.call("POST", "/invoices").with_user(&admin).idempotency_key("k").json(&work).send().await;
    invoice.expect_problem(422, "idempotency_key_reused");
    let log = shop
        .call("POST", "/log")
        .with_user(&admin)
        .idempotency_key("k")
        .json(&json!({ "action": "looked" }))
        .send()
        .await;
    log.expect_problem(422, "idempotency_key_reused");
    assert_eq!(shop.read(&admin, "/invoices").await["items"], json!([]));
    // A trailing slash is no other path, and white space in the body no other body.
    let again = shop.call("PATCH", &format!("{teas}/")).with_user(&admin).idempotency_key("k");
    let again = again.raw("application/json", " { \"price\" :  500 } ").send().await;
    assert_eq!((&again.expect(200)["price"], again.is_replay()), (&json!(500), true));
    assert_eq!(shop.get(&pots).await.expect(200)["price"], 900);
    // Payments: another invoice, token or amount.
    let mine = [shop.checkout_with_one(&customer, &tea).await, {
        let eve = shop.customer("eve@example.com").await;
        shop.checkout_with_one(&eve, &tea).await
    }];
    shop.pay(&customer, id(&mine[0]), "tok_ok", "p").await.expect(200);
    shop.pay(&customer, id(&mine[0]), "tok_slow", "p").await.expect_problem(422, "idempotency_key_reused");
    shop.pay(&customer, id(&mine[1]), "tok_ok", "p").await.expect_problem(422, "idempotency_key_reused");
    let refund = async |amount: i64| {
        let path = format!("/invoices/{}/refund", id(&mine[0]));
        shop.call("POST", &path).with_user(&admin).idempotency_key("r").json(&json!({ "amount": amount })).send().await
    };
    refund(1).await.expect(200);
    refund(2).await.expect_problem(422, "idempotency_key_reused");
    assert!(refund(1).await.is_replay());
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p04_bare_and_quoted_match_and_invalid_is_400() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let create = |key: &str, sku: &str| {
        shop.call("POST", "/product").with_user(&admin).idempotency_key(key).json(&new_product(sku, 1, 1)).send()
    };
    let longest = "k".repeat(255);
    for (n, (first, second)) in [
        ("bare", "\"bare\""),
        ("\"quoted\"", "quoted"),
        (longest.as_str(), format!("\"{longest}\"").as_str()),
        ("a b:/?#", "  a b:/?#  "),
    ]
    .into_iter()
    .enumerate()
    {
        let made = create(first, &format!("SKU-{n}")).await;
        let again = create(second, &format!("SKU-{n}")).await;
        assert_eq!((again.expect(201), again.is_replay()), (made.expect(201), true), "{first}");
    }
    let (long, longer) = ("k".repeat(256), format!("\"{}\"", "k".repeat(256)));
    for bad in [long.as_str(), longer.as_str(), "", "\"\"", "a\"b", "caf\u{e9}", "a\tb"] {
        create(bad, "BAD").await.expect_problem(400, "invalid_idempotency_key");
    }
    // An unbalanced quote is not another spelling.
    create("\"bare", "BAD").await.expect_problem(400, "invalid_idempotency_key");
    assert_eq!(shop.get("/products?limit=100").await.expect(200)["items"].as_array().unwrap().len(), 4);
}

#[actix_web::test]
async fn p04_keys_live_24_hours_and_survive_restart() {
    let clock = Clock::system();
    let shop = TestShop::open_in(tempfile::tempdir().unwrap(), clock.clone(), |_| {}).await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let cart = format!("/user/{}/cart", customer.id);
    let line = json!({ "product_id": product, "quantity": 1 });
    let add = async |shop: &TestShop| {
        shop.call("POST", &cart).with_user(&customer).idempotency_key("add").json(&line).send().await
    };
    let added = add(&shop).await.expect(201);
    let invoice = shop.check_out(&customer, "order").await.expect(201);
    let paid = shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect(200);
    shop.assert_consistent().await;
    let shop = TestShop::open_in(shop.close().await, clock.clone(), |_| {}).await;
    clock.advance(Duration::from_secs(24 * 60 * 60 - 300));
    for (again, before) in [
        (add(&shop).await, &added),
        (shop.check_out(&customer, "order").await, &invoice),
        (shop.pay(&customer, id(&invoice), "tok_ok", "pay").await, &paid),
    ] {
        assert!(again.is_replay(), "{again:?}");
        assert_eq!(again.json(), *before);
    }
    clock.advance(Duration::from_secs(600));
    let anew = add(&shop).await;
    assert_eq!((&anew.expect(201)["quantity"], anew.is_replay()), (&json!(1), false));
    let other = json!({ "product_id": product, "quantity": 2 });
    let reused = shop.call("POST", &cart).with_user(&customer).idempotency_key("add").json(&other).send().await;
    reused.expect_problem(422, "idempotency_key_reused");
    shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect_problem(409, "already_paid");
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p05_pay_and_refund_require_key() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let invoice = shop.checkout_with_one(&customer, &product).await;
    let path = format!("/invoices/{}", invoice["id"].as_str().unwrap());
    let token = json!({ "token": "tok_ok" });
    let pay = || shop.call("POST", &format!("{path}/pay")).with_user(&customer).json(&token);
    pay().send().await.expect_problem(400, "idempotency_key_required");
    let refund = shop.call("POST", &format!("{path}/refund")).with_user(&admin).send().await;
    refund.expect_problem(400, "idempotency_key_required");
    let paid = pay().idempotency_key("pay").send().await.expect(200);
    assert_eq!(paid["status"], "paid");
    let again = pay().idempotency_key("pay").send().await;
    assert_eq!(again.expect(200)["id"], paid["id"]);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    pay().idempotency_key("another").send().await.expect_problem(409, "already_paid");
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p06_rejections_are_not_stored() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 1).await;
    let fresh = |reply: TestResponse, status: u16| {
        assert!(!reply.is_replay());
        reply.expect(status)
    };
    // 422, then a valid request, and on another path: nothing ran, so the key is still free.
    let create =
        |body: Value| shop.call("POST", "/product").with_user(&admin).idempotency_key("create").json(&body).send();
    create(json!({ "name": "" })).await.expect_problem(422, "validation_failed");
    create(new_product("TEA", 1, 1)).await.expect_problem(409, "sku_taken");
    fresh(create(new_product("POT", 1, 1)).await, 201);
    let other_path = |path: &str, body: Value| {
        shop.call("POST", path).with_user(&admin).idempotency_key("other_path").json(&body).send()
    };
    other_path("/product", json!({ "name": "" })).await.expect_problem(422, "validation_failed");
    fresh(other_path("/log", json!({ "action": "looked" })).await, 202);
    // 409: the same request succeeds once its cause is gone.
    let cart = format!("/user/{}/cart", customer.id);
    let two = json!({ "product_id": product, "quantity": 2 });
    let add = || shop.call("POST", &cart).with_user(&customer).idempotency_key("add").json(&two).send();
    shop.check_out(&customer, "order").await.expect_problem(409, "cart_empty");
    add().await.expect_problem(409, "out_of_stock");
    let stock = json!({ "stock": 2 });
    shop.call("PATCH", &format!("/product/{product}")).with_user(&admin).json(&stock).send().await.expect(200);
    fresh(add().await, 201);
    // A rejected checkout is undone: cart unlocked, stock released, no invoice, key free.
    let less = json!({ "stock": 1 });
    shop.call("PATCH", &format!("/product/{product}")).with_user(&admin).json(&less).send().await.expect(200);
    shop.check_out(&customer, "order").await.expect_problem(409, "out_of_stock");
    assert_eq!((shop.stock_of(&product).await, shop.read(&customer, &cart).await["invoice_id"].is_null()), (1, true));
    shop.assert_consistent().await;
    shop.call("PATCH", &format!("/product/{product}")).with_user(&admin).json(&stock).send().await.expect(200);
    let invoice = fresh(shop.check_out(&customer, "order").await, 201);
    // 502: nothing was captured, the invoice is open, the key free. 402 is the bank's answer: the same request gets it again.
    let path = format!("/invoices/{}", id(&invoice));
    for (key, token, status, code, is_replay) in [
        ("declined", "tok_declined", 402, "card_declined", false),
        ("declined", "tok_declined", 402, "card_declined", true),
        ("pay", "tok_error", 502, "provider_failed", false),
        ("pay", "tok_flaky", 502, "provider_failed", false),
    ] {
        let refused = shop.pay(&customer, id(&invoice), token, key).await;
        refused.expect_problem(status, code);
        assert_eq!(refused.is_replay(), is_replay, "{token}");
        let now = shop.read(&customer, &path).await;
        assert_eq!((&now["status"], &now["processing"]), (&json!("open"), &json!(false)));
    }
    let paid = fresh(shop.pay(&customer, id(&invoice), "tok_flaky", "pay").await, 200);
    assert!(shop.pay(&customer, id(&invoice), "tok_flaky", "pay").await.is_replay());
    // The same for refunds.
    let refund = |amount: i64| {
        let refund = shop.call("POST", &format!("{path}/refund")).with_user(&admin).idempotency_key("back");
        refund.json(&json!({ "amount": amount })).send()
    };
    refund(paid["total"].as_i64().unwrap() + 1).await.expect_problem(409, "refund_too_large");
    refund(-1).await.expect_problem(422, "validation_failed");
    assert_eq!(fresh(refund(1).await, 200)["refunded"], 1);
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn p06_failed_work_is_finished_and_not_rerun() {
    for broken in ["catalog.HoldStock", "payments.CreateInvoice"] {
        let shop = TestShop::open().await;
        let admin = shop.admin().await;
        let customer = shop.customer("ada@example.com").await;
        let product = shop.product(&admin, "TEA", 400, 10).await;
        shop.add(&customer, &product, 3).await;
        let path = format!("/user/{}/cart/checkout", customer.id);
        let email = json!({ "email": format!("{}@example.com", customer.id) });
        let fails = shop
            .call("POST", &path)
            .with_user(&customer)
            .idempotency_key("order")
            .header("x-test-panic", broken)
            .json(&email);
        fails.send().await.expect_problem(500, "internal");
        // The progress of the failed request is unknown, so no other may begin.
        let begun = std::time::Instant::now();
        let again = loop {
            let again = shop.check_out(&customer, "order").await;
            if again.status.as_u16() == 201 {
                break again;
            }
            again.expect_problem(409, "request_in_progress");
            assert!(begun.elapsed() < WAIT_TIMEOUT, "{broken}: it was never finished");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // The shop finished it; the response is the one that was stored.
        assert!(again.is_replay(), "{broken}: it was run again");
        let invoices = shop.read(&admin, "/invoices").await;
        assert_eq!(invoices["items"].as_array().unwrap().len(), 1);
        assert_eq!((&invoices["items"][0]["total"], shop.stock_of(&product).await), (&json!(1_200), 7));
        shop.assert_consistent().await;
    }
}

#[actix_web::test]
async fn slow_request_returns_504_and_completes_later() {
    let provider = FakeProvider::default();
    let timeout = |settings: &mut Settings| settings.http.request_timeout = Duration::from_secs(5);
    let shop = provider.open_shop_in(tempfile::tempdir().unwrap(), Clock::system(), timeout).await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let invoice = shop.checkout_with_one(&customer, &product).await;
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    let slow = || {
        shop.call("POST", &pay).with_user(&customer).idempotency_key("slow").json(&json!({ "token": "tok_ok" })).send()
    };
    provider.ledger().hold_next_response = true;
    slow().await.expect_problem(504, "deadline_exceeded");
    // Other requests do not wait.
    shop.call("GET", "/me").with_user(&customer).send().await.expect(200);
    slow().await.expect_problem(409, "request_in_progress");
    provider.release_responses();
    let begun = std::time::Instant::now();
    while begun.elapsed() < WAIT_TIMEOUT {
        let again = slow().await;
        if again.status.as_u16() == 200 {
            assert_eq!(again.expect(200)["status"], "paid");
            shop.assert_consistent().await;
            return;
        }
        assert!(matches!(again.status.as_u16(), 409 | 504), "{again:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never paid");
}
