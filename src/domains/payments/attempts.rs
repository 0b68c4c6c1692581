//! Payment attempts: the saga that captures the money of an invoice.
//!
//! An attempt is committed as processing, the provider is called under the attempt's key, and the outcome is committed
//! with its event and its response. An interrupted attempt is never repeated, because the payment token is not stored;
//! reconciliation looks up its outcome instead.
//! Does not contain: refunds, timers.

use tokio::time::timeout;

use super::model::{self, PaymentState};
use super::provider::{Charge, ChargeOutcome, ChargeStatus};
use super::state::{BeginOutcome, PROVIDER_TIMEOUT, PaymentsState, find_replay, find_replayed_failure, invoice_lock};
use super::store::{self, InvoiceRow, PaymentRow, UnappliedPaymentRow};
use super::{Invoice, InvoiceExpired, InvoicePaid, InvoiceStatus, PayInvoice, PaymentFailed, PaymentsError};
use crate::messaging::{Caller, CommonError, RequestContext};
use crate::store::{IdempotentRequest, Tx};
use crate::types::{InvoiceId, PaymentId, UserId};

/// Error for the caller of a failed attempt, and its code for the event and the row.
type ChargeFailure = (PaymentsError, &'static str);

/// Returns the user who must own an invoice for the caller to pay it; `None` for calls of other domains.
fn required_owner(ctx: &RequestContext) -> Result<Option<UserId>, CommonError> {
    match &ctx.caller {
        Caller::Domain(_) => Ok(None),
        Caller::User { identity, .. } => Ok(Some(identity.user_id)),
        Caller::Anyone { .. } => Err(CommonError::Unauthenticated),
    }
}

/// Expires an open invoice, unless an attempt is in progress.
pub fn expire(tx: &mut Tx<'_>, row: &mut InvoiceRow) -> Result<(), PaymentsError> {
    let Some(expired) = row.ledger().expire() else { return Ok(()) };
    row.apply(expired, None);
    store::update_invoice(tx.conn, row)?;
    tx.emit(&InvoiceExpired {
        invoice_id: row.id,
        number: model::format_number(row.number),
        user_id: row.user_id,
        hold: row.hold,
        checkout: row.checkout,
    })?;
    Ok(())
}

fn begin_attempt(
    tx: &mut Tx<'_>,
    id: PaymentId,
    invoice: InvoiceId,
    owner: Option<UserId>,
    idempotent: Option<&IdempotentRequest>,
) -> Result<BeginOutcome<PaymentRow>, PaymentsError> {
    if let Some(response) = find_replay(tx, idempotent)? {
        return Ok(BeginOutcome::Replayed(Box::new(Ok(response))));
    }
    if let Some(failure) = find_replayed_failure(tx, idempotent)? {
        return Ok(BeginOutcome::Replayed(Box::new(Err(failure))));
    }
    let mut row = store::invoice(tx.conn, invoice)?
        .filter(|row| owner.is_none_or(|owner| owner == row.user_id))
        .ok_or(PaymentsError::InvoiceNotFound)?;
    let paying = row.ledger().begin_payment()?;
    if row.expires_at <= tx.now {
        expire(tx, &mut row)?;
        return Ok(BeginOutcome::Rejected(PaymentsError::InvoiceExpired));
    }
    let (scope, key, fingerprint) = store::to_idempotency_columns(idempotent);
    let payment = PaymentRow {
        id,
        invoice_id: row.id,
        state: PaymentState::Processing,
        amount: row.total,
        currency: row.currency,
        scope,
        key,
        fingerprint,
        failure: None,
        created_at: tx.now,
        ended_at: None,
        process: tx.process,
    };
    store::insert_payment(tx.conn, &payment)?;
    row.apply(paying, Some(id));
    store::update_invoice(tx.conn, &row)?;
    Ok(BeginOutcome::Started(payment))
}

/// Finishes an attempt. The inner result is the response to the caller: a failure is committed too.
fn finish_attempt(
    tx: &mut Tx<'_>,
    id: PaymentId,
    outcome: Result<(), ChargeFailure>,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    match outcome {
        Ok(()) => apply_capture(tx, id),
        Err(failure) => fail_attempt(tx, id, failure),
    }
}

/// Loads an attempt and its invoice in the current transaction.
fn load_attempt(tx: &mut Tx<'_>, id: PaymentId) -> Result<(PaymentRow, InvoiceRow), PaymentsError> {
    let missing = |what: &str| {
        log::error!("payments: the {what} of attempt {id} is missing");
        PaymentsError::from(CommonError::Internal)
    };
    let payment = store::payment(tx.conn, id)?.ok_or_else(|| missing("row"))?;
    let row = store::invoice(tx.conn, payment.invoice_id)?.ok_or_else(|| missing("invoice"))?;
    Ok((payment, row))
}

/// Marks an attempt failed, unless it is finished already.
fn fail_attempt(
    tx: &mut Tx<'_>,
    id: PaymentId,
    (error, code): ChargeFailure,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let (_, mut row) = load_attempt(tx, id)?;
    let states = (PaymentState::Processing, PaymentState::Failed);
    if !store::transition_payment(tx.conn, id, states, Some(code), tx.now)? {
        // Reconciliation or a webhook finished it first; its outcome holds.
        return Ok(match row.status {
            InvoiceStatus::Paid | InvoiceStatus::Refunded => Ok(row.to_invoice()?),
            _ => Err(PaymentsError::ProviderFailed),
        });
    }
    row.apply(row.ledger().fail_payment(), None);
    store::update_invoice(tx.conn, &row)?;
    tx.emit(&PaymentFailed {
        invoice_id: row.id,
        number: model::format_number(row.number),
        user_id: row.user_id,
        reason: code.to_owned(),
    })?;
    Ok(Err(error))
}

/// Applies a capture to its invoice. Idempotent: the first call marks the invoice paid. If the attempt had failed and
/// the invoice cannot take the money any more, the money is recorded as an unapplied payment, to be refunded.
pub fn apply_capture(tx: &mut Tx<'_>, id: PaymentId) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let (payment, mut row) = load_attempt(tx, id)?;
    let state = payment.state;
    let paid = match state {
        PaymentState::Captured => return Ok(Ok(row.to_invoice()?)),
        PaymentState::Processing => row.ledger().capture(),
        PaymentState::Failed => row.ledger().capture_late(),
    };
    let Some(paid) = paid else {
        let unapplied = UnappliedPaymentRow {
            payment_id: id,
            invoice_id: row.id,
            refund_key: PaymentId::new(),
            amount: payment.amount,
            currency: payment.currency,
            created_at: tx.now,
            ended_at: None,
            process: tx.process,
        };
        if store::insert_unapplied_payment(tx.conn, &unapplied)? {
            log::error!("payment {id}: captured after failure; refunding unapplied payment");
        }
        return Ok(Err(PaymentsError::ProviderFailed));
    };
    store::transition_payment(tx.conn, id, (state, PaymentState::Captured), None, tx.now)?;
    row.apply(paid, None);
    row.paid_at = Some(tx.now);
    store::update_invoice(tx.conn, &row)?;
    let invoice = row.to_invoice()?;
    tx.emit(&InvoicePaid {
        invoice: model::for_event(invoice.clone()),
        hold: row.hold,
        checkout: row.checkout,
        imported: false,
    })?;
    let columns = (payment.scope, payment.key, payment.fingerprint);
    if let Some(idempotent) = store::from_idempotency_columns(columns) {
        tx.save_response::<_, PaymentsError>(&idempotent, &invoice)?;
    }
    Ok(Ok(invoice))
}

impl PaymentsState {
    /// Captures the money for an invoice.
    pub async fn pay(
        &self,
        ctx: RequestContext,
        request: PayInvoice,
        idempotent: Option<IdempotentRequest>,
    ) -> Result<Invoice, PaymentsError> {
        let (id, invoice, owner) = (PaymentId::new(), request.invoice_id, required_owner(&ctx)?);
        // Registered before the row is visible, so that reconciliation does not take the attempt for an orphan.
        let _running = self.in_flight.try_insert(id);
        let locks = invoice_lock(invoice, idempotent.as_ref());
        let payment = match self
            .store
            .write_locked(locks.clone(), move |tx| begin_attempt(tx, id, invoice, owner, idempotent.as_ref()))
            .await?
        {
            BeginOutcome::Replayed(response) => {
                ctx.mark_replayed();
                return *response;
            }
            BeginOutcome::Rejected(error) => return Err(error),
            BeginOutcome::Started(payment) => payment,
        };
        let charge = Charge {
            key: payment.id.to_string(),
            invoice: payment.invoice_id,
            amount: payment.amount,
            currency: payment.currency,
            token: request.token,
        };
        let outcome = match timeout(PROVIDER_TIMEOUT, self.provider.capture(charge)).await {
            Ok(ChargeOutcome::Captured) => Ok(()),
            Ok(ChargeOutcome::Declined) => Err((PaymentsError::CardDeclined, model::CARD_DECLINED)),
            Ok(ChargeOutcome::AuthenticationRequired) => {
                Err((PaymentsError::AuthenticationRequired, model::AUTHENTICATION_REQUIRED))
            }
            Ok(ChargeOutcome::AmountRefused) => Err((PaymentsError::AmountRefused, "amount_refused")),
            Ok(ChargeOutcome::UnknownToken) => Err((PaymentsError::UnknownToken, "unknown_token")),
            Ok(ChargeOutcome::Failed) => Err((PaymentsError::ProviderFailed, "provider_failed")),
            Ok(ChargeOutcome::Unknown) | Err(_) => {
                log::warn!("payment {id}: provider timed out; status unknown [{}]", ctx.request_id);
                return Err(CommonError::DeadlineExceeded.into());
            }
        };
        self.store.write_locked(locks, move |tx| finish_attempt(tx, id, outcome)).await?
    }

    /// Looks up the outcome of an interrupted attempt at the provider. Returns `true` if it is finished now.
    pub(super) async fn reconcile_attempt(&self, payment: PaymentRow) -> Result<bool, PaymentsError> {
        let status = timeout(PROVIDER_TIMEOUT, self.provider.lookup(payment.id.to_string())).await;
        let outcome = match status.unwrap_or(ChargeStatus::Unknown) {
            ChargeStatus::Captured => Ok(()),
            ChargeStatus::NotCharged => Err((PaymentsError::ProviderFailed, "not_captured")),
            ChargeStatus::Unknown => return Ok(false),
        };
        // The caller is gone, so only the event reports the outcome.
        let _ = self.store.write(move |tx| finish_attempt(tx, payment.id, outcome)).await?;
        Ok(true)
    }
}
