//! The gateway with every domain disabled: unknown paths, request ids, bodies, static files, shutdown.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{TestShop, enable_only};

#[actix_web::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let shop = TestShop::without_domains().await;
    for path in
        ["/nothing", "/user/1/2/3/4", "", "/", "/static", "!/nothing", "!/api", "!/api/v2/x", "!/%ff", "!/static/x"]
    {
        shop.call("GET", path).header("accept", "*/*").send().await.expect_problem(404, "not_found");
    }
    for (method, path, allow) in [
        ("DELETE", "/products", "GET, HEAD, OPTIONS"),
        ("POST", "/me/", "GET, HEAD, OPTIONS"),
        ("GET", "/signin", "POST, OPTIONS"),
        ("TRACE", "/user/x/cart/", "GET, HEAD, POST, OPTIONS"),
        ("POST", "/product/x", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
        ("POST", "!/healthz", "GET, HEAD, OPTIONS"),
        ("PUT", "!/", "GET, HEAD, OPTIONS"),
    ] {
        let reply = shop.call(method, path).send().await;
        reply.expect_problem(405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some(allow), "{method} {path}");
    }
    let reply = shop.call("OPTIONS", "/products").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
}

#[actix_web::test]
async fn h03_disabled_domain_returns_503_only_on_its_routes() {
    let shop = TestShop::without_domains().await;
    for path in ["/products", "/products/", "/product/018f3c5e-0000-7000-8000-000000000000", "/counter"] {
        let reply = shop.get(path).await;
        reply.expect_problem(503, "unavailable");
        assert!(reply.header("retry-after").is_some());
    }
    let body = json!({ "email": "a@example.com", "password": "x" });
    shop.call("POST", "/signin").json(&body).send().await.expect_problem(503, "unavailable");
    assert_eq!(shop.get("!/healthz").await.expect(200)["status"], "up");
    assert_eq!(shop.get("!/readyz/").await.expect(200)["status"], "ready");
    let health = shop.get("!/health").await.expect(200);
    assert_eq!(health["status"], "up");
    assert_eq!(health["domains"].as_object().unwrap().len(), 8);
    assert_eq!(health["domains"]["catalog"]["status"], "off");
}

#[actix_web::test]
async fn h03_visitor_with_a_cookie_reads_while_accounts_are_off() {
    let shop = TestShop::open_with(|settings| enable_only(settings, &["catalog"])).await;
    let as_visitor = |method: &str, path: &str| shop.call(method, path).cookie("mct_of-another-day").send();
    assert_eq!(as_visitor("GET", "/products").await.expect(200)["items"], json!([]));
    as_visitor("GET", "/me").await.expect_problem(503, "unavailable");
    as_visitor("POST", "/guest").await.expect_problem(503, "unavailable");
}

#[actix_web::test]
async fn valid_request_id_is_kept_and_invalid_replaced() {
    let shop = TestShop::without_domains().await;
    let long = "x".repeat(128);
    for sane in ["abc-1.2_3", long.as_str()] {
        let reply = shop.call("GET", "/nothing").header("x-request-id", sane).send().await;
        assert_eq!(reply.expect_problem(404, "not_found")["request_id"], sane);
    }
    let longer = "x".repeat(129);
    for odd in ["", "a b", "a\"b", "<script>", longer.as_str()] {
        let reply = shop.call("GET", "!/healthz").header("x-request-id", odd).send().await;
        let id = reply.header("x-request-id").unwrap().to_owned();
        assert_ne!(id, odd);
        let id = uuid::Uuid::parse_str(&id).unwrap();
        assert_eq!(id.get_version_num(), 7);
    }
    let (one, two) = (shop.get("!/healthz").await, shop.get("!/healthz").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[actix_web::test]
async fn invalid_bodies_are_rejected_before_dispatch() {
    let shop = TestShop::open_with(|settings| {
        settings.http.body_max = 2_048;
        enable_only(settings, &[]);
    })
    .await;
    let post = || shop.call("POST", "/signin");
    let big = json!({ "email": "x".repeat(4_000), "password": "y" });
    assert_eq!(post().json(&big).send().await.expect_problem(413, "body_too_large")["max_bytes"], 2_048);
    post().raw("text/plain", "{}").send().await.expect_problem(415, "unsupported_media_type");
    post().raw("", "{}").send().await.expect_problem(415, "unsupported_media_type");
    post().raw("application/x-www-form-urlencoded", "a=b").send().await.expect_problem(415, "unsupported_media_type");
    let problem = post().raw("application/json", "{\n\"email\": }").send().await.expect_problem(400, "malformed_body");
    assert!(problem["detail"].as_str().unwrap().contains("line 2 column"), "{problem}");
    post().raw("application/json", "").send().await.expect_problem(400, "malformed_body");
    post().raw("application/json", vec![0xff, 0xfe]).send().await.expect_problem(400, "malformed_body");
    post().raw("application/json", "[".repeat(1_000)).send().await.expect_problem(400, "malformed_body");
    let problem = post().json(&json!({ "email": 5 })).send().await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["field"], "email");
    let problem = post().json(&json!({ "email": "a" })).send().await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"], json!([{ "field": "password", "code": "required", "message": "must be given" }]));
    post().raw("application/json; charset=utf-8", "{\"a\":1}").send().await.expect_problem(422, "validation_failed");
    post().raw("application/problem+json", "[]").send().await.expect_problem(422, "validation_failed");
}

#[actix_web::test]
async fn chunked_body_has_same_size_limit() {
    let shop = TestShop::without_domains().await;
    let chunks = futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; 65_536].into())));
    let url = format!("http://{}/api/v1/signin", shop.address);
    let sent = awc::Client::default().post(url).insert_header(("content-type", "application/json")).send_stream(chunks);
    assert_eq!(sent.await.unwrap().status().as_u16(), 413);
}

#[actix_web::test]
async fn invalid_keys_and_queries_are_reported() {
    let shop = TestShop::without_domains().await;
    let long = "x".repeat(256);
    for bad in [long.as_str(), "\"\"", "a\"b"] {
        shop.call("POST", "/guest").idempotency_key(bad).send().await.expect_problem(400, "invalid_idempotency_key");
    }
    shop.call("GET", "/products").idempotency_key(&long).send().await.expect_problem(503, "unavailable");
    let problem = shop.get("/products?limit=ten&in_stock=maybe&sort=up&variants=some&min_price=1.5").await;
    let problem = problem.expect_problem(422, "validation_failed");
    let mut fields: Vec<_> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["in_stock", "limit", "min_price", "sort", "variants"]);
}

#[actix_web::test]
async fn static_files_have_policy_etag_and_compression() {
    let shop = TestShop::without_domains().await;
    for (path, title) in [
        ("!/", "<title>"),
        ("!/p/some-product", "<title>"),
        ("!/orders/018f3c5e-0000-7000-8000-000000000000", "<title>"),
        ("!/cart/", "<title>"),
        ("!/admin", "back office"),
        ("!/admin/products/new", "back office"),
    ] {
        let reply = shop.get(path).await;
        assert_eq!(reply.status.as_u16(), 200, "{path}");
        assert!(reply.text().contains(title), "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        assert_eq!(reply.header("cross-origin-opener-policy"), Some("same-origin"));
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
    }
    let path = "!/static/js/api.js";
    let plain = shop.get(path).await;
    assert_eq!(plain.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(plain.header("content-encoding"), None);
    let packed = shop.call("GET", path).header("accept-encoding", "gzip, br").send().await;
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.bytes.len() < plain.bytes.len() / 2);
    for reply in [&plain, &packed] {
        let coding = reply.header("content-encoding").unwrap_or("identity");
        let again = shop.call("GET", path).header("accept-encoding", coding);
        let again = again.header("if-none-match", reply.header("etag").unwrap()).send().await;
        assert_eq!((again.status.as_u16(), again.bytes.len()), (304, 0));
    }
    assert_ne!(plain.header("etag"), packed.header("etag"));
    let head = shop.call("HEAD", path).send().await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));
    for outside in
        ["!/static/../Cargo.toml", "!/static/%2e%2e/Cargo.toml", "!/static/index.html", "!/static//etc/passwd"]
    {
        shop.get(outside).await.expect_problem(404, "not_found");
    }
}

#[actix_web::test]
async fn unknown_page_is_html_for_browsers_only() {
    let shop = TestShop::without_domains().await;
    let browser = shop.call("GET", "!/nowhere").header("accept", "text/html,*/*;q=0.8").send().await;
    assert_eq!((browser.status.as_u16(), browser.header("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(browser.header("content-security-policy").is_some());
    let api = shop.call("GET", "/nowhere").header("accept", "text/html").send().await;
    api.expect_problem(404, "not_found");
}

#[actix_web::test]
async fn shutdown_completes_accepted_requests() {
    let mut shop = TestShop::without_domains().await;
    // A request in flight: its head has been sent, its body not.
    let mut slow = tokio::net::TcpStream::connect(&shop.address).await.unwrap();
    let body = json!({ "email": "a@example.com", "password": "x" }).to_string();
    let head = format!(
        "POST /api/v1/signin HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut idle = tokio::net::TcpStream::connect(&shop.address).await.unwrap();
    idle.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 1_024];
    let read = idle.read(&mut first).await.unwrap();
    assert!(String::from_utf8_lossy(&first[..read]).starts_with("HTTP/1.1 200"));
    let handle = shop.handle.clone();
    let stopping = actix_web::rt::spawn(async move { handle.stop(true).await });
    // Lets the stop begin: from its first step on the process reports not ready.
    tokio::task::yield_now().await;
    // Connections that are still open are problem that this process takes no more traffic.
    idle.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).await.unwrap();
    assert!(answer.is_empty() || (answer.contains("503") && answer.contains("not_ready")), "{answer}");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(tokio::net::TcpStream::connect(&shop.address).await.is_err() || !stopping.is_finished());
    slow.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"unavailable\""), "{answer}");
    stopping.await.unwrap();
    shop.server_task.take().unwrap().await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(&shop.address).await.is_err());
}

/// Reads one response from a kept-alive connection; `None` if it was closed before the first byte.
async fn read_answer(connection: &mut tokio::net::TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        match connection.read(&mut chunk).await {
            Ok(0) | Err(_) => {
                assert!(text.is_empty(), "a response was cut: {}", String::from_utf8_lossy(&text));
                return None;
            }
            Ok(read) => text.extend_from_slice(&chunk[..read]),
        }
        let so_far = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(so_far);
            }
        }
    }
}

#[actix_web::test]
async fn stalled_body_returns_408() {
    let shop = TestShop::open_with(|settings| {
        settings.http.request_timeout = std::time::Duration::from_millis(300);
        enable_only(settings, &[]);
    })
    .await;
    let mut slow = tokio::net::TcpStream::connect(&shop.address).await.unwrap();
    let head =
        "POST /api/v1/signin HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let answer = read_answer(&mut slow).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"request_timeout\""), "{answer}");
}
