//! The checkout saga: lock the cart, hold its stock, create the invoice, respond.
//!
//! The first transaction generates all ids; each later step is idempotent by them, so an unfinished checkout is resumed
//! after a crash or an outage of another domain. A step with a definitive error ends the checkout: the cart is unlocked
//! and the stock released. A step with an unknown outcome is repeated later. Once an invoice may exist, only payments
//! decides whether there is one.
//! Does not contain: the rules of a cart (`model`), SQL.

use std::sync::Arc;
use std::time::Duration;

use super::actor::cart_lock;
use super::model::{self, CheckoutState, FrozenLine};
use super::store::{self, CheckoutRow};
use super::unpaid_orders::{NETWORK_WINDOW, UnpaidOrderLimits};
use super::{CartError, Checkout};
use crate::contract::catalog::{CatalogError, HoldStock, ReleaseHold};
use crate::contract::payments::{CreateInvoice, Invoice, PaymentsError};
use crate::domains::catalog::CatalogActor;
use crate::domains::payments::PaymentsActor;
use crate::messaging::{Client, CommonError, IdempotencyKey, RequestContext};
use crate::settings::LimitsSettings;
use crate::store::{Fingerprint, IdempotentRequest, RESPONSE_TTL, Store, Tx};
use crate::tasks::InFlightSet;
use crate::types::{CheckoutId, Currency, EmailAddress, HoldId, OrderDetails};

/// Time for which the stock hold outlives the invoice, so that a payment in the last second still gets its stock.
const HOLD_GRACE: Duration = Duration::from_secs(5 * 60);
/// Time limit of a call to another domain. Independent of the caller's deadline, because the saga continues without it.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of unfinished checkouts that are resumed per round.
const RESUME_BATCH: i64 = 64;

/// State shared by the handlers of this domain.
pub struct CartState {
    pub store: Store,
    pub catalog: Client<CatalogActor>,
    pub payments: Client<PaymentsActor>,
    /// Currency of an empty cart.
    pub currency: Currency,
    /// Time in which an invoice can be paid.
    pub lifetime: Duration,
    /// Limits on unpaid orders.
    pub limits: LimitsSettings,
    /// Ids of checkouts in progress in this process; resuming skips them.
    pub in_flight: InFlightSet<CheckoutId>,
}

/// Maps an error of the catalog to one of the cart.
pub fn map_catalog_error(error: CatalogError) -> CartError {
    match error {
        CatalogError::ProductNotFound => CartError::ProductNotFound,
        CatalogError::OutOfStock { product_id, left } => CartError::OutOfStock { product_id, left },
        CatalogError::HoldGone => CartError::CheckoutExpired,
        CatalogError::Common(error) => CartError::Common(error),
        other => {
            log::error!("cart: unexpected catalog error: {other}");
            CartError::Common(CommonError::Internal)
        }
    }
}

/// Maps an error of payments to one of the cart.
pub fn map_payments_error(error: PaymentsError) -> CartError {
    match error {
        PaymentsError::Common(error) => CartError::Common(error),
        other => {
            log::error!("cart: unexpected payments error: {other}");
            CartError::Common(CommonError::Internal)
        }
    }
}

/// Returns `true` if an error means that the step had and will have no effect, so that the checkout can end. Errors of
/// load, time, network and storage do not.
fn is_definitive(error: &CartError) -> bool {
    match error {
        CartError::Common(error) => matches!(
            error,
            CommonError::Unauthenticated
                | CommonError::Forbidden
                | CommonError::InternalOnly
                | CommonError::ValidationFailed { .. }
        ),
        _ => true,
    }
}

/// Result of the first step of a checkout.
enum CheckoutStart {
    /// The same request was answered before.
    Replayed(Box<Invoice>),
    /// The checkout is recorded, now or by an earlier request whose response was not saved.
    Started(Box<CheckoutRow>),
}

/// Records a checkout and locks the cart.
fn begin(
    tx: &mut Tx<'_>,
    id: CheckoutId,
    request: &Checkout,
    (email, details): (Option<EmailAddress>, &OrderDetails),
    idempotent: &IdempotentRequest,
    lifetime: Duration,
    limits: Option<UnpaidOrderLimits>,
) -> Result<CheckoutStart, CartError> {
    if let Some(response) = tx.find_response::<Invoice, CartError>(idempotent)? {
        return Ok(CheckoutStart::Replayed(Box::new(response)));
    }
    if let Some(active) = store::active_checkout(tx.conn, request.user_id)? {
        let same_key = active.scope == idempotent.scope && active.key == idempotent.key.as_str();
        return Err(match (same_key, active.state) {
            (true, _) if active.idempotent_request().fingerprint != idempotent.fingerprint => {
                CommonError::IdempotencyKeyReused.into()
            }
            (true, CheckoutState::Started | CheckoutState::Held) => CommonError::RequestInProgress.into(),
            _ => CartError::CheckoutInProgress { invoice_id: active.invoice_id },
        });
    }
    if let Some(ended) = store::find_unanswered(tx.conn, idempotent, tx.now.saturating_sub(RESPONSE_TTL))? {
        if ended.idempotent_request().fingerprint != idempotent.fingerprint {
            return Err(CommonError::IdempotencyKeyReused.into());
        }
        // The checkout ended before its response was saved. A repeated request gets the same invoice.
        return Ok(CheckoutStart::Started(Box::new(ended)));
    }
    let lines: Vec<FrozenLine> = store::items(tx.conn, request.user_id)?
        .into_iter()
        .map(|row| FrozenLine { product_id: row.product_id, quantity: row.quantity })
        .collect();
    if lines.is_empty() {
        return Err(CartError::CartEmpty);
    }
    if let Some(limits) = limits {
        limits.check(tx, request.user_id)?;
    }
    let row = CheckoutRow {
        id,
        user_id: request.user_id,
        freezes: Some(request.user_id),
        state: CheckoutState::Started,
        hold: HoldId::new(),
        lines: store::to_text(&lines)?,
        invoice_lines: None,
        currency: None,
        email,
        invoice_id: None,
        scope: idempotent.scope.clone(),
        key: idempotent.key.as_str().to_owned(),
        fingerprint: idempotent.fingerprint.as_bytes().to_vec(),
        release_due: false,
        created_at: tx.now,
        expires_at: tx.now.saturating_add(lifetime),
        ended_at: None,
        network: limits.and_then(|limits| limits.network_name()),
        process: tx.process,
        details: (*details != OrderDetails::default()).then(|| store::to_text(details)).transpose()?,
    };
    store::insert_checkout(tx.conn, &row)?;
    Ok(CheckoutStart::Started(Box::new(row)))
}

/// Moves a checkout to its next state. Returns `false` and changes nothing if that is not allowed: steps and events are
/// repeated, so it may have been in that state before.
pub fn transition(tx: &mut Tx<'_>, row: &mut CheckoutRow, next: CheckoutState) -> Result<bool, CartError> {
    if !row.state.may_become(next) {
        return Ok(false);
    }
    row.state = next;
    row.freezes = next.locks_cart().then_some(row.user_id);
    row.ended_at = (!next.locks_cart()).then_some(tx.now);
    // Without an invoice only the checkout can release the stock.
    row.release_due = next == CheckoutState::Failed;
    store::save(tx.conn, row)?;
    Ok(true)
}

/// Loads a checkout in the current transaction.
fn load_checkout(tx: &mut Tx<'_>, id: CheckoutId) -> Result<CheckoutRow, CartError> {
    store::checkout(tx.conn, id)?.ok_or_else(|| {
        log::error!("cart: checkout {id} is missing");
        CommonError::Internal.into()
    })
}

impl CartState {
    /// Turns a cart into an invoice.
    pub async fn check_out(
        self: Arc<Self>,
        ctx: RequestContext,
        request: Checkout,
        email: Option<EmailAddress>,
        details: OrderDetails,
    ) -> Result<Invoice, CartError> {
        let id = CheckoutId::new();
        let idempotent = IdempotentRequest {
            scope: ctx.caller.scope(),
            // A request without a key gets one, so that the later steps need no distinction.
            key: ctx.key.clone().unwrap_or_else(|| IdempotencyKey::internal(&format!("checkout/{id}"))),
            fingerprint: Fingerprint::of(&request)?,
        };
        let lifetime = self.lifetime;
        // Registered before the row is visible, so that the timer does not resume it.
        let _running = self.in_flight.try_insert(id);
        let limits = UnpaidOrderLimits::of(&self.limits, &ctx);
        let locks = cart_lock(request.user_id).with_key(&idempotent);
        let locks = limits.map_or_else(|| locks.clone(), |limits| limits.lock(locks.clone()));
        let job = move |tx: &mut Tx<'_>| begin(tx, id, &request, (email, &details), &idempotent, lifetime, limits);
        match self.store.write_locked(locks, job).await? {
            CheckoutStart::Replayed(invoice) => {
                ctx.mark_replayed();
                Ok(*invoice)
            }
            CheckoutStart::Started(row) => self.resume(&ctx, *row).await,
        }
    }

    /// Runs the remaining steps of a checkout. Ends it on a definitive error.
    async fn resume(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<Invoice, CartError> {
        let id = row.id;
        let outcome = match row.state {
            CheckoutState::Started => match self.hold(ctx, row).await {
                Ok(held) => self.invoice(ctx, held).await,
                Err(error) => Err(error),
            },
            _ => self.invoice(ctx, row).await,
        };
        match outcome {
            Err(error) if is_definitive(&error) => {
                self.fail_checkout(ctx, id).await?;
                Err(error)
            }
            Err(error) => {
                log::warn!("cart: checkout {id} interrupted, resuming later: {error} [{}]", ctx.request_id);
                Err(error)
            }
            Ok(invoice) => Ok(invoice),
        }
    }

    /// Holds the stock and stores its prices.
    async fn hold(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<CheckoutRow, CartError> {
        if row.expires_at <= self.store.now() {
            return Err(CartError::CheckoutExpired);
        }
        let frozen = row.frozen_lines()?;
        let request = HoldStock {
            hold: row.hold,
            lines: frozen.iter().copied().map(Into::into).collect(),
            expires_at: row.expires_at.saturating_add(HOLD_GRACE),
        };
        let held = self.catalog.call(self.downstream_context(ctx), request).await.map_err(map_catalog_error)?;
        let (currency, lines) = model::invoice_lines(&frozen, &held.offers)?;
        let id = row.id;
        self.store
            .write_locked(cart_lock(row.user_id), move |tx| {
                let mut row = load_checkout(tx, id)?;
                row.currency = Some(currency);
                row.invoice_lines = Some(store::to_text(&lines)?);
                if transition(tx, &mut row, CheckoutState::Held)? {
                    Ok(row)
                } else {
                    // The buyer has cancelled the checkout meanwhile.
                    Err(CartError::NoCheckout)
                }
            })
            .await
    }

    /// Creates the invoice and saves the response, unless one was saved meanwhile; returns the saved one.
    async fn invoice(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<Invoice, CartError> {
        let (currency, lines) = row.priced_lines()?;
        let OrderDetails { shipping_address, billing_address, note } = row.details()?;
        let request = CreateInvoice {
            user_id: row.user_id,
            lines,
            currency,
            shipping: None,
            tax_included: true,
            shipping_address,
            billing_address,
            note,
            email: row.email,
            hold: Some(row.hold),
            checkout: Some(row.id),
            expires_at: Some(row.expires_at),
        };
        let invoice = self.payments.call(self.downstream_context(ctx), request).await.map_err(map_payments_error)?;
        let (id, response) = (row.id, invoice);
        let idempotent = IdempotentRequest {
            scope: row.scope,
            key: IdempotencyKey::internal(&row.key),
            fingerprint: Fingerprint::from_bytes(row.fingerprint),
        };
        self.store
            .write_locked(cart_lock(row.user_id).with_key(&idempotent), move |tx| {
                let mut row = load_checkout(tx, id)?;
                if let Some(response) = tx.find_response::<Invoice, CartError>(&idempotent)? {
                    return Ok(response);
                }
                row.invoice_id = Some(response.id);
                // An event of the invoice may have come first; then the state is a later one already.
                transition(tx, &mut row, CheckoutState::Invoiced)?;
                tx.save_response::<_, CartError>(&idempotent, &response)?;
                Ok(response)
            })
            .await
    }

    /// Fails a checkout: unlocks the cart, and releases the stock now or, if the catalog is down, later.
    async fn fail_checkout(&self, ctx: &RequestContext, id: CheckoutId) -> Result<(), CartError> {
        let row = self
            .store
            .write(move |tx| {
                let mut row = load_checkout(tx, id)?;
                transition(tx, &mut row, CheckoutState::Failed)?;
                Ok::<_, CartError>(row)
            })
            .await?;
        if row.release_due
            && let Err(error) = self.release(ctx, row).await
        {
            log::warn!("cart: stock release of checkout {id} failed, retrying later: {error}");
        }
        Ok(())
    }

    /// Releases the stock of a failed checkout.
    async fn release(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<(), CartError> {
        self.catalog
            .call(self.downstream_context(ctx), ReleaseHold { hold: row.hold })
            .await
            .map_err(map_catalog_error)?;
        let locks = cart_lock(row.user_id);
        self.store.write_locked(locks, move |tx| Ok::<_, CartError>(store::mark_released(tx.conn, row.id)?)).await
    }

    /// Cancels a checkout for its buyer. Returns `false` if it is in progress or may have an invoice.
    pub async fn cancel_unstarted(&self, ctx: &RequestContext, row: &CheckoutRow) -> Result<bool, CartError> {
        let Some(_running) = self.in_flight.try_insert(row.id) else { return Ok(false) };
        if !self.store.takeover([row.process]).await.allows(row.created_at, row.process) {
            // Another process may be working on it.
            return Ok(false);
        }
        if row.state != CheckoutState::Started {
            return Ok(false);
        }
        self.fail_checkout(ctx, row.id).await?;
        Ok(true)
    }

    fn downstream_context(&self, ctx: &RequestContext) -> RequestContext {
        ctx.for_downstream_call(self.store.domain(), None).with_timeout(STEP_TIMEOUT)
    }

    /// Resumes unfinished checkouts that are not in progress.
    pub async fn resume_unfinished(self: Arc<Self>) {
        let rows = self.store.read(|conn| Ok::<_, CartError>(store::find_unfinished(conn, RESUME_BATCH)?)).await;
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                log::warn!("cart: query of unfinished checkouts failed: {error}");
                return;
            }
        };
        let takeover = self.store.takeover(rows.iter().map(|row| row.process)).await;
        for row in rows.into_iter().filter(|row| takeover.allows(row.created_at, row.process)) {
            let Some(running) = self.in_flight.try_insert(row.id) else { continue };
            let state = Arc::clone(&self);
            actix::spawn(async move {
                let (_running, id) = (running, row.id);
                if let Err(error) = state.resume_one(id).await {
                    log::warn!("cart: checkout {id} is still unfinished: {error}");
                }
            });
        }
    }

    /// Forgets the networks of orders that count no longer.
    pub async fn forget_networks(self: Arc<Self>) {
        let job = |tx: &mut Tx<'_>| {
            let until = tx.now.saturating_sub(NETWORK_WINDOW);
            Ok::<_, CartError>(store::forget_networks(tx.conn, until)?)
        };
        if let Err(error) = self.store.write(job).await {
            log::warn!("cart: removing networks from ended checkouts failed, will retry: {error}");
        }
    }

    async fn resume_one(&self, id: CheckoutId) -> Result<(), CartError> {
        // Read again: it may have ended before it was registered as in progress.
        let Some(row) = self.store.read(move |conn| Ok::<_, CartError>(store::checkout(conn, id)?)).await? else {
            return Ok(());
        };
        let ctx = RequestContext::internal(self.store.domain());
        match row.state {
            CheckoutState::Started | CheckoutState::Held => self.resume(&ctx, row).await.map(drop),
            CheckoutState::Failed if row.release_due => self.release(&ctx, row).await,
            _ => Ok(()),
        }
    }
}
