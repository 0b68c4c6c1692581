//! Live relocation of domains under load: no request fails, nothing is lost or duplicated, and after a crash at any
//! moment exactly one process has the domain.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::multi_process::{DomainProcess, TOKEN, free_address, guest, order, place_variable, start_shop};
use super::purchase::product;
use super::support::{HttpClient, Shop};

/// Token signing secret of all processes.
const SECRET: &str = "a secret that the tests sign with, long enough";

fn secret() -> (String, String) {
    ("MERCAT_SECRET".to_owned(), SECRET.to_owned())
}

fn folder(dir: &Path, name: &str) -> PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// Starts a process in standby for a domain.
fn standby(data: &Path, domain: &str, address: &str, mut variables: Vec<(String, String)>) -> DomainProcess {
    variables.extend([secret(), ("MERCAT_STANDBY".to_owned(), "true".to_owned())]);
    DomainProcess::start(data, domain, address, &variables)
}

/// Starts the shop, with its domains reachable at `grpc`, and allowed to move to `addresses`.
fn shop(data: &Path, grpc: &str, addresses: &[String]) -> Shop {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    let peers = ("MERCAT_PEERS__ADDRESSES".to_owned(), addresses.join(","));
    start_shop(data, &["--grpc", grpc], vec![secret(), peers])
}

async fn try_move(admin: &HttpClient, domain: &str, to: &str) -> Option<(u16, Value)> {
    let path = format!("/domains/{domain}/move");
    admin.try_send("POST", &path, Some(json!({ "to": to })), None).await.map(|answer| (answer.status, answer.body))
}

async fn assert_moves(admin: &HttpClient, domain: &str, to: &str) {
    let (status, moved) = try_move(admin, domain, to).await.unwrap();
    assert_eq!((status, &moved["place"]), (200, &json!(to)), "{moved}");
    let health = admin.get_root("/health").await;
    assert_eq!(health["domains"][domain]["place"], to, "{health}");
}

/// Asserts that all invariants hold, wherever the domains are.
fn assert_consistent(data: &Path) {
    let checked = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .args(["check", "--data"])
        .arg(data)
        .envs([secret()])
        .env("MERCAT_PEERS__TOKEN", TOKEN)
        .current_dir(data.parent().unwrap())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

/// Places an order in which every step must succeed at the first attempt, except that the event of the order before may
/// not have arrived.
async fn order_without_retries(buyer: &HttpClient, user: &str, product: &str, name: &str) {
    let cart = format!("/user/{user}/cart/");
    let line = json!({"product_id": product, "quantity": 1});
    let email = json!({"email": format!("{user}@example.com")});
    let mut invoice = Value::Null;
    for (step, expected) in [("add", 201), ("checkout", 201), ("pay", 200)] {
        let (path, body) = match step {
            "add" => (cart.clone(), line.clone()),
            "checkout" => (format!("{cart}checkout"), email.clone()),
            _ => (format!("/invoices/{}/pay", invoice["id"].as_str().unwrap()), json!({"token": "tok_ok"})),
        };
        for n in 0.. {
            let key = format!("{name}-{step}-{n}");
            let answer = buyer.post_idempotent(&path, body.clone(), &key).await;
            if answer.status == 409 && answer.body["code"] == "checkout_in_progress" && n < 500 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            invoice = answer.expect_status(expected);
            break;
        }
    }
}

#[actix::test]
async fn p15_domains_relocate_under_load_without_failure() {
    let dir = TempDir::new().unwrap();
    let (data, grpc) = (folder(dir.path(), "shop"), free_address());
    let addresses: Vec<String> = (0..3).map(|_| free_address()).collect();
    let mut running = shop(&data, &grpc, &addresses);
    let callees = || vec![place_variable("catalog", &grpc), place_variable("payments", &grpc)];
    // Each with the addresses of the domains that it calls: the process it comes from.
    let places = [("payments", Vec::new()), ("cart", callees()), ("notifications", Vec::new())];
    let start = |n: usize, data: &Path| standby(data, places[n].0, &addresses[n], places[n].1.clone());
    let folders: Vec<PathBuf> = places.iter().map(|(name, _)| folder(dir.path(), name)).collect();
    let mut processes: Vec<DomainProcess> = folders.iter().enumerate().map(|(n, data)| start(n, data)).collect();
    let mut admin = running.admin(&data).await;
    let teapot = product(&admin, "TEA-1", 100_000).await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut buyers = Vec::new();
    for _ in 0..6 {
        let ((buyer, user), teapot) = (guest(&running).await, teapot.clone());
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        buyers.push(actix::spawn(async move {
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                order_without_retries(&buyer, &user, &teapot, &format!("o{n}")).await;
                done.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let target = |n: usize| format!("http://{}", addresses[n]);
    for (n, (domain, _)) in places.iter().enumerate() {
        assert_moves(&admin, domain, &target(n)).await;
        let before = done.load(Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < before + 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for (domain, _) in &places {
        assert_moves(&admin, domain, "local").await;
    }
    // Out again, and this time every process is killed.
    for (n, (domain, _)) in places.iter().enumerate() {
        assert_moves(&admin, domain, &target(n)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for buyer in buyers {
        buyer.await.unwrap();
    }
    let orders = done.load(Ordering::SeqCst);
    running.kill();
    processes.into_iter().for_each(DomainProcess::kill);
    processes = folders.iter().enumerate().map(|(n, data)| start(n, data)).collect();
    running = shop(&data, &grpc, &addresses);
    admin = running.client_with_token(admin.token.as_deref().unwrap());
    let health = admin.get_root("/health").await;
    assert_eq!(health["domains"]["payments"]["place"], target(0), "{health}");
    let (buyer, user) = guest(&running).await;
    order(&buyer, &user, &teapot, "after").await;
    let sold = i64::try_from(orders).unwrap() + 1;
    admin.poll_until(&format!("/product/{teapot}"), |product| product["stock"] == 100_000 - sold).await;
    assert_consistent(&data);
    for (domain, _) in &places {
        assert_moves(&admin, domain, "local").await;
    }
    assert_eq!(running.terminate(), Some(0));
    for part in processes {
        assert_eq!(part.terminate(), Some(0));
    }
    assert_consistent(&data);
}

#[actix::test]
async fn p15_kill_during_relocation_leaves_one_owner() {
    let dir = TempDir::new().unwrap();
    let (data, grpc, address) = (folder(dir.path(), "shop"), free_address(), free_address());
    let other = folder(dir.path(), "payments");
    let addresses = [address.clone()];
    let mut running = shop(&data, &grpc, &addresses);
    let mut remote = standby(&other, "payments", &address, Vec::new());
    let token = running.admin(&data).await.token.unwrap();
    let mut admin = running.client_with_token(&token);
    let teapot = product(&admin, "TEA-1", 1_000).await;
    let (out, mut orders) = (format!("http://{address}"), 0);
    for round in 0_u64..8 {
        let (buyer, user) = guest(&running).await;
        order(&buyer, &user, &teapot, &format!("o{round}")).await;
        orders += 1;
        // Out in even rounds, back in odd ones; the source and the target are killed in turn.
        let to = if round % 2 == 0 { out.clone() } else { "local".to_owned() };
        let moving = {
            let (admin, to) = (admin.clone(), to.clone());
            actix::spawn(async move { try_move(&admin, "payments", &to).await })
        };
        tokio::time::sleep(Duration::from_millis((round * 53) % 180)).await;
        if round % 4 < 2 {
            running.kill();
            running = shop(&data, &grpc, &addresses);
            admin = running.client_with_token(&token);
        } else {
            remote.kill();
            remote = standby(&other, "payments", &address, Vec::new());
        }
        let _ = moving.await.unwrap();
        let (buyer, user) = guest(&running).await;
        order(&buyer, &user, &teapot, &format!("p{round}")).await;
        orders += 1;
        // Whatever the outcome, a repeated move completes.
        for n in 0.. {
            match try_move(&admin, "payments", &to).await {
                Some((200, _)) => break,
                refused if n > 200 => panic!("round {round}: {refused:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    admin
        .poll_until("/invoices/?status=paid&limit=100", |page| page["items"].as_array().unwrap().len() == orders)
        .await;
    let left = 1_000 - i64::try_from(orders).unwrap();
    admin.poll_until(&format!("/product/{teapot}"), |product| product["stock"] == left).await;
    assert_consistent(&data);
}

#[actix::test]
async fn p19_database_left_by_a_move_is_not_opened() {
    let dir = TempDir::new().unwrap();
    let (data, grpc, address) = (folder(dir.path(), "shop"), free_address(), free_address());
    let other = folder(dir.path(), "payments");
    let running = shop(&data, &grpc, std::slice::from_ref(&address));
    let remote = standby(&other, "payments", &address, Vec::new());
    let admin = running.admin(&data).await;
    let teapot = product(&admin, "TEA-1", 10).await;
    assert_moves(&admin, "payments", &format!("http://{address}")).await;
    let (buyer, user) = guest(&running).await;
    order(&buyer, &user, &teapot, "one").await;
    assert_eq!(running.terminate(), Some(0));
    // Without the record of the move the old file would be opened, and invoice numbers be given twice.
    std::fs::remove_file(data.join("places.toml")).unwrap();
    let started = Command::new(env!("CARGO_BIN_EXE_mercat"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", "shop"])
        .envs([secret()])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let error = String::from_utf8(started.stderr).unwrap();
    assert!(!started.status.success() && error.contains("set payments.place"), "{error}");
    // With the place in the settings the shop goes on, and the domain moves back.
    let running = start_shop(&data, &["--grpc", &grpc], vec![secret(), place_variable("payments", &address)]);
    let (buyer, user) = guest(&running).await;
    order(&buyer, &user, &teapot, "two").await;
    let admin = running.client_with_token(admin.token.as_deref().unwrap());
    assert_moves(&admin, "payments", "local").await;
    let (buyer, user) = guest(&running).await;
    order(&buyer, &user, &teapot, "three").await;
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(remote.terminate(), Some(0));
    let running = shop(&data, &grpc, std::slice::from_ref(&address));
    assert_eq!(running.terminate(), Some(0));
    assert_consistent(&data);
}

#[actix::test]
async fn s05_impossible_relocation_is_rejected() {
    let dir = TempDir::new().unwrap();
    let (data, grpc) = (folder(dir.path(), "shop"), free_address());
    let taken = DomainProcess::start(&folder(dir.path(), "taken"), "payments", "127.0.0.1:0", &[secret()]);
    let other = DomainProcess::start(
        &folder(dir.path(), "users"),
        "users",
        "127.0.0.1:0",
        &[("MERCAT_STANDBY".to_owned(), "true".to_owned())],
    );
    let absent = free_address();
    let running = shop(&data, &grpc, &[absent.clone(), taken.address.clone(), other.address.clone()]);
    let admin = running.admin(&data).await;
    let teapot = product(&admin, "TEA-1", 10).await;
    let refused = |domain: &'static str, to: String, word: &'static str| {
        let admin = admin.clone();
        async move {
            let (status, refusal) = try_move(&admin, domain, &to).await.unwrap();
            assert_eq!((status, refusal["code"].as_str()), (409, Some("cannot_move")), "{refusal}");
            assert!(refusal["detail"].as_str().unwrap().contains(word), "{refusal}");
        }
    };
    refused("payments", format!("http://{absent}"), "connection refused").await;
    refused("payments", format!("http://{}", taken.address), "open in the other process already").await;
    refused("mailer", format!("http://{}", taken.address), "--domains mailer --standby").await;
    refused("users", format!("http://{}", other.address), "MERCAT_SECRET").await;
    let (status, _) = try_move(&admin, "till", "local").await.unwrap();
    assert_eq!(status, 404);
    let (status, wrong) = try_move(&admin, "payments", "elsewhere").await.unwrap();
    assert_eq!((status, &wrong["errors"][0]["field"]), (422, &json!("to")), "{wrong}");
    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    foreign.set_nonblocking(true).unwrap();
    let to = format!("http://{}", foreign.local_addr().unwrap());
    let (status, unlisted) = try_move(&admin, "payments", &to).await.unwrap();
    assert_eq!((status, &unlisted["errors"][0]["code"]), (422, &json!("not_allowed")), "{unlisted}");
    assert!(foreign.accept().is_err(), "the shop does not connect to an address that its settings do not name");
    let (buyer, user) = guest(&running).await;
    assert_eq!(try_move(&buyer, "payments", "local").await.unwrap().0, 403);
    order_without_retries(&buyer, &user, &teapot, "one").await;
    assert!(!data.join("places.toml").exists());
    assert_eq!(running.terminate(), Some(0));
}

#[actix::test]
async fn move_command_relocates_domain() {
    let dir = TempDir::new().unwrap();
    let (data, grpc) = (folder(dir.path(), "shop"), free_address());
    let running = shop(&data, &grpc, &[]);
    running.admin(&data).await;
    let callee = vec![place_variable("users", &grpc)];
    let remote = standby(&folder(dir.path(), "mailer"), "mailer", "127.0.0.1:0", callee);
    let command = |to: &str, password: &str| {
        let run = Command::new(env!("CARGO_BIN_EXE_mercat"))
            .args([
                "move",
                "mailer",
                "--to",
                to,
                "--email",
                "boss@example.com",
                "--shop",
                &running.url,
                "--data",
                "shop",
            ])
            .env("MERCAT_ADMIN_PASSWORD", password)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let output = String::from_utf8(if run.status.success() { run.stdout } else { run.stderr }).unwrap();
        (run.status.code(), output)
    };
    let to = format!("http://{}", remote.address);
    let (code, output) = command(&to, "correct horse battery");
    assert!(code == Some(0) && output.starts_with(&format!("mailer moved to {to}: ")), "{output}");
    let (code, output) = command("local", "correct horse battery");
    assert!(code == Some(0) && output.starts_with("mailer moved to local: "), "{output}");
    let (code, output) = command("local", "not the password");
    assert!(code == Some(1) && output.trim().lines().count() == 1, "{output}");
    assert_eq!(running.terminate(), Some(0));
}
