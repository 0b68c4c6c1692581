//! P2 on every path that changes something: fifty at once with one key, through two gateways that know nothing of each
//! other, and it has happened once.

use futures_util::future::join_all;
use mercat::web::{ROUTES, RouteGroup, RouteInfo};
use serde_json::{Value, json};

use crate::purchase::{form, png};
use crate::support::{PASSWORD, TestResponse, TestShop, TestUser, id, new_product};

const AT_ONCE: usize = 50;

/// Routes where a key has no say: `METHOD path` and why.
const APART: &[(&str, &str)] = &[
    // The provider names each piece of news itself, and p10 tells it twice.
    ("POST", "/webhooks/stripe"),
    // A domain that is where it is to go stays there, and one move keeps out another.
    ("POST", "/domains/{name}/move"),
];

/// One request of the table.
struct Row {
    method: &'static str,
    /// As in the map.
    route: &'static str,
    path: String,
    who: Option<TestUser>,
    body: Body,
    status: u16,
    /// Where the change is seen, and what is seen there once it has happened once.
    seen: Option<Seen>,
}

enum Body {
    None,
    Json(Value),
    Form(String, Vec<u8>),
}

/// A path that the administrator or the caller reads, a pointer into the answer, and what stands there: of a list its
/// length.
struct Seen {
    by: TestUser,
    path: String,
    pointer: &'static str,
    value: Value,
}

/// Routes of the API that change something.
fn mutating_routes() -> impl Iterator<Item = &'static RouteInfo> {
    ROUTES.iter().filter(|route| route.group == RouteGroup::Api && route.method != "GET")
}

/// The token in the newest mail to an address of a kind.
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

async fn rows(shop: &TestShop, admin: &TestUser) -> Vec<Row> {
    let [ada, eve, bob] = ["ada@example.com", "eve@example.com", "bob@example.com"];
    let (ada, eve, bob) = (shop.customer(ada).await, shop.customer(eve).await, shop.customer(bob).await);
    let tea = shop.product(admin, "TEA", 400, 1_000).await;
    let (old, gone) = (shop.product(admin, "OLD", 1, 1).await, shop.product(admin, "GONE", 1, 1).await);
    let picture = {
        let (kind, body) = form("file", &png());
        let path = format!("/product/{old}/images");
        shop.call("POST", &path).as_user(admin).raw(&kind, body).send().await.expect(201)
    };
    let comments = format!("/product/{tea}/comments");
    let said = json!({ "rating": 4, "text": "Good." });
    let comment = shop.call("POST", &comments).as_user(&bob).json(&said).send().await.expect(201);
    // A guest for each step of the cart.
    let mut buyers = Vec::new();
    for _ in 0..7 {
        let guest = shop.guest().await;
        let item = shop.add(&guest, &tea, 2).await;
        buyers.push((guest, item));
    }
    let cart = |n: usize| format!("/user/{}/cart", buyers[n].0.id);
    let line = |n: usize| format!("{}/{}", cart(n), id(&buyers[n].1));
    let who = |n: usize| Some(buyers[n].0.clone());
    let invoice = async |n: usize| shop.check_out(&buyers[n].0, "prepared order").await.expect(201);
    let (unpaid, paid, void, cancelled) = (invoice(3).await, invoice(4).await, invoice(5).await, invoice(6).await);
    shop.pay(&buyers[4].0, id(&paid), "tok_ok", "prepared payment").await.expect(200);
    let key = async |name: &str| {
        let name = json!({ "name": name });
        shop.call("POST", "/api_keys").as_user(&eve).json(&name).send().await.expect(201)
    };
    let spare = key("spare").await;
    shop.drain_events().await;
    let note = shop.read(&ada, "/notifications").await["items"][0].clone();
    let verify = mailed_token(shop, admin, &ada.email, "verify").await;
    shop.call("POST", "/password/forgot").json(&json!({ "email": bob.email })).send().await.expect(202);
    let reset = mailed_token(shop, admin, &bob.email, "reset").await;
    let leaving = shop.sign_in(&eve.email).await;
    let victim = shop.customer("victim@example.com").await;

    let seen = |by: &TestUser, path: String, pointer, value| Some(Seen { by: by.clone(), path, pointer, value });
    let by = |user: &TestUser| Some(user.clone());
    let row =
        |method, route, path: String, who, body, status, seen| Row { method, route, path, who, body, status, seen };
    let body = |value: Value| Body::Json(value);
    let work = json!({ "user_id": bob.id, "currency": "EUR", "lines": [
        { "description": "Work", "quantity": 1, "unit_price": 100 }] });
    let (kind, file) = form("file", &png());
    let order = |n: usize| format!("/invoices?user_id={}", buyers[n].0.id);
    let of = |value: &Value| format!("/invoices/{}", id(value));
    #[rustfmt::skip]
    let rows = vec![
        row("POST", "/product", "/product".into(), by(admin), body(new_product("JUG", 900, 3)), 201,
            seen(admin, "/products?q=JUG".into(), "/items", json!(1))),
        row("PUT", "/product/{id}", format!("/product/{old}"), by(admin), body(new_product("OLD", 77, 9)), 200,
            seen(admin, format!("/product/{old}"), "/stock", json!(9))),
        row("PATCH", "/product/{id}", format!("/product/{old}"), by(admin), body(json!({ "price": 78 })), 200,
            seen(admin, format!("/product/{old}"), "/price", json!(78))),
        row("DELETE", "/product/{id}", format!("/product/{gone}"), by(admin), Body::None, 204,
            seen(admin, format!("/product/{gone}"), "/deleted", json!(true))),
        row("POST", "/product/{id}/images", format!("/product/{tea}/images"), by(admin), Body::Form(kind, file), 201,
            seen(admin, format!("/product/{tea}/images"), "/items", json!(1))),
        row("DELETE", "/product/{id}/images/{image_id}", format!("/product/{old}/images/{}", id(&picture)), by(admin),
            Body::None, 204, seen(admin, format!("/product/{old}/images"), "/items", json!(0))),
        row("POST", "/product/{id}/comments", comments.clone(), by(&ada), body(said), 201,
            seen(admin, comments.clone(), "/items", json!(2))),
        row("DELETE", "/product/{id}/comments/{comment_id}", format!("{comments}/{}", id(&comment)), by(&bob),
            Body::None, 204, seen(admin, comments, "/items", json!(1))),
        row("POST", "/user/{id}/cart", cart(0), who(0), body(json!({ "product_id": tea, "quantity": 3 })), 201,
            seen(&buyers[0].0, cart(0), "/count", json!(5))),
        row("PUT", "/user/{id}/cart/{item_id}", line(0), who(0), body(json!({ "quantity": 7 })), 200,
            seen(&buyers[0].0, cart(0), "/count", json!(7))),
        row("DELETE", "/user/{id}/cart/{item_id}", line(1), who(1), Body::None, 204,
            seen(&buyers[1].0, cart(1), "/count", json!(0))),
        row("POST", "/user/{id}/cart/checkout", format!("{}/checkout", cart(2)), who(2),
            body(json!({ "email": "guest@example.com" })), 201, seen(admin, order(2), "/items", json!(1))),
        row("DELETE", "/user/{id}/cart/checkout", format!("{}/checkout", cart(6)), who(6), Body::None, 204,
            seen(admin, of(&cancelled), "/status", json!("void"))),
        row("POST", "/invoices", "/invoices".into(), by(admin), body(work), 201,
            seen(admin, format!("/invoices?user_id={}", bob.id), "/items", json!(1))),
        row("POST", "/invoices/{id}/pay", format!("{}/pay", of(&unpaid)), who(3), body(json!({ "token": "tok_ok" })),
            200, seen(admin, of(&unpaid), "/status", json!("paid"))),
        row("POST", "/invoices/{id}/refund", format!("{}/refund", of(&paid)), by(admin), body(json!({ "amount": 3 })),
            200, seen(admin, of(&paid), "/refunded", json!(3))),
        row("POST", "/invoices/{id}/void", format!("{}/void", of(&void)), by(admin), Body::None, 200,
            seen(admin, of(&void), "/status", json!("void"))),
        row("POST", "/notifications/{id}/read", format!("/notifications/{}/read", id(&note)), by(&ada), Body::None,
            204, None),
        row("POST", "/user", "/user".into(), None,
            body(json!({ "email": "new@example.com", "password": PASSWORD, "name": "New" })), 201,
            seen(admin, "/users?q=new@example.com".into(), "/items", json!(1))),
        row("PUT", "/user/{id}", format!("/user/{}", ada.id), by(&ada), body(json!({ "name": "Ada L." })), 200,
            seen(admin, format!("/user/{}", ada.id), "/name", json!("Ada L."))),
        row("PATCH", "/user/{id}", format!("/user/{}", ada.id), by(&ada),
            body(json!({ "password": "another password", "current_password": PASSWORD })), 200, None),
        row("DELETE", "/user/{id}", format!("/user/{}", victim.id), by(admin), Body::None, 204,
            seen(admin, "/users?q=victim@example.com".into(), "/items", json!(0))),
        row("POST", "/guest", "/guest".into(), None, Body::None, 201, None),
        row("POST", "/signin", "/signin".into(), None, body(json!({ "email": eve.email, "password": PASSWORD })), 200,
            None),
        row("POST", "/signout", "/signout".into(), by(&leaving), Body::None, 204, None),
        row("POST", "/password/forgot", "/password/forgot".into(), None, body(json!({ "email": eve.email })), 202,
            seen(admin, format!("/emails?to={}&limit=100", eve.email), "reset", json!(1))),
        row("POST", "/password/reset", "/password/reset".into(), None,
            body(json!({ "token": reset, "password": "a new password" })), 204, None),
        row("POST", "/email/verify", "/email/verify".into(), None, body(json!({ "token": verify })), 204,
            seen(admin, format!("/user/{}", ada.id), "/email_verified", json!(true))),
        row("POST", "/api_keys", "/api_keys".into(), by(&eve), body(json!({ "name": "till" })), 201,
            seen(&eve, "/api_keys".into(), "/items", json!(2))),
        row("DELETE", "/api_keys/{id}", format!("/api_keys/{}", id(&spare)), by(&eve), Body::None, 204,
            seen(&eve, "/api_keys".into(), "/items", json!(1))),
        row("POST", "/send_email", "/send_email".into(), by(admin),
            body(json!({ "to": "x@example.com", "subject": "Hello", "text": "Hello." })), 202,
            seen(admin, "/emails?to=x@example.com".into(), "/items", json!(1))),
        row("POST", "/log", "/log".into(), by(&eve), body(json!({ "action": "looked_once" })), 202,
            seen(admin, "/log?action=looked_once".into(), "/items", json!(1))),
    ];
    rows
}

fn call<'a>(shop: &'a TestShop, row: &Row) -> crate::support::RequestBuilder<'a> {
    let call = shop.call(row.method, &row.path).idempotency_key(&format!("key of {} {}", row.method, row.route));
    let call = match &row.who {
        Some(user) => call.as_user(user),
        None => call,
    };
    match &row.body {
        Body::None => call,
        Body::Json(body) => call.json(body),
        Body::Form(kind, body) => call.raw(kind, body.clone()),
    }
}

/// One ran, and everybody else was told the same or to wait.
fn ran_once(row: &Row, replies: &[TestResponse], wrong: &mut Vec<String>) -> Option<String> {
    let name = format!("{} {}", row.method, row.route);
    let (mut ran, mut answer) = (0, None);
    for reply in replies {
        let status = reply.status.as_u16();
        if status == row.status {
            ran += usize::from(!reply.is_replay());
            let first = answer.get_or_insert_with(|| reply.text());
            if *first != reply.text() {
                wrong.push(format!("{name} answers {first} and {}", reply.text()));
            }
        } else if status == 409 && reply.json()["code"] == "request_in_progress" {
            if reply.header("retry-after").is_none() {
                wrong.push(format!("{name} says nothing of when to ask again"));
            }
        } else if row.route != "/signout" || status != 401 {
            // Who has signed out is nobody any more.
            wrong.push(format!("{name} answers {status} {}", reply.text()));
        }
    }
    if ran != 1 {
        wrong.push(format!("{name} ran {ran} times"));
    }
    answer
}

#[actix_web::test]
async fn p02_fifty_at_once_with_one_key_run_once_on_every_route_that_changes_something() {
    let mut shop = TestShop::open_with(|settings| settings.users.hashers = 4).await;
    shop.start_second_gateway();
    let admin = shop.admin().await;
    let rows = rows(&shop, &admin).await;
    let mut wrong = Vec::new();
    for route in mutating_routes() {
        let has_case = rows.iter().any(|row| row.method == route.method && row.route == route.path);
        if !has_case && !APART.contains(&(route.method, route.path)) {
            wrong.push(format!("{route:?} has no case"));
        }
    }
    for row in &rows {
        if !mutating_routes().any(|route| route.method == row.method && route.path == row.route) {
            wrong.push(format!("{} {} is no route", row.method, row.route));
        }
    }
    for row in &rows {
        let all = (0..AT_ONCE).map(|n| {
            let call = call(&shop, row);
            if n % 2 == 0 { call.send() } else { call.via_second_gateway().send() }
        });
        let replies = join_all(all).await;
        let answer = ran_once(row, &replies, &mut wrong);
        if row.route != "/signout" {
            let again = call(&shop, row).send().await;
            if again.status.as_u16() != row.status || !again.is_replay() || Some(again.text()) != answer {
                wrong.push(format!("{} {} again: {} {}", row.method, row.route, again.status, again.text()));
            }
        }
        let Some(Seen { by, path, pointer, value }) = &row.seen else { continue };
        shop.drain_events().await;
        let shown = shop.read(by, path).await;
        let found = match *pointer {
            "reset" => json!(crate::support::count(&shown, "template", "reset")),
            pointer => match shown.pointer(pointer) {
                Some(Value::Array(items)) => json!(items.len()),
                other => other.cloned().unwrap_or_default(),
            },
        };
        if found != *value {
            wrong.push(format!("{} {}: {path} shows {found} for {value}", row.method, row.route));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    shop.assert_consistent().await;
}
