//! Throughput and latency of whole orders on the four deployments: one process on SQLite, one process per domain on
//! SQLite, and both on PostgreSQL, the latter with RabbitMQ.
//!
//! Deployments are measured in alternating rounds, because the load of the machine changes; ratios are within a round.
//! `cargo bench --bench deployments -- SECONDS` sets the length of each load (3). `MERCAT_TEST_DATABASE` and
//! `MERCAT_TEST_RABBITMQ` name the servers; a deployment whose server is not named is left out. A PostgreSQL that does not
//! wait for the disk, such as the one that the test scripts start, is not comparable: use one with default durability.
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

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

use mercat::settings::DOMAIN_NAMES;
use serde_json::json;
use support::{HttpClient, Shop};
use tempfile::TempDir;

/// Concurrent customers.
const CLIENTS: usize = 32;
/// Measurements per deployment.
const ROUNDS: usize = 3;

/// A deployment to measure.
struct Deployment {
    name: &'static str,
    split: bool,
    database: Option<String>,
    events: Option<String>,
}

/// Measurements of one round.
#[derive(Clone, Copy)]
struct Measurement {
    orders: f64,
    p50: f64,
    p99: f64,
}

/// A process that runs one domain. Killed when dropped.
struct DomainProcess(Child);

impl Drop for DomainProcess {
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
    let mut deployments = vec![
        Deployment { name: "one process, files", split: false, database: None, events: None },
        Deployment { name: "nine processes, files", split: true, database: None, events: None },
    ];
    if database.is_some() {
        deployments.push(Deployment {
            name: "one process, PostgreSQL",
            split: false,
            database: database.clone(),
            events: None,
        });
    }
    if database.is_some() && events.is_some() {
        deployments.push(Deployment { name: "nine processes, PostgreSQL, RabbitMQ", split: true, database, events });
    }
    println!("whole orders (cart, checkout, pay), {CLIENTS} clients, {} s each, median of {ROUNDS}", span.as_secs());
    println!("{:<38}{:>10}{:>10}{:>10}{:>8}", "", "orders/s", "p50 ms", "p99 ms", "ratio");
    let dir = TempDir::new().unwrap();
    let mut all: Vec<Vec<Measurement>> = deployments.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for (n, (deployment, measurements)) in deployments.iter().zip(&mut all).enumerate() {
            measurements.push(measure(deployment, &dir.path().join(format!("{round}-{n}")), span).await);
        }
    }
    let first: Vec<f64> = all[0].iter().map(|round| round.orders).collect();
    for (deployment, measurements) in deployments.iter().zip(&all) {
        let median_of = |value: fn(&Measurement) -> f64| median(measurements.iter().map(value).collect());
        let ratio =
            median(measurements.iter().zip(&first).map(|(measurements, first)| measurements.orders / first).collect());
        println!(
            "{:<38}{:>10.0}{:>10.1}{:>10.1}{ratio:>8.2}",
            deployment.name,
            median_of(|f| f.orders),
            median_of(|f| f.p50),
            median_of(|f| f.p99),
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure(deployment: &Deployment, data: &Path, span: Duration) -> Measurement {
    std::fs::create_dir(data).unwrap();
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut variables = vec![
        ("MERCAT_PEERS__TOKEN".to_owned(), "a-token-that-all-processes-share".to_owned()),
        ("MERCAT_SECRET".to_owned(), "the signing secret of all processes".to_owned()),
    ];
    if let Some(database) = &deployment.database {
        variables.push(("MERCAT_DATABASE".to_owned(), database.clone()));
        variables.push(("MERCAT_STORE__SCHEMA_PREFIX".to_owned(), format!("bench{}_", since.as_micros())));
    }
    variables.extend(deployment.events.iter().map(|events| ("MERCAT_EVENTS".to_owned(), events.clone())));
    create_admin(data, &variables);
    let mut processes = Vec::new();
    if deployment.split {
        let places: Vec<(&str, String)> = DOMAIN_NAMES
            .map(|domain| (domain, TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()))
            .into();
        let place = |(domain, address): &(&str, String)| {
            (format!("MERCAT_{}__PLACE", domain.to_uppercase()), format!("http://{address}"))
        };
        variables.extend(places.iter().map(place));
        processes.extend(places.iter().map(|(domain, address)| start_domain(data, domain, address, &variables)));
    }
    let arguments: &[&str] = if deployment.split { &["--domains", "gateway"] } else { &["--no-demo"] };
    let named: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let shop = Shop::start(data, arguments, &named);
    let measurements = orders(&shop, span).await;
    shop.terminate();
    measurements
}

fn create_admin(data: &Path, variables: &[(String, String)]) {
    let output = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .args(["admin", "create", "--email", "boss@example.com", "--data"])
        .arg(data)
        .envs(variables.iter().cloned())
        .env("MERCAT_ADMIN_PASSWORD", "correct horse battery")
        .current_dir(data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn start_domain(data: &Path, domain: &str, address: &str, variables: &[(String, String)]) -> DomainProcess {
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
    DomainProcess(process)
}

async fn orders(shop: &Shop, span: Duration) -> Measurement {
    let mut admin = shop.client();
    // The processes may still be connecting to each other.
    while admin.try_send("GET", "/products/", None, None).await.is_none_or(|response| response.status != 200) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    admin.sign_in("boss@example.com", "correct horse battery").await;
    let product = json!({"name": "Teapot", "sku": "TEA", "price": 1999, "currency": "EUR", "stock": 1_000_000_000});
    let product = admin.post("/product/", product).await.expect_status(201)["id"].as_str().unwrap().to_owned();
    let mut guests: Vec<(HttpClient, String)> = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = shop.client();
        let guest = client.post("/guest", json!({})).await.expect_status(201);
        client.token = Some(guest["token"].as_str().unwrap().to_owned());
        guests.push((client, guest["user"]["id"].as_str().unwrap().to_owned()));
    }
    let (started, latencies) = (Instant::now(), Rc::new(RefCell::new(Vec::new())));
    let running = guests.into_iter().map(|(client, user)| {
        let (latencies, product) = (Rc::clone(&latencies), product.clone());
        actix::spawn(async move {
            for turn in 0.. {
                if started.elapsed() > span {
                    break;
                }
                let started = order(&client, &user, &product, turn).await;
                latencies.borrow_mut().push(started.elapsed().as_secs_f64() * 1e3);
            }
        })
    });
    futures_util::future::join_all(running).await;
    let seconds = started.elapsed().as_secs_f64();
    let mut latencies = latencies.borrow_mut();
    latencies.sort_unstable_by(f64::total_cmp);
    let percentile = |percent: usize| latencies[latencies.len() * percent / 100];
    Measurement { orders: latencies.len() as f64 / seconds, p50: percentile(50), p99: percentile(99) }
}

/// Places and pays one order. Returns the time at which it started.
async fn order(client: &HttpClient, user: &str, product: &str, turn: usize) -> Instant {
    let cart = format!("/user/{user}/cart/");
    let item = json!({"product_id": product, "quantity": 2});
    let started = loop {
        let started = Instant::now();
        if client.post(&cart, item.clone()).await.status == 201 {
            break started;
        }
        // An event empties the cart of the former order shortly after the payment's reply.
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let address = json!({"email": "ada@example.com"});
    let checkout = format!("{cart}checkout");
    let invoice = client.post_idempotent(&checkout, address, &format!("order-{turn}")).await.expect_status(201);
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    client.post_idempotent(&pay, json!({"token": "tok_ok"}), &format!("pay-{turn}")).await.expect_status(200);
    started
}
