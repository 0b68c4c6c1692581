//! One handler a message, and what each event is worth.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde_json::json;

use super::model::{self, BucketRange, Counters};
use super::store::{self, Filter, NewAction};
use super::*;
use crate::contract::cart::CartStarted;
use crate::contract::payments::{InvoicePaid, InvoiceRefunded, LATE_PAYMENT};
use crate::contract::users::{UserErased, UserRegistered};
use crate::messaging::{
    CheckInvariants, CommonError, DeliverEvents, Event, EventEnvelope, InvariantReport, RequestContext, Role,
};
use crate::runtime::spawn_leader_interval;
use crate::settings::Settings;
use crate::store::{LockSet, Store, Tx};
use crate::types::{ActionId, Currency, FieldError, Page, Timestamp, UserId};

/// How often old actions are forgotten.
const PURGE_INTERVAL: Duration = Duration::from_secs(3_600);
/// How many are forgotten in one job: everybody who writes waits for it.
const PURGE_BATCH: i64 = 5_000;
/// What a summary covers when nobody says.
const DEFAULT_RANGE: Duration = Duration::from_secs(30 * 86_400);
/// How many products the top ones are.
const TOP_PRODUCTS: i64 = 10;
/// The most requests one message may add to the count: more is a mistake, not a busy day.
const SERVED_MAX: i64 = 1_000_000_000_000;

/// What the actor's handlers share.
pub struct StatsState {
    pub(super) store: Store,
    pub(super) settings: Arc<Settings>,
}

/// The actor of this domain.
pub struct StatsActor {
    pub(super) state: Arc<StatsState>,
}

impl Actor for StatsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_leader_interval(ctx, &self.state.store, &self.state, PURGE_INTERVAL, |state| async move {
            if let Err(failure) = state.purge().await {
                log::warn!("stats: old actions could not be forgotten: {failure}");
            }
        });
    }
}

impl Supervised for StatsActor {}

crate::handlers! { StatsActor;
    LogAction => log_action,
    ListActions => list_actions,
    GetSummary => summarize,
    AddServedRequests => add_served,
    GetServedRequests => get_served,
    DeliverEvents => on_events,
    CheckInvariants => audit,
    ListOrderFacts => audit_orders,
    CountOrders => count_orders,
}

impl StatsState {
    /// Forgets the actions that are older than the settings say.
    pub(super) async fn purge(&self) -> Result<(), CommonError> {
        let kept = Duration::from_secs(u64::from(self.settings.stats.keep_days) * 86_400);
        let until = self.store.now().minus(kept);
        while self.store.write(move |tx| Ok::<_, CommonError>(store::forget(tx.conn, until, PURGE_BATCH)?)).await? {}
        Ok(())
    }
}

async fn log_action(state: Arc<StatsState>, ctx: RequestContext, request: LogAction) -> Result<(), StatsError> {
    let user_id = model::doer(&ctx, request.user_id)?;
    let data = model::check(&request)?;
    let (kind, subject) = (request.action.clone(), request.subject.clone());
    state
        .store
        .write_idempotent_locked(LockSet::none(), &ctx, &request, move |tx| {
            let line = NewAction { at: tx.now, id: ActionId::new(), user_id, kind, subject, data };
            Ok(store::append(tx.conn, &line)?)
        })
        .await
}

async fn list_actions(
    state: Arc<StatsState>,
    _: RequestContext,
    request: ListActions,
) -> Result<Page<Action>, StatsError> {
    let limit = request.page.limit()?;
    let ListActions { from, to, action, user_id, page } = request;
    let filter = Filter { from, to, action, user_id, after: page.after()? };
    let rows = state.store.read(move |conn| store::actions(conn, &filter, limit + 1)).await?;
    Ok(Page::cut(rows, limit, |action| (action.at, action.id)))
}

async fn summarize(state: Arc<StatsState>, _: RequestContext, request: GetSummary) -> Result<Summary, StatsError> {
    let bucket = request.bucket;
    let to = request.to.unwrap_or_else(|| state.store.now());
    let span = BucketRange::of(bucket, request.from.unwrap_or_else(|| to.minus(DEFAULT_RANGE)), to)?;
    let (from, end) = (span.begin(), span.end);
    let (tallies, top_products) = state
        .store
        .read(move |conn| {
            let tallies = store::tallies(conn, bucket, from, end)?;
            Ok::<_, CommonError>((tallies, store::top_products(conn, model::day_of(from), end, TOP_PRODUCTS)?))
        })
        .await?;
    let filled = span.fill(&tallies);
    let mut totals = Counters::default();
    filled.iter().for_each(|tally| totals.add(tally));
    let buckets = span.starts.iter().zip(&filled);
    Ok(Summary {
        from,
        to,
        bucket,
        currency: state.settings.shop.currency,
        totals: totals.figures(),
        buckets: buckets.map(|(start, tally)| BucketTotals { start: *start, figures: tally.figures() }).collect(),
        top_products,
    })
}

async fn add_served(
    state: Arc<StatsState>,
    ctx: RequestContext,
    request: AddServedRequests,
) -> Result<i64, StatsError> {
    let count = request.count;
    if !(0..=SERVED_MAX).contains(&count) {
        return Err(FieldError::new("count", "out_of_range", "must be a number of requests").into());
    }
    state
        .store
        .write_idempotent_locked(LockSet::none(), &ctx, &request, move |tx| Ok(store::add_served(tx.conn, count)?))
        .await
}

async fn get_served(state: Arc<StatsState>, _: RequestContext, _: GetServedRequests) -> Result<i64, StatsError> {
    state.store.read(|conn| Ok(store::served(conn)?)).await
}

async fn on_events(state: Arc<StatsState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    let shop = state.settings.shop.currency;
    state.store.consume(request.events, move |tx, event| effect(tx, event, shop)).await
}

/// What an event is worth, counted in the hour and on the day it belongs to, however late it comes.
fn effect(tx: &mut Tx<'_>, event: &EventEnvelope, shop: Currency) -> Result<(), CommonError> {
    if let Some(UserRegistered { user_id, role, created_at, .. }) = open(event)? {
        if role == Role::Customer {
            store::count(tx.conn, created_at, &Counters { sign_ups: 1, ..Counters::default() })?;
            note(tx, created_at, user_id, "signed_up", None, None)?;
        }
    } else if let Some(UserErased { user_id, .. }) = open(event)? {
        store::erase_user(tx.conn, user_id)?;
    } else if let Some(CartStarted { user_id }) = open(event)? {
        store::count(tx.conn, event.at, &Counters { carts: 1, ..Counters::default() })?;
        note(tx, event.at, user_id, "cart_started", None, None)?;
    } else if let Some(InvoicePaid { invoice, .. }) = open(event)? {
        let at = invoice.paid_at.unwrap_or(event.at);
        let revenue = model::revenue(invoice.total, invoice.currency, shop);
        store::count(tx.conn, at, &Counters { revenue, orders: 1, ..Counters::default() })?;
        if invoice.currency == shop {
            store::count_sales(tx.conn, at, &model::sales(&invoice))?;
        }
        let data = json!({ "number": invoice.number, "total": invoice.total, "currency": invoice.currency });
        note(tx, at, invoice.user_id, "order_paid", Some(invoice.id.to_string()), Some(data.to_string()))?;
    } else if let Some(InvoiceRefunded { invoice, amount, imported, reason, .. }) = open(event)? {
        // Money that no invoice could take was never counted as revenue, so it does not go off it either.
        let counted = if reason == LATE_PAYMENT { 0 } else { amount };
        // What each product brought stays as it was sold: a refund may name no lines.
        let at = if imported { invoice.paid_at.unwrap_or(invoice.created_at) } else { event.at };
        let revenue = -model::revenue(counted, invoice.currency, shop);
        store::count(tx.conn, at, &Counters { revenue, ..Counters::default() })?;
        let data = json!({
            "number": invoice.number, "amount": amount, "currency": invoice.currency, "reason": reason
        });
        note(tx, at, invoice.user_id, "order_refunded", Some(invoice.id.to_string()), Some(data.to_string()))?;
    }
    Ok(())
}

/// Adds a line of the shop's own to the log.
fn note(
    tx: &mut Tx<'_>,
    at: Timestamp,
    user_id: UserId,
    kind: &str,
    subject: Option<String>,
    data: Option<String>,
) -> Result<(), CommonError> {
    let (user_id, kind) = (Some(user_id), kind.to_owned());
    Ok(store::append(tx.conn, &NewAction { at, id: ActionId::new(), user_id, kind, subject, data })?)
}

/// The event inside, if it is an `E`; one of another shape is set aside by the store, with what was wrong in the log.
fn open<E: Event>(event: &EventEnvelope) -> Result<Option<E>, CommonError> {
    event.decode().map_err(|error| {
        log::error!("stats: event {} {} is not understood: {error}", event.name, event.id);
        CommonError::Internal
    })
}

async fn audit(
    state: Arc<StatsState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn audit_orders(
    state: Arc<StatsState>,
    _: RequestContext,
    request: ListOrderFacts,
) -> Result<OrderFacts, CommonError> {
    let kept = Duration::from_secs(u64::from(state.settings.stats.keep_days) * 86_400);
    let kept_since = state.store.now().minus(kept);
    let times =
        state.store.read(move |conn| Ok::<_, CommonError>(store::invariants::orders(conn, &request.orders)?)).await?;
    Ok(OrderFacts { times, kept_since })
}

async fn count_orders(
    state: Arc<StatsState>,
    _: RequestContext,
    _: CountOrders,
) -> Result<Vec<(Timestamp, i64)>, CommonError> {
    state.store.read(|conn| Ok(store::invariants::orders_by_day(conn)?)).await
}
