//! Entity tags of what staff edit: no change undoes another that was made meanwhile (RFC 9110 §13).

use serde_json::json;

use crate::support::{TestShop, new_product};

#[actix_web::test]
async fn stale_change_of_product_is_refused() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let customer = shop.customer("ada@example.com").await;
    let product = shop.product(&admin, "TEA", 400, 10).await;
    let path = format!("/product/{product}");
    let opened = shop.get(&path).await;
    let tag = opened.header("etag").unwrap().to_owned();
    let unchanged = shop.call("GET", &path).header("if-none-match", &tag).send().await;
    assert_eq!((unchanged.status.as_u16(), unchanged.text()), (304, String::new()));
    // A sale between opening and saving.
    let invoice = shop.checkout_with_one(&customer, &product).await;
    shop.pay(&customer, invoice["id"].as_str().unwrap(), "tok_ok", "p").await.expect(200);
    let send = |method: &'static str, path: String, tag: String, body| {
        shop.call(method, &path).with_user(&admin).header("if-match", &tag).json(&body).send()
    };
    let stock = || format!("{path}/stock");
    let stale = [
        ("PUT", path.clone(), new_product("TEA", 400, 10)),
        ("PATCH", path.clone(), json!({ "stock": 10 })),
        ("POST", stock(), json!({ "set": 10 })),
        ("DELETE", path.clone(), json!({})),
    ];
    for tag in [tag.as_str(), "\"other\"", "W/\"1-2\""] {
        for (method, path, body) in stale.clone() {
            send(method, path, tag.to_owned(), body).await.expect_problem(412, "precondition_failed");
        }
    }
    assert_eq!(shop.stock_of(&product).await, 9);
    let fresh = shop.call("GET", &path).header("if-none-match", &tag).send().await;
    assert_eq!(fresh.status.as_u16(), 200);
    let tag = fresh.header("etag").unwrap().to_owned();
    let changed = send("PATCH", path.clone(), tag.clone(), json!({ "price": 450 })).await;
    assert_eq!(changed.expect(200)["stock"], 9);
    let tag = changed.header("etag").unwrap().to_owned();
    let stocked = send("POST", stock(), tag, json!({ "change": 5, "reason": "delivery" })).await;
    let level = stocked.expect(200);
    assert_eq!(
        (&level["stock"], &level["on_hand"], &level["held"], &level["price"]),
        (&json!(14), &json!(14), &json!(0), &json!(450))
    );
    send("PATCH", path.clone(), "*".to_owned(), json!({ "price": 500 })).await.expect(200);
    let level = shop.read(&admin, &stock()).await;
    assert_eq!((&level["available"], &level["changes"][0]["reason"]), (&json!(14), &json!("delivery")));
}
