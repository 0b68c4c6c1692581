//! Refunds: the saga that returns captured money, and the refund of unapplied payments.
//!
//! The amount of a refund is reserved on its invoice first, so that concurrent refunds never exceed what was captured.
//! An interrupted refund is repeated under the same key, because the shop owes it.
//! Does not contain: payment attempts, timers.

use serde_json::json;
use tokio::time::timeout;

use super::model::{self, InvoiceLedger, RefundState};
use super::provider::{ProviderDispute, ProviderRefund, RefundOutcome, RefundRequest};
use super::state::{BeginOutcome, PROVIDER_TIMEOUT, PaymentsState, find_replay, invoice_lock};
use super::store::{self, InvoiceRow, RefundRow, UnappliedPaymentRow};
use super::{
    AT_PROVIDER, DisputeStatus, Invoice, InvoiceRefunded, LATE_PAYMENT, OUT_OF_STOCK, PaymentDisputed, PaymentsError,
    REQUESTED, RefundInvoice, ReturnLine,
};
use crate::messaging::{CommonError, RequestContext};
use crate::store::{IdempotentRequest, StaffAction, Tx};
use crate::types::{Amount, FieldError, InvoiceId, PaymentId};

/// Progress of a refund after a call of the provider.
#[derive(Debug)]
pub enum RefundProgress {
    /// The money is refunded.
    Done(Invoice),
    /// The bank has yet to confirm it.
    Pending(Invoice),
}

/// Parameters of a refund, as in [`RefundInvoice`].
pub struct RefundParams {
    pub invoice: InvoiceId,
    pub amount: Option<Amount>,
    pub restock: bool,
    pub lines: Option<Vec<ReturnLine>>,
    pub reason: &'static str,
}

/// Records a refund and reserves its amount on the invoice.
pub fn begin_refund(
    tx: &mut Tx<'_>,
    id: PaymentId,
    params: &RefundParams,
    idempotent: Option<&IdempotentRequest>,
) -> Result<BeginOutcome<RefundRow>, PaymentsError> {
    if let Some(response) = find_replay(tx, idempotent)? {
        return Ok(BeginOutcome::Replayed(Box::new(Ok(response))));
    }
    let mut row = store::invoice(tx.conn, params.invoice)?.ok_or(PaymentsError::InvoiceNotFound)?;
    let ledger = row.ledger();
    // An invoice that cannot be refunded at all is reported before errors in the parameters.
    ledger.begin_refund(0)?;
    let left = ledger.refundable();
    let (price, returned) = match &params.lines {
        None if params.restock => {
            (left, model::unreturned_lines(&row.lines()?, &store::returned_lines(tx.conn, &row)?))
        }
        None => (left, Vec::new()),
        Some(lines) => {
            let returned = store::returned_lines(tx.conn, &row)?;
            (model::refund_amount(&row.lines()?, row.tax_included, &returned, lines)?, lines.clone())
        }
    };
    let amount = params.amount.unwrap_or(price);
    // A zero invoice has nothing to reserve, so the refund itself is queried.
    let nothing_left = if row.total == 0 { store::has_refund_in_progress(tx.conn, row.id)? } else { left == 0 };
    if nothing_left {
        return Err(PaymentsError::RefundTooLarge { left });
    }
    let reserved = ledger.begin_refund(amount)?;
    if params.restock && params.lines.is_none() && amount < left {
        let message = "requires a full refund; name the units in `lines`, or leave the amount out";
        return Err(FieldError::new("restock", "invalid", message).into());
    }
    let (scope, key, fingerprint) = store::to_idempotency_columns(idempotent);
    let refund = RefundRow {
        id,
        invoice_id: row.id,
        state: RefundState::Processing,
        amount,
        restock: params.restock,
        lines: if returned.is_empty() { None } else { Some(store::to_text(&returned)?) },
        reason: params.reason.to_owned(),
        scope,
        key,
        fingerprint,
        created_at: tx.now,
        ended_at: None,
        process: tx.process,
    };
    reserve(tx, &mut row, reserved, &refund)?;
    Ok(BeginOutcome::Started(refund))
}

/// Records a refund with its amount reserved on the invoice.
fn reserve(
    tx: &mut Tx<'_>,
    row: &mut InvoiceRow,
    reserved: InvoiceLedger,
    refund: &RefundRow,
) -> Result<(), PaymentsError> {
    store::insert_refund(tx.conn, refund)?;
    row.apply(reserved, row.processing);
    Ok(store::update_invoice(tx.conn, row)?)
}

/// Finishes a refund, unless it is finished already. The inner result is the response to the caller: a failure is
/// committed too.
pub fn finish_refund(
    tx: &mut Tx<'_>,
    refund: &RefundRow,
    outcome: Result<(), PaymentsError>,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let mut row = store::invoice(tx.conn, refund.invoice_id)?.ok_or(PaymentsError::InvoiceNotFound)?;
    let state = if outcome.is_ok() { RefundState::Done } else { RefundState::Failed };
    if !store::finish_refund(tx.conn, refund.id, state, tx.now)? {
        return Ok(Ok(row.to_invoice()?));
    }
    let ledger = row.ledger();
    if let Err(error) = outcome {
        row.apply(ledger.fail_refund(refund.amount), row.processing);
        store::update_invoice(tx.conn, &row)?;
        return Ok(Err(error));
    }
    row.apply(ledger.end_refund(refund.amount), row.processing);
    store::update_invoice(tx.conn, &row)?;
    let invoice = row.to_invoice()?;
    tx.emit(&InvoiceRefunded {
        invoice: model::for_event(invoice.clone()),
        amount: refund.amount,
        restock: refund.restock,
        lines: refund.lines()?,
        hold: row.hold,
        reason: refund.reason.clone(),
        imported: row.imported,
    })?;
    save_first_response(tx, refund, &invoice)?;
    Ok(Ok(invoice))
}

/// Saves the response to a refund request, unless the caller was answered before, while the bank had yet to confirm.
fn save_first_response(tx: &mut Tx<'_>, refund: &RefundRow, invoice: &Invoice) -> Result<(), PaymentsError> {
    let columns = (refund.scope.clone(), refund.key.clone(), refund.fingerprint.clone());
    if let Some(idempotent) = store::from_idempotency_columns(columns)
        && tx.find_response::<Invoice, PaymentsError>(&idempotent)?.is_none()
    {
        tx.save_response::<_, PaymentsError>(&idempotent, invoice)?;
    }
    Ok(())
}

/// Answers a refund request that the provider has accepted and the bank has yet to confirm.
fn answer_pending_refund(tx: &mut Tx<'_>, refund: &RefundRow) -> Result<Invoice, PaymentsError> {
    let row = store::invoice(tx.conn, refund.invoice_id)?.ok_or(PaymentsError::InvoiceNotFound)?;
    let invoice = row.to_invoice()?;
    save_first_response(tx, refund, &invoice)?;
    Ok(invoice)
}

/// Records a refund that was made at the provider, once per refund. It brings no units back.
///
/// # Errors
/// `ProviderFailed` while a refund of the shop is in progress that may be the one too many: the provider repeats the
/// webhook when that is over.
pub fn record_foreign_refund(tx: &mut Tx<'_>, charge: PaymentId, refund: &ProviderRefund) -> Result<(), PaymentsError> {
    let id = model::foreign_refund_id(&refund.id);
    let Some(payment) = store::payment(tx.conn, charge)? else { return Ok(()) };
    if store::refund(tx.conn, id)?.is_some() {
        return Ok(());
    }
    let Some(mut row) = store::invoice(tx.conn, payment.invoice_id)? else { return Ok(()) };
    let reserved = match row.ledger().begin_refund(refund.amount) {
        Ok(reserved) => reserved,
        Err(_) if row.refunding > 0 => return Err(PaymentsError::ProviderFailed),
        Err(error) => {
            log::error!("payment {charge}: refund {} at the provider does not fit its invoice: {error}", refund.id);
            return Ok(());
        }
    };
    let refund = RefundRow {
        id,
        invoice_id: row.id,
        state: RefundState::Processing,
        amount: refund.amount,
        restock: false,
        lines: None,
        reason: AT_PROVIDER.to_owned(),
        scope: None,
        key: None,
        fingerprint: None,
        created_at: tx.now,
        ended_at: None,
        process: tx.process,
    };
    reserve(tx, &mut row, reserved, &refund)?;
    finish_refund(tx, &refund, Ok(()))?.map(drop)
}

/// Records a dispute of a charge. A decision is final; reports of an earlier state may arrive after it.
pub fn record_dispute(tx: &mut Tx<'_>, charge: PaymentId, dispute: &ProviderDispute) -> Result<(), PaymentsError> {
    let Some(payment) = store::payment(tx.conn, charge)? else { return Ok(()) };
    let Some(mut row) = store::invoice(tx.conn, payment.invoice_id)? else { return Ok(()) };
    let is_decided = row.dispute.is_some_and(|status| status != DisputeStatus::Open);
    if row.dispute == Some(dispute.status) || (is_decided && dispute.status == DisputeStatus::Open) {
        return Ok(());
    }
    row.dispute = Some(dispute.status);
    store::update_invoice(tx.conn, &row)?;
    log::warn!("payment {charge}: dispute is {}", dispute.status.as_str());
    tx.emit(&PaymentDisputed {
        invoice: model::for_event(row.to_invoice()?),
        amount: dispute.amount,
        reason: dispute.reason.clone(),
        respond_by: dispute.respond_by,
    })?;
    Ok(())
}

/// Marks an unapplied payment refunded, unless it is already, and notifies its payer.
pub fn finish_unapplied_payment(tx: &mut Tx<'_>, unapplied: &UnappliedPaymentRow) -> Result<(), PaymentsError> {
    if !store::finish_unapplied_payment(tx.conn, unapplied.payment_id, tx.now)? {
        return Ok(());
    }
    let Some(mut row) = store::invoice(tx.conn, unapplied.invoice_id)? else { return Ok(()) };
    row.returned_late = row.returned_late.saturating_add(unapplied.amount);
    store::update_invoice(tx.conn, &row)?;
    tx.emit(&InvoiceRefunded {
        invoice: model::for_event(row.to_invoice()?),
        amount: unapplied.amount,
        restock: false,
        lines: Vec::new(),
        hold: None,
        reason: LATE_PAYMENT.to_owned(),
        imported: false,
    })?;
    Ok(())
}

impl PaymentsState {
    /// Refunds an invoice in full or in part.
    pub async fn refund(
        &self,
        ctx: RequestContext,
        request: RefundInvoice,
        idempotent: Option<IdempotentRequest>,
    ) -> Result<Invoice, PaymentsError> {
        let (id, action) = (PaymentId::new(), StaffAction::of(&ctx, &request));
        let params = RefundParams {
            invoice: request.invoice_id,
            amount: request.amount,
            restock: request.restock,
            lines: request.lines,
            reason: REQUESTED,
        };
        let _running = self.in_flight.try_insert(id);
        let locks = invoice_lock(params.invoice, idempotent.as_ref());
        let begin = move |tx: &mut Tx<'_>| {
            let outcome = begin_refund(tx, id, &params, idempotent.as_ref())?;
            if let BeginOutcome::Started(refund) = &outcome {
                tx.describe_change(json!(null), json!({ "refund": refund.amount }));
                tx.record_action(action.as_ref())?;
            }
            Ok::<_, PaymentsError>(outcome)
        };
        match self.store.write_locked(locks, begin).await? {
            BeginOutcome::Replayed(response) => {
                ctx.mark_replayed();
                *response
            }
            BeginOutcome::Rejected(error) => Err(error),
            BeginOutcome::Started(refund) => self
                .execute_refund(refund)
                .await
                .map(|(RefundProgress::Done(invoice) | RefundProgress::Pending(invoice))| invoice),
        }
    }

    /// Requests a reserved refund from the provider, for the first time or again, and finishes it, unless the bank has yet
    /// to confirm it.
    pub(super) async fn execute_refund(&self, refund: RefundRow) -> Result<RefundProgress, PaymentsError> {
        let invoice = refund.invoice_id;
        let (row, charge) = self
            .store
            .read(move |conn| {
                let row = store::invoice(conn, invoice)?.ok_or(PaymentsError::InvoiceNotFound)?;
                Ok::<_, PaymentsError>((row, store::captured_payment(conn, invoice)?))
            })
            .await?;
        let outcome = match charge {
            // An imported order was never charged here, so no money moves.
            _ if row.imported => RefundOutcome::Done,
            Some(charge) => {
                let (key, charge) = (refund.id.to_string(), charge.to_string());
                let request = RefundRequest { key, charge, amount: refund.amount, currency: row.currency };
                timeout(PROVIDER_TIMEOUT, self.provider.refund(request)).await.unwrap_or(RefundOutcome::Unknown)
            }
            None => RefundOutcome::Failed,
        };
        let result = match outcome {
            RefundOutcome::Pending => {
                let answered = self.store.write(move |tx| answer_pending_refund(tx, &refund)).await;
                return answered.map(RefundProgress::Pending);
            }
            RefundOutcome::Unknown => {
                log::warn!("refund {}: provider timed out; status unknown, retrying", refund.id);
                return Err(CommonError::DeadlineExceeded.into());
            }
            // No caller would retry this refund, so the shop retries it until it is done.
            RefundOutcome::Failed | RefundOutcome::AmountRefused if refund.reason == OUT_OF_STOCK => {
                log::error!("refund {}: the provider rejected a refund that is owed; retrying", refund.id);
                return Err(PaymentsError::ProviderFailed);
            }
            RefundOutcome::Done => Ok(()),
            RefundOutcome::Failed => Err(PaymentsError::ProviderFailed),
            RefundOutcome::AmountRefused => Err(PaymentsError::AmountRefused),
        };
        self.store.write(move |tx| finish_refund(tx, &refund, result)).await?.map(RefundProgress::Done)
    }

    /// Refunds an unapplied payment. Returns `true` if it is refunded now.
    pub(super) async fn refund_unapplied_payment(&self, unapplied: UnappliedPaymentRow) -> Result<bool, PaymentsError> {
        let request = RefundRequest {
            key: unapplied.refund_key.to_string(),
            charge: unapplied.payment_id.to_string(),
            amount: unapplied.amount,
            currency: unapplied.currency,
        };
        let outcome = timeout(PROVIDER_TIMEOUT, self.provider.refund(request)).await;
        let outcome = outcome.unwrap_or(RefundOutcome::Unknown);
        if outcome != RefundOutcome::Done {
            log::error!("payment {}: refund of unapplied payment: {outcome:?}; retrying", unapplied.payment_id);
            return Ok(false);
        }
        self.store.write(move |tx| finish_unapplied_payment(tx, &unapplied)).await?;
        Ok(true)
    }
}
