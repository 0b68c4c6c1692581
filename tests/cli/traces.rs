//! H2: the trace of a request continues through the processes of the shop and appears in their logs.

use std::io::{Read as _, Write as _};

use serde_json::Value;

use crate::support::{RunningShop, Sandbox};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TOKEN: &str = "a-token-that-tests-share";

/// Gets a product within a trace; its handler panics.
fn get_in_trace(shop: &RunningShop) {
    let mut stream = std::net::TcpStream::connect(&shop.address).unwrap();
    write!(
        stream,
        "GET /api/v1/product/018f3c5e-0000-7000-8000-000000000000 HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\
         X-Request-Id: ours\r\nX-Test-Panic: catalog.GetProduct\r\n\
         traceparent: 00-{TRACE_ID}-b7ad6b7169203331-01\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
}

/// Stops a process; returns its log since it listened.
fn stop_and_read_log(shop: RunningShop) -> Vec<String> {
    shop.signal("TERM");
    let (code, log) = shop.end();
    assert_eq!(code, Some(0), "{log:?}");
    log
}

/// Lines that contain `text`, at least one.
fn lines<'a>(log: &'a [String], text: &str) -> Vec<&'a str> {
    let found: Vec<&str> = log.iter().map(String::as_str).filter(|line| line.contains(text)).collect();
    assert!(!found.is_empty(), "{text}: {log:#?}");
    found
}

#[test]
fn h02_request_log_lines_carry_trace_id() {
    for format in ["text", "json"] {
        let sandbox = Sandbox::new().with("MERCAT_LOG", "info,mercat::access=debug").with("MERCAT_LOG_FORMAT", format);
        let shop = RunningShop::start(&sandbox, &["--no-demo"]);
        get_in_trace(&shop);
        shop.get("/api/v1/counter");
        let log = stop_and_read_log(shop);
        for what in ["panic in catalog.GetProduct", "failed: handler panicked", "/api/v1/product/"] {
            for line in lines(&log, what) {
                if format == "json" {
                    let line: Value = serde_json::from_str(line).unwrap();
                    assert_eq!(line["trace_id"], TRACE_ID, "{line}");
                } else {
                    assert!(line.ends_with(&format!(" trace_id={TRACE_ID}")), "{line}");
                }
            }
        }
        for what in ["/api/v1/counter", "SIGTERM"] {
            assert!(!lines(&log, what)[0].contains("trace_id"), "{log:#?}");
        }
    }
}

#[test]
fn h02_trace_continues_in_remote_process() {
    let sandbox = Sandbox::new().with("MERCAT_PEERS__TOKEN", TOKEN);
    let catalog = RunningShop::start(&sandbox, &["--domains", "catalog", "--grpc", "127.0.0.1:0"]);
    let grpc = catalog.startup_log.iter().find_map(|line| line.split("gRPC on ").nth(1)).unwrap();
    let address = grpc.split(": catalog").next().unwrap();
    let sandbox =
        Sandbox::new().with("MERCAT_PEERS__TOKEN", TOKEN).with("MERCAT_CATALOG__PLACE", &format!("http://{address}"));
    let shop = RunningShop::start(&sandbox, &["--no-demo"]);
    get_in_trace(&shop);
    for (process, what) in [(catalog, "panic in catalog.GetProduct"), (shop, "/api/v1/product/")] {
        let log = stop_and_read_log(process);
        assert!(lines(&log, what).iter().all(|line| line.ends_with(&format!("trace_id={TRACE_ID}"))), "{log:#?}");
    }
}
