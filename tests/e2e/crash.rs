//! kill -9 in the middle of orders, round after round at moments that nobody chose: what was answered is there, nothing is
//! there twice, the rest ends or lets go. `MERCAT_CRASH_ROUNDS=N` makes it more rounds. What can be tried thousands of
//! times, on a schedule that can be had again, is in `tests/lab`, and each step in turn in `tests/api/deaths.rs`; here are
//! the real threads, sockets and files.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::purchase::product;
use super::support::{Shop, Visitor};
use super::topology::Ground;

/// How long a step that somebody else works on may take before a test says that nobody does.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often an ordinary run kills the shop.
const ROUNDS: usize = 8;
/// How many new buyers come with each round. Those of earlier rounds walk again, under their old keys.
const COMING: usize = 12;
const STOCK: i64 = 1_000_000;

/// What one buyer was told before the shop died.
#[derive(Default, Clone)]
struct Told {
    in_cart: bool,
    invoice: Option<Value>,
    paid: bool,
}

/// One buyer's walk; every step under a key of its own, so that it can be walked again.
async fn walk(buyer: &Visitor, user: &str, product: &str, told: &mut Told) -> Option<()> {
    let cart = format!("/user/{user}/cart/");
    let item = json!({"product_id": product, "quantity": 2});
    let added = buyer.try_ask("POST", &cart, Some(item), Some("add")).await?;
    assert_eq!(added.status, 201, "{}", added.body);
    told.in_cart = true;
    let begun = Instant::now();
    let invoice = loop {
        assert!(begun.elapsed() < PATIENCE, "an order that was begun is never finished");
        let answer = buyer
            .try_ask(
                "POST",
                &format!("{cart}checkout"),
                Some(json!({"email": format!("{user}@example.com")})),
                Some("order"),
            )
            .await?;
        match answer.status {
            201 => break answer.body,
            // The first try still runs, or is being taken up again after the crash.
            409 if answer.body["code"] == "request_in_progress" => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => panic!("{} {}", answer.status, answer.body),
        }
    };
    if let Some(before) = &told.invoice {
        assert_eq!(before["id"], invoice["id"], "the same order has two invoices");
    }
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    told.invoice = Some(invoice);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "a payment that was begun is never finished");
        let answer = buyer.try_ask("POST", &pay, Some(json!({"token": "tok_ok"})), Some("pay")).await?;
        match (answer.status, answer.body["code"].as_str()) {
            (200, _) => break,
            (409, Some("already_paid")) => panic!("paid under this key, and the key does not know it"),
            (409, _) => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => panic!("{} {}", answer.status, answer.body),
        }
    }
    told.paid = true;
    Some(())
}

#[actix::test]
async fn p14_kills_in_the_middle_of_orders_lose_nothing_and_do_nothing_twice() {
    let rounds = std::env::var("MERCAT_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let buyers_max = COMING * rounds;
    let ground = Ground::new().await;
    let mut shop = ground.open();
    let admin_token = ground.admin(&shop).await.token.unwrap();
    let admin = |shop: &Shop| shop.visitor_with(&admin_token);
    let teapot = product(&admin(&shop), "TEA-1", STOCK).await;

    let mut buyers = Vec::new();
    for round in 0..rounds {
        for _ in 0..COMING {
            let guest = shop.visitor().post("/guest", json!({})).await.expect_status(201);
            let token = guest["token"].as_str().unwrap().to_owned();
            let user = guest["user"]["id"].as_str().unwrap().to_owned();
            buyers.push((token, user, Told::default()));
        }
        // All walk at once, and the shop is killed when the machine's clock happens to say so.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let pause = 5 + u64::from(now.subsec_micros()) % 250;
        println!("round {round}: killed after {pause} ms");
        let walks = buyers.iter().cloned().map(|(token, user, mut told)| {
            let (visitor, teapot) = (shop.visitor_with(&token), teapot.clone());
            actix::spawn(async move {
                let _ = walk(&visitor, &user, &teapot, &mut told).await;
                (token, user, told)
            })
        });
        let walks: Vec<_> = walks.collect();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        shop.kill();
        buyers = futures_util::future::join_all(walks).await.into_iter().map(Result::unwrap).collect();
        shop = ground.open();
        ground.books_agree();
        // What was answered is there.
        for (token, user, told) in &buyers {
            let visitor = shop.visitor_with(token);
            if let Some(invoice) = &told.invoice {
                let now =
                    visitor.get(&format!("/invoices/{}", invoice["id"].as_str().unwrap())).await.expect_status(200);
                assert_eq!(now["total"], 3998);
                assert!(!told.paid || now["status"] == "paid", "an answered payment is gone: {now}");
            } else if told.in_cart {
                let cart = visitor.get(&format!("/user/{user}/cart/")).await.expect_status(200);
                assert_eq!(cart["count"], 2, "an answered add is gone or there twice: {cart}");
            }
        }
    }

    // In the end all walk to the end, and every book agrees.
    for (token, user, told) in &mut buyers {
        let visitor = shop.visitor_with(token);
        walk(&visitor, user, &teapot, told).await.expect("the shop stays up");
    }
    let admin = admin(&shop);
    let mut invoices: Vec<Value> = Vec::new();
    let mut next = Value::Null;
    loop {
        let cursor = next.as_str().map(|c| format!("&cursor={c}")).unwrap_or_default();
        let page = admin.get(&format!("/invoices/?limit=100{cursor}")).await.expect_status(200);
        invoices.extend(page["items"].as_array().unwrap().iter().cloned());
        next = page["next"].clone();
        if next.is_null() {
            break;
        }
    }
    let mut by_user: HashMap<&str, usize> = HashMap::new();
    for invoice in &invoices {
        assert_eq!(invoice["status"], "paid");
        *by_user.entry(invoice["user_id"].as_str().unwrap()).or_default() += 1;
    }
    assert!(by_user.len() == buyers_max && by_user.values().all(|n| *n == 1), "one buyer, one invoice: {by_user:?}");
    let mut numbers: Vec<&str> = invoices.iter().map(|i| i["number"].as_str().unwrap()).collect();
    numbers.sort_unstable();
    let gapless: Vec<String> = (1..=buyers_max).map(|n| format!("INV-{n:06}")).collect();
    assert_eq!(numbers, gapless);
    let left = STOCK - 2 * i64::try_from(buyers_max).unwrap();
    admin.until(&format!("/product/{teapot}"), |p| p["stock"] == left).await;
    admin
        .until("/stats/summary", |s| {
            s["totals"]["orders"] == buyers_max && s["totals"]["revenue"] == 3998 * i64::try_from(buyers_max).unwrap()
        })
        .await;
    for (token, user, _) in &buyers {
        let visitor = shop.visitor_with(token);
        let notes = visitor
            .until("/notifications/?limit=100", |n| {
                n["items"].as_array().unwrap().iter().any(|n| n["kind"] == "invoice_paid")
            })
            .await;
        let paid = notes["items"].as_array().unwrap().iter().filter(|n| n["kind"] == "invoice_paid").count();
        assert_eq!(paid, 1, "{user} was told {paid} times");
    }
    let mut receipts = 0;
    let mut next = Value::Null;
    loop {
        let cursor = next.as_str().map(|c| format!("&cursor={c}")).unwrap_or_default();
        let page = admin.get(&format!("/emails/?limit=100{cursor}")).await.expect_status(200);
        receipts += page["items"].as_array().unwrap().iter().filter(|m| m["template"] == "receipt").count();
        next = page["next"].clone();
        if next.is_null() {
            break;
        }
    }
    assert_eq!(receipts, buyers_max);
    ground.books_agree();
    shop.kill();
    ground.books_agree();
}
