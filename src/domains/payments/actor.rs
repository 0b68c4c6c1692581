//! The actor of payments: one function a message.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};

use super::processing::{self, Back, Begun, Room};
use super::store::{self, InvoiceRow};
use super::*;
use crate::contract::catalog::SaleRefused;
use crate::contract::users::UserErased;
use crate::events::{Deliver, Delivery, Event};
use crate::ground::{now_and_every, to_its_end};
use crate::messaging::{Ctx, Failure};
use crate::store::{Audit, Audited, Touch, Tx};
use crate::types::{Amount, FieldError, Fields, InvoiceId, Page, PaymentId, Timestamp};

/// How often overdue invoices and unfinished payments are looked for.
const EVERY: Duration = Duration::from_secs(1);
/// The longest payment token, in characters.
const TOKEN_MAX: usize = 500;

/// The actor of this domain.
pub struct Payments {
    pub(super) room: Arc<Room>,
}

impl Actor for Payments {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        now_and_every(ctx, &self.room.store, &self.room, EVERY, Room::look_around);
    }
}

impl Supervised for Payments {}

crate::answers! { Payments;
    CreateInvoice => create_invoice,
    GetInvoice => get_invoice,
    ListInvoices => list_invoices,
    PayInvoice => pay_invoice,
    RefundInvoice => refund_invoice,
    VoidInvoice => void_invoice,
    HearProvider => hear_provider,
    RecordPastInvoice => record_past_invoice,
    Deliver => deliver,
    Audit => audit,
    AuditInvoices => audit_invoices,
    CountPaid => count_paid,
}

/// A new open invoice with the next number.
fn new_invoice(tx: &mut Tx<'_>, new: &CreateInvoice, total: Amount) -> Result<InvoiceRow, PaymentsError> {
    Ok(InvoiceRow {
        id: InvoiceId::new(),
        number: store::next_number(tx.conn)?,
        user_id: new.user_id,
        status: InvoiceStatus::Open.as_str().to_owned(),
        lines: store::lines_to_text(&new.lines)?,
        total,
        refunded: 0,
        refunding: 0,
        currency: new.currency,
        email: new.email.clone(),
        checkout: new.checkout,
        hold: new.hold,
        processing: None,
        past: false,
        created_at: tx.now,
        expires_at: tx.now,
        paid_at: None,
    })
}

async fn create_invoice(room: Arc<Room>, ctx: Ctx, request: CreateInvoice) -> Result<Invoice, PaymentsError> {
    let total = model::check(&request.lines)?;
    let (new, lifetime) = (request.clone(), room.lifetime);
    // Beside the numbers, whose row is held by whoever draws one, an invoice of its own.
    let touch = request.checkout.map_or_else(Touch::nothing, |checkout| Touch::only("checkout", checkout));
    room.store
        .write_once_on(touch, &ctx, &request, move |tx| {
            // Before all else: the invoice of a checkout is the same when its time has run out meanwhile.
            if let Some(checkout) = new.checkout
                && let Some(row) = store::invoice_of_checkout(tx.conn, checkout)?
            {
                return Ok(row.to_invoice()?);
            }
            let expires_at = new.expires_at.unwrap_or_else(|| tx.now.plus(lifetime));
            if expires_at <= tx.now {
                return Err(FieldError::new("expires_at", "out_of_range", "must be in the future").into());
            }
            let row = InvoiceRow { expires_at, ..new_invoice(tx, &new, total)? };
            store::insert_invoice(tx.conn, &row)?;
            let invoice = row.to_invoice()?;
            tx.emit(&InvoiceCreated { invoice: invoice.clone() })?;
            Ok::<_, PaymentsError>(invoice)
        })
        .await
}

async fn get_invoice(room: Arc<Room>, ctx: Ctx, request: GetInvoice) -> Result<Invoice, PaymentsError> {
    let row = room
        .store
        .read(move |conn| Ok::<_, PaymentsError>(store::invoice(conn, request.invoice_id)?))
        .await?
        .filter(|row| ctx.is_staff() || ctx.identity().is_some_and(|who| who.user_id == row.user_id))
        .ok_or(PaymentsError::InvoiceNotFound)?;
    Ok(row.to_invoice()?)
}

async fn list_invoices(room: Arc<Room>, ctx: Ctx, request: ListInvoices) -> Result<Page<Invoice>, PaymentsError> {
    let user = match (ctx.is_staff(), ctx.identity()) {
        (true, _) => request.user_id,
        (false, None) => return Err(Failure::Unauthenticated.into()),
        (false, Some(who)) if request.user_id.is_some_and(|user| user != who.user_id) => {
            return Err(Failure::Forbidden.into());
        }
        (false, Some(who)) => Some(who.user_id),
    };
    let mut fields = Fields::new();
    let limit = fields.keep(request.page.limit());
    let after = fields.keep(request.page.after::<(i64, InvoiceId)>());
    fields.done()?;
    let limit = limit.unwrap_or_default();
    let after = after.flatten().map(|(at, id)| (Timestamp::from_micros(at), id));
    let rows = room
        .store
        .read(move |conn| {
            let rows = store::list(conn, user, request.status, after, limit + 1)?;
            Ok::<_, PaymentsError>(rows.iter().map(InvoiceRow::to_invoice).collect::<Result<Vec<_>, _>>()?)
        })
        .await?;
    Ok(Page::cut(rows, limit, |invoice| (invoice.created_at.micros(), invoice.id)))
}

async fn pay_invoice(room: Arc<Room>, ctx: Ctx, request: PayInvoice) -> Result<Invoice, PaymentsError> {
    let wish = processing::required_wish(&ctx, &request)?;
    let mut fields = Fields::new();
    fields.line("token", &request.token, 1, TOKEN_MAX);
    fields.done()?;
    to_its_end(async move { room.pay(ctx, request, wish).await }).await
}

async fn refund_invoice(room: Arc<Room>, ctx: Ctx, request: RefundInvoice) -> Result<Invoice, PaymentsError> {
    let wish = processing::required_wish(&ctx, &request)?;
    let mut fields = Fields::new();
    if let Some(amount) = request.amount {
        fields.range("amount", amount, 1, Amount::MAX);
    }
    fields.done()?;
    to_its_end(async move { room.refund(ctx, request, wish).await }).await
}

async fn void_invoice(room: Arc<Room>, ctx: Ctx, request: VoidInvoice) -> Result<Invoice, PaymentsError> {
    let id = request.invoice_id;
    room.store
        .write_once(&ctx, &request, move |tx| {
            let mut row = store::invoice(tx.conn, id)?.ok_or(PaymentsError::InvoiceNotFound)?;
            let Some(void) = row.standing()?.void()? else { return Ok(row.to_invoice()?) };
            row.stand(void, None);
            store::save(tx.conn, &row)?;
            tx.emit(&InvoiceVoided {
                invoice_id: row.id,
                number: model::number(row.number),
                user_id: row.user_id,
                hold: row.hold,
                checkout: row.checkout,
            })?;
            Ok::<_, PaymentsError>(row.to_invoice()?)
        })
        .await
}

async fn hear_provider(room: Arc<Room>, ctx: Ctx, request: HearProvider) -> Result<(), PaymentsError> {
    room.hear(ctx, request).await
}

async fn record_past_invoice(room: Arc<Room>, ctx: Ctx, request: RecordPastInvoice) -> Result<Invoice, PaymentsError> {
    let total = model::check(&request.lines)?;
    let paid = match request.status {
        InvoiceStatus::Paid | InvoiceStatus::Refunded => true,
        InvoiceStatus::Open | InvoiceStatus::Expired => false,
        InvoiceStatus::Void => {
            return Err(FieldError::new("status", "invalid", "must be paid, refunded, expired or open").into());
        }
    };
    let (past, lifetime) = (request.clone(), room.lifetime);
    room.store
        .write_once(&ctx, &request, move |tx| {
            let new = CreateInvoice {
                user_id: past.user_id,
                lines: past.lines,
                currency: past.currency,
                email: None,
                hold: None,
                checkout: None,
                expires_at: None,
            };
            let mut row = new_invoice(tx, &new, total)?;
            past.status.as_str().clone_into(&mut row.status);
            row.created_at = past.at;
            // One that is still open can still be paid, so its time begins now.
            let from = if past.status == InvoiceStatus::Open { tx.now.max(past.at) } else { past.at };
            row.expires_at = from.plus(lifetime);
            row.paid_at = paid.then_some(past.at);
            row.refunded = if past.status == InvoiceStatus::Refunded { total } else { 0 };
            // An open one is not of the past in this: whoever pays it is really charged.
            row.past = past.status != InvoiceStatus::Open;
            store::insert_invoice(tx.conn, &row)?;
            let invoice = row.to_invoice()?;
            if paid {
                let invoice = Invoice { status: InvoiceStatus::Paid, refunded: 0, ..invoice.clone() };
                tx.emit(&InvoicePaid { invoice, hold: None, checkout: None, past: true })?;
            }
            if past.status == InvoiceStatus::Refunded {
                tx.emit(&InvoiceRefunded {
                    invoice: invoice.clone(),
                    amount: total,
                    restock: false,
                    lines: Vec::new(),
                    hold: None,
                    reason: REQUESTED.to_owned(),
                    past: true,
                })?;
            }
            Ok::<_, PaymentsError>(invoice)
        })
        .await
}

async fn deliver(room: Arc<Room>, _: Ctx, request: Deliver) -> Result<(), Failure> {
    let refused = request.events.iter().any(|event| event.name == SaleRefused::NAME);
    room.store.consume(request.events, hear).await?;
    if refused {
        // The reservation of the refund is durable now; the provider is asked by whoever takes it up.
        actix::spawn(room.look_around());
    }
    Ok(())
}

/// The effect of one event.
fn hear(tx: &mut Tx<'_>, event: &Delivery) -> Result<(), PaymentsError> {
    let unreadable = |error: serde_json::Error| {
        log::error!("payments: event {} cannot be read: {error}", event.id);
        PaymentsError::from(Failure::Internal)
    };
    if let Some(SaleRefused { invoice_id, .. }) = event.open().map_err(unreadable)? {
        let back = Back { invoice: invoice_id, amount: None, restock: false, lines: None, reason: OUT_OF_STOCK };
        match processing::begin_refund(tx, PaymentId::new(), &back, None) {
            // Somebody was quicker and gave it all back.
            Ok(Begun::Go(_) | Begun::Before(_) | Begun::Refused(_)) | Err(PaymentsError::RefundTooLarge { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(UserErased { user_id, .. }) = event.open().map_err(unreadable)? {
        store::forget_email(tx.conn, user_id)?;
    }
    Ok(())
}

async fn audit(room: Arc<Room>, _: Ctx, request: Audit) -> Result<Audited, Failure> {
    room.store.audit(request, store::audit::BOOKS).await
}

async fn audit_invoices(room: Arc<Room>, _: Ctx, request: AuditInvoices) -> Result<Vec<InvoiceFacts>, Failure> {
    // One transaction, so that an invoice and its refunds are of one moment.
    room.store
        .read(move |conn| conn.transaction(|conn| Ok::<_, Failure>(store::audit::invoices(conn, request.which)?)))
        .await
}

async fn count_paid(room: Arc<Room>, _: Ctx, _: CountPaid) -> Result<Vec<(Timestamp, i64)>, Failure> {
    room.store.read(|conn| Ok(store::audit::paid_by_day(conn)?)).await
}
