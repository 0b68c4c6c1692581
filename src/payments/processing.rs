//! The work of several steps: taking money and giving it back, and what a timer does, finding work that a crash
//! or a silence left behind and letting invoices run out.
//!
//! A try to take money and a try to give it back differ in one thing. A capture that was begun and is not known to
//! have ended is looked up, never asked for again: the token is not kept. A refund is asked for again under the same
//! key, because the shop owes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::model::{self, PaymentState, RefundState};
use super::provider::{Charge, Charged, Known, PaymentProvider, Return, Returned};
use super::store::{self, InvoiceRow, PaymentRow, RefundRow};
use super::{
    Invoice, InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceStatus, PayInvoice, PaymentFailed, PaymentsError,
    RefundInvoice,
};
use crate::ground::UnderWay;
use crate::messaging::{Caller, Ctx, Failure};
use crate::store::{Store, Tx, Wish};
use crate::types::{FieldError, InvoiceId, PaymentId, UserId};

/// How long the provider may take before its answer counts as lost.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(30);
/// How many invoices run out in one transaction.
const EXPIRE_BATCH: i64 = 100;
/// How many unfinished tries are looked at in one round.
const RECONCILE_BATCH: i64 = 256;

/// What the handlers of this domain share.
pub struct Room {
    pub store: Store,
    pub lifetime: Duration,
    provider: Box<dyn PaymentProvider>,
    /// The tries, of both kinds, whose work runs in this process.
    under_way: UnderWay<PaymentId>,
    /// Held while a round of the timer runs: a slow one is not overtaken.
    round: Mutex<()>,
}

/// How the first step of a try ended. All three are commits.
pub enum Begun<T> {
    /// It was answered before under the same key.
    Before(Invoice),
    /// It cannot be, and the transaction says so to others too.
    Refused(PaymentsError),
    /// It is committed as under way.
    Go(T),
}

/// Who must own an invoice for the caller to pay it: nobody in particular when another domain asks.
fn payer(ctx: &Ctx) -> Result<Option<UserId>, Failure> {
    match &ctx.caller {
        Caller::Domain(_) => Ok(None),
        Caller::User { identity, .. } => Ok(Some(identity.user_id)),
        Caller::Anyone { .. } => Err(Failure::Unauthenticated),
    }
}

/// The wish of a request that must have a key unless a domain asks.
pub fn required_wish<R: crate::messaging::Request>(ctx: &Ctx, request: &R) -> Result<Option<Wish>, Failure> {
    match Wish::of(ctx, request)? {
        None if !matches!(ctx.caller, Caller::Domain(_)) => Err(Failure::IdempotencyKeyRequired),
        wish => Ok(wish),
    }
}

/// Refuses when work runs under the wish's key; gives back what was answered under it before.
fn answered(tx: &mut Tx<'_>, wish: Option<&Wish>) -> Result<Option<Invoice>, PaymentsError> {
    let Some(wish) = wish else { return Ok(None) };
    if let Some(before) = tx.recall::<Invoice, PaymentsError>(wish)? {
        return Ok(Some(before));
    }
    match store::under_way(tx.conn, wish)? {
        None => Ok(None),
        Some(running) if running == wish.fingerprint => Err(Failure::RequestInProgress.into()),
        Some(_) => Err(Failure::IdempotencyKeyReused.into()),
    }
}

/// Changes how an invoice stands, if it may.
pub fn step(row: &mut InvoiceRow, next: InvoiceStatus) -> Result<(), PaymentsError> {
    let now = row.status()?;
    if !now.may_become(next) {
        log::error!("payments: invoice {} is {} and cannot become {}", row.id, now.as_str(), next.as_str());
        return Err(Failure::Internal.into());
    }
    next.as_str().clone_into(&mut row.status);
    Ok(())
}

/// Lets an open invoice run out.
fn expire(tx: &mut Tx<'_>, row: &mut InvoiceRow) -> Result<(), PaymentsError> {
    step(row, InvoiceStatus::Expired)?;
    store::save(tx.conn, row)?;
    tx.emit(&InvoiceExpired {
        invoice_id: row.id,
        number: model::number(row.number),
        user_id: row.user_id,
        hold: row.hold,
        checkout: row.checkout,
    })?;
    Ok(())
}

fn begin_payment(
    tx: &mut Tx<'_>,
    id: PaymentId,
    invoice: InvoiceId,
    payer: Option<UserId>,
    wish: Option<&Wish>,
) -> Result<Begun<PaymentRow>, PaymentsError> {
    if let Some(before) = answered(tx, wish)? {
        return Ok(Begun::Before(before));
    }
    let mut row = store::invoice(tx.conn, invoice)?
        .filter(|row| payer.is_none_or(|payer| payer == row.user_id))
        .ok_or(PaymentsError::InvoiceNotFound)?;
    match row.status()? {
        InvoiceStatus::Paid | InvoiceStatus::Refunded => return Err(PaymentsError::AlreadyPaid),
        InvoiceStatus::Expired => return Err(PaymentsError::InvoiceExpired),
        InvoiceStatus::Void => return Err(PaymentsError::InvoiceVoid),
        InvoiceStatus::Open if row.processing.is_some() => return Err(PaymentsError::PaymentInProgress),
        InvoiceStatus::Open if row.expires_at <= tx.now => {
            expire(tx, &mut row)?;
            return Ok(Begun::Refused(PaymentsError::InvoiceExpired));
        }
        InvoiceStatus::Open => {}
    }
    let (scope, key, fingerprint) = store::to_columns(wish);
    let payment = PaymentRow {
        id,
        invoice_id: row.id,
        state: PaymentState::Processing.as_str().to_owned(),
        amount: row.total,
        currency: row.currency,
        scope,
        key,
        fingerprint,
        failure: None,
        created_at: tx.now,
        ended_at: None,
    };
    store::insert_payment(tx.conn, &payment)?;
    row.processing = Some(id);
    store::save(tx.conn, &row)?;
    Ok(Begun::Go(payment))
}

/// Why money was not taken: what the caller hears, and the stable word of the event and the row.
type NotTaken = (PaymentsError, &'static str);

/// Ends a try to take money. What the caller hears is inside, because a refusal is a commit too.
fn end_payment(
    tx: &mut Tx<'_>,
    payment: &PaymentRow,
    taken: Result<(), NotTaken>,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let mut row = store::invoice(tx.conn, payment.invoice_id)?.ok_or(PaymentsError::InvoiceNotFound)?;
    let (state, failure) = match &taken {
        Ok(()) => (PaymentState::Captured, None),
        Err((_, word)) => (PaymentState::Failed, Some(*word)),
    };
    if !store::end_payment(tx.conn, payment.id, state, failure, tx.now)? {
        // Somebody ended it before; what they found holds.
        return Ok(match row.status()? {
            InvoiceStatus::Paid | InvoiceStatus::Refunded => Ok(row.to_invoice()?),
            _ => Err(PaymentsError::ProviderFailed),
        });
    }
    row.processing = None;
    if let Err((error, word)) = taken {
        store::save(tx.conn, &row)?;
        tx.emit(&PaymentFailed {
            invoice_id: row.id,
            number: model::number(row.number),
            user_id: row.user_id,
            reason: word.to_owned(),
        })?;
        return Ok(Err(error));
    }
    step(&mut row, InvoiceStatus::Paid)?;
    row.paid_at = Some(tx.now);
    store::save(tx.conn, &row)?;
    let invoice = row.to_invoice()?;
    tx.emit(&InvoicePaid { invoice: invoice.clone(), hold: row.hold, checkout: row.checkout, past: false })?;
    let wish = (payment.scope.clone(), payment.key.clone(), payment.fingerprint.clone());
    if let Some(wish) = store::from_columns(wish) {
        tx.keep::<_, PaymentsError>(&wish, &invoice)?;
    }
    Ok(Ok(invoice))
}

/// What is to go back.
pub struct Back {
    pub invoice: InvoiceId,
    pub amount: Option<i64>,
    pub restock: bool,
    pub reason: &'static str,
}

/// Reserves what is to go back, so that refunds that run at once never exceed what was taken.
pub fn begin_refund(
    tx: &mut Tx<'_>,
    id: PaymentId,
    back: &Back,
    wish: Option<&Wish>,
) -> Result<Begun<RefundRow>, PaymentsError> {
    if let Some(before) = answered(tx, wish)? {
        return Ok(Begun::Before(before));
    }
    let mut row = store::invoice(tx.conn, back.invoice)?.ok_or(PaymentsError::InvoiceNotFound)?;
    match row.status()? {
        InvoiceStatus::Paid => {}
        InvoiceStatus::Refunded => return Err(PaymentsError::RefundTooLarge { left: 0 }),
        InvoiceStatus::Open | InvoiceStatus::Expired | InvoiceStatus::Void => return Err(PaymentsError::NotPaid),
    }
    let left = row.left();
    let amount = back.amount.unwrap_or(left);
    // An invoice over nothing has nothing to reserve, so the refund itself is looked for.
    let nothing_left = if row.total == 0 { store::has_refund_under_way(tx.conn, row.id)? } else { left == 0 };
    if amount > left || nothing_left {
        return Err(PaymentsError::RefundTooLarge { left });
    }
    if back.restock && amount < left {
        let message = "goes only with all that is left; leave the amount out";
        return Err(FieldError::new("restock", "invalid", message).into());
    }
    let (scope, key, fingerprint) = store::to_columns(wish);
    let refund = RefundRow {
        id,
        invoice_id: row.id,
        state: RefundState::Processing.as_str().to_owned(),
        amount,
        restock: back.restock,
        reason: back.reason.to_owned(),
        scope,
        key,
        fingerprint,
        created_at: tx.now,
        ended_at: None,
    };
    store::insert_refund(tx.conn, &refund)?;
    row.refunding += amount;
    store::save(tx.conn, &row)?;
    Ok(Begun::Go(refund))
}

/// Ends a try to give money back.
fn end_refund(
    tx: &mut Tx<'_>,
    refund: &RefundRow,
    done: bool,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let mut row = store::invoice(tx.conn, refund.invoice_id)?.ok_or(PaymentsError::InvoiceNotFound)?;
    let state = if done { RefundState::Done } else { RefundState::Failed };
    if !store::end_refund(tx.conn, refund.id, state, tx.now)? {
        return Ok(Ok(row.to_invoice()?));
    }
    row.refunding -= refund.amount;
    if !done {
        store::save(tx.conn, &row)?;
        return Ok(Err(PaymentsError::ProviderFailed));
    }
    row.refunded += refund.amount;
    if row.refunded == row.total {
        step(&mut row, InvoiceStatus::Refunded)?;
    }
    store::save(tx.conn, &row)?;
    let invoice = row.to_invoice()?;
    tx.emit(&InvoiceRefunded {
        invoice: invoice.clone(),
        amount: refund.amount,
        restock: refund.restock,
        hold: row.hold,
        reason: refund.reason.clone(),
        past: row.past,
    })?;
    let wish = (refund.scope.clone(), refund.key.clone(), refund.fingerprint.clone());
    if let Some(wish) = store::from_columns(wish) {
        tx.keep::<_, PaymentsError>(&wish, &invoice)?;
    }
    Ok(Ok(invoice))
}

impl Room {
    pub fn new(store: Store, provider: Box<dyn PaymentProvider>, lifetime: Duration) -> Self {
        Self { store, lifetime, provider, under_way: UnderWay::default(), round: Mutex::default() }
    }

    /// Takes the money for an invoice.
    pub async fn pay(&self, ctx: Ctx, request: PayInvoice, wish: Option<Wish>) -> Result<Invoice, PaymentsError> {
        let (id, invoice, payer) = (PaymentId::new(), request.invoice_id, payer(&ctx)?);
        // Noted before the row can be seen: the timer must not take a try for an orphan that is about to begin.
        let _running = self.under_way.begin(id);
        let payment = match self.store.write(move |tx| begin_payment(tx, id, invoice, payer, wish.as_ref())).await? {
            Begun::Before(invoice) => {
                ctx.mark_replayed();
                return Ok(invoice);
            }
            Begun::Refused(error) => return Err(error),
            Begun::Go(payment) => payment,
        };
        let charge = Charge {
            key: payment.id.to_string(),
            invoice: payment.invoice_id,
            amount: payment.amount,
            currency: payment.currency,
            token: request.token,
        };
        let taken = match timeout(PROVIDER_PATIENCE, self.provider.capture(charge)).await {
            Ok(Charged::Captured) => Ok(()),
            Ok(Charged::Declined) => Err((PaymentsError::CardDeclined, "card_declined")),
            Ok(Charged::UnknownToken) => Err((PaymentsError::UnknownToken, "unknown_token")),
            Ok(Charged::Failed) => Err((PaymentsError::ProviderFailed, "provider_failed")),
            Ok(Charged::Unknown) | Err(_) => {
                log::warn!("payments: no word from the provider of {}; it will be asked [{}]", id, ctx.request_id);
                return Err(Failure::DeadlineExceeded.into());
            }
        };
        self.store.write(move |tx| end_payment(tx, &payment, taken)).await?
    }

    /// Gives money of an invoice back.
    pub async fn refund(&self, ctx: Ctx, request: RefundInvoice, wish: Option<Wish>) -> Result<Invoice, PaymentsError> {
        let id = PaymentId::new();
        let back = Back {
            invoice: request.invoice_id,
            amount: request.amount,
            restock: request.restock,
            reason: model::REQUESTED,
        };
        let _running = self.under_way.begin(id);
        match self.store.write(move |tx| begin_refund(tx, id, &back, wish.as_ref())).await? {
            Begun::Before(invoice) => {
                ctx.mark_replayed();
                Ok(invoice)
            }
            Begun::Refused(error) => Err(error),
            Begun::Go(refund) => self.carry_refund(refund).await,
        }
    }

    /// Asks the provider for a refund that is reserved, for the first time or again, and ends it.
    async fn carry_refund(&self, refund: RefundRow) -> Result<Invoice, PaymentsError> {
        let invoice = refund.invoice_id;
        let (past, charge) = self
            .store
            .read(move |conn| {
                let row = store::invoice(conn, invoice)?.ok_or(PaymentsError::InvoiceNotFound)?;
                Ok::<_, PaymentsError>(((row.past, row.currency), store::captured_payment(conn, invoice)?))
            })
            .await?;
        let returned = match (past, charge) {
            // An order of the past was never charged here, so nothing but the books changes.
            ((true, _), _) => Returned::Done,
            ((false, currency), Some(charge)) => {
                let (key, charge) = (refund.id.to_string(), charge.to_string());
                let back = Return { key, charge, amount: refund.amount, currency };
                timeout(PROVIDER_PATIENCE, self.provider.refund(back)).await.unwrap_or(Returned::Unknown)
            }
            ((false, _), None) => Returned::Failed,
        };
        match returned {
            Returned::Unknown => {
                log::warn!("payments: no word from the provider of refund {}; it will be asked again", refund.id);
                Err(Failure::DeadlineExceeded.into())
            }
            // Nobody asked for this one, so nobody would ask again: the shop itself does, until it is done.
            Returned::Failed if refund.reason == model::OUT_OF_STOCK => {
                log::error!("payments: the provider refused refund {}, which is owed; asking again", refund.id);
                Err(PaymentsError::ProviderFailed)
            }
            Returned::Done | Returned::Failed => {
                self.store.write(move |tx| end_refund(tx, &refund, returned == Returned::Done)).await?
            }
        }
    }

    /// Asks the provider what became of a try that nobody works on any more.
    async fn look_up(&self, payment: PaymentRow) -> Result<(), PaymentsError> {
        let known = timeout(PROVIDER_PATIENCE, self.provider.lookup(payment.id.to_string())).await;
        let taken = match known.unwrap_or(Known::Unknown) {
            Known::Captured => Ok(()),
            Known::Nothing => Err((PaymentsError::ProviderFailed, "not_captured")),
            Known::Unknown => return Ok(()),
        };
        // Its caller is gone: the outcome is told by its event.
        let _ = self.store.write(move |tx| end_payment(tx, &payment, taken)).await?;
        Ok(())
    }

    /// One round of the timer: lets invoices run out, and takes up tries that nobody works on.
    pub async fn look_around(self: Arc<Self>) {
        let Ok(_round) = self.round.try_lock() else { return };
        if let Err(error) = self.expire_overdue().await {
            log::warn!("payments: overdue invoices could not be looked at: {error}");
        }
        if let Err(error) = self.take_up().await {
            log::warn!("payments: unfinished payments could not be looked at: {error}");
        }
    }

    async fn expire_overdue(&self) -> Result<(), PaymentsError> {
        let now = self.store.now();
        // Looked at by a reader first: most rounds find nothing, and the writer has better to do.
        while self.store.read(move |conn| Ok::<_, PaymentsError>(!store::overdue(conn, now, 1)?.is_empty())).await? {
            self.store
                .write(|tx| {
                    for mut row in store::overdue(tx.conn, tx.now, EXPIRE_BATCH)? {
                        expire(tx, &mut row)?;
                    }
                    Ok::<_, PaymentsError>(())
                })
                .await?;
        }
        Ok(())
    }

    async fn take_up(self: &Arc<Self>) -> Result<(), PaymentsError> {
        let (payments, refunds) = self
            .store
            .read(|conn| {
                let payments = store::processing_payments(conn, RECONCILE_BATCH)?;
                Ok::<_, PaymentsError>((payments, store::processing_refunds(conn, RECONCILE_BATCH)?))
            })
            .await?;
        for payment in payments {
            let Some(running) = self.under_way.begin(payment.id) else { continue };
            let room = Arc::clone(self);
            actix::spawn(async move {
                let (_running, id) = (running, payment.id);
                if let Err(error) = room.look_up(payment).await {
                    log::warn!("payments: {id} is still open: {error}");
                }
            });
        }
        for refund in refunds {
            let Some(running) = self.under_way.begin(refund.id) else { continue };
            let room = Arc::clone(self);
            actix::spawn(async move {
                let (_running, id) = (running, refund.id);
                if let Err(error) = room.carry_refund(refund).await {
                    log::warn!("payments: refund {id} is still open: {error}");
                }
            });
        }
        Ok(())
    }
}
