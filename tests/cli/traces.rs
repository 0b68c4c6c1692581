//! H2: a caller's trace goes on through the processes of the shop, and stands in what they log of its request.

use std::io::{Read as _, Write as _};

use serde_json::Value;

use crate::support::{Place, Serving};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const TOKEN: &str = "a-token-that-tests-share";

/// Asks for a product as somebody in a trace; its handler panics on its way.
fn ask_in_trace(shop: &Serving) {
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

/// What a process said from when it listened to its end.
fn said(shop: Serving) -> Vec<String> {
    shop.signal("TERM");
    let (code, said) = shop.end();
    assert_eq!(code, Some(0), "{said:?}");
    said
}

/// The lines with this in them, of which there is at least one.
fn lines<'a>(said: &'a [String], what: &str) -> Vec<&'a str> {
    let found: Vec<&str> = said.iter().map(String::as_str).filter(|line| line.contains(what)).collect();
    assert!(!found.is_empty(), "{what}: {said:#?}");
    found
}

#[test]
fn every_line_of_a_request_names_its_trace_as_text_and_as_json() {
    for format in ["text", "json"] {
        let place = Place::new().with("MERCAT_LOG", "info,mercat::access=debug").with("MERCAT_LOG_FORMAT", format);
        let shop = Serving::start(&place, &["--no-demo"]);
        ask_in_trace(&shop);
        shop.get("/api/v1/counter");
        let said = said(shop);
        for what in ["a test asked catalog.GetProduct to panic", "its handler panicked", "/api/v1/product/"] {
            for line in lines(&said, what) {
                if format == "json" {
                    let line: Value = serde_json::from_str(line).unwrap();
                    assert_eq!(line["trace_id"], TRACE_ID, "{line}");
                } else {
                    assert!(line.ends_with(&format!(" trace_id={TRACE_ID}")), "{line}");
                }
            }
        }
        for what in ["/api/v1/counter", "SIGTERM"] {
            assert!(!lines(&said, what)[0].contains("trace_id"), "{said:#?}");
        }
    }
}

#[test]
fn a_trace_goes_on_in_the_process_that_answers() {
    let place = Place::new().with("MERCAT_PEERS__TOKEN", TOKEN);
    let catalog = Serving::start(&place, &["--domains", "catalog", "--grpc", "127.0.0.1:0"]);
    let grpc = catalog.before.iter().find_map(|line| line.split("gRPC on ").nth(1)).unwrap();
    let address = grpc.split(": catalog").next().unwrap();
    let place =
        Place::new().with("MERCAT_PEERS__TOKEN", TOKEN).with("MERCAT_CATALOG__PLACE", &format!("http://{address}"));
    let shop = Serving::start(&place, &["--no-demo"]);
    ask_in_trace(&shop);
    for (process, what) in [(catalog, "a test asked catalog.GetProduct to panic"), (shop, "/api/v1/product/")] {
        let said = said(process);
        assert!(lines(&said, what).iter().all(|line| line.ends_with(&format!("trace_id={TRACE_ID}"))), "{said:#?}");
    }
}
