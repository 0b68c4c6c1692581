//! Every route with a JSON body, with every kind of invalid body: rejected with a problem, and nothing changes.

use mercat::web::{BodyInfo, ROUTES, RouteInfo};
use serde_json::{Value, json};

use crate::support::{TestShop, TestUser, new_product, paris};

/// Data that an invalid request could have changed.
async fn snapshot(shop: &TestShop, admin: &TestUser, customer: &TestUser) -> Vec<Value> {
    let mut snapshot = Vec::new();
    for path in ["/products?variants=all", "/users", "/invoices", "/emails", "/api_keys"] {
        snapshot.push(shop.call("GET", path).with_user(admin).send().await.expect(200));
    }
    for path in
        [format!("/user/{}/cart", customer.id), "/api_keys".to_owned(), "/countries".to_owned(), "/me".to_owned()]
    {
        snapshot.push(shop.call("GET", &path).with_user(customer).send().await.expect(200));
    }
    snapshot
}

/// A valid request for a route with a JSON body.
struct Case<'a> {
    method: &'static str,
    path: String,
    caller: &'a TestUser,
    body: Value,
}

/// The case of a route.
fn case_of<'a, 'b>(cases: &'b [Case<'a>], route: &RouteInfo) -> &'b Case<'a> {
    let is_for = |case: &&Case<'_>| {
        let first = ROUTES.iter().find(|route| route.matches(case.method, &case.path));
        first.is_some_and(|first| std::ptr::eq(first, route))
    };
    cases.iter().find(is_for).unwrap_or_else(|| panic!("{route:?} has no case"))
}

#[actix_web::test]
async fn h01_invalid_bodies_are_rejected_and_change_nothing() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 5).await;
    let cart = format!("/user/{}/cart", customer.id);
    let line = json!({ "product_id": product, "quantity": 1 });
    let item = shop.call("POST", &cart).with_user(&customer).json(&line).send().await.expect(201);
    let (addresses, address) = (format!("/user/{}/addresses", customer.id), paris());
    let saved = shop.call("POST", &addresses).with_user(&customer).json(&address).send().await.expect(201);
    shop.drain_events().await;
    let before = snapshot(&shop, &admin, &customer).await;
    let invoice = json!({ "user_id": customer.id, "currency": "EUR", "lines": [
        { "description": "Work", "quantity": 1, "unit_price": 1 }] });
    let (user, one_product) = (format!("/user/{}", customer.id), format!("/product/{product}"));
    let case = |caller, method, path: &str, body| Case { method, path: path.to_owned(), caller, body };
    let (by_customer, by_admin) = (&customer, &admin);
    #[rustfmt::skip]
    let cases = [
        case(by_customer, "POST", "/user", json!({ "email": "n@example.com", "password": "eightchr", "name": "N" })),
        case(by_customer, "PUT", &user, json!({ "name": "N" })),
        case(by_customer, "PATCH", &user, json!({ "name": "N" })),
        case(by_customer, "POST", "/signin", json!({ "email": "ada@example.com", "password": "x" })),
        case(by_customer, "POST", "/password/forgot", json!({ "email": "unknown@example.com" })),
        case(by_customer, "POST", "/password/reset", json!({ "token": "x", "password": "eightchr" })),
        case(by_customer, "POST", "/email/verify", json!({ "token": "x" })),
        case(by_customer, "POST", &format!("{user}/totp/confirm"), json!({ "code": "x" })),
        case(by_customer, "DELETE", &format!("{user}/totp"), json!({ "code": "x" })),
        case(by_customer, "POST", "/api_keys", json!({ "name": "till" })),
        case(by_customer, "POST", &addresses, address.clone()),
        case(by_customer, "PUT", &format!("{addresses}/{}", saved["id"].as_str().unwrap()), address.clone()),
        case(by_admin, "POST", "/product", new_product("JUG", 900, 1)),
        case(by_admin, "PUT", &one_product, new_product("JUG", 900, 1)),
        case(by_admin, "PATCH", &one_product, json!({ "price": 5 })),
        case(by_admin, "POST", &format!("{one_product}/stock"), json!({ "change": 1 })),
        case(by_customer, "POST", &format!("{one_product}/comments"), json!({ "rating": 5, "text": "x" })),
        case(by_customer, "POST", &cart, line.clone()),
        case(by_customer, "PUT", &format!("{cart}/{}", item["id"].as_str().unwrap()), json!({ "quantity": 2 })),
        case(by_customer, "POST", &format!("{cart}/checkout"), json!({ "email": "a@example.com" })),
        case(by_admin, "POST", "/invoices", invoice),
        case(by_customer, "POST", &format!("/invoices/{product}/pay"), json!({ "token": "tok_ok" })),
        case(by_admin, "POST", &format!("/invoices/{product}/refund"), json!({ "amount": 1 })),
        case(by_admin, "POST", "/send_email", json!({ "to": "a@example.com", "subject": "x", "text": "x" })),
        case(by_customer, "POST", "/log", json!({ "action": "x" })),
        case(by_admin, "POST", "/domains/mailer/move", json!({ "to": "local" })),
    ];
    for route in ROUTES {
        if let BodyInfo::Json { required, is_optional, .. } = route.body {
            let case = case_of(&cases, route);
            reject_unreadable(&shop, case, is_optional).await;
            reject_invalid_fields(&shop, case, required).await;
        }
    }
    shop.drain_events().await;
    assert_eq!(snapshot(&shop, &admin, &customer).await, before);
    shop.assert_consistent().await;
}

fn call<'a>(shop: &'a TestShop, case: &Case<'_>) -> crate::support::RequestBuilder<'a> {
    shop.call(case.method, &case.path).with_user(case.caller).idempotency_key("invalid")
}

async fn reject_unreadable(shop: &TestShop, case: &Case<'_>, is_optional: bool) {
    let call = || call(shop, case);
    call().raw("application/json", "{\"a\":").send().await.expect_problem(400, "malformed_body");
    call().raw("application/json", vec![b'{', 0xff]).send().await.expect_problem(400, "malformed_body");
    call().raw("text/plain", case.body.to_string()).send().await.expect_problem(415, "unsupported_media_type");
    call().json(&json!([case.body])).send().await.expect_problem(422, "validation_failed");
    call().json(&json!("text")).send().await.expect_problem(422, "validation_failed");
    call().raw("application/json", vec![b' '; 1_100_000]).send().await.expect_problem(413, "body_too_large");
    if !is_optional {
        call().raw("application/json", "").send().await.expect_problem(400, "malformed_body");
    }
}

async fn reject_invalid_fields(shop: &TestShop, case: &Case<'_>, required: &[&str]) {
    let Case { method, path, body, .. } = case;
    let reject = async |body: &Value| call(shop, case).json(body).send().await.expect_problem(422, "validation_failed");
    let mut unknown = body.clone();
    unknown["no_such_field"] = json!(1);
    let problem = reject(&unknown).await;
    assert_eq!(problem["errors"][0]["field"], "no_such_field", "{method} {path}: {problem}");
    for name in required {
        let mut missing = body.clone();
        missing.as_object_mut().unwrap().remove(*name);
        let problem = reject(&missing).await;
        assert_eq!(problem["errors"][0]["field"], *name, "{method} {path}: {problem}");
        for value in [json!(null), json!({ "a": 1 }), json!(true)] {
            let mut mistyped = body.clone();
            mistyped[*name] = value;
            let problem = reject(&mistyped).await;
            assert!(problem["errors"][0]["field"].as_str().unwrap().starts_with(name), "{method} {path}: {problem}");
        }
    }
}

#[actix_web::test]
async fn malformed_id_is_not_found() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    for bad in ["abc", "1", "018f3c5e-0000-7000-8000", "%00", "%F0%9F%98%80", "'%20OR%201=1", "..%2f..%2fetc"] {
        for path in [
            format!("/user/{bad}"),
            format!("/product/{bad}"),
            format!("/product/{bad}/images"),
            format!("/product/{bad}/stock"),
            format!("/product/{bad}/comments"),
            format!("/user/{bad}/cart"),
            format!("/user/{}/cart/{bad}", admin.id),
            format!("/invoices/{bad}"),
            format!("/emails/{bad}"),
        ] {
            shop.call("GET", &path).with_user(&admin).send().await.expect(404);
        }
    }
}
