//! SQL of refunds and of unapplied payments.

use super::InvoiceRow;
use crate::contract::payments::ReturnLine;
use crate::domains::payments::model::{self, RefundState};
use crate::domains::payments::schema::{refund, unapplied_payment};
use crate::store::query::*;
use crate::store::{Conn, Prepare};
use crate::types::{Amount, Currency, InvoiceId, PaymentId, Timestamp};

/// A row of `refund`.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = refund)]
pub struct RefundRow {
    pub id: PaymentId,
    pub invoice_id: InvoiceId,
    pub state: RefundState,
    pub amount: Amount,
    pub restock: bool,
    pub lines: Option<String>,
    pub reason: String,
    pub scope: Option<String>,
    pub key: Option<String>,
    pub fingerprint: Option<Vec<u8>>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Process that works on it, where several have the database open.
    pub process: Option<i64>,
}

impl RefundRow {
    /// Returns the units that come back with it.
    pub fn lines(&self) -> QueryResult<Vec<ReturnLine>> {
        self.lines.as_deref().map_or(Ok(Vec::new()), from_text)
    }
}

/// A row of `unapplied_payment`: captured money that no invoice could take, to be refunded.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = unapplied_payment)]
pub struct UnappliedPaymentRow {
    pub payment_id: PaymentId,
    pub invoice_id: InvoiceId,
    pub refund_key: PaymentId,
    pub amount: Amount,
    pub currency: Currency,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Process that works on it, where several have the database open.
    pub process: Option<i64>,
}

/// Inserts a refund.
pub fn insert_refund(conn: &mut Conn, row: &RefundRow) -> QueryResult<()> {
    diesel::insert_into(refund::table).values(row).execute(conn)?;
    Ok(())
}

/// Reads a refund.
pub fn refund(conn: &mut Conn, id: PaymentId) -> QueryResult<Option<RefundRow>> {
    refund::table.find(id).select(RefundRow::as_select()).first(conn).optional()
}

/// Lists the units of an invoice that were or are being returned.
pub fn returned_lines(conn: &mut Conn, row: &InvoiceRow) -> QueryResult<Vec<ReturnLine>> {
    let refunds: Vec<RefundRow> = refund::table
        .filter(refund::invoice_id.eq(row.id))
        .filter(refund::state.ne(RefundState::Failed))
        .select(RefundRow::as_select())
        .load(conn)?;
    let mut lines = Vec::new();
    for refund in refunds {
        if refund.restock && refund.lines.is_none() {
            // Recorded before refunds had lines: all units came back at once.
            lines.extend(model::unreturned_lines(&row.lines()?, &lines));
        } else {
            lines.extend(refund.lines()?);
        }
    }
    Ok(lines)
}

/// Returns `true` if a refund of the invoice is in progress.
pub fn has_refund_in_progress(conn: &mut Conn, id: InvoiceId) -> QueryResult<bool> {
    let in_progress = refund::table.filter(refund::invoice_id.eq(id)).filter(refund::state.eq(RefundState::Processing));
    diesel::select(diesel::dsl::exists(in_progress)).get_result(conn)
}

/// Finishes a refund that is in progress. Returns `false` if it is not.
pub fn finish_refund(conn: &mut Conn, id: PaymentId, state: RefundState, now: Timestamp) -> QueryResult<bool> {
    debug_assert!(RefundState::Processing.may_become(state));
    let ended = diesel::update(refund::table.find(id))
        .filter(refund::state.eq(RefundState::Processing))
        .set((refund::state.eq(state), refund::ended_at.eq(now)))
        .prepared()
        .execute(conn)?;
    Ok(ended == 1)
}

/// Lists unfinished refunds, oldest first.
pub fn unfinished_refunds(conn: &mut Conn, limit: i64) -> QueryResult<Vec<RefundRow>> {
    refund::table
        .filter(refund::ended_at.is_null())
        .order(refund::created_at)
        .limit(limit)
        .select(RefundRow::as_select())
        .load(conn)
}

/// Inserts an unapplied payment. Returns `false` if the attempt has one already.
pub fn insert_unapplied_payment(conn: &mut Conn, row: &UnappliedPaymentRow) -> QueryResult<bool> {
    Ok(diesel::insert_into(unapplied_payment::table).values(row).on_conflict_do_nothing().execute(conn)? == 1)
}

/// Lists unapplied payments that are not refunded yet, oldest first.
pub fn unapplied_payments(conn: &mut Conn, limit: i64) -> QueryResult<Vec<UnappliedPaymentRow>> {
    unapplied_payment::table
        .filter(unapplied_payment::ended_at.is_null())
        .order(unapplied_payment::created_at)
        .limit(limit)
        .select(UnappliedPaymentRow::as_select())
        .load(conn)
}

/// Reads the unapplied payment that is refunded under this key.
pub fn unapplied_payment_by_key(conn: &mut Conn, key: PaymentId) -> QueryResult<Option<UnappliedPaymentRow>> {
    unapplied_payment::table
        .filter(unapplied_payment::refund_key.eq(key))
        .select(UnappliedPaymentRow::as_select())
        .first(conn)
        .optional()
}

/// Marks an unapplied payment refunded. Returns `false` if it was already.
pub fn finish_unapplied_payment(conn: &mut Conn, id: PaymentId, now: Timestamp) -> QueryResult<bool> {
    let ended = diesel::update(unapplied_payment::table.find(id))
        .filter(unapplied_payment::ended_at.is_null())
        .set(unapplied_payment::ended_at.eq(now))
        .execute(conn)?;
    Ok(ended == 1)
}
