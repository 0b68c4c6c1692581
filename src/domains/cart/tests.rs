//! Tests of the cart through its messages, with a real catalog and real payments. A domain that does not respond is
//! simulated by a disabled client, a crash by dropping all tasks and opening the same folder again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use proptest::prelude::*;
use tempfile::TempDir;

use super::model::CheckoutState;
use super::*;
use crate::contract::catalog::{CreateProduct, DeleteProduct, HoldStock, NewProduct, ProductPatch, UpdateProduct};
use crate::contract::payments::{
    CreateInvoice, GetInvoice, Invoice, InvoiceStatus, ListInvoices, PayInvoice, PaymentsError, VoidInvoice,
};
use crate::contract::users::UserErased;
use crate::domains::catalog::{self};
use crate::domains::payments::{self};
use crate::events::{Relay, Subscriber};
use crate::messaging::{
    Caller, CommonError, Credential, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Identity, RequestContext,
    Role,
};
use crate::runtime::DomainRuntime;
use crate::settings::Settings;
use crate::store::query::*;
use crate::store::{Store, explain};
use crate::types::{Amount, CartItemId, Clock, Currency, EventId, ProductId, Quantity, SessionId, UserId};

/// Domains that are running.
#[derive(Clone, Copy)]
struct Dependencies {
    catalog: bool,
    payments: bool,
}

const ALL: Dependencies = Dependencies { catalog: true, payments: true };
const NO_CATALOG: Dependencies = Dependencies { catalog: false, payments: true };
const NO_PAYMENTS: Dependencies = Dependencies { catalog: true, payments: false };

struct TestCart {
    runtime: DomainRuntime,
    catalog: Client<CatalogActor>,
    payments: Client<PaymentsActor>,
    carts: Client<CartActor>,
    store: Store,
    relays: Vec<Relay>,
    clock: Clock,
    dir: TempDir,
}

impl TestCart {
    fn open(open: Dependencies) -> Self {
        Self::open_in(TempDir::new().unwrap(), Clock::system(), open)
    }

    fn open_in(dir: TempDir, clock: Clock, open: Dependencies) -> Self {
        let runtime = DomainRuntime::new(Settings::for_test(dir.path()), clock.clone());
        let (mut catalog, mut payments) = (Client::disabled("catalog"), Client::disabled("payments"));
        let (mut sold, mut paid) = (None, None);
        if open.catalog {
            let opened = catalog::open(&runtime).unwrap();
            (catalog, sold) = (opened.client, Some(opened.store));
        }
        if open.payments {
            let opened = payments::open(&runtime).unwrap();
            (payments, paid) = (opened.client, Some(opened.store));
        }
        let RunningDomain { client: carts, store } = super::open(&runtime, catalog.clone(), payments.clone()).unwrap();
        let mut relays = Vec::new();
        if let Some(paid) = paid {
            let mut to = vec![Subscriber::new("cart", SUBSCRIPTIONS, &carts)];
            if open.catalog {
                to.push(Subscriber::new("catalog", catalog::SUBSCRIPTIONS, &catalog));
            }
            relays.push(Relay::start(paid, to));
        }
        if let Some(sold) = sold.filter(|_| open.payments) {
            relays.push(Relay::start(sold, vec![Subscriber::new("payments", payments::SUBSCRIPTIONS, &payments)]));
        }
        Self { runtime, catalog, payments, carts, store, relays, clock, dir }
    }

    /// Drops all tasks and opens the same folder again, with these dependencies running.
    fn crash(self, open: Dependencies) -> Self {
        drop(self.relays);
        self.runtime.stop();
        Self::open_in(self.dir, self.clock, open)
    }

    async fn drain_events(&self) {
        let mut quiet = 0;
        while quiet < 2 {
            let mut settled = true;
            for relay in &self.relays {
                settled &= relay.source().outbox_is_drained(relay.subscribers()).await.unwrap();
            }
            quiet = if settled { quiet + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn product(&self, price: Amount, stock: Quantity) -> ProductId {
        self.product_in(price, stock, Currency::EUR).await
    }

    async fn product_in(&self, price: Amount, stock: Quantity, currency: Currency) -> ProductId {
        let product = NewProduct {
            name: "Teapot".to_owned(),
            sku: EventId::new().to_string(),
            description: String::new(),
            price,
            currency,
            stock,
            track_stock: true,
            compare_at_price: None,
            category: None,
            tags: Vec::new(),
            attributes: std::collections::BTreeMap::new(),
            group: None,
            options: std::collections::BTreeMap::new(),
        };
        self.catalog.call(RequestContext::internal("seed"), CreateProduct { product }).await.unwrap().id
    }

    async fn change(&self, product_id: ProductId, patch: ProductPatch) {
        self.catalog.call(RequestContext::internal("seed"), UpdateProduct { product_id, patch }).await.unwrap();
    }

    async fn stock(&self, product: ProductId) -> Quantity {
        let request = crate::contract::catalog::GetOffers { product_ids: vec![product] };
        self.catalog.call(RequestContext::internal("test"), request).await.unwrap()[0].stock
    }

    async fn add(&self, user: UserId, product_id: ProductId, quantity: Quantity) -> Result<CartItem, CartError> {
        self.carts.call(customer(user), AddItem { user_id: user, product_id, quantity }).await
    }

    async fn set(&self, user: UserId, item_id: CartItemId, quantity: i64) -> Result<Option<CartItem>, CartError> {
        self.carts.call(customer(user), SetQuantity { user_id: user, item_id, quantity }).await
    }

    async fn remove(&self, user: UserId, item_id: CartItemId) -> Result<(), CartError> {
        self.carts.call(customer(user), RemoveItem { user_id: user, item_id }).await
    }

    async fn cart(&self, user: UserId) -> Cart {
        self.carts.call(customer(user), GetCart { user_id: user }).await.unwrap()
    }

    async fn check_out(&self, ctx: RequestContext, user: UserId) -> Result<Invoice, CartError> {
        self.carts
            .call(
                ctx,
                Checkout { user_id: user, email: None, shipping_address: None, billing_address: None, note: None },
            )
            .await
    }

    async fn cancel(&self, user: UserId) -> Result<(), CartError> {
        self.carts.call(customer(user), CancelCheckout { user_id: user }).await
    }

    async fn pay(&self, user: UserId, invoice: &Invoice) -> Result<Invoice, PaymentsError> {
        let request = PayInvoice { invoice_id: invoice.id, token: "tok_ok".to_owned() };
        self.payments.call(keyed(customer(user), "pay"), request).await
    }

    async fn invoices(&self) -> Vec<Invoice> {
        self.payments.call(RequestContext::internal("test"), ListInvoices::default()).await.unwrap().items
    }

    /// The only checkout of a user.
    async fn checkout(&self, user: UserId) -> super::store::CheckoutRow {
        use super::schema::checkout as table;
        self.store
            .read(move |conn| {
                let rows = table::table.filter(table::user_id.eq(user));
                Ok::<_, CommonError>(rows.select(super::store::CheckoutRow::as_select()).get_result(conn)?)
            })
            .await
            .unwrap()
    }

    /// Waits until the only checkout of a user is in a state, and its stock needs no release.
    async fn wait_for(&self, user: UserId, state: CheckoutState) {
        let begun = Instant::now();
        loop {
            let row = self.checkout(user).await;
            if row.state == state && !row.release_due {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {row:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn events<E: Event>(&self) -> Vec<E> {
        let events = self.store.outbox_read_after("test", 10_000).await.unwrap();
        events.iter().filter_map(|(_, event)| event.decode::<E>().unwrap()).collect()
    }

    async fn deliver<E: Event>(&self, event: &E) {
        let event = EventEnvelope {
            id: EventId::new(),
            name: E::NAME.to_owned(),
            at: self.clock.now(),
            data: serde_json::to_value(event).unwrap(),
            trace: None,
        };
        self.carts.call(RequestContext::internal("events"), DeliverEvents { events: vec![event] }).await.unwrap();
    }

    /// Inserts a line directly, as if it had been added while the catalog was up.
    async fn add_without_catalog(&self, user: UserId, quantity: Quantity) -> CartItemId {
        let row = super::store::ItemRow {
            id: CartItemId::new(),
            user_id: user,
            product_id: ProductId::new(),
            quantity,
            unit_price: 5,
            currency: Currency::EUR,
            name: "Teapot".to_owned(),
            slug: "teapot".to_owned(),
            created_at: self.clock.now(),
        };
        self.store.write(move |tx| Ok::<_, CartError>(super::store::add(tx.conn, &row)?.0)).await.unwrap()
    }

    /// Counts the user's lines in the database, without current prices.
    async fn line_count(&self, user: UserId) -> usize {
        self.store.read(move |conn| Ok::<_, CommonError>(super::store::items(conn, user)?.len())).await.unwrap()
    }
}

fn user_context(user_id: UserId, role: Role) -> RequestContext {
    let credential = Credential::Session(SessionId::new());
    RequestContext::new(Caller::User { identity: Identity::new(user_id, role, credential), internal: false }, "test")
}

fn customer(user: UserId) -> RequestContext {
    user_context(user, Role::Customer)
}

fn keyed(ctx: RequestContext, key: &str) -> RequestContext {
    ctx.with_key(IdempotencyKey::parse(key).unwrap())
}

fn price(price: Amount) -> ProductPatch {
    ProductPatch { price: Some(price), ..ProductPatch::default() }
}

fn stock(stock: Quantity) -> ProductPatch {
    ProductPatch { stock: Some(stock), ..ProductPatch::default() }
}

// Lines.

#[actix::test]
async fn added_quantities_sum_up_within_stock() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    let tea = shop.product(250, 5).await;
    let first = shop.add(user, tea, 2).await.unwrap();
    assert_eq!((first.quantity, first.unit_price, first.total, first.changed), (2, 250, 500, None));
    let more = shop.add(user, tea, 3).await.unwrap();
    assert_eq!((more.id, more.quantity, more.total), (first.id, 5, 1250));
    let out = CartError::OutOfStock { product_id: tea, left: 5 };
    assert_eq!(shop.add(user, tea, 1).await, Err(out.clone()));
    assert_eq!(shop.set(user, first.id, 6).await, Err(out));
    assert_eq!(shop.add(user, ProductId::new(), 1).await, Err(CartError::ProductNotFound));
    let gone = shop.product(1, 5).await;
    shop.catalog.call(RequestContext::internal("seed"), DeleteProduct { product_id: gone }).await.unwrap();
    assert_eq!(shop.add(user, gone, 1).await, Err(CartError::ProductNotFound));
    for quantity in [0, -1, 10_001] {
        let wrong = shop.add(user, tea, quantity).await.unwrap_err();
        assert!(matches!(wrong, CartError::Common(CommonError::ValidationFailed { .. })), "{wrong:?}");
    }
    let plenty = shop.product(1, 1_000_000).await;
    shop.add(user, plenty, 10_000).await.unwrap();
    let wrong = shop.add(user, plenty, 1).await.unwrap_err();
    assert!(matches!(wrong, CartError::Common(CommonError::ValidationFailed { .. })), "{wrong:?}");
    let cart = shop.cart(user).await;
    assert_eq!((cart.count, cart.total, cart.invoice_id), (10_005, 11_250, None));
}

#[actix::test]
async fn p08_hundred_parallel_adds_sum_up() {
    let shop = TestCart::open(ALL);
    for (in_stock, expected) in [(1_000, 100), (60, 60)] {
        let (user, tea) = (UserId::new(), shop.product(1, in_stock).await);
        let answers = join_all((0..100).map(|_| shop.add(user, tea, 1))).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), expected);
        assert_eq!(shop.cart(user).await.count, i64::try_from(expected).unwrap());
        assert_eq!(shop.cart(user).await.items.len(), 1);
    }
    assert_eq!(shop.events::<CartStarted>().await.len(), 2);
}

#[actix::test]
async fn p02_fifty_adds_with_one_key_add_once() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    let tea = shop.product(1, 100).await;
    let request = AddItem { user_id: user, product_id: tea, quantity: 2 };
    let answers = join_all((0..50).map(|_| shop.carts.call(keyed(customer(user), "k"), request.clone()))).await;
    assert!(answers.iter().all(|answer| answer == &answers[0] && answer.is_ok()));
    // A later replay too, even though the stock has changed.
    shop.change(tea, stock(0)).await;
    let ctx = keyed(customer(user), "k");
    assert_eq!(shop.carts.call(ctx.clone(), request.clone()).await, answers[0]);
    assert!(ctx.is_replayed());
    assert_eq!(shop.cart(user).await.count, 2);
    let other = AddItem { quantity: 1, ..request };
    let reused = shop.carts.call(keyed(customer(user), "k"), other).await;
    assert_eq!(reused, Err(CommonError::IdempotencyKeyReused.into()));
}

#[actix::test]
async fn cart_shows_current_prices_and_changes() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    let [dear, scarce, gone, same] = [10, 20, 40, 80].map(|price| shop.product(price, 9));
    let products = [dear.await, scarce.await, gone.await, same.await];
    for product in products {
        shop.add(user, product, 3).await.unwrap();
    }
    shop.change(products[0], price(11)).await;
    shop.change(products[1], stock(2)).await;
    shop.catalog.call(RequestContext::internal("seed"), DeleteProduct { product_id: products[2] }).await.unwrap();
    let cart = shop.cart(user).await;
    let changes: Vec<_> = cart.items.iter().map(|item| item.changed).collect();
    assert_eq!(changes, [Some(Change::Price), Some(Change::Stock), Some(Change::Unavailable), None]);
    assert_eq!(cart.items.iter().map(|item| item.product_id).collect::<Vec<_>>(), products);
    assert_eq!((cart.total, cart.count), (33 + 60 + 240, 12));
    assert_eq!((cart.items[0].unit_price, cart.items[0].added_unit_price), (11, 10));
    // A change of the quantity accepts the current price.
    let seen = shop.set(user, cart.items[0].id, 2).await.unwrap().unwrap();
    assert_eq!((seen.changed, seen.added_unit_price, seen.total), (None, 11, 22));
    let read = shop.carts.call(customer(user), GetItem { user_id: user, item_id: seen.id }).await;
    assert_eq!(read, Ok(seen));
    assert_eq!(shop.set(user, cart.items[2].id, 1).await, Err(CartError::ProductNotFound));
}

#[actix::test]
async fn cart_has_one_currency_and_at_most_100_lines() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    shop.add(user, shop.product(1, 1).await, 1).await.unwrap();
    let dollars = shop.product_in(1, 1, "USD".parse().unwrap()).await;
    let mismatch = Err(CartError::CurrencyMismatch { currency: Currency::EUR });
    assert_eq!(shop.add(user, dollars, 1).await, mismatch);
    for _ in 1..100 {
        shop.add(user, shop.product(1, 1).await, 1).await.unwrap();
    }
    assert_eq!(shop.add(user, shop.product(1, 1).await, 1).await, Err(CartError::CartFull { max: 100 }));
    assert_eq!(shop.cart(user).await.items.len(), 100);
}

#[actix::test]
async fn cart_of_another_user_is_inaccessible() {
    let (shop, ada, bob) = (TestCart::open(ALL), UserId::new(), UserId::new());
    let item = shop.add(ada, shop.product(1, 9).await, 1).await.unwrap().id;
    let foreign = shop.carts.call(customer(bob), GetCart { user_id: ada }).await;
    assert_eq!(foreign, Err(CommonError::Forbidden.into()));
    assert_eq!(shop.set(bob, item, 5).await, Err(CartError::ItemNotFound));
    assert_eq!(shop.set(bob, item, 0).await, Err(CartError::ItemNotFound));
    assert_eq!(shop.remove(bob, item).await, Err(CartError::ItemNotFound));
    let read = shop.carts.call(customer(bob), GetItem { user_id: bob, item_id: item }).await;
    assert_eq!(read, Err(CartError::ItemNotFound));
    assert_eq!(shop.cart(ada).await.count, 1);
}

#[actix::test]
async fn lines_are_removed_while_the_catalog_is_down() {
    let (shop, user) = (TestCart::open(NO_CATALOG), UserId::new());
    let (first, second) = (shop.add_without_catalog(user, 1).await, shop.add_without_catalog(user, 2).await);
    assert_eq!(shop.set(user, first, 0).await, Ok(None));
    assert_eq!(shop.set(user, first, 0).await, Err(CartError::ItemNotFound));
    let request = RemoveItem { user_id: user, item_id: second };
    for replayed in [false, true] {
        let ctx = keyed(customer(user), "k");
        assert_eq!(shop.carts.call(ctx.clone(), request.clone()).await, Ok(()));
        assert_eq!(ctx.is_replayed(), replayed);
    }
    let cart = shop.cart(user).await;
    assert_eq!((cart.items.len(), cart.total, cart.currency), (0, 0, Currency::EUR));
    assert_eq!(shop.add(user, ProductId::new(), 1).await, Err(CommonError::Unavailable.into()));
}

// From cart to invoice.

#[actix::test]
async fn p09_invoice_charges_exactly_what_the_cart_showed() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    let (tea, cup) = (shop.product(333, 10).await, shop.product(1, 10).await);
    let item = shop.add(user, tea, 3).await.unwrap().id;
    shop.add(user, cup, 2).await.unwrap();
    // The price has risen since the line was added: the buyer pays the current one, at which the stock was held.
    shop.change(tea, price(335)).await;
    let seen = shop.cart(user).await.total;
    let ctx = keyed(customer(user), "k");
    let invoice = shop.check_out(ctx.clone(), user).await.unwrap();
    assert_eq!((invoice.total, invoice.status, invoice.lines.len()), (seen, InvoiceStatus::Open, 2));
    assert_eq!((shop.stock(tea).await, shop.stock(cup).await), (7, 8));
    let busy = CartError::CheckoutInProgress { invoice_id: Some(invoice.id) };
    assert_eq!(shop.add(user, cup, 1).await, Err(busy.clone()));
    assert_eq!(shop.set(user, item, 1).await, Err(busy.clone()));
    assert_eq!(shop.remove(user, item).await, Err(busy.clone()));
    assert_eq!(shop.check_out(keyed(customer(user), "l"), user).await, Err(busy));
    assert_eq!(shop.check_out(ctx.clone(), user).await, Ok(invoice.clone()));
    assert!(ctx.is_replayed());
    shop.change(tea, price(999)).await;
    assert_eq!(shop.cart(user).await.invoice_id, Some(invoice.id));
    assert_eq!(shop.pay(user, &invoice).await.unwrap().total, seen);
    shop.drain_events().await;
    let cart = shop.cart(user).await;
    assert_eq!((cart.items.len(), cart.invoice_id), (0, None));
    assert_eq!((shop.stock(tea).await, shop.stock(cup).await), (7, 8));
    // The key replays the first response; another checkout finds an empty cart; a new line starts a new cart.
    assert_eq!(shop.check_out(ctx, user).await, Ok(invoice));
    assert_eq!(shop.check_out(keyed(customer(user), "m"), user).await, Err(CartError::CartEmpty));
    assert_eq!(shop.cancel(user).await, Err(CartError::NoCheckout));
    shop.add(user, cup, 1).await.unwrap();
    assert_eq!(shop.events::<CartStarted>().await.len(), 2);
}

#[actix::test]
async fn p02_fifty_checkouts_create_one_invoice() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    for one_key in [true, false] {
        let tea = shop.product(5, 10).await;
        shop.add(user, tea, 2).await.unwrap();
        let calls = (0..50).map(|n| {
            let key = if one_key { "one".to_owned() } else { format!("k{n}") };
            shop.check_out(keyed(customer(user), &key), user)
        });
        let answers = join_all(calls).await;
        let made: Vec<&Invoice> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        assert!(!made.is_empty() && made.iter().all(|invoice| *invoice == made[0]));
        assert!(one_key || made.len() == 1);
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            let waits = *error == CommonError::RequestInProgress.into();
            assert!(if one_key { waits } else { matches!(error, CartError::CheckoutInProgress { .. }) }, "{error:?}");
        }
        assert_eq!(shop.stock(tea).await, 8);
        shop.cancel(user).await.unwrap();
        let item = shop.cart(user).await.items[0].id;
        shop.remove(user, item).await.unwrap();
    }
    assert_eq!(shop.invoices().await.len(), 2);
}

#[actix::test]
async fn p07_last_units_are_invoiced_once() {
    let shop = TestCart::open(ALL);
    let tea = shop.product(5, 7).await;
    let buyers: Vec<UserId> = (0..12).map(|_| UserId::new()).collect();
    for buyer in &buyers {
        shop.add(*buyer, tea, 1).await.unwrap();
    }
    let answers = join_all(buyers.iter().map(|user| shop.check_out(keyed(customer(*user), "k"), *user))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 7);
    let out = CartError::OutOfStock { product_id: tea, left: 0 };
    assert_eq!(answers.iter().filter(|answer| answer.as_ref() == Err(&out)).count(), 5);
    assert_eq!((shop.stock(tea).await, shop.invoices().await.len()), (0, 7));
    let refused = buyers[answers.iter().position(Result::is_err).unwrap()];
    assert_eq!(shop.cart(refused).await.items[0].changed, Some(Change::Stock));
    shop.change(tea, stock(1)).await;
    let ctx = keyed(customer(refused), "k");
    assert!(shop.check_out(ctx.clone(), refused).await.is_ok());
    assert!(!ctx.is_replayed());
}

#[actix::test]
async fn checkout_with_a_deleted_product_is_rejected() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    let (tea, gone) = (shop.product(5, 10).await, shop.product(5, 10).await);
    shop.add(user, tea, 2).await.unwrap();
    let item = shop.add(user, gone, 2).await.unwrap().id;
    shop.catalog.call(RequestContext::internal("seed"), DeleteProduct { product_id: gone }).await.unwrap();
    assert_eq!(shop.check_out(customer(user), user).await, Err(CartError::ProductNotFound));
    assert_eq!(shop.stock(tea).await, 10);
    shop.remove(user, item).await.unwrap();
    assert_eq!(shop.check_out(customer(user), user).await.unwrap().total, 10);
}

#[actix::test]
async fn unpaid_checkout_releases_stock_and_cart() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    let tea = shop.product(5, 10).await;
    shop.add(user, tea, 4).await.unwrap();
    let invoice = shop.check_out(customer(user), user).await.unwrap();
    shop.clock.advance(Duration::from_secs(31 * 60));
    shop.wait_for(user, CheckoutState::Cancelled).await;
    shop.drain_events().await;
    let read = GetInvoice { invoice_id: invoice.id };
    assert_eq!(shop.payments.call(customer(user), read).await.unwrap().status, InvoiceStatus::Expired);
    let cart = shop.cart(user).await;
    assert_eq!((cart.count, cart.invoice_id, shop.stock(tea).await), (4, None, 10));
    assert!(shop.add(user, tea, 1).await.is_ok());
}

#[actix::test]
async fn checkout_can_be_cancelled_until_it_is_paid() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    let tea = shop.product(5, 10).await;
    assert_eq!(shop.cancel(user).await, Err(CartError::NoCheckout));
    shop.add(user, tea, 4).await.unwrap();
    let invoice = shop.check_out(customer(user), user).await.unwrap();
    for replayed in [false, true] {
        let ctx = keyed(customer(user), "c");
        assert_eq!(shop.carts.call(ctx.clone(), CancelCheckout { user_id: user }).await, Ok(()));
        assert_eq!(ctx.is_replayed(), replayed);
    }
    assert_eq!(shop.pay(user, &invoice).await, Err(PaymentsError::InvoiceVoid));
    shop.drain_events().await;
    assert_eq!((shop.cart(user).await.invoice_id, shop.stock(tea).await), (None, 10));
    let invoice = shop.check_out(customer(user), user).await.unwrap();
    shop.pay(user, &invoice).await.unwrap();
    assert_eq!(shop.cancel(user).await, Err(CartError::NoCheckout));
}

#[actix::test]
async fn guest_must_give_an_email_address() {
    let (shop, user) = (TestCart::open(ALL), UserId::new());
    shop.add(user, shop.product(5, 10).await, 1).await.unwrap();
    let check_out = |role, email: Option<&str>| {
        let request = Checkout {
            user_id: user,
            email: email.map(str::to_owned),
            shipping_address: None,
            billing_address: None,
            note: None,
        };
        shop.carts.call(user_context(user, role), request)
    };
    for (role, email, code) in [
        (Role::Guest, None, "required"),
        (Role::Guest, Some(" "), "required"),
        (Role::Guest, Some("ada"), "invalid_email"),
        (Role::Customer, Some("ada@"), "invalid_email"),
    ] {
        let Err(CartError::Common(CommonError::ValidationFailed { errors })) = check_out(role, email).await else {
            panic!("{email:?} was taken");
        };
        assert_eq!((errors.len(), &*errors[0].field, &*errors[0].code), (1, "email", code));
    }
    let invoice = check_out(Role::Guest, Some("Ada@example.com")).await.unwrap();
    assert_eq!(invoice.email.unwrap().as_str(), "ada@example.com");
}

#[actix::test]
async fn p11_payment_after_stock_is_gone_is_refunded() {
    let (shop, late, quick) = (TestCart::open(ALL), UserId::new(), UserId::new());
    let tea = shop.product(5, 1).await;
    shop.add(late, tea, 1).await.unwrap();
    let invoice = shop.check_out(customer(late), late).await.unwrap();
    let slow = PayInvoice { invoice_id: invoice.id, token: "tok_slow".to_owned() };
    let paying = shop.payments.call(keyed(customer(late), "pay"), slow);
    let read =
        async |id| shop.payments.call(RequestContext::internal("test"), GetInvoice { invoice_id: id }).await.unwrap();
    let processing = async |id| read(id).await.processing;
    let meanwhile = async {
        let begun = Instant::now();
        while !processing(invoice.id).await {
            assert!(begun.elapsed() < Duration::from_secs(60), "the payment never began");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // While the provider is busy, the hold expires and another buyer takes the last unit.
        shop.clock.advance(Duration::from_secs(36 * 60));
        let begun = Instant::now();
        while shop.add(quick, tea, 1).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "the reservation never ran out");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let invoice = shop.check_out(customer(quick), quick).await.unwrap();
        shop.pay(quick, &invoice).await.unwrap()
    };
    let (paid, other) = tokio::join!(paying, meanwhile);
    assert_eq!(paid.unwrap().status, InvoiceStatus::Paid);
    let begun = Instant::now();
    while read(invoice.id).await.status != InvoiceStatus::Refunded {
        assert!(begun.elapsed() < Duration::from_secs(60), "the money stayed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((read(other.id).await.status, shop.stock(tea).await), (InvoiceStatus::Paid, 0));
}

// Crashes and outages.

#[actix::test]
async fn p03_checkout_resumes_when_the_catalog_is_back() {
    for already_held in [false, true] {
        let (shop, user) = (TestCart::open(ALL), UserId::new());
        let tea = shop.product(5, 10).await;
        shop.add(user, tea, 4).await.unwrap();
        let shop = shop.crash(NO_CATALOG);
        let ctx = keyed(customer(user), "k");
        assert_eq!(shop.check_out(ctx.clone(), user).await, Err(CommonError::Unavailable.into()));
        // The outcome is unknown, so the same request is in progress and the cart stays locked.
        assert_eq!(shop.check_out(ctx.clone(), user).await, Err(CommonError::RequestInProgress.into()));
        let changed = Checkout {
            user_id: user,
            email: Some("ada@example.com".to_owned()),
            shipping_address: None,
            billing_address: None,
            note: None,
        };
        assert_eq!(shop.carts.call(ctx, changed).await, Err(CommonError::IdempotencyKeyReused.into()));
        let busy = Err(CartError::CheckoutInProgress { invoice_id: None });
        assert_eq!(shop.check_out(keyed(customer(user), "l"), user).await, busy);
        let row = shop.checkout(user).await;
        if already_held {
            // As if the hold had been made and its response lost.
            let runtime = DomainRuntime::new(Settings::for_test(shop.dir.path()), shop.clock.clone());
            let catalog = catalog::open(&runtime).unwrap().client;
            let lines = row.frozen_lines().unwrap().into_iter().map(Into::into).collect();
            let request = HoldStock { hold: row.hold, lines, expires_at: row.expires_at };
            catalog.call(RequestContext::internal("cart"), request).await.unwrap();
            runtime.stop();
        }
        let shop = shop.crash(ALL);
        shop.wait_for(user, CheckoutState::Invoiced).await;
        assert_eq!((shop.stock(tea).await, shop.invoices().await.len()), (6, 1));
        let ctx = keyed(customer(user), "k");
        let invoice = shop.check_out(ctx.clone(), user).await.unwrap();
        assert!(ctx.is_replayed());
        assert_eq!(vec![invoice], shop.invoices().await);
    }
}

#[actix::test]
async fn p03_checkout_resumes_when_payments_are_back() {
    for already_made in [false, true] {
        let (shop, user) = (TestCart::open(NO_PAYMENTS), UserId::new());
        let tea = shop.product(5, 10).await;
        shop.add(user, tea, 4).await.unwrap();
        let unknown = shop.check_out(keyed(customer(user), "k"), user).await;
        assert_eq!(unknown, Err(CommonError::Unavailable.into()));
        // An invoice may exist, so the checkout cannot be cancelled.
        assert_eq!(shop.cancel(user).await, Err(CartError::CheckoutInProgress { invoice_id: None }));
        let row = shop.checkout(user).await;
        assert_eq!((row.state.as_str(), shop.stock(tea).await), ("held", 6));
        if already_made {
            // As if the invoice had been created and paid, and the response lost.
            let runtime = DomainRuntime::new(Settings::for_test(shop.dir.path()), shop.clock.clone());
            let payments = payments::open(&runtime).unwrap().client;
            let (currency, lines) = row.priced_lines().unwrap();
            let request = CreateInvoice {
                user_id: user,
                lines,
                currency,
                shipping: None,
                tax_included: true,
                shipping_address: None,
                billing_address: None,
                note: None,
                email: None,
                hold: Some(row.hold),
                checkout: Some(row.id),
                expires_at: Some(row.expires_at),
            };
            let invoice = payments.call(RequestContext::internal("cart"), request).await.unwrap();
            let pay = PayInvoice { invoice_id: invoice.id, token: "tok_ok".to_owned() };
            payments.call(keyed(customer(user), "pay"), pay).await.unwrap();
            runtime.stop();
        }
        let shop = shop.crash(ALL);
        let end = if already_made { CheckoutState::Paid } else { CheckoutState::Invoiced };
        shop.wait_for(user, end).await;
        shop.drain_events().await;
        let ctx = keyed(customer(user), "k");
        let begun = Instant::now();
        let invoice = loop {
            match shop.check_out(ctx.clone(), user).await {
                Ok(invoice) => break invoice,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "no response was saved: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // The recovery or this very request saved the response, whichever came first: from now on it is replayed.
        let repeated = keyed(customer(user), "k");
        assert_eq!(shop.check_out(repeated.clone(), user).await.unwrap().id, invoice.id);
        assert!(repeated.is_replayed());
        assert_eq!((shop.invoices().await.len(), shop.stock(tea).await), (1, 6));
        assert_eq!(shop.cart(user).await.items.is_empty(), already_made);
    }
}

#[actix::test]
async fn expired_checkout_fails_and_releases_its_stock() {
    // The stock is held, and payments reject the expired invoice.
    let (shop, user) = (TestCart::open(NO_PAYMENTS), UserId::new());
    let tea = shop.product(5, 10).await;
    shop.add(user, tea, 4).await.unwrap();
    assert!(shop.check_out(customer(user), user).await.is_err());
    shop.clock.advance(Duration::from_secs(31 * 60));
    let shop = shop.crash(ALL);
    shop.wait_for(user, CheckoutState::Failed).await;
    assert_eq!((shop.stock(tea).await, shop.invoices().await.len()), (10, 0));
    assert!(shop.add(user, tea, 1).await.is_ok());
}

#[actix::test]
async fn unstarted_checkout_can_be_cancelled() {
    let (shop, ada, bob) = (TestCart::open(NO_CATALOG), UserId::new(), UserId::new());
    for user in [ada, bob] {
        shop.add_without_catalog(user, 1).await;
        assert_eq!(shop.check_out(customer(user), user).await, Err(CommonError::Unavailable.into()));
    }
    // One is cancelled by its buyer, one expires.
    let begun = Instant::now();
    while let Err(busy) = shop.cancel(ada).await {
        // The timer may be resuming it at this moment.
        assert_eq!(busy, CartError::CheckoutInProgress { invoice_id: None });
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert_eq!(shop.remove(ada, shop.add_without_catalog(ada, 1).await).await, Ok(()));
    shop.clock.advance(Duration::from_secs(31 * 60));
    let begun = Instant::now();
    while shop.checkout(bob).await.state != CheckoutState::Failed {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The catalog may have made a hold, so it is released when the catalog is back.
    assert!(shop.checkout(ada).await.release_due && shop.checkout(bob).await.release_due);
}

#[actix::test]
async fn p01_checkout_without_response_keeps_its_invoice() {
    let shop = TestCart::open(ALL);
    let (user, product) = (UserId::new(), shop.product(500, 10).await);
    shop.add(user, product, 2).await.unwrap();
    let ctx = || keyed(customer(user), "k");
    let first = shop.check_out(ctx(), user).await.unwrap();
    shop.payments.call(RequestContext::internal("test"), VoidInvoice { invoice_id: first.id }).await.unwrap();
    shop.drain_events().await;
    shop.wait_for(user, CheckoutState::Cancelled).await;
    // As after a crash: the invoice's event was applied, and the response was never saved.
    let forget = |tx: &mut crate::store::Tx<'_>| {
        diesel::sql_query("DELETE FROM idempotency").execute(tx.conn)?;
        diesel::sql_query("UPDATE checkout SET invoice_id = NULL").execute(tx.conn)?;
        Ok::<_, CommonError>(())
    };
    shop.store.write(forget).await.unwrap();
    for _ in 0..2 {
        assert_eq!(shop.check_out(ctx(), user).await.unwrap().id, first.id);
    }
    assert_eq!(shop.invoices().await.len(), 1);
    let other = shop.check_out(keyed(customer(user), "another"), user).await.unwrap();
    assert_ne!(other.id, first.id);
}

#[actix::test]
async fn erased_user_leaves_no_cart() {
    let (shop, ada, bob) = (TestCart::open(NO_CATALOG), UserId::new(), UserId::new());
    for user in [ada, bob] {
        shop.add_without_catalog(user, 1).await;
        let request = Checkout {
            user_id: user,
            email: Some("ada@example.com".to_owned()),
            shipping_address: None,
            billing_address: None,
            note: None,
        };
        assert!(shop.carts.call(customer(user), request).await.is_err());
    }
    shop.deliver(&UserErased { user_id: ada, email: None }).await;
    assert_eq!((shop.line_count(ada).await, shop.line_count(bob).await), (0, 1));
    let (erased, other) = (shop.checkout(ada).await, shop.checkout(bob).await);
    assert_eq!((erased.state.as_str(), erased.email, erased.release_due), ("failed", None, true));
    assert_eq!((other.state.as_str(), other.email.is_some()), ("started", true));
}

#[actix::test]
async fn queries_use_indexes() {
    if crate::store::tested_on_server() {
        return;
    }
    use super::store;
    let (shop, user) = (TestCart::open(NO_CATALOG), UserId::new());
    let item = shop.add_without_catalog(user, 1).await;
    let found = explain(&shop.store, move |conn| {
        store::freezing_invoice(conn, user).unwrap();
        store::active_checkout(conn, user).unwrap();
        store::find_unfinished(conn, 64).unwrap();
        store::line_stats(conn, user).unwrap();
        store::other_currency(conn, user, Currency::EUR).unwrap();
        store::items(conn, user).unwrap();
        store::item(conn, user, item).unwrap();
        store::remove_bought(conn, user, &[model::FrozenLine { product_id: ProductId::new(), quantity: 1 }]).unwrap();
        store::erase(conn, user).unwrap();
    });
    let found = found.await;
    assert!(found.len() >= 12, "{found:?}");
    for (query, step) in found {
        // The partial index contains unfinished checkouts only, so scanning it does not grow with the data.
        assert!(!step.starts_with("SCAN") || step.contains("checkout_unfinished"), "{step}: {query}");
    }
}

proptest! {
    #[test]
    fn ended_checkout_never_locks_the_cart_again(steps in proptest::collection::vec(0..6_usize, 0..20)) {
        let mut state = CheckoutState::Started;
        for next in steps.into_iter().map(|n| CheckoutState::ALL[n]) {
            if state.may_become(next) {
                prop_assert!(state.locks_cart() && next != CheckoutState::Started);
                state = next;
            }
        }
    }

    #[test]
    fn total_is_the_sum_of_available_lines(
        lines in proptest::collection::vec((1..=10_000_i64, 0..=1_000_000_000_000_i64, any::<bool>()), 0..100)
    ) {
        let exact: i128 = lines
            .iter()
            .filter(|(_, _, for_sale)| *for_sale)
            .map(|(quantity, price, _)| i128::from(*quantity) * i128::from(*price))
            .sum();
        let items: Vec<CartItem> = lines
            .into_iter()
            .map(|(quantity, unit_price, for_sale)| {
                let product_id = ProductId::new();
                let line = model::CartLine {
                    id: CartItemId::new(),
                    product_id,
                    quantity,
                    unit_price,
                    currency: Currency::EUR,
                    name: String::new(),
                    slug: String::new(),
                };
                let offer = crate::contract::catalog::Offer {
                    product_id,
                    name: String::new(),
                    sku: String::new(),
                    slug: String::new(),
                    price: unit_price,
                    currency: Currency::EUR,
                    stock: quantity,
                    deleted: !for_sale,
                    image: None,
                };
                model::at_current_price(line, Some(&offer), Currency::EUR)
            })
            .collect();
        prop_assert_eq!(i128::from(model::total(&items)), exact);
    }
}
