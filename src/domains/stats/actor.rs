//! Handlers of the stats messages, and the effect of each event on the log and the totals.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde_json::json;

use super::model::{self, BucketRange, Counters, ShopAction};
use super::store::{self, Filter, NewAction, reported};
use super::*;
use crate::contract::cart::CartStarted;
use crate::contract::payments::{InvoicePaid, InvoiceRefunded, LATE_PAYMENT};
use crate::contract::users::{UserErased, UserRegistered};
use crate::messaging::{CheckInvariants, CommonError, DeliverEvents, ListAuditEntries, RequestContext, Role};
use crate::runtime::spawn_leader_interval;
use crate::settings::Settings;
use crate::store::{DomainState, Invariants, LockSet, Store, Tx, check_invariants, list_audit_entries};
use crate::types::{ActionId, Currency, FieldError, Page, Timestamp, UserId};

/// Interval at which old actions are deleted.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);
/// Actions deleted per write job, which delays other writers.
const PURGE_BATCH: i64 = 5_000;
/// Period of a summary without `from`.
const DEFAULT_RANGE: Duration = Duration::from_secs(30 * 86_400);
/// Number of products in a summary's `top_products`.
const TOP_PRODUCTS: i64 = 10;
/// Most requests that one message may add to the count. More is an error of the caller.
const SERVED_MAX: i64 = 1_000_000_000_000;

/// State shared by the actor's handlers.
pub struct StatsState {
    pub(super) store: Store,
    pub(super) settings: Arc<Settings>,
}

/// Actor of the stats domain. It holds nothing that a restart could lose.
pub struct StatsActor {
    pub(super) state: Arc<StatsState>,
}

impl Actor for StatsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_leader_interval(ctx, &self.state.store, &self.state, PURGE_INTERVAL, |state| async move {
            if let Err(error) = state.purge().await {
                log::warn!("stats: deleting old actions failed: {error}");
            }
        });
    }
}

impl Supervised for StatsActor {}

crate::handlers! { StatsActor;
    LogAction => log_action,
    ListActions => list_actions,
    GetSummary => get_summary,
    AddServedRequests => add_served_requests,
    GetServedRequests => get_served_requests,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
    ListOrderFacts => list_order_facts,
    CountOrders => count_orders,
}

impl StatsState {
    /// Deletes the actions that are older than `stats.keep_days`.
    pub(super) async fn purge(&self) -> Result<(), CommonError> {
        let retention = Duration::from_secs(u64::from(self.settings.stats.keep_days) * 86_400);
        let until = self.store.now().saturating_sub(retention);
        while self.store.write(move |tx| Ok::<_, CommonError>(store::delete_old(tx.conn, until, PURGE_BATCH)?)).await? {
        }
        Ok(())
    }
}

async fn log_action(state: Arc<StatsState>, ctx: RequestContext, request: LogAction) -> Result<(), StatsError> {
    let user_id = model::attributed_user(&ctx, request.user_id)?;
    let data = model::validate_action(&ctx, &request)?;
    let (kind, subject) = (request.action.clone(), request.subject.clone());
    let is_own = ctx.is_domain();
    let texts = [Some(&kind), subject.as_ref(), data.as_ref()].into_iter().flatten().map(String::as_str);
    let reported_bytes = (!is_own).then(|| reported::size_of(texts));
    let budget = state.settings.stats.log_bytes_max;
    // Under the lock the oldest entries are deleted, and counted, once.
    let locks = if is_own { LockSet::none() } else { LockSet::key("reported", "") };
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(locks)
        .run(move |tx| {
            let action = NewAction { at: tx.now, id: ActionId::new(), user_id, kind, subject, data, reported_bytes };
            store::append(tx.conn, &action)?;
            if let Some(bytes) = reported_bytes {
                reported::charge(tx.conn, bytes, budget)?;
            }
            Ok(())
        })
        .await
}

async fn list_actions(
    state: Arc<StatsState>,
    _: RequestContext,
    request: ListActions,
) -> Result<Page<LoggedAction>, StatsError> {
    let limit = request.page.limit()?;
    let ListActions { from, to, action, user_id, page } = request;
    let filter = Filter { from, to, action, user_id, after: page.after()? };
    let rows = state.store.read(move |conn| store::list_actions(conn, &filter, limit + 1)).await?;
    Ok(Page::from_overfetch(rows, limit, |action| (action.at, action.id)))
}

async fn get_summary(state: Arc<StatsState>, _: RequestContext, request: GetSummary) -> Result<Summary, StatsError> {
    let to = request.to.unwrap_or_else(|| state.store.now());
    let from = request.from.unwrap_or_else(|| to.saturating_sub(DEFAULT_RANGE));
    let (bucket, range) = match request.bucket {
        Some(bucket) => (bucket, BucketRange::of(bucket, from, to)?),
        None => BucketRange::fitting(from, to)?,
    };
    let (from, end) = (range.begin(), range.end);
    let (counters, top_products) = state
        .store
        .read(move |conn| {
            let counters = store::counters(conn, bucket, from, end)?;
            Ok::<_, CommonError>((counters, store::top_products(conn, model::floor_day(from), end, TOP_PRODUCTS)?))
        })
        .await?;
    let filled = range.fill(&counters);
    let mut sum = Counters::default();
    filled.iter().for_each(|counters| sum.add(counters));
    let buckets = range.starts.iter().zip(&filled);
    Ok(Summary {
        from,
        to,
        bucket,
        currency: state.settings.shop.currency,
        totals: sum.totals(),
        buckets: buckets.map(|(start, counters)| BucketTotals { start: *start, totals: counters.totals() }).collect(),
        top_products,
    })
}

async fn add_served_requests(
    state: Arc<StatsState>,
    ctx: RequestContext,
    request: AddServedRequests,
) -> Result<i64, StatsError> {
    let count = request.count;
    if !(0..=SERVED_MAX).contains(&count) {
        return Err(FieldError::new("count", "out_of_range", "must be between 0 and 1000000000000").into());
    }
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(LockSet::none())
        .run(move |tx| Ok(store::add_served_requests(tx.conn, count)?))
        .await
}

async fn get_served_requests(
    state: Arc<StatsState>,
    _: RequestContext,
    _: GetServedRequests,
) -> Result<i64, StatsError> {
    state.store.read(|conn| Ok(store::served_requests(conn)?)).await
}

async fn on_events(state: Arc<StatsState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    let shop_currency = state.settings.shop.currency;
    state.store.consume(request.events, move |tx, event| apply_event(tx, shop_currency, event)).await
}

crate::event_handlers! {
    /// Counts and logs an event, in the hour and on the day in which it happened.
    fn apply_event(tx: &mut Tx<'_>, shop_currency: Currency) -> Result<(), CommonError>;
    UserRegistered => on_user_registered,
    UserErased => on_user_erased,
    CartStarted => on_cart_started(at),
    InvoicePaid => on_invoice_paid(at),
    InvoiceRefunded => on_invoice_refunded(at),
}

fn on_user_registered(tx: &mut Tx<'_>, _: Currency, event: UserRegistered) -> Result<(), CommonError> {
    let UserRegistered { user_id, role, created_at, .. } = event;
    if role == Role::Customer {
        store::count(tx.conn, created_at, &Counters { sign_ups: 1, ..Counters::default() })?;
        log_event(tx, created_at, user_id, ShopAction::SignedUp, None, None)?;
    }
    Ok(())
}

fn on_user_erased(tx: &mut Tx<'_>, _: Currency, event: UserErased) -> Result<(), CommonError> {
    tx.erase_responses(event.user_id, event.email.is_some())?;
    Ok(store::erase_user(tx.conn, event.user_id)?)
}

fn on_cart_started(tx: &mut Tx<'_>, _: Currency, event: CartStarted, at: Timestamp) -> Result<(), CommonError> {
    store::count(tx.conn, at, &Counters { carts: 1, ..Counters::default() })?;
    log_event(tx, at, event.user_id, ShopAction::CartStarted, None, None)
}

fn on_invoice_paid(
    tx: &mut Tx<'_>,
    shop_currency: Currency,
    InvoicePaid { invoice, .. }: InvoicePaid,
    at: Timestamp,
) -> Result<(), CommonError> {
    let at = invoice.paid_at.unwrap_or(at);
    let revenue = model::revenue(invoice.total, invoice.currency, shop_currency);
    store::count(tx.conn, at, &Counters { revenue, orders: 1, ..Counters::default() })?;
    if invoice.currency == shop_currency {
        store::count_sales(tx.conn, at, &model::sales(&invoice))?;
    }
    let data = json!({ "number": invoice.number, "total": invoice.total, "currency": invoice.currency });
    log_event(tx, at, invoice.user_id, ShopAction::OrderPaid, Some(invoice.id.to_string()), Some(data.to_string()))
}

fn on_invoice_refunded(
    tx: &mut Tx<'_>,
    shop_currency: Currency,
    event: InvoiceRefunded,
    at: Timestamp,
) -> Result<(), CommonError> {
    let InvoiceRefunded { invoice, amount, imported, reason, .. } = event;
    // A payment that came too late was never counted as revenue, so its refund is not deducted.
    let counted = if reason == LATE_PAYMENT { 0 } else { amount };
    // Product sales stay as they are: a refund may name no lines.
    let at = if imported { invoice.paid_at.unwrap_or(invoice.created_at) } else { at };
    let revenue = -model::revenue(counted, invoice.currency, shop_currency);
    store::count(tx.conn, at, &Counters { revenue, ..Counters::default() })?;
    let data = json!({
        "number": invoice.number, "amount": amount, "currency": invoice.currency, "reason": reason
    });
    log_event(tx, at, invoice.user_id, ShopAction::OrderRefunded, Some(invoice.id.to_string()), Some(data.to_string()))
}

/// Appends an entry for an event to the log.
fn log_event(
    tx: &mut Tx<'_>,
    at: Timestamp,
    user_id: UserId,
    action: ShopAction,
    subject: Option<String>,
    data: Option<String>,
) -> Result<(), CommonError> {
    let (user_id, kind) = (Some(user_id), action.as_str().to_owned());
    let id = ActionId::new();
    Ok(store::append(tx.conn, &NewAction { at, id, user_id, kind, subject, data, reported_bytes: None })?)
}

impl DomainState for StatsState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
}

async fn list_order_facts(
    state: Arc<StatsState>,
    _: RequestContext,
    request: ListOrderFacts,
) -> Result<OrderFacts, CommonError> {
    let retention = Duration::from_secs(u64::from(state.settings.stats.keep_days) * 86_400);
    let kept_since = state.store.now().saturating_sub(retention);
    let times = state
        .store
        .read(move |conn| Ok::<_, CommonError>(store::invariants::count_order_entries(conn, &request.orders)?))
        .await?;
    Ok(OrderFacts { times, kept_since })
}

async fn count_orders(
    state: Arc<StatsState>,
    _: RequestContext,
    _: CountOrders,
) -> Result<Vec<(Timestamp, i64)>, CommonError> {
    state.store.read(|conn| Ok(store::invariants::orders_by_day(conn)?)).await
}
