//! The shop and a bank that is slow, silent or early: P10, P11, P12.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use mercat::types::Clock;
use serde_json::{Value, json};

use crate::bank::{Bank, Line, SEAL};
use crate::support::{PATIENCE, Person, Reply, TestShop, id};

/// The bank tells the shop something by itself.
async fn tell(shop: &TestShop, news: &Value) -> Reply {
    shop.call("POST", "/webhooks/stripe").header("stripe-signature", SEAL).json(news).send().await
}

/// One order, one capture, one receipt, one notification; the goods of so many orders are gone.
async fn settled_once(shop: &TestShop, bank: &Bank, admin: &Person, customer: &Person, product: &str, invoice: &Value) {
    shop.is_sound().await;
    let now = shop.read(customer, &format!("/invoices/{}", id(invoice))).await;
    assert_eq!((&now["status"], &now["processing"]), (&json!("paid"), &json!(false)));
    assert_eq!(bank.capture_of(id(invoice)).1, invoice["total"].as_i64().unwrap());
    let orders = shop.read(customer, "/invoices?limit=100").await["items"].as_array().unwrap().len();
    assert_eq!(shop.mails(admin, "receipt").await, orders);
    assert_eq!(shop.told(customer, "invoice_paid").await, orders);
    assert_eq!(shop.stock(product).await, 100 - i64::try_from(orders).unwrap());
}

#[actix_web::test]
async fn p10_browser_and_webhook_in_any_order_doubled_or_missing_settle_a_payment_once() {
    let bank = Bank::default();
    let shop = bank.new_shop().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 100).await;
    let once = async |invoice: &Value| settled_once(&shop, &bank, &admin, &customer, &product, invoice).await;

    // The browser first, then the webhook: once, again under its name, and as another piece of news.
    let invoice = shop.checked_out(&customer, &product).await;
    shop.pay(&customer, id(&invoice), "tok_ok", "first").await.expect(200);
    for name in ["evt_1", "evt_1", "evt_2"] {
        tell(&shop, &bank.news(name, id(&invoice))).await.expect(200);
    }
    once(&invoice).await;

    // The webhook first, while the browser still waits; and a crowd of webhooks.
    let invoice = shop.checked_out(&customer, &product).await;
    bank.books().holds_next = true;
    let paying = shop.pay(&customer, id(&invoice), "tok_ok", "second");
    let news = async {
        bank.charged(id(&invoice)).await;
        let all = (0..10).map(|n| {
            let news = bank.news(&format!("evt_3_{}", n % 5), id(&invoice));
            let shop = &shop;
            async move { tell(shop, &news).await.expect(200) }
        });
        join_all(all).await;
        let path = format!("/invoices/{}", id(&invoice));
        assert_eq!(shop.read(&customer, &path).await["status"], "paid");
        bank.release();
    };
    let (paid, ()) = join(paying, news).await;
    assert_eq!(paid.expect(200)["id"], invoice["id"]);
    once(&invoice).await;

    // The browser's answer is lost: the webhook is enough, and who asks again gets it.
    let invoice = shop.checked_out(&customer, &product).await;
    bank.books().line = Line::NoAnswer;
    shop.pay(&customer, id(&invoice), "tok_ok", "third").await.problem(504, "deadline_exceeded");
    tell(&shop, &bank.news("evt_4", id(&invoice))).await.expect(200);
    let again = shop.pay(&customer, id(&invoice), "tok_ok", "third").await;
    assert_eq!((&again.expect(200)["status"], again.is_replay()), (&json!("paid"), true));
    bank.books().line = Line::Good;
    once(&invoice).await;

    // No webhook at all, and none that is somebody else's or of another sum is believed.
    let invoice = shop.checked_out(&customer, &product).await;
    bank.books().line = Line::NoAnswer;
    shop.pay(&customer, id(&invoice), "tok_ok", "fourth").await.problem(504, "deadline_exceeded");
    let mut less = bank.news("evt_5", id(&invoice));
    less["amount"] = json!(1);
    tell(&shop, &less).await.expect(200);
    let forged = shop.call("POST", "/webhooks/stripe").header("stripe-signature", "mine").json(&less);
    forged.send().await.problem(400, "bad_signature");
    let path = format!("/invoices/{}", id(&invoice));
    assert_eq!(shop.read(&customer, &path).await["status"], "open");
    bank.books().line = Line::Good;
    shop.until(&customer, &path, |now| now["status"] == "paid").await;
    once(&invoice).await;
}

#[actix_web::test]
async fn p11_paid_when_the_goods_are_gone_the_money_goes_back_by_itself() {
    let (bank, clock) = (Bank::default(), Clock::system());
    let dir = tempfile::tempdir().unwrap();
    let shop = bank.shop(dir, clock.clone(), |settings| settings.http.request_timeout = PATIENCE).await;
    let admin = shop.admin().await;
    let (ada, eve) = (shop.customer("ada@example.com").await, shop.customer("eve@example.com").await);
    let product = shop.product(&admin, "LAST", 450, 1).await;
    let shelf = format!("/product/{product}");

    // Ada's payment hangs at the bank until her reservation has run out and Eve has bought the last one.
    let hers = shop.checked_out(&ada, &product).await;
    bank.books().holds_next = true;
    let paying = shop.pay(&ada, id(&hers), "tok_ok", "pay");
    let meanwhile = async {
        bank.charged(id(&hers)).await;
        clock.advance(shop.app().settings().payments.invoice_lifetime + Duration::from_secs(600));
        shop.until(&admin, &shelf, |product| product["stock"] == 1).await;
        let invoice = shop.checked_out(&eve, &product).await;
        shop.pay(&eve, id(&invoice), "tok_ok", "pay").await.expect(200);
        bank.release();
        invoice
    };
    let (paid, eves) = join(paying, meanwhile).await;
    assert_eq!(paid.expect(200)["id"], hers["id"]);

    let path = format!("/invoices/{}", id(&hers));
    let back = shop.until(&ada, &path, |invoice| invoice["status"] == "refunded").await;
    assert_eq!(back["refunded"], 450);
    shop.is_sound().await;
    assert_eq!((bank.balance_of(id(&hers)), bank.balance_of(id(&eves))), (0, 450));
    assert_eq!(bank.entries(), (2, 1));
    assert_eq!(shop.stock(&product).await, 0);
    assert_eq!((shop.mails(&admin, "refund").await, shop.told(&ada, "invoice_refunded").await), (1, 1));
    assert_eq!(shop.told(&eve, "invoice_refunded").await, 0);
}

/// Waits until the bank was asked once more what has become of a charge.
async fn asked_once_more(bank: &Bank) {
    let (before, begun) = (bank.books().looked_up.len(), Instant::now());
    while bank.books().looked_up.len() == before {
        assert!(begun.elapsed() < PATIENCE, "nobody asks the bank");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[actix_web::test]
async fn p12_a_silent_provider_is_asked_by_our_key_and_nobody_is_charged_twice() {
    let (bank, clock) = (Bank::default(), Clock::system());
    let shop = bank.shop(tempfile::tempdir().unwrap(), clock.clone(), |_| {}).await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 450, 100).await;

    // The money is taken, and nobody hears of it.
    let invoice = shop.checked_out(&customer, &product).await;
    let path = format!("/invoices/{}", id(&invoice));
    let pay = async |key: &str| shop.pay(&customer, id(&invoice), "tok_ok", key).await;
    let is_processing = async || {
        let now = shop.read(&customer, &path).await;
        assert_eq!((&now["status"], &now["processing"]), (&json!("open"), &json!(true)));
    };
    bank.books().line = Line::NoAnswer;
    pay("pay").await.problem(504, "deadline_exceeded");
    is_processing().await;
    pay("pay").await.problem(409, "request_in_progress");
    pay("another").await.problem(409, "payment_in_progress");
    shop.call("POST", &format!("{path}/void")).as_(&admin).send().await.problem(409, "payment_in_progress");
    asked_once_more(&bank).await;
    let (key, _) = bank.capture_of(id(&invoice));
    assert!(bank.books().looked_up.iter().all(|asked| *asked == key), "not by our key");
    // Nor does it run out meanwhile: the money may be ours.
    clock.advance(shop.app().settings().payments.invoice_lifetime + Duration::from_secs(1));
    asked_once_more(&bank).await;
    is_processing().await;
    bank.books().line = Line::Good;
    shop.until(&customer, &path, |now| now["status"] == "paid").await;
    let again = pay("pay").await;
    assert_eq!((&again.expect(200)["status"], again.is_replay()), (&json!("paid"), true));
    pay("another").await.problem(409, "already_paid");
    settled_once(&shop, &bank, &admin, &customer, &product, &invoice).await;

    // The question itself was lost: what the bank never did, it will not do later, and the buyer may try again.
    let invoice = shop.checked_out(&customer, &product).await;
    let path = format!("/invoices/{}", id(&invoice));
    bank.books().line = Line::Broken;
    shop.pay(&customer, id(&invoice), "tok_ok", "lost").await.problem(504, "deadline_exceeded");
    assert_eq!(shop.read(&customer, &path).await["processing"], true);
    bank.books().line = Line::Good;
    shop.until(&customer, &path, |now| now["processing"] == false).await;
    assert_eq!((bank.balance_of(id(&invoice)), shop.told(&customer, "payment_failed").await), (0, 1));
    let paid = shop.pay(&customer, id(&invoice), "tok_ok", "lost").await;
    assert_eq!((&paid.expect(200)["status"], paid.is_replay()), (&json!("paid"), false));
    settled_once(&shop, &bank, &admin, &customer, &product, &invoice).await;

    // A refund whose answer is lost is asked for again under its key until it is known.
    bank.books().line = Line::NoAnswer;
    let refund = shop.call("POST", &format!("{path}/refund")).as_(&admin).key("back").json(&json!({ "amount": 100 }));
    refund.send().await.problem(504, "deadline_exceeded");
    bank.books().line = Line::Good;
    shop.until(&customer, &path, |now| now["refunded"] == 100).await;
    assert_eq!((bank.balance_of(id(&invoice)), bank.books().refunds.len()), (350, 1));
    shop.is_sound().await;
}

#[actix_web::test]
async fn p09_what_is_charged_is_the_invoices_total_whatever_prices_do_meanwhile() {
    let bank = Bank::default();
    let shop = bank.new_shop().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let (tea, pot) = (shop.product(&admin, "TEA", 333, 100).await, shop.product(&admin, "POT", 2_599, 100).await);
    shop.add(&customer, &tea, 7).await;
    shop.add(&customer, &pot, 1).await;
    // Put in at one price, checked out at that of the day, paid at that of the invoice.
    let price = async |product: &str, price: i64| {
        let patch = json!({ "price": price });
        shop.call("PATCH", &format!("/product/{product}")).as_(&admin).json(&patch).send().await.expect(200);
    };
    price(&tea, 301).await;
    let invoice = shop.check_out(&customer, "order").await.expect(201);
    assert_eq!(invoice["total"], 7 * 301 + 2_599);
    price(&pot, 1).await;
    price(&tea, 99_999).await;
    let paid = shop.pay(&customer, id(&invoice), "tok_ok", "pay").await.expect(200);
    assert_eq!((&paid["total"], &paid["lines"]), (&invoice["total"], &invoice["lines"]));
    let lines = paid["lines"].as_array().unwrap();
    let sum: i64 = lines.iter().map(|l| l["unit_price"].as_i64().unwrap() * l["quantity"].as_i64().unwrap()).sum();
    assert_eq!((sum, bank.capture_of(id(&invoice)).1), (7 * 301 + 2_599, 7 * 301 + 2_599));
    shop.is_sound().await;
}
