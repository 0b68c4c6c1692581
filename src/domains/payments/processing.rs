//! The work of several steps: taking money and giving it back, and what a timer does, finding work that a crash
//! or a silence left behind and letting invoices run out.
//!
//! A try to take money and a try to give it back differ in one thing. A capture that was begun and is not known to
//! have ended is looked up, never asked for again: the token is not kept. A refund is asked for again under the same
//! key, because the shop owes it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::model::{self, PaymentState, RefundState};
use super::provider::{
    Charge, ChargeOutcome, ChargeStatus, PaymentProvider, ProviderEvent, ProviderEventKind, RefundOutcome,
    RefundRequest, WebhookError,
};
use super::store::{self, InvoiceRow, PaymentRow, RefundRow, UnappliedPaymentRow};
use super::{
    HandleProviderWebhook, Invoice, InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceStatus, LATE_PAYMENT,
    OUT_OF_STOCK, PayInvoice, PaymentFailed, PaymentsError, REQUESTED, RefundInvoice, ReturnLine,
};
use crate::messaging::{Caller, CommonError, RequestContext};
use crate::store::{IdempotentRequest, LockSet, Store, Tx};
use crate::tasks::InFlightSet;
use crate::types::{FieldError, InvoiceId, PaymentId, UserId};

/// How long the provider may take before its answer counts as lost.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(30);
/// How many invoices run out in one transaction.
const EXPIRE_BATCH: i64 = 100;
/// How many unfinished tries are looked at in one round.
const RECONCILE_BATCH: i64 = 256;
/// The first pause before the provider is asked again about a try, doubled each time, and the longest.
const RECONCILE_DELAY_MIN: Duration = Duration::from_secs(1);
const RECONCILE_DELAY_MAX: Duration = Duration::from_secs(300);

/// What the handlers of this domain share.
pub struct PaymentsState {
    pub store: Store,
    pub lifetime: Duration,
    provider: Box<dyn PaymentProvider>,
    /// The tries, of both kinds, whose work runs in this process.
    under_way: InFlightSet<PaymentId>,
    /// StockHold while a round of the timer runs: a slow one is not overtaken.
    round: Mutex<()>,
    /// The tries that the provider was asked about in vain.
    put_off: RetrySchedule,
}

/// When to ask again about what the provider could not say: ever more rarely, so that one that is down, or a refund
/// that takes days, is not asked every second. Holds no more than the tries of one round.
#[derive(Default)]
struct RetrySchedule(std::sync::Mutex<HashMap<PaymentId, (u32, Instant)>>);

impl RetrySchedule {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<PaymentId, (u32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to ask about this one.
    fn is_due(&self, id: PaymentId) -> bool {
        self.all().get(&id).is_none_or(|(_, at)| *at <= Instant::now())
    }

    /// Asked in vain once more.
    fn again(&self, id: PaymentId) {
        let mut all = self.all();
        let times = all.get(&id).map_or(0, |(times, _)| *times);
        all.insert(
            id,
            (times + 1, Instant::now() + (RECONCILE_DELAY_MIN * 2_u32.saturating_pow(times)).min(RECONCILE_DELAY_MAX)),
        );
    }

    /// Something is known to have changed.
    fn now(&self, id: PaymentId) {
        self.all().remove(&id);
    }

    /// Forgets all that are not among `these`.
    fn keep(&self, these: &HashSet<PaymentId>) {
        self.all().retain(|id, _| these.contains(id));
    }
}

/// How the first step of a try ended. All three are commits.
pub enum BeginOutcome<T> {
    /// It was answered before under the same key.
    Before(Invoice),
    /// It cannot be, and the transaction says so to others too.
    Refused(PaymentsError),
    /// It is committed as under way.
    Go(T),
}

/// Who must own an invoice for the caller to pay it: nobody in particular when another domain asks.
fn payer(ctx: &RequestContext) -> Result<Option<UserId>, CommonError> {
    match &ctx.caller {
        Caller::Domain(_) => Ok(None),
        Caller::User { identity, .. } => Ok(Some(identity.user_id)),
        Caller::Anyone { .. } => Err(CommonError::Unauthenticated),
    }
}

/// The wish of a request that must have a key unless a domain asks.
pub fn required_wish<R: crate::messaging::Request>(
    ctx: &RequestContext,
    request: &R,
) -> Result<Option<IdempotentRequest>, CommonError> {
    match IdempotentRequest::of(ctx, request)? {
        None if !matches!(ctx.caller, Caller::Domain(_)) => Err(CommonError::IdempotencyKeyRequired),
        wish => Ok(wish),
    }
}

/// What a step with one invoice touches: it, its payments and refunds, and what is wanted under the key.
pub fn of_invoice(invoice: InvoiceId, wish: Option<&IdempotentRequest>) -> LockSet {
    let touch = LockSet::key("invoice", invoice);
    wish.map_or(touch.clone(), |wish| touch.and_wish(wish))
}

/// Refuses when work runs under the wish's key; gives back what was answered under it before.
fn answered(tx: &mut Tx<'_>, wish: Option<&IdempotentRequest>) -> Result<Option<Invoice>, PaymentsError> {
    let Some(wish) = wish else { return Ok(None) };
    if let Some(before) = tx.find_response::<Invoice, PaymentsError>(wish)? {
        return Ok(Some(before));
    }
    match store::under_way(tx.conn, wish)? {
        None => Ok(None),
        Some(running) if running == wish.fingerprint => Err(CommonError::RequestInProgress.into()),
        Some(_) => Err(CommonError::IdempotencyKeyReused.into()),
    }
}

/// Lets an open invoice run out, unless it is being paid.
fn expire(tx: &mut Tx<'_>, row: &mut InvoiceRow) -> Result<(), PaymentsError> {
    let Some(expired) = row.standing()?.expire() else { return Ok(()) };
    row.stand(expired, None);
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
    wish: Option<&IdempotentRequest>,
) -> Result<BeginOutcome<PaymentRow>, PaymentsError> {
    if let Some(before) = answered(tx, wish)? {
        return Ok(BeginOutcome::Before(before));
    }
    let mut row = store::invoice(tx.conn, invoice)?
        .filter(|row| payer.is_none_or(|payer| payer == row.user_id))
        .ok_or(PaymentsError::InvoiceNotFound)?;
    let paying = row.standing()?.begin_payment()?;
    if row.expires_at <= tx.now {
        expire(tx, &mut row)?;
        return Ok(BeginOutcome::Refused(PaymentsError::InvoiceExpired));
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
    row.stand(paying, Some(id));
    store::save(tx.conn, &row)?;
    Ok(BeginOutcome::Go(payment))
}

/// Why money was not taken: what the caller hears, and the stable word of the event and the row.
type ChargeFailure = (PaymentsError, &'static str);

/// Ends a try to take money. What the caller hears is inside, because a refusal is a commit too.
fn end_payment(
    tx: &mut Tx<'_>,
    id: PaymentId,
    taken: Result<(), ChargeFailure>,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    match taken {
        Ok(()) => captured(tx, id),
        Err(not_taken) => fail(tx, id, not_taken),
    }
}

/// A try and its invoice, as they are in this transaction.
fn current(tx: &mut Tx<'_>, id: PaymentId) -> Result<(PaymentRow, InvoiceRow), PaymentsError> {
    let gone = |what: &str| {
        log::error!("payments: the {what} of try {id} is gone");
        PaymentsError::from(CommonError::Internal)
    };
    let payment = store::payment(tx.conn, id)?.ok_or_else(|| gone("row"))?;
    let row = store::invoice(tx.conn, payment.invoice_id)?.ok_or_else(|| gone("invoice"))?;
    Ok((payment, row))
}

/// The provider took nothing.
fn fail(
    tx: &mut Tx<'_>,
    id: PaymentId,
    (error, word): ChargeFailure,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let (_, mut row) = current(tx, id)?;
    let states = (PaymentState::Processing, PaymentState::Failed);
    if !store::move_payment(tx.conn, id, states, Some(word), tx.now)? {
        // Somebody ended it before; what they found holds.
        return Ok(match row.status()? {
            InvoiceStatus::Paid | InvoiceStatus::Refunded => Ok(row.to_invoice()?),
            _ => Err(PaymentsError::ProviderFailed),
        });
    }
    row.stand(row.standing()?.fail_payment(), None);
    store::save(tx.conn, &row)?;
    tx.emit(&PaymentFailed {
        invoice_id: row.id,
        number: model::number(row.number),
        user_id: row.user_id,
        reason: word.to_owned(),
    })?;
    Ok(Err(error))
}

/// The provider has the money of a try for us, whoever says so and however often: the first time the invoice is paid.
/// When the try had been given up and the invoice cannot take the money any more, it is noted to go back.
fn captured(tx: &mut Tx<'_>, id: PaymentId) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let (payment, mut row) = current(tx, id)?;
    let before = payment.state()?;
    let paid = match before {
        PaymentState::Captured => return Ok(Ok(row.to_invoice()?)),
        PaymentState::Processing => row.standing()?.capture(),
        PaymentState::Failed => row.standing()?.capture_late(),
    };
    let Some(paid) = paid else {
        let stray = UnappliedPaymentRow {
            payment_id: id,
            invoice_id: row.id,
            refund_key: PaymentId::new(),
            amount: payment.amount,
            currency: payment.currency,
            created_at: tx.now,
            ended_at: None,
        };
        if store::insert_stray(tx.conn, &stray)? {
            log::error!("payments: {id} was paid after it was given up, and its invoice cannot take it: it goes back");
        }
        return Ok(Err(PaymentsError::ProviderFailed));
    };
    store::move_payment(tx.conn, id, (before, PaymentState::Captured), None, tx.now)?;
    row.stand(paid, None);
    row.paid_at = Some(tx.now);
    store::save(tx.conn, &row)?;
    let invoice = row.to_invoice()?;
    tx.emit(&InvoicePaid { invoice: invoice.clone(), hold: row.hold, checkout: row.checkout, imported: false })?;
    if let Some(wish) = store::from_columns((payment.scope, payment.key, payment.fingerprint)) {
        tx.keep::<_, PaymentsError>(&wish, &invoice)?;
    }
    Ok(Ok(invoice))
}

/// Money that no invoice could take went back: its owner is told.
fn end_stray(tx: &mut Tx<'_>, stray: &UnappliedPaymentRow) -> Result<(), PaymentsError> {
    if !store::end_stray(tx.conn, stray.payment_id, tx.now)? {
        return Ok(());
    }
    let Some(row) = store::invoice(tx.conn, stray.invoice_id)? else { return Ok(()) };
    tx.emit(&InvoiceRefunded {
        invoice: row.to_invoice()?,
        amount: stray.amount,
        restock: false,
        lines: Vec::new(),
        hold: None,
        reason: LATE_PAYMENT.to_owned(),
        imported: false,
    })?;
    Ok(())
}

/// The effect of a piece of the provider's news, once. Says whether there is money to send back.
fn hear(tx: &mut Tx<'_>, news: &ProviderEvent) -> Result<bool, PaymentsError> {
    if !store::first_news(tx.conn, &news.id, tx.now)? {
        return Ok(false);
    }
    match &news.about {
        ProviderEventKind::Captured { charge, amount, currency } => {
            let Ok(id) = charge.parse::<PaymentId>() else { return Ok(false) };
            // Another shop may share the account.
            let Some(payment) = store::payment(tx.conn, id)? else { return Ok(false) };
            if (payment.amount, payment.currency) != (*amount, *currency) {
                log::error!(
                    "payments: {id} was to bring {}, and the provider says {amount} {currency}",
                    payment.amount
                );
                return Ok(false);
            }
            Ok(captured(tx, id)?.is_err())
        }
        ProviderEventKind::RefundOutcome { back } => {
            let Ok(id) = back.parse::<PaymentId>() else { return Ok(false) };
            if let Some(refund) = store::refund(tx.conn, id)? {
                let _ = end_refund(tx, &refund, Ok(()))?;
            } else if let Some(stray) = store::stray_by_key(tx.conn, id)? {
                end_stray(tx, &stray)?;
            }
            Ok(false)
        }
        ProviderEventKind::Changed { .. } | ProviderEventKind::Irrelevant => Ok(false),
    }
}

/// What is to go back.
pub struct RefundParams {
    pub invoice: InvoiceId,
    pub amount: Option<i64>,
    pub restock: bool,
    pub lines: Option<Vec<ReturnLine>>,
    pub reason: &'static str,
}

/// Reserves what is to go back, so that refunds that run at once never exceed what was taken.
pub fn begin_refund(
    tx: &mut Tx<'_>,
    id: PaymentId,
    back: &RefundParams,
    wish: Option<&IdempotentRequest>,
) -> Result<BeginOutcome<RefundRow>, PaymentsError> {
    if let Some(before) = answered(tx, wish)? {
        return Ok(BeginOutcome::Before(before));
    }
    let mut row = store::invoice(tx.conn, back.invoice)?.ok_or(PaymentsError::InvoiceNotFound)?;
    let standing = row.standing()?;
    // Whether it can be refunded at all is said before what is wrong with the wish.
    standing.begin_refund(0)?;
    let left = standing.left();
    let (price, goods) = match &back.lines {
        None if back.restock => (left, model::still_out(&row.lines()?, &store::returned_lines(tx.conn, &row)?)),
        None => (left, Vec::new()),
        Some(wanted) => {
            let returned = store::returned_lines(tx.conn, &row)?;
            (model::price_of_return(&row.lines()?, &returned, wanted)?, wanted.clone())
        }
    };
    let amount = back.amount.unwrap_or(price);
    // An invoice over nothing has nothing to reserve, so the refund itself is looked for.
    let nothing_left = if row.total == 0 { store::has_refund_under_way(tx.conn, row.id)? } else { left == 0 };
    if nothing_left {
        return Err(PaymentsError::RefundTooLarge { left });
    }
    let reserved = standing.begin_refund(amount)?;
    if back.restock && back.lines.is_none() && amount < left {
        let message = "goes only with all that is left; name the goods in `lines`, or leave the amount out";
        return Err(FieldError::new("restock", "invalid", message).into());
    }
    let (scope, key, fingerprint) = store::to_columns(wish);
    let refund = RefundRow {
        id,
        invoice_id: row.id,
        state: RefundState::Processing.as_str().to_owned(),
        amount,
        restock: back.restock,
        lines: if goods.is_empty() { None } else { Some(store::lines_to_text(&goods)?) },
        reason: back.reason.to_owned(),
        scope,
        key,
        fingerprint,
        created_at: tx.now,
        ended_at: None,
    };
    store::insert_refund(tx.conn, &refund)?;
    row.stand(reserved, row.processing);
    store::save(tx.conn, &row)?;
    Ok(BeginOutcome::Go(refund))
}

/// Ends a try to give money back.
fn end_refund(
    tx: &mut Tx<'_>,
    refund: &RefundRow,
    done: Result<(), PaymentsError>,
) -> Result<Result<Invoice, PaymentsError>, PaymentsError> {
    let mut row = store::invoice(tx.conn, refund.invoice_id)?.ok_or(PaymentsError::InvoiceNotFound)?;
    let state = if done.is_ok() { RefundState::Done } else { RefundState::Failed };
    if !store::end_refund(tx.conn, refund.id, state, tx.now)? {
        return Ok(Ok(row.to_invoice()?));
    }
    let standing = row.standing()?;
    if let Err(error) = done {
        row.stand(standing.fail_refund(refund.amount), row.processing);
        store::save(tx.conn, &row)?;
        return Ok(Err(error));
    }
    row.stand(standing.end_refund(refund.amount), row.processing);
    store::save(tx.conn, &row)?;
    let invoice = row.to_invoice()?;
    tx.emit(&InvoiceRefunded {
        invoice: invoice.clone(),
        amount: refund.amount,
        restock: refund.restock,
        lines: refund.lines()?,
        hold: row.hold,
        reason: refund.reason.clone(),
        imported: row.imported,
    })?;
    let wish = (refund.scope.clone(), refund.key.clone(), refund.fingerprint.clone());
    if let Some(wish) = store::from_columns(wish) {
        tx.keep::<_, PaymentsError>(&wish, &invoice)?;
    }
    Ok(Ok(invoice))
}

impl PaymentsState {
    pub fn new(store: Store, provider: Box<dyn PaymentProvider>, lifetime: Duration) -> Self {
        let (under_way, round, put_off) = (InFlightSet::default(), Mutex::default(), RetrySchedule::default());
        Self { store, lifetime, provider, under_way, round, put_off }
    }

    /// Takes the money for an invoice.
    pub async fn pay(
        &self,
        ctx: RequestContext,
        request: PayInvoice,
        wish: Option<IdempotentRequest>,
    ) -> Result<Invoice, PaymentsError> {
        let (id, invoice, payer) = (PaymentId::new(), request.invoice_id, payer(&ctx)?);
        // Noted before the row can be seen: the timer must not take a try for an orphan that is about to begin.
        let _running = self.under_way.try_insert(id);
        let touch = of_invoice(invoice, wish.as_ref());
        let payment = match self
            .store
            .write_locked(touch.clone(), move |tx| begin_payment(tx, id, invoice, payer, wish.as_ref()))
            .await?
        {
            BeginOutcome::Before(invoice) => {
                ctx.mark_replayed();
                return Ok(invoice);
            }
            BeginOutcome::Refused(error) => return Err(error),
            BeginOutcome::Go(payment) => payment,
        };
        let charge = Charge {
            key: payment.id.to_string(),
            invoice: payment.invoice_id,
            amount: payment.amount,
            currency: payment.currency,
            token: request.token,
        };
        let taken = match timeout(PROVIDER_TIMEOUT, self.provider.capture(charge)).await {
            Ok(ChargeOutcome::Captured) => Ok(()),
            Ok(ChargeOutcome::Declined) => Err((PaymentsError::CardDeclined, "card_declined")),
            Ok(ChargeOutcome::NeedsBuyer) => Err((PaymentsError::AuthenticationRequired, "authentication_required")),
            Ok(ChargeOutcome::AmountRefused) => Err((PaymentsError::AmountRefused, "amount_refused")),
            Ok(ChargeOutcome::UnknownToken) => Err((PaymentsError::UnknownToken, "unknown_token")),
            Ok(ChargeOutcome::Failed) => Err((PaymentsError::ProviderFailed, "provider_failed")),
            Ok(ChargeOutcome::Unknown) | Err(_) => {
                log::warn!("payments: no word from the provider of {}; it will be asked [{}]", id, ctx.request_id);
                return Err(CommonError::DeadlineExceeded.into());
            }
        };
        self.store.write_locked(touch, move |tx| end_payment(tx, id, taken)).await?
    }

    /// Gives money of an invoice back.
    pub async fn refund(
        &self,
        ctx: RequestContext,
        request: RefundInvoice,
        wish: Option<IdempotentRequest>,
    ) -> Result<Invoice, PaymentsError> {
        let id = PaymentId::new();
        let back = RefundParams {
            invoice: request.invoice_id,
            amount: request.amount,
            restock: request.restock,
            lines: request.lines,
            reason: REQUESTED,
        };
        let _running = self.under_way.try_insert(id);
        let touch = of_invoice(back.invoice, wish.as_ref());
        match self.store.write_locked(touch, move |tx| begin_refund(tx, id, &back, wish.as_ref())).await? {
            BeginOutcome::Before(invoice) => {
                ctx.mark_replayed();
                Ok(invoice)
            }
            BeginOutcome::Refused(error) => Err(error),
            BeginOutcome::Go(refund) => self.carry_refund(refund).await,
        }
    }

    /// Asks the provider for a refund that is reserved, for the first time or again, and ends it.
    async fn carry_refund(&self, refund: RefundRow) -> Result<Invoice, PaymentsError> {
        let invoice = refund.invoice_id;
        let (imported, charge) = self
            .store
            .read(move |conn| {
                let row = store::invoice(conn, invoice)?.ok_or(PaymentsError::InvoiceNotFound)?;
                Ok::<_, PaymentsError>(((row.imported, row.currency), store::captured_payment(conn, invoice)?))
            })
            .await?;
        let returned = match (imported, charge) {
            // An imported order was never charged here, so only the invoice changes.
            ((true, _), _) => RefundOutcome::Done,
            ((false, currency), Some(charge)) => {
                let (key, charge) = (refund.id.to_string(), charge.to_string());
                let back = RefundRequest { key, charge, amount: refund.amount, currency };
                timeout(PROVIDER_TIMEOUT, self.provider.refund(back)).await.unwrap_or(RefundOutcome::Unknown)
            }
            ((false, _), None) => RefundOutcome::Failed,
        };
        match returned {
            RefundOutcome::Unknown => {
                log::warn!("payments: no word from the provider of refund {}; it will be asked again", refund.id);
                Err(CommonError::DeadlineExceeded.into())
            }
            // Nobody asked for this one, so nobody would ask again: the shop itself does, until it is done.
            RefundOutcome::Failed | RefundOutcome::AmountRefused if refund.reason == OUT_OF_STOCK => {
                log::error!("payments: the provider refused refund {}, which is owed; asking again", refund.id);
                Err(PaymentsError::ProviderFailed)
            }
            RefundOutcome::Done => self.end_refund(refund, Ok(())).await,
            RefundOutcome::Failed => self.end_refund(refund, Err(PaymentsError::ProviderFailed)).await,
            RefundOutcome::AmountRefused => self.end_refund(refund, Err(PaymentsError::AmountRefused)).await,
        }
    }

    async fn end_refund(&self, refund: RefundRow, done: Result<(), PaymentsError>) -> Result<Invoice, PaymentsError> {
        self.store.write(move |tx| end_refund(tx, &refund, done)).await?
    }

    /// Asks the provider what became of a try that nobody works on any more; says whether it is known now.
    async fn look_up(&self, payment: PaymentRow) -> Result<bool, PaymentsError> {
        let known = timeout(PROVIDER_TIMEOUT, self.provider.lookup(payment.id.to_string())).await;
        let taken = match known.unwrap_or(ChargeStatus::Unknown) {
            ChargeStatus::Captured => Ok(()),
            ChargeStatus::NotCharged => Err((PaymentsError::ProviderFailed, "not_captured")),
            ChargeStatus::Unknown => return Ok(false),
        };
        // Its caller is gone: the outcome is told by its event.
        let _ = self.store.write(move |tx| end_payment(tx, payment.id, taken)).await?;
        Ok(true)
    }

    /// Sends money back that no invoice could take; says whether it went.
    async fn carry_stray(&self, stray: UnappliedPaymentRow) -> Result<bool, PaymentsError> {
        let back = RefundRequest {
            key: stray.refund_key.to_string(),
            charge: stray.payment_id.to_string(),
            amount: stray.amount,
            currency: stray.currency,
        };
        let returned = timeout(PROVIDER_TIMEOUT, self.provider.refund(back)).await.unwrap_or(RefundOutcome::Unknown);
        if returned != RefundOutcome::Done {
            log::error!("payments: {} is owed back and the provider says {returned:?}; asking again", stray.payment_id);
            return Ok(false);
        }
        self.store.write(move |tx| end_stray(tx, &stray)).await?;
        Ok(true)
    }

    /// Takes in what the provider told by itself.
    pub async fn hear(
        self: Arc<Self>,
        ctx: RequestContext,
        request: HandleProviderWebhook,
    ) -> Result<(), PaymentsError> {
        let news = self.provider.read_news(&request.body, &request.signature, self.store.now());
        let news = news.map_err(|not| {
            log::warn!("payments: news of the provider is refused: {not:?} [{}]", ctx.request_id);
            match not {
                WebhookError::WebhooksUnsupported => PaymentsError::NoWebhooks,
                WebhookError::NotSigned => PaymentsError::BadSignature,
                WebhookError::Unreadable => PaymentsError::UnreadableWebhook,
            }
        })?;
        let look = match &news.about {
            ProviderEventKind::Irrelevant => return Ok(()),
            ProviderEventKind::Changed { key } => {
                if let Ok(id) = key.parse() {
                    self.put_off.now(id);
                }
                true
            }
            ProviderEventKind::Captured { .. } | ProviderEventKind::RefundOutcome { .. } => {
                self.store.write(move |tx| hear(tx, &news)).await?
            }
        };
        if look {
            actix::spawn(self.look_around());
        }
        Ok(())
    }

    /// One round of the timer: lets invoices run out, and takes up tries that nobody works on.
    pub async fn look_around(self: Arc<Self>) {
        let Ok(_round) = self.round.try_lock() else { return };
        // Asked for outside the timer too: where another process leads, that one finds the work in its next round.
        if !self.store.is_leader() {
            return;
        }
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
        let (payments, refunds, strays) = self
            .store
            .read(|conn| {
                let payments = store::processing_payments(conn, RECONCILE_BATCH)?;
                let refunds = store::processing_refunds(conn, RECONCILE_BATCH)?;
                Ok::<_, PaymentsError>((payments, refunds, store::strays(conn, RECONCILE_BATCH)?))
            })
            .await?;
        let mut all: HashSet<PaymentId> = payments.iter().map(|payment| payment.id).collect();
        all.extend(refunds.iter().map(|refund| refund.id));
        all.extend(strays.iter().map(|stray| stray.refund_key));
        self.put_off.keep(&all);
        for payment in payments.into_iter().filter(|payment| self.store.is_orphaned(payment.created_at)) {
            self.work_on(payment.id, move |state| async move { state.look_up(payment).await });
        }
        for refund in refunds.into_iter().filter(|refund| self.store.is_orphaned(refund.created_at)) {
            let id = refund.id;
            self.work_on(id, move |state| async move { state.carry_refund(refund).await.map(|_| true) });
        }
        for stray in strays.into_iter().filter(|stray| self.store.is_orphaned(stray.created_at)) {
            self.work_on(stray.refund_key, move |state| async move { state.carry_stray(stray).await });
        }
        Ok(())
    }

    /// Works on a try in the background, unless somebody does already or it is not its time. `work` says whether it
    /// has ended.
    fn work_on<F>(self: &Arc<Self>, id: PaymentId, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = Result<bool, PaymentsError>> + 'static,
    {
        if !self.put_off.is_due(id) {
            return;
        }
        let Some(running) = self.under_way.try_insert(id) else { return };
        let (state, work) = (Arc::clone(self), work(Arc::clone(self)));
        actix::spawn(async move {
            let _running = running;
            match work.await {
                Ok(true) => {}
                Ok(false) => state.put_off.again(id),
                Err(error) => {
                    log::warn!("payments: {id} is still open: {error}");
                    state.put_off.again(id);
                }
            }
        });
    }
}
