//! A purchase from the first visit to the receipt, as in the README.

use serde_json::{Value, json};

use super::support::{HttpClient, Shop};
use super::topology::TestEnvironment;

/// Creates a product; returns its id.
pub async fn product(admin: &HttpClient, sku: &str, stock: i64) -> String {
    let product = json!({"name": format!("Teapot {sku}"), "sku": sku, "description": "Holds a litre.",
        "price": 1999, "currency": "EUR", "stock": stock, "category": "Kitchen", "tags": ["tea"]});
    admin.post("/product/", product).await.expect_status(201)["id"].as_str().unwrap().to_owned()
}

#[actix::test]
async fn purchase_notifies_every_subscriber() {
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    let admin = environment.admin(&shop).await;
    run_purchase(&shop, &admin).await;
    environment.assert_consistent();
    shop.terminate();
    environment.assert_consistent();
}

/// Runs a purchase from the first search to the review.
pub async fn run_purchase(shop: &Shop, admin: &HttpClient) {
    let teapot = product(admin, "TEA-1", 5).await;

    // The customer searches for the product.
    let mut buyer = shop.client();
    let found = buyer.get("/products/?q=teap").await.expect_status(200);
    assert_eq!(found["items"][0]["id"], teapot.as_str());

    // It goes into a guest's cart, and the guest becomes a customer with that cart.
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
    buyer.token = Some(user["token"].as_str().unwrap().to_owned());

    // Customer and back office subscribe.
    let (mut buyer_socket, mut staff_socket) = (buyer.socket().await, admin.socket().await);
    let ready = buyer_socket.next(|f| f["type"] == "ready").await;
    assert_eq!(ready["user_id"], id.as_str());
    buyer_socket.send(json!({"type": "subscribe", "topics": ["user", format!("product:{teapot}")]})).await;
    buyer_socket.next(|f| f["type"] == "subscribed").await;
    staff_socket.send(json!({"type": "subscribe", "topics": ["orders", "emails", "stats"]})).await;
    staff_socket.next(|f| f["type"] == "subscribed").await;

    // Checkout reserves the stock, a declined card leaves the invoice open, a good one pays it.
    let invoice = buyer.post_idempotent(&format!("{cart}checkout"), json!({}), "order-1").await.expect_status(201);
    assert_eq!((&invoice["total"], &invoice["status"]), (&json!(3998), &json!("open")));
    // The event of its creation may arrive late.
    buyer_socket.next(|f| f["kind"] == "product_changed" && f["data"]["stock"] == 3).await;
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    buyer.post(&pay, json!({"token": "tok_ok"})).await.expect_status(400);
    let declined = buyer.post_idempotent(&pay, json!({"token": "tok_declined"}), "pay-1").await.expect_status(402);
    assert_eq!(declined["code"], "card_declined");
    let paid = buyer.post_idempotent(&pay, json!({"token": "tok_ok"}), "pay-2").await.expect_status(200);
    assert_eq!(paid["status"], "paid");
    let again = buyer.post_idempotent(&pay, json!({"token": "tok_ok"}), "pay-2").await;
    assert!(again.is_replay);
    assert_eq!(again.expect_status(200), paid);

    // Buyer, staff_socket, statistics and mail receive their events.
    let notification = buyer_socket.next(|f| f["type"] == "notification" && f["kind"] == "invoice_paid").await;
    assert_eq!(notification["data"]["invoice_id"], invoice["id"]);
    // Events of different domains have no order: the receipt may arrive before the payment.
    let (mut order, mut mail) = (false, false);
    while !(order && mail) {
        let of_order = |f: &Value| f["topic"] == "orders" && f["kind"] == "invoice_paid";
        let frame = staff_socket.next(|f| of_order(f) || f["topic"] == "emails").await;
        (order, mail) = (order || of_order(&frame), mail || frame["topic"] == "emails");
    }
    let of = |mails: &Value, template: &str| -> usize {
        mails["items"].as_array().unwrap().iter().filter(|m| m["template"] == template).count()
    };
    admin.poll_until("/emails/?limit=100", |mails| of(mails, "receipt") == 1 && of(mails, "welcome") >= 1).await;
    admin.poll_until("/stats/summary", |s| s["totals"]["orders"] == 1 && s["totals"]["revenue"] == 3998).await;
    buyer.poll_until(&cart, |cart| cart["count"] == 0).await;
    let notes = buyer.poll_until("/notifications/", |notes| notes["items"].as_array().unwrap().len() == 4).await;
    let kinds = notes["items"].as_array().unwrap().iter().map(|n| n["kind"].as_str().unwrap());
    let (own, of_payments): (Vec<&str>, Vec<&str>) = kinds.partition(|kind| *kind == "user_registered");
    assert_eq!((own.len(), of_payments), (1, vec!["invoice_paid", "payment_failed", "invoice_created"]));

    // The review shows on the product.
    let comment = json!({"rating": 4, "text": "Pours well."});
    buyer.post(&format!("/product/{teapot}/comments/"), comment).await.expect_status(201);
    buyer.poll_until(&format!("/product/{teapot}"), |p| p["rating"] == 4.0 && p["review_count"] == 1).await;
}
