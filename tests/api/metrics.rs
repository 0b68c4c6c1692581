//! `/metrics`: access, and panics. The counts are tested in `tests/cli`, where a process has one shop only.

use crate::support::TestShop;

#[actix_web::test]
async fn metrics_require_internal_network() {
    let shop = TestShop::without_domains().await;
    let reply = shop.get("!/metrics").await;
    assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (200, Some("no-store")));
    assert!(reply.text().contains("# TYPE mercat_http_requests_total counter"), "{}", reply.text());
    shop.call("HEAD", "!/metrics/").send().await;
    // Behind an undeclared proxy the client address is unknown.
    shop.call("GET", "!/metrics")
        .header("x-forwarded-for", "203.0.113.9")
        .send()
        .await
        .expect_problem(403, "internal_only");
    let shop = TestShop::open_with(|settings| {
        settings.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        settings.stats.internal_networks = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    let from = |address: &'static str| shop.call("GET", "!/metrics").header("x-forwarded-for", address).send();
    from("203.0.113.9").await.expect_problem(403, "internal_only");
    assert_eq!(from("10.9.8.7").await.status.as_u16(), 200);
    shop.get("!/metrics").await.expect_problem(403, "internal_only");
}

#[actix_web::test]
async fn handler_panic_is_counted_as_internal_error() {
    let shop = TestShop::open().await;
    let lost = || async {
        let text = shop.get("!/metrics").await.text();
        let line = "mercat_message_errors_total{domain=\"catalog\",message=\"catalog.GetProduct\",place=\"local\",kind=\"internal\"} ";
        text.lines().find_map(|l| l.strip_prefix(line)).map_or(0, |n| n.parse::<u64>().unwrap())
    };
    let before = lost().await;
    let path = "/product/018f3c5e-0000-7000-8000-000000000000";
    let reply = shop.call("GET", path).header("x-test-panic", "catalog.GetProduct").send().await;
    reply.expect_problem(500, "internal");
    assert!(lost().await > before);
}
