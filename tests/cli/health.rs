//! Monitoring from outside: `mercat health`, and the metrics.

use std::collections::BTreeMap;

use crate::support::{RunningShop, Sandbox};

#[test]
fn health_reports_readiness_by_exit_code() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    let url = format!("http://{}", shop.address);
    let well = sandbox.run(&["health", "--url", &url]).assert_ok();
    assert_eq!((well.out.as_str(), well.err.as_str()), (&*format!("ready: {url}/readyz\n"), ""));
    // By the settings that the process and its health check share.
    let same = Sandbox::new().with("MERCAT_LISTEN", &shop.address);
    same.run(&["health"]).assert_ok();
    assert!(!same.path("data").exists(), "asking makes no folder");
    sandbox.run(&["health", "--url", &format!("{url}/healthz")]).assert_ok();
    sandbox.run(&["health", "--url", &format!("{url}/nothing")]).assert_failed(1, &["not ready", "404"]);
    sandbox.run(&["health", "--url", "https://127.0.0.1:1"]).assert_failed(1, &["--url", "http://HOST:PORT"]);
    let port_0 = Sandbox::new().with("MERCAT_LISTEN", "127.0.0.1:0");
    port_0.run(&["health"]).assert_failed(1, &["port 0", "--url"]);
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    same.run(&["health"]).assert_failed(1, &["not ready", &same_address(&url), "connection refused"]);
}

fn same_address(url: &str) -> String {
    format!("{url}/readyz")
}

#[test]
fn health_times_out_on_silent_process() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = Sandbox::new().with("MERCAT_LISTEN", &silent.local_addr().unwrap().to_string());
    sandbox.run(&["health"]).assert_failed(1, &["not ready", "does not respond within 5 s"]);
}

/// Series of the metrics with their values.
fn metrics(shop: &RunningShop) -> BTreeMap<String, f64> {
    let answer = shop.get("/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let series = body.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, number) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), number.parse().unwrap_or_else(|_| panic!("{line}")))
    });
    series.collect()
}

#[test]
fn metrics_count_requests_and_messages_once() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    for _ in 0..3 {
        shop.get("/api/v1/product/018f3c5e-0000-7000-8000-000000000000");
    }
    shop.get("/api/v1/products/?q=teapot");
    shop.get("/nowhere/at/all");
    shop.get("/api/v1/nowhere");
    shop.post("/api/v1/product/x", "{}");
    shop.post("/api/v1/signin", r#"{"email":"ada@example.com","password":"wrong"}"#);
    let seen = metrics(&shop);
    let one = |name: &str| *seen.get(name).unwrap_or_else(|| panic!("{name} is not in {seen:#?}"));
    let http = |method: &str, route: &str, status: &str| {
        one(&format!("mercat_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}"))
    };
    assert_eq!(http("GET", "/api/v1/product/{id}", "4xx"), 3.0);
    assert_eq!(http("other", "/api/v1/product/{id}", "4xx"), 1.0);
    assert_eq!(http("GET", "/api/v1/products", "2xx"), 1.0);
    assert_eq!(http("POST", "/api/v1/signin", "4xx"), 1.0);
    assert_eq!(http("other", "other", "4xx"), 2.0);
    let times = "mercat_http_request_duration_seconds";
    assert_eq!(one(&format!("{times}_count{{method=\"GET\",route=\"/api/v1/product/{{id}}\"}}")), 3.0);
    assert_eq!(one(&format!("{times}_bucket{{le=\"+Inf\",method=\"GET\",route=\"/api/v1/product/{{id}}\"}}")), 3.0);
    // This request itself.
    assert_eq!(one("mercat_http_requests_in_flight"), 1.0);

    let of = |message: &str| {
        let domain = message.split('.').next().unwrap();
        format!("domain=\"{domain}\",message=\"{message}\",place=\"local\"")
    };
    let times = "mercat_message_duration_seconds";
    assert_eq!(one(&format!("{times}_count{{{}}}", of("catalog.GetProduct"))), 3.0);
    assert_eq!(one(&format!("{times}_bucket{{le=\"+Inf\",{}}}", of("catalog.GetProduct"))), 3.0);
    assert_eq!(one(&format!("mercat_message_errors_total{{{},kind=\"not_found\"}}", of("catalog.GetProduct"))), 3.0);
    assert_eq!(one(&format!("mercat_message_errors_total{{{},kind=\"unauthenticated\"}}", of("users.SignIn"))), 1.0);
    assert_eq!(one(&format!("mercat_messages_in_flight{{{}}}", of("catalog.GetProduct"))), 0.0);

    for domain in mercat::settings::DOMAIN_NAMES {
        for (state, is) in [("up", 1.0), ("degraded", 0.0), ("down", 0.0)] {
            let labels = format!("domain=\"{domain}\",place=\"local\",state=\"{state}\"");
            assert_eq!(one(&format!("mercat_domain_state{{{labels}}}")), is, "{labels}");
        }
        assert_eq!(one(&format!("mercat_domain_queue_depth{{domain=\"{domain}\"}}")), 0.0);
        assert_eq!(one(&format!("mercat_store_waiting_writes{{domain=\"{domain}\"}}")), 0.0);
    }
    assert_eq!(one("mercat_outbox_backlog_events{source=\"payments\",subscriber=\"mailer\"}"), 0.0);
    assert_eq!(one(&format!("mercat_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    assert!(one("process_resident_memory_bytes") > 1e6);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - one("process_start_time_seconds")).abs() < 600.0);
    // No path sent by a client appears in a label.
    assert!(!seen.keys().any(|name| name.contains("nowhere") || name.contains("018f3c5e")), "{seen:#?}");
}

#[test]
fn partial_process_shows_only_its_metrics() {
    let sandbox = Sandbox::new().with("MERCAT_PEERS__TOKEN", "a-token-that-tests-share");
    let part = RunningShop::start(&sandbox, &["--domains", "stats", "--grpc", "127.0.0.1:0"]);
    let seen = metrics(&part);
    assert_eq!(seen.get("mercat_domain_state{domain=\"stats\",place=\"local\",state=\"up\"}"), Some(&1.0));
    assert!(!seen.keys().any(|name| name.contains("domain=\"users\"")), "{seen:#?}");
    // WebSocket metrics belong to the gateway.
    assert!(!seen.contains_key("mercat_live_sessions"));
}

/// Dashboard, alerts and a running shop must use the same metric names.
#[test]
fn dashboard_and_alerts_use_existing_metrics() {
    let sandbox = Sandbox::new();
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    let text = shop.get("/metrics");
    let existing: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut seen = 0;
    for file in ["grafana/dashboards/mercat.json", "prometheus/alerts.yml"] {
        let text = std::fs::read_to_string(deploy.join(file)).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("mercat_") || word.starts_with("process_")) {
            let bare = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            assert!(existing.contains(&word) || existing.contains(&bare), "{file}: {word} is not in {existing:?}");
            seen += 1;
        }
    }
    assert!(seen > 20, "the files cannot be read");
}
