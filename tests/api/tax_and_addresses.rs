//! Invoices with delivery, tax and addresses: from a checkout, and made by staff.

use serde_json::{Value, json};

use crate::support::{TestShop, TestUser, id, paris};

/// An order of three teapots at 20 %, two books at 5.5 % and a parcel at 20 %, made out by staff.
async fn taxed_invoice(shop: &TestShop, admin: &TestUser, buyer: &TestUser, tax_included: bool) -> Value {
    let teapot = shop.product(admin, &format!("TEA-{tax_included}"), 999, 50).await;
    let body = json!({
        "user_id": buyer.id, "currency": "EUR", "tax_included": tax_included,
        "lines": [
            { "description": "Teapot", "product_id": teapot, "quantity": 3, "unit_price": 999,
              "tax": { "name": "VAT", "rate": "20" } },
            { "description": "Book", "quantity": 2, "unit_price": 1_050, "tax": { "name": "VAT", "rate": "5.50" } },
            { "description": "Voucher", "quantity": 1, "unit_price": 500 },
        ],
        "shipping": { "method": "Parcel", "price": 490, "tax": { "name": "VAT", "rate": "20" } },
        "shipping_address": paris(),
    });
    shop.call("POST", "/invoices").with_user(admin).json(&body).send().await.expect(201)
}

#[actix_web::test]
async fn tax_that_prices_include_is_shown_per_rate() {
    let shop = TestShop::open().await;
    let (admin, ada) = (shop.admin().await, shop.customer("ada@example.com").await);
    let invoice = taxed_invoice(&shop, &admin, &ada, true).await;
    assert_eq!((&invoice["total"], &invoice["tax"]), (&json!(2_997 + 2_100 + 500 + 490), &json!(500 + 82 + 109)));
    let expected = json!([
        { "name": "VAT", "rate": "20", "base": 2_497 + 408, "amount": 500 + 82 },
        { "name": "VAT", "rate": "5.5", "base": 1_991, "amount": 109 },
    ]);
    assert_eq!(invoice["taxes"], expected);
    assert_eq!(shop.read(&ada, &format!("/invoices/{}", id(&invoice))).await["taxes"], expected);
}

#[actix_web::test]
async fn added_tax_is_paid_and_comes_back_with_its_units() {
    let shop = TestShop::open().await;
    let (admin, ada) = (shop.admin().await, shop.customer("ada@example.com").await);
    let invoice = taxed_invoice(&shop, &admin, &ada, false).await;
    // 599.4, 115.5 and 98, each rounded half up.
    let total = 2_997 + 599 + 2_100 + 116 + 500 + 490 + 98;
    assert_eq!((&invoice["total"], &invoice["tax"]), (&json!(total), &json!(599 + 116 + 98)));
    let paid = shop.pay(&ada, id(&invoice), "tok_ok", "pay").await.expect(200);
    assert_eq!(paid["status"], "paid");
    let teapot = &invoice["lines"][0]["product_id"];
    let mut refunded = 0;
    for (n, quantity) in [2, 1].into_iter().enumerate() {
        let body = json!({ "lines": [{ "product_id": teapot, "quantity": quantity }] });
        let path = format!("/invoices/{}/refund", id(&invoice));
        let key = format!("refund {n}");
        let answer =
            shop.call("POST", &path).with_user(&admin).header("Idempotency-Key", &key).json(&body).send().await;
        refunded = answer.expect(200)["refunded"].as_i64().unwrap();
    }
    assert_eq!(refunded, 2_997 + 599);
}

#[actix_web::test]
async fn checkout_prints_addresses_and_note_on_the_invoice() {
    let shop = TestShop::open().await;
    let (admin, ada) = (shop.admin().await, shop.customer("ada@example.com").await);
    let bob = shop.customer("bob@example.com").await;
    let tea = shop.product(&admin, "TEA", 450, 9).await;
    shop.add(&ada, &tea, 1).await;
    let checkout =
        |body: Value| shop.call("POST", &format!("/user/{}/cart/checkout", ada.id)).with_user(&ada).json(&body).send();
    let mut wrong = paris();
    wrong["postal_code"] = json!("1");
    let problem = checkout(json!({ "shipping_address": wrong })).await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["field"], "shipping_address.postal_code");
    let mut foreign = paris();
    foreign["planet"] = json!("Mars");
    let problem = checkout(json!({ "shipping_address": foreign })).await.expect_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["field"], "shipping_address.planet");
    let mut company = paris();
    company["vat_id"] = json!("FR 40 303265045");
    // An entry of the address book is taken as it is.
    let book = format!("/user/{}/addresses", ada.id);
    let saved = shop.call("POST", &book).with_user(&ada).json(&paris()).send().await.expect(201);
    let body = json!({ "shipping_address": saved, "billing_address": company, "note": "Ring twice" });
    let invoice = checkout(body).await.expect(201);
    assert_eq!((&invoice["shipping_address"], &invoice["note"]), (&paris(), &json!("Ring twice")));
    assert_eq!(invoice["billing_address"]["vat_id"], "FR40303265045");
    let path = format!("/invoices/{}", id(&invoice));
    assert_eq!(shop.read(&admin, &path).await["shipping_address"], paris());
    shop.call("GET", &path).with_user(&bob).send().await.expect(404);

    shop.call("DELETE", &format!("/user/{}", ada.id)).with_user(&admin).send().await.expect(204);
    shop.drain_events().await;
    let erased = shop.read(&admin, &path).await;
    assert_eq!((erased.get("shipping_address"), erased.get("billing_address"), erased.get("note")), (None, None, None));
}

#[actix_web::test]
async fn invalid_tax_and_delivery_name_their_field() {
    let shop = TestShop::open().await;
    let (admin, ada) = (shop.admin().await, shop.customer("ada@example.com").await);
    let line = json!({ "description": "Teapot", "quantity": 1, "unit_price": 100 });
    let with_rate = |rate: &str| {
        let mut line = line.clone();
        line["tax"] = json!({ "name": "VAT", "rate": rate });
        json!({ "user_id": ada.id, "currency": "EUR", "lines": [line] })
    };
    for rate in ["-1", "101", "20%", "5.55555", ""] {
        let answer = shop.call("POST", "/invoices").with_user(&admin).json(&with_rate(rate)).send().await;
        answer.expect_problem(422, "validation_failed");
    }
    let mut shipped = with_rate("20");
    shipped["shipping"] = json!({ "method": "", "price": -1 });
    let problem = shop.call("POST", "/invoices").with_user(&admin).json(&shipped).send().await;
    let problem = problem.expect_problem(422, "validation_failed");
    let fields: Vec<&Value> = problem["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, [&json!("shipping.method"), &json!("shipping.price")]);
}
