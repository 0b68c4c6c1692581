//! kill -9 in the middle of orders, round after round at random moments: what was acknowledged is there, nothing is
//! there twice, the rest is finished or released. `MERCAT_CRASH_ROUNDS=N` sets the rounds.
//!
//! Uses the real threads, sockets and files. Does not contain reproducible schedules (`tests/simulation`) or a crash
//! after each single commit (`tests/api/process_death.rs`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::purchase::product;
use super::support::{HttpClient, Shop};
use super::topology::TestEnvironment;

/// Limit for a step that is in progress elsewhere.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Kills in an ordinary run.
const ROUNDS: usize = 8;
/// New buyers per round. Those of earlier rounds repeat their orders under the same keys.
const BUYERS_PER_ROUND: usize = 12;
const STOCK: i64 = 1_000_000;

/// Responses that one buyer received before the crash.
#[derive(Default, Clone)]
struct Acknowledged {
    in_cart: bool,
    invoice: Option<Value>,
    paid: bool,
}

/// Places one order, every step under a key of its own, so that it can be repeated.
async fn place_order(buyer: &HttpClient, user: &str, product: &str, acknowledged: &mut Acknowledged) -> Option<()> {
    let cart = format!("/user/{user}/cart/");
    let item = json!({"product_id": product, "quantity": 2});
    let added = buyer.try_send("POST", &cart, Some(item), Some("add")).await?;
    assert_eq!(added.status, 201, "{}", added.body);
    acknowledged.in_cart = true;
    let begun = Instant::now();
    let invoice = loop {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "the order is never finished");
        let answer = buyer
            .try_send(
                "POST",
                &format!("{cart}checkout"),
                Some(json!({"email": format!("{user}@example.com")})),
                Some("order"),
            )
            .await?;
        match answer.status {
            201 => break answer.body,
            // The first attempt is in progress, or being resumed after the crash.
            409 if answer.body["code"] == "request_in_progress" => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => panic!("{} {}", answer.status, answer.body),
        }
    };
    if let Some(before) = &acknowledged.invoice {
        assert_eq!(before["id"], invoice["id"], "the same order has two invoices");
    }
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    acknowledged.invoice = Some(invoice);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < WAIT_TIMEOUT, "the payment is never finished");
        let answer = buyer.try_send("POST", &pay, Some(json!({"token": "tok_ok"})), Some("pay")).await?;
        match (answer.status, answer.body["code"].as_str()) {
            (200, _) => break,
            (409, Some("already_paid")) => panic!("paid under this key, and the key does not know it"),
            (409, _) => tokio::time::sleep(Duration::from_millis(50)).await,
            _ => panic!("{} {}", answer.status, answer.body),
        }
    }
    acknowledged.paid = true;
    Some(())
}

/// Token and id of a guest, and the responses it received.
type Buyer = (String, String, Acknowledged);

/// Asserts that every acknowledged step of a buyer is there.
async fn assert_acknowledged_steps_remain(shop: &Shop, (token, user, acknowledged): &Buyer) {
    let client = shop.client_with_token(token);
    if let Some(invoice) = &acknowledged.invoice {
        let now = client.get(&format!("/invoices/{}", invoice["id"].as_str().unwrap())).await.expect_status(200);
        assert_eq!(now["total"], 3998);
        assert!(!acknowledged.paid || now["status"] == "paid", "an acknowledged payment is gone: {now}");
    } else if acknowledged.in_cart {
        let cart = client.get(&format!("/user/{user}/cart/")).await.expect_status(200);
        assert_eq!(cart["count"], 2, "an acknowledged add is gone or doubled: {cart}");
    }
}

/// Asserts one paid invoice, notification and receipt per buyer, gapless numbers, and the stock and revenue of that.
async fn assert_each_bought_once(shop: &Shop, admin: &HttpClient, teapot: &str, buyers: &[Buyer]) {
    let orders = buyers.len();
    let invoices = admin.get_all("/invoices/?limit=100").await;
    let mut by_user: HashMap<&str, usize> = HashMap::new();
    for invoice in &invoices {
        assert_eq!(invoice["status"], "paid");
        *by_user.entry(invoice["user_id"].as_str().unwrap()).or_default() += 1;
    }
    assert!(by_user.len() == orders && by_user.values().all(|n| *n == 1), "one buyer, one invoice: {by_user:?}");
    let mut numbers: Vec<&str> = invoices.iter().map(|i| i["number"].as_str().unwrap()).collect();
    numbers.sort_unstable();
    let gapless: Vec<String> = (1..=orders).map(|n| format!("INV-{n:06}")).collect();
    assert_eq!(numbers, gapless);
    let sold = i64::try_from(orders).unwrap();
    admin.poll_until(&format!("/product/{teapot}"), |p| p["stock"] == STOCK - 2 * sold).await;
    let revenue = 3998 * sold;
    admin.poll_until("/stats/summary", |s| s["totals"]["orders"] == sold && s["totals"]["revenue"] == revenue).await;
    let paid = |list: &Value| list["items"].as_array().unwrap().iter().filter(|n| n["kind"] == "invoice_paid").count();
    for (token, user, _) in buyers {
        let client = shop.client_with_token(token);
        let notes = client.poll_until("/notifications/?limit=100", |list| paid(list) > 0).await;
        assert_eq!(paid(&notes), 1, "notifications of the payment for {user}");
    }
    let emails = admin.get_all("/emails/?limit=100").await;
    assert_eq!(emails.iter().filter(|email| email["template"] == "receipt").count(), orders);
}

#[actix::test]
async fn p14_kill_9_during_orders_loses_nothing() {
    let rounds = std::env::var("MERCAT_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let environment = TestEnvironment::new().await;
    let mut shop = environment.open();
    let admin_token = environment.admin(&shop).await.token.unwrap();
    let admin = |shop: &Shop| shop.client_with_token(&admin_token);
    let teapot = product(&admin(&shop), "TEA-1", STOCK).await;

    let mut buyers: Vec<Buyer> = Vec::new();
    for round in 0..rounds {
        for _ in 0..BUYERS_PER_ROUND {
            let guest = shop.client().post("/guest", json!({})).await.expect_status(201);
            let token = guest["token"].as_str().unwrap().to_owned();
            let user = guest["user"]["id"].as_str().unwrap().to_owned();
            buyers.push((token, user, Acknowledged::default()));
        }
        // All order at once, and the shop is killed at a moment taken from the machine's clock.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let pause = 5 + u64::from(now.subsec_micros()) % 250;
        println!("round {round}: killed after {pause} ms");
        let orders = buyers.iter().cloned().map(|(token, user, mut acknowledged)| {
            let (client, teapot) = (shop.client_with_token(&token), teapot.clone());
            actix::spawn(async move {
                let _ = place_order(&client, &user, &teapot, &mut acknowledged).await;
                (token, user, acknowledged)
            })
        });
        let orders: Vec<_> = orders.collect();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        shop.kill();
        buyers = futures_util::future::join_all(orders).await.into_iter().map(Result::unwrap).collect();
        shop = environment.open();
        environment.assert_consistent();
        for buyer in &buyers {
            assert_acknowledged_steps_remain(&shop, buyer).await;
        }
    }

    // In the end all orders are completed and all invariants hold.
    for (token, user, acknowledged) in &mut buyers {
        let client = shop.client_with_token(token);
        place_order(&client, user, &teapot, acknowledged).await.expect("the shop stays up");
    }
    assert_each_bought_once(&shop, &admin(&shop), &teapot, &buyers).await;
    environment.assert_consistent();
    shop.kill();
    environment.assert_consistent();
}
