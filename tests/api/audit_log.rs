//! S9: actions of staff are recorded with who, what and from where, and stay as they are.

use mercat::messaging::Role;
use serde_json::{Value, json};

use crate::support::{TestShop, TestUser};

async fn entries(shop: &TestShop, admin: &TestUser, query: &str) -> Vec<Value> {
    let page = shop.call("GET", &format!("/audit{query}")).with_user(admin).send().await.expect(200);
    page["items"].as_array().unwrap().clone()
}

#[actix_web::test]
async fn s09_actions_of_staff_are_recorded_across_domains() {
    let shop = TestShop::open().await;
    let (admin, manager) = (shop.admin().await, shop.staff(Role::Manager).await);
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&manager, "TEA", 400, 5).await;
    let path = format!("/product/{product}");
    shop.call("PATCH", &path).with_user(&manager).json(&json!({ "price": 500 })).send().await.expect(200);
    shop.call("PATCH", &path).with_user(&manager).json(&json!({ "price": -1 })).send().await.expect(422);
    let invoice = shop.checkout_with_one(&customer, &product).await;
    let void = format!("/invoices/{}/void", invoice["id"].as_str().unwrap());
    shop.call("POST", &void).with_user(&admin).send().await.expect(200);

    let all = entries(&shop, &admin, "").await;
    let actions: Vec<&str> = all.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    let expected = ["payments.VoidInvoice", "catalog.UpdateProduct", "catalog.CreateProduct"];
    assert_eq!(actions, expected, "newest first; what failed, and what customers do, is not in it");
    let change = &all[1];
    assert_eq!((&change["user_id"], &change["role"]), (&json!(manager.id), &json!("manager")));
    assert_eq!(change["subject"], json!({ "product_id": product }));
    let prices = (&change["change"]["before"]["price"], &change["change"]["after"]["price"]);
    assert_eq!(prices, (&json!(400), &json!(500)));
    assert!(change["network"].is_string() && change["request_id"].is_string(), "{change}");

    let of_manager = entries(&shop, &admin, &format!("?user_id={}", manager.id)).await;
    assert_eq!(of_manager.len(), 2);
    let first = shop.call("GET", "/audit?limit=1").with_user(&admin).send().await.expect(200);
    let next = first["next"].as_str().unwrap();
    let rest = entries(&shop, &admin, &format!("?limit=10&cursor={next}")).await;
    assert_eq!(rest[..], all[1..], "pages join without a gap across domains");
    let csv = shop.call("GET", "/audit").with_user(&admin).header("accept", "text/csv").send().await;
    let text = String::from_utf8(csv.bytes.to_vec()).unwrap();
    assert_eq!((csv.status.as_u16(), text.lines().count()), (200, 4), "{text}");
    shop.call("GET", "/audit").with_user(&manager).send().await.expect_problem(403, "forbidden");
}

#[actix_web::test]
async fn repeated_request_is_recorded_once() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let product = shop.product(&admin, "TEA", 400, 5).await;
    for _ in 0..3 {
        let call = shop.call("PATCH", &format!("/product/{product}")).with_user(&admin).idempotency_key("k");
        call.json(&json!({ "price": 500 })).send().await.expect(200);
    }
    assert_eq!(entries(&shop, &admin, "").await.len(), 2);
}
