//! H5: no caller reads or changes another's data by guessing ids. Every route of the gateway, every role.

use std::fmt::Write as _;

use mercat::messaging::Role;
use mercat::web::{ROUTES, RouteAccess, RouteGroup, RouteInfo};
use serde_json::{Value, json};

use crate::support::{PASSWORD, TestShop, TestUser, enable_only, new_product};

/// Roles, in the order of the statuses of a case. `-` in a case: not sent, because it would change what later cases
/// depend on.
const ROLES: [&str; 6] = ["anonymous", "guest", "other customer", "the customer", "the customer's API key", "admin"];

#[rustfmt::skip]
const CASES: &[(&str, &str, &str, [&str; 6])] = &[
    // method, path, body                                    anon   guest  other  cust   key    admin
    ("GET",    "/user/{user}", "",                          ["401", "403", "403", "200", "200", "200"]),
    ("PUT",    "/user/{user}", r#"{"name":"Ada"}"#,         ["401", "403", "403", "200", "200", "200"]),
    ("PATCH",  "/user/{user}", r#"{"name":"Ada"}"#,         ["401", "403", "403", "200", "200", "200"]),
    ("PATCH",  "/user/{user}", r#"{"role":"admin"}"#,       ["401", "403", "403", "403", "403", "-"]),
    ("GET",    "/user/{absent}", "",                        ["401", "403", "403", "403", "403", "404"]),
    ("POST",   "/user/{user}/totp", "",                     ["401", "403", "403", "200", "403", "403"]),
    ("POST",   "/user/{user}/totp/confirm", r#"{"code":"x"}"#, ["401", "403", "403", "422", "403", "403"]),
    ("DELETE", "/user/{user}/totp", "",                     ["401", "403", "403", "409", "409", "409"]),
    ("GET",    "/users/", "",                               ["401", "403", "403", "403", "403", "200"]),
    ("GET",    "/me", "",                                   ["401", "200", "200", "200", "200", "200"]),
    ("GET",    "/session", "",                              ["200", "200", "200", "200", "200", "200"]),
    ("GET",    "/product/{product}", "",                    ["200", "200", "200", "200", "200", "200"]),
    ("GET",    "/products/", "",                            ["200", "200", "200", "200", "200", "200"]),
    ("POST",   "/product/", "PRODUCT",                      ["401", "403", "403", "403", "403", "201"]),
    ("POST",   "/product/", "{}",                           ["401", "403", "403", "403", "403", "422"]),
    ("PUT",    "/product/{product}", "PRODUCT",             ["401", "403", "403", "403", "403", "409"]),
    ("PATCH",  "/product/{product}", r#"{"price":500}"#,    ["401", "403", "403", "403", "403", "200"]),
    ("PATCH",  "/product/{absent}", r#"{"price":500}"#,     ["401", "403", "403", "403", "403", "404"]),
    ("DELETE", "/product/{absent}", "",                     ["401", "403", "403", "403", "403", "404"]),
    ("GET",    "/product/{product}/stock", "",              ["401", "403", "403", "403", "403", "200"]),
    ("POST",   "/product/{product}/stock", "{}",            ["401", "403", "403", "403", "403", "422"]),
    ("GET",    "/product/{product}/images", "",             ["200", "200", "200", "200", "200", "200"]),
    ("POST",   "/product/{product}/images", "{}",           ["401", "403", "403", "403", "403", "415"]),
    ("GET",    "/product/{product}/images/{absent}", "",    ["404", "404", "404", "404", "404", "404"]),
    ("DELETE", "/product/{product}/images/{absent}", "",    ["401", "403", "403", "403", "403", "404"]),
    ("GET",    "/product/{product}/comments/", "",          ["200", "200", "200", "200", "200", "200"]),
    ("POST",   "/product/{product}/comments/", r#"{"rating":9}"#, ["401", "-", "422", "422", "422", "422"]),
    ("DELETE", "/product/{product}/comments/{comment}", "", ["401", "-", "404", "-", "-", "-"]),
    ("GET",    "/user/{user}/cart/", "",                    ["401", "403", "403", "200", "200", "403"]),
    ("POST",   "/user/{user}/cart/", "LINE",                ["401", "403", "403", "201", "201", "403"]),
    ("POST",   "/user/{user}/cart/", "{}",                  ["401", "403", "403", "422", "422", "403"]),
    ("GET",    "/user/{user}/cart/{item}", "",              ["401", "403", "403", "200", "200", "403"]),
    ("PUT",    "/user/{user}/cart/{item}", r#"{"quantity":2}"#, ["401", "403", "403", "200", "200", "403"]),
    ("DELETE", "/user/{user}/cart/{item}", "",              ["401", "403", "403", "-", "-", "403"]),
    ("POST",   "/user/{user}/cart/checkout", "",            ["401", "403", "403", "-", "-", "403"]),
    ("DELETE", "/user/{user}/cart/checkout", "",            ["401", "403", "403", "409", "409", "403"]),
    ("GET",    "/user/{other}/cart/{item}", "",             ["401", "403", "404", "403", "403", "403"]),
    ("PUT",    "/user/{other}/cart/{item}", r#"{"quantity":2}"#, ["401", "403", "404", "403", "403", "403"]),
    ("POST",   "/invoices", "INVOICE",                      ["401", "403", "403", "403", "403", "201"]),
    ("GET",    "/invoices/", "",                            ["401", "200", "200", "200", "200", "200"]),
    ("GET",    "/invoices/{invoice}", "",                   ["401", "404", "404", "200", "200", "200"]),
    ("GET",    "/invoices/{absent}", "",                    ["401", "404", "404", "404", "404", "404"]),
    ("POST",   "/invoices/{invoice}/pay", r#"{"token":"tok_declined"}"#, ["401", "404", "404", "402", "402", "-"]),
    ("POST",   "/invoices/{invoice}/refund", "",            ["401", "403", "403", "403", "403", "409"]),
    ("POST",   "/invoices/{absent}/void", "",               ["401", "403", "403", "403", "403", "404"]),
    ("POST",   "/webhooks/stripe", "{}",                    ["404", "404", "404", "404", "404", "404"]),
    ("POST",   "/send_email/", "MAIL",                      ["401", "403", "403", "403", "403", "202"]),
    ("GET",    "/emails/", "",                              ["401", "403", "403", "403", "403", "200"]),
    ("GET",    "/emails/{absent}", "",                      ["401", "403", "403", "403", "403", "404"]),
    ("POST",   "/emails/{absent}/resend", "",               ["401", "403", "403", "403", "403", "404"]),
    ("POST",   "/log", r#"{"action":"looked"}"#,            ["202", "202", "202", "202", "202", "202"]),
    ("POST",   "/log", r#"{"action":"looked","user_id":"{user}"}"#, ["403", "403", "403", "202", "202", "202"]),
    ("GET",    "/log", "",                                  ["200", "200", "200", "200", "200", "200"]),
    ("GET",    "/stats/summary", "",                        ["401", "403", "403", "403", "403", "200"]),
    ("GET",    "/notifications/", "",                       ["401", "200", "200", "200", "200", "200"]),
    ("POST",   "/notifications/{note}/read", "",            ["401", "404", "404", "204", "204", "404"]),
    ("GET",    "/counter", "",                              ["200", "200", "200", "200", "200", "200"]),
    ("POST",   "/user/", "{}",                              ["422", "422", "422", "422", "422", "422"]),
    ("POST",   "/guest", "",                                ["201", "201", "201", "201", "201", "201"]),
    ("POST",   "/signin", "{}",                             ["422", "422", "422", "422", "422", "422"]),
    ("POST",   "/password/forgot", "{}",                    ["422", "422", "422", "422", "422", "422"]),
    ("POST",   "/password/reset", "{}",                     ["422", "422", "422", "422", "422", "422"]),
    ("POST",   "/email/verify", "{}",                       ["422", "422", "422", "422", "422", "422"]),
    ("GET",    "/ws", "",                                   ["400", "400", "400", "400", "400", "400"]),
    ("GET",    "/events?after=x", "",                       ["422", "422", "422", "422", "422", "422"]),
    ("GET",    "!/healthz", "",                             ["200", "200", "200", "200", "200", "200"]),
    ("GET",    "!/readyz", "",                              ["200", "200", "200", "200", "200", "200"]),
    ("GET",    "!/health", "",                              ["200", "200", "200", "200", "200", "200"]),
    ("GET",    "!/metrics", "",                             ["200", "200", "200", "200", "200", "200"]),
    ("POST",   "/domains/{absent}/move", r#"{"to":"local"}"#, ["401", "403", "403", "403", "403", "404"]),
    ("POST",   "/domains/mailer/move", r#"{"to":"there"}"#, ["401", "403", "403", "403", "403", "422"]),
    ("GET",    "/audit/", "",                              ["401", "403", "403", "403", "403", "200"]),
    ("GET",    "/countries", "",                            ["200", "200", "200", "200", "200", "200"]),
    ("GET",    "/user/{user}/addresses/", "",               ["401", "403", "403", "200", "200", "403"]),
    ("POST",   "/user/{user}/addresses/", "{}",             ["401", "403", "403", "422", "422", "403"]),
    ("GET",    "/user/{user}/addresses/{absent}", "",       ["401", "403", "403", "404", "404", "403"]),
    ("PUT",    "/user/{user}/addresses/{absent}", "{}",     ["401", "403", "403", "422", "422", "403"]),
    ("DELETE", "/user/{user}/addresses/{absent}", "",       ["401", "403", "403", "404", "404", "403"]),
    ("GET",    "/api_keys/", "",                            ["401", "-", "200", "200", "200", "200"]),
    ("POST",   "/api_keys/", "{}",                          ["401", "422", "422", "422", "422", "422"]),
    ("DELETE", "/api_keys/{key}", "",                       ["401", "404", "404", "-", "-", "404"]),
    ("DELETE", "/user/{user}", "",                          ["401", "403", "403", "-", "-", "-"]),
    // Last, because the cases before depend on what these end.
    ("DELETE", "/product/{product}", "",                    ["401", "403", "403", "403", "403", "204"]),
    ("POST",   "/signout", "",                              ["401", "204", "204", "204", "-", "204"]),
];

/// The route that a case is for.
fn route_of(method: &str, path: &str) -> &'static RouteInfo {
    let (is_api, path) = path.strip_prefix('!').map_or((true, path), |path| (false, path));
    let route = ROUTES.iter().find(|route| (route.group == RouteGroup::Api) == is_api && route.matches(method, path));
    route.unwrap_or_else(|| panic!("{method} {path} is no route"))
}

/// Whether a case expects no more and no less than the documented access of its route. The roles are those of [`ROLES`]
/// and the case's resource belongs to the customer.
fn agrees(access: RouteAccess, statuses: &[&str; 6]) -> bool {
    let is_rejected = |status: &str| matches!(status, "401" | "403");
    let [anonymous, others @ .., admin] = statuses;
    match access {
        RouteAccess::Anyone | RouteAccess::InternalNetwork => *anonymous != "401",
        RouteAccess::SignedIn => *anonymous == "401" && others.iter().all(|status| !is_rejected(status)),
        RouteAccess::Owner | RouteAccess::OwnerOrStaff(_) => *anonymous == "401" && others.contains(&"403"),
        RouteAccess::Staff(_) => *anonymous == "401" && others.iter().all(|s| *s == "403") && !is_rejected(admin),
    }
}

#[test]
fn every_route_has_a_case_that_agrees_with_its_access() {
    for route in ROUTES.iter().filter(|route| route.group != RouteGroup::Page) {
        let mut cases = CASES.iter().filter(|case| std::ptr::eq(route_of(case.0, case.1), route)).peekable();
        assert!(cases.peek().is_some(), "{route:?} has no case");
        for (.., statuses) in cases {
            assert!(agrees(route.access, statuses), "{route:?} is for {}: {statuses:?}", route.access.as_str());
        }
    }
}

#[actix_web::test]
async fn pages_are_public() {
    let shop = TestShop::open().await;
    for route in ROUTES.iter().filter(|route| route.group == RouteGroup::Page) {
        assert_eq!(route.access, RouteAccess::Anyone, "{route:?}");
        let path = route.path.replace("{path:.*}", "css/base.css").replace("{id}", "x");
        let reply = shop.call(route.method, &format!("!{path}")).send().await;
        assert_eq!(reply.status.as_u16(), 200, "{route:?}");
    }
}

#[actix_web::test]
async fn h05_every_route_grants_each_role_exactly_its_rights() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let other = shop.customer("eve@example.com").await;
    let guest = shop.guest().await;
    let product = shop.product(&admin, "TEA", 400, 100).await;
    let invoice = shop.checkout_with_one(&customer, &product).await;
    let pay = format!("/invoices/{}/pay", text(&invoice["id"]));
    let paid = shop
        .call("POST", &pay)
        .with_user(&customer)
        .idempotency_key("p")
        .json(&json!({ "token": "tok_ok" }))
        .send()
        .await;
    paid.expect(200);
    shop.drain_events().await;
    let cart = format!("/user/{}/cart", customer.id);
    let line = json!({ "product_id": product, "quantity": 1 });
    let open = shop.checkout_with_one(&customer, &product).await;
    shop.call("DELETE", &format!("{cart}/checkout")).with_user(&customer).send().await.expect(204);
    shop.drain_events().await;
    let invoice = {
        let body = json!({ "user_id": customer.id, "currency": "EUR",
            "lines": [{ "description": "Work", "quantity": 1, "unit_price": 100 }] });
        shop.call("POST", "/invoices").with_user(&admin).json(&body).send().await.expect(201)
    };
    let item = shop.call("POST", &cart).with_user(&customer).json(&line).send().await.expect(201);
    let said = json!({ "rating": 5, "text": "Good." });
    let comments = format!("/product/{product}/comments");
    let comment = shop.call("POST", &comments).with_user(&customer).json(&said).send().await.expect(201);
    let key =
        shop.call("POST", "/api_keys").with_user(&customer).json(&json!({ "name": "till" })).send().await.expect(201);
    let key_bearer = TestUser { token: text(&key["token"]), ..customer.clone() };
    let note = shop.call("GET", "/notifications").with_user(&customer).send().await.expect(200)["items"][0].clone();
    assert_ne!(text(&open["id"]), text(&invoice["id"]));

    let names = [
        ("{user}", customer.id.clone()),
        ("{other}", other.id.clone()),
        ("{product}", product.clone()),
        ("{invoice}", text(&invoice["id"])),
        ("{item}", text(&item["id"])),
        ("{comment}", text(&comment["id"])),
        ("{key}", text(&key["id"])),
        ("{note}", text(&note["id"])),
        ("{absent}", uuid::Uuid::now_v7().to_string()),
    ];
    let fill_in = |template: &str| names.iter().fold(template.to_owned(), |text, (name, id)| text.replace(name, id));
    let callers = [None, Some(&guest), Some(&other), Some(&customer), Some(&key_bearer), Some(&admin)];
    let mut errors = Vec::new();
    let mut keys = 0;
    for (method, path, body, statuses) in CASES {
        let path = fill_in(path);
        let body = match *body {
            "PRODUCT" => new_product("JUG", 900, 3).to_string(),
            "LINE" => line.to_string(),
            "INVOICE" => json!({ "user_id": customer.id, "currency": "EUR",
                "lines": [{ "description": "Work", "quantity": 1, "unit_price": 100 }] })
            .to_string(),
            "MAIL" => json!({ "to": "ada@example.com", "subject": "Hello", "text": "Hello." }).to_string(),
            body => fill_in(body),
        };
        for ((caller, role), expected) in callers.iter().zip(ROLES).zip(statuses) {
            if *expected == "-" {
                continue;
            }
            let mut call = shop.call(method, &path);
            if let Some(user) = caller {
                call = call.with_user(user);
            }
            if path.ends_with("/pay") || path.ends_with("/refund") {
                keys += 1;
                call = call.idempotency_key(&format!("row-{keys}"));
            }
            if !body.is_empty() {
                call = call.raw("application/json", body.clone());
            }
            let reply = call.send().await;
            if reply.status.as_str() != *expected {
                errors.push(format!("{method} {path} as {role}: {} for {expected}: {}", reply.status, reply.text()));
            }
        }
    }
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    shop.assert_consistent().await;
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

#[actix_web::test]
async fn s08_log_requires_internal_network_despite_header() {
    let internal = TestShop::open().await;
    internal.get("/log").await.expect(200);
    // An undeclared proxy hides the origin of a request.
    internal
        .call("GET", "/log")
        .header("x-forwarded-for", "203.0.113.9")
        .send()
        .await
        .expect_problem(403, "internal_only");
    let external = TestShop::open_with(|settings| {
        settings.stats.internal_networks = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    external.get("/log").await.expect_problem(403, "internal_only");
    external
        .call("GET", "/log")
        .header("x-forwarded-for", "10.0.0.1")
        .send()
        .await
        .expect_problem(403, "internal_only");
    let admin = external.admin().await;
    external.call("GET", "/log").with_user(&admin).send().await.expect_problem(403, "internal_only");
    let proxied = TestShop::open_with(|settings| {
        settings.stats.internal_networks = vec!["10.0.0.0/8".parse().unwrap()];
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let from = |list: &'static str| proxied.call("GET", "/log").header("x-forwarded-for", list).send();
    from("10.0.0.1").await.expect(200);
    from("203.0.113.9, 10.0.0.1").await.expect(200);
    from("10.0.0.1, 203.0.113.9").await.expect_problem(403, "internal_only");
    from("nonsense").await.expect_problem(403, "internal_only");
}

#[actix_web::test]
async fn deleted_users_token_is_invalid() {
    let shop = TestShop::open_with(|settings| enable_only(settings, &["users"])).await;
    let customer = shop.customer("ada@example.com").await;
    shop.call("DELETE", &format!("/user/{}", customer.id)).with_user(&customer).send().await.expect(204);
    shop.call("GET", "/me").with_user(&customer).send().await.expect_problem(401, "invalid_token");
    let body = json!({ "email": "ada@example.com", "password": PASSWORD });
    shop.call("POST", "/signin").json(&body).send().await.expect_problem(401, "bad_credentials");
    shop.assert_consistent().await;
}

/// Staff may do what their role allows and no more, on every route for staff; and an API key what its scopes allow.
#[actix_web::test]
async fn h05_staff_role_and_key_scope_limit_every_staff_route() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let mut staff = Vec::new();
    for role in [Role::ReadOnly, Role::Support, Role::Manager] {
        staff.push((role, shop.staff(role).await));
    }
    let body = json!({ "name": "reader", "scopes": ["cart:read"] });
    let key = shop.call("POST", "/api_keys").with_user(&admin).json(&body).send().await.expect(201);
    let scoped = TestUser { token: text(&key["token"]), ..admin.clone() };
    for (method, path, body, statuses) in CASES {
        let route = route_of(method, path);
        let (RouteAccess::Staff(least) | RouteAccess::OwnerOrStaff(least)) = route.access else { continue };
        if statuses[5] == "-" {
            continue;
        }
        // Ids that do not exist: whether a caller may is decided before what there is.
        let path = path.split('/').map(|part| if part.starts_with('{') { ABSENT } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        let body: Value = serde_json::from_str(body).unwrap_or(json!({}));
        for (role, user) in &staff {
            let reply = shop.call(method, &path).with_user(user).json(&body).send().await;
            let is_allowed = !matches!(reply.status.as_u16(), 401 | 403);
            assert_eq!(is_allowed, *role >= least, "{method} {path} {role:?}: {}", reply.status);
        }
        let reply = shop.call(method, &path).with_user(&scoped).json(&body).send().await;
        assert_eq!((reply.status.as_u16(), text(&reply.json()["code"])), (403, "scope_missing".to_owned()), "{path}");
    }
}

/// An id that nothing has.
const ABSENT: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// The rows of the table in docs/security.md.
fn access_table() -> String {
    let mut table = String::new();
    for route in ROUTES.iter().filter(|route| route.group != RouteGroup::Page) {
        let least = |role: Role| move |caller: Role| caller >= role;
        // A customer's own resource, or that of another one.
        let (anonymous, guest, own, staff): (bool, bool, bool, Box<dyn Fn(Role) -> bool>) = match route.access {
            RouteAccess::Anyone => (true, true, true, Box::new(|_| true)),
            RouteAccess::SignedIn => (false, true, true, Box::new(|_| true)),
            RouteAccess::Owner => (false, true, true, Box::new(|_| false)),
            RouteAccess::OwnerOrStaff(role) => (false, true, true, Box::new(least(role))),
            RouteAccess::Staff(role) => (false, false, false, Box::new(least(role))),
            RouteAccess::InternalNetwork => {
                writeln!(table, "| `{route:?}` | internal network | | | | | | | |").unwrap();
                continue;
            }
        };
        let sign = |may: bool| if may { "yes" } else { "" };
        let owns = matches!(route.access, RouteAccess::Owner | RouteAccess::OwnerOrStaff(_));
        let customer = if owns { "own" } else { sign(own) };
        let roles = [Role::ReadOnly, Role::Support, Role::Manager, Role::Admin].map(|role| sign(staff(role)));
        let guest = if owns { "own" } else { sign(guest) };
        let [read_only, support, manager, admin] = roles;
        let scope = route.scope().map(|scope| format!("`{scope}`")).unwrap_or_default();
        let anonymous = sign(anonymous);
        let row = [&format!("`{route:?}`"), anonymous, guest, customer, read_only, support, manager, admin, &scope];
        writeln!(table, "| {} |", row.join(" | ")).unwrap();
    }
    table
}

/// The table that people read is the one that the routes have. `MERCAT_UPDATE_GOLDEN=replace` writes it.
#[test]
fn access_table_of_the_docs_is_up_to_date() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    const HEAD: &str = "|---|---|---|---|---|---|---|---|---|\n";
    let docs = std::fs::read_to_string(FILE).unwrap();
    let (before, table) = docs.split_once(HEAD).expect("the table has its head");
    if std::env::var("MERCAT_UPDATE_GOLDEN").is_ok_and(|mode| mode == "replace") {
        std::fs::write(FILE, format!("{before}{HEAD}{}", access_table())).unwrap();
        return;
    }
    assert!(table == access_table(), "run MERCAT_UPDATE_GOLDEN=replace cargo test --test api -- access_table");
}
