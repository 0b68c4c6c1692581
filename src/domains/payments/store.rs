//! The SQL of payments, and of the books of the provider for trying out.

pub mod invariants;

use std::time::Duration;

use super::model::{self, InvoiceLedger, PaymentState, RefundState};
use super::provider::{Charge, RefundRequest};
use super::schema::{
    counter, invoice, payment, provider_event, refund, stripe_charge, stripe_return, test_provider_book as book,
    unapplied_payment,
};
use super::{Invoice, InvoiceLine, InvoiceStatus, ReturnLine};
use crate::messaging::IdempotencyKey;
use crate::store::query::*;
use crate::store::{Conn, Fingerprint, IdempotentRequest, Prepare};
use crate::types::{Amount, CheckoutId, Currency, EmailAddress, HoldId, InvoiceId, PaymentId, Timestamp, UserId};

/// How long it is remembered what the provider told. Stripe tells a thing again for three days.
const PROVIDER_EVENT_RETENTION: Duration = Duration::from_secs(30 * 86_400);

/// An invoice as it is kept.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = invoice)]
pub struct InvoiceRow {
    pub id: InvoiceId,
    pub number: i64,
    pub user_id: UserId,
    pub status: String,
    pub lines: String,
    pub total: Amount,
    pub refunded: Amount,
    pub refunding: Amount,
    pub currency: Currency,
    pub email: Option<EmailAddress>,
    pub checkout: Option<CheckoutId>,
    pub hold: Option<HoldId>,
    pub processing: Option<PaymentId>,
    pub imported: bool,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub paid_at: Option<Timestamp>,
}

impl InvoiceRow {
    /// How it stands.
    pub fn status(&self) -> QueryResult<InvoiceStatus> {
        InvoiceStatus::parse(&self.status).ok_or_else(|| unreadable(format!("invoice status {}", self.status)))
    }

    /// The invoice as the world sees it.
    pub fn to_invoice(&self) -> QueryResult<Invoice> {
        Ok(Invoice {
            id: self.id,
            number: model::number(self.number),
            user_id: self.user_id,
            status: self.status()?,
            lines: self.lines()?,
            total: self.total,
            refunded: self.refunded,
            currency: self.currency,
            email: self.email.clone(),
            processing: self.processing.is_some(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            paid_at: self.paid_at,
        })
    }

    /// What it is for.
    pub fn lines(&self) -> QueryResult<Vec<InvoiceLine>> {
        serde_json::from_str(&self.lines).map_err(unreadable)
    }

    /// How it stands with its money.
    pub fn standing(&self) -> QueryResult<InvoiceLedger> {
        Ok(InvoiceLedger {
            status: self.status()?,
            total: self.total,
            refunded: self.refunded,
            refunding: self.refunding,
            paying: self.processing.is_some(),
        })
    }

    /// The invoice as it stands after a step; `payment` is the try under way, if one is.
    pub fn stand(&mut self, now: InvoiceLedger, payment: Option<PaymentId>) {
        now.status.as_str().clone_into(&mut self.status);
        self.refunded = now.refunded;
        self.refunding = now.refunding;
        self.processing = payment.filter(|_| now.paying);
    }
}

/// A try to take money, as it is kept.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = payment)]
pub struct PaymentRow {
    pub id: PaymentId,
    pub invoice_id: InvoiceId,
    pub state: String,
    pub amount: Amount,
    pub currency: Currency,
    pub scope: Option<String>,
    pub key: Option<String>,
    pub fingerprint: Option<Vec<u8>>,
    pub failure: Option<String>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// A try to give money back, as it is kept.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = refund)]
pub struct RefundRow {
    pub id: PaymentId,
    pub invoice_id: InvoiceId,
    pub state: String,
    pub amount: Amount,
    pub restock: bool,
    pub lines: Option<String>,
    pub reason: String,
    pub scope: Option<String>,
    pub key: Option<String>,
    pub fingerprint: Option<Vec<u8>>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

impl PaymentRow {
    /// How it stands.
    pub fn state(&self) -> QueryResult<PaymentState> {
        PaymentState::parse(&self.state).ok_or_else(|| unreadable(format!("payment state {}", self.state)))
    }
}

impl RefundRow {
    /// The goods that come back with it.
    pub fn lines(&self) -> QueryResult<Vec<ReturnLine>> {
        self.lines.as_deref().map_or(Ok(Vec::new()), |text| serde_json::from_str(text).map_err(unreadable))
    }
}

/// Money that is to go back because no invoice could take it.
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
}

/// The columns of a wish.
pub type IdempotencyColumns = (Option<String>, Option<String>, Option<Vec<u8>>);

/// A wish as columns.
pub fn to_columns(wish: Option<&IdempotentRequest>) -> IdempotencyColumns {
    wish.map_or((None, None, None), |wish| {
        let fingerprint = wish.fingerprint.as_bytes().to_vec();
        (Some(wish.scope.clone()), Some(wish.key.as_str().to_owned()), Some(fingerprint))
    })
}

/// A wish from its columns.
pub fn from_columns(columns: IdempotencyColumns) -> Option<IdempotentRequest> {
    let (Some(scope), Some(key), Some(fingerprint)) = columns else { return None };
    Some(IdempotentRequest { scope, key: IdempotencyKey::own(&key), fingerprint: Fingerprint::from_bytes(fingerprint) })
}

fn unreadable(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> diesel::result::Error {
    diesel::result::Error::DeserializationError(what.into())
}

/// Lines as they are kept.
pub fn lines_to_text<T: serde::Serialize>(lines: &[T]) -> QueryResult<String> {
    serde_json::to_string(lines).map_err(|e| diesel::result::Error::SerializationError(Box::new(e)))
}

/// The next invoice number. It is used up when this transaction commits, and only then.
pub fn next_number(conn: &mut Conn) -> QueryResult<i64> {
    diesel::update(counter::table.find("invoice"))
        .set(counter::value.eq(counter::value + 1))
        .returning(counter::value)
        .prepared()
        .get_result(conn)
}

/// Writes a new invoice.
pub fn insert_invoice(conn: &mut Conn, row: &InvoiceRow) -> QueryResult<()> {
    diesel::insert_into(invoice::table).values(row).execute(conn)?;
    Ok(())
}

/// Reads an invoice.
pub fn invoice(conn: &mut Conn, id: InvoiceId) -> QueryResult<Option<InvoiceRow>> {
    invoice::table.find(id).select(InvoiceRow::as_select()).first(conn).optional()
}

/// Reads the invoice of a checkout.
pub fn invoice_of_checkout(conn: &mut Conn, checkout: CheckoutId) -> QueryResult<Option<InvoiceRow>> {
    invoice::table.filter(invoice::checkout.eq(checkout)).select(InvoiceRow::as_select()).first(conn).optional()
}

/// Writes what of an invoice can change.
pub fn save(conn: &mut Conn, row: &InvoiceRow) -> QueryResult<()> {
    diesel::update(invoice::table.find(row.id))
        .set((
            invoice::status.eq(&row.status),
            invoice::refunded.eq(row.refunded),
            invoice::refunding.eq(row.refunding),
            invoice::processing.eq(row.processing),
            invoice::paid_at.eq(row.paid_at),
        ))
        .prepared()
        .execute(conn)?;
    Ok(())
}

/// Lists invoices, newest first, from `after` on.
pub fn list(
    conn: &mut Conn,
    user: Option<UserId>,
    status: Option<InvoiceStatus>,
    after: Option<(Timestamp, InvoiceId)>,
    limit: i64,
) -> QueryResult<Vec<InvoiceRow>> {
    on!(conn, c => {
        let mut query = invoice::table
            .select(InvoiceRow::as_select())
            .order((invoice::created_at.desc(), invoice::id.desc()))
            .limit(limit)
            .into_boxed();
        if let Some(user) = user {
            query = query.filter(invoice::user_id.eq(user));
        }
        if let Some(status) = status {
            query = query.filter(invoice::status.eq(status.as_str()));
        }
        if let Some((at, id)) = after {
            // The first condition alone is what the index can search by.
            query = query.filter(invoice::created_at.le(at)).filter(invoice::created_at.lt(at).or(invoice::id.lt(id)));
        }
        diesel::RunQueryDsl::load(query, c)
    })
}

/// Open invoices that nobody paid in time and for which no payment is under way.
pub fn overdue(conn: &mut Conn, now: Timestamp, limit: i64) -> QueryResult<Vec<InvoiceRow>> {
    invoice::table
        .filter(invoice::status.eq(InvoiceStatus::Open.as_str()))
        .filter(invoice::processing.is_null())
        .filter(invoice::expires_at.le(now))
        .order(invoice::expires_at)
        .limit(limit)
        .select(InvoiceRow::as_select())
        .load(conn)
}

/// Forgets where a person's receipts went.
pub fn forget_email(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::update(invoice::table.filter(invoice::user_id.eq(user)))
        .set(invoice::email.eq(None::<EmailAddress>))
        .execute(conn)?;
    Ok(())
}

/// The fingerprint of the work that runs under this wish's key, if any does.
pub fn under_way(conn: &mut Conn, wish: &IdempotentRequest) -> QueryResult<Option<Fingerprint>> {
    let paying: Option<Option<Vec<u8>>> = payment::table
        .filter(payment::scope.eq(&wish.scope))
        .filter(payment::key.eq(wish.key.as_str()))
        .filter(payment::ended_at.is_null())
        .select(payment::fingerprint)
        .first(conn)
        .optional()?;
    if let Some(found) = paying {
        return Ok(found.map(Fingerprint::from_bytes));
    }
    let returning: Option<Option<Vec<u8>>> = refund::table
        .filter(refund::scope.eq(&wish.scope))
        .filter(refund::key.eq(wish.key.as_str()))
        .filter(refund::ended_at.is_null())
        .select(refund::fingerprint)
        .first(conn)
        .optional()?;
    Ok(returning.flatten().map(Fingerprint::from_bytes))
}

/// Writes a new try to take money.
pub fn insert_payment(conn: &mut Conn, row: &PaymentRow) -> QueryResult<()> {
    diesel::insert_into(payment::table).values(row).execute(conn)?;
    Ok(())
}

/// Reads a try to take money.
pub fn payment(conn: &mut Conn, id: PaymentId) -> QueryResult<Option<PaymentRow>> {
    payment::table.find(id).select(PaymentRow::as_select()).first(conn).optional()
}

/// Brings a try from one state to the next; says whether it was in the first.
pub fn move_payment(
    conn: &mut Conn,
    id: PaymentId,
    (from, state): (PaymentState, PaymentState),
    failure: Option<&str>,
    now: Timestamp,
) -> QueryResult<bool> {
    debug_assert!(from.may_become(state));
    let ended = diesel::update(payment::table.find(id))
        .filter(payment::state.eq(from.as_str()))
        .set((payment::state.eq(state.as_str()), payment::failure.eq(failure), payment::ended_at.eq(now)))
        .prepared()
        .execute(conn)?;
    Ok(ended == 1)
}

/// Tries to take money that have not ended.
pub fn processing_payments(conn: &mut Conn, limit: i64) -> QueryResult<Vec<PaymentRow>> {
    payment::table
        .filter(payment::ended_at.is_null())
        .order(payment::created_at)
        .limit(limit)
        .select(PaymentRow::as_select())
        .load(conn)
}

/// The try by which an invoice was paid.
pub fn captured_payment(conn: &mut Conn, id: InvoiceId) -> QueryResult<Option<PaymentId>> {
    payment::table
        .filter(payment::invoice_id.eq(id))
        .filter(payment::state.eq(PaymentState::Captured.as_str()))
        .select(payment::id)
        .first(conn)
        .optional()
}

/// Writes a new try to give money back.
pub fn insert_refund(conn: &mut Conn, row: &RefundRow) -> QueryResult<()> {
    diesel::insert_into(refund::table).values(row).execute(conn)?;
    Ok(())
}

/// Reads a try to give money back.
pub fn refund(conn: &mut Conn, id: PaymentId) -> QueryResult<Option<RefundRow>> {
    refund::table.find(id).select(RefundRow::as_select()).first(conn).optional()
}

/// The goods of an invoice that came back, or are about to.
pub fn returned_lines(conn: &mut Conn, row: &InvoiceRow) -> QueryResult<Vec<ReturnLine>> {
    let refunds: Vec<RefundRow> = refund::table
        .filter(refund::invoice_id.eq(row.id))
        .filter(refund::state.ne(RefundState::Failed.as_str()))
        .select(RefundRow::as_select())
        .load(conn)?;
    let mut lines = Vec::new();
    for back in refunds {
        if back.restock && back.lines.is_none() {
            // From before goods were named: then all came back at once.
            lines.extend(model::still_out(&row.lines()?, &lines));
        } else {
            lines.extend(back.lines()?);
        }
    }
    Ok(lines)
}

/// Whether a refund of the invoice is under way.
pub fn has_refund_under_way(conn: &mut Conn, id: InvoiceId) -> QueryResult<bool> {
    let under_way =
        refund::table.filter(refund::invoice_id.eq(id)).filter(refund::state.eq(RefundState::Processing.as_str()));
    diesel::select(diesel::dsl::exists(under_way)).get_result(conn)
}

/// Ends a try that is under way; says whether it was.
pub fn end_refund(conn: &mut Conn, id: PaymentId, state: RefundState, now: Timestamp) -> QueryResult<bool> {
    debug_assert!(RefundState::Processing.may_become(state));
    let ended = diesel::update(refund::table.find(id))
        .filter(refund::state.eq(RefundState::Processing.as_str()))
        .set((refund::state.eq(state.as_str()), refund::ended_at.eq(now)))
        .prepared()
        .execute(conn)?;
    Ok(ended == 1)
}

/// Tries to give money back that have not ended.
pub fn processing_refunds(conn: &mut Conn, limit: i64) -> QueryResult<Vec<RefundRow>> {
    refund::table
        .filter(refund::ended_at.is_null())
        .order(refund::created_at)
        .limit(limit)
        .select(RefundRow::as_select())
        .load(conn)
}

/// Notes money that no invoice could take; says whether it is new.
pub fn insert_stray(conn: &mut Conn, row: &UnappliedPaymentRow) -> QueryResult<bool> {
    Ok(diesel::insert_into(unapplied_payment::table).values(row).on_conflict_do_nothing().execute(conn)? == 1)
}

/// Money that has not gone back yet.
pub fn strays(conn: &mut Conn, limit: i64) -> QueryResult<Vec<UnappliedPaymentRow>> {
    unapplied_payment::table
        .filter(unapplied_payment::ended_at.is_null())
        .order(unapplied_payment::created_at)
        .limit(limit)
        .select(UnappliedPaymentRow::as_select())
        .load(conn)
}

/// The money that goes back under this key.
pub fn stray_by_key(conn: &mut Conn, key: PaymentId) -> QueryResult<Option<UnappliedPaymentRow>> {
    unapplied_payment::table
        .filter(unapplied_payment::refund_key.eq(key))
        .select(UnappliedPaymentRow::as_select())
        .first(conn)
        .optional()
}

/// Notes that it went back; says whether it had not before.
pub fn end_stray(conn: &mut Conn, id: PaymentId, now: Timestamp) -> QueryResult<bool> {
    let ended = diesel::update(unapplied_payment::table.find(id))
        .filter(unapplied_payment::ended_at.is_null())
        .set(unapplied_payment::ended_at.eq(now))
        .execute(conn)?;
    Ok(ended == 1)
}

/// Notes a piece of the provider's news; says whether it is new. What is old enough is forgotten.
pub fn first_news(conn: &mut Conn, id: &str, now: Timestamp) -> QueryResult<bool> {
    diesel::delete(provider_event::table.filter(provider_event::at.lt(now.minus(PROVIDER_EVENT_RETENTION))))
        .execute(conn)?;
    let values = (provider_event::id.eq(id), provider_event::at.eq(now));
    Ok(diesel::insert_into(provider_event::table).values(values).on_conflict_do_nothing().execute(conn)? == 1)
}

/// Gives a charge the name that Stripe has for it, once; `false` when it was declared void before.
pub fn name_charge(conn: &mut Conn, key: &str, intent: &str, now: Timestamp) -> QueryResult<bool> {
    let values = (stripe_charge::key.eq(key), stripe_charge::intent.eq(intent), stripe_charge::at.eq(now));
    diesel::insert_into(stripe_charge::table).values(values).on_conflict_do_nothing().execute(conn)?;
    Ok(charge_name(conn, key)?.flatten().as_deref() == Some(intent))
}

fn charge_name(conn: &mut Conn, key: &str) -> QueryResult<Option<Option<String>>> {
    stripe_charge::table.find(key).select(stripe_charge::intent).first(conn).optional()
}

/// Stripe's name for a charge; one that has none is declared void, so that it never gets one.
pub fn settle_charge(conn: &mut Conn, key: &str, now: Timestamp) -> QueryResult<Option<String>> {
    let values = (stripe_charge::key.eq(key), stripe_charge::at.eq(now));
    diesel::insert_into(stripe_charge::table).values(values).on_conflict_do_nothing().execute(conn)?;
    Ok(charge_name(conn, key)?.flatten())
}

/// What is known of a return that Stripe is about to be asked for.
#[derive(Debug, Clone)]
pub struct StripeRefundState {
    /// Stripe's name for the charge it comes from.
    pub intent: String,
    /// Whether it was never asked for in this turn.
    pub first: bool,
    /// How often it was refused before.
    pub turn: i64,
    /// Stripe's name for it, when it is on its way.
    pub refund: Option<String>,
}

/// Notes that Stripe is about to be asked for a return; nothing when it never took the charge.
pub fn begin_return(conn: &mut Conn, back: &RefundRequest, now: Timestamp) -> QueryResult<Option<StripeRefundState>> {
    let Some(intent) = charge_name(conn, &back.charge)?.flatten() else { return Ok(None) };
    let values = (stripe_return::key.eq(&back.key), stripe_return::at.eq(now));
    let first = diesel::insert_into(stripe_return::table).values(values).on_conflict_do_nothing().execute(conn)? == 1;
    let (turn, refund) = stripe_return::table
        .find(&back.key)
        .select((stripe_return::attempt, stripe_return::refund))
        .first::<(i64, Option<String>)>(conn)?;
    Ok(Some(StripeRefundState { intent, first, turn, refund }))
}

/// Keeps Stripe's name for a return that is on its way.
pub fn name_return(conn: &mut Conn, key: &str, name: &str) -> QueryResult<()> {
    diesel::update(stripe_return::table.find(key)).set(stripe_return::refund.eq(name)).execute(conn)?;
    Ok(())
}

/// Notes that a return was certainly refused: the next asking is another.
pub fn turn_return(conn: &mut Conn, key: &str) -> QueryResult<()> {
    diesel::update(stripe_return::table.find(key))
        .set((stripe_return::attempt.eq(stripe_return::attempt + 1), stripe_return::refund.eq(None::<String>)))
        .execute(conn)?;
    Ok(())
}

const CAPTURE: &str = "capture";
const REFUND: &str = "refund";
const VOID: &str = "void";
const FAILURE: &str = "failure";

fn book_kind(conn: &mut Conn, key: &str) -> QueryResult<Option<String>> {
    book::table.find(key).select(book::kind).first(conn).optional()
}

fn book_entry(
    conn: &mut Conn,
    key: &str,
    kind: &str,
    about: &str,
    money: Option<(Amount, Currency)>,
    now: Timestamp,
) -> QueryResult<()> {
    diesel::insert_into(book::table)
        .values((
            book::key.eq(key),
            book::kind.eq(kind),
            book::about.eq(about),
            book::amount.eq(money.map_or(0, |(amount, _)| amount)),
            book::currency.eq(money.map(|(_, currency)| currency)),
            book::at.eq(now),
        ))
        .execute(conn)?;
    Ok(())
}

/// Invariants a capture, once; `false` when the key was declared void before.
pub fn book_capture(conn: &mut Conn, charge: &Charge, now: Timestamp) -> QueryResult<bool> {
    if let Some(kind) = book_kind(conn, &charge.key)? {
        return Ok(kind == CAPTURE);
    }
    let money = Some((charge.amount, charge.currency));
    book_entry(conn, &charge.key, CAPTURE, &charge.invoice.to_string(), money, now)?;
    Ok(true)
}

/// Invariants a refund, once; `false` when there is no such capture or less is left of it.
pub fn book_refund(conn: &mut Conn, back: &RefundRequest, now: Timestamp) -> QueryResult<bool> {
    if let Some(kind) = book_kind(conn, &back.key)? {
        return Ok(kind == REFUND);
    }
    let taken: Option<Amount> = book::table
        .find(&back.charge)
        .filter(book::kind.eq(CAPTURE))
        .filter(book::currency.eq(back.currency))
        .select(book::amount)
        .first(conn)
        .optional()?;
    let before: Vec<Amount> = book::table
        .filter(book::about.eq(&back.charge))
        .filter(book::kind.eq(REFUND))
        .select(book::amount)
        .load(conn)?;
    if taken.is_none_or(|taken| back.amount > taken - before.iter().sum::<Amount>()) {
        return Ok(false);
    }
    book_entry(conn, &back.key, REFUND, &back.charge, Some((back.amount, back.currency)), now)?;
    Ok(true)
}

/// Whether money was taken under the key; if not, declares the key void, so that none ever will be.
pub fn book_settle(conn: &mut Conn, key: &str, now: Timestamp) -> QueryResult<bool> {
    match book_kind(conn, key)? {
        Some(kind) => Ok(kind == CAPTURE),
        None => book_entry(conn, key, VOID, "", None, now).map(|()| false),
    }
}

/// Invariants the one failure that an invoice is to meet; `false` when it has met it.
pub fn book_failure(conn: &mut Conn, about: InvoiceId, now: Timestamp) -> QueryResult<bool> {
    let key = format!("flaky/{about}");
    if book_kind(conn, &key)?.is_some() {
        return Ok(false);
    }
    book_entry(conn, &key, FAILURE, &about.to_string(), None, now)?;
    Ok(true)
}
