//! The address book of a user.

use serde_json::json;

use crate::support::{TestShop, paris};

#[actix_web::test]
async fn address_book_from_first_to_last_address() {
    let shop = TestShop::open().await;
    let ada = shop.customer("ada@example.com").await;
    let book = format!("/user/{}/addresses", ada.id);
    let saved = shop.call("POST", &book).with_user(&ada).json(&paris()).send().await;
    let first = saved.expect(201);
    let path = format!("{book}/{}", first["id"].as_str().unwrap());
    assert_eq!(saved.header("location"), Some(format!("/api/v1{path}").as_str()));
    assert_eq!((&first["postal_code"], &first["country"]), (&json!("75001"), &json!("FR")));

    let read = shop.call("GET", &path).with_user(&ada).send().await;
    assert_eq!(read.expect(200), first);
    let tag = read.header("etag").unwrap().to_owned();
    let mut moved = first.clone();
    moved["line1"] = json!("  2 rue de Rivoli ");
    moved["company"] = json!("");
    let put = |tag: &str| shop.call("PUT", &path).with_user(&ada).header("If-Match", tag).json(&moved).send();
    let changed = put(&tag).await.expect(200);
    assert_eq!((&changed["line1"], changed.get("company")), (&json!("2 rue de Rivoli"), None));
    put(&tag).await.expect_problem(412, "precondition_failed");

    let second = shop.call("POST", &book).with_user(&ada).json(&paris()).send().await.expect(201);
    let page = shop.read(&ada, &format!("{book}?limit=1")).await;
    assert_eq!(page["items"], json!([second]));
    let rest = shop.read(&ada, &format!("{book}?limit=1&cursor={}", page["next"].as_str().unwrap())).await;
    assert_eq!((&rest["items"], &rest["next"]), (&json!([changed]), &json!(null)));

    shop.call("DELETE", &path).with_user(&ada).send().await.expect(204);
    shop.call("GET", &path).with_user(&ada).send().await.expect_problem(404, "address_not_found");
    assert_eq!(shop.read(&ada, &book).await["items"], json!([second]));
}

#[actix_web::test]
async fn addresses_are_checked_by_the_rules_of_their_country() {
    let shop = TestShop::open().await;
    let ada = shop.customer("ada@example.com").await;
    let book = format!("/user/{}/addresses", ada.id);
    let cases = [
        (json!({ "postal_code": "7500" }), "postal_code", "invalid"),
        (json!({ "postal_code": "" }), "postal_code", "required"),
        (json!({ "city": " " }), "city", "required"),
        (json!({ "name": "" }), "name", "required"),
        (json!({ "country": "US", "postal_code": "95014" }), "region", "required"),
        (json!({ "vat_id": "1" }), "vat_id", "invalid"),
        (json!({ "line2": "a\u{0}b" }), "line2", "invalid"),
        (json!({ "line1": "x".repeat(201) }), "line1", "too_long"),
    ];
    for (change, field, code) in cases {
        let mut address = paris();
        address.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let problem = shop.call("POST", &book).with_user(&ada).json(&address).send().await;
        let problem = problem.expect_problem(422, "validation_failed");
        assert_eq!((&problem["errors"][0]["field"], &problem["errors"][0]["code"]), (&json!(field), &json!(code)));
    }
    let mut address = paris();
    address["country"] = json!("France");
    shop.call("POST", &book).with_user(&ada).json(&address).send().await.expect_problem(422, "validation_failed");
    assert_eq!(shop.read(&ada, &book).await["items"], json!([]));
    let countries = shop.read(&ada, "/countries").await;
    let france = countries["items"].as_array().unwrap().iter().find(|one| one["code"] == "FR").unwrap().clone();
    assert_eq!((&france["postal_code_required"], &france["postal_code_first"]), (&json!(true), &json!(true)));
}

#[actix_web::test]
async fn address_book_has_a_limit_and_ends_with_its_user() {
    let shop = TestShop::open().await;
    let admin = shop.admin().await;
    let ada = shop.customer("ada@example.com").await;
    let book = format!("/user/{}/addresses", ada.id);
    let save = || shop.call("POST", &book).with_user(&ada).json(&paris()).send();
    let results = futures_util::future::join_all((0..55).map(|_| save())).await;
    assert_eq!(results.iter().filter(|result| result.status.as_u16() == 201).count(), 50);
    save().await.expect_problem(409, "too_many_addresses");
    shop.call("DELETE", &format!("/user/{}", ada.id)).with_user(&admin).send().await.expect(204);
    save().await.expect(401);
}
