//! Requests that the HTTP parser refuses, or that ask for another protocol: answered with a problem, none left to wait.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::TestShop;

/// Everything that the shop sends on a connection with these bytes, until it closes the connection.
async fn exchange(shop: &TestShop, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(&shop.address).await.unwrap();
    // The shop may close before it has read everything.
    let _ = connection.write_all(bytes).await;
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(Duration::from_secs(15), connection.read_to_end(&mut answer)).await;
    reading.expect("the connection stays open").unwrap_or_else(|error| panic!("{error}"));
    String::from_utf8(answer).unwrap()
}

/// The last response among those received on a connection, which must be a problem document with this status and code.
fn expect_problem(answer: &str, status: u16, code: &str) {
    let start = answer.rfind("HTTP/1.1 4").unwrap_or_else(|| panic!("no response: {answer}"));
    let (head, body) = answer[start..].split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with(&format!("http/1.1 {status} ")), "{answer}");
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!((problem["code"].as_str(), problem["status"].as_u64()), (Some(code), Some(status.into())), "{answer}");
    assert!(head.contains(&format!("x-request-id: {}", problem["request_id"].as_str().unwrap())), "{answer}");
}

#[actix_web::test]
async fn requests_that_cannot_be_parsed_return_a_problem() {
    let shop = TestShop::without_domains().await;
    for bytes in [
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n",
        "GET /readyz HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n",
    ] {
        expect_problem(&exchange(&shop, bytes.as_bytes()).await, 400, "malformed_request");
    }
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\ncookie: {}\r\n\r\n", "c".repeat(1_000_000));
    expect_problem(&exchange(&shop, large.as_bytes()).await, 431, "request_head_too_large");
    expect_problem(&exchange(&shop, b"GET / HTTP/1.1\r\nhost: x\r\n").await, 408, "request_timeout");
    let answer = exchange(&shop, b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[actix_web::test]
async fn upgrade_that_is_not_taken_leaves_the_request_as_it_is() {
    let shop = TestShop::without_domains().await;
    let upgrade = "host: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let with_body = |body: &str| {
        let length = body.len();
        format!(
            "POST /api/v1/signin HTTP/1.1\r\n{upgrade}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    expect_problem(&exchange(&shop, with_body(r#"{"email":1}"#).as_bytes()).await, 422, "validation_failed");
    expect_problem(&exchange(&shop, (with_body("{") + "more bytes").as_bytes()).await, 400, "malformed_body");
    let without_body = format!("POST /api/v1/signin HTTP/1.1\r\n{upgrade}content-type: application/json\r\n\r\n");
    expect_problem(&exchange(&shop, without_body.as_bytes()).await, 400, "malformed_body");
    let unknown = format!("GET /api/v1/nowhere HTTP/1.1\r\n{upgrade}\r\n");
    expect_problem(&exchange(&shop, unknown.as_bytes()).await, 404, "not_found");
    let other = "CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = exchange(&shop, other.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}
