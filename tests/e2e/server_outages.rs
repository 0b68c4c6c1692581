//! P15 with everything at once: every domain in processes of its own, two of each but the notifications, on a PostgreSQL
//! and a RabbitMQ that stop and start again, while processes are killed and orders run.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::multi_process::{ALL, Part, TOKEN, guest, order, place};
use super::purchase::product;
use super::support::{Shop, Visitor};

const STOCK: i64 = 100_000;
const BUYERS: usize = 12;
/// How long a server may take to start, and how long news may take once everything is there again.
const PATIENCE: Duration = Duration::from_secs(120);
const ADMIN: (&str, &str) = ("boss@example.com", "correct horse battery");

/// A server that a script of ours starts from the machine's packages, on the same port and files each time.
struct Server {
    script: &'static str,
    port: u16,
    folder: PathBuf,
    /// What the script is told beside them.
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
            assert!(begun.elapsed() < PATIENCE, "{} does not listen", self.script);
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

/// What stands before the processes of one domain, as a cluster's service address does: one place, and each connection
/// goes to the next of those that are there.
struct Service {
    domain: &'static str,
    address: String,
    behind: Arc<Mutex<Vec<String>>>,
    parts: Vec<Option<Part>>,
}

impl Service {
    fn new(domain: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let behind: Arc<Mutex<Vec<String>>> = Arc::default();
        let (all, next) = (Arc::clone(&behind), AtomicUsize::new(0));
        std::thread::spawn(move || {
            for inward in listener.incoming().map_while(Result::ok) {
                let there = all.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let first = next.fetch_add(1, Ordering::Relaxed);
                let outward = (0..there.len()).find_map(|n| TcpStream::connect(&there[(first + n) % there.len()]).ok());
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
        Self { domain, address, behind, parts: Vec::new() }
    }

    /// Starts one of its processes, the `n`th.
    fn start(&mut self, n: usize, dir: &Path, variables: &[(String, String)]) {
        let data = dir.join(format!("{}-{n}", self.domain));
        std::fs::create_dir_all(&data).unwrap();
        let part = Part::start(&data, self.domain, "127.0.0.1:0", variables);
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).push(part.address.clone());
        if self.parts.len() <= n {
            self.parts.resize_with(n + 1, || None);
        }
        self.parts[n] = Some(part);
    }

    fn kill(&mut self, n: usize) {
        let part = self.parts[n].take().unwrap();
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).retain(|address| *address != part.address);
        part.kill();
    }
}

/// A command on the shop's own databases.
fn mercat(arguments: &[&str], data: &Path, variables: &[(String, String)]) {
    let run = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .args(arguments)
        .env("MERCAT_DATA", data)
        .env("MERCAT_ADMIN_PASSWORD", ADMIN.1)
        .envs(variables.iter().cloned())
        .current_dir(data.parent().unwrap())
        .output()
        .unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{arguments:?}: {said}{wrong}");
}

/// All items of a list, page for page.
async fn all(who: &Visitor, path: &str) -> Vec<Value> {
    let (mut items, mut next) = (Vec::new(), Value::Null);
    loop {
        let cursor = next.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = who.get(&format!("{path}{cursor}")).await.expect_status(200);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        next = page["next"].clone();
        if next.is_null() {
            return items;
        }
    }
}

/// Asks again and again until it is as wished.
async fn until(who: &Visitor, path: &str, wished: impl Fn(&Value) -> bool) {
    let begun = Instant::now();
    loop {
        let answer = who.get(path).await;
        if answer.status == 200 && wished(&answer.body) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{path} did not become as wished: {}", answer.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the machine has what the servers are started from.
fn has_servers() -> bool {
    let has = |path: &str| Path::new(path).exists();
    let python = Command::new("python3").arg("--version").output().is_ok_and(|run| run.status.success());
    let all = python && has("/usr/lib/rabbitmq/bin/rabbitmq-server") && has("/usr/lib/postgresql");
    if !all {
        let _ = writeln!(std::io::stderr(), "skipped: P15 wants Debian's postgresql and rabbitmq-server");
    }
    all
}

#[actix::test]
async fn p15_servers_stop_and_processes_are_killed_while_orders_run_and_every_book_agrees() {
    if !has_servers() {
        return;
    }
    let dir = TempDir::new().unwrap();
    // The database's own user must get to its folder.
    assert!(Command::new("chmod").arg("711").arg(dir.path()).status().unwrap().success());
    let mut postgres = Server::new("dev/postgres", dir.path().join("postgres"), &[]);
    let mut rabbit = Server::new("dev/rabbitmq", dir.path().join("rabbitmq"), &["/"]);
    let mut services: Vec<Service> = ALL.into_iter().map(Service::new).collect();
    let mut variables: Vec<(String, String)> =
        services.iter().map(|service| place(service.domain, &service.address)).collect();
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
        // What is shown live is shown by one.
        for n in 0..if service.domain == "notifications" { 1 } else { 2 } {
            service.start(n, dir.path(), &variables);
        }
    }
    let data = dir.path().join("gateway");
    std::fs::create_dir(&data).unwrap();
    let known: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (&**name, &**value)).collect();
    let shop = Shop::start(&data, &["--no-demo", "--domains", "gateway"], &known);
    mercat(&["admin", "create", "--email", ADMIN.0, "--name", "Boss"], &data, &shared);
    let mut admin = shop.visitor();
    admin.sign_in(ADMIN.0, ADMIN.1).await;
    let teapot = product(&admin, "TEA-1", STOCK).await;

    let over = Arc::new(AtomicBool::new(false));
    let mut buyers = Vec::new();
    for _ in 0..BUYERS {
        let ((buyer, user), teapot, over) = (guest(&shop).await, teapot.clone(), Arc::clone(&over));
        buyers.push(actix::spawn(async move {
            let mut orders = 0;
            while !over.load(Ordering::SeqCst) {
                let paid = order(&buyer, &user, &teapot, &format!("o{orders}")).await;
                assert_eq!(paid["status"], "paid");
                orders += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            orders
        }));
    }
    // On a thread of its own, because starting and stopping blocks.
    let (path, told) = (dir.path().to_owned(), variables.clone());
    let trouble = tokio::task::spawn_blocking(move || {
        let pause = |millis: u64| std::thread::sleep(Duration::from_millis(millis));
        let mut kill = |n: usize, millis: u64| {
            for service in services.iter_mut().filter(|service| n < service.parts.len()) {
                service.kill(n);
                pause(millis);
                service.start(n, &path, &told);
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
        // Two things at once: orders go on without the broker, and processes die meanwhile.
        kill(1, 20);
        rabbit.start();
        pause(1_000);
        (postgres, rabbit, services)
    });
    let (postgres, rabbit, services) = trouble.await.unwrap();
    over.store(true, Ordering::SeqCst);
    let mut orders = 0;
    for buyer in buyers {
        orders += buyer.await.unwrap();
    }
    println!("{orders} orders");
    assert!(orders > BUYERS, "next to nothing was ordered");

    let sold = i64::try_from(orders).unwrap();
    until(&admin, &format!("/product/{teapot}"), |product| product["stock"] == STOCK - sold).await;
    until(&admin, "/stats/summary", |summary| summary["totals"]["orders"] == sold).await;
    let begun = Instant::now();
    loop {
        let mails = all(&admin, "/emails/?limit=100").await;
        let receipts = mails.iter().filter(|mail| mail["template"] == "receipt").count();
        assert!(receipts <= orders, "{receipts} receipts for {orders} orders");
        if receipts == orders {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{receipts} receipts for {orders} orders");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let invoices = all(&admin, "/invoices/?limit=100").await;
    assert!(invoices.len() == orders && invoices.iter().all(|invoice| invoice["status"] == "paid"));
    mercat(&["check"], &data, &shared);
    drop((services, shop, rabbit, postgres));
}
