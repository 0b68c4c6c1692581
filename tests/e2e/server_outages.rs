//! P15 at its widest: every domain in processes of its own, two of each but notifications, on a PostgreSQL and a
//! RabbitMQ that stop and restart, while processes are killed and orders run.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mercat::settings::DOMAIN_NAMES;
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;

use super::multi_process::{DomainProcess, TOKEN, free_address, guest, order, place_variable};
use super::purchase::product;
use super::support::{HttpClient, Shop};

const STOCK: i64 = 100_000;
const BUYERS: usize = 12;
/// Limit for a server to start, and for events to arrive once everything is up again.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);
const ADMIN_CREDENTIALS: (&str, &str) = ("boss@example.com", "correct horse battery");

/// A server started by one of `scripts/dev` from the machine's packages, on the same port and folder each time.
struct Server {
    script: &'static str,
    port: u16,
    folder: PathBuf,
    /// Further arguments of the script.
    more: &'static [&'static str],
    process: Option<Child>,
}

impl Server {
    fn new(script: &'static str, folder: PathBuf, more: &'static [&'static str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { script, port, folder, more, process: None };
        server.start();
        server
    }

    fn start(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(self.script);
        let mut command = Command::new(script);
        command.arg(self.port.to_string()).arg(&self.folder).args(self.more).stdin(Stdio::null());
        let mut process = command.spawn().unwrap();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(process.try_wait().unwrap().is_none(), "{} does not start", self.script);
            assert!(begun.elapsed() < WAIT_TIMEOUT, "{} does not listen", self.script);
            std::thread::sleep(Duration::from_millis(50));
        }
        self.process = Some(process);
    }

    fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
        let _ = process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Load balancer for the processes of one domain, as a cluster's service address: each connection goes to the next
/// process that accepts it.
struct LoadBalancer {
    domain: &'static str,
    address: String,
    backends: Arc<Mutex<Vec<String>>>,
    processes: Vec<Option<DomainProcess>>,
}

impl LoadBalancer {
    fn new(domain: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let backends: Arc<Mutex<Vec<String>>> = Arc::default();
        let (all, next) = (Arc::clone(&backends), AtomicUsize::new(0));
        std::thread::spawn(move || {
            for inward in listener.incoming().map_while(Result::ok) {
                let addresses = all.lock().clone();
                let first = next.fetch_add(1, Ordering::Relaxed);
                let outward = (0..addresses.len())
                    .find_map(|n| TcpStream::connect(&addresses[(first + n) % addresses.len()]).ok());
                let Some(outward) = outward else { continue };
                for (from, to) in [(&inward, &outward), (&outward, &inward)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        Self { domain, address, backends, processes: Vec::new() }
    }

    /// Starts its `n`th process.
    fn start(&mut self, n: usize, dir: &Path, variables: &[(String, String)]) {
        let data = dir.join(format!("{}-{n}", self.domain));
        std::fs::create_dir_all(&data).unwrap();
        let part = DomainProcess::start(&data, self.domain, "127.0.0.1:0", variables);
        self.backends.lock().push(part.address.clone());
        if self.processes.len() <= n {
            self.processes.resize_with(n + 1, || None);
        }
        self.processes[n] = Some(part);
    }

    fn kill(&mut self, n: usize) {
        let part = self.processes[n].take().unwrap();
        self.backends.lock().retain(|address| *address != part.address);
        part.kill();
    }
}

/// Runs a command on the shop's databases.
fn mercat(arguments: &[&str], data: &Path, variables: &[(String, String)]) {
    let run = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .args(arguments)
        .env("MERCAT_DATA", data)
        .env("MERCAT_ADMIN_PASSWORD", ADMIN_CREDENTIALS.1)
        .envs(variables.iter().cloned())
        .current_dir(data.parent().unwrap())
        .output()
        .unwrap();
    let (output, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{arguments:?}: {output}{errors}");
}

/// Polls `path` until `expected` holds.
async fn poll_until(who: &HttpClient, path: &str, expected: impl Fn(&Value) -> bool) {
    let begun = Instant::now();
    loop {
        let answer = who.get(path).await;
        if answer.status == 200 && expected(&answer.body) {
            return;
        }
        assert!(begun.elapsed() < WAIT_TIMEOUT, "{path} never became as expected: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether PostgreSQL, RabbitMQ and Python are installed.
fn has_servers() -> bool {
    let has = |path: &str| Path::new(path).exists();
    let python = Command::new("python3").arg("--version").output().is_ok_and(|run| run.status.success());
    let all = python && has("/usr/lib/rabbitmq/bin/rabbitmq-server") && has("/usr/lib/postgresql");
    if !all {
        let _ =
            writeln!(std::io::stderr(), "skipped: P15 needs the packages postgresql and rabbitmq-server, and python3");
    }
    all
}

/// Starts buyers that place one order after the other until `is_over`; each returns its number of orders.
async fn start_buyers(shop: &Shop, teapot: &str, is_over: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<usize>> {
    let mut buyers = Vec::new();
    for _ in 0..BUYERS {
        let ((buyer, user), teapot, is_over) = (guest(shop).await, teapot.to_owned(), Arc::clone(is_over));
        buyers.push(actix::spawn(async move {
            let mut orders = 0;
            while !is_over.load(Ordering::SeqCst) {
                let paid = order(&buyer, &user, &teapot, &format!("o{orders}")).await;
                assert_eq!(paid["status"], "paid");
                orders += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            orders
        }));
    }
    buyers
}

/// Kills processes and stops servers, one after the other and two at once. Blocks for some ten seconds.
fn inject_faults(
    postgres: &mut Server,
    rabbit: &mut Server,
    services: &mut [LoadBalancer],
    path: &Path,
    variables: &[(String, String)],
) {
    let pause = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
    let mut kill = |n: usize, millis: u64| {
        for service in services.iter_mut().filter(|service| n < service.processes.len()) {
            service.kill(n);
            pause(millis);
            service.start(n, path, variables);
        }
    };
    pause(1_000);
    kill(0, 50);
    for away in [300, 2_000] {
        postgres.stop();
        pause(away);
        postgres.start();
        pause(2_000);
    }
    rabbit.stop();
    pause(1_000);
    // Two faults at once: no broker, and processes that die.
    kill(1, 20);
    rabbit.start();
    pause(1_000);
}

/// Waits until stock, statistics and receipts show `orders` orders; all invoices must be paid.
async fn assert_orders_arrived(admin: &HttpClient, teapot: &str, orders: usize) {
    let sold = i64::try_from(orders).unwrap();
    poll_until(admin, &format!("/product/{teapot}"), |product| product["stock"] == STOCK - sold).await;
    poll_until(admin, "/stats/summary", |summary| summary["totals"]["orders"] == sold).await;
    let begun = Instant::now();
    loop {
        let emails = admin.get_all("/emails/?limit=100").await;
        let receipts = emails.iter().filter(|email| email["template"] == "receipt").count();
        assert!(receipts <= orders, "{receipts} receipts for {orders} orders");
        if receipts == orders {
            break;
        }
        assert!(begun.elapsed() < WAIT_TIMEOUT, "{receipts} receipts for {orders} orders");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let invoices = admin.get_all("/invoices/?limit=100").await;
    assert!(invoices.len() == orders && invoices.iter().all(|invoice| invoice["status"] == "paid"));
}

#[actix::test]
async fn p15_outages_and_kills_during_orders_lose_nothing() {
    if !has_servers() {
        return;
    }
    let dir = TempDir::new().unwrap();
    // The user postgres must reach its folder.
    assert!(Command::new("chmod").arg("711").arg(dir.path()).status().unwrap().success());
    let mut postgres = Server::new("dev/postgres", dir.path().join("postgres"), &[]);
    let mut rabbit = Server::new("dev/rabbitmq", dir.path().join("rabbitmq"), &["/"]);
    let mut services: Vec<LoadBalancer> = DOMAIN_NAMES.into_iter().map(LoadBalancer::new).collect();
    let mut variables: Vec<(String, String)> =
        services.iter().map(|service| place_variable(service.domain, &service.address)).collect();
    let shared = [
        ("MERCAT_DATABASE", format!("postgres://mercat@127.0.0.1:{}/postgres", postgres.port)),
        ("MERCAT_EVENTS", format!("amqp://guest:guest@127.0.0.1:{}/%2f", rabbit.port)),
        ("MERCAT_SECRET", "the secret of all processes of one shop".to_owned()),
        ("MERCAT_PEERS__TOKEN", TOKEN.to_owned()),
        ("MERCAT_LIMITS__ENABLED", "false".to_owned()),
    ];
    let shared: Vec<(String, String)> = shared.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    variables.extend(shared.iter().cloned());
    for service in &mut services {
        // Notifications run in one process only.
        for n in 0..if service.domain == "notifications" { 1 } else { 2 } {
            service.start(n, dir.path(), &variables);
        }
    }
    let data = dir.path().join("gateway");
    std::fs::create_dir(&data).unwrap();
    let known: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let shop = Shop::start(&data, &["--no-demo", "--domains", "gateway"], &known);
    mercat(&["admin", "create", "--email", ADMIN_CREDENTIALS.0, "--name", "Boss"], &data, &shared);
    let mut admin = shop.client();
    admin.sign_in(ADMIN_CREDENTIALS.0, ADMIN_CREDENTIALS.1).await;
    let teapot = product(&admin, "TEA-1", STOCK).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let buyers = start_buyers(&shop, &teapot, &is_over).await;
    // On a thread of its own, because starting and stopping servers blocks.
    let (path, known) = (dir.path().to_owned(), variables.clone());
    let faults = tokio::task::spawn_blocking(move || {
        inject_faults(&mut postgres, &mut rabbit, &mut services, &path, &known);
        (postgres, rabbit, services)
    });
    let (postgres, rabbit, services) = faults.await.unwrap();
    is_over.store(true, Ordering::SeqCst);
    let mut orders = 0;
    for buyer in buyers {
        orders += buyer.await.unwrap();
    }
    println!("{orders} orders");
    assert!(orders > BUYERS, "hardly any orders were placed");

    assert_orders_arrived(&admin, &teapot, orders).await;
    mercat(&["check"], &data, &shared);
    drop((services, shop, rabbit, postgres));
}

#[actix::test]
async fn h03_process_is_not_ready_while_databases_are_unreadable() {
    if !has_servers() {
        return;
    }
    let dir = TempDir::new().unwrap();
    assert!(Command::new("chmod").arg("711").arg(dir.path()).status().unwrap().success());
    let mut postgres = Server::new("dev/postgres", dir.path().join("postgres"), &[]);
    let data = dir.path().join("shop");
    std::fs::create_dir(&data).unwrap();
    let database = format!("postgres://mercat@127.0.0.1:{}/postgres", postgres.port);
    let shop = Shop::start(&data, &["--no-demo"], &[("MERCAT_DATABASE", &database)]);
    wait_for_readiness(&shop, 200).await;
    postgres.stop();
    wait_for_readiness(&shop, 503).await;
    postgres.start();
    wait_for_readiness(&shop, 200).await;
    drop((shop, postgres));
}

/// Waits until `/readyz` answers with `expected`.
async fn wait_for_readiness(shop: &Shop, expected: u16) {
    let begun = Instant::now();
    loop {
        let answer = awc::Client::default().get(format!("{}/readyz", shop.url)).send().await.unwrap();
        if answer.status().as_u16() == expected {
            return;
        }
        assert!(begun.elapsed() < WAIT_TIMEOUT, "readiness stayed {}", answer.status());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[actix::test]
async fn health_shows_a_broker_that_is_away() {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let broker = format!("amqp://guest:guest@{}/%2f", free_address());
    let shop = Shop::start(&data, &["--no-demo"], &[("MERCAT_EVENTS", &broker)]);
    let client = shop.client();
    let begun = Instant::now();
    let health = loop {
        let health = client.get_root("/health").await;
        if health["broker"]["status"] == "down" {
            break health;
        }
        assert!(begun.elapsed() < WAIT_TIMEOUT, "{health}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["domains"]["catalog"]["status"], "up");
    assert_eq!(shop.terminate(), Some(0));
}
