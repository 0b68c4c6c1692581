//! SQL of payment attempts and of the provider's events.

use std::time::Duration;

use crate::domains::payments::model::PaymentState;
use crate::domains::payments::schema::{payment, provider_event, refund};
use crate::store::query::*;
use crate::store::{Conn, Fingerprint, IdempotentRequest, Prepare};
use crate::types::{Amount, Currency, InvoiceId, PaymentId, Timestamp};

/// Time for which ids of provider events are stored. Stripe redelivers an event for three days.
const PROVIDER_EVENT_RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// A row of `payment`: one payment attempt.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = payment)]
pub struct PaymentRow {
    pub id: PaymentId,
    pub invoice_id: InvoiceId,
    pub state: PaymentState,
    pub amount: Amount,
    pub currency: Currency,
    pub scope: Option<String>,
    pub key: Option<String>,
    pub fingerprint: Option<Vec<u8>>,
    pub failure: Option<String>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Process that works on it, where several have the database open.
    pub process: Option<i64>,
}

/// Inserts an attempt.
pub fn insert_payment(conn: &mut Conn, row: &PaymentRow) -> QueryResult<()> {
    diesel::insert_into(payment::table).values(row).execute(conn)?;
    Ok(())
}

/// Reads an attempt.
pub fn payment(conn: &mut Conn, id: PaymentId) -> QueryResult<Option<PaymentRow>> {
    payment::table.find(id).select(PaymentRow::as_select()).first(conn).optional()
}

/// Moves an attempt from one state to another. Returns `false` if it was not in the first.
pub fn transition_payment(
    conn: &mut Conn,
    id: PaymentId,
    (from, to): (PaymentState, PaymentState),
    failure: Option<&str>,
    now: Timestamp,
) -> QueryResult<bool> {
    debug_assert!(from.may_become(to));
    let ended = diesel::update(payment::table.find(id))
        .filter(payment::state.eq(from))
        .set((payment::state.eq(to), payment::failure.eq(failure), payment::ended_at.eq(now)))
        .prepared()
        .execute(conn)?;
    Ok(ended == 1)
}

/// Lists unfinished attempts, oldest first.
pub fn unfinished_payments(conn: &mut Conn, limit: i64) -> QueryResult<Vec<PaymentRow>> {
    payment::table
        .filter(payment::ended_at.is_null())
        .order(payment::created_at)
        .limit(limit)
        .select(PaymentRow::as_select())
        .load(conn)
}

/// Returns the fingerprint and the failure code of the newest attempt since `since` that failed under the request's key.
pub fn failed_attempt(
    conn: &mut Conn,
    request: &IdempotentRequest,
    since: Timestamp,
) -> QueryResult<Option<(Fingerprint, String)>> {
    let found: Option<(Option<Vec<u8>>, Option<String>)> = payment::table
        .filter(payment::scope.eq(&request.scope))
        .filter(payment::key.eq(request.key.as_str()))
        .filter(payment::failure.is_not_null())
        .filter(payment::ended_at.gt(since))
        .order(payment::id.desc())
        .select((payment::fingerprint, payment::failure))
        .first(conn)
        .optional()?;
    Ok(found.and_then(|(fingerprint, failure)| Some((Fingerprint::from_bytes(fingerprint?), failure?))))
}

/// Returns the attempt that paid an invoice.
pub fn captured_payment(conn: &mut Conn, id: InvoiceId) -> QueryResult<Option<PaymentId>> {
    payment::table
        .filter(payment::invoice_id.eq(id))
        .filter(payment::state.eq(PaymentState::Captured))
        .select(payment::id)
        .first(conn)
        .optional()
}

/// Returns the fingerprint of the attempt or refund that is in progress under the request's key, if there is one.
pub fn running_fingerprint(conn: &mut Conn, request: &IdempotentRequest) -> QueryResult<Option<Fingerprint>> {
    let attempt: Option<Option<Vec<u8>>> = payment::table
        .filter(payment::scope.eq(&request.scope))
        .filter(payment::key.eq(request.key.as_str()))
        .filter(payment::ended_at.is_null())
        .select(payment::fingerprint)
        .first(conn)
        .optional()?;
    if let Some(fingerprint) = attempt {
        return Ok(fingerprint.map(Fingerprint::from_bytes));
    }
    let refund: Option<Option<Vec<u8>>> = refund::table
        .filter(refund::scope.eq(&request.scope))
        .filter(refund::key.eq(request.key.as_str()))
        .filter(refund::ended_at.is_null())
        .select(refund::fingerprint)
        .first(conn)
        .optional()?;
    Ok(refund.flatten().map(Fingerprint::from_bytes))
}

/// Records the id of a provider event and deletes old ones. Returns `false` if it was recorded before.
pub fn record_provider_event(conn: &mut Conn, id: &str, now: Timestamp) -> QueryResult<bool> {
    diesel::delete(provider_event::table.filter(provider_event::at.lt(now.saturating_sub(PROVIDER_EVENT_RETENTION))))
        .execute(conn)?;
    let values = (provider_event::id.eq(id), provider_event::at.eq(now));
    Ok(diesel::insert_into(provider_event::table).values(values).on_conflict_do_nothing().execute(conn)? == 1)
}
