//! What each of the four shapes of a shop costs: the same whole orders, by the same clients, against one process on files,
//! one process on PostgreSQL, every domain in a process of its own on files, and that on PostgreSQL with RabbitMQ.
//! In turns, because what else the machine does changes from one second to the next; ratios within a turn.
//!
//! `cargo bench --bench shapes`, or `-- SECONDS` for how long each load lasts (3). The servers are named by
//! `MERCAT_TEST_DATABASE` and `MERCAT_TEST_RABBITMQ`; a shape whose server is not named is left out. A server that does
//! not wait for the disk, as `scripts/postgres-for-tests` starts it, is compared unfairly: start one of your own.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first thing that is not as it should be")]

#[path = "../tests/e2e/support.rs"]
#[allow(dead_code, reason = "shared with the tests, which use the rest")]
mod support;

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use support::{Shop, Visitor};
use tempfile::TempDir;

/// How many buy at once.
const CLIENTS: usize = 32;
/// How often each shape is measured.
const ROUNDS: usize = 3;
const DOMAINS: [&str; 8] = ["users", "catalog", "cart", "payments", "mailer", "stats", "comments", "notifications"];

/// One shape of a shop.
struct Shape {
    name: &'static str,
    split: bool,
    database: Option<String>,
    events: Option<String>,
}

/// What was measured of it in one turn.
#[derive(Clone, Copy)]
struct Figures {
    orders: f64,
    p50: f64,
    p99: f64,
}

/// A process of a split shop. Dropped, it is killed.
struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let seconds = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(3);
    actix::System::new().block_on(run(Duration::from_secs(seconds)));
}

async fn run(span: Duration) {
    let (database, events) = (std::env::var("MERCAT_TEST_DATABASE").ok(), std::env::var("MERCAT_TEST_RABBITMQ").ok());
    let mut shapes = vec![
        Shape { name: "one process, files", split: false, database: None, events: None },
        Shape { name: "nine processes, files", split: true, database: None, events: None },
    ];
    if database.is_some() {
        shapes.push(Shape { name: "one process, PostgreSQL", split: false, database: database.clone(), events: None });
    }
    if database.is_some() && events.is_some() {
        shapes.push(Shape { name: "nine processes, PostgreSQL, RabbitMQ", split: true, database, events });
    }
    println!("whole orders (cart, checkout, pay), {CLIENTS} clients, {} s each, median of {ROUNDS}", span.as_secs());
    println!("{:<38}{:>10}{:>10}{:>10}{:>8}", "", "orders/s", "p50 ms", "p99 ms", "ratio");
    let dir = TempDir::new().unwrap();
    let mut all: Vec<Vec<Figures>> = shapes.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for (n, (shape, figures)) in shapes.iter().zip(&mut all).enumerate() {
            figures.push(measure(shape, &dir.path().join(format!("{round}-{n}")), span).await);
        }
    }
    let first: Vec<f64> = all[0].iter().map(|figures| figures.orders).collect();
    for (shape, figures) in shapes.iter().zip(&all) {
        let median = |of: fn(&Figures) -> f64| middle(figures.iter().map(of).collect());
        let ratio = middle(figures.iter().zip(&first).map(|(figures, first)| figures.orders / first).collect());
        println!(
            "{:<38}{:>10.0}{:>10.1}{:>10.1}{ratio:>8.2}",
            shape.name,
            median(|f| f.orders),
            median(|f| f.p50),
            median(|f| f.p99),
        );
    }
}

fn middle(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn measure(shape: &Shape, data: &Path, span: Duration) -> Figures {
    std::fs::create_dir(data).unwrap();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut variables = vec![
        ("MERCAT_PEERS__TOKEN".to_owned(), "a-token-that-the-parts-share".to_owned()),
        ("MERCAT_SECRET".to_owned(), "what all parts of this shop sign their tokens with".to_owned()),
    ];
    if let Some(database) = &shape.database {
        variables.push(("MERCAT_DATABASE".to_owned(), database.clone()));
        variables.push(("MERCAT_STORE__SCHEMA_PREFIX".to_owned(), format!("bench{}_", since.as_micros())));
    }
    variables.extend(shape.events.iter().map(|events| ("MERCAT_EVENTS".to_owned(), events.clone())));
    make_admin(data, &variables);
    let mut parts = Vec::new();
    if shape.split {
        let places: Vec<(&str, String)> = DOMAINS
            .map(|domain| (domain, TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()))
            .into();
        let place = |(domain, address): &(&str, String)| {
            (format!("MERCAT_{}__PLACE", domain.to_uppercase()), format!("http://{address}"))
        };
        variables.extend(places.iter().map(place));
        parts.extend(places.iter().map(|(domain, address)| part(data, domain, address, &variables)));
    }
    let arguments: &[&str] = if shape.split { &["--domains", "gateway"] } else { &["--no-demo"] };
    let named: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let shop = Shop::start(data, arguments, &named);
    let figures = orders(&shop, span).await;
    shop.terminate();
    figures
}

fn make_admin(data: &Path, variables: &[(String, String)]) {
    let made = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .args(["admin", "create", "--email", "boss@example.com", "--data"])
        .arg(data)
        .envs(variables.iter().cloned())
        .env("MERCAT_ADMIN_PASSWORD", "correct horse battery")
        .current_dir(data)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn part(data: &Path, domain: &str, address: &str, variables: &[(String, String)]) -> Part {
    let mut process = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .args(["serve", "--domains", domain, "--grpc", address, "--data"])
        .arg(data)
        .envs(variables.iter().cloned())
        .current_dir(data)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
    assert!(ready, "{domain} did not start");
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Part(process)
}

async fn orders(shop: &Shop, span: Duration) -> Figures {
    let mut admin = shop.visitor();
    // The parts of a split shop may still be finding each other.
    while admin.try_ask("GET", "/products/", None, None).await.is_none_or(|answer| answer.status != 200) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    admin.sign_in("boss@example.com", "correct horse battery").await;
    let product = json!({"name": "Teapot", "sku": "TEA", "price": 1999, "currency": "EUR", "stock": 1_000_000_000});
    let product = admin.post("/product/", product).await.expect_status(201)["id"].as_str().unwrap().to_owned();
    let mut guests: Vec<(Visitor, String)> = Vec::new();
    for _ in 0..CLIENTS {
        let mut visitor = shop.visitor();
        let guest = visitor.post("/guest", json!({})).await.expect_status(201);
        visitor.token = Some(guest["token"].as_str().unwrap().to_owned());
        guests.push((visitor, guest["user"]["id"].as_str().unwrap().to_owned()));
    }
    let (began, took) = (Instant::now(), Rc::new(RefCell::new(Vec::new())));
    let running = guests.into_iter().map(|(visitor, user)| {
        let (took, product) = (Rc::clone(&took), product.clone());
        actix::spawn(async move {
            for turn in 0.. {
                if began.elapsed() > span {
                    break;
                }
                let begun = order(&visitor, &user, &product, turn).await;
                took.borrow_mut().push(begun.elapsed().as_secs_f64() * 1e3);
            }
        })
    });
    futures_util::future::join_all(running).await;
    let seconds = began.elapsed().as_secs_f64();
    let mut took = took.borrow_mut();
    took.sort_unstable_by(f64::total_cmp);
    let share = |of: usize| took[took.len() * of / 100];
    Figures { orders: took.len() as f64 / seconds, p50: share(50), p99: share(99) }
}

/// One whole order; gives when it began.
async fn order(visitor: &Visitor, user: &str, product: &str, turn: usize) -> Instant {
    let cart = format!("/user/{user}/cart/");
    let item = json!({"product_id": product, "quantity": 2});
    let begun = loop {
        let begun = Instant::now();
        if visitor.post(&cart, item.clone()).await.status == 201 {
            break begun;
        }
        // The cart of the order before empties by an event, a moment after the payment is answered.
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let address = json!({"email": "ada@example.com"});
    let checkout = format!("{cart}checkout");
    let invoice = visitor.post_once(&checkout, address, &format!("order-{turn}")).await.expect_status(201);
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    visitor.post_once(&pay, json!({"token": "tok_ok"}), &format!("pay-{turn}")).await.expect_status(200);
    begun
}
