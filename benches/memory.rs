//! Resident memory of the real binary: idle, after sign-ins, under load with clients that read nothing, and afterwards.
//!
//! Each figure is printed with its budget; the process ends with 1 if one is above. `cargo bench --bench memory -- SECONDS`
//! sets the length of the load (5).
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

#[path = "../tests/e2e/support.rs"]
#[allow(dead_code, reason = "shared with the tests, which use the rest")]
mod support;

use std::cell::Cell;
use std::fs;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{HttpClient, Shop};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// Sign-ins in all, and how many at once.
const SIGN_INS: (usize, usize) = (1_000, 20);
/// Connections that request many pictures and read none of them.
const PICTURE_READERS: usize = 300;
/// Pictures that each of them requests.
const PICTURES: usize = 40;
/// WebSockets that send pings and read nothing.
const SOCKETS: usize = 100;
/// Bytes of pings that each of them sends at most.
const PINGS_MAX: usize = 16 << 20;
/// Clients that read products meanwhile.
const CLIENTS: usize = 64;
/// Time after which memory must have returned.
const REST: Duration = Duration::from_secs(10);
const MB: f64 = 1e6;

fn main() -> ExitCode {
    let seconds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(5);
    actix::System::new().block_on(run(Duration::from_secs(seconds)))
}

async fn run(span: Duration) -> ExitCode {
    let dir = TempDir::new().unwrap();
    let shop = Shop::start(dir.path(), &[], &[]);
    let mut report = Report::default();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = resident(&shop, "VmRSS");
    report.line("idle, with the demo shop", idle, 40.0 * MB);

    reset_peak(&shop);
    sign_in_many(&shop).await;
    report.line(
        &format!("peak of {} sign-ins, {} at once", SIGN_INS.0, SIGN_INS.1),
        resident(&shop, "VmHWM"),
        90.0 * MB,
    );

    tokio::time::sleep(REST).await;
    report.line(&format!("{} s later", REST.as_secs()), resident(&shop, "VmRSS"), idle + 10.0 * MB);

    reset_peak(&shop);
    let kernel = kernel_bytes();
    let stalled = stalled_readers(&shop).await;
    let rate = read_products(&shop, span).await;
    let name = format!("peak under {rate:.0} requests/s with {} stalled readers", stalled.len());
    report.line(&name, resident(&shop, "VmHWM"), 150.0 * MB);
    let per_connection = (kernel_bytes() - kernel) / stalled.len() as f64;
    report.line("  socket buffers of both sides, per stalled reader", per_connection, 0.7 * MB);
    drop(stalled);

    tokio::time::sleep(REST).await;
    report.line(&format!("{} s later", REST.as_secs()), resident(&shop, "VmRSS"), idle + 10.0 * MB);
    shop.terminate();
    report.exit_code()
}

/// Prints figures, and remembers whether one was above its budget.
#[derive(Default)]
struct Report {
    has_exceeded: bool,
}

impl Report {
    fn line(&mut self, name: &str, bytes: f64, budget: f64) {
        let is_above = bytes > budget;
        self.has_exceeded |= is_above;
        let mark = if is_above { "  ABOVE" } else { "" };
        println!("{name:<55} {:>7.1} MB  budget {:>6.1} MB{mark}", bytes / MB, budget / MB);
    }

    fn exit_code(&self) -> ExitCode {
        if self.has_exceeded { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

async fn sign_in_many(shop: &Shop) {
    let body = json!({ "email": "ada@example.com", "password": "a long password", "name": "Ada" });
    shop.client().post("/user", body).await.expect_status(201);
    let (all, at_once) = SIGN_INS;
    let running = (0..at_once).map(|_| {
        let mut client = shop.client();
        async move {
            for _ in 0..all / at_once {
                client.sign_in("ada@example.com", "a long password").await;
            }
        }
    });
    futures_util::future::join_all(running).await;
}

/// Opens all connections that read nothing.
async fn stalled_readers(shop: &Shop) -> Vec<TcpStream> {
    let products = shop.client().get("/products/?limit=20").await.expect_status(200);
    let pictures: Vec<&str> = products["items"].as_array().unwrap().iter().filter_map(picture_of).collect();
    let mut stalled = Vec::new();
    for n in 0..PICTURE_READERS {
        let mut connection = TcpStream::connect(shop.url.trim_start_matches("http://")).await.unwrap();
        for m in 0..PICTURES {
            let path = pictures[(n + m) % pictures.len()];
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            connection.write_all(request.as_bytes()).await.unwrap();
        }
        stalled.push(connection);
    }
    for _ in 0..SOCKETS {
        stalled.push(stalled_socket(shop).await);
    }
    stalled
}

fn picture_of(product: &Value) -> Option<&str> {
    product["images"][0]["url"].as_str()
}

/// A WebSocket that sends pings until the shop takes no more.
async fn stalled_socket(shop: &Shop) -> TcpStream {
    let mut connection = TcpStream::connect(shop.url.trim_start_matches("http://")).await.unwrap();
    let handshake = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                     sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    connection.write_all(handshake.as_bytes()).await.unwrap();
    // A masked ping of 100 bytes (RFC 6455 §5.5.2).
    let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[b'x'; 100]].concat();
    let pings = ping.repeat(100);
    for _ in 0..PINGS_MAX / pings.len() {
        let sent = tokio::time::timeout(Duration::from_millis(50), connection.write_all(&pings)).await;
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    connection
}

/// Reads lists of products with many clients. Returns the requests per second.
async fn read_products(shop: &Shop, span: Duration) -> f64 {
    let (started, done) = (Instant::now(), Rc::new(Cell::new(0_u32)));
    let running = (0..CLIENTS).map(|_| {
        let (client, done): (HttpClient, _) = (shop.client(), Rc::clone(&done));
        async move {
            while started.elapsed() < span {
                client.get("/products/?limit=5").await.expect_status(200);
                done.set(done.get() + 1);
            }
        }
    });
    futures_util::future::join_all(running).await;
    f64::from(done.get()) / started.elapsed().as_secs_f64()
}

/// A figure of the process's status, in bytes.
fn resident(shop: &Shop, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", shop.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// Lets the peak begin from what is resident now (proc(5), `clear_refs`).
fn reset_peak(shop: &Shop) {
    fs::write(format!("/proc/{}/clear_refs", shop.process.id()), "5").unwrap();
}

/// Memory of all TCP sockets of the machine, in bytes.
fn kernel_bytes() -> f64 {
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap();
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap();
    tcp.rsplit(' ').next().unwrap().parse::<f64>().unwrap() * 4096.0
}
