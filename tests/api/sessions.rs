//! Authentication: tokens, cookies, and CSRF protection.

use mercat::web::{ROUTES, RouteGroup};
use serde_json::{Value, json};

use crate::support::{PASSWORD, TestResponse, TestShop, TestUser, enable_only};

fn cookie(reply: &TestResponse) -> Option<String> {
    reply.header("set-cookie").map(str::to_owned)
}

#[actix_web::test]
async fn sign_in_sets_http_only_cookie() {
    let shop = TestShop::open_with(|settings| enable_only(settings, &["users"])).await;
    let email = "ada@example.com";
    let body = json!({ "email": email, "password": PASSWORD, "name": "Ada" });
    let registered = shop.call("POST", "/user/").json(&body).send().await;
    let user = registered.expect(201);
    assert_eq!(cookie(&registered), None, "a registration does not sign in");
    assert_eq!(registered.header("location"), Some(format!("/api/v1/user/{}", user["id"].as_str().unwrap()).as_str()));
    let signed_in = shop.call("POST", "/signin/").json(&json!({ "email": email, "password": PASSWORD })).send().await;
    let token = signed_in.expect(200)["token"].as_str().unwrap().to_owned();
    let set = cookie(&signed_in).unwrap();
    for part in [format!("mercat_session={token}"), "HttpOnly".into(), "SameSite=Lax".into(), "Path=/".into()] {
        assert!(set.contains(&part), "{set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let age: i64 = set.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((29 * 86_400..=30 * 86_400).contains(&age), "{set}");
    assert_eq!(signed_in.header("cache-control"), Some("no-store"));
    let me = shop.call("GET", "/me").cookie(&token).send().await;
    assert_eq!(me.expect(200)["email"], email);
    assert_eq!(me.header("cache-control"), Some("no-store"));
    let out = shop.call("POST", "/signout").cookie(&token).header("x-requested-with", "mercat").send().await;
    out.expect(204);
    assert!(cookie(&out).unwrap().contains("Max-Age=0"), "{out:?}");
    shop.call("GET", "/me").bearer(&token).send().await.expect_problem(401, "invalid_token");
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn secure_cookies_setting_marks_cookie_secure() {
    let shop = TestShop::open_with(|settings| {
        settings.http.secure_cookies = true;
        enable_only(settings, &["users"]);
    })
    .await;
    let reply = shop.call("POST", "/guest").send().await;
    reply.expect(201);
    let cookie = cookie(&reply).unwrap();
    assert!(cookie.starts_with("__Host-mercat_session=") && cookie.contains("Secure"), "{cookie}");
    let token = cookie.split(['=', ';']).nth(1).unwrap().to_owned();
    let me = async |name: &str| shop.call("GET", "/me").header("cookie", &format!("{name}={token}")).send().await;
    me("__Host-mercat_session").await.expect(200);
    me("mercat_session").await.expect(401);
}

#[actix_web::test]
async fn other_cookies_do_not_sign_out() {
    let shop = TestShop::open_with(|settings| enable_only(settings, &["users"])).await;
    let token = shop.guest().await.token;
    for cookies in [
        format!("utm_campaign=Größe; mercat_session={token}; x=\u{1f600}"),
        format!("mercat_session=stale; mercat_session={token}"),
        format!("mercat_session={token}; mercat_session=stale"),
    ] {
        let me = shop.call("GET", "/me").header("cookie", &cookies).send().await;
        me.expect(200);
        assert_eq!(cookie(&me), None, "{cookies}");
    }
    let many = "mercat_session=stale; ".repeat(100);
    shop.call("GET", "/me").header("cookie", &(many + "mercat_session=x")).send().await.expect(401);
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn invalid_token_is_401_but_stale_cookie_is_ignored() {
    let shop = TestShop::open().await;
    for bad in ["nonsense", "a.b.c", "mk_0000", &"x".repeat(5_000)] {
        for (method, path) in [("GET", "/products"), ("GET", "/me"), ("GET", "/counter"), ("POST", "/guest")] {
            shop.call(method, path).bearer(bad).send().await.expect_problem(401, "invalid_token");
        }
    }
    for malformed in ["Basic YTpi", "Bearer", "Bearer "] {
        shop.call("GET", "/products")
            .header("authorization", malformed)
            .send()
            .await
            .expect_problem(401, "invalid_token");
    }
    let stale = shop.call("GET", "/products").cookie("nonsense").send().await;
    stale.expect(200);
    assert!(cookie(&stale).unwrap().starts_with("mercat_session=;"), "{stale:?}");
    let stale = shop.call("GET", "/session").cookie("nonsense").send().await;
    assert_eq!(stale.expect(200)["user"], Value::Null);
    assert!(cookie(&stale).unwrap().contains("Max-Age=0"));
    let stale = shop.call("GET", "/me").cookie("nonsense").send().await;
    stale.expect_problem(401, "unauthenticated");
    assert!(cookie(&stale).unwrap().contains("Max-Age=0"));
    let customer = shop.customer("ada@example.com").await;
    let body = json!({ "email": customer.email, "password": PASSWORD });
    let again = shop.call("POST", "/signin").cookie("nonsense").json(&body).send().await;
    let token = again.expect(200)["token"].as_str().unwrap().to_owned();
    let cookies: Vec<_> = again.headers.get_all("set-cookie").map(|value| value.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 1, "the old cookie must not be cleared after the new one is set: {cookies:?}");
    assert!(cookies[0].contains(&token));
    let own = shop.call("GET", "/session").cookie(&token).send().await;
    assert_eq!(own.expect(200)["user"]["id"], customer.id);
    // A bearer token takes precedence over the cookie.
    let me = shop.call("GET", "/me").with_user(&customer).cookie("nonsense").send().await;
    assert_eq!(me.expect(200)["id"], customer.id);
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn cookie_write_requires_same_origin() {
    let shop = TestShop::open_with(|settings| enable_only(settings, &["users"])).await;
    let customer = shop.customer("ada@example.com").await;
    let path = format!("/user/{}", customer.id);
    let write = || shop.call("PATCH", &path).cookie(&customer.token).json(&json!({ "name": "Ada L." }));
    let refused = write().send().await.expect_problem(403, "csrf_refused");
    assert!(refused["detail"].as_str().unwrap().contains("X-Requested-With"), "{refused}");
    write().header("sec-fetch-site", "cross-site").send().await.expect_problem(403, "csrf_refused");
    write().header("sec-fetch-site", "same-site").send().await.expect_problem(403, "csrf_refused");
    write().header("origin", "https://evil.example").send().await.expect_problem(403, "csrf_refused");
    write().header("origin", "null").send().await.expect_problem(403, "csrf_refused");
    assert_eq!(shop.call("GET", &path).with_user(&customer).send().await.expect(200)["name"], "Ada");
    write().header("sec-fetch-site", "same-origin").send().await.expect(200);
    write().header("origin", &format!("http://{}", shop.address)).send().await.expect(200);
    write().header("x-requested-with", "mercat").send().await.expect(200);
    // A bearer token is never sent by accident.
    shop.call("PATCH", &path).with_user(&customer).json(&json!({ "name": "Ada" })).send().await.expect(200);
    // Where no authentication is needed, a cookie without proof of origin is ignored.
    let body = json!({ "email": "new@example.com", "password": PASSWORD, "name": "New" });
    let registered = shop.call("POST", "/user").cookie(&customer.token).json(&body).send().await.expect(201);
    assert_ne!(registered["id"], customer.id.as_str());
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn s06_foreign_page_changes_nothing() {
    let shop = TestShop::open_with(|settings| enable_only(settings, &["users"])).await;
    // A form on a foreign page needs neither a cookie nor JavaScript; it would replace the visitor's session.
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let reply = shop.call("POST", "/guest").header(name, value).send().await;
        assert!(cookie(&reply).is_none());
        reply.expect_problem(403, "csrf_refused");
    }
    for route in ROUTES.iter().filter(|route| route.group == RouteGroup::Api && route.method != "GET") {
        let path = route.path.replace(['{', '}'], "x");
        let reply = shop.call(route.method, &path).header("sec-fetch-site", "cross-site").send().await;
        assert_eq!(reply.expect_problem(403, "csrf_refused")["status"], 403, "{route:?}");
    }
    shop.call("POST", "/guest").header("origin", &format!("http://{}", shop.address)).send().await.expect(201);
    shop.call("POST", "/guest").send().await.expect(201);
}

#[actix_web::test]
async fn s04_guest_registers_with_same_cart_and_new_cookie() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 400, 5).await;
    let came = shop.call("POST", "/guest").send().await;
    let signed_in = came.expect(201);
    assert_eq!(signed_in["user"]["role"], "guest");
    assert!(cookie(&came).is_some());
    let guest = TestUser {
        id: signed_in["user"]["id"].as_str().unwrap().to_owned(),
        token: signed_in["token"].as_str().unwrap().to_owned(),
        email: String::new(),
    };
    let cart = format!("/user/{}/cart/", guest.id);
    let line = json!({ "product_id": product, "quantity": 2 });
    shop.call("POST", &cart).with_user(&guest).json(&line).send().await.expect(201);
    let body = json!({ "email": "ada@example.com", "password": PASSWORD, "name": "Ada" });
    // Another site must not turn this browser's guest into an account.
    let forged = shop.call("POST", "/user/").cookie(&guest.token).json(&body).send().await;
    forged.expect_problem(403, "csrf_refused");
    let call = shop.call("POST", "/user/").cookie(&guest.token).header("sec-fetch-site", "same-origin");
    let registered = call.json(&body).send().await;
    let account = registered.expect(201);
    assert_eq!(account["id"], guest.id.as_str());
    // The guest's token may be known to another person: it ends, and the browser gets a new one.
    let member = TestUser { token: account["token"].as_str().unwrap().to_owned(), ..guest.clone() };
    assert!(cookie(&registered).unwrap().contains(&member.token), "{registered:?}");
    shop.call("GET", "/me").bearer(&guest.token).send().await.expect_problem(401, "invalid_token");
    let me = shop.call("GET", "/me").cookie(&member.token).send().await.expect(200);
    assert_eq!((&me["role"], &me["email"]), (&json!("customer"), &json!("ada@example.com")));
    assert_eq!(shop.call("GET", &cart).with_user(&member).send().await.expect(200)["count"], 2);
    shop.assert_consistent().await;
}
