//! Pages of other sites: listed ones may call the API, and the headers that isolate the shop from all others.

use serde_json::json;

use crate::support::{TestResponse, TestShop};

const LISTED: &str = "https://app.example";

async fn shop() -> TestShop {
    TestShop::open_with(|settings| {
        settings.public_url = Some("https://tea.example".to_owned());
        settings.http.cors_origins = vec![LISTED.to_owned()];
    })
    .await
}

async fn preflight(shop: &TestShop, origin: &str) -> TestResponse {
    let request = shop.call("OPTIONS", "/guest").header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "content-type,idempotency-key,authorization").send().await
}

#[actix_web::test]
async fn listed_origin_may_call_with_credentials() {
    let shop = shop().await;
    let allowed = preflight(&shop, LISTED).await;
    assert_eq!(allowed.status.as_u16(), 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some(LISTED));
    assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
    assert!(allowed.header("access-control-allow-headers").unwrap().to_lowercase().contains("idempotency-key"));
    let write =
        shop.call("POST", "/guest").header("origin", LISTED).header("sec-fetch-site", "cross-site").send().await;
    write.expect(201);
    assert_eq!(write.header("access-control-allow-origin"), Some(LISTED));
    assert!(write.header("access-control-expose-headers").unwrap().to_lowercase().contains("x-request-id"));
    // Errors can be read too.
    let error = shop.call("POST", "/signin").header("origin", LISTED).json(&json!({})).send().await;
    error.expect_problem(422, "validation_failed");
    assert_eq!(error.header("access-control-allow-origin"), Some(LISTED));
}

#[actix_web::test]
async fn s06_unlisted_origin_gets_no_permission() {
    let shop = shop().await;
    for origin in ["https://evil.example", "http://app.example", "https://app.example.evil.example", "null"] {
        let refused = preflight(&shop, origin).await;
        assert_eq!(refused.header("access-control-allow-origin"), None, "{origin}");
        let read = shop.call("GET", "/products").header("origin", origin).send().await;
        read.expect(200);
        assert_eq!(read.header("access-control-allow-origin"), None, "{origin}");
        let write = shop.call("POST", "/guest").header("origin", origin).send().await;
        write.expect_problem(403, "csrf_refused");
    }
    let closed = TestShop::open().await;
    assert_eq!(preflight(&closed, LISTED).await.header("access-control-allow-origin"), None);
}

#[actix_web::test]
async fn responses_isolate_the_shop_from_other_sites() {
    let shop = shop().await;
    for path in ["/products", "/missing", "!/", "!/admin", "!/static/css/base.css", "!/healthz"] {
        let answer = shop.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=31536000"), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert!(answer.header("permissions-policy").unwrap().contains("camera=()"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        let is_page = path == "!/" || path == "!/admin";
        assert_eq!(policy.contains("script-src 'self'"), is_page, "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("ws:"), "{path}: {policy}");
    }
    let plain = TestShop::open().await;
    assert_eq!(plain.get("/products").await.header("strict-transport-security"), None);
}
