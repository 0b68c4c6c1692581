//! S2: every route has a limit per network, tighter ones where a request costs more, and limits per user and API key.

use std::time::Duration;

use futures_util::future::{join, join_all};
use mercat::settings::{Quota, Settings};
use mercat::types::Clock;
use mercat::web::{ROUTES, RouteGroup, RouteInfo};
use serde_json::json;

use crate::support::{PASSWORD, RequestBuilder, TestResponse, TestShop};

/// A quota of a few requests that is not refilled during a test.
fn quota(requests: u32) -> Quota {
    Quota { requests, window: Duration::from_secs(3_600) }
}

/// Switches limits on, and lets the tests name the client's address.
fn with_limits(settings: &mut Settings) {
    settings.limits.enabled = true;
    settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

fn from(request: RequestBuilder<'_>, address: impl std::fmt::Display) -> RequestBuilder<'_> {
    request.header("x-forwarded-for", &address.to_string())
}

/// A request to the route that ends at once, whatever its outcome.
fn request_to<'a>(shop: &'a TestShop, route: &RouteInfo) -> RequestBuilder<'a> {
    let path = route.path.replace("{path:.*}", "css/base.css");
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    for segment in segments.iter_mut().filter(|segment| segment.starts_with('{')) {
        "018f3c5e-0000-7000-8000-000000000000".clone_into(segment);
    }
    let path = segments.join("/");
    // Without it the stream would not end.
    let path = if path == "/events" { format!("{path}?after=x") } else { path };
    let path = if route.group == RouteGroup::Api { path } else { format!("!{path}") };
    let request = shop.call(route.method, &path);
    if route.method == "GET" { request } else { request.json(&json!({})) }
}

#[actix_web::test]
async fn s02_every_route_limits_each_address() {
    let shop = TestShop::open_with(|settings| {
        with_limits(settings);
        let limits = &mut settings.limits;
        for class in [
            &mut limits.network,
            &mut limits.sign_in,
            &mut limits.registration,
            &mut limits.guest,
            &mut limits.password,
            &mut limits.email,
            &mut limits.log,
            &mut limits.probe,
        ] {
            *class = quota(1);
        }
    })
    .await;
    for (number, route) in ROUTES.iter().enumerate() {
        let address = format!("2001:db8:0:{number:x}::1");
        let first = from(request_to(&shop, route), &address).send().await;
        assert_ne!(first.status.as_u16(), 429, "{route:?}: {first:?}");
        // Another address of the same subscriber.
        let second = from(request_to(&shop, route), format!("2001:db8:0:{number:x}::2")).send().await;
        let problem = second.expect_problem(429, "rate_limited");
        let retry_after: u64 = second.header("retry-after").unwrap().parse().unwrap();
        assert!((3_000..=3_600).contains(&retry_after), "{route:?}: {second:?}");
        assert_eq!(problem["retry_after"], retry_after, "{route:?}");
        assert!(second.header("ratelimit-policy").unwrap().ends_with(";q=1;w=3600"), "{route:?}: {second:?}");
        assert!(second.header("ratelimit").unwrap().contains(";r=0;t="), "{route:?}: {second:?}");
    }
}

async fn sign_in(shop: &TestShop, address: impl std::fmt::Display) -> TestResponse {
    let body = json!({ "email": "ada@example.com", "password": "wrong" });
    from(shop.call("POST", "/signin"), address).json(&body).send().await
}

#[actix_web::test]
async fn s02_sign_in_has_a_limit_of_its_own() {
    let clock = Clock::system();
    let shop = TestShop::open_in(tempfile::tempdir().unwrap(), clock.clone(), |settings| {
        with_limits(settings);
        settings.limits.sign_in = quota(3);
    })
    .await;
    for left in [2, 1, 0] {
        let reply = sign_in(&shop, "203.0.113.1").await;
        reply.expect_problem(401, "bad_credentials");
        assert_eq!(reply.header("ratelimit-policy"), Some("\"signin\";q=3;w=3600"));
        assert!(reply.header("ratelimit").unwrap().starts_with(&format!("\"signin\";r={left};t=")), "{reply:?}");
    }
    let problem = sign_in(&shop, "203.0.113.1").await.expect_problem(429, "rate_limited");
    assert_eq!(problem["limit"], "signin");
    sign_in(&shop, "203.0.113.2").await.expect_problem(401, "bad_credentials");
    // Reading goes on.
    from(shop.call("GET", "/products/"), "203.0.113.1").send().await.expect(200);
    clock.advance(Duration::from_secs(1_200));
    sign_in(&shop, "203.0.113.1").await.expect_problem(401, "bad_credentials");
    sign_in(&shop, "203.0.113.1").await.expect_problem(429, "rate_limited");
}

async fn me(shop: &TestShop, token: &str) -> TestResponse {
    shop.call("GET", "/me").bearer(token).send().await
}

#[actix_web::test]
async fn s02_users_and_api_keys_are_counted_apart() {
    let shop = TestShop::open_with(|settings| {
        with_limits(settings);
        settings.limits.user = quota(4);
        settings.limits.api_key = quota(2);
    })
    .await;
    let (ada, bob) = (shop.customer("ada@example.com").await, shop.customer("bob@example.com").await);
    let key = shop.call("POST", "/api_keys").with_user(&ada).json(&json!({ "name": "script" })).send().await;
    let key = key.expect(201)["token"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        me(&shop, &ada.token).await.expect(200);
    }
    let limited = me(&shop, &ada.token).await;
    limited.expect_problem(429, "rate_limited");
    assert_eq!(limited.header("ratelimit-policy"), Some("\"user\";q=4;w=3600"));
    for _ in 0..2 {
        me(&shop, &key).await.expect(200);
    }
    let limited = me(&shop, &key).await;
    limited.expect_problem(429, "rate_limited");
    assert_eq!(limited.header("ratelimit-policy"), Some("\"api_key\";q=2;w=3600"));
    me(&shop, &bob.token).await.expect(200);
}

/// A page with forty pictures, again and again, by twenty people behind one address.
#[actix_web::test]
async fn shoppers_behind_one_address_meet_no_limit() {
    let shop = TestShop::open_with(with_limits).await;
    for _ in 0..20 {
        let guest = shop.guest().await;
        for _ in 0..40 {
            let picture = "/product/018f3c5e-0000-7000-8000-000000000000/images/018f3c5e-0000-7000-8000-000000000000";
            assert_eq!(shop.call("GET", picture).with_user(&guest).send().await.status.as_u16(), 404);
        }
        shop.get("!/").await;
        shop.read(&guest, "/products/").await;
    }
}

#[actix_web::test]
async fn s02_owner_signs_in_while_a_hundred_guess() {
    let shop = TestShop::open_with(with_limits).await;
    shop.customer("ada@example.com").await;
    let right = |address: &'static str| {
        let body = json!({ "email": "Ada@Example.com", "password": PASSWORD });
        from(shop.call("POST", "/signin"), address).json(&body).send()
    };
    let guesses = join_all((0..100).map(|n| sign_in(&shop, format!("198.51.100.{n}"))));
    let (guesses, owner) = join(guesses, right("203.0.113.1")).await;
    owner.expect(200);
    for guess in guesses {
        guess.expect_problem(401, "bad_credentials");
    }
    // The account is guarded by now: a guesser waits, the owner does not, wherever she comes from.
    for n in [0, 99] {
        let limited = sign_in(&shop, format!("198.51.100.{n}")).await;
        assert_eq!(limited.expect_problem(429, "rate_limited")["limit"], "signin_account");
        let retry_after: u64 = limited.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&retry_after), "{limited:?}");
    }
    right("203.0.113.1").await.expect(200);
    right("203.0.113.2").await.expect(200);
}

#[actix_web::test]
async fn s02_guests_of_one_address_share_its_attempts() {
    let shop = TestShop::open_with(with_limits).await;
    shop.customer("ada@example.com").await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        let guest = from(shop.call("POST", "/guest"), "203.0.113.1").send().await.expect(201);
        let body = json!({ "email": "ada@example.com", "password": "wrong" });
        let request = from(shop.call("POST", "/signin"), "203.0.113.1").bearer(guest["token"].as_str().unwrap());
        statuses.push(request.json(&body).send().await.status.as_u16());
    }
    assert_eq!(statuses[..10], [401; 10]);
    assert!(statuses.contains(&429), "{statuses:?}");
}
