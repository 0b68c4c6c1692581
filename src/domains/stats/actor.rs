//! One handler a message, and what each event is worth.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};
use serde_json::json;

use super::model::{self, Span, Tally};
use super::store::{self, Filter, NewAction};
use super::*;
use crate::contract::cart::CartStarted;
use crate::contract::payments::{InvoicePaid, InvoiceRefunded, LATE_PAYMENT};
use crate::contract::users::{UserErased, UserRegistered};
use crate::events::{Deliver, Delivery, Event};
use crate::ground::now_and_every;
use crate::messaging::{Ctx, Failure, Role};
use crate::settings::Settings;
use crate::store::{Audit, Audited, Store, Touch, Tx};
use crate::types::{ActionId, Currency, FieldError, Page, Timestamp, UserId};

/// How often old actions are forgotten.
const PURGE_EVERY: Duration = Duration::from_secs(3_600);
/// How many are forgotten in one job: everybody who writes waits for it.
const PURGE_BATCH: i64 = 5_000;
/// What a summary covers when nobody says.
const USUAL: Duration = Duration::from_secs(30 * 86_400);
/// How many products the top ones are.
const TOP: i64 = 10;
/// The most requests one message may add to the count: more is a mistake, not a busy day.
const SERVED_MAX: i64 = 1_000_000_000_000;

/// What the actor's handlers share.
pub struct Room {
    pub(super) store: Store,
    pub(super) settings: Arc<Settings>,
}

/// The actor of this domain.
pub struct Stats {
    pub(super) room: Arc<Room>,
}

impl Actor for Stats {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        now_and_every(ctx, &self.room.store, &self.room, PURGE_EVERY, |room| async move {
            if let Err(failure) = room.purge().await {
                log::warn!("stats: old actions could not be forgotten: {failure}");
            }
        });
    }
}

impl Supervised for Stats {}

crate::answers! { Stats;
    LogAction => log_action,
    ListActions => list_actions,
    Summarize => summarize,
    AddServed => add_served,
    GetServed => get_served,
    Deliver => deliver,
    Audit => audit,
    AuditOrders => audit_orders,
    CountOrders => count_orders,
}

impl Room {
    /// Forgets the actions that are older than the settings say.
    pub(super) async fn purge(&self) -> Result<(), Failure> {
        let kept = Duration::from_secs(u64::from(self.settings.stats.keep_days) * 86_400);
        let until = self.store.now().minus(kept);
        while self.store.write(move |tx| Ok::<_, Failure>(store::forget(tx.conn, until, PURGE_BATCH)?)).await? {}
        Ok(())
    }
}

async fn log_action(room: Arc<Room>, ctx: Ctx, request: LogAction) -> Result<(), StatsError> {
    let user_id = model::doer(&ctx, request.user_id)?;
    let data = model::check(&request)?;
    let (kind, subject) = (request.action.clone(), request.subject.clone());
    room.store
        .write_once_on(Touch::nothing(), &ctx, &request, move |tx| {
            let line = NewAction { at: tx.now, id: ActionId::new(), user_id, kind, subject, data };
            Ok(store::append(tx.conn, &line)?)
        })
        .await
}

async fn list_actions(room: Arc<Room>, _: Ctx, request: ListActions) -> Result<Page<Action>, StatsError> {
    let limit = request.page.limit()?;
    let ListActions { from, to, action, user_id, page } = request;
    let filter = Filter { from, to, action, user_id, after: page.after()? };
    let rows = room.store.read(move |conn| store::actions(conn, &filter, limit + 1)).await?;
    Ok(Page::cut(rows, limit, |action| (action.at, action.id)))
}

async fn summarize(room: Arc<Room>, _: Ctx, request: Summarize) -> Result<Summary, StatsError> {
    let bucket = request.bucket;
    let to = request.to.unwrap_or_else(|| room.store.now());
    let span = Span::of(bucket, request.from.unwrap_or_else(|| to.minus(USUAL)), to)?;
    let (from, end) = (span.begin(), span.end);
    let (tallies, top_products) = room
        .store
        .read(move |conn| {
            let tallies = store::tallies(conn, bucket, from, end)?;
            Ok::<_, Failure>((tallies, store::top_products(conn, model::day_of(from), end, TOP)?))
        })
        .await?;
    let filled = span.fill(&tallies);
    let mut totals = Tally::default();
    filled.iter().for_each(|tally| totals.add(tally));
    let buckets = span.starts.iter().zip(&filled);
    Ok(Summary {
        from,
        to,
        bucket,
        currency: room.settings.shop.currency,
        totals: totals.figures(),
        buckets: buckets.map(|(start, tally)| BucketFigures { start: *start, figures: tally.figures() }).collect(),
        top_products,
    })
}

async fn add_served(room: Arc<Room>, ctx: Ctx, request: AddServed) -> Result<i64, StatsError> {
    let count = request.count;
    if !(0..=SERVED_MAX).contains(&count) {
        return Err(FieldError::new("count", "out_of_range", "must be a number of requests").into());
    }
    room.store.write_once_on(Touch::nothing(), &ctx, &request, move |tx| Ok(store::add_served(tx.conn, count)?)).await
}

async fn get_served(room: Arc<Room>, _: Ctx, _: GetServed) -> Result<i64, StatsError> {
    room.store.read(|conn| Ok(store::served(conn)?)).await
}

async fn deliver(room: Arc<Room>, _: Ctx, request: Deliver) -> Result<(), Failure> {
    let shop = room.settings.shop.currency;
    room.store.consume(request.events, move |tx, event| effect(tx, event, shop)).await
}

/// What an event is worth, counted in the hour and on the day it belongs to, however late it comes.
fn effect(tx: &mut Tx<'_>, event: &Delivery, shop: Currency) -> Result<(), Failure> {
    if let Some(UserRegistered { user_id, role, created_at, .. }) = open(event)? {
        if role == Role::Customer {
            store::count(tx.conn, created_at, &Tally { sign_ups: 1, ..Tally::default() })?;
            note(tx, created_at, user_id, "signed_up", None, None)?;
        }
    } else if let Some(UserErased { user_id, .. }) = open(event)? {
        store::erase_user(tx.conn, user_id)?;
    } else if let Some(CartStarted { user_id }) = open(event)? {
        store::count(tx.conn, event.at, &Tally { carts: 1, ..Tally::default() })?;
        note(tx, event.at, user_id, "cart_started", None, None)?;
    } else if let Some(InvoicePaid { invoice, .. }) = open(event)? {
        let at = invoice.paid_at.unwrap_or(event.at);
        let revenue = model::revenue(invoice.total, invoice.currency, shop);
        store::count(tx.conn, at, &Tally { revenue, orders: 1, ..Tally::default() })?;
        if invoice.currency == shop {
            store::count_sales(tx.conn, at, &model::sales(&invoice))?;
        }
        let data = json!({ "number": invoice.number, "total": invoice.total, "currency": invoice.currency });
        note(tx, at, invoice.user_id, "order_paid", Some(invoice.id.to_string()), Some(data.to_string()))?;
    } else if let Some(InvoiceRefunded { invoice, amount, past, reason, .. }) = open(event)? {
        // Money that no invoice could take was never counted as revenue, so it does not go off it either.
        let counted = if reason == LATE_PAYMENT { 0 } else { amount };
        // What each product brought stays as it was sold: a refund may name no lines.
        let at = if past { invoice.paid_at.unwrap_or(invoice.created_at) } else { event.at };
        let revenue = -model::revenue(counted, invoice.currency, shop);
        store::count(tx.conn, at, &Tally { revenue, ..Tally::default() })?;
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
) -> Result<(), Failure> {
    let (user_id, kind) = (Some(user_id), kind.to_owned());
    Ok(store::append(tx.conn, &NewAction { at, id: ActionId::new(), user_id, kind, subject, data })?)
}

/// The event inside, if it is an `E`; one of another shape is set aside by the store, with what was wrong in the log.
fn open<E: Event>(event: &Delivery) -> Result<Option<E>, Failure> {
    event.open().map_err(|error| {
        log::error!("stats: event {} {} is not understood: {error}", event.name, event.id);
        Failure::Internal
    })
}

async fn audit(room: Arc<Room>, _: Ctx, request: Audit) -> Result<Audited, Failure> {
    room.store.audit(request, store::audit::BOOKS).await
}

async fn audit_orders(room: Arc<Room>, _: Ctx, request: AuditOrders) -> Result<OrderFacts, Failure> {
    let kept = Duration::from_secs(u64::from(room.settings.stats.keep_days) * 86_400);
    let kept_since = room.store.now().minus(kept);
    let times = room.store.read(move |conn| Ok::<_, Failure>(store::audit::orders(conn, &request.orders)?)).await?;
    Ok(OrderFacts { times, kept_since })
}

async fn count_orders(room: Arc<Room>, _: Ctx, _: CountOrders) -> Result<Vec<(Timestamp, i64)>, Failure> {
    room.store.read(|conn| Ok(store::audit::orders_by_day(conn)?)).await
}
