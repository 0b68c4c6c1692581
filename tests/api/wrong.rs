//! Every path that takes a body, with everything that can be wrong with one: told as a problem, and nothing changes.

use serde_json::{Value, json};

use crate::support::{Person, TestShop, new_product};

/// What of the shop a wrong request could have changed.
async fn state(shop: &TestShop, admin: &Person, customer: &Person) -> Vec<Value> {
    let mut state = Vec::new();
    for path in ["/products?variants=all", "/users", "/invoices", "/emails", "/api_keys"] {
        state.push(shop.call("GET", path).as_(admin).send().await.expect(200));
    }
    for path in [format!("/user/{}/cart", customer.id), "/api_keys".to_owned(), "/me".to_owned()] {
        state.push(shop.call("GET", &path).as_(customer).send().await.expect(200));
    }
    state
}

#[actix_web::test]
async fn h01_wrong_bodies_are_told_and_change_nothing() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 5).await;
    let cart = format!("/user/{}/cart", customer.id);
    let line = json!({ "product_id": product, "quantity": 1 });
    let item = shop.call("POST", &cart).as_(&customer).json(&line).send().await.expect(201);
    shop.settle().await;
    let before = state(&shop, &admin, &customer).await;
    let invoice = json!({ "user_id": customer.id, "currency": "EUR", "lines": [
        { "description": "Work", "quantity": 1, "unit_price": 1 }] });
    let token = json!({ "token": "tok_ok" });
    // A good body for each, and the names in it without which it is none.
    let paths: Vec<(&str, String, &Person, Value, &[&str])> = vec![
        (
            "POST",
            "/user".into(),
            &customer,
            json!({ "email": "n@example.com", "password": "12345678", "name": "N" }),
            &["email", "password", "name"],
        ),
        ("PUT", format!("/user/{}", customer.id), &customer, json!({ "name": "N" }), &[]),
        ("PATCH", format!("/user/{}", customer.id), &customer, json!({ "name": "N" }), &[]),
        (
            "POST",
            "/signin".into(),
            &customer,
            json!({ "email": "ada@example.com", "password": "x" }),
            &["email", "password"],
        ),
        ("POST", "/password/forgot".into(), &customer, json!({ "email": "nobody@example.com" }), &["email"]),
        (
            "POST",
            "/password/reset".into(),
            &customer,
            json!({ "token": "x", "password": "12345678" }),
            &["token", "password"],
        ),
        ("POST", "/email/verify".into(), &customer, json!({ "token": "x" }), &["token"]),
        ("POST", "/api_keys".into(), &customer, json!({ "name": "till" }), &["name"]),
        ("POST", "/product".into(), &admin, new_product("JUG", 900, 1), &["name", "sku", "price", "currency", "stock"]),
        (
            "PUT",
            format!("/product/{product}"),
            &admin,
            new_product("JUG", 900, 1),
            &["name", "sku", "price", "currency", "stock"],
        ),
        ("PATCH", format!("/product/{product}"), &admin, json!({ "price": 5 }), &[]),
        ("POST", format!("/product/{product}/comments"), &customer, json!({ "rating": 5, "text": "x" }), &["rating"]),
        ("POST", cart.clone(), &customer, line.clone(), &["product_id", "quantity"]),
        ("PUT", format!("{cart}/{}", item["id"].as_str().unwrap()), &customer, json!({ "quantity": 2 }), &["quantity"]),
        ("POST", format!("{cart}/checkout"), &customer, json!({ "email": "a@example.com" }), &[]),
        ("POST", "/invoices".into(), &admin, invoice, &["user_id", "lines", "currency"]),
        ("POST", format!("/invoices/{product}/pay"), &customer, token, &["token"]),
        ("POST", format!("/invoices/{product}/refund"), &admin, json!({ "amount": 1 }), &[]),
        (
            "POST",
            "/send_email".into(),
            &admin,
            json!({ "to": "a@example.com", "subject": "x", "text": "x" }),
            &["to", "subject", "text"],
        ),
        ("POST", "/log".into(), &customer, json!({ "action": "x" }), &["action"]),
    ];
    for (method, path, person, good, required) in &paths {
        let call = || shop.call(method, path).as_(person).key("wrong");
        call().raw("application/json", "{\"a\":").send().await.problem(400, "malformed_body");
        call().raw("application/json", vec![b'{', 0xff]).send().await.problem(400, "malformed_body");
        call().raw("text/plain", good.to_string()).send().await.problem(415, "unsupported_media_type");
        call().json(&json!([good])).send().await.problem(422, "validation_failed");
        call().json(&json!("text")).send().await.problem(422, "validation_failed");
        call().raw("application/json", vec![b' '; 1_100_000]).send().await.problem(413, "body_too_large");
        let mut more = good.clone();
        more["no_such_field"] = json!(1);
        let told = call().json(&more).send().await.problem(422, "validation_failed");
        assert_eq!(told["errors"][0]["field"], "no_such_field", "{method} {path}: {told}");
        for name in *required {
            let mut less = good.clone();
            less.as_object_mut().unwrap().remove(*name);
            let told = call().json(&less).send().await.problem(422, "validation_failed");
            assert_eq!(told["errors"][0]["field"], *name, "{method} {path}: {told}");
            for wrong in [json!(null), json!({ "a": 1 }), json!(true)] {
                let mut other = good.clone();
                other[*name] = wrong;
                let told = call().json(&other).send().await.problem(422, "validation_failed");
                assert!(told["errors"][0]["field"].as_str().unwrap().starts_with(name), "{method} {path}: {told}");
            }
        }
    }
    shop.settle().await;
    assert_eq!(state(&shop, &admin, &customer).await, before);
    shop.is_sound().await;
}

#[actix_web::test]
async fn what_is_no_id_names_nothing() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    for bad in ["abc", "1", "018f3c5e-0000-7000-8000", "%00", "%F0%9F%98%80", "'%20OR%201=1", "..%2f..%2fetc"] {
        for path in [
            format!("/user/{bad}"),
            format!("/product/{bad}"),
            format!("/product/{bad}/images"),
            format!("/product/{bad}/comments"),
            format!("/user/{bad}/cart"),
            format!("/user/{}/cart/{bad}", admin.id),
            format!("/invoices/{bad}"),
            format!("/emails/{bad}"),
        ] {
            shop.call("GET", &path).as_(&admin).send().await.expect(404);
        }
    }
}
