//! The actor of payments: one handler per message.
//!
//! Does not contain: calls of the provider, SQL.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};

use super::model::InvoiceSums;
use super::refunds::{RefundParams, begin_refund};
use super::state::{BeginOutcome, PaymentsState, require_idempotency};
use super::store::{self, InvoiceRow};
use super::*;
use crate::contract::catalog::SaleRefused;
use crate::contract::users::UserErased;
use crate::messaging::{
    CheckInvariants, CommonError, DeliverEvents, Event as _, ListAuditEntries, RequestContext, Role,
};
use crate::runtime::spawn_interval;
use crate::store::{DomainState, Invariants, LockSet, Store, Tx, check_invariants, list_audit_entries};
use crate::tasks::spawn_detached;
use crate::types::{Amount, FieldError, InvoiceId, OrderDetails, Page, PaymentId, Timestamp, Validator};

/// Interval of reconciliation rounds.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum length of a payment token, in characters.
const TOKEN_MAX: usize = 500;

/// The actor of this domain.
pub struct PaymentsActor {
    pub(super) state: Arc<PaymentsState>,
}

impl Actor for PaymentsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_interval(ctx, &self.state.store, &self.state, RECONCILE_INTERVAL, PaymentsState::reconcile);
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
    HandleProviderWebhook => handle_webhook,
    ImportInvoice => import_invoice,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
    ListInvoiceFacts => list_invoice_facts,
    CountPaidByDay => count_paid_by_day,
}

/// Builds an open invoice with the next number.
fn new_invoice(
    tx: &mut Tx<'_>,
    request: &CreateInvoice,
    details: &OrderDetails,
    sums: InvoiceSums,
) -> Result<InvoiceRow, PaymentsError> {
    Ok(InvoiceRow {
        id: InvoiceId::new(),
        number: store::next_invoice_number(tx.conn)?,
        user_id: request.user_id,
        status: InvoiceStatus::Open,
        lines: store::to_text(&request.lines)?,
        total: sums.total,
        tax: sums.tax,
        tax_included: request.tax_included,
        shipping: request.shipping.as_ref().map(store::to_text).transpose()?,
        shipping_address: details.shipping_address.as_ref().map(store::to_text).transpose()?,
        billing_address: details.billing_address.as_ref().map(store::to_text).transpose()?,
        note: details.note.clone(),
        refunded: 0,
        refunding: 0,
        returned_late: 0,
        dispute: None,
        currency: request.currency,
        email: request.email.clone(),
        checkout: request.checkout,
        hold: request.hold,
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
    let (new, lifetime) = (request.clone(), state.lifetime);
    let details = OrderDetails {
        shipping_address: request.shipping_address.clone(),
        billing_address: request.billing_address.clone(),
        note: request.note.clone(),
    }
    .normalized();
    let sums = model::validate_invoice(&new, &details)?;
    // The counter's row is locked by the transaction that takes a number; invoices of one checkout exclude each other.
    let locks = request.checkout.map_or_else(LockSet::none, |checkout| LockSet::key("checkout", checkout));
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(locks)
        .run(move |tx| {
            // First of all: a repeated request gets the same invoice, even after its expiry.
            if let Some(checkout) = new.checkout
                && let Some(row) = store::invoice_of_checkout(tx.conn, checkout)?
            {
                return Ok(row.to_invoice()?);
            }
            let expires_at = new.expires_at.unwrap_or_else(|| tx.now.saturating_add(lifetime));
            if expires_at <= tx.now {
                return Err(FieldError::new("expires_at", "out_of_range", "must be in the future").into());
            }
            let row = InvoiceRow { expires_at, ..new_invoice(tx, &new, &details, sums)? };
            store::insert_invoice(tx.conn, &row)?;
            let invoice = row.to_invoice()?;
            tx.emit(&InvoiceCreated { invoice: model::for_event(invoice.clone()) })?;
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
        .filter(|row| {
            ctx.has_role(Role::ReadOnly) || ctx.identity().is_some_and(|identity| identity.user_id == row.user_id)
        })
        .ok_or(PaymentsError::InvoiceNotFound)?;
    Ok(row.to_invoice()?)
}

async fn list_invoices(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: ListInvoices,
) -> Result<Page<Invoice>, PaymentsError> {
    let user = match (ctx.has_role(Role::ReadOnly), ctx.identity()) {
        (true, _) => request.user_id,
        (false, None) => return Err(CommonError::Unauthenticated.into()),
        (false, Some(identity)) if request.user_id.is_some_and(|user| user != identity.user_id) => {
            return Err(CommonError::Forbidden.into());
        }
        (false, Some(identity)) => Some(identity.user_id),
    };
    let mut fields = Validator::new();
    let limit = fields.capture(request.page.limit());
    let after = fields.capture(request.page.after::<(i64, InvoiceId)>());
    fields.finish()?;
    let limit = limit.unwrap_or_default();
    let after = after.flatten().map(|(at, id)| (Timestamp::from_micros(at), id));
    let rows = state
        .store
        .read(move |conn| {
            let rows = store::list_invoices(conn, user, request.status, after, limit + 1)?;
            Ok::<_, PaymentsError>(rows.iter().map(InvoiceRow::to_invoice).collect::<Result<Vec<_>, _>>()?)
        })
        .await?;
    Ok(Page::from_overfetch(rows, limit, |invoice| (invoice.created_at.micros(), invoice.id)))
}

async fn pay_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: PayInvoice,
) -> Result<Invoice, PaymentsError> {
    let idempotent = require_idempotency(&ctx, &request)?;
    let mut fields = Validator::new();
    fields.line("token", &request.token, 1, TOKEN_MAX);
    fields.finish()?;
    spawn_detached(async move { state.pay(ctx, request, idempotent).await }).await
}

async fn refund_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: RefundInvoice,
) -> Result<Invoice, PaymentsError> {
    let idempotent = require_idempotency(&ctx, &request)?;
    let mut fields = Validator::new();
    if let Some(amount) = request.amount {
        fields.range("amount", amount, 1, Amount::MAX);
    }
    fields.finish()?;
    spawn_detached(async move { state.refund(ctx, request, idempotent).await }).await
}

async fn void_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: VoidInvoice,
) -> Result<Invoice, PaymentsError> {
    let id = request.invoice_id;
    state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let mut row = store::invoice(tx.conn, id)?.ok_or(PaymentsError::InvoiceNotFound)?;
            let Some(void) = row.ledger().void()? else { return Ok(row.to_invoice()?) };
            row.apply(void, None);
            store::update_invoice(tx.conn, &row)?;
            tx.emit(&InvoiceVoided {
                invoice_id: row.id,
                number: model::format_number(row.number),
                user_id: row.user_id,
                hold: row.hold,
                checkout: row.checkout,
            })?;
            Ok::<_, PaymentsError>(row.to_invoice()?)
        })
        .await
}

async fn handle_webhook(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: HandleProviderWebhook,
) -> Result<(), PaymentsError> {
    state.handle_webhook(ctx, request).await
}

async fn import_invoice(
    state: Arc<PaymentsState>,
    ctx: RequestContext,
    request: ImportInvoice,
) -> Result<Invoice, PaymentsError> {
    let import = request.clone();
    let new = CreateInvoice {
        user_id: import.user_id,
        lines: import.lines,
        currency: import.currency,
        shipping: None,
        tax_included: true,
        shipping_address: None,
        billing_address: None,
        note: None,
        email: None,
        hold: None,
        checkout: None,
        expires_at: None,
    };
    let details = OrderDetails::default();
    let sums = model::validate_invoice(&new, &details)?;
    let paid = match request.status {
        InvoiceStatus::Paid | InvoiceStatus::Refunded => true,
        InvoiceStatus::Open | InvoiceStatus::Expired => false,
        InvoiceStatus::Void => {
            return Err(FieldError::new("status", "invalid", "must be paid, refunded, expired or open").into());
        }
    };
    let lifetime = state.lifetime;
    state
        .store
        .idempotent(&ctx, &request)?
        .run(move |tx| {
            let mut row = new_invoice(tx, &new, &details, sums)?;
            row.status = import.status;
            row.created_at = import.at;
            // An open invoice can still be paid, so its lifetime begins now.
            let from = if import.status == InvoiceStatus::Open { tx.now.max(import.at) } else { import.at };
            row.expires_at = from.saturating_add(lifetime);
            row.paid_at = paid.then_some(import.at);
            row.refunded = if import.status == InvoiceStatus::Refunded { sums.total } else { 0 };
            // An open invoice is not marked imported: paying it charges the buyer.
            row.imported = import.status != InvoiceStatus::Open;
            store::insert_invoice(tx.conn, &row)?;
            let invoice = row.to_invoice()?;
            if paid {
                let invoice = Invoice { status: InvoiceStatus::Paid, refunded: 0, ..invoice.clone() };
                tx.emit(&InvoicePaid { invoice, hold: None, checkout: None, imported: true })?;
            }
            if import.status == InvoiceStatus::Refunded {
                tx.emit(&InvoiceRefunded {
                    invoice: invoice.clone(),
                    amount: sums.total,
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
    let has_refund = request.events.iter().any(|event| event.name == SaleRefused::NAME);
    state.store.consume(request.events, apply_event).await?;
    if has_refund {
        // The refund is reserved durably; a reconciliation round executes it.
        actix::spawn(state.reconcile());
    }
    Ok(())
}

crate::event_handlers! {
    /// Applies an event to invoices and refunds.
    fn apply_event(tx: &mut Tx<'_>) -> Result<(), PaymentsError>;
    SaleRefused => on_sale_refused,
    UserErased => on_user_erased,
}

/// Reserves the refund of an invoice whose stock is gone.
fn on_sale_refused(tx: &mut Tx<'_>, event: SaleRefused) -> Result<(), PaymentsError> {
    let params =
        RefundParams { invoice: event.invoice_id, amount: None, restock: false, lines: None, reason: OUT_OF_STOCK };
    match begin_refund(tx, PaymentId::new(), &params, None) {
        // Too large: the invoice was refunded in full already.
        Ok(BeginOutcome::Started(_) | BeginOutcome::Replayed(_) | BeginOutcome::Rejected(_))
        | Err(PaymentsError::RefundTooLarge { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn on_user_erased(tx: &mut Tx<'_>, event: UserErased) -> Result<(), PaymentsError> {
    tx.erase_responses(event.user_id, event.email.is_some())?;
    Ok(store::clear_personal_data(tx.conn, event.user_id)?)
}

impl DomainState for PaymentsState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
}

async fn list_invoice_facts(
    state: Arc<PaymentsState>,
    _: RequestContext,
    request: ListInvoiceFacts,
) -> Result<Vec<InvoiceFacts>, CommonError> {
    // One transaction, so that invoices and refunds are of one snapshot.
    state
        .store
        .read(move |conn| {
            conn.transaction(|conn| Ok::<_, CommonError>(store::invariants::invoices(conn, request.which)?))
        })
        .await
}

async fn count_paid_by_day(
    state: Arc<PaymentsState>,
    _: RequestContext,
    _: CountPaidByDay,
) -> Result<Vec<(Timestamp, i64)>, CommonError> {
    state.store.read(|conn| Ok(store::invariants::paid_by_day(conn)?)).await
}
