//! `mercat check`, `mercat backup`, `mercat restore`: from outside, beside a running shop.

use crate::support::{Place, Serving};

/// Changes a database behind the shop's back.
fn meddle(place: &Place, domain: &str, sql: &str) {
    let file = place.path(&format!("data/{domain}.db"));
    let mut conn = mercat::store::Conn::establish(file.to_str().unwrap()).unwrap();
    conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap();
}

fn product(place: &Place, sku: &str) {
    place.write("x.csv", format!("name,sku,price,stock\nThing,{sku},1.00,5\n"));
    place.run(&["import", "products", "x.csv"]).well();
}

#[test]
fn a_demo_shop_has_sound_books_running_or_not_and_a_broken_one_is_told_with_code_1() {
    let place = Place::new();
    place.run(&["check"]).failed(2, &["no shop"]);
    let shop = Serving::start(&place, &[]);
    let beside = place.run(&["check"]).well();
    assert!(beside.out.contains("all books agree") && beside.out.contains("64 products"), "{beside:?}");
    meddle(
        &place,
        "catalog",
        "UPDATE product SET stock = stock + 1 WHERE sku = (SELECT MIN(sku) FROM product WHERE stock > 3)",
    );
    let found = place.run(&["check"]);
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.out.contains("FAULT catalog: a product's stock is not the sum of its moves"), "{found:?}");
    assert!(found.out.lines().count() == 2 && found.out.contains("1 fault; looked at"), "{found:?}");
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    assert_eq!(place.run(&["check"]).code, 1);
    meddle(
        &place,
        "catalog",
        "UPDATE product SET stock = stock - 1 WHERE stock > 3 AND sku = (SELECT MIN(sku) FROM product WHERE stock > 3)",
    );
    place.run(&["check"]).well();
    place.write("data/catalog.db", "this is no database ".repeat(1_000));
    for name in ["data/catalog.db-wal", "data/catalog.db-shm"] {
        let _ = std::fs::remove_file(place.path(name));
    }
    place.run(&["check"]).failed(2, &["catalog"]);
}

#[test]
fn a_running_shop_is_backed_up_and_the_way_back_asks_before_it_loses_anything() {
    let place = Place::new();
    place.run(&["backup", "copy"]).failed(2, &["no shop"]);
    let shop = Serving::start(&place, &["--no-demo"]);
    product(&place, "kept");
    let taken = place.run(&["backup", "copy"]).well();
    assert!(taken.out.contains("9 files"), "{taken:?}");
    place.run(&["backup", "copy"]).failed(2, &["not empty"]);
    place.run(&["restore", "nowhere", "--data", "other"]).failed(2, &["nowhere", "no whole backup"]);
    product(&place, "later");
    place.run(&["restore", "copy"]).failed(2, &["another mercat"]);
    shop.signal("TERM");
    assert_eq!(shop.end().0, Some(0));
    place.run(&["restore", "copy"]).failed(1, &["would be lost", "--force"]);
    place.run(&["check"]).well();
    place.run(&["restore", "copy", "--force"]).well();
    place.run(&["check"]).well();
    let shop = Serving::start(&place, &[]);
    let list = shop.get("/api/v1/products/");
    assert!(list.contains("\"sku\":\"kept\"") && !list.contains("\"sku\":\"later\""), "{list}");
    // Into another folder it needs no force; what was damaged is mended by it.
    place.run(&["restore", "copy", "--data", "other"]).well();
    place.write("other/users.db", "this is no database ".repeat(1_000));
    place.run(&["check", "--data", "other"]).failed(2, &["users"]);
    place.run(&["restore", "copy", "--data", "other", "--force"]).well();
    place.run(&["check", "--data", "other"]).well();
}
