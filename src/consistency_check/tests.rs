//! A consistent shop has no violation, however its orders ended; each one that is caused on purpose is found.

use tempfile::TempDir;

use super::*;
use crate::app::App;
use crate::contract::cart::{AddItem, Checkout};
use crate::contract::catalog::{CreateProduct, NewProduct};
use crate::contract::comments::ImportComment;
use crate::contract::payments::{Invoice, PayInvoice, RefundInvoice, VoidInvoice};
use crate::contract::users::{CreateUser, DeleteUser};
use crate::messaging::IdempotencyKey;
use crate::messaging::Role;
use crate::settings::Settings;
use crate::types::{Clock, UserId};

struct TestShop {
    app: App,
    clock: Clock,
    dir: TempDir,
}

fn keyed(key: &str) -> RequestContext {
    RequestContext::internal("test").with_key(IdempotencyKey::parse(key).unwrap())
}

fn unkeyed() -> RequestContext {
    RequestContext::internal("test")
}

impl TestShop {
    fn open() -> Self {
        let _ = env_logger::builder().is_test(true).try_init();
        let (dir, clock) = (TempDir::new().unwrap(), Clock::system());
        let app = App::open(Settings::for_test(dir.path()), clock.clone()).unwrap();
        Self { app, clock, dir }
    }

    async fn user(&self, name: &str) -> UserId {
        let email = format!("{name}@example.com");
        let request = CreateUser {
            email,
            password: "correct horse".into(),
            name: name.into(),
            role: Role::Customer,
            created_at: None,
        };
        self.app.clients.users.call(unkeyed(), request).await.unwrap().id
    }

    async fn product(&self) -> ProductId {
        let product: NewProduct = serde_json::from_value(serde_json::json!({
            "name": "Teapot", "sku": uuid::Uuid::now_v7().to_string(), "description": "Round", "price": 4_800,
            "currency": "EUR", "stock": 100,
        }))
        .unwrap();
        self.app.clients.catalog.call(unkeyed(), CreateProduct { product }).await.unwrap().id
    }

    async fn order(&self, user_id: UserId, product_id: ProductId) -> Invoice {
        let cart = &self.app.clients.cart;
        cart.call(unkeyed(), AddItem { user_id, product_id, quantity: 2 }).await.unwrap();
        cart.call(
            unkeyed(),
            Checkout { user_id, email: None, shipping_address: None, billing_address: None, note: None },
        )
        .await
        .unwrap()
    }

    async fn pay(&self, invoice: &Invoice) {
        let request = PayInvoice { invoice_id: invoice.id, token: "tok_ok".into() };
        self.app.clients.payments.call(keyed(&format!("pay/{}", invoice.id)), request).await.unwrap();
        self.app.settle().await.unwrap();
    }

    /// Opens a shop with one order per outcome: paid, refunded with and without restocking, void, expired, open, of an
    /// erased user.
    async fn with_orders() -> (Self, Invoice) {
        let shop = Self::open();
        let product = shop.product().await;
        let payments = &shop.app.clients.payments;
        let mut paid = None;
        for (name, restock) in [("kept", None), ("back", Some(true)), ("money", Some(false))] {
            let invoice = shop.order(shop.user(name).await, product).await;
            shop.pay(&invoice).await;
            if let Some(restock) = restock {
                let request = RefundInvoice { invoice_id: invoice.id, amount: None, restock, lines: None };
                payments.call(keyed(&format!("refund/{}", invoice.id)), request).await.unwrap();
            }
            paid.get_or_insert(invoice);
        }
        let late = shop.order(shop.user("late").await, product).await;
        shop.clock.advance(Duration::from_secs(24 * 3_600));
        payments.call(unkeyed(), VoidInvoice { invoice_id: late.id }).await.ok();
        let void = shop.order(shop.user("void").await, product).await;
        payments.call(unkeyed(), VoidInvoice { invoice_id: void.id }).await.unwrap();
        shop.app.settle().await.unwrap();
        let gone = shop.user("gone").await;
        shop.pay(&shop.order(gone, product).await).await;
        shop.app.clients.users.call(unkeyed(), DeleteUser { user_id: gone }).await.unwrap();
        let author = shop.user("author").await;
        let comment = ImportComment {
            product_id: product,
            user_id: author,
            author: "A".into(),
            rating: 4,
            text: "Good.".into(),
            at: shop.clock.now(),
        };
        shop.app.clients.comments.call(unkeyed(), comment).await.unwrap();
        shop.order(shop.user("open").await, product).await;
        (shop, paid.unwrap())
    }

    fn execute(&self, domain: &str, sql: &str) {
        let file = self.dir.path().join(format!("{domain}.db"));
        let mut conn = crate::store::Conn::establish(&file.to_string_lossy()).unwrap();
        conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; PRAGMA ignore_check_constraints = ON; {sql}"))
            .unwrap();
    }

    async fn violations(&self) -> Vec<Violation> {
        run(&self.app.clients).await.unwrap().violations
    }
}

#[actix::test]
async fn p14_orders_of_every_outcome_are_consistent() {
    let (shop, _) = TestShop::with_orders().await;
    let report = run(&shop.app.clients).await.unwrap();
    assert_eq!(report.violations, []);
    assert_eq!((report.checked["invoices"], report.checked["holds"]), (7, 7));
}

#[actix::test]
async fn broken_invariants_are_found() {
    if crate::store::tested_on_server() {
        return;
    }
    let (shop, paid) = TestShop::with_orders().await;
    let id = paid.id;
    assert_eq!(shop.violations().await, []);
    // Database, statement that breaks an invariant, statement that restores it, part of the violation.
    let cases: Vec<(&str, String, String, &str)> = vec![
        (
            "catalog",
            "UPDATE product SET stock = stock + 1".into(),
            "UPDATE product SET stock = stock - 1".into(),
            "sum of its moves",
        ),
        (
            "catalog",
            "UPDATE hold SET state = 'released' WHERE state = 'sold'".into(),
            "UPDATE hold SET state = 'sold' WHERE id IN (SELECT ref FROM stock_move GROUP BY ref HAVING SUM(delta) < 0)
             AND id NOT IN (SELECT id FROM hold ORDER BY id DESC LIMIT 1)"
                .into(),
            "stock and invoice disagree",
        ),
        (
            "payments",
            "UPDATE counter SET value = value + 1".into(),
            "UPDATE counter SET value = value - 1".into(),
            "the invoice counter must equal",
        ),
        (
            "payments",
            format!("UPDATE invoice SET total = total + 1 WHERE id = '{id}'"),
            format!("UPDATE invoice SET total = total - 1 WHERE id = '{id}'"),
            "sum of its lines",
        ),
        (
            "payments",
            format!("UPDATE payment SET state = 'failed' WHERE invoice_id = '{id}'"),
            format!("UPDATE payment SET state = 'captured' WHERE invoice_id = '{id}'"),
            "exactly one captured payment",
        ),
        (
            "payments",
            format!("UPDATE invoice SET refunded = 5 WHERE id = '{id}'"),
            format!("UPDATE invoice SET refunded = 0 WHERE id = '{id}'"),
            "sum of the refunds",
        ),
        (
            "cart",
            format!("UPDATE checkout SET freezes = 'x' WHERE invoice_id = '{id}'"),
            format!("UPDATE checkout SET freezes = NULL WHERE invoice_id = '{id}'"),
            "must lock its user's cart",
        ),
        (
            "cart",
            format!("UPDATE checkout SET state = 'cancelled' WHERE invoice_id = '{id}'"),
            format!("UPDATE checkout SET state = 'paid' WHERE invoice_id = '{id}'"),
            "checkout and invoice disagree",
        ),
        (
            "mailer",
            format!("UPDATE email SET reference = 'x' WHERE reference = '{id}'"),
            format!("UPDATE email SET reference = '{id}' WHERE reference = 'x'"),
            "exactly one receipt",
        ),
        (
            "stats",
            format!("UPDATE action SET subject = 'x' WHERE subject = '{id}' AND kind = 'order_paid'"),
            format!("UPDATE action SET subject = '{id}' WHERE subject = 'x'"),
            "in the action log once",
        ),
        (
            "stats",
            "UPDATE daily SET orders = orders + 1; UPDATE hourly SET orders = orders + 1".into(),
            "UPDATE daily SET orders = orders - 1; UPDATE hourly SET orders = orders - 1".into(),
            "differ from its paid invoices",
        ),
        (
            "stats",
            "UPDATE daily SET carts = carts + 1".into(),
            "UPDATE daily SET carts = carts - 1".into(),
            "do not add up",
        ),
        (
            "notifications",
            format!("UPDATE notification SET kind = 'x' WHERE kind = 'invoice_paid' AND data LIKE '%{id}%'"),
            "UPDATE notification SET kind = 'invoice_paid' WHERE kind = 'x'".into(),
            "exactly one notification",
        ),
        (
            "notifications",
            "UPDATE stream SET seq = seq + 1 WHERE erased = 0".into(),
            "UPDATE stream SET seq = seq - 1 WHERE erased = 0".into(),
            "does not match its last entry",
        ),
        (
            "comments",
            "UPDATE rating SET sum = sum + 1".into(),
            "UPDATE rating SET sum = sum - 1".into(),
            "not those of its comments",
        ),
        (
            "catalog",
            "UPDATE product SET rating_sum = 5".into(),
            "UPDATE product SET rating_sum = 4".into(),
            "product rating differs",
        ),
        (
            "users",
            "INSERT INTO dead_letter VALUES ('e', 'n', 0, '{}', 'why')".into(),
            "DELETE FROM dead_letter".into(),
            "moved to dead_letter",
        ),
    ];
    for (domain, harm, repair, expected) in cases {
        shop.execute(domain, &harm);
        let violations = shop.violations().await;
        assert!(
            violations.iter().any(|violation| violation.description.contains(expected)),
            "{domain}: {harm}: {violations:#?}"
        );
        shop.execute(domain, &repair);
        assert_eq!(shop.violations().await, [], "after {repair}");
    }
    // A sold hold that no invoice references.
    shop.execute("payments", &format!("UPDATE invoice SET hold = NULL WHERE id = '{id}'"));
    let violations = shop.violations().await;
    assert!(
        violations.iter().any(|violation| violation.description.contains("without a paid invoice")),
        "{violations:#?}"
    );
}
