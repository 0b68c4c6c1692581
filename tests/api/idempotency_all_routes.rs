//! P2 on every route that changes something: fifty concurrent requests with one idempotency key, through two gateways
//! without shared memory, have their effect once.

use futures_util::future::join_all;
use mercat::web::{ROUTES, RouteGroup, RouteInfo};
use serde_json::{Value, json};

use crate::purchase::{form, png};
use crate::support::{PASSWORD, TestResponse, TestShop, TestUser, id, new_product, paris};

/// Concurrent requests per route.
const CONCURRENT_REQUESTS: usize = 50;

/// Routes that do not use idempotency keys, as method and path.
const EXEMPT_ROUTES: &[(&str, &str)] = &[
    // The provider's events have ids of their own, and p10 delivers one twice.
    ("POST", "/webhooks/stripe"),
    // A move to the present place changes nothing, and one move excludes another.
    ("POST", "/domains/{name}/move"),
    // Needs a mail server; the tests of the mailer send one key twice.
    ("POST", "/emails/{id}/resend"),
];

/// A request for one route.
struct RouteCase {
    method: &'static str,
    /// Path of the route, as in [`ROUTES`].
    route: &'static str,
    path: String,
    caller: Option<TestUser>,
    body: CaseBody,
    status: u16,
    /// State in which the effect is visible, after it has happened once.
    expected: Option<ExpectedState>,
}

enum CaseBody {
    None,
    Json(Value),
    Form(String, Vec<u8>),
}

/// Expected value in a response: the user who reads the path, a JSON pointer, and the value there, or the length of a
/// list there.
struct ExpectedState {
    reader: TestUser,
    path: String,
    pointer: &'static str,
    value: Value,
}

/// Routes of the API that change something.
fn mutating_routes() -> impl Iterator<Item = &'static RouteInfo> {
    ROUTES.iter().filter(|route| route.group == RouteGroup::Api && route.method != "GET")
}

/// Token in the newest e-mail to an address that links to `path`.
async fn mailed_token(shop: &TestShop, admin: &TestUser, to: &str, path: &str) -> String {
    shop.drain_events().await;
    let mails = shop.read(admin, &format!("/emails?to={to}&limit=100")).await;
    for mail in mails["items"].as_array().unwrap() {
        let mail = shop.read(admin, &format!("/emails/{}", id(mail))).await;
        if let Some((_, rest)) = mail["text"].as_str().unwrap_or_default().split_once(&format!("{path}?token=")) {
            return rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        }
    }
    panic!("no mail to {to} with a link to {path}: {mails}")
}

async fn cases(shop: &TestShop, admin: &TestUser) -> Vec<RouteCase> {
    let [ada, eve, bob] = ["ada@example.com", "eve@example.com", "bob@example.com"];
    let (ada, eve, bob) = (shop.customer(ada).await, shop.customer(eve).await, shop.customer(bob).await);
    let (new, begun, done) = (
        shop.customer("plain@example.com").await,
        shop.customer("begun@example.com").await,
        shop.customer("done@example.com").await,
    );
    let (begun_code, done_code) = (shop.enroll(&begun).await, shop.enroll(&done).await);
    let confirm = format!("/user/{}/totp/confirm", done.id);
    let codes =
        shop.call("POST", &confirm).with_user(&done).json(&json!({ "code": done_code })).send().await.expect(200);
    let tea = shop.product(admin, "TEA", 400, 1_000).await;
    let (old, gone) = (shop.product(admin, "OLD", 1, 1).await, shop.product(admin, "GONE", 1, 1).await);
    let picture = {
        let (kind, body) = form("file", &png());
        let path = format!("/product/{old}/images");
        shop.call("POST", &path).with_user(admin).raw(&kind, body).send().await.expect(201)
    };
    let comments = format!("/product/{tea}/comments");
    let comment_body = json!({ "rating": 4, "text": "Good." });
    let comment = shop.call("POST", &comments).with_user(&bob).json(&comment_body).send().await.expect(201);
    // A guest for each step of the cart.
    let mut buyers = Vec::new();
    for _ in 0..7 {
        let guest = shop.guest().await;
        let item = shop.add(&guest, &tea, 2).await;
        buyers.push((guest, item));
    }
    let cart = |n: usize| format!("/user/{}/cart", buyers[n].0.id);
    let line = |n: usize| format!("{}/{}", cart(n), id(&buyers[n].1));
    let caller = |n: usize| Some(buyers[n].0.clone());
    let invoice = async |n: usize| shop.check_out(&buyers[n].0, "prepared order").await.expect(201);
    let (unpaid, paid, void, cancelled) = (invoice(3).await, invoice(4).await, invoice(5).await, invoice(6).await);
    shop.pay(&buyers[4].0, id(&paid), "tok_ok", "prepared payment").await.expect(200);
    let key = async |name: &str| {
        let name = json!({ "name": name });
        shop.call("POST", "/api_keys").with_user(&eve).json(&name).send().await.expect(201)
    };
    let spare = key("spare").await;
    let addresses = format!("/user/{}/addresses", eve.id);
    let address = async || shop.call("POST", &addresses).with_user(&eve).json(&paris()).send().await.expect(201);
    let (changed, dropped) = (address().await, address().await);
    shop.drain_events().await;
    let notification = shop.read(&ada, "/notifications").await["items"][0].clone();
    let verify = mailed_token(shop, admin, &ada.email, "verify").await;
    shop.call("POST", "/password/forgot").json(&json!({ "email": bob.email })).send().await.expect(202);
    let reset = mailed_token(shop, admin, &bob.email, "reset").await;
    let leaving = shop.sign_in(&eve.email).await;
    let victim = shop.customer("victim@example.com").await;

    let expect = |reader: &TestUser, path: String, pointer, value| {
        Some(ExpectedState { reader: reader.clone(), path, pointer, value })
    };
    let by = |user: &TestUser| Some(user.clone());
    let case = |method, route, path: String, caller, body, status, expected| RouteCase {
        method,
        route,
        path,
        caller,
        body,
        status,
        expected,
    };
    let body = |value: Value| CaseBody::Json(value);
    let work = json!({ "user_id": bob.id, "currency": "EUR", "lines": [
        { "description": "Work", "quantity": 1, "unit_price": 100 }] });
    let (kind, file) = form("file", &png());
    let order = |n: usize| format!("/invoices?user_id={}", buyers[n].0.id);
    let of = |value: &Value| format!("/invoices/{}", id(value));
    #[rustfmt::skip]
    let cases = vec![
        case("POST", "/product", "/product".into(), by(admin), body(new_product("JUG", 900, 3)), 201,
            expect(admin, "/products?q=JUG".into(), "/items", json!(1))),
        case("PUT", "/product/{id}", format!("/product/{old}"), by(admin), body(new_product("OLD", 77, 9)), 200,
            expect(admin, format!("/product/{old}"), "/stock", json!(9))),
        case("PATCH", "/product/{id}", format!("/product/{old}"), by(admin), body(json!({ "price": 78 })), 200,
            expect(admin, format!("/product/{old}"), "/price", json!(78))),
        case("POST", "/product/{id}/stock", format!("/product/{old}/stock"), by(admin), body(json!({ "change": 2 })), 200,
            expect(admin, format!("/product/{old}"), "/stock", json!(11))),
        case("DELETE", "/product/{id}", format!("/product/{gone}"), by(admin), CaseBody::None, 204,
            expect(admin, format!("/product/{gone}"), "/deleted", json!(true))),
        case("POST", "/product/{id}/images", format!("/product/{tea}/images"), by(admin), CaseBody::Form(kind, file), 201,
            expect(admin, format!("/product/{tea}/images"), "/items", json!(1))),
        case("DELETE", "/product/{id}/images/{image_id}", format!("/product/{old}/images/{}", id(&picture)), by(admin),
            CaseBody::None, 204, expect(admin, format!("/product/{old}/images"), "/items", json!(0))),
        case("POST", "/product/{id}/comments", comments.clone(), by(&ada), body(comment_body), 201,
            expect(admin, comments.clone(), "/items", json!(2))),
        case("DELETE", "/product/{id}/comments/{comment_id}", format!("{comments}/{}", id(&comment)), by(&bob),
            CaseBody::None, 204, expect(admin, comments, "/items", json!(1))),
        case("POST", "/user/{id}/cart", cart(0), caller(0), body(json!({ "product_id": tea, "quantity": 3 })), 201,
            expect(&buyers[0].0, cart(0), "/count", json!(5))),
        case("PUT", "/user/{id}/cart/{item_id}", line(0), caller(0), body(json!({ "quantity": 7 })), 200,
            expect(&buyers[0].0, cart(0), "/count", json!(7))),
        case("DELETE", "/user/{id}/cart/{item_id}", line(1), caller(1), CaseBody::None, 204,
            expect(&buyers[1].0, cart(1), "/count", json!(0))),
        case("POST", "/user/{id}/cart/checkout", format!("{}/checkout", cart(2)), caller(2),
            body(json!({ "email": "guest@example.com" })), 201, expect(admin, order(2), "/items", json!(1))),
        case("DELETE", "/user/{id}/cart/checkout", format!("{}/checkout", cart(6)), caller(6), CaseBody::None, 204,
            expect(admin, of(&cancelled), "/status", json!("void"))),
        case("POST", "/invoices", "/invoices".into(), by(admin), body(work), 201,
            expect(admin, format!("/invoices?user_id={}", bob.id), "/items", json!(1))),
        case("POST", "/invoices/{id}/pay", format!("{}/pay", of(&unpaid)), caller(3), body(json!({ "token": "tok_ok" })),
            200, expect(admin, of(&unpaid), "/status", json!("paid"))),
        case("POST", "/invoices/{id}/refund", format!("{}/refund", of(&paid)), by(admin), body(json!({ "amount": 3 })),
            200, expect(admin, of(&paid), "/refunded", json!(3))),
        case("POST", "/invoices/{id}/void", format!("{}/void", of(&void)), by(admin), CaseBody::None, 200,
            expect(admin, of(&void), "/status", json!("void"))),
        case("POST", "/notifications/{id}/read", format!("/notifications/{}/read", id(&notification)), by(&ada), CaseBody::None,
            204, None),
        case("POST", "/user", "/user".into(), None,
            body(json!({ "email": "new@example.com", "password": PASSWORD, "name": "New" })), 201,
            expect(admin, "/users?q=new@example.com".into(), "/items", json!(1))),
        case("PUT", "/user/{id}", format!("/user/{}", ada.id), by(&ada), body(json!({ "name": "Ada L." })), 200,
            expect(admin, format!("/user/{}", ada.id), "/name", json!("Ada L."))),
        case("PATCH", "/user/{id}", format!("/user/{}", ada.id), by(&ada),
            body(json!({ "password": "another password", "current_password": PASSWORD })), 200, None),
        case("DELETE", "/user/{id}", format!("/user/{}", victim.id), by(admin), CaseBody::None, 204,
            expect(admin, "/users?q=victim@example.com".into(), "/items", json!(0))),
        case("POST", "/guest", "/guest".into(), None, CaseBody::None, 201, None),
        case("POST", "/signin", "/signin".into(), None, body(json!({ "email": eve.email, "password": PASSWORD })), 200,
            None),
        case("POST", "/signout", "/signout".into(), by(&leaving), CaseBody::None, 204, None),
        case("POST", "/password/forgot", "/password/forgot".into(), None, body(json!({ "email": eve.email })), 202,
            expect(admin, format!("/emails?to={}&limit=100", eve.email), "reset", json!(1))),
        case("POST", "/password/reset", "/password/reset".into(), None,
            body(json!({ "token": reset, "password": "a new password" })), 204, None),
        case("POST", "/email/verify", "/email/verify".into(), None, body(json!({ "token": verify })), 204,
            expect(admin, format!("/user/{}", ada.id), "/email_verified", json!(true))),
        case("POST", "/user/{id}/totp", format!("/user/{}/totp", new.id), by(&new), CaseBody::None, 200, None),
        case("POST", "/user/{id}/totp/confirm", format!("/user/{}/totp/confirm", begun.id), by(&begun),
            body(json!({ "code": begun_code })), 200, expect(&begun, "/me".into(), "/second_factor", json!(true))),
        case("DELETE", "/user/{id}/totp", format!("/user/{}/totp", done.id), by(&done),
            body(json!({ "code": codes["recovery_codes"][0] })), 204,
            expect(&done, "/me".into(), "/second_factor", json!(false))),
        case("POST", "/user/{id}/addresses", addresses.clone(), by(&eve), body(paris()), 201,
            expect(&eve, addresses.clone(), "/items", json!(3))),
        case("PUT", "/user/{id}/addresses/{address_id}", format!("{addresses}/{}", id(&changed)), by(&eve),
            body(paris()), 200, expect(&eve, addresses.clone(), "/items", json!(3))),
        case("DELETE", "/user/{id}/addresses/{address_id}", format!("{addresses}/{}", id(&dropped)), by(&eve),
            CaseBody::None, 204, expect(&eve, addresses.clone(), "/items", json!(2))),
        case("POST", "/api_keys", "/api_keys".into(), by(&eve), body(json!({ "name": "till" })), 201,
            expect(&eve, "/api_keys".into(), "/items", json!(2))),
        case("DELETE", "/api_keys/{id}", format!("/api_keys/{}", id(&spare)), by(&eve), CaseBody::None, 204,
            expect(&eve, "/api_keys".into(), "/items", json!(1))),
        case("POST", "/send_email", "/send_email".into(), by(admin),
            body(json!({ "to": "x@example.com", "subject": "Hello", "text": "Hello." })), 202,
            expect(admin, "/emails?to=x@example.com".into(), "/items", json!(1))),
        case("POST", "/log", "/log".into(), by(&eve), body(json!({ "action": "looked_once" })), 202,
            expect(admin, "/log?action=looked_once".into(), "/items", json!(1))),
    ];
    cases
}

fn call<'a>(shop: &'a TestShop, case: &RouteCase) -> crate::support::RequestBuilder<'a> {
    let call = shop.call(case.method, &case.path).idempotency_key(&format!("key of {} {}", case.method, case.route));
    let call = match &case.caller {
        Some(user) => call.with_user(user),
        None => call,
    };
    match &case.body {
        CaseBody::None => call,
        CaseBody::Json(body) => call.json(body),
        CaseBody::Form(kind, body) => call.raw(kind, body.clone()),
    }
}

/// Checks that one request ran, and that all others got the same response or had to wait. Returns the response.
fn assert_ran_once(case: &RouteCase, replies: &[TestResponse], errors: &mut Vec<String>) -> Option<String> {
    let name = format!("{} {}", case.method, case.route);
    let (mut ran, mut answer) = (0, None);
    for reply in replies {
        let status = reply.status.as_u16();
        if status == case.status {
            ran += usize::from(!reply.is_replay());
            let first = answer.get_or_insert_with(|| reply.text());
            if *first != reply.text() {
                errors.push(format!("{name} answers {first} and {}", reply.text()));
            }
        } else if status == 409 && reply.json()["code"] == "request_in_progress" {
            if reply.header("retry-after").is_none() {
                errors.push(format!("{name} has no Retry-After"));
            }
        } else if case.route != "/signout" || status != 401 {
            // The session of the others has ended.
            errors.push(format!("{name} answers {status} {}", reply.text()));
        }
    }
    if ran != 1 {
        errors.push(format!("{name} ran {ran} times"));
    }
    answer
}

#[actix_web::test]
async fn p02_concurrent_requests_with_one_key_run_once() {
    let mut shop = TestShop::open_with(|settings| settings.users.hashers = 4).await;
    shop.start_second_gateway();
    let admin = shop.admin().await;
    let cases = cases(&shop, &admin).await;
    let mut errors = Vec::new();
    for route in mutating_routes() {
        let has_case = cases.iter().any(|case| case.method == route.method && case.route == route.path);
        if !has_case && !EXEMPT_ROUTES.contains(&(route.method, route.path)) {
            errors.push(format!("{route:?} has no case"));
        }
    }
    for case in &cases {
        if !mutating_routes().any(|route| route.method == case.method && route.path == case.route) {
            errors.push(format!("{} {} is no route", case.method, case.route));
        }
    }
    for case in &cases {
        let all = (0..CONCURRENT_REQUESTS).map(|n| {
            let call = call(&shop, case);
            if n % 2 == 0 { call.send() } else { call.via_second_gateway().send() }
        });
        let replies = join_all(all).await;
        let answer = assert_ran_once(case, &replies, &mut errors);
        if case.route != "/signout" {
            let again = call(&shop, case).send().await;
            if again.status.as_u16() != case.status || !again.is_replay() || Some(again.text()) != answer {
                errors.push(format!("{} {} again: {} {}", case.method, case.route, again.status, again.text()));
            }
        }
        let Some(ExpectedState { reader, path, pointer, value }) = &case.expected else { continue };
        shop.drain_events().await;
        let shown = shop.read(reader, path).await;
        let found = match *pointer {
            "reset" => json!(crate::support::count(&shown, "template", "reset")),
            pointer => match shown.pointer(pointer) {
                Some(Value::Array(items)) => json!(items.len()),
                other => other.cloned().unwrap_or_default(),
            },
        };
        if found != *value {
            errors.push(format!("{} {}: {path} shows {found} for {value}", case.method, case.route));
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    shop.assert_consistent().await;
}
