//! Reconciliation: a periodic round that expires invoices and resumes attempts and refunds which a crash or a silent
//! provider left unfinished, and webhooks, which report their outcome earlier.
//!
//! Does not contain: the steps of an attempt (`attempts`) or a refund (`refunds`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::attempts::{apply_capture, expire};
use super::provider::{ProviderEvent, ProviderEventKind, WebhookError};
use super::refunds::{RefundProgress, finish_refund, finish_unapplied_payment, record_dispute, record_foreign_refund};
use super::state::{PaymentsState, invoice_lock};
use super::{HandleProviderWebhook, PaymentsError, store};
use crate::messaging::{Backoff, RequestContext};
use crate::store::{LockSet, Tx};
use crate::types::PaymentId;

/// Maximum number of invoices that expire in one transaction.
const EXPIRE_BATCH: i64 = 100;
/// Maximum number of unfinished attempts, refunds and unapplied payments per round, of each.
const RECONCILE_BATCH: i64 = 256;
/// Delays before the provider is queried again.
const RECONCILE_BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));

/// Times of the next query per unfinished attempt or refund, with exponential backoff: a provider that is down, or a
/// refund that is pending for days, is not queried every second. Holds at most the entries of one round.
#[derive(Default)]
pub struct RetrySchedule(Mutex<HashMap<PaymentId, (Backoff, Instant)>>);

impl RetrySchedule {
    /// Returns `true` if the delay of this entry is over, or it has none.
    fn is_due(&self, id: PaymentId) -> bool {
        self.0.lock().get(&id).is_none_or(|(_, at)| *at <= Instant::now())
    }

    /// Postpones the next query after one without an outcome.
    fn postpone(&self, id: PaymentId) {
        let mut entries = self.0.lock();
        let (backoff, at) = entries.entry(id).or_insert_with(|| (RECONCILE_BACKOFF, Instant::now()));
        *at = Instant::now() + backoff.next_delay();
    }

    /// Ends the delay of an entry that is known to have changed.
    fn reset(&self, id: PaymentId) {
        self.0.lock().remove(&id);
    }

    /// Removes all entries but those of `ids`.
    fn retain(&self, ids: &HashSet<PaymentId>) {
        self.0.lock().retain(|id, _| ids.contains(id));
    }
}

/// Applies a webhook event once. Returns `true` if it left an unapplied payment to refund.
fn apply_provider_event(tx: &mut Tx<'_>, event: &ProviderEvent) -> Result<bool, PaymentsError> {
    if !store::record_provider_event(tx.conn, &event.id, tx.now)? {
        return Ok(false);
    }
    match &event.kind {
        ProviderEventKind::Captured { charge, amount, currency } => {
            let Ok(id) = charge.parse::<PaymentId>() else { return Ok(false) };
            // Another shop may share the account.
            let Some(payment) = store::payment(tx.conn, id)? else { return Ok(false) };
            if (payment.amount, payment.currency) != (*amount, *currency) {
                log::error!(
                    "payment {id}: webhook reports {amount} {currency} instead of {} {}; ignored",
                    payment.amount,
                    payment.currency
                );
                return Ok(false);
            }
            Ok(apply_capture(tx, id)?.is_err())
        }
        ProviderEventKind::Refunded { refund } => {
            let Ok(id) = refund.parse::<PaymentId>() else { return Ok(false) };
            if let Some(refund) = store::refund(tx.conn, id)? {
                let _ = finish_refund(tx, &refund, Ok(()))?;
            } else if let Some(unapplied) = store::unapplied_payment_by_key(tx.conn, id)? {
                finish_unapplied_payment(tx, &unapplied)?;
            }
            Ok(false)
        }
        ProviderEventKind::RefundsChanged { .. }
        | ProviderEventKind::Disputed(_)
        | ProviderEventKind::Changed { .. }
        | ProviderEventKind::Irrelevant => Ok(false),
    }
}

impl PaymentsState {
    /// Handles a webhook of the provider.
    pub async fn handle_webhook(
        self: Arc<Self>,
        ctx: RequestContext,
        request: HandleProviderWebhook,
    ) -> Result<(), PaymentsError> {
        let event = self.provider.verify_webhook(&request.body, &request.signature, self.store.now());
        let event = event.map_err(|error| {
            log::warn!("payments: webhook rejected: {error:?} [{}]", ctx.request_id);
            match error {
                WebhookError::Unsupported => PaymentsError::NoWebhooks,
                WebhookError::InvalidSignature => PaymentsError::BadSignature,
                WebhookError::Malformed => PaymentsError::UnreadableWebhook,
            }
        })?;
        let has_work = match &event.kind {
            ProviderEventKind::Irrelevant => return Ok(()),
            ProviderEventKind::RefundsChanged { provider_charge } => {
                self.record_foreign_refunds(provider_charge.clone()).await?;
                false
            }
            ProviderEventKind::Disputed(dispute) => {
                let dispute = dispute.clone();
                if let Some((charge, locks)) = self.find_charge(dispute.provider_charge.clone()).await? {
                    self.store.write_locked(locks, move |tx| record_dispute(tx, charge, &dispute)).await?;
                }
                false
            }
            ProviderEventKind::Changed { key } => {
                if let Ok(id) = key.parse() {
                    self.retries.reset(id);
                }
                true
            }
            ProviderEventKind::Captured { .. } | ProviderEventKind::Refunded { .. } => {
                self.store.write(move |tx| apply_provider_event(tx, &event)).await?
            }
        };
        if has_work {
            actix::spawn(self.reconcile());
        }
        Ok(())
    }

    /// Returns the attempt that made a charge, and the locks of its invoice; `None` if the shop did not make it.
    async fn find_charge(&self, provider_charge: String) -> Result<Option<(PaymentId, LockSet)>, PaymentsError> {
        let key = self.provider.find_charge(provider_charge).await.map_err(|_| PaymentsError::ProviderFailed)?;
        let Some(id) = key.and_then(|key| key.parse::<PaymentId>().ok()) else { return Ok(None) };
        let payment = self.store.read(move |conn| Ok::<_, PaymentsError>(store::payment(conn, id)?)).await?;
        Ok(payment.map(|payment| (id, invoice_lock(payment.invoice_id, None))))
    }

    /// Records the refunds of a charge that were made at the provider. An error makes the provider repeat the webhook.
    async fn record_foreign_refunds(&self, provider_charge: String) -> Result<(), PaymentsError> {
        let Some((charge, locks)) = self.find_charge(provider_charge.clone()).await? else { return Ok(()) };
        let refunds = self.provider.list_foreign_refunds(provider_charge).await;
        let refunds = refunds.map_err(|_| PaymentsError::ProviderFailed)?;
        let record =
            move |tx: &mut Tx<'_>| refunds.iter().try_for_each(|refund| record_foreign_refund(tx, charge, refund));
        self.store.write_locked(locks, record).await
    }

    /// Runs one round: expires overdue invoices and resumes unfinished attempts and refunds.
    pub async fn reconcile(self: Arc<Self>) {
        let Ok(_round) = self.round.try_lock() else { return };
        // Of several processes one expires; each resumes what it began itself.
        if self.store.is_leader()
            && let Err(error) = self.expire_overdue().await
        {
            log::warn!("payments: expiring overdue invoices failed: {error}");
        }
        if let Err(error) = self.resume_unfinished().await {
            log::warn!("payments: resuming unfinished payments failed: {error}");
        }
    }

    async fn expire_overdue(&self) -> Result<(), PaymentsError> {
        let now = self.store.now();
        // A reader looks first, because most rounds find nothing and would only occupy the writer.
        while self
            .store
            .read(move |conn| Ok::<_, PaymentsError>(!store::overdue_invoices(conn, now, 1)?.is_empty()))
            .await?
        {
            self.store
                .write(|tx| {
                    for mut row in store::overdue_invoices(tx.conn, tx.now, EXPIRE_BATCH)? {
                        expire(tx, &mut row)?;
                    }
                    Ok::<_, PaymentsError>(())
                })
                .await?;
        }
        Ok(())
    }

    async fn resume_unfinished(self: &Arc<Self>) -> Result<(), PaymentsError> {
        let (payments, refunds, unapplied) = self
            .store
            .read(|conn| {
                let payments = store::unfinished_payments(conn, RECONCILE_BATCH)?;
                let refunds = store::unfinished_refunds(conn, RECONCILE_BATCH)?;
                Ok::<_, PaymentsError>((payments, refunds, store::unapplied_payments(conn, RECONCILE_BATCH)?))
            })
            .await?;
        let mut ids: HashSet<PaymentId> = payments.iter().map(|payment| payment.id).collect();
        ids.extend(refunds.iter().map(|refund| refund.id));
        ids.extend(unapplied.iter().map(|unapplied| unapplied.refund_key));
        self.retries.retain(&ids);
        let processes = payments.iter().map(|payment| payment.process);
        let processes = processes.chain(refunds.iter().map(|refund| refund.process));
        let processes = processes.chain(unapplied.iter().map(|unapplied| unapplied.process));
        let takeover = self.store.takeover(processes).await;
        for payment in payments.into_iter().filter(|row| takeover.allows(row.created_at, row.process)) {
            self.spawn_work(payment.id, move |state| async move { state.reconcile_attempt(payment).await });
        }
        for refund in refunds.into_iter().filter(|row| takeover.allows(row.created_at, row.process)) {
            let id = refund.id;
            self.spawn_work(id, move |state| async move {
                Ok(matches!(state.execute_refund(refund).await?, RefundProgress::Done(_)))
            });
        }
        for unapplied in unapplied.into_iter().filter(|row| takeover.allows(row.created_at, row.process)) {
            let id = unapplied.refund_key;
            self.spawn_work(id, move |state| async move { state.refund_unapplied_payment(unapplied).await });
        }
        Ok(())
    }

    /// Spawns `work` on an attempt or a refund, unless it is in flight or its delay is not over. `work` returns `true`
    /// if the attempt or refund is finished.
    fn spawn_work<F>(self: &Arc<Self>, id: PaymentId, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = Result<bool, PaymentsError>> + 'static,
    {
        if !self.retries.is_due(id) {
            return;
        }
        let Some(running) = self.in_flight.try_insert(id) else { return };
        let (state, work) = (Arc::clone(self), work(Arc::clone(self)));
        actix::spawn(async move {
            let _running = running;
            match work.await {
                Ok(true) => {}
                Ok(false) => state.retries.postpone(id),
                Err(error) => {
                    log::warn!("payment {id}: still unfinished: {error}");
                    state.retries.postpone(id);
                }
            }
        });
    }
}
