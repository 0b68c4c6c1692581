//! From the first visit to the receipt, as the README tells it.

use serde_json::{Value, json};

use super::support::{Shop, Visitor};
use super::topology::Ground;

/// A product in the shop; gives its id.
pub async fn product(admin: &Visitor, sku: &str, stock: i64) -> String {
    let product = json!({"name": format!("Teapot {sku}"), "sku": sku, "description": "Holds a litre.",
        "price": 1999, "currency": "EUR", "stock": stock, "category": "Kitchen", "tags": ["tea"]});
    admin.post("/product/", product).await.expect_status(201)["id"].as_str().unwrap().to_owned()
}

#[actix::test]
async fn a_stranger_buys_and_everybody_who_should_know_hears_of_it() {
    let ground = Ground::new().await;
    let shop = ground.open();
    let admin = ground.admin(&shop).await;
    whole(&shop, &admin).await;
    ground.books_agree();
    shop.terminate();
    ground.books_agree();
}

/// The whole walk, from the first look to what the buyer thinks of it.
pub async fn whole(shop: &Shop, admin: &Visitor) {
    let teapot = product(admin, "TEA-1", 5).await;

    // The stranger looks around and finds it.
    let mut buyer = shop.visitor();
    let found = buyer.get("/products/?q=teap").await.expect_status(200);
    assert_eq!(found["items"][0]["id"], teapot.as_str());

    // The first thing goes into a guest's cart, and the guest becomes a customer with that cart.
    let guest = buyer.post("/guest", json!({})).await.expect_status(201);
    buyer.token = Some(guest["token"].as_str().unwrap().to_owned());
    let id = guest["user"]["id"].as_str().unwrap().to_owned();
    let cart = format!("/user/{id}/cart/");
    let item = buyer.post(&cart, json!({"product_id": teapot, "quantity": 2})).await.expect_status(201);
    assert_eq!((&item["total"], &item["currency"]), (&json!(3998), &json!("EUR")));
    let no_address = buyer.post(&format!("{cart}checkout"), json!({})).await.expect_status(422);
    assert_eq!(no_address["errors"][0]["field"], "email");
    let account = json!({"email": "ada@example.com", "password": "a fine password", "name": "Ada"});
    let user = buyer.post("/user/", account).await.expect_status(201);
    assert_eq!((&user["id"], &user["role"]), (&json!(id), &json!("customer")));

    // The browser and the back office listen.
    let (mut hers, mut staff) = (buyer.socket().await, admin.socket().await);
    let ready = hers.next(|f| f["type"] == "ready").await;
    assert_eq!(ready["user_id"], id.as_str());
    hers.send(json!({"type": "subscribe", "topics": ["user", format!("product:{teapot}")]})).await;
    hers.next(|f| f["type"] == "subscribed").await;
    staff.send(json!({"type": "subscribe", "topics": ["orders", "emails", "stats"]})).await;
    staff.next(|f| f["type"] == "subscribed").await;

    // Checkout sets the stock aside, a declined card leaves the invoice open, a good one pays it.
    let invoice = buyer.post_once(&format!("{cart}checkout"), json!({}), "order-1").await.expect_status(201);
    assert_eq!((&invoice["total"], &invoice["status"]), (&json!(3998), &json!("open")));
    // That the product was made may be news still.
    hers.next(|f| f["kind"] == "product_changed" && f["data"]["stock"] == 3).await;
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    buyer.post(&pay, json!({"token": "tok_ok"})).await.expect_status(400);
    let declined = buyer.post_once(&pay, json!({"token": "tok_declined"}), "pay-1").await.expect_status(402);
    assert_eq!(declined["code"], "card_declined");
    let paid = buyer.post_once(&pay, json!({"token": "tok_ok"}), "pay-2").await.expect_status(200);
    assert_eq!(paid["status"], "paid");
    let again = buyer.post_once(&pay, json!({"token": "tok_ok"}), "pay-2").await;
    assert!(again.replayed);
    assert_eq!(again.expect_status(200), paid);

    // Everybody who should know hears of it: buyer, staff, statistics, mail.
    let told = hers.next(|f| f["type"] == "notification" && f["kind"] == "invoice_paid").await;
    assert_eq!(told["data"]["invoice_id"], invoice["id"]);
    // News of different domains has no order among itself: the receipt may be known before the payment.
    let (mut order, mut mail) = (false, false);
    while !(order && mail) {
        let of_order = |f: &Value| f["topic"] == "orders" && f["kind"] == "invoice_paid";
        let frame = staff.next(|f| of_order(f) || f["topic"] == "emails").await;
        (order, mail) = (order || of_order(&frame), mail || frame["topic"] == "emails");
    }
    let of = |mails: &Value, template: &str| -> usize {
        mails["items"].as_array().unwrap().iter().filter(|m| m["template"] == template).count()
    };
    admin.until("/emails/?limit=100", |mails| of(mails, "receipt") == 1 && of(mails, "welcome") >= 1).await;
    admin.until("/stats/summary", |s| s["totals"]["orders"] == 1 && s["totals"]["revenue"] == 3998).await;
    buyer.until(&cart, |cart| cart["count"] == 0).await;
    let notes = buyer.until("/notifications/", |notes| notes["items"].as_array().unwrap().len() == 4).await;
    let kinds = notes["items"].as_array().unwrap().iter().map(|n| n["kind"].as_str().unwrap());
    let (own, of_payments): (Vec<&str>, Vec<&str>) = kinds.partition(|kind| *kind == "user_registered");
    assert_eq!((own.len(), of_payments), (1, vec!["invoice_paid", "payment_failed", "invoice_created"]));

    // What she thinks of it shows on the product.
    let comment = json!({"rating": 4, "text": "Pours well."});
    buyer.post(&format!("/product/{teapot}/comments/"), comment).await.expect_status(201);
    buyer.until(&format!("/product/{teapot}"), |p| p["rating"] == 4.0 && p["review_count"] == 1).await;
}
