//! Tests of payments through their messages, on a real database file. Only the provider is faulty; a crash is
//! simulated by dropping all tasks and opening the same folder again.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::sql_types::BigInt;
use futures_util::future::{BoxFuture, Either, join_all, pending, select};
use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::provider::{Charge, ChargeOutcome, ChargeStatus, RefundOutcome, RefundRequest};
use super::*;
use crate::contract::catalog::SaleRefused;
use crate::contract::users::UserErased;
use crate::messaging::{
    Caller, Client, CommonError, Credential, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Identity,
    RequestContext, Role,
};
use crate::settings::Settings;
use crate::store::query::*;
use crate::store::{IdempotentRequest, explain};
use crate::types::{
    Amount, CheckoutId, Clock, Currency, EmailAddress, EventId, HoldId, InvoiceId, PageRequest, SessionId, Timestamp,
    UserId,
};

/// Fault of the provider, until another one is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProviderFault {
    None,
    /// Does nothing and never responds.
    HangBefore,
    /// Succeeds and never responds.
    HangAfter,
    /// Succeeds, and the outcome is reported as unknown.
    ResponseLost,
    /// Does nothing, and the outcome is reported as unknown.
    RequestLost,
    /// Rejects refunds.
    RefundsRejected,
}

struct FaultyProvider {
    inner: TestProvider,
    fault: Arc<Mutex<ProviderFault>>,
    /// Calls that have got as far as they will: carried out, or swallowed.
    calls: Arc<AtomicUsize>,
}

impl FaultyProvider {
    async fn inject<T>(&self, work: BoxFuture<'_, T>, unknown: T) -> T {
        let fault = *self.fault.lock();
        match fault {
            ProviderFault::None | ProviderFault::RefundsRejected => work.await,
            ProviderFault::HangBefore => {
                self.calls.fetch_add(1, Ordering::SeqCst);
                pending().await
            }
            ProviderFault::HangAfter => {
                work.await;
                self.calls.fetch_add(1, Ordering::SeqCst);
                pending().await
            }
            ProviderFault::ResponseLost => {
                work.await;
                unknown
            }
            ProviderFault::RequestLost => unknown,
        }
    }
}

impl PaymentProvider for FaultyProvider {
    fn capture(&self, charge: Charge) -> BoxFuture<'_, ChargeOutcome> {
        Box::pin(self.inject(self.inner.capture(charge), ChargeOutcome::Unknown))
    }

    fn refund(&self, request: RefundRequest) -> BoxFuture<'_, RefundOutcome> {
        if *self.fault.lock() == ProviderFault::RefundsRejected {
            return Box::pin(async { RefundOutcome::Failed });
        }
        Box::pin(self.inject(self.inner.refund(request), RefundOutcome::Unknown))
    }

    fn lookup(&self, key: String) -> BoxFuture<'_, ChargeStatus> {
        if *self.fault.lock() == ProviderFault::None {
            self.inner.lookup(key)
        } else {
            Box::pin(async { ChargeStatus::Unknown })
        }
    }
}

pub(super) struct TestPayments {
    runtime: DomainRuntime,
    pub(super) payments: Client<PaymentsActor>,
    pub(super) store: Store,
    pub(super) clock: Clock,
    fault: Arc<Mutex<ProviderFault>>,
    /// Calls that the faulty provider has swallowed.
    calls: Arc<AtomicUsize>,
    pub(super) dir: TempDir,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl TestPayments {
    fn open() -> Self {
        Self::open_in(TempDir::new().unwrap(), Clock::system())
    }

    fn open_in(dir: TempDir, clock: Clock) -> Self {
        let fault = Arc::new(Mutex::new(ProviderFault::None));
        let calls = Arc::new(AtomicUsize::new(0));
        let (events, counter) = (Arc::clone(&fault), Arc::clone(&calls));
        let shop = Self::with(dir, clock, |store| {
            Box::new(FaultyProvider { inner: TestProvider::new(store), fault: events, calls: counter })
        });
        Self { fault, calls, ..shop }
    }

    /// Opens payments with another provider.
    pub(super) fn with(dir: TempDir, clock: Clock, provider: impl FnOnce(Store) -> Box<dyn PaymentProvider>) -> Self {
        let runtime = DomainRuntime::new(Settings::for_test(dir.path()), clock.clone());
        let RunningDomain { client, store } = open_with(&runtime, |store| Ok(provider(store))).unwrap();
        let fault = Arc::new(Mutex::new(ProviderFault::None));
        Self { runtime, payments: client, store, clock, fault, calls: Arc::default(), dir }
    }

    /// Waits until a silent provider has been called.
    async fn until_called(&self) {
        let begun = Instant::now();
        while self.calls.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the provider was never called");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Drops all tasks and opens the same folder again.
    fn crash(self) -> Self {
        let (dir, clock) = self.stop();
        Self::open_in(dir, clock)
    }

    /// Drops all tasks and returns the folder.
    pub(super) fn stop(self) -> (TempDir, Clock) {
        self.runtime.stop();
        (self.dir, self.clock)
    }

    fn set_fault(&self, fault: ProviderFault) {
        *self.fault.lock() = fault;
    }

    pub(super) async fn invoice(&self, user: UserId, unit_price: Amount) -> Invoice {
        self.payments.call(RequestContext::internal("cart"), new(user, unit_price)).await.unwrap()
    }

    pub(super) async fn pay(
        &self,
        ctx: &RequestContext,
        invoice: InvoiceId,
        token: &str,
    ) -> Result<Invoice, PaymentsError> {
        self.payments.call(ctx.clone(), PayInvoice { invoice_id: invoice, token: token.to_owned() }).await
    }

    pub(super) async fn refund(
        &self,
        key: &str,
        invoice: InvoiceId,
        amount: Option<Amount>,
    ) -> Result<Invoice, PaymentsError> {
        let request = RefundInvoice { invoice_id: invoice, amount, restock: false, lines: None };
        self.payments.call(keyed(admin(), key), request).await
    }

    pub(super) async fn void(&self, invoice: InvoiceId) -> Result<Invoice, PaymentsError> {
        self.payments.call(admin(), VoidInvoice { invoice_id: invoice }).await
    }

    pub(super) async fn get(&self, invoice: InvoiceId) -> Invoice {
        self.payments.call(admin(), GetInvoice { invoice_id: invoice }).await.unwrap()
    }

    async fn number(&self, query: &'static str) -> i64 {
        self.store
            .read(move |conn| Ok::<_, CommonError>(diesel::sql_query(query).get_result::<CountRow>(conn)?.n))
            .await
            .unwrap()
    }

    /// Counts the captures of the provider.
    async fn captures(&self) -> i64 {
        self.number("SELECT count(*) AS n FROM test_provider_book WHERE kind = 'capture'").await
    }

    /// Sums up the refunds of the provider, in minor units.
    async fn refunded_total(&self) -> i64 {
        self.number(
            "SELECT CAST(coalesce(sum(amount), 0) AS BIGINT) AS n FROM test_provider_book WHERE kind = 'refund'",
        )
        .await
    }

    pub(super) async fn events<E: Event>(&self) -> Vec<E> {
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
        self.payments.call(RequestContext::internal("events"), DeliverEvents { events: vec![event] }).await.unwrap();
    }

    /// Waits until the invoice satisfies a condition.
    pub(super) async fn wait_for(&self, invoice: InvoiceId, is_reached: impl Fn(&Invoice) -> bool) -> Invoice {
        let begun = Instant::now();
        loop {
            let found = self.get(invoice).await;
            if is_reached(&found) {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain: {found:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(super) fn line(quantity: i64, unit_price: Amount) -> InvoiceLine {
    InvoiceLine { description: "A teapot".to_owned(), product_id: None, quantity, unit_price, tax: None }
}

pub(super) fn new(user: UserId, unit_price: Amount) -> CreateInvoice {
    CreateInvoice {
        user_id: user,
        lines: vec![line(1, unit_price)],
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
    }
}

fn user_context(user_id: UserId, role: Role) -> RequestContext {
    let credential = Credential::Session(SessionId::new());
    RequestContext::new(Caller::User { identity: Identity::new(user_id, role, credential), internal: false }, "test")
}

pub(super) fn customer(user: UserId) -> RequestContext {
    user_context(user, Role::Customer)
}

pub(super) fn admin() -> RequestContext {
    user_context(UserId::new(), Role::Admin)
}

pub(super) fn keyed(ctx: RequestContext, key: &str) -> RequestContext {
    ctx.with_key(IdempotencyKey::parse(key).unwrap())
}

#[actix::test]
async fn p02_fifty_pays_with_one_key_capture_once() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    let calls = (0..50).map(|_| async {
        let ctx = keyed(customer(user), "k");
        let answer = shop.pay(&ctx, invoice.id, "tok_ok").await;
        (answer, ctx.is_replayed())
    });
    let answers = join_all(calls).await;
    let first: Vec<_> = answers.iter().filter(|(answer, replayed)| answer.is_ok() && !replayed).collect();
    assert_eq!(first.len(), 1);
    for (answer, _) in &answers {
        match answer {
            Ok(paid) => assert_eq!(Ok(paid), first[0].0.as_ref()),
            Err(error) => assert_eq!(*error, CommonError::RequestInProgress.into()),
        }
    }
    assert_eq!((shop.captures().await, shop.events::<InvoicePaid>().await.len()), (1, 1));
}

#[actix::test]
async fn p01_finished_key_replays_and_rejects_reuse() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let (invoice, other) = (shop.invoice(user, 999).await, shop.invoice(user, 5).await);
    let first = shop.pay(&keyed(customer(user), "k"), invoice.id, "tok_ok").await.unwrap();
    assert_eq!((first.status, first.total, first.processing), (InvoiceStatus::Paid, 999, false));
    assert!(first.paid_at.is_some());
    // The replayed response is the original one, even if the invoice has changed since.
    shop.refund("r", invoice.id, Some(9)).await.unwrap();
    let ctx = keyed(customer(user), "k");
    assert_eq!(shop.pay(&ctx, invoice.id, "tok_ok").await, Ok(first));
    assert!(ctx.is_replayed());
    for (invoice, token) in [(invoice.id, "tok_declined"), (other.id, "tok_ok")] {
        let reused = shop.pay(&keyed(customer(user), "k"), invoice, token).await;
        assert_eq!(reused, Err(CommonError::IdempotencyKeyReused.into()));
    }
    assert_eq!(shop.captures().await, 1);
}

#[actix::test]
async fn fifty_pays_with_distinct_keys_capture_once() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    let contexts: Vec<RequestContext> = (0..50).map(|n| keyed(customer(user), &format!("k{n}"))).collect();
    let answers = join_all(contexts.iter().map(|ctx| shop.pay(ctx, invoice.id, "tok_ok"))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let refused = [PaymentsError::PaymentInProgress, PaymentsError::AlreadyPaid];
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(|error| refused.contains(error)));
    assert_eq!((shop.captures().await, shop.events::<InvoicePaid>().await.len()), (1, 1));
}

#[actix::test]
async fn p05_moving_money_requires_an_idempotency_key() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    let without = Err(CommonError::IdempotencyKeyRequired.into());
    assert_eq!(shop.pay(&customer(user), invoice.id, "tok_ok").await, without);
    let refund = RefundInvoice { invoice_id: invoice.id, amount: None, restock: false, lines: None };
    assert_eq!(shop.payments.call(admin(), refund).await, without);
    assert!(shop.pay(&RequestContext::internal("cart"), invoice.id, "tok_ok").await.is_ok());
}

#[actix::test]
async fn p06_failed_payment_leaves_invoice_and_key_free() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    let key = || keyed(customer(user), "k");
    for (key, token, error) in [
        ("d1", "tok_declined", PaymentsError::CardDeclined),
        ("d2", "tok_declined", PaymentsError::CardDeclined),
        ("k", "tok_error", PaymentsError::ProviderFailed),
        ("k", "tok_nonsense", PaymentsError::UnknownToken),
    ] {
        assert_eq!(shop.pay(&keyed(customer(user), key), invoice.id, token).await, Err(error));
        let now = shop.get(invoice.id).await;
        assert_eq!((now.status, now.processing), (InvoiceStatus::Open, false));
    }
    let reasons: Vec<String> = shop.events::<PaymentFailed>().await.into_iter().map(|event| event.reason).collect();
    assert_eq!(reasons, ["card_declined", "card_declined", "provider_failed", "unknown_token"]);
    assert_eq!(shop.captures().await, 0);
    let ctx = key();
    assert!(shop.pay(&ctx, invoice.id, "tok_ok").await.is_ok());
    assert!(!ctx.is_replayed());
}

#[actix::test]
async fn p01_declined_payment_replays_its_refusal() {
    let (mut shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    for crashed in [false, true] {
        for n in 0..3 {
            let ctx = keyed(customer(user), "k");
            assert_eq!(shop.pay(&ctx, invoice.id, "tok_declined").await, Err(PaymentsError::CardDeclined));
            assert_eq!(ctx.is_replayed(), crashed || n > 0);
        }
        if !crashed {
            shop = shop.crash();
        }
    }
    assert_eq!(shop.events::<PaymentFailed>().await.len(), 1, "the bank was asked once");
    let another_card = shop.pay(&keyed(customer(user), "k"), invoice.id, "tok_ok").await;
    assert_eq!(another_card, Err(CommonError::IdempotencyKeyReused.into()));
    assert!(shop.pay(&keyed(customer(user), "k2"), invoice.id, "tok_ok").await.is_ok());
    // The refusal stays the answer, also when the invoice is paid by now; after a day the key is forgotten.
    let late = keyed(customer(user), "k");
    assert_eq!(shop.pay(&late, invoice.id, "tok_declined").await, Err(PaymentsError::CardDeclined));
    shop.clock.advance(Duration::from_secs(25 * 3_600));
    assert_eq!(shop.pay(&late, invoice.id, "tok_declined").await, Err(PaymentsError::AlreadyPaid));
}

#[actix::test]
async fn flaky_provider_succeeds_on_the_second_attempt() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    for key in ["a", "b"] {
        let invoice = shop.invoice(user, 999).await;
        let ctx = keyed(customer(user), key);
        assert_eq!(shop.pay(&ctx, invoice.id, "tok_flaky").await, Err(PaymentsError::ProviderFailed));
        assert_eq!(shop.pay(&ctx, invoice.id, "tok_flaky").await.unwrap().status, InvoiceStatus::Paid);
    }
    assert_eq!(shop.captures().await, 2);
}

#[actix::test]
async fn invoice_of_another_user_is_not_found() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    for stranger in [customer(UserId::new()), admin()] {
        let refused = shop.pay(&keyed(stranger, "k"), invoice.id, "tok_ok").await;
        assert_eq!(refused, Err(PaymentsError::InvoiceNotFound));
    }
    let anonymous = RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal: true }, "test");
    let refused = shop.pay(&keyed(anonymous, "k"), invoice.id, "tok_ok").await;
    assert_eq!(refused, Err(CommonError::Unauthenticated.into()));
    let get = |ctx| shop.payments.call(ctx, GetInvoice { invoice_id: invoice.id });
    assert_eq!(get(customer(UserId::new())).await, Err(PaymentsError::InvoiceNotFound));
    assert_eq!(get(customer(user)).await.unwrap(), invoice);
    assert_eq!(get(admin()).await.unwrap(), invoice);
}

#[actix::test]
async fn unpayable_invoice_reports_the_reason() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let [paid, void, expired] = [1, 2, 3].map(|price| shop.invoice(user, price));
    let (paid, void, expired) = (paid.await, void.await, expired.await);
    shop.pay(&keyed(customer(user), "k"), paid.id, "tok_ok").await.unwrap();
    shop.void(void.id).await.unwrap();
    shop.clock.advance(Duration::from_secs(3600));
    for (invoice, error) in [
        (paid, PaymentsError::AlreadyPaid),
        (void, PaymentsError::InvoiceVoid),
        // Independent of reconciliation: the transaction compares with the clock.
        (expired.clone(), PaymentsError::InvoiceExpired),
        (expired, PaymentsError::InvoiceExpired),
    ] {
        assert_eq!(shop.pay(&keyed(customer(user), "x"), invoice.id, "tok_ok").await, Err(error));
    }
    assert_eq!((shop.captures().await, shop.events::<InvoiceExpired>().await.len()), (1, 1));
}

#[actix::test]
async fn invoice_expires_unless_it_is_being_paid() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let (idle, busy) = (shop.invoice(user, 1).await, shop.invoice(user, 2).await);
    shop.set_fault(ProviderFault::RequestLost);
    let unknown = shop.pay(&keyed(customer(user), "k"), busy.id, "tok_ok").await;
    assert_eq!(unknown, Err(CommonError::DeadlineExceeded.into()));
    shop.clock.advance(Duration::from_secs(3600));
    shop.wait_for(idle.id, |invoice| invoice.status == InvoiceStatus::Expired).await;
    let now = shop.get(busy.id).await;
    assert_eq!((now.status, now.processing), (InvoiceStatus::Open, true));
    assert_eq!(shop.void(busy.id).await, Err(PaymentsError::PaymentInProgress));
    // While the outcome is unknown, the same request is in progress and another one is rejected.
    let same = shop.pay(&keyed(customer(user), "k"), busy.id, "tok_ok").await;
    assert_eq!(same, Err(CommonError::RequestInProgress.into()));
    let changed = shop.pay(&keyed(customer(user), "k"), busy.id, "tok_slow").await;
    assert_eq!(changed, Err(CommonError::IdempotencyKeyReused.into()));
    let other = shop.pay(&keyed(customer(user), "l"), busy.id, "tok_ok").await;
    assert_eq!(other, Err(PaymentsError::PaymentInProgress));
    shop.set_fault(ProviderFault::None);
    shop.wait_for(busy.id, |invoice| invoice.status == InvoiceStatus::Expired).await;
    assert_eq!((shop.captures().await, shop.events::<PaymentFailed>().await.len()), (0, 1));
}

#[actix::test]
async fn p12_lost_capture_response_is_reconciled() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    shop.set_fault(ProviderFault::ResponseLost);
    let ctx = keyed(customer(user), "k");
    assert_eq!(shop.pay(&ctx, invoice.id, "tok_ok").await, Err(CommonError::DeadlineExceeded.into()));
    shop.set_fault(ProviderFault::None);
    let paid = shop.wait_for(invoice.id, |invoice| invoice.status == InvoiceStatus::Paid).await;
    assert_eq!(shop.pay(&ctx, invoice.id, "tok_ok").await, Ok(paid));
    assert!(ctx.is_replayed());
    assert_eq!((shop.captures().await, shop.events::<InvoicePaid>().await.len()), (1, 1));
}

#[actix::test]
async fn p03_crash_during_capture_charges_at_most_once() {
    for (fault, captured) in [(ProviderFault::HangBefore, false), (ProviderFault::HangAfter, true)] {
        let (shop, user) = (TestPayments::open(), UserId::new());
        let invoice = shop.invoice(user, 999).await;
        shop.set_fault(fault);
        let ctx = keyed(customer(user), "k").with_timeout(Duration::from_millis(200));
        assert_eq!(shop.pay(&ctx, invoice.id, "tok_ok").await, Err(CommonError::DeadlineExceeded.into()));
        shop.until_called().await;
        let shop = shop.crash();
        let found = shop.wait_for(invoice.id, |invoice| !invoice.processing).await;
        assert_eq!(found.status == InvoiceStatus::Paid, captured);
        let ctx = keyed(customer(user), "k");
        let again = shop.pay(&ctx, invoice.id, "tok_ok").await.unwrap();
        assert_eq!((again.status, ctx.is_replayed()), (InvoiceStatus::Paid, captured));
        assert_eq!((shop.captures().await, shop.events::<InvoicePaid>().await.len()), (1, 1));
    }
}

#[actix::test]
async fn voided_charge_is_never_captured() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    let provider = TestProvider::new(shop.store.clone());
    let charge = Charge {
        key: "late".to_owned(),
        invoice: invoice.id,
        amount: 999,
        currency: Currency::EUR,
        token: "tok_ok".to_owned(),
    };
    assert_eq!(provider.lookup("late".to_owned()).await, ChargeStatus::NotCharged);
    assert_eq!(provider.capture(charge).await, ChargeOutcome::Failed);
    assert_eq!(shop.captures().await, 0);
}

#[actix::test]
async fn payment_completes_after_its_caller_disconnects() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 999).await;
    let ctx = keyed(customer(user), "k");
    {
        let begun = pin!(shop.wait_for(invoice.id, |invoice| invoice.processing));
        let Either::Left(_) = select(begun, pin!(shop.pay(&ctx, invoice.id, "tok_slow"))).await else {
            panic!("it was paid before it was processing")
        };
    }
    shop.wait_for(invoice.id, |invoice| invoice.status == InvoiceStatus::Paid).await;
    assert_eq!(shop.captures().await, 1);
}

#[actix::test]
async fn p13_racing_refunds_never_exceed_the_capture() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 1000).await;
    assert_eq!(shop.refund("early", invoice.id, None).await, Err(PaymentsError::NotPaid));
    shop.pay(&keyed(customer(user), "k"), invoice.id, "tok_ok").await.unwrap();
    let keys: Vec<String> = (0..20).map(|n| format!("r{n}")).collect();
    let answers = join_all(keys.iter().map(|key| shop.refund(key, invoice.id, Some(300)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    let too_large = PaymentsError::RefundTooLarge { left: 100 };
    assert_eq!(answers.iter().filter(|answer| answer.as_ref() == Err(&too_large)).count(), 17);
    assert_eq!((shop.get(invoice.id).await.refunded, shop.refunded_total().await), (900, 900));
    // Restocking without lines requires a refund of all that is left.
    let part = RefundInvoice { invoice_id: invoice.id, amount: Some(50), restock: true, lines: None };
    let refused = shop.payments.call(keyed(admin(), "p"), part).await.unwrap_err();
    assert!(matches!(refused, PaymentsError::Common(CommonError::ValidationFailed { .. })));
    let rest = RefundInvoice { invoice_id: invoice.id, amount: None, restock: true, lines: None };
    let refunded = shop.payments.call(keyed(admin(), "all"), rest).await.unwrap();
    assert_eq!(
        (refunded.status, refunded.refunded, shop.refunded_total().await),
        (InvoiceStatus::Refunded, 1000, 1000)
    );
    assert_eq!(shop.refund("x", invoice.id, None).await, Err(PaymentsError::RefundTooLarge { left: 0 }));
    let events = shop.events::<InvoiceRefunded>().await;
    assert_eq!(events.iter().map(|event| event.amount).sum::<Amount>(), 1000);
    assert_eq!(events.iter().filter(|event| event.restock).count(), 1);
}

#[actix::test]
async fn fifty_refunds_with_one_key_refund_once() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 1000).await;
    shop.pay(&keyed(customer(user), "k"), invoice.id, "tok_ok").await.unwrap();
    let staff = admin();
    let calls = (0..50).map(|_| {
        let request = RefundInvoice { invoice_id: invoice.id, amount: Some(10), restock: false, lines: None };
        shop.payments.call(keyed(staff.clone(), "r"), request)
    });
    for answer in join_all(calls).await {
        assert!(
            answer
                .as_ref()
                .map_or_else(|error| *error == CommonError::RequestInProgress.into(), |invoice| invoice.refunded == 10)
        );
    }
    assert_eq!((shop.get(invoice.id).await.refunded, shop.refunded_total().await), (10, 10));
}

#[actix::test]
async fn refund_interrupted_by_a_crash_completes_once() {
    for fault in [ProviderFault::HangBefore, ProviderFault::HangAfter] {
        let (shop, user) = (TestPayments::open(), UserId::new());
        let invoice = shop.invoice(user, 1000).await;
        shop.pay(&keyed(customer(user), "k"), invoice.id, "tok_ok").await.unwrap();
        shop.set_fault(fault);
        let request = RefundInvoice { invoice_id: invoice.id, amount: Some(600), restock: false, lines: None };
        let staff = admin();
        let ctx = keyed(staff.clone(), "r").with_timeout(Duration::from_millis(200));
        let unknown = shop.payments.call(ctx, request.clone()).await;
        assert_eq!(unknown, Err(CommonError::DeadlineExceeded.into()));
        shop.until_called().await;
        // A reserved amount cannot be refunded again while the outcome is unknown.
        let too_large = shop.refund("s", invoice.id, Some(401)).await;
        assert_eq!(too_large, Err(PaymentsError::RefundTooLarge { left: 400 }));
        let shop = shop.crash();
        let found = shop.wait_for(invoice.id, |invoice| invoice.refunded == 600).await;
        let ctx = keyed(staff, "r");
        assert_eq!(shop.payments.call(ctx.clone(), request).await, Ok(found));
        assert!(ctx.is_replayed());
        assert_eq!((shop.refunded_total().await, shop.events::<InvoiceRefunded>().await.len()), (600, 1));
    }
}

#[actix::test]
async fn rejected_refund_releases_its_reservation() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let invoice = shop.invoice(user, 1000).await;
    shop.pay(&keyed(customer(user), "k"), invoice.id, "tok_ok").await.unwrap();
    shop.set_fault(ProviderFault::RefundsRejected);
    assert_eq!(shop.refund("r", invoice.id, None).await, Err(PaymentsError::ProviderFailed));
    shop.set_fault(ProviderFault::None);
    assert_eq!(shop.refund("r", invoice.id, None).await.unwrap().status, InvoiceStatus::Refunded);
}

#[actix::test]
async fn p11_unfulfillable_sale_is_refunded() {
    let (shop, user, hold) = (TestPayments::open(), UserId::new(), HoldId::new());
    let request = CreateInvoice { hold: Some(hold), ..new(user, 1000) };
    let invoice = shop.payments.call(RequestContext::internal("cart"), request).await.unwrap();
    shop.pay(&keyed(customer(user), "k"), invoice.id, "tok_ok").await.unwrap();
    // The refund is owed, so it is retried until the provider accepts it.
    shop.set_fault(ProviderFault::RefundsRejected);
    shop.deliver(&SaleRefused { invoice_id: invoice.id, hold }).await;
    shop.deliver(&SaleRefused { invoice_id: invoice.id, hold }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    shop.set_fault(ProviderFault::None);
    shop.wait_for(invoice.id, |invoice| invoice.status == InvoiceStatus::Refunded).await;
    let events = shop.events::<InvoiceRefunded>().await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].reason.as_str(), events[0].restock, events[0].hold), ("out_of_stock", false, Some(hold)));
    assert_eq!(shop.refunded_total().await, 1000);
}

#[actix::test]
async fn void_invoice_stays_void_and_paid_one_stays_paid() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let (void, paid) = (shop.invoice(user, 1).await, shop.invoice(user, 2).await);
    let first = shop.void(void.id).await.unwrap();
    assert_eq!(first.status, InvoiceStatus::Void);
    assert_eq!(shop.void(void.id).await, Ok(first));
    assert_eq!(shop.events::<InvoiceVoided>().await.len(), 1);
    shop.pay(&keyed(customer(user), "k"), paid.id, "tok_ok").await.unwrap();
    assert_eq!(shop.void(paid.id).await, Err(PaymentsError::NotOpen));
    assert_eq!(shop.void(InvoiceId::new()).await, Err(PaymentsError::InvoiceNotFound));
}

#[actix::test]
async fn p13_invoice_numbers_have_no_gaps() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let made = join_all((0..100).map(|n| {
        let (payments, store) = (shop.payments.clone(), shop.store.clone());
        async move {
            if n % 3 == 0 {
                // The transaction takes a number and fails, as with a full disk.
                let lost = store.write(|tx| {
                    super::store::next_invoice_number(tx.conn)?;
                    Err::<(), _>(PaymentsError::from(CommonError::StorageUnavailable))
                });
                assert!(lost.await.is_err());
                return None;
            }
            Some(payments.call(RequestContext::internal("cart"), new(user, n)).await.unwrap().number)
        }
    }))
    .await;
    let numbers: BTreeSet<String> = made.into_iter().flatten().collect();
    let expected: BTreeSet<String> = (1..=66).map(|n| format!("INV-{n:06}")).collect();
    assert_eq!(numbers, expected);
}

#[actix::test]
async fn repeated_checkout_has_one_invoice() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let request = CreateInvoice { checkout: Some(CheckoutId::new()), ..new(user, 5) };
    let calls = (0..20).map(|_| shop.payments.call(RequestContext::internal("cart"), request.clone()));
    let made: BTreeSet<InvoiceId> = join_all(calls).await.into_iter().map(|invoice| invoice.unwrap().id).collect();
    assert_eq!((made.len(), shop.events::<InvoiceCreated>().await.len()), (1, 1));
    // A repeated request after its expiry still returns the same invoice.
    shop.clock.advance(Duration::from_secs(3600));
    let late = CreateInvoice { expires_at: Some(Timestamp::from_micros(0)), ..request };
    let found = shop.payments.call(RequestContext::internal("cart"), late).await.unwrap();
    assert!(made.contains(&found.id));
}

#[actix::test]
async fn invalid_lines_are_reported_and_valid_ones_add_up() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let ask = |lines: Vec<InvoiceLine>| {
        shop.payments.call(RequestContext::internal("cart"), CreateInvoice { lines, ..new(user, 0) })
    };
    let wrong = async |lines| match ask(lines).await {
        Err(PaymentsError::Common(CommonError::ValidationFailed { errors })) => {
            errors.into_iter().map(|error| (error.field.into_owned(), error.code.into_owned())).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let named = |field: &str, code: &str| vec![(field.to_owned(), code.to_owned())];
    assert_eq!(wrong(vec![]).await, named("lines", "required"));
    assert_eq!(wrong(vec![line(1, 1); 1001]).await, named("lines", "too_long"));
    assert_eq!(wrong(vec![line(1, 1), line(0, 1)]).await, named("lines.1.quantity", "out_of_range"));
    assert_eq!(wrong(vec![line(1, -1)]).await, named("lines.0.unit_price", "out_of_range"));
    assert_eq!(wrong(vec![line(10_000, 1_000_000_000_000); 1000]).await, named("lines", "out_of_range"));
    let nameless = InvoiceLine { description: " ".to_owned(), ..line(1, 1) };
    assert_eq!(wrong(vec![nameless]).await, named("lines.0.description", "required"));
    assert_eq!(ask(vec![line(3, 333), line(2, 1)]).await.unwrap().total, 1001);
    let past = CreateInvoice { expires_at: Some(Timestamp::from_micros(0)), ..new(user, 1) };
    assert!(shop.payments.call(RequestContext::internal("cart"), past).await.is_err());
}

#[actix::test]
async fn invoice_list_is_complete_and_newest_first() {
    let (shop, ada, bob) = (TestPayments::open(), UserId::new(), UserId::new());
    for n in 0..7 {
        shop.invoice(ada, n).await;
        shop.invoice(bob, n).await;
    }
    let list = async |ctx: RequestContext, user_id, status, limit| {
        let mut page = PageRequest { limit: Some(limit), cursor: None };
        let mut found = Vec::new();
        loop {
            let request = ListInvoices { user_id, status, page: page.clone() };
            let answer = shop.payments.call(ctx.clone(), request).await.unwrap();
            assert!(answer.items.len() <= limit as usize);
            found.extend(answer.items);
            let Some(next) = answer.next else { break found };
            page.cursor = Some(next);
        }
    };
    let own = list(customer(ada), None, None, 3).await;
    assert!(own.iter().all(|invoice| invoice.user_id == ada));
    assert_eq!(own.iter().map(|invoice| invoice.total).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(list(admin(), None, None, 5).await.len(), 14);
    assert_eq!(list(admin(), Some(bob), None, 100).await.len(), 7);
    shop.void(own[2].id).await.unwrap();
    assert_eq!(list(customer(ada), Some(ada), Some(InvoiceStatus::Void), 2).await.len(), 1);
    let foreign = ListInvoices { user_id: Some(bob), ..ListInvoices::default() };
    assert_eq!(shop.payments.call(customer(ada), foreign).await, Err(CommonError::Forbidden.into()));
}

#[actix::test]
async fn imported_invoice_counts_in_statistics_only() {
    let (shop, user) = (TestPayments::open(), UserId::new());
    let at = Timestamp::parse("2026-01-31T12:00:00Z").unwrap();
    let record = async |status| {
        let request = ImportInvoice { user_id: user, lines: vec![line(2, 50)], currency: Currency::EUR, status, at };
        shop.payments.call(RequestContext::internal("seed"), request).await
    };
    let paid = record(InvoiceStatus::Paid).await.unwrap();
    assert_eq!((paid.number.as_str(), paid.created_at, paid.paid_at), ("INV-000001", at, Some(at)));
    let refunded = record(InvoiceStatus::Refunded).await.unwrap();
    assert_eq!((refunded.status, refunded.refunded), (InvoiceStatus::Refunded, 100));
    assert_eq!(record(InvoiceStatus::Expired).await.unwrap().paid_at, None);
    let open = record(InvoiceStatus::Open).await.unwrap();
    assert!(record(InvoiceStatus::Void).await.is_err());
    assert_eq!(shop.events::<InvoiceCreated>().await.len(), 0);
    assert!(shop.events::<InvoicePaid>().await.iter().all(|event| event.imported && event.invoice.paid_at == Some(at)));
    assert_eq!((shop.events::<InvoicePaid>().await.len(), shop.events::<InvoiceRefunded>().await.len()), (2, 1));
    // Refunding an imported invoice moves no money; an imported open one is charged like any other.
    assert_eq!(shop.refund("r", paid.id, None).await.unwrap().status, InvoiceStatus::Refunded);
    assert_eq!(shop.refunded_total().await, 0);
    shop.pay(&keyed(customer(user), "k"), open.id, "tok_ok").await.unwrap();
    assert_eq!(shop.captures().await, 1);
}

/// Events in the outbox of an older program have the flag under its former name.
#[actix::test]
async fn former_name_of_the_imported_flag_is_read() {
    let invoice = TestPayments::open().invoice(UserId::new(), 1).await;
    let event = InvoicePaid { invoice, hold: None, checkout: None, imported: true };
    let mut json = serde_json::to_value(event).unwrap();
    let flag = json.as_object_mut().unwrap().remove("imported").unwrap();
    json["past"] = flag;
    assert!(serde_json::from_value::<InvoicePaid>(json).unwrap().imported);
}

#[actix::test]
async fn erased_user_leaves_invoices_without_email() {
    let (shop, ada, bob) = (TestPayments::open(), UserId::new(), UserId::new());
    let email: EmailAddress = "ada@example.com".parse().unwrap();
    let mut made = Vec::new();
    for user in [ada, bob] {
        let request = CreateInvoice { email: Some(email.clone()), ..new(user, 1) };
        made.push(shop.payments.call(RequestContext::internal("cart"), request).await.unwrap());
    }
    shop.deliver(&UserErased { user_id: ada, email: Some(email.clone()) }).await;
    assert_eq!(shop.get(made[0].id).await, Invoice { email: None, ..made[0].clone() });
    assert_eq!(shop.get(made[1].id).await.email, Some(email));
}

#[actix::test]
async fn queries_use_indexes() {
    if crate::store::tested_on_server() {
        return;
    }
    use super::store;
    let (shop, user) = (TestPayments::open(), UserId::new());
    let id = shop.invoice(user, 5).await.id;
    let request =
        IdempotentRequest::from_context(&keyed(customer(user), "k"), &GetInvoice { invoice_id: id }).unwrap().unwrap();
    let found = explain(&shop.store, move |conn| {
        let now = Timestamp::from_micros(1);
        store::overdue_invoices(conn, now, 1).unwrap();
        store::running_fingerprint(conn, &request).unwrap();
        store::failed_attempt(conn, &request, now).unwrap();
        store::unfinished_payments(conn, 9).unwrap();
        store::unfinished_refunds(conn, 9).unwrap();
        store::captured_payment(conn, id).unwrap();
        store::has_refund_in_progress(conn, id).unwrap();
        store::invoice_of_checkout(conn, CheckoutId::new()).unwrap();
        store::clear_personal_data(conn, user).unwrap();
        for (user, status) in [(Some(user), None), (None, Some(InvoiceStatus::Open)), (None, None)] {
            store::list_invoices(conn, user, status, Some((now, id)), 20).unwrap();
        }
    });
    let found = found.await;
    assert!(found.len() >= 12, "{found:?}");
    for (query, step) in found {
        assert!(!step.contains("TEMP B-TREE"), "{step}: {query}");
        // The partial indexes contain unfinished rows only, so scanning one does not grow with the data.
        assert!(
            !step.starts_with("SCAN") || step.contains("unfinished") || step == "SCAN CONSTANT ROW",
            "{step}: {query}"
        );
    }
}

/// A command on an invoice; they are tried in any order.
#[derive(Debug, Clone)]
enum InvoiceCommand {
    Pay { key: u8, token: usize },
    Refund { key: u8, amount: Option<Amount> },
    Void,
    Wait,
    Crash,
}

const TOKENS: [&str; 5] = ["tok_ok", "tok_declined", "tok_error", "tok_flaky", "tok_nonsense"];

fn command() -> impl Strategy<Value = InvoiceCommand> {
    prop_oneof![
        3 => (0..3_u8, 0..TOKENS.len()).prop_map(|(key, token)| InvoiceCommand::Pay { key, token }),
        4 => (0..3_u8, proptest::option::of(1..700_i64)).prop_map(|(key, amount)| InvoiceCommand::Refund { key, amount }),
        1 => Just(InvoiceCommand::Void),
        1 => Just(InvoiceCommand::Wait),
        1 => Just(InvoiceCommand::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// In any order of commands only allowed states follow, and at most the captured amount is refunded.
    #[test]
    fn p13_invoice_stays_valid_in_any_order_of_commands(commands in proptest::collection::vec(command(), 1..14)) {
        actix::System::new().block_on(async {
            let (mut shop, user) = (TestPayments::open(), UserId::new());
            let mut before = shop.invoice(user, 1000).await;
            for command in commands {
                match command {
                    InvoiceCommand::Pay { key, token } => {
                        let _ = shop.pay(&keyed(customer(user), &format!("p{key}")), before.id, TOKENS[token]).await;
                    }
                    InvoiceCommand::Refund { key, amount } => {
                        let _ = shop.refund(&format!("r{key}"), before.id, amount).await;
                    }
                    InvoiceCommand::Void => drop(shop.void(before.id).await),
                    InvoiceCommand::Wait => shop.clock.advance(Duration::from_secs(700)),
                    InvoiceCommand::Crash => shop = shop.crash(),
                }
                let now = shop.get(before.id).await;
                assert!(now.status == before.status || before.status.may_become(now.status), "{before:?} {now:?}");
                let paid = matches!(now.status, InvoiceStatus::Paid | InvoiceStatus::Refunded);
                assert_eq!(shop.captures().await, i64::from(paid));
                assert_eq!(shop.refunded_total().await, now.refunded);
                assert!(now.refunded <= now.total && (now.refunded == 0 || paid));
                assert_eq!(now.status == InvoiceStatus::Refunded, now.refunded == now.total);
                assert_eq!(Ok(now.total), model::sums(&now.lines, None, true).map(|sums| sums.total));
                before = now;
            }
        });
    }
}

proptest! {
    #[test]
    fn total_is_exact_or_an_error(lines in proptest::collection::vec((any::<i32>(), any::<i64>()), 0..20)) {
        let exact: i128 = lines.iter().map(|(quantity, price)| i128::from(*quantity) * i128::from(*price)).sum();
        let lines: Vec<InvoiceLine> = lines.into_iter().map(|(quantity, price)| line(quantity.into(), price)).collect();
        if let Ok(sums) = model::sums(&lines, None, true) {
            prop_assert_eq!(i128::from(sums.total), exact);
        }
    }
}
