//! The catalog's promises, through its messages, on a real database file.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::store::search;
use super::store::stock::misbooked;
use super::*;
use crate::contract::payments::{Invoice, InvoiceStatus};
use crate::events::{Relay, Subscriber};
use crate::messaging::{
    Client, CommonError, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Request, RequestContext,
};
use crate::settings::Settings;
use crate::store::Store;
use crate::types::{Clock, Currency, EventId, HoldId, InvoiceId, PageRequest, ProductId, Timestamp, UserId};

struct Shop {
    client: Client<CatalogActor>,
    store: Store,
    clock: Clock,
    dir: Arc<TempDir>,
}

fn open() -> Shop {
    open_in(Arc::new(TempDir::new().unwrap()), Clock::system())
}

fn open_in(dir: Arc<TempDir>, clock: Clock) -> Shop {
    let ground = DomainRuntime::new(Settings::for_test(dir.path()), clock.clone());
    let RunningDomain { client, store } = super::open(&ground).unwrap();
    // Its threads end with the test's process.
    std::mem::forget(ground);
    Shop { client, store, clock, dir }
}

fn new(sku: &str) -> NewProduct {
    serde_json::from_value(json!({
        "name": format!("Product {sku}"), "sku": sku, "price": 1000, "currency": "EUR", "stock": 10,
    }))
    .unwrap()
}

/// The product with these fields.
fn of(fields: Value) -> NewProduct {
    let mut product = json!({ "name": "Thing", "sku": "T", "price": 1000, "currency": "EUR", "stock": 10 });
    for (key, value) in fields.as_object().unwrap() {
        product[key] = value.clone();
    }
    serde_json::from_value(product).unwrap()
}

impl Shop {
    async fn ask<R: Request>(&self, request: R) -> Result<R::Reply, R::Error>
    where
        CatalogActor: actix::Handler<crate::messaging::Envelope<R>>,
    {
        self.client.call(RequestContext::internal("test").with_timeout(Duration::from_secs(60)), request).await
    }

    async fn put(&self, product: NewProduct) -> Product {
        self.ask(CreateProduct { product }).await.unwrap()
    }

    async fn get(&self, product_id: ProductId) -> Product {
        self.ask(GetProduct { product_id }).await.unwrap()
    }

    async fn stock(&self, product_id: ProductId) -> i64 {
        let offers = self.ask(GetOffers { product_ids: vec![product_id] }).await.unwrap();
        let shown = self.get(product_id).await.stock;
        assert_eq!(offers[0].stock, shown, "memory and database differ");
        shown
    }

    async fn patch(&self, product_id: ProductId, patch: Value) -> Result<Product, CatalogError> {
        self.ask(UpdateProduct { product_id, patch: serde_json::from_value(patch).unwrap() }).await
    }

    async fn list(&self, query: Value) -> ProductPage {
        self.ask(serde_json::from_value::<ListProducts>(query).unwrap()).await.unwrap()
    }

    async fn skus(&self, query: Value) -> Vec<String> {
        self.list(query).await.items.iter().map(|product| product.sku.clone()).collect()
    }

    async fn hold(&self, hold: HoldId, lines: &[(ProductId, i64)]) -> Result<StockHold, CatalogError> {
        let lines = lines.iter().map(|&(product_id, quantity)| HoldLine { product_id, quantity }).collect();
        let expires_at = self.clock.now().plus(Duration::from_secs(600));
        self.ask(HoldStock { hold, lines, expires_at }).await
    }

    async fn tell<E: Event>(&self, event: &E) {
        let event = EventEnvelope {
            id: EventId::new(),
            name: E::NAME.to_owned(),
            at: self.clock.now(),
            data: serde_json::to_value(event).unwrap(),
            trace: None,
        };
        // Twice: what is delivered at least once must have its effect once.
        self.ask(DeliverEvents { events: vec![event.clone()] }).await.unwrap();
        self.ask(DeliverEvents { events: vec![event] }).await.unwrap();
    }

    async fn pay(&self, hold: HoldId) {
        let paid = InvoicePaid { invoice: invoice(), hold: Some(hold), checkout: None, imported: false };
        self.tell(&paid).await;
    }

    async fn refund(&self, hold: HoldId, restock: bool) {
        let (invoice, hold, reason) = (invoice(), Some(hold), "requested".to_owned());
        self.tell(&InvoiceRefunded { invoice, amount: 1, restock, lines: Vec::new(), hold, reason, imported: false })
            .await;
    }

    /// The events since the last call, by name, and what they say.
    async fn news(&self) -> Vec<(String, Value)> {
        let events = self.store.outbox_read_after("probe", 1_000).await.unwrap();
        if let Some((last, _)) = events.last() {
            self.store.outbox_advance_cursor("probe", *last).await.unwrap();
        }
        events.into_iter().map(|(_, event)| (event.name, event.data)).collect()
    }

    async fn names_of_news(&self) -> Vec<String> {
        self.news().await.into_iter().map(|(name, _)| name.trim_start_matches("catalog.").to_owned()).collect()
    }

    async fn assert_booked(&self) {
        let wrong = self.store.read(|conn| Ok::<_, CommonError>(misbooked(conn)?)).await.unwrap();
        assert_eq!(wrong, [], "the stock of these is not the sum of its moves");
    }

    /// The counts that every change keeps in step must be those that counting anew would give.
    async fn assert_counted(&self) {
        for all_variants in [false, true] {
            let known = self.list(json!({ "all_variants": all_variants })).await.facets;
            // A filter that lets everything pass is counted, not known.
            let counted = self.list(json!({ "all_variants": all_variants, "min_price": 0 })).await.facets;
            assert_eq!(known, counted);
        }
    }
}

fn invoice() -> Invoice {
    let now = Timestamp::from_micros(0);
    Invoice {
        id: InvoiceId::new(),
        number: "INV-000001".to_owned(),
        user_id: UserId::new(),
        status: InvoiceStatus::Paid,
        lines: Vec::new(),
        total: 1,
        refunded: 0,
        currency: Currency::EUR,
        email: None,
        processing: false,
        created_at: now,
        expires_at: now,
        paid_at: Some(now),
    }
}

fn wrong_fields<T: std::fmt::Debug>(answer: Result<T, CatalogError>) -> Vec<String> {
    match answer {
        Err(CatalogError::Common(CommonError::ValidationFailed { errors })) => {
            errors.into_iter().map(|error| error.field.into_owned()).collect()
        }
        other => panic!("not refused for its fields: {other:?}"),
    }
}

#[actix::test]
async fn a_product_is_shown_as_it_was_made_and_its_sku_is_its_own() {
    let shop = open();
    let made = shop
        .put(of(json!({
            "name": " Teapot ", "sku": "TEA-1", "description": "For two.\nOr three.", "compare_at_price": 1500,
            "category": "Kitchen", "tags": ["tea", " tea", "gift"], "attributes": { "Material": "Stoneware" },
        })))
        .await;
    assert_eq!((made.name.as_str(), made.tags.len(), made.deleted), ("Teapot", 2, false));
    assert!(made.slug.starts_with("teapot-") && made.slug.len() == "teapot-".len() + 4, "{}", made.slug);
    assert_eq!(shop.get(made.id).await, made);
    let again = shop.ask(CreateProduct { product: new("TEA-1") }).await;
    assert_eq!(again.unwrap_err(), CatalogError::SkuTaken);
    shop.ask(DeleteProduct { product_id: made.id }).await.unwrap();
    let again = shop.ask(CreateProduct { product: new("TEA-1") }).await;
    assert_eq!(again.unwrap_err(), CatalogError::SkuTaken, "a sku outlives its product");
    let other = shop.put(new("B")).await;
    assert_eq!(shop.patch(other.id, json!({ "sku": "TEA-1" })).await.unwrap_err(), CatalogError::SkuTaken);
}

#[actix::test]
async fn everything_wrong_with_a_product_is_said_at_once() {
    let shop = open();
    let product = of(json!({
        "name": "", "sku": "a b", "price": -1, "stock": -1, "compare_at_price": -5, "category": " ",
        "tags": ["ok", ""], "attributes": { "": "x" }, "group": "", "options": { "Size": "" },
        "description": "x".repeat(20_001),
    }));
    let wrong = wrong_fields(shop.ask(CreateProduct { product }).await);
    let expected = [
        "name",
        "sku",
        "description",
        "price",
        "stock",
        "compare_at_price",
        "category",
        "group",
        "tags.1",
        "attributes",
        "options.Size",
    ];
    assert_eq!(wrong, expected);
    let many: Vec<String> = (0..51).map(|n| format!("tag{n}")).collect();
    assert_eq!(wrong_fields(shop.ask(CreateProduct { product: of(json!({ "tags": many })) }).await), ["tags"]);
    let product = of(json!({ "compare_at_price": 1000 }));
    assert_eq!(wrong_fields(shop.ask(CreateProduct { product }).await), ["compare_at_price"]);
}

#[actix::test]
async fn a_patch_tells_absent_from_null_and_nothing_changed_from_changed() {
    let shop = open();
    let made =
        shop.put(of(json!({ "category": "Kitchen", "tags": ["a"], "compare_at_price": 2000, "group": "G" }))).await;
    let same = shop.patch(made.id, json!({})).await.unwrap();
    assert_eq!(same, made, "an empty patch changes nothing, not even the time");
    let patched = shop.patch(made.id, json!({ "category": null, "price": 900 })).await.unwrap();
    assert_eq!((patched.category.as_deref(), patched.compare_at_price, patched.price), (None, Some(2000), 900));
    assert!(patched.updated_at > made.updated_at && patched.created_at == made.created_at);
    let patched = shop.patch(made.id, json!({ "compare_at_price": null, "group": null })).await.unwrap();
    assert_eq!((patched.compare_at_price, patched.group, patched.variants.len()), (None, None, 0));
    assert_eq!(patched.tags, ["a"]);
    assert_eq!(wrong_fields(shop.patch(made.id, json!({ "compare_at_price": 100 })).await), ["compare_at_price"]);
    let replaced = shop.ask(ReplaceProduct { product_id: made.id, product: new("T") }).await.unwrap();
    assert_eq!((replaced.tags.len(), replaced.slug), (0, made.slug), "a link outlives a new name");
    shop.assert_counted().await;
}

#[actix::test]
async fn a_deleted_product_is_out_of_the_shop_but_still_shown() {
    let shop = open();
    let made = shop.put(of(json!({ "category": "Kitchen", "tags": ["tea"] }))).await;
    shop.ask(DeleteProduct { product_id: made.id }).await.unwrap();
    assert!(shop.get(made.id).await.deleted);
    for query in [json!({}), json!({ "q": "thing" }), json!({ "tag": "tea" }), json!({ "all_variants": true })] {
        let page = shop.list(query).await;
        assert_eq!((page.items.len(), &*page.facets), (0, &Facets::default()));
    }
    let gone = CatalogError::ProductNotFound;
    assert_eq!(shop.patch(made.id, json!({ "price": 1 })).await.unwrap_err(), gone);
    let replaced = shop.ask(ReplaceProduct { product_id: made.id, product: new("T") }).await;
    assert_eq!(replaced.unwrap_err(), gone);
    assert_eq!(shop.ask(DeleteProduct { product_id: made.id }).await.unwrap_err(), gone);
    assert_eq!(shop.hold(HoldId::new(), &[(made.id, 1)]).await.unwrap_err(), gone);
    assert_eq!(shop.ask(GetProduct { product_id: ProductId::new() }).await.unwrap_err(), gone);
}

#[actix::test]
async fn a_repeated_request_under_a_key_is_answered_as_the_first_was() {
    let shop = open();
    let ctx = || RequestContext::internal("test").with_key(IdempotencyKey::own("k"));
    let first = shop.client.call(ctx(), CreateProduct { product: new("A") }).await.unwrap();
    let again = ctx();
    let second = shop.client.call(again.clone(), CreateProduct { product: new("A") }).await.unwrap();
    assert_eq!((second, again.is_replayed()), (first, true));
    let other = shop.client.call(ctx(), CreateProduct { product: new("B") }).await;
    assert_eq!(other.unwrap_err(), CatalogError::Common(CommonError::IdempotencyKeyReused));
    assert_eq!(shop.names_of_news().await, ["product_changed"]);
}

#[actix::test]
async fn search_finds_words_wherever_they_are_and_never_stumbles() {
    let shop = open();
    shop.put(of(json!({ "name": "Crème brûlée torch", "sku": "CB-77", "description": "Melts sugar." }))).await;
    shop.put(of(json!({ "name": "Sugar bowl", "sku": "SB-1", "tags": ["teatime"], "category": "Kitchen" }))).await;
    shop.put(of(json!({ "name": "Spoon", "sku": "SP-1", "description": "For the bowl." }))).await;
    shop.put(of(json!({ "name": "Plate", "sku": "PL-1", "tags": ["bowl"] }))).await;
    let cases: [(&str, &[&str]); 19] = [
        ("creme", &["CB-77"]),
        ("CRÈME", &["CB-77"]),
        ("cre\u{300}me", &["CB-77"]),
        ("\u{300}", &[]),
        ("brulee torch", &["CB-77"]),
        ("brul", &["CB-77"]),
        ("cb-77", &["CB-77"]),
        ("77", &["CB-77"]),
        ("teat", &["SB-1"]),
        ("kitchen sug", &["SB-1"]),
        ("kitc sugar", &[]),
        ("sugar", &["SB-1", "CB-77"]),
        // The name, then the tags, then the description.
        ("bowl", &["SB-1", "PL-1", "SP-1"]),
        ("nothing", &[]),
        ("\"*(", &[]),
        ("bowl OR plate", &[]),
        ("NEAR(bowl, 5) AND", &[]),
        ("name:bowl -\"' ^ {x} \\ \0", &[]),
        ("   ", &["PL-1", "SP-1", "SB-1", "CB-77"]),
    ];
    for (q, skus) in cases {
        assert_eq!(shop.skus(json!({ "q": q })).await, skus, "{q:?}");
    }
    assert_eq!(shop.skus(json!({ "q": "bowl", "sort": "name" })).await, ["PL-1", "SP-1", "SB-1"]);
    assert_eq!(shop.skus(json!({ "q": "bowl", "category": "Kitchen" })).await, ["SB-1"]);
    // What is said anew is found anew, and no longer under the old words.
    let spoon = shop.list(json!({ "q": "spoon" })).await.items[0].id;
    shop.patch(spoon, json!({ "name": "Löffel", "description": "" })).await.unwrap();
    assert_eq!(shop.skus(json!({ "q": "loffel" })).await, ["SP-1"]);
    assert_eq!(shop.skus(json!({ "q": "spoon" })).await, [""; 0]);
}

#[actix::test]
async fn lists_are_filtered_sorted_and_refuse_nonsense() {
    let shop = open();
    for (sku, name, price, stock, category, tag) in [
        ("A", "écru", 300, 5, "X", "t1"),
        ("B", "Alpha", 100, 0, "X", "t2"),
        ("C", "beta", 200, 1, "Y", "t1"),
        ("D", "fox", 200, 9, "Y", "t2"),
    ] {
        let product =
            json!({ "sku": sku, "name": name, "price": price, "stock": stock, "category": category, "tags": [tag] });
        shop.put(of(product)).await;
    }
    let cases: [(Value, &[&str]); 13] = [
        (json!({}), &["D", "C", "B", "A"]),
        (json!({ "sort": "created_at" }), &["A", "B", "C", "D"]),
        (json!({ "sort": "name" }), &["B", "C", "A", "D"]),
        (json!({ "sort": "price" }), &["B", "C", "D", "A"]),
        (json!({ "sort": "-price" }), &["A", "D", "C", "B"]),
        (json!({ "sort": "relevance" }), &["D", "C", "B", "A"]),
        (json!({ "category": "X" }), &["B", "A"]),
        (json!({ "tag": "t1", "sort": "price" }), &["C", "A"]),
        (json!({ "min_price": 200, "max_price": 250 }), &["D", "C"]),
        (json!({ "in_stock": true, "category": "X" }), &["A"]),
        (json!({ "in_stock": false }), &["B"]),
        (json!({ "limit": 1, "sort": "price" }), &["B"]),
        (json!({ "category": "x" }), &[]),
    ];
    for (query, skus) in cases {
        assert_eq!(shop.skus(query.clone()).await, skus, "{query}");
    }
    for (query, field) in [
        (json!({ "limit": 0 }), "limit"),
        (json!({ "limit": 101 }), "limit"),
        (json!({ "cursor": "nonsense" }), "cursor"),
        (json!({ "min_price": -1 }), "min_price"),
        (json!({ "min_price": 2, "max_price": 1 }), "max_price"),
        (json!({ "q": "x".repeat(201) }), "q"),
    ] {
        let answer = shop.ask(serde_json::from_value::<ListProducts>(query).unwrap()).await;
        assert_eq!(wrong_fields(answer), [field]);
    }
}

#[actix::test]
async fn a_page_goes_on_where_the_last_ended_while_the_list_grows() {
    for query in [
        json!({}),
        json!({ "sort": "created_at" }),
        json!({ "sort": "name" }),
        json!({ "sort": "price" }),
        json!({ "sort": "-price" }),
        json!({ "q": "prod" }),
        json!({ "tag": "t", "sort": "price" }),
        json!({ "category": "C", "sort": "name" }),
        json!({ "all_variants": true, "sort": "-price" }),
    ] {
        let shop = open();
        let product = |n: i64| {
            let group = (n % 5 == 0).then(|| format!("g{}", n % 10));
            let (name, price) = (format!("product {}", n * 7 % 13), n * 31 % 7);
            of(
                json!({ "sku": format!("S{n}"), "name": name, "price": price, "tags": ["t"], "category": "C", "group": group }),
            )
        };
        for n in 0..20 {
            shop.put(product(n)).await;
        }
        let with = |more: Value| {
            let mut query = query.clone();
            query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            query
        };
        let before = shop.skus(with(json!({ "limit": 100 }))).await;
        let (mut seen, mut cursor, mut n) = (Vec::new(), Value::Null, 100);
        loop {
            let page = shop.list(with(json!({ "limit": 3, "cursor": cursor }))).await;
            seen.extend(page.items.iter().map(|product| product.sku.clone()));
            let Some(next) = page.next else { break };
            cursor = serde_json::to_value(next).unwrap();
            shop.put(of(json!({ "sku": format!("N{n}"), "name": format!("product {n} new"), "price": n % 7, "tags": ["t"], "category": "C" }))).await;
            n += 1;
            assert!(n < 200, "the list has no end");
        }
        let old: Vec<&String> = seen.iter().filter(|sku| sku.starts_with('S')).collect();
        assert_eq!(old, before.iter().collect::<Vec<_>>(), "{query}: lost, doubled or in another order");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "{query}: one came twice");
        // A cursor is of one list only.
        for other in [json!({ "in_stock": true }), json!({ "q": "other" })] {
            let mut other = with(other);
            other["cursor"] = cursor.clone();
            let answer = shop.ask(serde_json::from_value::<ListProducts>(other).unwrap()).await;
            assert_eq!(wrong_fields(answer), ["cursor"]);
        }
    }
}

#[actix::test]
async fn one_stands_for_its_group_the_cheapest_that_can_be_bought() {
    let shop = open();
    let variant = |sku: &str, price: i64, stock: i64, size: &str| {
        of(
            json!({ "sku": sku, "name": "Shirt", "price": price, "stock": stock, "group": "shirt", "options": { "Size": size } }),
        )
    };
    let small = shop.put(variant("S", 300, 1, "Small")).await;
    let medium = shop.put(variant("M", 200, 1, "Medium")).await;
    let large = shop.put(variant("L", 100, 0, "Large")).await;
    shop.put(new("ALONE")).await;
    assert_eq!(shop.skus(json!({})).await, ["ALONE", "M"]);
    assert_eq!(shop.skus(json!({ "all_variants": true })).await, ["ALONE", "L", "M", "S"]);
    let shown = shop.get(small.id).await;
    assert_eq!(shown.variants.iter().map(|v| v.sku.as_str()).collect::<Vec<_>>(), ["S", "M", "L"]);
    // Another represents it where the first does not match.
    assert_eq!(shop.skus(json!({ "min_price": 250 })).await, ["ALONE", "S"]);
    assert_eq!(shop.skus(json!({ "q": "shirt large" })).await, ["L"]);
    assert_eq!(shop.skus(json!({ "q": "shirt" })).await, ["M"]);
    assert_eq!(shop.skus(json!({ "in_stock": false })).await, ["L"]);
    shop.assert_counted().await;
    // Sold out, back, cheaper, deleted, moved away: the choice follows.
    shop.hold(HoldId::new(), &[(medium.id, 1)]).await.unwrap();
    assert_eq!(shop.skus(json!({})).await, ["ALONE", "S"]);
    shop.patch(large.id, json!({ "stock": 3 })).await.unwrap();
    assert_eq!(shop.skus(json!({})).await, ["ALONE", "L"]);
    assert_eq!(shop.get(small.id).await.variants[2].stock, 3, "siblings show each other as they are");
    shop.assert_counted().await;
    shop.ask(DeleteProduct { product_id: large.id }).await.unwrap();
    assert_eq!(shop.skus(json!({})).await, ["ALONE", "S"]);
    assert_eq!(shop.get(small.id).await.variants.len(), 2);
    shop.news().await;
    shop.patch(small.id, json!({ "group": null })).await.unwrap();
    let told: Vec<Value> = shop.news().await.into_iter().map(|(_, data)| data["group"].clone()).collect();
    assert_eq!(told, [Value::Null, json!("shirt")], "those left behind are told of too");
    assert_eq!(shop.skus(json!({})).await, ["ALONE", "M", "S"]);
    assert_eq!(shop.get(medium.id).await.variants.len(), 1);
    shop.patch(medium.id, json!({ "stock": 0 })).await.unwrap();
    assert_eq!(shop.skus(json!({})).await, ["ALONE", "M", "S"], "none can be bought: the first");
    shop.assert_counted().await;
    shop.assert_booked().await;
}

#[actix::test]
async fn each_facet_leaves_its_own_filter_out() {
    let shop = open();
    for (sku, price, stock, category, tags) in [
        ("A", 100, 1, "X", vec!["t1", "t2"]),
        ("B", 200, 0, "X", vec!["t1"]),
        ("C", 300, 1, "Y", vec!["t2"]),
        ("D", 400, 1, "Y", vec![]),
    ] {
        shop.put(of(json!({ "sku": sku, "price": price, "stock": stock, "category": category, "tags": tags }))).await;
    }
    let facets = |page: ProductPage| {
        let values = |list: &[FacetValue]| -> Vec<(String, i64)> {
            list.iter().map(|facet| (facet.value.clone(), facet.count)).collect()
        };
        let f = page.facets;
        (f.total, values(&f.categories), values(&f.tags), f.min_price, f.max_price, f.in_stock)
    };
    let value = |value: &str, n: i64| (value.to_owned(), n);
    let (x2, y2) = (value("X", 2), value("Y", 2));
    let all = facets(shop.list(json!({})).await);
    let whole_tags = vec![value("t1", 2), value("t2", 2)];
    assert_eq!(all, (4, vec![x2.clone(), y2.clone()], whole_tags.clone(), Some(100), Some(400), 3));
    let in_x = facets(shop.list(json!({ "category": "X" })).await);
    assert_eq!(in_x, (2, vec![x2, y2], vec![value("t1", 2), value("t2", 1)], Some(100), Some(200), 1));
    let t1 = facets(shop.list(json!({ "tag": "t1" })).await);
    assert_eq!(t1, (2, vec![value("X", 2)], whole_tags, Some(100), Some(200), 1));
    let dear = facets(shop.list(json!({ "min_price": 300 })).await);
    assert_eq!(dear, (2, vec![value("Y", 2)], vec![value("t2", 1)], Some(100), Some(400), 2));
    let there = facets(shop.list(json!({ "in_stock": false })).await);
    assert_eq!(there, (1, vec![value("X", 1)], vec![value("t1", 1)], Some(200), Some(200), 3));
    let found = facets(shop.list(json!({ "q": "thing", "category": "Y" })).await);
    assert_eq!((found.0, found.1.len(), found.5), (2, 2, 2));
    shop.assert_counted().await;
}

#[actix::test]
async fn the_counts_of_a_large_list_are_a_second_old_at_most() {
    let shop = open();
    for part in 0..2 {
        let rows = (0..1_000).map(|n| of(json!({ "sku": format!("S{part}-{n}"), "category": "C" }))).collect();
        shop.ask(ImportProducts { rows }).await.unwrap();
    }
    let totals = || async {
        let whole = shop.list(json!({})).await.facets.total;
        (whole, shop.list(json!({ "category": "C" })).await.facets.total)
    };
    assert_eq!(totals().await, (2_000, 2_000));
    shop.put(of(json!({ "category": "C" }))).await;
    let (whole, narrowed) = totals().await;
    assert_eq!(whole, 2_001, "the whole list is counted by every change");
    assert!((2_000..=2_001).contains(&narrowed));
    shop.clock.advance(Duration::from_secs(1));
    assert_eq!(totals().await, (2_001, 2_001));
}

#[actix::test]
async fn of_seven_pieces_fifty_buyers_get_exactly_seven() {
    for (stock, quantities, sold) in [(7, vec![1], 7), (7, vec![1, 1], 3), (8, vec![2, 2], 2)] {
        let shop = open();
        let product = shop.put(of(json!({ "stock": stock }))).await;
        let lines: Vec<(ProductId, i64)> = quantities.iter().map(|&quantity| (product.id, quantity)).collect();
        let answers = join_all((0..50).map(|_| shop.hold(HoldId::new(), &lines))).await;
        let held = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(held, sold);
        let each: i64 = quantities.iter().sum();
        let left = stock - i64::try_from(sold).unwrap() * each;
        for refused in answers.into_iter().filter_map(Result::err) {
            let CatalogError::OutOfStock { product_id, left } = refused else { panic!("{refused:?}") };
            assert!(product_id == product.id && left < each);
        }
        assert_eq!(shop.stock(product.id).await, left);
        shop.assert_booked().await;
    }
}

#[actix::test]
async fn a_hold_takes_all_lines_or_none_and_is_made_once() {
    let shop = open();
    let (a, b) = (
        shop.put(of(json!({ "sku": "A", "stock": 2, "options": { "Colour": "Blue" } }))).await,
        shop.put(new("B")).await,
    );
    let refused = shop.hold(HoldId::new(), &[(b.id, 1), (a.id, 3)]).await;
    assert_eq!(refused.unwrap_err(), CatalogError::OutOfStock { product_id: a.id, left: 2 });
    assert_eq!((shop.stock(a.id).await, shop.stock(b.id).await), (2, 10));
    let unknown = shop.hold(HoldId::new(), &[(b.id, 1), (ProductId::new(), 1)]).await;
    assert_eq!(unknown.unwrap_err(), CatalogError::ProductNotFound);

    let hold = HoldId::new();
    let first = shop.hold(hold, &[(a.id, 1), (b.id, 4), (a.id, 1)]).await.unwrap();
    assert_eq!(
        first.offers.iter().map(|o| (o.name.as_str(), o.stock)).collect::<Vec<_>>(),
        [("Thing (Blue)", 0), ("Product B", 6)]
    );
    // Its stock has run out since and its price has changed: the answer stands.
    shop.patch(a.id, json!({ "price": 1 })).await.unwrap();
    let again = shop.hold(hold, &[(b.id, 4), (a.id, 2)]).await.unwrap();
    assert_eq!(again, first);
    assert_eq!((shop.stock(a.id).await, shop.stock(b.id).await), (0, 6));
    assert_eq!(wrong_fields(shop.hold(hold, &[(b.id, 5)]).await), ["hold"]);
    for (lines, field) in
        [(vec![], "lines"), (vec![(a.id, 0)], "lines.0.quantity"), (vec![(a.id, 10_001)], "lines.0.quantity")]
    {
        assert_eq!(wrong_fields(shop.hold(HoldId::new(), &lines).await), [field]);
    }
    shop.assert_booked().await;
}

#[actix::test]
async fn a_hold_is_let_go_once_and_then_gone() {
    let shop = open();
    let product = shop.put(new("A")).await;
    let hold = HoldId::new();
    shop.hold(hold, &[(product.id, 4)]).await.unwrap();
    assert_eq!(shop.stock(product.id).await, 6);
    for _ in 0..3 {
        shop.ask(ReleaseHold { hold }).await.unwrap();
        assert_eq!(shop.stock(product.id).await, 10);
    }
    assert_eq!(shop.hold(hold, &[(product.id, 4)]).await.unwrap_err(), CatalogError::HoldGone);
    // Let go before it was made: the late asking must not take anything.
    let late = HoldId::new();
    shop.ask(ReleaseHold { hold: late }).await.unwrap();
    assert_eq!(shop.hold(late, &[(product.id, 4)]).await.unwrap_err(), CatalogError::HoldGone);
    for (n, hold) in [HoldId::new(), HoldId::new()].into_iter().enumerate() {
        shop.hold(hold, &[(product.id, 4)]).await.unwrap();
        let (invoice_id, number, user_id, hold) = (InvoiceId::new(), String::new(), UserId::new(), Some(hold));
        if n == 0 {
            shop.tell(&InvoiceExpired { invoice_id, number, user_id, hold, checkout: None }).await;
        } else {
            shop.tell(&InvoiceVoided { invoice_id, number, user_id, hold, checkout: None }).await;
        }
        assert_eq!(shop.stock(product.id).await, 10);
    }
    shop.assert_booked().await;
}

#[actix::test]
async fn a_hold_that_runs_out_is_let_go_by_itself() {
    let shop = open();
    let product = shop.put(of(json!({ "stock": 1 }))).await;
    let hold = HoldId::new();
    shop.hold(hold, &[(product.id, 1)]).await.unwrap();
    shop.news().await;
    shop.clock.advance(Duration::from_secs(601));
    assert_eq!(shop.hold(hold, &[(product.id, 1)]).await.unwrap_err(), CatalogError::HoldGone);
    for _ in 0..6_000 {
        // Not `stock`, which asks twice: the timer may come in between.
        if shop.get(product.id).await.stock == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shop.stock(product.id).await, 1);
    assert_eq!(shop.names_of_news().await, ["product_changed", "back_in_stock"]);
    let past = shop.ask(HoldStock {
        hold: HoldId::new(),
        lines: vec![HoldLine { product_id: product.id, quantity: 1 }],
        expires_at: shop.clock.now(),
    });
    assert_eq!(past.await.unwrap_err(), CatalogError::HoldGone);
    shop.assert_booked().await;
}

#[actix::test]
async fn a_paid_hold_is_sold_and_comes_back_once() {
    let shop = open();
    let product = shop.put(new("A")).await;
    let hold = HoldId::new();
    shop.hold(hold, &[(product.id, 4)]).await.unwrap();
    shop.news().await;
    shop.pay(hold).await;
    shop.pay(hold).await;
    assert!(shop.news().await.is_empty(), "it was taken off the shelf when it was held");
    // Neither time nor a release touches what is sold; asking again still gives the first answer.
    shop.ask(ReleaseHold { hold }).await.unwrap();
    shop.clock.advance(Duration::from_secs(601));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(shop.stock(product.id).await, 6);
    assert!(shop.hold(hold, &[(product.id, 4)]).await.is_ok());
    shop.refund(hold, false).await;
    assert_eq!(shop.stock(product.id).await, 6, "the goods stay with the buyer");
    shop.refund(hold, true).await;
    shop.refund(hold, true).await;
    assert_eq!(shop.stock(product.id).await, 10);
    assert_eq!(shop.names_of_news().await, ["product_changed"]);
    shop.assert_booked().await;
}

#[actix::test]
async fn money_that_comes_late_gets_what_is_left_or_goes_back() {
    let shop = open();
    let product = shop.put(of(json!({ "stock": 5 }))).await;
    let (lucky, unlucky) = (HoldId::new(), HoldId::new());
    for hold in [lucky, unlucky] {
        shop.hold(hold, &[(product.id, 2)]).await.unwrap();
        shop.ask(ReleaseHold { hold }).await.unwrap();
    }
    shop.hold(HoldId::new(), &[(product.id, 2)]).await.unwrap();
    shop.news().await;
    shop.pay(lucky).await;
    assert_eq!(shop.stock(product.id).await, 1);
    assert_eq!(shop.names_of_news().await, ["product_changed"]);
    shop.pay(unlucky).await;
    assert_eq!(shop.stock(product.id).await, 1);
    let news = shop.news().await;
    assert_eq!(news.len(), 1, "{news:?}");
    assert_eq!((news[0].0.as_str(), &news[0].1["hold"]), ("catalog.sale_refused", &json!(unlucky)));
    // A refused sale has nothing to give back, a late one has.
    shop.refund(unlucky, true).await;
    assert_eq!(shop.stock(product.id).await, 1);
    shop.refund(lucky, true).await;
    assert_eq!(shop.stock(product.id).await, 3);
    // Never held at all, and an order of the past that is told for the books alone.
    shop.news().await;
    let (invoice, hold) = (invoice(), Some(HoldId::new()));
    shop.tell(&InvoicePaid { invoice: invoice.clone(), hold, checkout: None, imported: true }).await;
    shop.tell(&InvoicePaid { invoice, hold: None, checkout: None, imported: false }).await;
    assert!(shop.news().await.is_empty());
    shop.pay(HoldId::new()).await;
    assert_eq!(shop.names_of_news().await, ["sale_refused"]);
    shop.assert_booked().await;
}

#[actix::test]
async fn every_change_is_told_and_the_shelf_says_when_it_empties_and_fills() {
    let shop = open();
    let product = shop.put(of(json!({ "stock": 10 }))).await;
    assert_eq!(shop.names_of_news().await, ["product_changed"]);
    shop.patch(product.id, json!({ "price": 5 })).await.unwrap();
    assert_eq!(shop.names_of_news().await, ["product_changed"]);
    shop.patch(product.id, json!({ "price": 5 })).await.unwrap();
    assert_eq!(shop.names_of_news().await, [""; 0]);
    let hold = HoldId::new();
    shop.hold(hold, &[(product.id, 10)]).await.unwrap();
    assert_eq!(shop.names_of_news().await, ["product_changed", "low_stock"]);
    shop.ask(ReleaseHold { hold }).await.unwrap();
    assert_eq!(shop.names_of_news().await, ["product_changed", "back_in_stock"]);
    shop.tell(&RatingChanged { product_id: product.id, sum: 11, count: 3 }).await;
    assert_eq!(shop.names_of_news().await, ["product_changed"]);
    assert_eq!((shop.get(product.id).await.rating, shop.get(product.id).await.review_count), (Some(3.67), 3));
    shop.tell(&RatingChanged { product_id: ProductId::new(), sum: 11, count: 3 }).await;
    assert_eq!(shop.names_of_news().await, [""; 0]);
    let before = shop.get(product.id).await.updated_at;
    shop.ask(DeleteProduct { product_id: product.id }).await.unwrap();
    assert!(shop.get(product.id).await.updated_at > before);
    let news = shop.news().await;
    assert_eq!((news.len(), &news[0].1["deleted"]), (1, &json!(true)));
}

#[actix::test]
async fn nothing_read_is_older_than_what_was_read_or_answered_before() {
    let shop = open();
    let product = shop.put(of(json!({ "price": 0, "group": "g" }))).await;
    let sibling = shop.put(of(json!({ "sku": "U", "price": 1_000_000, "group": "g" }))).await;
    let answered = std::sync::atomic::AtomicI64::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    let write = async {
        for price in 1..=150 {
            shop.patch(product.id, json!({ "price": price })).await.unwrap();
            answered.store(price, order);
        }
        done.store(true, order);
    };
    let read = |n: usize| {
        let (shop, answered, done) = (&shop, &answered, &done);
        async move {
            let mut last = 0;
            while !done.load(order) {
                let floor = answered.load(order).max(last);
                let price = match n % 3 {
                    0 => shop.get(product.id).await.price,
                    1 => shop.get(sibling.id).await.variants[0].price,
                    _ => shop.list(json!({ "sort": "price", "all_variants": true })).await.items[0].price,
                };
                assert!(price >= floor, "reader {n} saw {price} after {floor}");
                last = price;
            }
        }
    };
    futures_util::future::join(write, join_all((0..12).map(read))).await;
    assert_eq!(shop.get(product.id).await.price, 150);
    assert_eq!(shop.get(sibling.id).await.variants[0].price, 150);
}

#[actix::test]
async fn what_another_process_changes_is_seen_within_moments() {
    let here = open();
    let there = open_in(Arc::clone(&here.dir), here.clock.clone());
    let product = here.put(of(json!({ "group": "g" }))).await;
    let sibling = here.put(of(json!({ "sku": "U", "group": "g" }))).await;
    let _relay = Relay::start(here.store.clone(), vec![Subscriber::new("catalog", SUBSCRIPTIONS, &here.client)]);
    here.list(json!({})).await;
    assert_eq!((here.get(product.id).await.price, here.get(sibling.id).await.price), (1000, 1000));
    there.patch(product.id, json!({ "price": 7 })).await.unwrap();
    let seen = || async {
        let listed = here.list(json!({})).await.items.iter().any(|item| item.price == 7);
        let variants = here.get(sibling.id).await.variants;
        here.get(product.id).await.price == 7 && listed && variants[0].price == 7
    };
    for _ in 0..6_000 {
        if seen().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still the old price after a minute");
}

#[actix::test]
async fn an_import_says_of_each_row_what_became_of_it() {
    let shop = open();
    let (kept, gone) = (shop.put(new("KEPT")).await, shop.put(of(json!({ "sku": "GONE", "stock": 0 }))).await);
    shop.ask(DeleteProduct { product_id: gone.id }).await.unwrap();
    shop.news().await;
    let rows = vec![
        of(json!({ "sku": "NEW", "tags": ["x"] })),
        of(json!({ "sku": "KEPT", "price": 77 })),
        of(json!({ "sku": "GONE", "stock": 3 })),
        of(json!({ "sku": "BAD", "price": -1, "name": "" })),
        of(json!({ "sku": "NEW", "tags": ["y"] })),
    ];
    let outcome = shop.ask(ImportProducts { rows: rows.clone() }).await.unwrap();
    let ImportOutcome::Created(created) = outcome[0] else { panic!("{outcome:?}") };
    assert_eq!(outcome[1], ImportOutcome::Updated(kept.id));
    assert_eq!(outcome[2], ImportOutcome::Updated(gone.id));
    let ImportOutcome::Refused(reason) = &outcome[3] else { panic!("{outcome:?}") };
    assert!(reason.contains("`name` must not be empty") && reason.contains("`price`"), "{reason}");
    assert_eq!(outcome[4], ImportOutcome::Updated(created));
    assert_eq!((shop.get(created).await.tags, shop.get(kept.id).await.price), (vec!["y".to_owned()], 77));
    assert!(!shop.get(gone.id).await.deleted);
    assert!(shop.names_of_news().await.contains(&"back_in_stock".to_owned()));
    // Again: the same, and nothing new to tell but the row that goes there and back.
    let again = shop.ask(ImportProducts { rows }).await.unwrap();
    assert_eq!(again[0], ImportOutcome::Updated(created));
    assert_eq!(shop.names_of_news().await.len(), 2);
    let many = vec![new("A"); 1_001];
    assert_eq!(wrong_fields(shop.ask(ImportProducts { rows: many }).await), ["rows"]);
    shop.assert_counted().await;
    shop.assert_booked().await;
}

#[actix::test]
async fn an_export_gives_everything_for_sale_once_in_the_form_of_an_import() {
    let shop = open();
    let rows: Vec<NewProduct> = (0..1_000).map(|n| new(&format!("S{n:04}"))).collect();
    shop.ask(ImportProducts { rows: rows.clone() }).await.unwrap();
    let extra =
        shop.put(of(json!({ "category": "Kitchen", "tags": ["a"], "attributes": { "K": "V" }, "group": "g" }))).await;
    let gone = shop.put(new("GONE")).await;
    shop.ask(DeleteProduct { product_id: gone.id }).await.unwrap();
    let (mut exported, mut after, mut parts) = (Vec::new(), None, 0);
    loop {
        let part = shop.ask(ExportProducts { after }).await.unwrap();
        exported.extend(part.rows);
        parts += 1;
        after = part.next;
        if after.is_none() {
            break;
        }
    }
    let last = exported.pop().unwrap();
    assert_eq!((parts, exported == rows), (3, true));
    assert_eq!((last.sku, last.group, last.attributes), (extra.sku, extra.group, extra.attributes));
}

fn picture(width: u32, height: u32) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
    pixels.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

#[actix::test]
async fn pictures_are_kept_in_several_sizes_and_shown_with_their_product() {
    let shop = open();
    let product = shop.put(of(json!({ "name": "Teapot" }))).await;
    let add = |alt: &str, data: Vec<u8>| AddImage { product_id: product.id, alt: alt.to_owned(), data };
    let ctx = || {
        RequestContext::internal("test").with_timeout(Duration::from_secs(60)).with_key(IdempotencyKey::own("upload"))
    };
    let (file, again) = (picture(900, 600), ctx());
    let first = shop.client.call(ctx(), add("", file.clone())).await.unwrap();
    assert_eq!(shop.client.call(again.clone(), add("", file.clone())).await.unwrap(), first);
    assert!(again.is_replayed(), "one upload, one picture");
    assert_eq!(first.alt, "Teapot");
    assert_eq!(first.url, format!("/api/v1/product/{}/images/{}", product.id, first.id));
    let second = shop.ask(add("From above", picture(40, 40))).await.unwrap();
    assert_eq!(shop.get(product.id).await.images, [first.clone(), second.clone()]);
    assert_eq!(shop.ask(ListImages { product_id: product.id }).await.unwrap(), [first.clone(), second.clone()]);
    assert!(shop.get(product.id).await.updated_at > product.updated_at);

    let get = |width| GetImage { product_id: product.id, image_id: first.id, width };
    let largest = shop.ask(get(None)).await.unwrap();
    let shown = image::load_from_memory(&largest.data).unwrap();
    assert_eq!((shown.width(), shown.height()), (first.width, first.height));
    let smallest = first.sizes.first().expect("a picture of 900 pixels has smaller sizes");
    assert_eq!(smallest.url, format!("{}?width={}", first.url, smallest.width));
    let small = image::load_from_memory(&shop.ask(get(Some(smallest.width))).await.unwrap().data).unwrap();
    assert_eq!((small.width(), small.height()), (smallest.width, smallest.height));
    assert_eq!(shop.ask(get(Some(7))).await.unwrap_err(), CatalogError::ImageNotFound);
    let offers = shop.ask(GetOffers { product_ids: vec![product.id, ProductId::new(), product.id] }).await.unwrap();
    assert_eq!((offers.len(), offers[0].image.as_ref()), (1, Some(&smallest.url)));

    let other = shop.put(new("B")).await;
    let foreign = DeleteImage { product_id: other.id, image_id: first.id };
    assert_eq!(shop.ask(foreign).await.unwrap_err(), CatalogError::ImageNotFound);
    shop.ask(DeleteImage { product_id: product.id, image_id: first.id }).await.unwrap();
    assert_eq!(shop.get(product.id).await.images, [second]);
    assert_eq!(shop.ask(get(None)).await.unwrap_err(), CatalogError::ImageNotFound);
}

#[actix::test]
async fn a_file_that_is_no_picture_or_one_too_many_is_refused() {
    let shop = open();
    let product = shop.put(new("A")).await;
    let add = |data: Vec<u8>| AddImage { product_id: product.id, alt: String::new(), data };
    let refused = shop.ask(add(b"not a picture".to_vec())).await.unwrap_err();
    assert!(matches!(refused, CatalogError::UnsupportedImage { .. }), "{refused:?}");
    let max = Settings::for_test(shop.dir.path()).catalog.image_bytes_max;
    let refused = shop.ask(add(vec![0; max + 1])).await.unwrap_err();
    assert!(matches!(refused, CatalogError::ImageTooLarge { .. }), "{refused:?}");
    let unknown = AddImage { product_id: ProductId::new(), alt: String::new(), data: picture(8, 8) };
    assert_eq!(shop.ask(unknown).await.unwrap_err(), CatalogError::ProductNotFound);
    let answers = join_all((0..25).map(|_| shop.ask(add(picture(8, 8))))).await;
    let (added, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!(added.len(), 20);
    assert!(refused.into_iter().all(|answer| answer == Err(CatalogError::TooManyImages { max: 20 })));
}

#[actix::test]
async fn memory_of_any_size_serves_the_same() {
    let dir = Arc::new(TempDir::new().unwrap());
    let mut settings = Settings::for_test(dir.path());
    settings.catalog.cache_max = 0;
    let ground = DomainRuntime::new(settings, Clock::system());
    let RunningDomain { client, store } = super::open(&ground).unwrap();
    let shop = Shop { client, store, clock: ground.clock.clone(), dir };
    let product = shop.put(new("A")).await;
    assert_eq!(shop.get(product.id).await, product);
    shop.patch(product.id, json!({ "price": 1 })).await.unwrap();
    assert_eq!(shop.get(product.id).await.price, 1);
}

#[actix::test]
async fn a_page_of_a_list_walks_its_index_and_sorts_nothing() {
    if crate::store::tested_on_server() {
        return;
    }
    let shop = open();
    for n in 0..3 {
        shop.put(of(json!({ "sku": format!("S{n}"), "category": "C", "group": "g" }))).await;
        shop.put(of(json!({ "sku": format!("T{n}"), "category": "C" }))).await;
    }
    for sort in ["name", "price", "-price", "created_at", "-created_at"] {
        for (filter, scope) in [
            (json!({}), "lead"),
            (json!({ "all_variants": true }), "all"),
            (json!({ "category": "C" }), "category"),
            (json!({ "in_stock": true }), "all"),
        ] {
            let mut query = filter.clone();
            query["sort"] = json!(sort);
            let query = model::tidy_query(serde_json::from_value(query).unwrap()).unwrap();
            let (first, place) = shop
                .store
                .read({
                    let query = query.clone();
                    move |conn| {
                        let (_, next) = search::page(conn, &query, 1, None)?;
                        let place = search::PageStart::open(&PageRequest { limit: None, cursor: next }, &query)?;
                        Ok::<_, CatalogError>((search::plan(conn, &query, None)?, place))
                    }
                })
                .await
                .unwrap();
            assert!(place.is_some());
            let next = shop
                .store
                .read(move |conn| Ok::<_, CommonError>(search::plan(conn, &query, place.as_ref())?))
                .await
                .unwrap();
            for plan in [&first, &next] {
                let index = format!("INDEX product_{scope}_{}", sort.trim_start_matches('-').trim_end_matches("_at"));
                assert!(plan[0].contains(&index), "{filter} {sort}: {plan:?}");
                assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{filter} {sort}: {plan:?}");
            }
            // The next page starts where it starts, instead of reading all that came before.
            assert!(next[0].starts_with("SEARCH") && next[0].contains('<') | next[0].contains('>'), "{sort}: {next:?}");
        }
    }
}

/// Prints how long lists and searches take, each query asked for the first time: nothing from memory.
/// `MERCAT_MEASURE` says of how many products.
#[actix::test]
#[ignore = "a measurement"]
async fn measure_lists() {
    let shop = open();
    let n: usize = std::env::var("MERCAT_MEASURE").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let words = ["tea", "pot", "blue", "large", "stone", "glass", "spoon", "plate", "bowl", "cup"];
    let word = |n: usize| words[n % words.len()];
    let begin = std::time::Instant::now();
    for part in 0..n.div_ceil(1_000) {
        let rows = (part * 1_000..(part + 1) * 1_000).map(|i| {
            of(json!({
                "sku": format!("S{i}"), "name": format!("{} {} number{i}", word(i), word(i / 10)), "price": 100 + i * 7919 % 10_000,
                "stock": i % 11, "category": format!("C{}", i % 20), "tags": [word(i / 3), format!("t{}", i % 500)],
                "description": format!("A {} for every {} day, made of {}.", word(i / 7), word(i / 11), word(i / 13)),
                "group": (i % 3 == 0).then(|| format!("g{}", i / 9)), "options": { "No": (i % 9).to_string() },
            }))
        });
        shop.ask(ImportProducts { rows: rows.collect() }).await.unwrap();
    }
    println!("{n} products imported in {:?}", begin.elapsed());
    for query in [
        json!({}),
        json!({ "sort": "name" }),
        json!({ "sort": "price", "all_variants": true }),
        json!({ "category": "C7" }),
        json!({ "category": "C7", "sort": "-price" }),
        json!({ "tag": "tea" }),
        json!({ "tag": "t77", "sort": "name" }),
        json!({ "min_price": 500, "max_price": 520 }),
        json!({ "in_stock": true }),
        json!({ "q": "number77" }),
        json!({ "q": "teapot" }),
        json!({ "q": "tea" }),
        json!({ "q": "tea pot blu" }),
        json!({ "q": "tea", "category": "C7", "in_stock": true }),
    ] {
        let mut times = Vec::new();
        let mut total = 0;
        for round in 0..7 {
            let mut query = query.clone();
            // Another limit is another page, and a change makes the counts and pages of before old.
            query["limit"] = json!(20 + round);
            let begin = std::time::Instant::now();
            total = shop.list(query).await.facets.total;
            times.push(begin.elapsed());
            shop.clock.advance(Duration::from_secs(2));
        }
        times.sort_unstable();
        println!("{:>9.3} ms, {total:>6} items: {query}", times[3].as_secs_f64() * 1e3);
    }
    let begin = std::time::Instant::now();
    for _ in 0..1_000 {
        shop.list(json!({ "q": "tea" })).await;
    }
    println!("{:>9.3} ms from memory", begin.elapsed().as_secs_f64());
    let products: Vec<ProductId> =
        shop.list(json!({ "in_stock": true, "limit": 100 })).await.items.iter().map(|p| p.id).collect();
    for id in &products {
        shop.patch(*id, json!({ "stock": 1_000_000 })).await.unwrap();
    }
    let (begin, buyers, each) = (std::time::Instant::now(), 64, 30);
    let buy = |buyer: usize| {
        let (shop, products) = (&shop, &products);
        async move {
            for n in 0..each {
                let product = |step: usize| products[(buyer * 7 + n * step) % products.len()];
                shop.hold(HoldId::new(), &[(product(3), 1), (product(5), 2)]).await.unwrap();
            }
        }
    };
    join_all((0..buyers).map(buy)).await;
    let rate = (buyers * each) as f64 / begin.elapsed().as_secs_f64();
    println!("{rate:>9.0} holds of two lines a second, {buyers} buyers at once");
}
