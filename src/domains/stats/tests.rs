//! Tests of the stats domain through its messages, on a database file.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::contract::cart::CartStarted;
use crate::contract::payments::{Invoice, InvoiceLine, InvoicePaid, InvoiceRefunded, InvoiceStatus};
use crate::contract::users::{UserErased, UserRegistered};
use crate::messaging::{
    Caller, Client, CommonError, Credential, DeliverEvents, Event, EventEnvelope, IdempotencyKey, Identity,
    RequestContext, Role,
};
use crate::settings::Settings;
use crate::types::{Amount, ApiKeyId, Clock, Currency, EventId, InvoiceId, PageRequest, ProductId, Timestamp, UserId};

struct TestStats {
    client: Client<StatsActor>,
    clock: Clock,
    settings: Settings,
    dir: TempDir,
}

fn open_stats() -> TestStats {
    let dir = TempDir::new().unwrap();
    let (settings, clock) = (Settings::for_test(dir.path()), Clock::system());
    let client = open(&DomainRuntime::new(settings.clone(), clock.clone())).unwrap().client;
    TestStats { client, clock, settings, dir }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn staff() -> RequestContext {
    RequestContext::internal("test")
}

fn user(user_id: UserId, role: Role) -> RequestContext {
    let identity = Identity::new(user_id, role, Credential::ApiKey(ApiKeyId::new()));
    RequestContext::new(Caller::User { identity, internal: false }, "r")
}

fn anyone(internal: bool) -> RequestContext {
    RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal }, "r")
}

fn envelope<E: Event>(when: Timestamp, event: &E) -> EventEnvelope {
    let data = serde_json::to_value(event).unwrap();
    EventEnvelope { id: EventId::new(), name: E::NAME.to_owned(), at: when, data, trace: None }
}

fn registered(when: &str, role: Role) -> EventEnvelope {
    let event = UserRegistered {
        user_id: UserId::new(),
        email: "ada@example.com".parse().unwrap(),
        name: "Ada".to_owned(),
        role,
        email_verified: true,
        created_at: at(when),
    };
    envelope(at("2026-06-01"), &event)
}

fn line(product: ProductId, name: &str, quantity: i64, unit_price: Amount) -> InvoiceLine {
    InvoiceLine { description: name.to_owned(), product_id: Some(product), quantity, unit_price, tax: None }
}

fn invoice(when: &str, currency: &str, lines: Vec<InvoiceLine>) -> Invoice {
    Invoice {
        id: InvoiceId::new(),
        number: "INV-000001".to_owned(),
        user_id: UserId::new(),
        status: InvoiceStatus::Paid,
        total: lines.iter().map(|l| l.quantity * l.unit_price).sum(),
        lines,
        refunded: 0,
        refunding: 0,
        returned_late: 0,
        dispute: None,
        currency: currency.parse().unwrap(),
        shipping: None,
        tax: 0,
        tax_included: true,
        taxes: Vec::new(),
        shipping_address: None,
        billing_address: None,
        note: None,
        email: None,
        processing: false,
        created_at: at(when),
        expires_at: at(when),
        paid_at: Some(at(when)),
    }
}

fn paid(invoice: &Invoice) -> EventEnvelope {
    // Delivered long after the payment, and counted on the day of the payment.
    envelope(at("2026-06-01"), &InvoicePaid { invoice: invoice.clone(), hold: None, checkout: None, imported: false })
}

fn refunded(when: &str, invoice: &Invoice, amount: Amount, imported: bool) -> EventEnvelope {
    let (invoice, reason) = (invoice.clone(), "requested".to_owned());
    envelope(
        at(when),
        &InvoiceRefunded { invoice, amount, restock: false, lines: Vec::new(), hold: None, reason, imported },
    )
}

impl TestStats {
    async fn deliver(&self, events: Vec<EventEnvelope>) {
        self.client.call(staff(), DeliverEvents { events }).await.unwrap();
    }

    async fn summary(&self, from: &str, to: &str, bucket: Bucket) -> Result<Summary, CommonError> {
        self.client.call(staff(), GetSummary { from: Some(at(from)), to: Some(at(to)), bucket: Some(bucket) }).await
    }

    async fn log(&self, ctx: RequestContext, user_id: Option<UserId>, action: &str) -> Result<(), CommonError> {
        let action = action.to_owned();
        self.client.call(ctx, LogAction { user_id, action, subject: None, data: None }).await
    }

    async fn actions(&self, filter: ListActions) -> Vec<LoggedAction> {
        self.client.call(staff(), filter).await.unwrap().items
    }
}

/// Returns the buckets that are not empty: start, revenue, orders, sign-ups and carts.
fn non_empty(summary: &Summary) -> Vec<(Timestamp, i64, i64, i64, i64)> {
    let buckets = summary.buckets.iter().map(|b| {
        let Totals { revenue, orders, sign_ups, carts, .. } = b.totals;
        (b.start, revenue, orders, sign_ups, carts)
    });
    buckets.filter(|(_, r, o, s, c)| (*r, *o, *s, *c) != (0, 0, 0, 0)).collect()
}

#[actix::test]
async fn event_delivered_twice_is_counted_once() {
    let stats = open_stats();
    let tea = ProductId::new();
    let sold = invoice("2026-03-01T23:30:00Z", "EUR", vec![line(tea, "Tea", 2, 450)]);
    let events = vec![
        registered("2026-03-01T10:00:00Z", Role::Customer),
        registered("2026-03-01T11:00:00Z", Role::Admin),
        envelope(at("2026-03-01T12:00:00Z"), &CartStarted { user_id: sold.user_id }),
        envelope(at("2026-03-01T12:00:00Z"), &CartStarted { user_id: UserId::new() }),
        paid(&sold),
        refunded("2026-03-03T01:00:00Z", &sold, 100, false),
    ];
    stats.deliver(events.clone()).await;
    stats.deliver(events).await;
    let days = stats.summary("2026-03-01", "2026-03-04", Bucket::Day).await.unwrap();
    assert_eq!(non_empty(&days), [(at("2026-03-01"), 900, 1, 1, 2), (at("2026-03-03"), -100, 0, 0, 0)]);
    assert_eq!(days.buckets.len(), 3);
    assert_eq!((days.totals.revenue, days.totals.orders, days.totals.conversion), (800, 1, Some(0.5)));
    assert_eq!(days.buckets[1].totals.conversion, None);
    let top = TopProduct { product_id: tea, name: "Tea".to_owned(), quantity: 2, revenue: 900 };
    assert_eq!(days.top_products, [top]);
    let hours = stats.summary("2026-03-01", "2026-03-02", Bucket::Hour).await.unwrap();
    assert_eq!(hours.buckets.len(), 24);
    assert_eq!(
        non_empty(&hours),
        [
            (at("2026-03-01T10:00:00Z"), 0, 0, 1, 0),
            (at("2026-03-01T12:00:00Z"), 0, 0, 0, 2),
            (at("2026-03-01T23:00:00Z"), 900, 1, 0, 0),
        ]
    );
    let log = stats.actions(ListActions::default()).await;
    let kinds: Vec<&str> = log.iter().map(|action| action.action.as_str()).collect();
    assert_eq!(kinds, ["signed_up", "cart_started", "cart_started", "order_paid", "order_refunded"]);
    assert_eq!(log[3].subject.as_deref(), Some(sold.id.to_string().as_str()));
    assert_eq!(log[3].data.as_ref().unwrap()["total"], 900);
}

#[actix::test]
async fn late_event_counts_on_its_own_day() {
    let stats = open_stats();
    let tea = ProductId::new();
    let days = ["2026-03-01T23:59:59.999999Z", "2026-01-31T12:00:00Z", "2026-03-02T00:00:00Z", "2026-02-01T00:00:00Z"];
    for (n, day) in days.iter().enumerate() {
        stats.deliver(vec![paid(&invoice(day, "EUR", vec![line(tea, &format!("Tea {n}"), 1, 10)]))]).await;
    }
    let weeks = stats.summary("2026-02-25", "2026-03-03", Bucket::Week).await.unwrap();
    assert_eq!(weeks.from, at("2026-02-23"));
    assert_eq!(non_empty(&weeks), [(at("2026-02-23"), 10, 1, 0, 0), (at("2026-03-02"), 10, 1, 0, 0)]);
    let months = stats.summary("2025-12-31", "2026-03-31", Bucket::Month).await.unwrap();
    assert_eq!(
        months.buckets.iter().map(|b| (b.start, b.totals.orders)).collect::<Vec<_>>(),
        [(at("2025-12-01"), 0), (at("2026-01-01"), 1), (at("2026-02-01"), 1), (at("2026-03-01"), 2)]
    );
    assert_eq!(months.totals.revenue, 40);
    // The name is that of the latest sale and not of the last event.
    assert_eq!((months.top_products[0].name.as_str(), months.top_products[0].quantity), ("Tea 2", 4));
}

#[actix::test]
async fn imported_refund_counts_on_the_day_of_sale() {
    let stats = open_stats();
    let old = invoice("2025-05-05T05:00:00Z", "EUR", vec![line(ProductId::new(), "Lamp", 1, 500)]);
    stats.deliver(vec![paid(&old), refunded("2026-06-01", &old, 500, true)]).await;
    let days = stats.summary("2025-05-05", "2025-05-06", Bucket::Day).await.unwrap();
    assert_eq!(non_empty(&days), [(at("2025-05-05"), 0, 1, 0, 0)]);
    assert_eq!(stats.summary("2026-06-01", "2026-06-02", Bucket::Day).await.unwrap().totals, Totals::default());
}

#[actix::test]
async fn foreign_currency_order_adds_no_revenue() {
    let stats = open_stats();
    let foreign = invoice("2026-03-01", "USD", vec![line(ProductId::new(), "Lamp", 1, 500)]);
    stats.deliver(vec![paid(&foreign), refunded("2026-03-01", &foreign, 100, false)]).await;
    let day = stats.summary("2026-03-01", "2026-03-02", Bucket::Day).await.unwrap();
    assert_eq!((day.totals.revenue, day.totals.orders, day.currency), (0, 1, Currency::EUR));
    assert_eq!(day.top_products, []);
    // The conversion is capped at 1.
    stats.deliver(vec![envelope(at("2026-03-01"), &CartStarted { user_id: UserId::new() }), paid(&foreign)]).await;
    assert_eq!(stats.summary("2026-03-01", "2026-03-02", Bucket::Day).await.unwrap().totals.conversion, Some(1.0));
}

#[actix::test]
async fn top_products_are_the_ten_by_revenue() {
    let stats = open_stats();
    let lines = (1..=12).map(|n| line(ProductId::new(), &format!("P{n}"), 1, n * 100)).collect();
    stats.deliver(vec![paid(&invoice("2026-03-01", "EUR", lines))]).await;
    let top = stats.summary("2026-03-01", "2026-03-02", Bucket::Month).await.unwrap().top_products;
    assert_eq!(top.iter().map(|p| p.revenue).collect::<Vec<_>>(), (3..=12).rev().map(|n| n * 100).collect::<Vec<_>>());
}

#[actix::test]
async fn summary_defaults_to_the_last_thirty_days() {
    let stats = open_stats();
    let summary = stats.client.call(staff(), GetSummary::default()).await.unwrap();
    assert_eq!(summary.buckets.len(), 31);
    assert_eq!((summary.totals, summary.top_products.len()), (Totals::default(), 0));
    let today = summary.buckets.last().unwrap().start;
    assert!(today <= stats.clock.now() && stats.clock.now() < today.saturating_add(Duration::from_secs(86_400)));
}

#[actix::test]
async fn invalid_period_is_rejected_by_field() {
    let stats = open_stats();
    let cases = [
        ("2026-03-02", "2026-03-01", Bucket::Day, "from"),
        ("2026-03-01", "2026-03-01", Bucket::Day, "from"),
        ("2026-01-01", "2026-02-16", Bucket::Hour, "bucket"),
        ("2020-01-01", "2026-01-01", Bucket::Day, "bucket"),
        ("0001-01-01", "9999-12-31", Bucket::Month, "bucket"),
    ];
    for (from, to, bucket, field) in cases {
        let Err(CommonError::ValidationFailed { errors }) = stats.summary(from, to, bucket).await else {
            panic!("{from} {to} was accepted")
        };
        assert_eq!(errors[0].field, field, "{from} {to} {bucket:?}");
    }
    assert_eq!(stats.summary("2026-01-01", "2026-02-15", Bucket::Hour).await.unwrap().buckets.len(), 45 * 24);
    let refused = stats.client.call(user(UserId::new(), Role::Customer), GetSummary::default()).await;
    assert_eq!(refused, Err(CommonError::Forbidden));
}

#[actix::test]
async fn only_staff_may_log_for_another_user() {
    let stats = open_stats();
    let (ada, bob) = (UserId::new(), UserId::new());
    stats.log(user(ada, Role::Customer), None, "product_viewed").await.unwrap();
    stats.log(user(ada, Role::Customer), Some(ada), "product_viewed").await.unwrap();
    stats.log(user(ada, Role::Admin), Some(bob), "called").await.unwrap();
    stats.log(staff(), Some(bob), "called").await.unwrap();
    stats.log(anyone(true), None, "page:viewed").await.unwrap();
    assert_eq!(stats.log(user(ada, Role::Customer), Some(bob), "x").await, Err(CommonError::Forbidden));
    assert_eq!(stats.log(anyone(true), Some(bob), "x").await, Err(CommonError::Forbidden));
    let users: Vec<_> = stats.actions(ListActions::default()).await.into_iter().map(|a| a.user_id).collect();
    assert_eq!(users, [Some(ada), Some(ada), Some(bob), Some(bob), None]);
}

#[actix::test]
async fn invalid_action_is_rejected_by_field() {
    let stats = open_stats();
    let fine = LogAction { user_id: None, action: "a".into(), subject: None, data: None };
    let cases = [
        ("action", LogAction { action: String::new(), ..fine.clone() }),
        ("action", LogAction { action: "a b".into(), ..fine.clone() }),
        ("action", LogAction { action: "a".repeat(65), ..fine.clone() }),
        ("subject", LogAction { subject: Some("s".repeat(201)), ..fine.clone() }),
        ("subject", LogAction { subject: Some("a\nb".into()), ..fine.clone() }),
        ("data", LogAction { data: Some(json!("d".repeat(4_095))), ..fine.clone() }),
    ];
    for (field, action) in cases {
        let Err(CommonError::ValidationFailed { errors }) = stats.client.call(staff(), action).await else {
            panic!("an invalid {field} was accepted")
        };
        assert_eq!(errors[0].field, field);
    }
    let largest = json!("d".repeat(4_094));
    stats.client.call(staff(), LogAction { data: Some(largest.clone()), ..fine }).await.unwrap();
    assert_eq!(stats.actions(ListActions::default()).await[0].data, Some(largest));
}

#[actix::test]
async fn outsiders_cannot_log_the_shops_own_actions() {
    let stats = open_stats();
    for ctx in [anyone(true), anyone(false), user(UserId::new(), Role::Customer), user(UserId::new(), Role::Admin)] {
        for action in ["order_paid", "Order_Paid", "order_refunded", "signed_up", "cart_started"] {
            let Err(CommonError::ValidationFailed { errors }) = stats.log(ctx.clone(), None, action).await else {
                panic!("{action} was accepted")
            };
            assert_eq!((errors[0].field.as_ref(), errors[0].code.as_ref()), ("action", "reserved"));
        }
        stats.log(ctx, None, "order_viewed").await.unwrap();
    }
}

#[actix::test]
async fn actions_list_in_time_order_by_page_and_filter() {
    let stats = open_stats();
    let ada = UserId::new();
    let mut middle = None;
    for n in 0..25 {
        let kind = if n % 5 == 0 { "fifth" } else { "other" };
        stats.log(staff(), (n % 2 == 0).then_some(ada), kind).await.unwrap();
        stats.clock.advance(Duration::from_secs(60));
        if n == 9 {
            middle = Some(stats.clock.now());
        }
    }
    let mut seen = Vec::new();
    let mut page = PageRequest { limit: Some(10), cursor: None };
    loop {
        let reply = stats.client.call(anyone(true), ListActions { page, ..Default::default() }).await.unwrap();
        seen.extend(reply.items);
        let Some(next) = reply.next else { break };
        page = PageRequest { limit: Some(10), cursor: Some(next) };
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.windows(2).all(|pair| pair[0].at < pair[1].at));
    let count = async |filter: ListActions| stats.actions(ListActions { page: large_page(), ..filter }).await.len();
    assert_eq!(count(ListActions { action: Some("fifth".into()), ..Default::default() }).await, 5);
    assert_eq!(count(ListActions { user_id: Some(ada), ..Default::default() }).await, 13);
    assert_eq!(count(ListActions { from: middle, ..Default::default() }).await, 15);
    assert_eq!(count(ListActions { to: middle, ..Default::default() }).await, 10);
    assert_eq!(
        count(ListActions { from: middle, user_id: Some(ada), action: Some("fifth".into()), ..Default::default() })
            .await,
        2
    );
    for outsider in [anyone(false), user(ada, Role::Admin)] {
        assert_eq!(stats.client.call(outsider, ListActions::default()).await, Err(CommonError::InternalOnly));
    }
}

fn large_page() -> PageRequest {
    PageRequest { limit: Some(100), cursor: None }
}

#[actix::test]
async fn action_under_a_key_is_logged_once() {
    let stats = open_stats();
    for _ in 0..2 {
        let ctx = staff().with_key(IdempotencyKey::internal("k"));
        stats.log(ctx, None, "clicked").await.unwrap();
    }
    assert_eq!(stats.actions(ListActions::default()).await.len(), 1);
}

#[actix::test]
async fn erased_user_is_removed_from_actions() {
    let stats = open_stats();
    let (ada, bob) = (UserId::new(), UserId::new());
    for user in [ada, bob] {
        let (subject, data) = (Some(user.to_string()), Some(json!({ "name": "x" })));
        let action = LogAction { user_id: Some(user), action: "renamed".into(), subject, data };
        stats.client.call(staff(), action).await.unwrap();
    }
    stats.deliver(vec![envelope(at("2026-03-01"), &UserErased { user_id: ada, email: None })]).await;
    let log = stats.actions(ListActions::default()).await;
    assert_eq!((log[0].user_id, &log[0].subject, &log[0].data), (None, &None, &None));
    assert_eq!((log[1].user_id, log[1].data.is_some()), (Some(bob), true));

    // An action that arrives after the erasure.
    let (subject, data) = (Some(ada.to_string()), Some(json!({ "name": "x" })));
    let late = LogAction { user_id: Some(ada), action: "late".into(), subject, data };
    stats.client.call(staff(), late).await.unwrap();
    let log = stats.actions(ListActions { action: Some("late".into()), ..ListActions::default() }).await;
    assert_eq!((log[0].user_id, &log[0].subject, &log[0].data), (None, &None, &None));
}

#[actix::test]
async fn old_actions_are_deleted_and_totals_stay() {
    let dir = TempDir::new().unwrap();
    let (mut settings, clock) = (Settings::for_test(dir.path()), Clock::system());
    settings.stats.keep_days = 2;
    let runtime = DomainRuntime::new(settings, clock.clone());
    let store = runtime.store("stats", store::MIGRATIONS).unwrap();
    let state = Arc::new(actor::StatsState { store, settings: Arc::clone(&runtime.settings) });
    let own = Arc::clone(&state);
    let stats = runtime.start("stats", move || StatsActor { state: own });
    let log = async |action: &str| {
        let action = LogAction { user_id: None, action: action.into(), subject: None, data: None };
        stats.call(staff(), action).await.unwrap();
    };
    stats.call(staff(), DeliverEvents { events: vec![registered("2020-01-01", Role::Customer)] }).await.unwrap();
    log("old").await;
    clock.advance(Duration::from_secs(2 * 86_400 + 1));
    log("new").await;
    state.purge().await.unwrap();
    let left = stats.call(staff(), ListActions::default()).await.unwrap().items;
    assert_eq!(left.iter().map(|a| a.action.as_str()).collect::<Vec<_>>(), ["new"]);
    let year = GetSummary { from: Some(at("2020-01-01")), to: Some(at("2020-12-31")), bucket: Some(Bucket::Month) };
    assert_eq!(stats.call(staff(), year).await.unwrap().totals.sign_ups, 1);
}

#[actix::test]
async fn served_request_count_survives_a_restart() {
    let stats = open_stats();
    assert_eq!(stats.client.call(staff(), GetServedRequests {}).await, Ok(0));
    assert_eq!(stats.client.call(staff(), AddServedRequests { count: 5 }).await, Ok(5));
    assert_eq!(stats.client.call(staff(), AddServedRequests { count: 7 }).await, Ok(12));
    assert!(stats.client.call(staff(), AddServedRequests { count: -1 }).await.is_err());
    assert_eq!(stats.client.call(anyone(true), AddServedRequests { count: 1 }).await, Err(CommonError::Forbidden));
    let again = open(&DomainRuntime::new(stats.settings.clone(), Clock::system())).unwrap().client;
    assert_eq!(again.call(staff(), GetServedRequests {}).await, Ok(12));
    drop(stats.dir);
}

#[actix::test]
async fn undecodable_event_does_not_block_the_next() {
    let stats = open_stats();
    let mut undecodable = registered("2026-03-01", Role::Customer);
    undecodable.data = json!({ "who": "knows" });
    stats.deliver(vec![undecodable, registered("2026-03-01", Role::Customer)]).await;
    let day = stats.summary("2026-03-01", "2026-03-02", Bucket::Day).await.unwrap();
    assert_eq!(day.totals.sign_ups, 1);
}

#[actix::test]
async fn s01_reported_entries_have_a_size_budget() {
    let dir = TempDir::new().unwrap();
    let (mut settings, clock) = (Settings::for_test(dir.path()), Clock::system());
    settings.stats.log_bytes_max = 300_000;
    let client = open(&DomainRuntime::new(settings.clone(), clock.clone())).unwrap().client;
    let stats = TestStats { client, clock, settings, dir };
    let order = paid(&invoice("2026-05-04", "EUR", vec![line(ProductId::new(), "Tea", 1, 100)]));
    stats.deliver(vec![order]).await;
    let entry = |n: usize| LogAction {
        user_id: None,
        action: format!("seen_{n}"),
        subject: None,
        data: Some(json!({ "text": "x".repeat(1_000) })),
    };
    for n in 0..1_200 {
        stats.clock.advance(Duration::from_millis(1));
        stats.client.call(anyone(false), entry(n)).await.unwrap();
    }
    let count = |action: Option<&str>| {
        let request = ListActions { action: action.map(str::to_owned), ..ListActions::default() };
        async { stats.client.call(staff(), request).await.unwrap().items.len() }
    };
    assert_eq!(count(Some("order_paid")).await, 1, "the shop's own entries stay");
    assert_eq!((count(Some("seen_0")).await, count(Some("seen_1199")).await), (0, 1), "the oldest go");
    let check = crate::messaging::CheckInvariants { deep: true, subscribers: Vec::new() };
    let kept = stats.client.call(staff(), check).await.unwrap().row_counts["logged actions"];
    assert!((50..300).contains(&kept), "{kept}");
}
