//! The statistics through their messages.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::contract::cart::CartStarted;
use crate::contract::payments::{Invoice, InvoiceLine, InvoicePaid, InvoiceRefunded, InvoiceStatus};
use crate::contract::users::{UserErased, UserRegistered};
use crate::messaging::{
    Caller, Client, CommonError, Credential, DeliverEvents, EventEnvelope, IdempotencyKey, Identity, RequestContext,
    Role,
};
use crate::settings::Settings;
use crate::types::{Amount, ApiKeyId, Clock, Currency, EventId, InvoiceId, PageRequest, ProductId, Timestamp, UserId};

struct Shop {
    stats: Client<StatsActor>,
    clock: Clock,
    settings: Settings,
    dir: TempDir,
}

fn open_shop() -> Shop {
    let dir = TempDir::new().unwrap();
    let (settings, clock) = (Settings::for_test(dir.path()), Clock::system());
    let stats = open(&DomainRuntime::new(settings.clone(), clock.clone())).unwrap().client;
    Shop { stats, clock, settings, dir }
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn staff() -> RequestContext {
    RequestContext::internal("test")
}

fn user(user_id: UserId, role: Role) -> RequestContext {
    let identity = Identity { user_id, role, credential: Credential::ApiKey(ApiKeyId::new()) };
    RequestContext::new(Caller::User { identity, internal: false }, "r")
}

fn anyone(internal: bool) -> RequestContext {
    RequestContext::new(Caller::Anyone { address: "192.0.2.1".into(), internal }, "r")
}

fn news<E: Event>(when: Timestamp, event: &E) -> EventEnvelope {
    let data = serde_json::to_value(event).unwrap();
    EventEnvelope { id: EventId::new(), name: E::NAME.to_owned(), at: when, data, trace: None }
}

fn registered(when: &str, role: Role) -> EventEnvelope {
    let event = UserRegistered {
        user_id: UserId::new(),
        email: "ada@example.com".parse().unwrap(),
        name: "Ada".to_owned(),
        role,
        created_at: at(when),
    };
    news(at("2026-06-01"), &event)
}

fn line(product: ProductId, name: &str, quantity: i64, unit_price: Amount) -> InvoiceLine {
    InvoiceLine { description: name.to_owned(), product_id: Some(product), quantity, unit_price }
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
        currency: currency.parse().unwrap(),
        email: None,
        processing: false,
        created_at: at(when),
        expires_at: at(when),
        paid_at: Some(at(when)),
    }
}

fn paid(invoice: &Invoice) -> EventEnvelope {
    // Told long after it was paid: it still belongs to its own day.
    news(at("2026-06-01"), &InvoicePaid { invoice: invoice.clone(), hold: None, checkout: None, imported: false })
}

fn refunded(when: &str, invoice: &Invoice, amount: Amount, imported: bool) -> EventEnvelope {
    let (invoice, reason) = (invoice.clone(), "requested".to_owned());
    news(
        at(when),
        &InvoiceRefunded { invoice, amount, restock: false, lines: Vec::new(), hold: None, reason, imported },
    )
}

impl Shop {
    async fn tell(&self, events: Vec<EventEnvelope>) {
        self.stats.call(staff(), DeliverEvents { events }).await.unwrap();
    }

    async fn summary(&self, from: &str, to: &str, bucket: Bucket) -> Result<Summary, CommonError> {
        self.stats.call(staff(), GetSummary { from: Some(at(from)), to: Some(at(to)), bucket }).await
    }

    async fn log(&self, ctx: RequestContext, user_id: Option<UserId>, action: &str) -> Result<(), CommonError> {
        let action = action.to_owned();
        self.stats.call(ctx, LogAction { user_id, action, subject: None, data: None }).await
    }

    async fn actions(&self, filter: ListActions) -> Vec<Action> {
        self.stats.call(staff(), filter).await.unwrap().items
    }
}

/// The starts of the buckets that are not empty, with revenue, orders, sign-ups and carts.
fn filled(summary: &Summary) -> Vec<(Timestamp, i64, i64, i64, i64)> {
    let some = summary.buckets.iter().map(|b| {
        let Totals { revenue, orders, sign_ups, carts, .. } = b.figures;
        (b.start, revenue, orders, sign_ups, carts)
    });
    some.filter(|(_, r, o, s, c)| (*r, *o, *s, *c) != (0, 0, 0, 0)).collect()
}

#[actix::test]
async fn an_event_told_twice_is_counted_and_logged_once() {
    let shop = open_shop();
    let tea = ProductId::new();
    let sold = invoice("2026-03-01T23:30:00Z", "EUR", vec![line(tea, "Tea", 2, 450)]);
    let events = vec![
        registered("2026-03-01T10:00:00Z", Role::Customer),
        registered("2026-03-01T11:00:00Z", Role::Admin),
        news(at("2026-03-01T12:00:00Z"), &CartStarted { user_id: sold.user_id }),
        news(at("2026-03-01T12:00:00Z"), &CartStarted { user_id: UserId::new() }),
        paid(&sold),
        refunded("2026-03-03T01:00:00Z", &sold, 100, false),
    ];
    shop.tell(events.clone()).await;
    shop.tell(events).await;
    let days = shop.summary("2026-03-01", "2026-03-04", Bucket::Day).await.unwrap();
    assert_eq!(filled(&days), [(at("2026-03-01"), 900, 1, 1, 2), (at("2026-03-03"), -100, 0, 0, 0)]);
    assert_eq!(days.buckets.len(), 3);
    assert_eq!((days.totals.revenue, days.totals.orders, days.totals.conversion), (800, 1, Some(0.5)));
    assert_eq!(days.buckets[1].figures.conversion, None);
    let top = TopProduct { product_id: tea, name: "Tea".to_owned(), quantity: 2, revenue: 900 };
    assert_eq!(days.top_products, [top]);
    let hours = shop.summary("2026-03-01", "2026-03-02", Bucket::Hour).await.unwrap();
    assert_eq!(hours.buckets.len(), 24);
    assert_eq!(
        filled(&hours),
        [
            (at("2026-03-01T10:00:00Z"), 0, 0, 1, 0),
            (at("2026-03-01T12:00:00Z"), 0, 0, 0, 2),
            (at("2026-03-01T23:00:00Z"), 900, 1, 0, 0),
        ]
    );
    let log = shop.actions(ListActions::default()).await;
    let words: Vec<&str> = log.iter().map(|action| action.action.as_str()).collect();
    assert_eq!(words, ["signed_up", "cart_started", "cart_started", "order_paid", "order_refunded"]);
    assert_eq!(log[3].subject.as_deref(), Some(sold.id.to_string().as_str()));
    assert_eq!(log[3].data.as_ref().unwrap()["total"], 900);
}

#[actix::test]
async fn what_comes_late_or_out_of_order_still_belongs_to_its_own_day() {
    let shop = open_shop();
    let tea = ProductId::new();
    let days = ["2026-03-01T23:59:59.999999Z", "2026-01-31T12:00:00Z", "2026-03-02T00:00:00Z", "2026-02-01T00:00:00Z"];
    for (n, day) in days.iter().enumerate() {
        shop.tell(vec![paid(&invoice(day, "EUR", vec![line(tea, &format!("Tea {n}"), 1, 10)]))]).await;
    }
    let weeks = shop.summary("2026-02-25", "2026-03-03", Bucket::Week).await.unwrap();
    assert_eq!(weeks.from, at("2026-02-23"));
    assert_eq!(filled(&weeks), [(at("2026-02-23"), 10, 1, 0, 0), (at("2026-03-02"), 10, 1, 0, 0)]);
    let months = shop.summary("2025-12-31", "2026-03-31", Bucket::Month).await.unwrap();
    assert_eq!(
        months.buckets.iter().map(|b| (b.start, b.figures.orders)).collect::<Vec<_>>(),
        [(at("2025-12-01"), 0), (at("2026-01-01"), 1), (at("2026-02-01"), 1), (at("2026-03-01"), 2)]
    );
    assert_eq!(months.totals.revenue, 40);
    // The name is that of the latest sale, not of the event that came last.
    assert_eq!((months.top_products[0].name.as_str(), months.top_products[0].quantity), ("Tea 2", 4));
}

#[actix::test]
async fn a_refund_of_the_past_is_taken_off_the_day_of_the_sale() {
    let shop = open_shop();
    let old = invoice("2025-05-05T05:00:00Z", "EUR", vec![line(ProductId::new(), "Lamp", 1, 500)]);
    shop.tell(vec![paid(&old), refunded("2026-06-01", &old, 500, true)]).await;
    let days = shop.summary("2025-05-05", "2025-05-06", Bucket::Day).await.unwrap();
    assert_eq!(filled(&days), [(at("2025-05-05"), 0, 1, 0, 0)]);
    assert_eq!(shop.summary("2026-06-01", "2026-06-02", Bucket::Day).await.unwrap().totals, Totals::default());
}

#[actix::test]
async fn another_currency_counts_as_an_order_and_brings_nothing() {
    let shop = open_shop();
    let abroad = invoice("2026-03-01", "USD", vec![line(ProductId::new(), "Lamp", 1, 500)]);
    shop.tell(vec![paid(&abroad), refunded("2026-03-01", &abroad, 100, false)]).await;
    let day = shop.summary("2026-03-01", "2026-03-02", Bucket::Day).await.unwrap();
    assert_eq!((day.totals.revenue, day.totals.orders, day.currency), (0, 1, Currency::EUR));
    assert_eq!(day.top_products, []);
    // More orders than carts is not more than all of them.
    shop.tell(vec![news(at("2026-03-01"), &CartStarted { user_id: UserId::new() }), paid(&abroad)]).await;
    assert_eq!(shop.summary("2026-03-01", "2026-03-02", Bucket::Day).await.unwrap().totals.conversion, Some(1.0));
}

#[actix::test]
async fn the_top_products_are_the_ten_that_brought_most() {
    let shop = open_shop();
    let lines = (1..=12).map(|n| line(ProductId::new(), &format!("P{n}"), 1, n * 100)).collect();
    shop.tell(vec![paid(&invoice("2026-03-01", "EUR", lines))]).await;
    let top = shop.summary("2026-03-01", "2026-03-02", Bucket::Month).await.unwrap().top_products;
    assert_eq!(top.iter().map(|p| p.revenue).collect::<Vec<_>>(), (3..=12).rev().map(|n| n * 100).collect::<Vec<_>>());
}

#[actix::test]
async fn an_empty_shop_has_empty_buckets_for_the_last_thirty_days() {
    let shop = open_shop();
    let summary = shop.stats.call(staff(), GetSummary::default()).await.unwrap();
    assert_eq!(summary.buckets.len(), 31);
    assert_eq!((summary.totals, summary.top_products.len()), (Totals::default(), 0));
    let today = summary.buckets.last().unwrap().start;
    assert!(today <= shop.clock.now() && shop.clock.now() < today.plus(Duration::from_secs(86_400)));
}

#[actix::test]
async fn a_span_that_cannot_be_is_refused_by_its_field() {
    let shop = open_shop();
    let cases = [
        ("2026-03-02", "2026-03-01", Bucket::Day, "from"),
        ("2026-03-01", "2026-03-01", Bucket::Day, "from"),
        ("2026-01-01", "2026-02-16", Bucket::Hour, "bucket"),
        ("2020-01-01", "2026-01-01", Bucket::Day, "bucket"),
        ("0001-01-01", "9999-12-31", Bucket::Month, "bucket"),
    ];
    for (from, to, bucket, field) in cases {
        let Err(CommonError::ValidationFailed { errors }) = shop.summary(from, to, bucket).await else {
            panic!("{from} {to} was taken")
        };
        assert_eq!(errors[0].field, field, "{from} {to} {bucket:?}");
    }
    assert_eq!(shop.summary("2026-01-01", "2026-02-15", Bucket::Hour).await.unwrap().buckets.len(), 45 * 24);
    let refused = shop.stats.call(user(UserId::new(), Role::Customer), GetSummary::default()).await;
    assert_eq!(refused, Err(CommonError::Forbidden));
}

#[actix::test]
async fn only_staff_may_say_that_somebody_else_did_something() {
    let shop = open_shop();
    let (ada, bob) = (UserId::new(), UserId::new());
    shop.log(user(ada, Role::Customer), None, "product_viewed").await.unwrap();
    shop.log(user(ada, Role::Customer), Some(ada), "product_viewed").await.unwrap();
    shop.log(user(ada, Role::Admin), Some(bob), "called").await.unwrap();
    shop.log(staff(), Some(bob), "called").await.unwrap();
    shop.log(anyone(true), None, "page:viewed").await.unwrap();
    assert_eq!(shop.log(user(ada, Role::Customer), Some(bob), "x").await, Err(CommonError::Forbidden));
    assert_eq!(shop.log(anyone(true), Some(bob), "x").await, Err(CommonError::Forbidden));
    let whose: Vec<_> = shop.actions(ListActions::default()).await.into_iter().map(|a| a.user_id).collect();
    assert_eq!(whose, [Some(ada), Some(ada), Some(bob), Some(bob), None]);
}

#[actix::test]
async fn an_action_that_is_too_much_is_refused_by_its_field() {
    let shop = open_shop();
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
        let Err(CommonError::ValidationFailed { errors }) = shop.stats.call(staff(), action).await else {
            panic!("a bad {field} was taken")
        };
        assert_eq!(errors[0].field, field);
    }
    let largest = json!("d".repeat(4_094));
    shop.stats.call(staff(), LogAction { data: Some(largest.clone()), ..fine }).await.unwrap();
    assert_eq!(shop.actions(ListActions::default()).await[0].data, Some(largest));
}

#[actix::test]
async fn the_log_is_read_in_time_order_by_pages_and_filters() {
    let shop = open_shop();
    let ada = UserId::new();
    let mut middle = None;
    for n in 0..25 {
        let word = if n % 5 == 0 { "fifth" } else { "other" };
        shop.log(staff(), (n % 2 == 0).then_some(ada), word).await.unwrap();
        shop.clock.advance(Duration::from_secs(60));
        if n == 9 {
            middle = Some(shop.clock.now());
        }
    }
    let mut seen = Vec::new();
    let mut page = PageRequest { limit: Some(10), cursor: None };
    loop {
        let got = shop.stats.call(anyone(true), ListActions { page, ..Default::default() }).await.unwrap();
        seen.extend(got.items);
        let Some(next) = got.next else { break };
        page = PageRequest { limit: Some(10), cursor: Some(next) };
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.windows(2).all(|pair| pair[0].at < pair[1].at));
    let count = async |filter: ListActions| shop.actions(ListActions { page: wide(), ..filter }).await.len();
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
        assert_eq!(shop.stats.call(outsider, ListActions::default()).await, Err(CommonError::InternalOnly));
    }
}

fn wide() -> PageRequest {
    PageRequest { limit: Some(100), cursor: None }
}

#[actix::test]
async fn an_action_under_a_key_is_noted_once() {
    let shop = open_shop();
    for _ in 0..2 {
        let ctx = staff().with_key(IdempotencyKey::own("k"));
        shop.log(ctx, None, "clicked").await.unwrap();
    }
    assert_eq!(shop.actions(ListActions::default()).await.len(), 1);
}

#[actix::test]
async fn an_erased_user_leaves_what_was_done_but_not_who_did_it() {
    let shop = open_shop();
    let (ada, bob) = (UserId::new(), UserId::new());
    for who in [ada, bob] {
        let (subject, data) = (Some(who.to_string()), Some(json!({ "name": "x" })));
        let action = LogAction { user_id: Some(who), action: "renamed".into(), subject, data };
        shop.stats.call(staff(), action).await.unwrap();
    }
    shop.tell(vec![news(at("2026-03-01"), &UserErased { user_id: ada, email: None })]).await;
    let log = shop.actions(ListActions::default()).await;
    assert_eq!((log[0].user_id, &log[0].subject, &log[0].data), (None, &None, &None));
    assert_eq!((log[1].user_id, log[1].data.is_some()), (Some(bob), true));

    // What was still on its way when they left.
    let (subject, data) = (Some(ada.to_string()), Some(json!({ "name": "x" })));
    let late = LogAction { user_id: Some(ada), action: "late".into(), subject, data };
    shop.stats.call(staff(), late).await.unwrap();
    let log = shop.actions(ListActions { action: Some("late".into()), ..ListActions::default() }).await;
    assert_eq!((log[0].user_id, &log[0].subject, &log[0].data), (None, &None, &None));
}

#[actix::test]
async fn old_actions_are_forgotten_and_the_figures_stay() {
    let dir = TempDir::new().unwrap();
    let (mut settings, clock) = (Settings::for_test(dir.path()), Clock::system());
    settings.stats.keep_days = 2;
    let ground = DomainRuntime::new(settings, clock.clone());
    let store = ground.store("stats", store::MIGRATIONS).unwrap();
    let state = Arc::new(actor::StatsState { store, settings: Arc::clone(&ground.settings) });
    let own = Arc::clone(&state);
    let stats = ground.start("stats", move || StatsActor { state: own });
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
    let year = GetSummary { from: Some(at("2020-01-01")), to: Some(at("2020-12-31")), bucket: Bucket::Month };
    assert_eq!(stats.call(staff(), year).await.unwrap().totals.sign_ups, 1);
}

#[actix::test]
async fn the_count_of_requests_survives_a_restart() {
    let shop = open_shop();
    assert_eq!(shop.stats.call(staff(), GetServedRequests {}).await, Ok(0));
    assert_eq!(shop.stats.call(staff(), AddServedRequests { count: 5 }).await, Ok(5));
    assert_eq!(shop.stats.call(staff(), AddServedRequests { count: 7 }).await, Ok(12));
    assert!(shop.stats.call(staff(), AddServedRequests { count: -1 }).await.is_err());
    assert_eq!(shop.stats.call(anyone(true), AddServedRequests { count: 1 }).await, Err(CommonError::Forbidden));
    let again = open(&DomainRuntime::new(shop.settings.clone(), Clock::system())).unwrap().client;
    assert_eq!(again.call(staff(), GetServedRequests {}).await, Ok(12));
    drop(shop.dir);
}

#[actix::test]
async fn an_event_of_another_shape_does_not_stop_the_next() {
    let shop = open_shop();
    let mut strange = registered("2026-03-01", Role::Customer);
    strange.data = json!({ "who": "knows" });
    shop.tell(vec![strange, registered("2026-03-01", Role::Customer)]).await;
    let day = shop.summary("2026-03-01", "2026-03-02", Bucket::Day).await.unwrap();
    assert_eq!(day.totals.sign_ups, 1);
}
