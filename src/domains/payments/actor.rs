//! The actor of payments: one function a message.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};

use super::processing::{self, BeginOutcome, PaymentsState, RefundParams};
use super::store::{self, InvoiceRow};
use super::*;
use crate::contract::catalog::SaleRefused;
use crate::contract::users::UserErased;
use crate::messaging::{
    CheckInvariants, CommonError, DeliverEvents, Event, EventEnvelope, InvariantReport, RequestContext,
};
use crate::runtime::spawn_leader_interval;
use crate::store::{LockSet, Tx};
use crate::tasks::spawn_detached;
use crate::types::{Amount, FieldError, InvoiceId, Page, PaymentId, Timestamp, Validator};

/// How often overdue invoices and unfinished payments are looked for.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);
/// The longest payment token, in characters.
const TOKEN_MAX: usize = 500;

/// The actor of this domain.
pub struct PaymentsActor {
    pub(super) state: Arc<PaymentsState>,
}

impl Actor for PaymentsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_leader_interval(ctx, &self.state.store, &self.state, RECONCILE_INTERVAL, PaymentsState::look_around);
    }
}

impl Supervised for PaymentsActor {}

crate::handlers! { PaymentsActor;
    CreateInvoice => create_invoice,
    GetInvoice => get_invoice,
    ListInvoices => list_invoices,
    PayInvoice => pay_invoice,
    RefundInvoice => refund_invoice,
    VoidInvoice => void_invoice,
    HandleProviderWebhook => hear_provider,
    ImportInvoice => record_past_invoice,
    DeliverEvents => on_events,
    CheckInvariants => audit,
    ListInvoiceFacts => audit_invoices,
    CountPaidByDay => count_paid,
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
        imported: false,
        created_at: tx.now,
        expires_at: tx.now,
        paid_at: None,
    })
}

async fn create_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: CreateInvoice,
) -> Result<Invoice, PaymentsError> {
    let total = model::check(&request.lines)?;
    let (new, lifetime) = (request.clone(), state.lifetime);
    // Beside the numbers, whose row is held by whoever draws one, an invoice of its own.
    let touch = request.checkout.map_or_else(LockSet::none, |checkout| LockSet::key("checkout", checkout));
    state
        .store
        .write_idempotent_locked(touch, &ctx, &request, move |tx| {
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

async fn get_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: GetInvoice,
) -> Result<Invoice, PaymentsError> {
    let row = state
        .store
        .read(move |conn| Ok::<_, PaymentsError>(store::invoice(conn, request.invoice_id)?))
        .await?
        .filter(|row| ctx.is_staff() || ctx.identity().is_some_and(|who| who.user_id == row.user_id))
        .ok_or(PaymentsError::InvoiceNotFound)?;
    Ok(row.to_invoice()?)
}

async fn list_invoices(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: ListInvoices,
) -> Result<Page<Invoice>, PaymentsError> {
    let user = match (ctx.is_staff(), ctx.identity()) {
        (true, _) => request.user_id,
        (false, None) => return Err(CommonError::Unauthenticated.into()),
        (false, Some(who)) if request.user_id.is_some_and(|user| user != who.user_id) => {
            return Err(CommonError::Forbidden.into());
        }
        (false, Some(who)) => Some(who.user_id),
    };
    let mut fields = Validator::new();
    let limit = fields.keep(request.page.limit());
    let after = fields.keep(request.page.after::<(i64, InvoiceId)>());
    fields.done()?;
    let limit = limit.unwrap_or_default();
    let after = after.flatten().map(|(at, id)| (Timestamp::from_micros(at), id));
    let rows = state
        .store
        .read(move |conn| {
            let rows = store::list(conn, user, request.status, after, limit + 1)?;
            Ok::<_, PaymentsError>(rows.iter().map(InvoiceRow::to_invoice).collect::<Result<Vec<_>, _>>()?)
        })
        .await?;
    Ok(Page::cut(rows, limit, |invoice| (invoice.created_at.micros(), invoice.id)))
}

async fn pay_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: PayInvoice,
) -> Result<Invoice, PaymentsError> {
    let wish = processing::required_wish(&ctx, &request)?;
    let mut fields = Validator::new();
    fields.line("token", &request.token, 1, TOKEN_MAX);
    fields.done()?;
    spawn_detached(async move { state.pay(ctx, request, wish).await }).await
}

async fn refund_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: RefundInvoice,
) -> Result<Invoice, PaymentsError> {
    let wish = processing::required_wish(&ctx, &request)?;
    let mut fields = Validator::new();
    if let Some(amount) = request.amount {
        fields.range("amount", amount, 1, Amount::MAX);
    }
    fields.done()?;
    spawn_detached(async move { state.refund(ctx, request, wish).await }).await
}

async fn void_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: VoidInvoice,
) -> Result<Invoice, PaymentsError> {
    let id = request.invoice_id;
    state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
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

async fn hear_provider(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: HandleProviderWebhook,
) -> Result<(), PaymentsError> {
    state.hear(ctx, request).await
}

async fn record_past_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: ImportInvoice,
) -> Result<Invoice, PaymentsError> {
    let total = model::check(&request.lines)?;
    let paid = match request.status {
        InvoiceStatus::Paid | InvoiceStatus::Refunded => true,
        InvoiceStatus::Open | InvoiceStatus::Expired => false,
        InvoiceStatus::Void => {
            return Err(FieldError::new("status", "invalid", "must be paid, refunded, expired or open").into());
        }
    };
    let (past, lifetime) = (request.clone(), state.lifetime);
    state
        .store
        .write_idempotent(&ctx, &request, move |tx| {
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
            row.imported = past.status != InvoiceStatus::Open;
            store::insert_invoice(tx.conn, &row)?;
            let invoice = row.to_invoice()?;
            if paid {
                let invoice = Invoice { status: InvoiceStatus::Paid, refunded: 0, ..invoice.clone() };
                tx.emit(&InvoicePaid { invoice, hold: None, checkout: None, imported: true })?;
            }
            if past.status == InvoiceStatus::Refunded {
                tx.emit(&InvoiceRefunded {
                    invoice: invoice.clone(),
                    amount: total,
                    restock: false,
                    lines: Vec::new(),
                    hold: None,
                    reason: REQUESTED.to_owned(),
                    imported: true,
                })?;
            }
            Ok::<_, PaymentsError>(invoice)
        })
        .await
}

async fn on_events(state: Arc<PaymentsState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    let refused = request.events.iter().any(|event| event.name == SaleRefused::NAME);
    state.store.consume(request.events, hear).await?;
    if refused {
        // The reservation of the refund is durable now; the provider is asked by whoever takes it up.
        actix::spawn(state.look_around());
    }
    Ok(())
}

/// The effect of one event.
fn hear(tx: &mut Tx<'_>, event: &EventEnvelope) -> Result<(), PaymentsError> {
    let unreadable = |error: serde_json::Error| {
        log::error!("payments: event {} cannot be read: {error}", event.id);
        PaymentsError::from(CommonError::Internal)
    };
    if let Some(SaleRefused { invoice_id, .. }) = event.decode().map_err(unreadable)? {
        let back =
            RefundParams { invoice: invoice_id, amount: None, restock: false, lines: None, reason: OUT_OF_STOCK };
        match processing::begin_refund(tx, PaymentId::new(), &back, None) {
            // Somebody was quicker and gave it all back.
            Ok(BeginOutcome::Go(_) | BeginOutcome::Before(_) | BeginOutcome::Refused(_))
            | Err(PaymentsError::RefundTooLarge { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if let Some(UserErased { user_id, .. }) = event.decode().map_err(unreadable)? {
        store::forget_email(tx.conn, user_id)?;
    }
    Ok(())
}

async fn audit(
    state: Arc<PaymentsState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn audit_invoices(
    state: Arc<PaymentsState>,
    _: RequestContext,
    request: ListInvoiceFacts,
) -> Result<Vec<InvoiceFacts>, CommonError> {
    // One transaction, so that an invoice and its refunds are of one moment.
    state
        .store
        .read(move |conn| {
            conn.transaction(|conn| Ok::<_, CommonError>(store::invariants::invoices(conn, request.which)?))
        })
        .await
}

async fn count_paid(
    state: Arc<PaymentsState>,
    _: RequestContext,
    _: CountPaidByDay,
) -> Result<Vec<(Timestamp, i64)>, CommonError> {
    state.store.read(|conn| Ok(store::invariants::paid_by_day(conn)?)).await
}
