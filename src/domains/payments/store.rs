//! SQL of payments. The providers' own tables are accessed in their folders.

mod attempts;
pub mod invariants;
mod refunds;

use super::model::{self, InvoiceLedger};
use super::schema::{counter, invoice};
use super::{DisputeStatus, Invoice, InvoiceLine, InvoiceStatus, ShippingCharge};
use crate::messaging::IdempotencyKey;
use crate::store::query::*;
use crate::store::{Conn, Fingerprint, IdempotentRequest, Prepare};
use crate::types::{Amount, CheckoutId, Currency, EmailAddress, HoldId, InvoiceId, PaymentId, Timestamp, UserId};

pub use crate::store::query::to_text;
pub use attempts::*;
pub use refunds::*;

/// A row of `invoice`.
#[derive(Debug, Clone, Queryable, Selectable, Insertable)]
#[diesel(table_name = invoice)]
pub struct InvoiceRow {
    pub id: InvoiceId,
    pub number: i64,
    pub user_id: UserId,
    pub status: InvoiceStatus,
    pub lines: String,
    pub total: Amount,
    pub refunded: Amount,
    pub refunding: Amount,
    pub returned_late: Amount,
    pub dispute: Option<DisputeStatus>,
    pub currency: Currency,
    pub email: Option<EmailAddress>,
    pub checkout: Option<CheckoutId>,
    pub hold: Option<HoldId>,
    pub processing: Option<PaymentId>,
    pub imported: bool,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    pub paid_at: Option<Timestamp>,
    /// Delivery as JSON.
    pub shipping: Option<String>,
    pub tax: Amount,
    pub tax_included: bool,
    /// Address as JSON, and so `billing_address`.
    pub shipping_address: Option<String>,
    pub billing_address: Option<String>,
    pub note: Option<String>,
}

impl InvoiceRow {
    /// Converts the row to its public form.
    pub fn to_invoice(&self) -> QueryResult<Invoice> {
        let (lines, shipping) = (self.lines()?, self.shipping.as_deref().map(from_text::<ShippingCharge>).transpose()?);
        Ok(Invoice {
            id: self.id,
            number: model::format_number(self.number),
            user_id: self.user_id,
            status: self.status,
            taxes: model::taxes(&lines, shipping.as_ref(), self.tax_included),
            lines,
            shipping,
            tax: self.tax,
            tax_included: self.tax_included,
            shipping_address: self.shipping_address.as_deref().map(from_text).transpose()?,
            billing_address: self.billing_address.as_deref().map(from_text).transpose()?,
            note: self.note.clone(),
            total: self.total,
            refunded: self.refunded,
            refunding: self.refunding,
            returned_late: self.returned_late,
            dispute: self.dispute,
            currency: self.currency,
            email: self.email.clone(),
            processing: self.processing.is_some(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            paid_at: self.paid_at,
        })
    }

    /// Returns the billed lines.
    pub fn lines(&self) -> QueryResult<Vec<InvoiceLine>> {
        from_text(&self.lines)
    }

    /// Returns the state of the invoice's money.
    pub const fn ledger(&self) -> InvoiceLedger {
        InvoiceLedger {
            status: self.status,
            total: self.total,
            refunded: self.refunded,
            refunding: self.refunding,
            paying: self.processing.is_some(),
        }
    }

    /// Applies a transition; `payment` is the attempt in progress, if there is one.
    pub fn apply(&mut self, ledger: InvoiceLedger, payment: Option<PaymentId>) {
        let InvoiceLedger { status, total: _, refunded, refunding, paying } = ledger;
        self.status = status;
        self.refunded = refunded;
        self.refunding = refunding;
        self.processing = payment.filter(|_| paying);
    }
}

/// Columns of an idempotent request: scope, key and fingerprint.
pub type IdempotencyColumns = (Option<String>, Option<String>, Option<Vec<u8>>);

/// Converts an idempotent request to columns.
pub fn to_idempotency_columns(request: Option<&IdempotentRequest>) -> IdempotencyColumns {
    request.map_or((None, None, None), |request| {
        let fingerprint = request.fingerprint.as_bytes().to_vec();
        (Some(request.scope.clone()), Some(request.key.as_str().to_owned()), Some(fingerprint))
    })
}

/// Converts columns to an idempotent request; `None` if it came without a key.
pub fn from_idempotency_columns(columns: IdempotencyColumns) -> Option<IdempotentRequest> {
    let (Some(scope), Some(key), Some(fingerprint)) = columns else { return None };
    Some(IdempotentRequest {
        scope,
        key: IdempotencyKey::internal(&key),
        fingerprint: Fingerprint::from_bytes(fingerprint),
    })
}

/// Takes the next invoice number. It is used only if the transaction commits, so numbers have no gaps.
pub fn next_invoice_number(conn: &mut Conn) -> QueryResult<i64> {
    diesel::update(counter::table.find("invoice"))
        .set(counter::value.eq(counter::value + 1))
        .returning(counter::value)
        .prepared()
        .get_result(conn)
}

/// Inserts an invoice.
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

/// Updates the columns of an invoice that can change.
pub fn update_invoice(conn: &mut Conn, row: &InvoiceRow) -> QueryResult<()> {
    diesel::update(invoice::table.find(row.id))
        .set((
            invoice::status.eq(row.status),
            invoice::refunded.eq(row.refunded),
            invoice::refunding.eq(row.refunding),
            invoice::returned_late.eq(row.returned_late),
            invoice::dispute.eq(row.dispute),
            invoice::processing.eq(row.processing),
            invoice::paid_at.eq(row.paid_at),
        ))
        .prepared()
        .execute(conn)?;
    Ok(())
}

/// Lists invoices, newest first, starting after the position `after`.
pub fn list_invoices(
    conn: &mut Conn,
    user: Option<UserId>,
    status: Option<InvoiceStatus>,
    after: Option<(Timestamp, InvoiceId)>,
    limit: i64,
) -> QueryResult<Vec<InvoiceRow>> {
    for_backend!(conn, c => {
        let mut query = invoice::table
            .select(InvoiceRow::as_select())
            .order((invoice::created_at.desc(), invoice::id.desc()))
            .limit(limit)
            .into_boxed();
        if let Some(user) = user {
            query = query.filter(invoice::user_id.eq(user));
        }
        if let Some(status) = status {
            query = query.filter(invoice::status.eq(status));
        }
        if let Some((at, id)) = after {
            // The index can only search by the first condition.
            query = query.filter(invoice::created_at.le(at)).filter(invoice::created_at.lt(at).or(invoice::id.lt(id)));
        }
        diesel::RunQueryDsl::load(query, c)
    })
}

/// Lists open invoices that were not paid in time and have no attempt in progress.
pub fn overdue_invoices(conn: &mut Conn, now: Timestamp, limit: i64) -> QueryResult<Vec<InvoiceRow>> {
    invoice::table
        .filter(invoice::status.eq(InvoiceStatus::Open))
        .filter(invoice::processing.is_null())
        .filter(invoice::expires_at.le(now))
        .order(invoice::expires_at)
        .limit(limit)
        .select(InvoiceRow::as_select())
        .load(conn)
}

/// Clears the addresses and messages of a user.
pub fn clear_personal_data(conn: &mut Conn, user: UserId) -> QueryResult<()> {
    diesel::update(invoice::table.filter(invoice::user_id.eq(user)))
        .set((
            invoice::email.eq(None::<EmailAddress>),
            invoice::shipping_address.eq(None::<String>),
            invoice::billing_address.eq(None::<String>),
            invoice::note.eq(None::<String>),
        ))
        .execute(conn)?;
    Ok(())
}
