//! S1: idle connections of strangers do not stop the shop, even where few files may be open.
#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{RunningShop, Sandbox, WAIT_TIMEOUT};

const HANDSHAKE: &str = "GET /api/v1/ws HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Connects from an address of this machine.
fn connect_from(shop: &RunningShop, last: u8) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into()).unwrap();
    socket.connect(&shop.address.parse::<SocketAddr>().unwrap().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(WAIT_TIMEOUT)).unwrap();
    stream
}

/// Reads what has arrived once something has; all of a short response.
fn read_some(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 4_096];
    let length = stream.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Opens live sessions from one address until one is refused.
fn fill(shop: &RunningShop, last: u8) -> Vec<TcpStream> {
    let mut sessions = Vec::new();
    loop {
        let mut stream = connect_from(shop, last);
        stream.write_all(HANDSHAKE.as_bytes()).unwrap();
        let response = read_some(&mut stream);
        if !response.starts_with("HTTP/1.1 101") {
            assert!(response.starts_with("HTTP/1.1 503"), "{response}");
            assert!(response.contains("retry-after: "), "{response}");
            return sessions;
        }
        sessions.push(stream);
    }
}

fn metric(shop: &RunningShop, name: &str) -> u64 {
    let text = shop.get("/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    value.unwrap_or_else(|| panic!("no {name}: {text}")) as u64
}

fn body(response: &str) -> Value {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 2"), "{response}");
    serde_json::from_str(body).unwrap()
}

/// A guest buys a product; returns the paid invoice.
fn buy(shop: &RunningShop, product: &str, key: &str) -> Value {
    let guest = body(&shop.post("/api/v1/guest", ""));
    let (user, token) = (guest["user"]["id"].as_str().unwrap(), guest["token"].as_str().unwrap());
    let cart = format!("/api/v1/user/{user}/cart");
    body(&shop.post_as(token, &cart, &json!({ "product_id": product, "quantity": 1 }).to_string()));
    let email = json!({ "email": "buyer@example.com" }).to_string();
    let invoice = body(&shop.post_as(token, &format!("{cart}/checkout"), &email));
    let path = format!("/api/v1/invoices/{}/pay", invoice["id"].as_str().unwrap());
    let head = format!("Authorization: Bearer {token}\r\nIdempotency-Key: {key}\r\n");
    body(&shop.post_with(&head, &path, r#"{"token":"tok_ok"}"#))
}

#[test]
fn s01_shop_sells_while_idle_sockets_fill_its_files() {
    const FILES: u32 = 600;
    let sandbox = Sandbox::new().with("MERCAT_ADMIN_PASSWORD", "correct horse battery");
    sandbox.run(&["admin", "create", "--email", "ada@example.com"]).assert_ok();
    let shop = RunningShop::start_with_open_files(&sandbox, FILES, FILES);
    let admin = json!({ "email": "ada@example.com", "password": "correct horse battery" }).to_string();
    let admin = body(&shop.post("/api/v1/signin", &admin))["token"].as_str().unwrap().to_owned();
    let product = json!({ "name": "Tea", "sku": "tea", "price": 100, "currency": "EUR", "stock": 9 }).to_string();
    let product = body(&shop.post_as(&admin, "/api/v1/product", &product))["id"].as_str().unwrap().to_owned();
    buy(&shop, &product, "before");

    let files = metric(&shop, "process_open_fds ");
    let mut sessions = fill(&shop, 10);
    let of_one_address = sessions.len() as u64;
    assert!((50..100).contains(&of_one_address), "{of_one_address}");
    assert!(metric(&shop, "process_open_fds ") <= files + of_one_address + 8, "one file for each");
    for last in 11..20 {
        sessions.extend(fill(&shop, last));
    }
    assert!((200..300).contains(&sessions.len()), "{}", sessions.len());
    assert!(metric(&shop, "process_open_fds ") < u64::from(FILES));
    assert_eq!(buy(&shop, &product, "sockets")["status"], "paid");

    // Connections that send nothing fill the rest.
    let mut idle: Vec<TcpStream> = Vec::new();
    let refused = 'full: loop {
        let last = u8::try_from(20 + idle.len() / 40).unwrap();
        let mut stream = connect_from(&shop, last);
        stream.set_nonblocking(true).unwrap();
        idle.push(stream.try_clone().unwrap());
        let begun = Instant::now();
        // A refusal arrives without a request; an accepted connection stays silent.
        while begun.elapsed() < Duration::from_millis(50) {
            let mut buffer = [0; 4_096];
            match stream.read(&mut buffer) {
                Ok(length) if length > 0 => break 'full String::from_utf8_lossy(&buffer[..length]).into_owned(),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        assert!(idle.len() < FILES as usize);
    };
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("too_many_connections"), "{refused}");
    assert!(refused.contains("retry-after: ") && refused.contains("x-request-id: "), "{refused}");
    drop(idle);
    let begun = Instant::now();
    while !shop.get("/healthz").starts_with("HTTP/1.1 200") {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "the closed connections are counted still");
    }
    assert_eq!(buy(&shop, &product, "after")["status"], "paid");
    assert!(metric(&shop, "mercat_http_connections_refused_total ") > 0);
}
