//! Two processes of every domain on one database, as far as one test process can be two: each has connections, memory,
//! timers and relays of its own. Only on a server (`MERCAT_TEST_DATABASE`): a file belongs to one process.

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

    /// One of the two, in turn.
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
async fn p15_two_processes_sell_the_last_units_once_and_the_books_agree() {
    let Some(twins) = TwoProcesses::open() else { return };
    let (rare, common) = (twins.product(12).await, twins.product(1_000).await);
    let mut buyers = Vec::new();
    for n in 0..30 {
        buyers.push(twins.user(&format!("buyer{n}")).await);
    }
    let orders = buyers.iter().enumerate().map(|(n, user)| {
        let (app, user_id) = (twins.app(n), *user);
        async move {
            let cart = &app.clients.cart;
            cart.call(plain(), AddItem { user_id, product_id: rare, quantity: 1 }).await.ok();
            cart.call(plain(), AddItem { user_id, product_id: common, quantity: 2 }).await.unwrap();
            let invoice = cart.call(plain(), Checkout { user_id, email: None }).await?;
            let request = PayInvoice { invoice_id: invoice.id, token: "tok_ok".into() };
            app.clients.payments.call(keyed(&format!("pay/{}", invoice.id)), request).await.unwrap();
            Ok::<_, CartError>(invoice)
        }
    });
    let sold = join_all(orders).await;
    let with_rare =
        |invoice: &crate::contract::payments::Invoice| invoice.lines.iter().any(|line| line.product_id == Some(rare));
    assert_eq!(sold.iter().flatten().filter(|invoice| with_rare(invoice)).count(), 12);
    let numbers: BTreeSet<&str> = sold.iter().flatten().map(|invoice| invoice.number.as_str()).collect();
    assert_eq!(numbers.len(), sold.iter().flatten().count(), "no number is given twice");
    twins.settle().await;
    for n in 0..2 {
        let left = twins.app(n).clients.catalog.call(plain(), GetProduct { product_id: rare }).await.unwrap();
        assert_eq!(left.stock, 0);
    }
    assert_eq!(consistency_check::run(&twins.other.clients).await.unwrap().violations, []);
}

#[actix::test]
async fn p08_parallel_changes_of_one_cart_from_two_processes_end_as_some_serial_order_would() {
    let Some(twins) = TwoProcesses::open() else { return };
    let (tea, user_id) = (twins.product(1_000).await, UserId::new());
    let add = |n: usize| twins.app(n).clients.cart.call(plain(), AddItem { user_id, product_id: tea, quantity: 1 });
    assert!(join_all((0..100).map(add)).await.iter().all(Result::is_ok));
    assert_eq!(twins.other.clients.cart.call(plain(), GetCart { user_id }).await.unwrap().count, 100);
}

#[actix::test]
async fn p02_fifty_at_once_under_one_key_in_two_processes_run_once() {
    let Some(twins) = TwoProcesses::open() else { return };
    let (tea, user_id) = (twins.product(1_000).await, UserId::new());
    let add = |n: usize| {
        let request = AddItem { user_id, product_id: tea, quantity: 1 };
        twins.app(n).clients.cart.call(keyed("fifty"), request)
    };
    let all = join_all((0..50).map(add)).await;
    let answers: BTreeSet<_> = all.into_iter().map(|item| item.unwrap().id).collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(twins.one.clients.cart.call(plain(), GetCart { user_id }).await.unwrap().count, 1);
    // Work of several steps: whoever comes while it runs is told so.
    let invoice = CreateInvoice {
        user_id,
        lines: vec![InvoiceLine { description: "Tea".into(), product_id: None, quantity: 1, unit_price: 100 }],
        currency: Currency::EUR,
        email: None,
        hold: None,
        checkout: None,
        expires_at: None,
    };
    let invoice = twins.one.clients.payments.call(plain(), invoice).await.unwrap();
    let pay = |n: usize| {
        let request = PayInvoice { invoice_id: invoice.id, token: "tok_ok".into() };
        twins.app(n).clients.payments.call(keyed("pay"), request)
    };
    for answer in join_all((0..50).map(pay)).await {
        match answer {
            Ok(paid) => assert!(paid.paid_at.is_some()),
            Err(error) => assert_eq!(error, CommonError::RequestInProgress.into()),
        }
    }
    twins.settle().await;
    assert_eq!(consistency_check::run(&twins.one.clients).await.unwrap().violations, []);
}

#[actix::test]
async fn what_one_process_changes_the_other_shows_at_once() {
    let Some(twins) = TwoProcesses::open() else { return };
    let (tea, _) = (twins.product(10).await, twins.user("ada").await);
    let price =
        async |app: &App| app.clients.catalog.call(plain(), GetProduct { product_id: tea }).await.unwrap().price;
    for n in 0..20 {
        let (writer, reader) = (twins.app(n), twins.app(n + 1));
        price(reader).await;
        let patch = ProductPatch { price: Some(5_000 + n as i64), ..ProductPatch::default() };
        writer.clients.catalog.call(plain(), UpdateProduct { product_id: tea, patch }).await.unwrap();
        assert_eq!(price(reader).await, 5_000 + n as i64);
    }
    // A sign-in that ends in one is over in the other.
    let signed = SignIn { email: "ada@example.com".into(), password: "correct horse".into() };
    let nobody = || RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: false }, "r");
    let token = twins.one.clients.users.call(nobody(), signed).await.unwrap().token;
    let who = async |app: &App| {
        let request = Authenticate { token: token.clone() };
        app.clients.users.call(RequestContext::internal("gateway"), request).await
    };
    let identity = who(&twins.other).await.unwrap().identity;
    assert!(matches!(identity.credential, Credential::Session(_)));
    who(&twins.one).await.unwrap();
    let ctx = RequestContext::new(Caller::User { identity, internal: false }, "r");
    twins.other.clients.users.call(ctx, SignOut {}).await.unwrap();
    assert!(who(&twins.one).await.is_err());
}

#[actix::test]
async fn whoever_is_left_alone_may_remember_again() {
    if !tested_on_server() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let open = || App::open(Settings::for_test(dir.path()), Clock::system()).unwrap();
    let memory = |app: &App| app.stores().iter().all(|store| store.cache_lease().era().is_some() && store.is_leader());
    let one = open();
    assert!(memory(&one), "the first is alone");
    let other = open();
    assert!(
        one.stores().iter().all(|store| store.cache_lease().era().is_none()),
        "it made room before the second was open"
    );
    assert!(other.stores().iter().all(|store| store.cache_lease().era().is_none() && !store.is_leader()));
    one.close();
    let begun = Instant::now();
    while !memory(&other) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
