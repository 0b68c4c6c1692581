//! Mutated input on every parser that strangers reach: no 5xx, no hang, and the shop serves afterwards.
//!
//! `MERCAT_FUZZ_CASES` is the number of inputs for each parser (200), `MERCAT_FUZZ_SEED` selects them; a failure names both.
//! The files that the command line reads are fuzzed in `domains/catalog/import_export`.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::mutation::Mutator;
use crate::purchase::{form, png};
use crate::support::{TestShop, TestUser, new_product};

/// Longest time that an answer may take.
const HANG: Duration = Duration::from_secs(20);

/// Sends raw bytes on a connection of its own, ends it, and returns what came back.
async fn exchange(shop: &TestShop, bytes: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect(&shop.address).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        // The shop may refuse the rest.
        let _ = connection.write_all(bytes).await;
        let _ = connection.shutdown().await;
        let _ = connection.read_to_end(&mut answer).await;
    };
    assert!(tokio::time::timeout(HANG, talk).await.is_ok(), "no end: {}", bytes.escape_ascii());
    answer
}

fn assert_no_server_error(sent: &[u8], answer: &[u8]) {
    let is_server_error = answer.windows(10).any(|window| window == b"HTTP/1.1 5");
    assert!(!is_server_error, "{}\n{}", sent.escape_ascii(), answer.escape_ascii());
}

/// Every byte that may not stand in a query as it is, percent-encoded.
fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'=' | b'&' | b'%' => text.push(byte.into()),
            _ => write!(text, "%{byte:02x}").unwrap(),
        }
        text
    })
}

async fn expect_alive(shop: &TestShop) {
    shop.get("/products").await.expect(200);
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn s10_queries_and_cursors() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    for n in 0..3 {
        shop.product(&admin, &format!("TEA-{n}"), 400 + n, 5).await;
    }
    let next = shop.get("/products?limit=1").await.expect(200)["next"].as_str().unwrap().to_owned();
    let seeds = [
        format!("/products?limit=1&cursor={next}"),
        "/products?q=tea%20cup&category=a&tag=b&min_price=1&max_price=9&in_stock=true&sort=-price&variants=all"
            .to_owned(),
        "/users?limit=2&q=ada&role=customer".to_owned(),
        "/invoices?status=paid&limit=100".to_owned(),
        "/emails?status=sent&limit=1".to_owned(),
        "/stats?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&bucket=day".to_owned(),
        "/log?limit=5".to_owned(),
    ];
    let mut mutator = Mutator::from_environment();
    for _ in 0..mutator.cases() {
        let (path, query) = mutator.choose(&seeds).split_once('?').unwrap();
        let query = encode(&mutator.mutate(query.as_bytes()));
        let reply = shop.call("GET", &format!("{path}?{query}")).with_user(&admin).send().await;
        assert!(reply.status.as_u16() < 500, "{mutator}: {reply:?}");
    }
    expect_alive(&shop).await;
}

#[actix_web::test]
async fn s10_heads_and_cookies() {
    let shop = TestShop::open().await;
    let token = shop.guest().await.token;
    let seeds = [
        format!(
            "GET /api/v1/me HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: a=b; mercat_session={token}\r\n\r\n"
        ),
        "GET /api/v1/products?limit=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\nif-none-match: \"a\"\r\n\r\n"
            .to_owned(),
        format!(
            "POST /api/v1/guest HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             idempotency-key: k\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        ),
        "GET /static/css/base.css HTTP/1.1\r\nhost: x\r\nconnection: close\r\nrange: bytes=0-9\r\n\
         accept-encoding: gzip\r\nx-forwarded-for: 10.0.0.1\r\nforwarded: for=1.1.1.1\r\n\r\n"
            .to_owned(),
    ];
    let mut mutator = Mutator::from_environment();
    for _ in 0..mutator.cases() {
        let seed = mutator.choose(&seeds);
        let bytes = mutator.mutate(seed.as_bytes());
        assert_no_server_error(&bytes, &exchange(&shop, &bytes).await);
    }
    expect_alive(&shop).await;
}

#[actix_web::test]
async fn s10_bodies() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let seeds = [
        ("/product", new_product("TEA", 400, 5)),
        ("/signin", json!({ "email": "ada@example.com", "password": "correct horse" })),
        ("/log", json!({ "name": "seen", "data": { "a": [1, null, true] } })),
        ("/api_keys", json!({ "name": "script", "scopes": ["catalog:read"] })),
    ];
    let mut mutator = Mutator::from_environment();
    for _ in 0..mutator.cases() {
        let (path, body) = mutator.choose(&seeds);
        let body = mutator.mutate(body.to_string().as_bytes());
        let reply = shop.call("POST", path).with_user(&admin).raw("application/json", body).send().await;
        assert!(reply.status.as_u16() < 500, "{mutator}: {reply:?}");
    }
    expect_alive(&shop).await;
}

/// Uploads bytes as a picture; returns the status.
async fn upload(shop: &TestShop, admin: &TestUser, product: &str, bytes: &[u8]) -> u16 {
    let (content_type, body) = form("file", bytes);
    let path = format!("/product/{product}/images");
    shop.call("POST", &path).with_user(admin).raw(&content_type, body).send().await.status.as_u16()
}

#[actix_web::test]
async fn s10_pictures() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 400, 5).await;
    let picture = image::DynamicImage::new_rgb8(9, 7);
    let encode = |format| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    };
    let seeds =
        [png(), encode(image::ImageFormat::Png), encode(image::ImageFormat::Jpeg), encode(image::ImageFormat::WebP)];
    let mut mutator = Mutator::from_environment();
    for _ in 0..mutator.cases() {
        let seed = mutator.choose(&seeds);
        let bytes = mutator.mutate(seed);
        let status = upload(&shop, &admin, &product, &bytes).await;
        assert!(status < 500, "{mutator}: {status} for {}", bytes.escape_ascii());
    }
    expect_alive(&shop).await;
}

/// A masked text frame (RFC 6455 §5.2) of at most 125 bytes, with a mask of zeros.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[actix_web::test]
async fn s10_frames() {
    let shop = TestShop::open().await;
    let token = shop.guest().await.token;
    let handshake = b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let seeds = [
        frame(&json!({ "type": "auth", "token": token }).to_string()),
        frame(r#"{"type":"subscribe","topics":["product:1","stock"]}"#),
        frame(r#"{"type":"ack","id":12}"#),
        [frame("{}"), frame(r#"{"type":"ping"}"#), vec![0x88, 0x80, 0, 0, 0, 0]].concat(),
        vec![0x89, 0x80, 0, 0, 0, 0, 0x8a, 0x80, 0, 0, 0, 0],
    ];
    let mut mutator = Mutator::from_environment();
    for _ in 0..mutator.cases() {
        let seed = mutator.choose(&seeds);
        let frames = mutator.mutate(seed);
        let bytes = [&handshake[..], &frames].concat();
        assert_no_server_error(&bytes, &exchange(&shop, &bytes).await);
    }
    expect_alive(&shop).await;
}
