//! A purchase from registration to receipt; lists, editing and images.

use serde_json::{Value, json};

use crate::support::{PASSWORD, TestShop, TestUser, new_product};

#[actix_web::test]
async fn purchase_from_registration_to_receipt() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let tea = shop.product(&admin, "TEA", 450, 3).await;
    let ada = shop.customer("ada@example.com").await;
    let cart = format!("/user/{}/cart", ada.id);
    let add = |quantity: i64| {
        let line = json!({ "product_id": tea, "quantity": quantity });
        shop.call("POST", &format!("{cart}/")).with_user(&ada).json(&line).send()
    };
    let added = add(1).await;
    let item = added.expect(201);
    assert_eq!((&item["unit_price"], &item["currency"]), (&json!(450), &json!("EUR")));
    assert_eq!(added.header("location"), Some(format!("/api/v1{cart}/{}", item["id"].as_str().unwrap()).as_str()));
    assert_eq!(add(1).await.expect(201)["quantity"], 2);
    let short = add(5).await.expect_problem(409, "out_of_stock");
    assert_eq!(short["left"], 3);
    let line = format!("{cart}/{}", item["id"].as_str().unwrap());
    let put = |quantity: i64| shop.call("PUT", &line).with_user(&ada).json(&json!({ "quantity": quantity })).send();
    assert_eq!(put(3).await.expect(200)["total"], 1_350);
    put(0).await.expect(204);
    shop.call("GET", &line).with_user(&ada).send().await.expect_problem(404, "item_not_found");
    add(2).await.expect(201);
    let checkout = format!("{cart}/checkout");
    let invoice = shop.call("POST", &checkout).with_user(&ada).idempotency_key("c1").send().await;
    let location = invoice.header("location").unwrap().to_owned();
    let invoice = invoice.expect(201);
    assert_eq!((&invoice["total"], &invoice["status"]), (&json!(900), &json!("open")));
    assert_eq!(location, format!("/api/v1/invoices/{}", invoice["id"].as_str().unwrap()));
    add(1).await.expect_problem(409, "checkout_in_progress");
    let pay = format!("/invoices/{}/pay", invoice["id"].as_str().unwrap());
    let with = |token: &str, key: &str| {
        let body = json!({ "token": token });
        shop.call("POST", &pay).with_user(&ada).idempotency_key(key).json(&body).send()
    };
    with("tok_declined", "p1").await.expect_problem(402, "card_declined");
    let paid = with("tok_ok", "p2").await.expect(200);
    assert_eq!(paid["status"], "paid");
    shop.drain_events().await;
    assert_eq!(shop.get(&format!("/product/{tea}")).await.expect(200)["stock"], 1);
    assert_eq!(shop.call("GET", &cart).with_user(&ada).send().await.expect(200)["count"], 0);
    let notes = shop.call("GET", "/notifications/").with_user(&ada).send().await.expect(200);
    assert!(notes["items"].as_array().unwrap().iter().any(|note| note["kind"] == "invoice_paid"), "{notes}");
    let mails = shop.call("GET", "/emails/?to=ada@example.com").with_user(&admin).send().await.expect(200);
    assert!(mails["items"].as_array().unwrap().iter().any(|mail| mail["template"] == "receipt"), "{mails}");
    let summary = shop.call("GET", "/stats/summary?bucket=day").with_user(&admin).send().await.expect(200);
    assert_eq!((&summary["totals"]["revenue"], &summary["totals"]["orders"]), (&json!(900), &json!(1)));
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn lists_page_by_link_header() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    for n in 0..5 {
        shop.product(&admin, &format!("SKU-{n}"), 100 + n, 1).await;
    }
    let mut path = "/products/?limit=2&sort=price&q=thing".to_owned();
    let mut prices = Vec::new();
    for _ in 0..5 {
        let page = shop.get(&path).await;
        let body = page.expect(200);
        prices.extend(body["items"].as_array().unwrap().iter().map(|item| item["price"].as_i64().unwrap()));
        let Some(link) = page.header("link") else {
            assert_eq!(body["next"], Value::Null);
            break;
        };
        let next = link.strip_prefix('<').unwrap().split_once(">; rel=\"next\"").unwrap().0;
        assert!(next.contains("limit=2") && next.contains("sort=price"), "{link}");
        assert!(next.ends_with(body["next"].as_str().unwrap()), "{link}");
        path = next.strip_prefix("/api/v1").unwrap().to_owned();
    }
    assert_eq!(prices, [100, 101, 102, 103, 104]);
    for bad in ["limit=0", "limit=101", "cursor=nonsense", "limit=-5"] {
        shop.get(&format!("/products?{bad}")).await.expect_problem(422, "validation_failed");
    }
}

#[actix_web::test]
async fn product_round_trips_and_unknown_field_is_rejected() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let id = shop.product(&admin, "TEA", 450, 3).await;
    let path = format!("/product/{id}/");
    let mut product = shop.get(&path).await.expect(200);
    product["price"] = json!(500);
    assert_eq!(shop.call("PUT", &path).with_user(&admin).json(&product).send().await.expect(200)["price"], 500);
    let response = shop.call("PATCH", &path).with_user(&admin).json(&json!({ "prise": 1 })).send().await;
    assert_eq!(response.expect_problem(422, "validation_failed")["errors"][0]["field"], "prise");
    shop.call("DELETE", &path).with_user(&admin).send().await.expect(204);
    assert_eq!(shop.get(&path).await.expect(200)["deleted"], true);
    shop.call("POST", "/product").with_user(&admin).json(&new_product("TEA 2", 1, 1)).send().await.expect(422);
    shop.assert_consistent().await;
}

/// A multipart form with one file: content type and body.
pub fn form(name: &str, file: &[u8]) -> (String, Vec<u8>) {
    let mut body = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"alt\"\r\n\r\nA square\r\n--XX\r\nContent-Disposition: \
         form-data; name=\"{name}\"; filename=\"x.png\"\r\nContent-Type: image/png\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    ("multipart/form-data; boundary=XX".to_owned(), body)
}

pub fn png() -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let picture =
        image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), 128]));
    picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

#[actix_web::test]
async fn images_are_validated_and_cached() {
    let shop = TestShop::open_with(|settings| settings.catalog.image_bytes_max = 200_000).await;
    let admin = shop.admin().await;
    let id = shop.product(&admin, "TEA", 450, 3).await;
    let path = format!("/product/{id}/images/");
    let send = |(kind, body): (String, Vec<u8>)| shop.call("POST", &path).with_user(&admin).raw(&kind, body).send();
    let added = send(form("file", &png())).await;
    let image = added.expect(201);
    assert_eq!((&image["alt"], &image["width"]), (&json!("A square"), &json!(64)));
    let url = format!("!{}", image["url"].as_str().unwrap());
    assert_eq!(added.header("location"), image["url"].as_str());
    let whole = shop.get(&url).await;
    assert_eq!(whole.status.as_u16(), 200);
    assert!(whole.header("content-type").unwrap().starts_with("image/"));
    assert_eq!(whole.header("cache-control"), Some("public, max-age=31536000, immutable"));
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(shop.call("GET", &url).header("if-none-match", &tag).send().await.status.as_u16(), 304);
    let part = shop.call("GET", &url).header("range", "bytes=0-9").send().await;
    assert_eq!((part.status.as_u16(), part.bytes.as_slice()), (206, &whole.bytes[..10]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 0-9/{}", whole.bytes.len()).as_str()));
    let beyond = shop.call("GET", &url).header("range", "bytes=9999999-").send().await;
    beyond.expect_problem(416, "range_not_satisfiable");
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{}", whole.bytes.len()).as_str()));
    let changed = shop.call("GET", &url).header("range", "bytes=0-9").header("if-range", "\"other\"").send().await;
    assert_eq!(changed.status.as_u16(), 200);
    assert_eq!(shop.get(&path).await.expect(200)["items"].as_array().unwrap().len(), 1);

    send(form("file", &vec![0; 300_000])).await.expect_problem(413, "body_too_large");
    send(form("file", b"GIF89a no picture of ours")).await.expect_problem(415, "unsupported_image");
    send(form("picture", &png())).await.expect_problem(422, "validation_failed");
    let (kind, body) = form("file", &png());
    send((kind.clone(), body[..body.len() / 2].to_vec())).await.expect_problem(400, "malformed_body");
    send((kind, b"--YY nonsense".to_vec())).await.expect(400);
    send(("multipart/form-data".to_owned(), body)).await.expect_problem(400, "malformed_body");
    let gone = format!("/product/{id}/images/{}", image["id"].as_str().unwrap());
    shop.call("DELETE", &gone).with_user(&admin).send().await.expect(204);
    shop.get(&url).await.expect_problem(404, "image_not_found");
    shop.assert_consistent().await;
}

#[actix_web::test]
async fn served_requests_are_counted_across_restarts() {
    let shop = TestShop::open().await;
    let before = shop.get("/counter").await.expect(200)["count"].as_i64().unwrap();
    for _ in 0..10 {
        shop.get("!/healthz").await;
    }
    let after = shop.get("/counter").await.expect(200)["count"].as_i64().unwrap();
    assert_eq!(after, before + 11);
    let mut shop = shop;
    shop.handle.stop(true).await;
    shop.server_task.take().unwrap().await.unwrap().unwrap();
    let request = mercat::contract::stats::GetServedRequests {};
    let stored =
        shop.app().clients.stats.call(mercat::messaging::RequestContext::internal("test"), request).await.unwrap();
    assert_eq!(stored, after + 1, "the count is stored at shutdown");
}

#[actix_web::test]
async fn guest_cart_moves_to_the_account_at_sign_in() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let (tea, cup) = (shop.product(&admin, "TEA", 450, 9).await, shop.product(&admin, "CUP", 300, 9).await);
    let dollars = json!({ "name": "Mug", "sku": "MUG", "price": 500, "currency": "USD", "stock": 9 });
    let mug = shop.call("POST", "/product").with_user(&admin).json(&dollars).send().await.expect(201);
    let ada = shop.customer("ada@example.com").await;
    shop.add(&ada, &tea, 1).await;
    let credentials = json!({ "email": "ada@example.com", "password": PASSWORD });
    let sign_in = |guest: &TestUser| shop.call("POST", "/signin").with_user(guest).json(&credentials).send();
    let quantities = async |user: &TestUser| {
        let cart = shop.read(user, &format!("/user/{}/cart", user.id)).await;
        let items = cart["items"].as_array().unwrap().clone();
        items
            .iter()
            .map(|item| (item["name"].as_str().unwrap().to_owned(), item["quantity"].as_i64().unwrap()))
            .collect()
    };
    let line = |name: &str, quantity: i64| (name.to_owned(), quantity);

    let guest = shop.guest().await;
    shop.add(&guest, &cup, 2).await;
    shop.add(&guest, &tea, 3).await;
    assert_eq!(sign_in(&guest).await.expect(200).get("cart_left"), None);
    let merged: Vec<(String, i64)> = quantities(&ada).await;
    assert_eq!(merged, [line("Thing TEA", 4), line("Thing CUP", 2)]);
    // Again: nothing is left to move.
    sign_in(&guest).await.expect(200);
    assert_eq!(quantities(&ada).await, merged);
    assert_eq!(quantities(&guest).await, []);

    // Another currency stays, and is named; so does everything while an order awaits its payment.
    let other = shop.guest().await;
    shop.add(&other, mug["id"].as_str().unwrap(), 1).await;
    assert_eq!(sign_in(&other).await.expect(200)["cart_left"], json!(["Mug"]));
    assert_eq!((quantities(&ada).await, quantities(&other).await), (merged.clone(), vec![line("Mug", 1)]));
    shop.check_out(&ada, "order").await.expect(201);
    let late = shop.guest().await;
    shop.add(&late, &cup, 1).await;
    assert_eq!(sign_in(&late).await.expect(200)["cart_left"], json!(["Thing CUP"]));
    let buying = shop.guest().await;
    shop.add(&buying, &cup, 1).await;
    shop.check_out(&buying, "order").await.expect(201);
    assert_eq!(sign_in(&buying).await.expect(200).get("cart_left"), None);
    assert_eq!(quantities(&buying).await, [line("Thing CUP", 1)]);

    // A wrong password moves nothing.
    let wrong = json!({ "email": "ada@example.com", "password": "wrong password" });
    shop.call("POST", "/signin").with_user(&late).json(&wrong).send().await.expect(401);
    assert_eq!(quantities(&late).await, [line("Thing CUP", 1)]);
}
