//! Tests of two processes that run every domain on one database. They are two `App`s in one test process, each with its
//! own connections, caches, timers and relays. Only on a PostgreSQL server (`MERCAT_TEST_DATABASE`): an SQLite file
//! belongs to one process.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::app::App;
use crate::consistency_check;
use crate::contract::cart::{AddItem, CartError, Checkout, GetCart};
use crate::contract::catalog::{CreateProduct, GetProduct, NewProduct, ProductPatch, UpdateProduct};
use crate::contract::payments::{CreateInvoice, InvoiceLine, PayInvoice};
use crate::contract::users::{Authenticate, CreateUser, SignIn, SignOut};
use crate::messaging::{Caller, CommonError, Credential, IdempotencyKey, RequestContext, Role};
use crate::settings::Settings;
use crate::store::tested_on_server;
use crate::types::{Clock, Currency, ProductId, UserId};

struct TwoProcesses {
    one: App,
    other: App,
    _dir: TempDir,
}

fn plain() -> RequestContext {
    RequestContext::internal("test")
}

fn keyed(key: &str) -> RequestContext {
    plain().with_key(IdempotencyKey::parse(key).unwrap())
}

impl TwoProcesses {
    fn open() -> Option<Self> {
        if !tested_on_server() {
            return None;
        }
        let _ = env_logger::builder().is_test(true).try_init();
        let dir = TempDir::new().unwrap();
        let open = || {
            let mut settings = Settings::for_test(dir.path());
            settings.store.connections = 8;
            App::open(settings, Clock::system()).unwrap()
        };
        let (one, other) = (open(), open());
        Some(Self { one, other, _dir: dir })
    }

    /// Returns the first app for even `n`, the second for odd `n`.
    fn app(&self, n: usize) -> &App {
        if n.is_multiple_of(2) { &self.one } else { &self.other }
    }

    async fn product(&self, stock: i64) -> ProductId {
        let product: NewProduct = serde_json::from_value(serde_json::json!({
            "name": "Teapot", "sku": uuid::Uuid::now_v7().to_string(), "description": "Round", "price": 4_800,
            "currency": "EUR", "stock": stock,
        }))
        .unwrap();
        self.one.clients.catalog.call(plain(), CreateProduct { product }).await.unwrap().id
    }

    async fn user(&self, name: &str) -> UserId {
        let request = CreateUser {
            email: format!("{name}@example.com"),
            password: "correct horse".into(),
            name: name.into(),
            role: Role::Customer,
            created_at: None,
        };
        self.one.clients.users.call(plain(), request).await.unwrap().id
    }

    async fn settle(&self) {
        self.one.settle().await.unwrap();
        self.other.settle().await.unwrap();
    }
}

#[actix::test]
async fn p15_last_units_are_sold_once_by_two_processes() {
    let Some(pair) = TwoProcesses::open() else { return };
    let (rare, common) = (pair.product(12).await, pair.product(1_000).await);
    let mut buyers = Vec::new();
    for n in 0..30 {
        buyers.push(pair.user(&format!("buyer{n}")).await);
    }
    let orders = buyers.iter().enumerate().map(|(n, user)| {
        let (app, user_id) = (pair.app(n), *user);
        async move {
            let cart = &app.clients.cart;
            cart.call(plain(), AddItem { user_id, product_id: rare, quantity: 1 }).await.ok();
            cart.call(plain(), AddItem { user_id, product_id: common, quantity: 2 }).await.unwrap();
            let invoice = cart
                .call(
                    plain(),
                    Checkout { user_id, email: None, shipping_address: None, billing_address: None, note: None },
                )
                .await?;
            let request = PayInvoice { invoice_id: invoice.id, token: "tok_ok".into() };
            app.clients.payments.call(keyed(&format!("pay/{}", invoice.id)), request).await.unwrap();
            Ok::<_, CartError>(invoice)
        }
    });
    let invoices = join_all(orders).await;
    let with_rare =
        |invoice: &crate::contract::payments::Invoice| invoice.lines.iter().any(|line| line.product_id == Some(rare));
    assert_eq!(invoices.iter().flatten().filter(|invoice| with_rare(invoice)).count(), 12);
    let numbers: BTreeSet<&str> = invoices.iter().flatten().map(|invoice| invoice.number.as_str()).collect();
    assert_eq!(numbers.len(), invoices.iter().flatten().count(), "an invoice number occurs twice");
    pair.settle().await;
    for n in 0..2 {
        let left = pair.app(n).clients.catalog.call(plain(), GetProduct { product_id: rare }).await.unwrap();
        assert_eq!(left.stock, 0);
    }
    assert_eq!(consistency_check::run(&pair.other.clients).await.unwrap().violations, []);
}

#[actix::test]
async fn p08_cart_changes_from_two_processes_are_serializable() {
    let Some(pair) = TwoProcesses::open() else { return };
    let (tea, user_id) = (pair.product(1_000).await, UserId::new());
    let add = |n: usize| pair.app(n).clients.cart.call(plain(), AddItem { user_id, product_id: tea, quantity: 1 });
    assert!(join_all((0..100).map(add)).await.iter().all(Result::is_ok));
    assert_eq!(pair.other.clients.cart.call(plain(), GetCart { user_id }).await.unwrap().count, 100);
}

#[actix::test]
async fn p02_parallel_retries_in_two_processes_run_once() {
    let Some(pair) = TwoProcesses::open() else { return };
    let (tea, user_id) = (pair.product(1_000).await, UserId::new());
    let add = |n: usize| {
        let request = AddItem { user_id, product_id: tea, quantity: 1 };
        pair.app(n).clients.cart.call(keyed("fifty"), request)
    };
    let all = join_all((0..50).map(add)).await;
    let answers: BTreeSet<_> = all.into_iter().map(|item| item.unwrap().id).collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(pair.one.clients.cart.call(plain(), GetCart { user_id }).await.unwrap().count, 1);
    // A request of several steps: retries that arrive while it runs get `RequestInProgress`.
    let invoice = CreateInvoice {
        user_id,
        lines: vec![InvoiceLine {
            description: "Tea".into(),
            product_id: None,
            quantity: 1,
            unit_price: 100,
            tax: None,
        }],
        currency: Currency::EUR,
        shipping: None,
        tax_included: true,
        shipping_address: None,
        billing_address: None,
        note: None,
        email: None,
        hold: None,
        checkout: None,
        expires_at: None,
    };
    let invoice = pair.one.clients.payments.call(plain(), invoice).await.unwrap();
    let pay = |n: usize| {
        let request = PayInvoice { invoice_id: invoice.id, token: "tok_ok".into() };
        pair.app(n).clients.payments.call(keyed("pay"), request)
    };
    for answer in join_all((0..50).map(pay)).await {
        match answer {
            Ok(paid) => assert!(paid.paid_at.is_some()),
            Err(error) => assert_eq!(error, CommonError::RequestInProgress.into()),
        }
    }
    pair.settle().await;
    assert_eq!(consistency_check::run(&pair.one.clients).await.unwrap().violations, []);
}

#[actix::test]
async fn changes_of_one_process_are_visible_in_the_other() {
    let Some(pair) = TwoProcesses::open() else { return };
    let (tea, _) = (pair.product(10).await, pair.user("ada").await);
    let price =
        async |app: &App| app.clients.catalog.call(plain(), GetProduct { product_id: tea }).await.unwrap().price;
    for n in 0..20 {
        let (writer, reader) = (pair.app(n), pair.app(n + 1));
        price(reader).await;
        let patch = ProductPatch { price: Some(5_000 + n as i64), ..ProductPatch::default() };
        writer.clients.catalog.call(plain(), UpdateProduct { product_id: tea, patch }).await.unwrap();
        assert_eq!(price(reader).await, 5_000 + n as i64);
    }
    // A session that is ended by one process is invalid in the other.
    let sign_in = SignIn { email: "ada@example.com".into(), password: "correct horse".into(), code: None };
    let anyone = || RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "r");
    let token = pair.one.clients.users.call(anyone(), sign_in).await.unwrap().token;
    let authenticate = async |app: &App| {
        let request = Authenticate { token: token.clone() };
        app.clients.users.call(RequestContext::internal("gateway"), request).await
    };
    let identity = authenticate(&pair.other).await.unwrap().identity;
    assert!(matches!(identity.credential, Credential::Session(_)));
    authenticate(&pair.one).await.unwrap();
    let ctx = RequestContext::new(Caller::User { identity, internal: false }, "r");
    pair.other.clients.users.call(ctx, SignOut {}).await.unwrap();
    assert!(authenticate(&pair.one).await.is_err());
}

#[actix::test]
async fn remaining_process_caches_and_leads_again() {
    if !tested_on_server() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let open = || App::open(Settings::for_test(dir.path()), Clock::system()).unwrap();
    let is_caching_leader =
        |app: &App| app.stores().iter().all(|store| store.cache_lease().epoch().is_some() && store.is_leader());
    let one = open();
    assert!(is_caching_leader(&one), "the first process runs alone");
    let other = open();
    assert!(
        one.stores().iter().all(|store| store.cache_lease().epoch().is_none()),
        "caches are off once a second process is open"
    );
    assert!(other.stores().iter().all(|store| store.cache_lease().epoch().is_none() && !store.is_leader()));
    one.close();
    let started = Instant::now();
    while !is_caching_leader(&other) {
        assert!(started.elapsed() < Duration::from_secs(60), "no leader");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
