//! Throughput, start time and memory of the real binary over HTTP on this machine.
//!
//! Values of one run are comparable with each other, not with those of another machine or day.
//! `cargo bench --bench shop -- SECONDS` sets the length of each load (3).
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

#[path = "../tests/e2e/support.rs"]
#[allow(dead_code, reason = "shared with the tests, which use the rest")]
mod support;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{HttpClient, Shop};
use tempfile::TempDir;

/// Concurrent clients.
const CLIENTS: usize = 64;
/// Measurements per compared variant.
const ROUNDS: usize = 5;

fn main() {
    let seconds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(3);
    actix::System::new().block_on(run(Duration::from_secs(seconds)));
}

async fn run(span: Duration) {
    let dir = TempDir::new().unwrap();
    println!("{CLIENTS} clients, {} s each, over HTTP, every change durable (synchronous=FULL)", span.as_secs());

    // Alternating rounds, because the load of the machine changes.
    let (mut shared, mut alone, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let data = |name: &str| dir.path().join(format!("{name}{round}"));
        let with = adds(&data("shared"), &[], span).await;
        let without = adds(&data("alone"), &[("MERCAT_STORE__BATCH_MAX", "1")], span).await;
        shared.push(with);
        alone.push(without);
        ratios.push(with / without);
    }
    println!("add to cart, commits shared     {:>9.0}/s (median of {ROUNDS})", median(&mut shared));
    println!("add to cart, commit per request {:>9.0}/s (median of {ROUNDS})", median(&mut alone));
    println!("  ratio                         {:>9.2} (median of {ROUNDS})", median(&mut ratios));

    println!("whole order (cart, checkout, pay) {:>7.0}/s", orders(&dir.path().join("orders"), span).await);

    let demo = dir.path().join("demo");
    let first = Instant::now();
    let shop = Shop::start(&demo, &[], &[]);
    println!("first start, with the demo shop {:>9.0} ms", first.elapsed().as_secs_f64() * 1e3);
    shop.client().get("/products/").await.expect_status(200);
    shop.terminate();
    let mut starts = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let shop = Shop::start(&demo, &[], &[]);
        shop.client().get("/products/").await.expect_status(200);
        starts.push(started.elapsed().as_secs_f64() * 1e3);
        shop.terminate();
    }
    println!("start on existing data, to the first list of products {:>6.0} ms (median of 5)", median(&mut starts));

    let shop = Shop::start(&demo, &[], &[]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("idle memory of the demo shop    {:>9.1} MB resident", resident_bytes(&shop) / 1e6);
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Creates one guest with a token per client.
async fn guests(shop: &Shop) -> Vec<(HttpClient, String)> {
    let mut guests = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = shop.client();
        let guest = client.post("/guest", json!({})).await.expect_status(201);
        client.token = Some(guest["token"].as_str().unwrap().to_owned());
        guests.push((client, guest["user"]["id"].as_str().unwrap().to_owned()));
    }
    guests
}

async fn product(shop: &Shop, data: &Path) -> String {
    let admin = shop.admin(data).await;
    let product = json!({"name": "Teapot", "sku": "TEA", "price": 1999, "currency": "EUR", "stock": 1_000_000_000});
    admin.post("/product/", product).await.expect_status(201)["id"].as_str().unwrap().to_owned()
}

/// Repeats `work` for each client during `span`. Returns the completions per second.
async fn load<F: Future<Output = ()> + 'static>(
    clients: Vec<(HttpClient, String)>,
    span: Duration,
    work: impl Fn(HttpClient, String, usize) -> F + Clone + 'static,
) -> f64 {
    let (started, done) = (Instant::now(), Rc::new(Cell::new(0_u32)));
    let running = clients.into_iter().map(|(client, user)| {
        let (work, done) = (work.clone(), Rc::clone(&done));
        actix::spawn(async move {
            let mut turn = 0;
            while started.elapsed() < span {
                work(client.clone(), user.clone(), turn).await;
                done.set(done.get() + 1);
                turn += 1;
            }
        })
    });
    futures_util::future::join_all(running).await;
    f64::from(done.get()) / started.elapsed().as_secs_f64()
}

async fn adds(data: &Path, variables: &[(&str, &str)], span: Duration) -> f64 {
    let shop = Shop::start(data, &["--no-demo"], variables);
    let teapot = product(&shop, data).await;
    let rate = load(guests(&shop).await, span, move |client, user, _| {
        let item = json!({"product_id": teapot, "quantity": 1});
        async move {
            client.post(&format!("/user/{user}/cart/"), item).await.expect_status(201);
        }
    });
    let rate = rate.await;
    shop.terminate();
    rate
}

async fn orders(data: &Path, span: Duration) -> f64 {
    let shop = Shop::start(data, &["--no-demo"], &[]);
    let teapot = product(&shop, data).await;
    let rate = load(guests(&shop).await, span, move |client, user, turn| {
        let item = json!({"product_id": teapot, "quantity": 2});
        async move {
            let cart = format!("/user/{user}/cart/");
            loop {
                let added = client.post(&cart, item.clone()).await;
                // An event empties the cart of the former order shortly after the payment's reply.
                if added.status == 201 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let address = json!({"email": "ada@example.com"});
            let checkout = format!("{cart}checkout");
            let invoice = client.post_idempotent(&checkout, address, &format!("order-{turn}")).await.expect_status(201);
            let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
            client.post_idempotent(&pay, json!({"token": "tok_ok"}), &format!("pay-{turn}")).await.expect_status(200);
        }
    });
    let rate = rate.await;
    shop.terminate();
    rate
}

fn resident_bytes(shop: &Shop) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", shop.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}
