//! How fast and how small the real binary is, over HTTP on this machine. Figures of one run are to be compared with
//! each other, not with those of another machine or day: `cargo bench`. `cargo bench -- SECONDS` sets how long each
//! load lasts (3).
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is not as it should be")]

#[path = "../tests/e2e/support.rs"]
#[allow(dead_code, reason = "shared with the tests, which use the rest")]
mod support;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Shop, Visitor};
use tempfile::TempDir;

/// How many ask at once.
const CLIENTS: usize = 64;
/// How often what is compared is measured.
const ROUNDS: usize = 5;

fn main() {
    let seconds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(3);
    actix::System::new().block_on(run(Duration::from_secs(seconds)));
}

async fn run(span: Duration) {
    let dir = TempDir::new().unwrap();
    println!("{CLIENTS} clients, {} s each, over HTTP, every change durable (synchronous=FULL)", span.as_secs());

    // In turns, because what else the machine does changes from one second to the next.
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
    println!("add to cart, one commit each    {:>9.0}/s (median of {ROUNDS})", median(&mut alone));
    println!("  ratio                         {:>9.2} (median of {ROUNDS})", median(&mut ratios));

    println!("whole order (cart, checkout, pay) {:>7.0}/s", orders(&dir.path().join("orders"), span).await);

    let demo = dir.path().join("demo");
    let first = Instant::now();
    let shop = Shop::start(&demo, &[], &[]);
    println!("first start, with the demo shop {:>9.0} ms", first.elapsed().as_secs_f64() * 1e3);
    shop.visitor().get("/products/").await.expect_status(200);
    shop.terminate();
    let mut starts = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        let shop = Shop::start(&demo, &[], &[]);
        shop.visitor().get("/products/").await.expect_status(200);
        starts.push(began.elapsed().as_secs_f64() * 1e3);
        shop.terminate();
    }
    println!("start on existing data, to the first list of products {:>6.0} ms (median of 5)", median(&mut starts));

    let shop = Shop::start(&demo, &[], &[]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("idle memory of the demo shop    {:>9.1} MB resident", resident_bytes(&shop) / 1e6);
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Guests with a token and a cart each.
async fn guests(shop: &Shop) -> Vec<(Visitor, String)> {
    let mut guests = Vec::new();
    for _ in 0..CLIENTS {
        let mut visitor = shop.visitor();
        let guest = visitor.post("/guest", json!({})).await.expect_status(201);
        visitor.token = Some(guest["token"].as_str().unwrap().to_owned());
        guests.push((visitor, guest["user"]["id"].as_str().unwrap().to_owned()));
    }
    guests
}

async fn product(shop: &Shop, data: &Path) -> String {
    let admin = shop.admin(data).await;
    let product = json!({"name": "Teapot", "sku": "TEA", "price": 1999, "currency": "EUR", "stock": 1_000_000_000});
    admin.post("/product/", product).await.expect_status(201)["id"].as_str().unwrap().to_owned()
}

/// Runs `work` for each client over and over for `span`; gives how often a second it was done.
async fn load<F: Future<Output = ()> + 'static>(
    clients: Vec<(Visitor, String)>,
    span: Duration,
    work: impl Fn(Visitor, String, usize) -> F + Clone + 'static,
) -> f64 {
    let (began, done) = (Instant::now(), Rc::new(Cell::new(0_u32)));
    let running = clients.into_iter().map(|(visitor, user)| {
        let (work, done) = (work.clone(), Rc::clone(&done));
        actix::spawn(async move {
            let mut turn = 0;
            while began.elapsed() < span {
                work(visitor.clone(), user.clone(), turn).await;
                done.set(done.get() + 1);
                turn += 1;
            }
        })
    });
    futures_util::future::join_all(running).await;
    f64::from(done.get()) / began.elapsed().as_secs_f64()
}

async fn adds(data: &Path, variables: &[(&str, &str)], span: Duration) -> f64 {
    let shop = Shop::start(data, &["--no-demo"], variables);
    let teapot = product(&shop, data).await;
    let rate = load(guests(&shop).await, span, move |visitor, user, _| {
        let item = json!({"product_id": teapot, "quantity": 1});
        async move {
            visitor.post(&format!("/user/{user}/cart/"), item).await.expect_status(201);
        }
    });
    let rate = rate.await;
    shop.terminate();
    rate
}

async fn orders(data: &Path, span: Duration) -> f64 {
    let shop = Shop::start(data, &["--no-demo"], &[]);
    let teapot = product(&shop, data).await;
    let rate = load(guests(&shop).await, span, move |visitor, user, turn| {
        let item = json!({"product_id": teapot, "quantity": 2});
        async move {
            let cart = format!("/user/{user}/cart/");
            loop {
                let added = visitor.post(&cart, item.clone()).await;
                // The cart of the order before empties by an event, a moment after the payment is answered.
                if added.status == 201 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let address = json!({"email": "ada@example.com"});
            let checkout = format!("{cart}checkout");
            let invoice = visitor.post_once(&checkout, address, &format!("order-{turn}")).await.expect_status(201);
            let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
            visitor.post_once(&pay, json!({"token": "tok_ok"}), &format!("pay-{turn}")).await.expect_status(200);
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
