//! Tests of the catalog through its messages, on a real database.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::store::search;
use super::store::stock::ledger_mismatches;
use super::*;
use crate::contract::comments::RatingChanged;
use crate::contract::payments::{Invoice, InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceStatus, InvoiceVoided};
use crate::events::{Relay, Subscriber};
use crate::messaging::{
    Client, CommonError, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Request, RequestContext,
};
use crate::settings::Settings;
use crate::store::Store;
use crate::store::query::*;
use crate::types::{Clock, Currency, EventId, HoldId, InvoiceId, PageRequest, ProductId, Timestamp, UserId};

/// The running domain on a temporary folder.
struct TestCatalog {
    client: Client<CatalogActor>,
    store: Store,
    clock: Clock,
    dir: Arc<TempDir>,
}

fn open() -> TestCatalog {
    open_in(Arc::new(TempDir::new().unwrap()), Clock::system())
}

fn open_in(dir: Arc<TempDir>, clock: Clock) -> TestCatalog {
    let runtime = DomainRuntime::new(Settings::for_test(dir.path()), clock.clone());
    let RunningDomain { client, store } = super::open(&runtime).unwrap();
    // Its threads end with the test process.
    std::mem::forget(runtime);
    TestCatalog { client, store, clock, dir }
}

/// A valid product with this SKU.
fn simple_product(sku: &str) -> NewProduct {
    serde_json::from_value(json!({
        "name": format!("Product {sku}"), "sku": sku, "price": 1000, "currency": "EUR", "stock": 10,
    }))
    .unwrap()
}

/// A product with the given fields, others by default.
fn product_with(fields: Value) -> NewProduct {
    let mut product = json!({ "name": "Thing", "sku": "T", "price": 1000, "currency": "EUR", "stock": 10 });
    for (key, value) in fields.as_object().unwrap() {
        product[key] = value.clone();
    }
    serde_json::from_value(product).unwrap()
}

/// The import of whole products.
fn import(rows: Vec<NewProduct>) -> ImportProducts {
    ImportProducts { rows: rows.into_iter().map(Into::into).collect(), overwrite: true, dry_run: false }
}

/// A row of a file with these fields.
fn row_with(source_key: Option<&str>, fields: Value) -> ImportRow {
    let defaults = ProductPatch { currency: Some(Currency::EUR), ..ProductPatch::default() };
    ImportRow {
        source_key: source_key.map(str::to_owned),
        fields: serde_json::from_value(fields).unwrap(),
        defaults,
        withdrawn: false,
    }
}

impl TestCatalog {
    async fn import_rows(&self, rows: Vec<ImportRow>) -> Vec<ImportOutcome> {
        self.send(ImportProducts { rows, overwrite: false, dry_run: false }).await.unwrap()
    }

    async fn send<R: Request>(&self, request: R) -> Result<R::Reply, R::Error>
    where
        CatalogActor: actix::Handler<crate::messaging::Envelope<R>>,
    {
        self.client.call(RequestContext::internal("test").with_timeout(Duration::from_secs(60)), request).await
    }

    async fn create(&self, product: NewProduct) -> Product {
        self.send(CreateProduct { product }).await.unwrap()
    }

    async fn get(&self, product_id: ProductId) -> Product {
        self.send(GetProduct { product_id }).await.unwrap()
    }

    async fn stock(&self, product_id: ProductId) -> i64 {
        let offers = self.send(GetOffers { product_ids: vec![product_id] }).await.unwrap();
        let shown = self.get(product_id).await.stock;
        assert_eq!(offers[0].stock, shown, "memory and database differ");
        shown
    }

    async fn patch(&self, product_id: ProductId, patch: Value) -> Result<Product, CatalogError> {
        self.send(UpdateProduct { product_id, patch: serde_json::from_value(patch).unwrap() }).await
    }

    async fn list(&self, query: Value) -> ProductPage {
        self.send(serde_json::from_value::<ListProducts>(query).unwrap()).await.unwrap()
    }

    async fn skus(&self, query: Value) -> Vec<String> {
        self.list(query).await.items.iter().map(|product| product.sku.clone()).collect()
    }

    async fn hold(&self, hold: HoldId, lines: &[(ProductId, i64)]) -> Result<StockHold, CatalogError> {
        let lines = lines.iter().map(|&(product_id, quantity)| HoldLine { product_id, quantity }).collect();
        let expires_at = self.clock.now().saturating_add(Duration::from_secs(600));
        self.send(HoldStock { hold, lines, expires_at }).await
    }

    async fn deliver<E: Event>(&self, event: &E) {
        let event = EventEnvelope {
            id: EventId::new(),
            name: E::NAME.to_owned(),
            at: self.clock.now(),
            data: serde_json::to_value(event).unwrap(),
            trace: None,
        };
        // Twice: delivery is at least once, the effect must be once.
        self.send(DeliverEvents { events: vec![event.clone()] }).await.unwrap();
        self.send(DeliverEvents { events: vec![event] }).await.unwrap();
    }

    async fn pay(&self, hold: HoldId) {
        let paid = InvoicePaid { invoice: invoice(), hold: Some(hold), checkout: None, imported: false };
        self.deliver(&paid).await;
    }

    async fn refund(&self, hold: HoldId, restock: bool) {
        let (invoice, hold, reason) = (invoice(), Some(hold), "requested".to_owned());
        self.deliver(&InvoiceRefunded {
            invoice,
            amount: 1,
            restock,
            lines: Vec::new(),
            hold,
            reason,
            imported: false,
        })
        .await;
    }

    /// Names and data of the events since the last call.
    async fn new_events(&self) -> Vec<(String, Value)> {
        let events = self.store.outbox_read_after("probe", 1_000).await.unwrap();
        if let Some((last, _)) = events.last() {
            self.store.outbox_advance_cursor("probe", *last).await.unwrap();
        }
        events.into_iter().map(|(_, event)| (event.name, event.data)).collect()
    }

    async fn event_names(&self) -> Vec<String> {
        self.new_events().await.into_iter().map(|(name, _)| name.trim_start_matches("catalog.").to_owned()).collect()
    }

    async fn assert_ledger_consistent(&self) {
        let errors = self.store.read(|conn| Ok::<_, CommonError>(ledger_mismatches(conn)?)).await.unwrap();
        assert_eq!(errors, [], "stock is not the sum of its moves");
    }

    /// Asserts that stored facet counts equal a fresh count.
    async fn assert_facets_consistent(&self) {
        for all_variants in [false, true] {
            let known = self.list(json!({ "all_variants": all_variants })).await.facets;
            // A filter that matches everything is counted, not read from `facet_count`.
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
        refunding: 0,
        returned_late: 0,
        dispute: None,
        currency: Currency::EUR,
        shipping: None,
        tax: 0,
        tax_included: true,
        taxes: Vec::new(),
        shipping_address: None,
        billing_address: None,
        note: None,
        email: None,
        processing: false,
        created_at: now,
        expires_at: now,
        paid_at: Some(now),
    }
}

fn field_errors<T: std::fmt::Debug>(reply: Result<T, CatalogError>) -> Vec<String> {
    match reply {
        Err(CatalogError::Common(CommonError::ValidationFailed { errors })) => {
            errors.into_iter().map(|error| error.field.into_owned()).collect()
        }
        other => panic!("not rejected for its fields: {other:?}"),
    }
}

#[actix::test]
async fn created_product_reads_back_and_owns_its_sku() {
    let catalog = open();
    let made = catalog
        .create(product_with(json!({
            "name": " Teapot ", "sku": "TEA-1", "description": "For two.\nOr three.", "compare_at_price": 1500,
            "category": "Kitchen", "tags": ["tea", " tea", "gift"], "attributes": { "Material": "Stoneware" },
        })))
        .await;
    assert_eq!((made.name.as_str(), made.tags.len(), made.deleted), ("Teapot", 2, false));
    assert!(made.slug.starts_with("teapot-") && made.slug.len() == "teapot-".len() + 4, "{}", made.slug);
    assert_eq!(catalog.get(made.id).await, made);
    let again = catalog.send(CreateProduct { product: simple_product("TEA-1") }).await;
    assert_eq!(again.unwrap_err(), CatalogError::SkuTaken);
    catalog.send(DeleteProduct { product_id: made.id }).await.unwrap();
    let again = catalog.send(CreateProduct { product: simple_product("TEA-1") }).await;
    assert_eq!(again.unwrap_err(), CatalogError::SkuTaken, "a sku outlives its product");
    let other = catalog.create(simple_product("B")).await;
    assert_eq!(catalog.patch(other.id, json!({ "sku": "TEA-1" })).await.unwrap_err(), CatalogError::SkuTaken);
}

#[actix::test]
async fn invalid_product_names_every_field() {
    let catalog = open();
    let product = product_with(json!({
        "name": "", "sku": "a b", "price": -1, "stock": -1, "compare_at_price": -5, "category": " ",
        "tags": ["ok", ""], "attributes": { "": "x" }, "group": "", "options": { "Size": "" },
        "description": "x".repeat(100_001),
    }));
    let errors = field_errors(catalog.send(CreateProduct { product }).await);
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
    assert_eq!(errors, expected);
    let many: Vec<String> = (0..251).map(|n| format!("tag{n}")).collect();
    assert_eq!(
        field_errors(catalog.send(CreateProduct { product: product_with(json!({ "tags": many })) }).await),
        ["tags"]
    );
    let product = product_with(json!({ "compare_at_price": 1000 }));
    assert_eq!(field_errors(catalog.send(CreateProduct { product }).await), ["compare_at_price"]);
}

#[actix::test]
async fn patch_distinguishes_absent_and_null() {
    let catalog = open();
    let made = catalog
        .create(product_with(json!({ "category": "Kitchen", "tags": ["a"], "compare_at_price": 2000, "group": "G" })))
        .await;
    let same = catalog.patch(made.id, json!({})).await.unwrap();
    assert_eq!(same, made, "an empty patch changes nothing, not even the time");
    let patched = catalog.patch(made.id, json!({ "category": null, "price": 900 })).await.unwrap();
    assert_eq!((patched.category.as_deref(), patched.compare_at_price, patched.price), (None, Some(2000), 900));
    assert!(patched.updated_at > made.updated_at && patched.created_at == made.created_at);
    let patched = catalog.patch(made.id, json!({ "compare_at_price": null, "group": null })).await.unwrap();
    assert_eq!((patched.compare_at_price, patched.group, patched.variants.len()), (None, None, 0));
    assert_eq!(patched.tags, ["a"]);
    assert_eq!(field_errors(catalog.patch(made.id, json!({ "compare_at_price": 100 })).await), ["compare_at_price"]);
    let replaced = catalog.send(ReplaceProduct { product_id: made.id, product: simple_product("T") }).await.unwrap();
    assert_eq!((replaced.tags.len(), replaced.slug), (0, made.slug), "a link outlives a new name");
    catalog.assert_facets_consistent().await;
}

#[actix::test]
async fn deleted_product_is_readable_but_not_for_sale() {
    let catalog = open();
    let made = catalog.create(product_with(json!({ "category": "Kitchen", "tags": ["tea"] }))).await;
    catalog.send(DeleteProduct { product_id: made.id }).await.unwrap();
    assert!(catalog.get(made.id).await.deleted);
    for query in [json!({}), json!({ "q": "thing" }), json!({ "tag": "tea" }), json!({ "all_variants": true })] {
        let page = catalog.list(query).await;
        assert_eq!((page.items.len(), &*page.facets), (0, &Facets::default()));
    }
    let gone = CatalogError::ProductNotFound;
    assert_eq!(catalog.patch(made.id, json!({ "price": 1 })).await.unwrap_err(), gone);
    let replaced = catalog.send(ReplaceProduct { product_id: made.id, product: simple_product("T") }).await;
    assert_eq!(replaced.unwrap_err(), gone);
    assert_eq!(catalog.send(DeleteProduct { product_id: made.id }).await.unwrap_err(), gone);
    assert_eq!(catalog.hold(HoldId::new(), &[(made.id, 1)]).await.unwrap_err(), gone);
    assert_eq!(catalog.send(GetProduct { product_id: ProductId::new() }).await.unwrap_err(), gone);
}

#[actix::test]
async fn create_is_idempotent_by_key() {
    let catalog = open();
    let ctx = || RequestContext::internal("test").with_key(IdempotencyKey::internal("k"));
    let first = catalog.client.call(ctx(), CreateProduct { product: simple_product("A") }).await.unwrap();
    let again = ctx();
    let second = catalog.client.call(again.clone(), CreateProduct { product: simple_product("A") }).await.unwrap();
    assert_eq!((second, again.is_replayed()), (first, true));
    let other = catalog.client.call(ctx(), CreateProduct { product: simple_product("B") }).await;
    assert_eq!(other.unwrap_err(), CatalogError::Common(CommonError::IdempotencyKeyReused));
    assert_eq!(catalog.event_names().await, ["product_changed"]);
}

#[actix::test]
async fn search_matches_words_and_accepts_any_input() {
    let catalog = open();
    catalog
        .create(product_with(json!({ "name": "Crème brûlée torch", "sku": "CB-77", "description": "Melts sugar." })))
        .await;
    catalog
        .create(product_with(
            json!({ "name": "Sugar bowl", "sku": "SB-1", "tags": ["teatime"], "category": "Kitchen" }),
        ))
        .await;
    catalog.create(product_with(json!({ "name": "Spoon", "sku": "SP-1", "description": "For the bowl." }))).await;
    catalog.create(product_with(json!({ "name": "Plate", "sku": "PL-1", "tags": ["bowl"] }))).await;
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
        ("kitc sugar", &["SB-1"]),
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
        assert_eq!(catalog.skus(json!({ "q": q })).await, skus, "{q:?}");
    }
    assert_eq!(catalog.skus(json!({ "q": "bowl", "sort": "name" })).await, ["PL-1", "SP-1", "SB-1"]);
    assert_eq!(catalog.skus(json!({ "q": "bowl", "category": "Kitchen" })).await, ["SB-1"]);
    // Changed texts are found by their new words only.
    let spoon = catalog.list(json!({ "q": "spoon" })).await.items[0].id;
    catalog.patch(spoon, json!({ "name": "Löffel", "description": "" })).await.unwrap();
    assert_eq!(catalog.skus(json!({ "q": "loffel" })).await, ["SP-1"]);
    assert_eq!(catalog.skus(json!({ "q": "spoon" })).await, [""; 0]);
}

#[actix::test]
async fn lists_filter_sort_and_reject_invalid_queries() {
    let catalog = open();
    for (sku, name, price, stock, category, tag) in [
        ("A", "écru", 300, 5, "X", "t1"),
        ("B", "Alpha", 100, 0, "X", "t2"),
        ("C", "beta", 200, 1, "Y", "t1"),
        ("D", "fox", 200, 9, "Y", "t2"),
    ] {
        let product =
            json!({ "sku": sku, "name": name, "price": price, "stock": stock, "category": category, "tags": [tag] });
        catalog.create(product_with(product)).await;
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
        assert_eq!(catalog.skus(query.clone()).await, skus, "{query}");
    }
    for (query, field) in [
        (json!({ "limit": 0 }), "limit"),
        (json!({ "limit": 101 }), "limit"),
        (json!({ "cursor": "nonsense" }), "cursor"),
        (json!({ "min_price": -1 }), "min_price"),
        (json!({ "min_price": 2, "max_price": 1 }), "max_price"),
        (json!({ "q": "x".repeat(201) }), "q"),
    ] {
        let reply = catalog.send(serde_json::from_value::<ListProducts>(query).unwrap()).await;
        assert_eq!(field_errors(reply), [field]);
    }
}

#[actix::test]
async fn pages_are_stable_while_the_list_grows() {
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
        let catalog = open();
        let product = |n: i64| {
            let group = (n % 5 == 0).then(|| format!("g{}", n % 10));
            let (name, price) = (format!("product {}", n * 7 % 13), n * 31 % 7);
            product_with(
                json!({ "sku": format!("S{n}"), "name": name, "price": price, "tags": ["t"], "category": "C", "group": group }),
            )
        };
        for n in 0..20 {
            catalog.create(product(n)).await;
        }
        let with = |more: Value| {
            let mut query = query.clone();
            query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            query
        };
        let before = catalog.skus(with(json!({ "limit": 100 }))).await;
        let (mut seen, mut cursor, mut n) = (Vec::new(), Value::Null, 100);
        loop {
            let page = catalog.list(with(json!({ "limit": 3, "cursor": cursor }))).await;
            seen.extend(page.items.iter().map(|product| product.sku.clone()));
            let Some(next) = page.next else { break };
            cursor = serde_json::to_value(next).unwrap();
            catalog.create(product_with(json!({ "sku": format!("N{n}"), "name": format!("product {n} new"), "price": n % 7, "tags": ["t"], "category": "C" }))).await;
            n += 1;
            assert!(n < 200, "the list has no end");
        }
        let old: Vec<&String> = seen.iter().filter(|sku| sku.starts_with('S')).collect();
        assert_eq!(old, before.iter().collect::<Vec<_>>(), "{query}: lost, doubled or in another order");
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "{query}: one came twice");
        // A cursor belongs to one list.
        for other in [json!({ "in_stock": true }), json!({ "q": "other" })] {
            let mut other = with(other);
            other["cursor"] = cursor.clone();
            let reply = catalog.send(serde_json::from_value::<ListProducts>(other).unwrap()).await;
            assert_eq!(field_errors(reply), ["cursor"]);
        }
    }
}

#[actix::test]
async fn group_lead_is_cheapest_in_stock() {
    let catalog = open();
    let variant = |sku: &str, price: i64, stock: i64, size: &str| {
        product_with(
            json!({ "sku": sku, "name": "Shirt", "price": price, "stock": stock, "group": "shirt", "options": { "Size": size } }),
        )
    };
    let small = catalog.create(variant("S", 300, 1, "Small")).await;
    let medium = catalog.create(variant("M", 200, 1, "Medium")).await;
    let large = catalog.create(variant("L", 100, 0, "Large")).await;
    catalog.create(simple_product("ALONE")).await;
    assert_eq!(catalog.skus(json!({})).await, ["ALONE", "M"]);
    assert_eq!(catalog.skus(json!({ "all_variants": true })).await, ["ALONE", "L", "M", "S"]);
    let shown = catalog.get(small.id).await;
    assert_eq!(shown.variants.iter().map(|v| v.sku.as_str()).collect::<Vec<_>>(), ["S", "M", "L"]);
    // Another variant leads where the first does not match.
    assert_eq!(catalog.skus(json!({ "min_price": 250 })).await, ["ALONE", "S"]);
    assert_eq!(catalog.skus(json!({ "q": "shirt large" })).await, ["L"]);
    assert_eq!(catalog.skus(json!({ "q": "shirt" })).await, ["M"]);
    assert_eq!(catalog.skus(json!({ "in_stock": false })).await, ["L"]);
    catalog.assert_facets_consistent().await;
    // The lead follows sales, restocks, prices, deletions and group changes.
    catalog.hold(HoldId::new(), &[(medium.id, 1)]).await.unwrap();
    assert_eq!(catalog.skus(json!({})).await, ["ALONE", "S"]);
    catalog.patch(large.id, json!({ "stock": 3 })).await.unwrap();
    assert_eq!(catalog.skus(json!({})).await, ["ALONE", "L"]);
    assert_eq!(catalog.get(small.id).await.variants[2].stock, 3, "siblings show each other as they are");
    catalog.assert_facets_consistent().await;
    catalog.send(DeleteProduct { product_id: large.id }).await.unwrap();
    assert_eq!(catalog.skus(json!({})).await, ["ALONE", "S"]);
    assert_eq!(catalog.get(small.id).await.variants.len(), 2);
    catalog.new_events().await;
    catalog.patch(small.id, json!({ "group": null })).await.unwrap();
    let groups: Vec<Value> = catalog.new_events().await.into_iter().map(|(_, data)| data["group"].clone()).collect();
    assert_eq!(groups, [Value::Null, json!("shirt")], "the old group is reported too");
    assert_eq!(catalog.skus(json!({})).await, ["ALONE", "M", "S"]);
    assert_eq!(catalog.get(medium.id).await.variants.len(), 1);
    catalog.patch(medium.id, json!({ "stock": 0 })).await.unwrap();
    assert_eq!(catalog.skus(json!({})).await, ["ALONE", "M", "S"], "all sold out: the first");
    catalog.assert_facets_consistent().await;
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn facets_ignore_their_own_filter() {
    let catalog = open();
    for (sku, price, stock, category, tags) in [
        ("A", 100, 1, "X", vec!["t1", "t2"]),
        ("B", 200, 0, "X", vec!["t1"]),
        ("C", 300, 1, "Y", vec!["t2"]),
        ("D", 400, 1, "Y", vec![]),
    ] {
        catalog
            .create(product_with(
                json!({ "sku": sku, "price": price, "stock": stock, "category": category, "tags": tags }),
            ))
            .await;
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
    let all = facets(catalog.list(json!({})).await);
    let whole_tags = vec![value("t1", 2), value("t2", 2)];
    assert_eq!(all, (4, vec![x2.clone(), y2.clone()], whole_tags.clone(), Some(100), Some(400), 3));
    let in_x = facets(catalog.list(json!({ "category": "X" })).await);
    assert_eq!(in_x, (2, vec![x2, y2], vec![value("t1", 2), value("t2", 1)], Some(100), Some(200), 1));
    let t1 = facets(catalog.list(json!({ "tag": "t1" })).await);
    assert_eq!(t1, (2, vec![value("X", 2)], whole_tags, Some(100), Some(200), 1));
    let dear = facets(catalog.list(json!({ "min_price": 300 })).await);
    assert_eq!(dear, (2, vec![value("Y", 2)], vec![value("t2", 1)], Some(100), Some(400), 2));
    let sold_out = facets(catalog.list(json!({ "in_stock": false })).await);
    assert_eq!(sold_out, (1, vec![value("X", 1)], vec![value("t1", 1)], Some(200), Some(200), 3));
    let found = facets(catalog.list(json!({ "q": "thing", "category": "Y" })).await);
    assert_eq!((found.0, found.1.len(), found.5), (2, 2, 2));
    catalog.assert_facets_consistent().await;
}

#[actix::test]
async fn longest_lists_say_that_they_are_longer() {
    let catalog = open();
    for part in 0..10 {
        let product = |n| product_with(json!({ "sku": format!("S{part}-{n}"), "name": "Cup", "category": "C" }));
        catalog.send(import((0..1_000).map(product).collect())).await.unwrap();
    }
    let counted = async || {
        let mut counts = Vec::new();
        for query in [json!({ "category": "C" }), json!({ "q": "cup" }), json!({})] {
            let facets = catalog.list(query).await.facets;
            counts.push((facets.total, facets.capped));
        }
        counts
    };
    assert_eq!(counted().await, [(10_000, false), (10_000, false), (10_000, false)]);
    catalog.create(product_with(json!({ "sku": "LAST", "name": "Cup", "category": "C" }))).await;
    catalog.clock.advance(Duration::from_secs(2));
    assert_eq!(counted().await, [(10_000, true), (10_000, true), (10_001, false)]);
}

#[actix::test]
async fn counts_of_large_list_are_at_most_a_second_old() {
    let catalog = open();
    for part in 0..2 {
        let rows =
            (0..1_000).map(|n| product_with(json!({ "sku": format!("S{part}-{n}"), "category": "C" }))).collect();
        catalog.send(import(rows)).await.unwrap();
    }
    let totals = || async {
        let whole = catalog.list(json!({})).await.facets.total;
        (whole, catalog.list(json!({ "category": "C" })).await.facets.total)
    };
    assert_eq!(totals().await, (2_000, 2_000));
    catalog.create(product_with(json!({ "category": "C" }))).await;
    let (whole, narrowed) = totals().await;
    assert_eq!(whole, 2_001, "the whole list is counted by every change");
    assert!((2_000..=2_001).contains(&narrowed));
    catalog.clock.advance(Duration::from_secs(1));
    assert_eq!(totals().await, (2_001, 2_001));
}

#[actix::test]
async fn concurrent_holds_never_oversell() {
    for (stock, quantities, sold) in [(7, vec![1], 7), (7, vec![1, 1], 3), (8, vec![2, 2], 2)] {
        let catalog = open();
        let product = catalog.create(product_with(json!({ "stock": stock }))).await;
        let lines: Vec<(ProductId, i64)> = quantities.iter().map(|&quantity| (product.id, quantity)).collect();
        let replies = join_all((0..50).map(|_| catalog.hold(HoldId::new(), &lines))).await;
        let held = replies.iter().filter(|reply| reply.is_ok()).count();
        assert_eq!(held, sold);
        let each: i64 = quantities.iter().sum();
        let left = stock - i64::try_from(sold).unwrap() * each;
        for rejected in replies.into_iter().filter_map(Result::err) {
            let CatalogError::OutOfStock { product_id, left } = rejected else { panic!("{rejected:?}") };
            assert!(product_id == product.id && left < each);
        }
        assert_eq!(catalog.stock(product.id).await, left);
        catalog.assert_ledger_consistent().await;
    }
}

#[actix::test]
async fn hold_is_atomic_and_idempotent() {
    let catalog = open();
    let (a, b) = (
        catalog.create(product_with(json!({ "sku": "A", "stock": 2, "options": { "Colour": "Blue" } }))).await,
        catalog.create(simple_product("B")).await,
    );
    let rejected = catalog.hold(HoldId::new(), &[(b.id, 1), (a.id, 3)]).await;
    assert_eq!(rejected.unwrap_err(), CatalogError::OutOfStock { product_id: a.id, left: 2 });
    assert_eq!((catalog.stock(a.id).await, catalog.stock(b.id).await), (2, 10));
    let unknown = catalog.hold(HoldId::new(), &[(b.id, 1), (ProductId::new(), 1)]).await;
    assert_eq!(unknown.unwrap_err(), CatalogError::ProductNotFound);

    let hold = HoldId::new();
    let first = catalog.hold(hold, &[(a.id, 1), (b.id, 4), (a.id, 1)]).await.unwrap();
    assert_eq!(
        first.offers.iter().map(|o| (o.name.as_str(), o.stock)).collect::<Vec<_>>(),
        [("Thing (Blue)", 0), ("Product B", 6)]
    );
    // Stock and price have changed since: the first reply is repeated.
    catalog.patch(a.id, json!({ "price": 1 })).await.unwrap();
    let again = catalog.hold(hold, &[(b.id, 4), (a.id, 2)]).await.unwrap();
    assert_eq!(again, first);
    assert_eq!((catalog.stock(a.id).await, catalog.stock(b.id).await), (0, 6));
    assert_eq!(field_errors(catalog.hold(hold, &[(b.id, 5)]).await), ["hold"]);
    for (lines, field) in
        [(vec![], "lines"), (vec![(a.id, 0)], "lines.0.quantity"), (vec![(a.id, 10_001)], "lines.0.quantity")]
    {
        assert_eq!(field_errors(catalog.hold(HoldId::new(), &lines).await), [field]);
    }
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn released_hold_restores_stock_once() {
    let catalog = open();
    let product = catalog.create(simple_product("A")).await;
    let hold = HoldId::new();
    catalog.hold(hold, &[(product.id, 4)]).await.unwrap();
    assert_eq!(catalog.stock(product.id).await, 6);
    for _ in 0..3 {
        catalog.send(ReleaseHold { hold }).await.unwrap();
        assert_eq!(catalog.stock(product.id).await, 10);
    }
    assert_eq!(catalog.hold(hold, &[(product.id, 4)]).await.unwrap_err(), CatalogError::HoldGone);
    // Released before it was made: the late request must not take anything.
    let late = HoldId::new();
    catalog.send(ReleaseHold { hold: late }).await.unwrap();
    assert_eq!(catalog.hold(late, &[(product.id, 4)]).await.unwrap_err(), CatalogError::HoldGone);
    for (n, hold) in [HoldId::new(), HoldId::new()].into_iter().enumerate() {
        catalog.hold(hold, &[(product.id, 4)]).await.unwrap();
        let (invoice_id, number, user_id, hold) = (InvoiceId::new(), String::new(), UserId::new(), Some(hold));
        if n == 0 {
            catalog.deliver(&InvoiceExpired { invoice_id, number, user_id, hold, checkout: None }).await;
        } else {
            catalog.deliver(&InvoiceVoided { invoice_id, number, user_id, hold, checkout: None }).await;
        }
        assert_eq!(catalog.stock(product.id).await, 10);
    }
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn expired_hold_is_released_by_timer() {
    let catalog = open();
    let product = catalog.create(product_with(json!({ "stock": 1 }))).await;
    let hold = HoldId::new();
    catalog.hold(hold, &[(product.id, 1)]).await.unwrap();
    catalog.new_events().await;
    catalog.clock.advance(Duration::from_secs(601));
    assert_eq!(catalog.hold(hold, &[(product.id, 1)]).await.unwrap_err(), CatalogError::HoldGone);
    for _ in 0..6_000 {
        // Not `stock`, which reads twice: the timer may run in between.
        if catalog.get(product.id).await.stock == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(catalog.stock(product.id).await, 1);
    assert_eq!(catalog.event_names().await, ["product_changed", "back_in_stock"]);
    let past = catalog.send(HoldStock {
        hold: HoldId::new(),
        lines: vec![HoldLine { product_id: product.id, quantity: 1 }],
        expires_at: catalog.clock.now(),
    });
    assert_eq!(past.await.unwrap_err(), CatalogError::HoldGone);
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn paid_hold_is_sold_and_restocked_once() {
    let catalog = open();
    let product = catalog.create(simple_product("A")).await;
    let hold = HoldId::new();
    catalog.hold(hold, &[(product.id, 4)]).await.unwrap();
    catalog.new_events().await;
    catalog.pay(hold).await;
    catalog.pay(hold).await;
    assert!(catalog.new_events().await.is_empty(), "stock was taken by the hold");
    // Neither expiry nor release affects a sold hold; a repetition returns the first reply.
    catalog.send(ReleaseHold { hold }).await.unwrap();
    catalog.clock.advance(Duration::from_secs(601));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(catalog.stock(product.id).await, 6);
    assert!(catalog.hold(hold, &[(product.id, 4)]).await.is_ok());
    catalog.refund(hold, false).await;
    assert_eq!(catalog.stock(product.id).await, 6, "the items stay with the buyer");
    catalog.refund(hold, true).await;
    catalog.refund(hold, true).await;
    assert_eq!(catalog.stock(product.id).await, 10);
    assert_eq!(catalog.event_names().await, ["product_changed"]);
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn late_payment_takes_stock_or_is_refused() {
    let catalog = open();
    let product = catalog.create(product_with(json!({ "stock": 5 }))).await;
    let (lucky, unlucky) = (HoldId::new(), HoldId::new());
    for hold in [lucky, unlucky] {
        catalog.hold(hold, &[(product.id, 2)]).await.unwrap();
        catalog.send(ReleaseHold { hold }).await.unwrap();
    }
    catalog.hold(HoldId::new(), &[(product.id, 2)]).await.unwrap();
    catalog.new_events().await;
    catalog.pay(lucky).await;
    assert_eq!(catalog.stock(product.id).await, 1);
    assert_eq!(catalog.event_names().await, ["product_changed"]);
    catalog.pay(unlucky).await;
    assert_eq!(catalog.stock(product.id).await, 1);
    let events = catalog.new_events().await;
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!((events[0].0.as_str(), &events[0].1["hold"]), ("catalog.sale_refused", &json!(unlucky)));
    // A refused sale has nothing to restock, a late one has.
    catalog.refund(unlucky, true).await;
    assert_eq!(catalog.stock(product.id).await, 1);
    catalog.refund(lucky, true).await;
    assert_eq!(catalog.stock(product.id).await, 3);
    // Never held, and an imported order, which does not affect stock.
    catalog.new_events().await;
    let (invoice, hold) = (invoice(), Some(HoldId::new()));
    catalog.deliver(&InvoicePaid { invoice: invoice.clone(), hold, checkout: None, imported: true }).await;
    catalog.deliver(&InvoicePaid { invoice, hold: None, checkout: None, imported: false }).await;
    assert!(catalog.new_events().await.is_empty());
    catalog.pay(HoldId::new()).await;
    assert_eq!(catalog.event_names().await, ["sale_refused"]);
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn changes_emit_product_and_stock_events() {
    let catalog = open();
    let product = catalog.create(product_with(json!({ "stock": 10 }))).await;
    assert_eq!(catalog.event_names().await, ["product_changed"]);
    catalog.patch(product.id, json!({ "price": 5 })).await.unwrap();
    assert_eq!(catalog.event_names().await, ["product_changed"]);
    catalog.patch(product.id, json!({ "price": 5 })).await.unwrap();
    assert_eq!(catalog.event_names().await, [""; 0]);
    let hold = HoldId::new();
    catalog.hold(hold, &[(product.id, 10)]).await.unwrap();
    assert_eq!(catalog.event_names().await, ["product_changed", "low_stock"]);
    catalog.send(ReleaseHold { hold }).await.unwrap();
    assert_eq!(catalog.event_names().await, ["product_changed", "back_in_stock"]);
    catalog.deliver(&RatingChanged { product_id: product.id, sum: 11, count: 3 }).await;
    assert_eq!(catalog.event_names().await, ["product_changed"]);
    assert_eq!((catalog.get(product.id).await.rating, catalog.get(product.id).await.review_count), (Some(3.67), 3));
    catalog.deliver(&RatingChanged { product_id: ProductId::new(), sum: 11, count: 3 }).await;
    assert_eq!(catalog.event_names().await, [""; 0]);
    let before = catalog.get(product.id).await.updated_at;
    catalog.send(DeleteProduct { product_id: product.id }).await.unwrap();
    assert!(catalog.get(product.id).await.updated_at > before);
    let events = catalog.new_events().await;
    assert_eq!((events.len(), &events[0].1["deleted"]), (1, &json!(true)));
}

#[actix::test]
async fn concurrent_reads_never_go_back_in_time() {
    let catalog = open();
    let product = catalog.create(product_with(json!({ "price": 0, "group": "g" }))).await;
    let sibling = catalog.create(product_with(json!({ "sku": "U", "price": 1_000_000, "group": "g" }))).await;
    let answered = std::sync::atomic::AtomicI64::new(0);
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    let write = async {
        for price in 1..=150 {
            catalog.patch(product.id, json!({ "price": price })).await.unwrap();
            answered.store(price, order);
        }
        done.store(true, order);
    };
    let read = |n: usize| {
        let (catalog, answered, done) = (&catalog, &answered, &done);
        async move {
            let mut last = 0;
            while !done.load(order) {
                let floor = answered.load(order).max(last);
                let price = match n % 3 {
                    0 => catalog.get(product.id).await.price,
                    1 => catalog.get(sibling.id).await.variants[0].price,
                    _ => catalog.list(json!({ "sort": "price", "all_variants": true })).await.items[0].price,
                };
                assert!(price >= floor, "reader {n} saw {price} after {floor}");
                last = price;
            }
        }
    };
    futures_util::future::join(write, join_all((0..12).map(read))).await;
    assert_eq!(catalog.get(product.id).await.price, 150);
    assert_eq!(catalog.get(sibling.id).await.variants[0].price, 150);
}

#[actix::test]
async fn changes_of_other_process_invalidate_cache() {
    let local = open();
    let remote = open_in(Arc::clone(&local.dir), local.clock.clone());
    let product = local.create(product_with(json!({ "group": "g" }))).await;
    let sibling = local.create(product_with(json!({ "sku": "U", "group": "g" }))).await;
    let _relay = Relay::start(local.store.clone(), vec![Subscriber::new("catalog", SUBSCRIPTIONS, &local.client)]);
    local.list(json!({})).await;
    assert_eq!((local.get(product.id).await.price, local.get(sibling.id).await.price), (1000, 1000));
    remote.patch(product.id, json!({ "price": 7 })).await.unwrap();
    let seen = || async {
        let listed = local.list(json!({})).await.items.iter().any(|item| item.price == 7);
        let variants = local.get(sibling.id).await.variants;
        local.get(product.id).await.price == 7 && listed && variants[0].price == 7
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
async fn import_reports_outcome_per_row() {
    let catalog = open();
    let (kept, gone) = (
        catalog.create(simple_product("KEPT")).await,
        catalog.create(product_with(json!({ "sku": "GONE", "stock": 0 }))).await,
    );
    catalog.send(DeleteProduct { product_id: gone.id }).await.unwrap();
    catalog.new_events().await;
    let rows = vec![
        product_with(json!({ "sku": "NEW", "tags": ["x"] })),
        product_with(json!({ "sku": "KEPT", "price": 77, "name": "Product KEPT" })),
        product_with(json!({ "sku": "GONE", "stock": 3 })),
        product_with(json!({ "sku": "BAD", "price": -1, "name": "" })),
        product_with(json!({ "sku": "NEW", "tags": ["y"] })),
    ];
    let changed = |product_id, fields: &[&str]| ImportOutcome::Updated {
        product_id,
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
    };
    let outcome = catalog.send(import(rows.clone())).await.unwrap();
    let ImportOutcome::Created(created) = outcome[0] else { panic!("{outcome:?}") };
    assert_eq!(outcome[1], changed(kept.id, &["price"]));
    assert_eq!(outcome[2], changed(gone.id, &["stock", "deleted"]));
    let ImportOutcome::Refused(reason) = &outcome[3] else { panic!("{outcome:?}") };
    assert!(reason.contains("`name` must not be empty") && reason.contains("`price`"), "{reason}");
    assert_eq!(outcome[4], changed(created, &["tags"]));
    assert_eq!((catalog.get(created).await.tags, catalog.get(kept.id).await.price), (vec!["y".to_owned()], 77));
    assert!(!catalog.get(gone.id).await.deleted);
    assert!(catalog.event_names().await.contains(&"back_in_stock".to_owned()));
    // Repeated: the same outcome, and no events except for the row that changes twice.
    let again = catalog.send(import(rows)).await.unwrap();
    assert_eq!(again[0], changed(created, &["tags"]));
    assert_eq!(again[1], ImportOutcome::Unchanged(kept.id));
    assert_eq!(catalog.event_names().await.len(), 2);
    let many = vec![simple_product("A"); 1_001];
    assert_eq!(field_errors(catalog.send(import(many)).await), ["rows"]);
    catalog.assert_facets_consistent().await;
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn p21_import_keeps_what_a_file_does_not_have() {
    let catalog = open();
    let made = catalog
        .create(product_with(
            json!({ "stock": 5, "description": "A long text", "tags": ["a", "b"], "category": "Tea" }),
        ))
        .await;
    let changed = |fields: &[&str]| ImportOutcome::Updated {
        product_id: made.id,
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
    };
    let price_list = || vec![row_with(None, json!({ "sku": "T", "price": 900 }))];
    let preview = ImportProducts { rows: price_list(), overwrite: false, dry_run: true };
    assert_eq!(catalog.send(preview).await.unwrap(), [changed(&["price"])]);
    assert_eq!(catalog.get(made.id).await, made);
    assert_eq!(catalog.import_rows(price_list()).await, [changed(&["price"])]);
    assert_eq!(catalog.import_rows(price_list()).await, [ImportOutcome::Unchanged(made.id)]);
    let now = catalog.get(made.id).await;
    assert_eq!((now.price, now.stock, now.tags.len(), &*now.description), (900, 5, 2, "A long text"));
    // What would be lost is refused by name, unless it is wanted.
    let emptying =
        || row_with(None, json!({ "sku": "T", "stock": 0, "description": "", "category": null, "price": 1 }));
    let refused = catalog.import_rows(vec![emptying()]).await;
    let reason = "would empty `category` and empty `description` and set `stock` from 5 to 0; it does with --overwrite";
    assert_eq!(refused, [ImportOutcome::Refused(reason.to_owned())]);
    assert_eq!(catalog.get(made.id).await, now);
    catalog.send(ImportProducts { rows: vec![emptying()], overwrite: true, dry_run: false }).await.unwrap();
    assert_eq!((catalog.get(made.id).await.stock, catalog.get(made.id).await.category), (0, None));
    // A price without a currency is not read in another one than the product's.
    let dollars = ProductPatch { currency: Some("USD".parse().unwrap()), ..ProductPatch::default() };
    let other = ImportRow { defaults: dollars, ..row_with(None, json!({ "sku": "T", "price": 5 })) };
    let refused = catalog.import_rows(vec![other, row_with(None, json!({ "sku": "U", "stock": 1 }))]).await;
    let reasons = ["`currency` is missing", "`price` must be given"];
    for (outcome, part) in refused.iter().zip(reasons) {
        assert!(matches!(outcome, ImportOutcome::Refused(reason) if reason.starts_with(part)), "{outcome:?}");
    }
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn import_knows_products_by_their_source() {
    let catalog = open();
    let row = |key: &str, sku: &str, size: &str| {
        row_with(
            Some(key),
            json!({ "sku": sku, "name": "Blouse", "price": 900, "group": "blouse", "options": { "Size": size } }),
        )
    };
    // Made by hand before: the variant with the same options takes it over.
    let by_hand = catalog.create(product_with(json!({ "sku": "M-1", "options": { "Size": "M" } }))).await;
    let rows = || vec![row("s:S", "M-1", "S"), row("s:M", "M-1", "M"), row("s:L", "M-1", "L")];
    let outcome = catalog.import_rows(rows()).await;
    let [ImportOutcome::Created(small), ImportOutcome::Updated { product_id, .. }, ImportOutcome::Created(large)] =
        outcome[..]
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(product_id, by_hand.id);
    assert_eq!((&*catalog.get(small).await.sku, &*catalog.get(large).await.sku), ("M-1-s", "M-1-l"));
    for outcome in catalog.import_rows(rows()).await {
        assert!(matches!(outcome, ImportOutcome::Unchanged(_)), "{outcome:?}");
    }
    // An SKU that is filled in later is that of the same product.
    let renamed = catalog.import_rows(vec![row("s:S", "NEW", "S")]).await;
    assert!(matches!(&renamed[0], ImportOutcome::Updated { fields, .. } if fields == &["sku"]), "{renamed:?}");
    assert_eq!(catalog.get(small).await.sku, "NEW");
    // Another product with an SKU that is taken is another product.
    let other =
        catalog.import_rows(vec![row_with(Some("s:cup"), json!({ "sku": "NEW", "name": "Cup", "price": 1 }))]).await;
    let ImportOutcome::Created(cup) = other[0] else { panic!("{other:?}") };
    assert_ne!(catalog.get(cup).await.sku, "NEW");
    // What was deleted here stays so; what the source no longer sells is not sold here.
    catalog.send(DeleteProduct { product_id: cup }).await.unwrap();
    let back = catalog.import_rows(vec![row_with(Some("s:cup"), json!({ "name": "Cup", "price": 2 }))]).await;
    assert!(matches!(&back[0], ImportOutcome::Refused(reason) if reason.contains("deleted")), "{back:?}");
    let draft = |key: &str| ImportRow { withdrawn: true, ..row(key, "X", "S") };
    let outcome = catalog.import_rows(vec![draft("s:S"), draft("s:S"), draft("s:unknown")]).await;
    assert!(matches!(outcome[0], ImportOutcome::Updated { product_id, .. } if product_id == small), "{outcome:?}");
    assert_eq!(outcome[1..], [ImportOutcome::LeftOut, ImportOutcome::LeftOut]);
    assert!(catalog.get(small).await.deleted);
    catalog.assert_facets_consistent().await;
}

#[actix::test]
async fn search_finds_every_script_and_form() {
    let catalog = open();
    for (sku, name) in [
        ("STREET", "Straßenschild"),
        ("DANISH", "Smørrebrød board"),
        ("POLISH", "Łódź poster"),
        ("GREEK", "Καφές, ground"),
        ("RUSSIAN", "Ёлка for the table"),
        ("JAPANESE", "青いティーポット"),
        ("CHINESE", "紫砂茶壶套装"),
        ("THAI", "ถ้วยชาเซรามิก"),
        ("KOREAN", "파란찻주전자"),
        ("HINDI", "चाय का प्याला"),
        ("SHIRT", "T-Shirt with pocket"),
        ("ONEIL", "O’Neil's cap"),
        ("MUG", "Mug"),
        ("BOXES", "Two boxes"),
        ("BERRY", "Berry bowl"),
        ("KNIFE", "Knife"),
        ("CUP", "Tasse"),
        ("WIDE", "Ｗｉｄｅ ｔａｂｌｅ"),
    ] {
        catalog.create(product_with(json!({ "sku": sku, "name": name }))).await;
    }
    let cases: &[(&str, &[&str])] = &[
        ("strasse", &["STREET"]),
        ("STRASSENSCHILD", &["STREET"]),
        ("smorrebrod", &["DANISH"]),
        ("lodz", &["POLISH"]),
        ("ΚΑΦΕΣ", &["GREEK"]),
        ("елка", &["RUSSIAN"]),
        ("ポット", &["JAPANESE"]),
        ("ﾃｨｰ", &["JAPANESE"]),
        ("青", &["JAPANESE"]),
        ("茶壶", &["CHINESE"]),
        ("套", &["CHINESE"]),
        ("ชา", &["THAI"]),
        ("주전자", &["KOREAN"]),
        ("प्याला", &["HINDI"]),
        ("tshirt", &["SHIRT"]),
        ("t-shirt", &["SHIRT"]),
        ("t shirt", &["SHIRT"]),
        ("oneil", &["ONEIL"]),
        ("o'neil", &["ONEIL"]),
        ("mugs", &["MUG"]),
        ("box", &["BOXES"]),
        ("berries", &["BERRY"]),
        ("knives", &["KNIFE"]),
        ("tassen", &["CUP"]),
        ("wide table", &["WIDE"]),
        ("poc shir", &["SHIRT"]),
        ("mug knife", &[]),
    ];
    for (q, skus) in cases {
        assert_eq!(catalog.skus(json!({ "q": q })).await, *skus, "{q}");
    }
    let by_name = catalog.skus(json!({ "sort": "name" })).await;
    let place = |sku: &str| by_name.iter().position(|one| one == sku).unwrap();
    assert!(place("KNIFE") < place("POLISH") && place("POLISH") < place("MUG"), "{by_name:?}");
    for (q, suggestion) in [("smorebrod", Some("smørrebrød")), ("knive", Some("knife")), ("mug", None), ("zzzz", None)]
    {
        assert_eq!(catalog.list(json!({ "q": q })).await.suggestion.as_deref(), suggestion, "{q}");
    }
}

#[actix::test]
async fn search_index_is_rebuilt_after_an_upgrade() {
    let catalog = open();
    for n in 0..3 {
        catalog.create(product_with(json!({ "sku": format!("S{n}"), "name": format!("Łódź {n}") }))).await;
    }
    // As the migration leaves a shop that an earlier version filled.
    catalog
        .store
        .write(|tx| {
            for sql in
                ["DELETE FROM product_fts", "UPDATE product SET name_key = ''", "INSERT INTO search_rebuild VALUES (0)"]
            {
                diesel::sql_query(sql).execute(tx.conn)?;
            }
            Ok::<_, CommonError>(())
        })
        .await
        .unwrap();
    assert_eq!(catalog.skus(json!({ "q": "lodz" })).await.len(), 0);
    while catalog.store.write(|tx| Ok::<_, CommonError>(store::rebuild_some(tx)?)).await.unwrap() {}
    assert_eq!(catalog.skus(json!({ "q": "lodz", "sort": "name" })).await, ["S0", "S1", "S2"]);
}

#[actix::test]
async fn uncounted_product_is_always_for_sale() {
    let catalog = open();
    let made = catalog.create(product_with(json!({ "stock": 0, "track_stock": false }))).await;
    assert_eq!((made.track_stock, made.stock), (false, UNCOUNTED_STOCK));
    catalog.new_events().await;
    for _ in 0..3 {
        catalog.hold(HoldId::new(), &[(made.id, 10_000)]).await.unwrap();
    }
    assert_eq!(catalog.stock(made.id).await, UNCOUNTED_STOCK);
    assert!(!catalog.event_names().await.contains(&"low_stock".to_owned()));
    assert_eq!(catalog.skus(json!({ "query": { "in_stock": true }, "page": {} })).await, ["T"]);
    let refused = catalog.patch(made.id, json!({ "track_stock": true })).await;
    assert_eq!(field_errors(refused), ["stock"]);
    let counted = catalog.patch(made.id, json!({ "track_stock": true, "stock": 2 })).await.unwrap();
    assert_eq!((counted.track_stock, counted.stock), (true, 2));
    let uncounted = catalog.patch(made.id, json!({ "track_stock": false })).await.unwrap();
    assert_eq!((uncounted.track_stock, uncounted.stock), (false, UNCOUNTED_STOCK));
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn stock_is_changed_by_difference_or_count() {
    let catalog = open();
    let made = catalog.create(simple_product("T")).await;
    catalog.hold(HoldId::new(), &[(made.id, 3)]).await.unwrap();
    let change = |change: Option<i64>, set: Option<i64>| {
        catalog.send(ChangeStock { product_id: made.id, change, set, reason: Some("stocktaking".to_owned()) })
    };
    // Ten are in the store room, and three of them are held.
    let counted = change(None, Some(10)).await.unwrap();
    assert_eq!((counted.product.stock, counted.on_hand, counted.held), (7, 10, 3));
    let came = change(Some(2), None).await.unwrap();
    assert_eq!((came.product.stock, came.on_hand, came.held), (9, 12, 3));
    let refused = [
        (Some(-10), None, "change"),
        (None, Some(2), "set"),
        (None, None, "change"),
        (Some(1), Some(1), "change"),
        (Some(i64::MAX), None, "change"),
    ];
    for (difference, count, field) in refused {
        assert_eq!(field_errors(change(difference, count).await), [field], "{difference:?} {count:?}");
    }
    let level = catalog.send(GetStock { product_id: made.id }).await.unwrap();
    assert_eq!((level.on_hand, level.held, level.available), (12, 3, 9));
    let changes: Vec<(i64, &str, Option<&str>)> =
        level.changes.iter().map(|one| (one.change, &*one.cause, one.reason.as_deref())).collect();
    assert_eq!(changes, [(2, "changed", Some("stocktaking")), (-3, "held", None), (10, "set", None)]);
    catalog.patch(made.id, json!({ "track_stock": false })).await.unwrap();
    assert_eq!(field_errors(change(Some(1), None).await), ["change"]);
    catalog.assert_ledger_consistent().await;
}

#[actix::test]
async fn export_pages_all_products_in_import_form() {
    let catalog = open();
    let rows: Vec<NewProduct> = (0..1_000).map(|n| simple_product(&format!("S{n:04}"))).collect();
    catalog.send(import(rows.clone())).await.unwrap();
    let extra = catalog
        .create(product_with(json!({ "category": "Kitchen", "tags": ["a"], "attributes": { "K": "V" }, "group": "g" })))
        .await;
    let gone = catalog.create(simple_product("GONE")).await;
    catalog.send(DeleteProduct { product_id: gone.id }).await.unwrap();
    let (mut exported, mut after, mut parts) = (Vec::new(), None, 0);
    loop {
        let part = catalog.send(ExportProducts { after }).await.unwrap();
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

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8, y as u8, 7]));
    pixels.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

#[actix::test]
async fn images_are_stored_in_sizes_and_listed() {
    let catalog = open();
    let product = catalog.create(product_with(json!({ "name": "Teapot" }))).await;
    let add = |alt: &str, data: Vec<u8>| AddImage { product_id: product.id, alt: alt.to_owned(), data };
    let ctx = || {
        RequestContext::internal("test")
            .with_timeout(Duration::from_secs(60))
            .with_key(IdempotencyKey::internal("upload"))
    };
    let (file, again) = (png(900, 600), ctx());
    let first = catalog.client.call(ctx(), add("", file.clone())).await.unwrap();
    assert_eq!(catalog.client.call(again.clone(), add("", file.clone())).await.unwrap(), first);
    assert!(again.is_replayed(), "one upload, one image");
    assert_eq!(first.alt, "Teapot");
    assert_eq!(first.url, format!("/api/v1/product/{}/images/{}", product.id, first.id));
    let second = catalog.send(add("From above", png(40, 40))).await.unwrap();
    assert_eq!(catalog.get(product.id).await.images, [first.clone(), second.clone()]);
    assert_eq!(catalog.send(ListImages { product_id: product.id }).await.unwrap(), [first.clone(), second.clone()]);
    assert!(catalog.get(product.id).await.updated_at > product.updated_at);

    let get = |width| GetImage { product_id: product.id, image_id: first.id, width };
    let largest = catalog.send(get(None)).await.unwrap();
    let shown = image::load_from_memory(&largest.data).unwrap();
    assert_eq!((shown.width(), shown.height()), (first.width, first.height));
    let smallest = first.sizes.first().expect("an image of 900 pixels has smaller sizes");
    assert_eq!(smallest.url, format!("{}?width={}", first.url, smallest.width));
    let small = image::load_from_memory(&catalog.send(get(Some(smallest.width))).await.unwrap().data).unwrap();
    assert_eq!((small.width(), small.height()), (smallest.width, smallest.height));
    assert_eq!(catalog.send(get(Some(7))).await.unwrap_err(), CatalogError::ImageNotFound);
    let offers = catalog.send(GetOffers { product_ids: vec![product.id, ProductId::new(), product.id] }).await.unwrap();
    assert_eq!((offers.len(), offers[0].image.as_ref()), (1, Some(&smallest.url)));

    let other = catalog.create(simple_product("B")).await;
    let foreign = DeleteImage { product_id: other.id, image_id: first.id };
    assert_eq!(catalog.send(foreign).await.unwrap_err(), CatalogError::ImageNotFound);
    catalog.send(DeleteImage { product_id: product.id, image_id: first.id }).await.unwrap();
    assert_eq!(catalog.get(product.id).await.images, [second]);
    assert_eq!(catalog.send(get(None)).await.unwrap_err(), CatalogError::ImageNotFound);
}

#[actix::test]
async fn invalid_or_excess_image_is_rejected() {
    let catalog = open();
    let product = catalog.create(simple_product("A")).await;
    let add = |data: Vec<u8>| AddImage { product_id: product.id, alt: String::new(), data };
    let rejected = catalog.send(add(b"not an image".to_vec())).await.unwrap_err();
    assert!(matches!(rejected, CatalogError::UnsupportedImage { .. }), "{rejected:?}");
    let max = Settings::for_test(catalog.dir.path()).catalog.image_bytes_max;
    let rejected = catalog.send(add(vec![0; max + 1])).await.unwrap_err();
    assert!(matches!(rejected, CatalogError::ImageTooLarge { .. }), "{rejected:?}");
    let unknown = AddImage { product_id: ProductId::new(), alt: String::new(), data: png(8, 8) };
    assert_eq!(catalog.send(unknown).await.unwrap_err(), CatalogError::ProductNotFound);
    let replies = join_all((0..25).map(|_| catalog.send(add(png(8, 8))))).await;
    let (added, rejected): (Vec<_>, Vec<_>) = replies.into_iter().partition(Result::is_ok);
    assert_eq!(added.len(), 20);
    assert!(rejected.into_iter().all(|reply| reply == Err(CatalogError::TooManyImages { max: 20 })));
}

#[actix::test]
async fn zero_cache_size_serves_correctly() {
    let dir = Arc::new(TempDir::new().unwrap());
    let mut settings = Settings::for_test(dir.path());
    settings.catalog.cache_max = 0;
    let runtime = DomainRuntime::new(settings, Clock::system());
    let RunningDomain { client, store } = super::open(&runtime).unwrap();
    let catalog = TestCatalog { client, store, clock: runtime.clock.clone(), dir };
    let product = catalog.create(simple_product("A")).await;
    assert_eq!(catalog.get(product.id).await, product);
    catalog.patch(product.id, json!({ "price": 1 })).await.unwrap();
    assert_eq!(catalog.get(product.id).await.price, 1);
}

#[actix::test]
async fn list_pages_use_index_without_sorting() {
    if crate::store::tested_on_server() {
        return;
    }
    let catalog = open();
    for n in 0..3 {
        catalog.create(product_with(json!({ "sku": format!("S{n}"), "category": "C", "group": "g" }))).await;
        catalog.create(product_with(json!({ "sku": format!("T{n}"), "category": "C" }))).await;
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
            let query = model::normalize_query(serde_json::from_value(query).unwrap()).unwrap();
            let (first, place) = catalog
                .store
                .read({
                    let query = query.clone();
                    move |conn| {
                        let (_, next) = search::page(conn, &query, 1, None)?;
                        let place = search::PageStart::from_cursor(&PageRequest { limit: None, cursor: next }, &query)?;
                        Ok::<_, CatalogError>((search::explain(conn, &query, None)?, place))
                    }
                })
                .await
                .unwrap();
            assert!(place.is_some());
            let next = catalog
                .store
                .read(move |conn| Ok::<_, CommonError>(search::explain(conn, &query, place.as_ref())?))
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

#[actix::test]
async fn facet_counts_of_older_database_survive_migration() {
    use diesel::Connection as _;
    use diesel_migrations::MigrationHarness as _;
    if crate::store::tested_on_server() {
        return;
    }
    let catalog = open();
    catalog.create(product_with(json!({ "category": "C", "tags": ["a", "b"] }))).await;
    let file = catalog.dir.path().join("catalog.db");
    let mut conn = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    // Back to the schema before `facet_count`.
    conn.revert_last_migration(MIGRATIONS.sqlite).unwrap();
    drop(conn);
    let catalog = open_in(Arc::clone(&catalog.dir), catalog.clock.clone());
    let facets = catalog.list(json!({})).await.facets;
    assert_eq!((facets.total, facets.categories.len(), facets.tags.len()), (1, 1, 2));
    catalog.assert_facets_consistent().await;
}

/// Prints the latency of lists and searches, uncached, for `MERCAT_MEASURE` products.
#[actix::test]
#[ignore = "a measurement"]
async fn measure_lists() {
    let catalog = open();
    let n: usize = std::env::var("MERCAT_MEASURE").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let words = ["tea", "pot", "blue", "large", "stone", "glass", "spoon", "plate", "bowl", "cup"];
    let word = |n: usize| words[n % words.len()];
    let begin = std::time::Instant::now();
    for part in 0..n.div_ceil(1_000) {
        let rows = (part * 1_000..(part + 1) * 1_000).map(|i| {
            product_with(json!({
                "sku": format!("S{i}"), "name": format!("{} {} number{i}", word(i), word(i / 10)), "price": 100 + i * 7919 % 10_000,
                "stock": i % 11, "category": format!("C{}", i % 20), "tags": [word(i / 3), format!("t{}", i % 500)],
                "description": format!("A {} for every {} day, made of {}.", word(i / 7), word(i / 11), word(i / 13)),
                "group": (i % 3 == 0).then(|| format!("g{}", i / 9)), "options": { "No": (i % 9).to_string() },
            }))
        });
        catalog.send(import(rows.collect())).await.unwrap();
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
            total = catalog.list(query).await.facets.total;
            times.push(begin.elapsed());
            catalog.clock.advance(Duration::from_secs(2));
        }
        times.sort_unstable();
        println!("{:>9.3} ms, {total:>6} items: {query}", times[3].as_secs_f64() * 1e3);
    }
    let begin = std::time::Instant::now();
    for _ in 0..1_000 {
        catalog.list(json!({ "q": "tea" })).await;
    }
    println!("{:>9.3} ms from memory", begin.elapsed().as_secs_f64());
    let products: Vec<ProductId> =
        catalog.list(json!({ "in_stock": true, "limit": 100 })).await.items.iter().map(|p| p.id).collect();
    for id in &products {
        catalog.patch(*id, json!({ "stock": 1_000_000 })).await.unwrap();
    }
    let (begin, buyers, each) = (std::time::Instant::now(), 64, 30);
    let buy = |buyer: usize| {
        let (catalog, products) = (&catalog, &products);
        async move {
            for n in 0..each {
                let product = |step: usize| products[(buyer * 7 + n * step) % products.len()];
                catalog.hold(HoldId::new(), &[(product(3), 1), (product(5), 2)]).await.unwrap();
            }
        }
    };
    join_all((0..buyers).map(buy)).await;
    let rate = (buyers * each) as f64 / begin.elapsed().as_secs_f64();
    println!("{rate:>9.0} holds of two lines a second, {buyers} buyers at once");
}
