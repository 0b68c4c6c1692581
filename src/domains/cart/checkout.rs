//! The walk from cart to invoice: freeze the cart, set its stock aside, make the invoice, answer.
//!
//! The first transaction fixes every id; each later step may be repeated under the same ids without a second effect.
//! So whoever finds an unfinished checkout, after a crash or a silence of another domain, simply goes on. A step that
//! is certainly refused ends the checkout: the cart is free again and the stock is let go. A step whose outcome
//! nobody knows ends nothing. Once an invoice may exist, only payments can say that there is none.

use std::sync::Arc;
use std::time::Duration;

use super::actor::of_cart;
use super::model::{self, CheckoutState, FrozenLine};
use super::store::{self, CheckoutRow};
use super::{CartError, Checkout};
use crate::contract::catalog::{CatalogError, HoldStock, ReleaseHold};
use crate::contract::payments::{CreateInvoice, Invoice, PaymentsError};
use crate::domains::catalog::CatalogActor;
use crate::domains::payments::PaymentsActor;
use crate::messaging::{Client, CommonError, IdempotencyKey, RequestContext};
use crate::store::{Fingerprint, IdempotentRequest, RESPONSE_TTL, Store, Tx};
use crate::tasks::InFlightSet;
use crate::types::{CheckoutId, Currency, EmailAddress, HoldId};

/// How much longer than its invoice the stock is held, so that one who pays in the last second gets the goods.
const HOLD_GRACE: Duration = Duration::from_secs(5 * 60);
/// How long one step may wait for another domain. Not the caller's patience: the work goes on without them.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How many unfinished checkouts are looked at in one round.
const RESUME_BATCH: i64 = 64;

/// What the handlers of this domain share.
pub struct CartState {
    pub store: Store,
    pub catalog: Client<CatalogActor>,
    pub payments: Client<PaymentsActor>,
    /// Of an empty cart.
    pub currency: Currency,
    /// How long an invoice can be paid.
    pub lifetime: Duration,
    /// The checkouts whose work runs in this process.
    pub under_way: InFlightSet<CheckoutId>,
}

/// What can go wrong at the catalog, in the words of the cart.
pub fn from_catalog(error: CatalogError) -> CartError {
    match error {
        CatalogError::ProductNotFound => CartError::ProductNotFound,
        CatalogError::OutOfStock { product_id, left } => CartError::OutOfStock { product_id, left },
        CatalogError::HoldGone => CartError::CheckoutExpired,
        CatalogError::Common(failure) => CartError::Common(failure),
        other => {
            log::error!("cart: the catalog said what it never says to a cart: {other}");
            CartError::Common(CommonError::Internal)
        }
    }
}

/// What can go wrong at payments, in the words of the cart.
pub fn from_payments(error: PaymentsError) -> CartError {
    match error {
        PaymentsError::Common(failure) => CartError::Common(failure),
        other => {
            log::error!("cart: payments said what they never say to a cart: {other}");
            CartError::Common(CommonError::Internal)
        }
    }
}

/// Whether an error says that nothing was done and nothing will be, so that the checkout can end. Everything about
/// load, time, the network and faults says no such thing.
fn is_refusal(error: &CartError) -> bool {
    match error {
        CartError::Common(failure) => matches!(
            failure,
            CommonError::Unauthenticated
                | CommonError::Forbidden
                | CommonError::InternalOnly
                | CommonError::ValidationFailed { .. }
        ),
        _ => true,
    }
}

/// How the first step of a checkout ended.
enum BeginOutcome {
    /// It was answered before under the same key.
    Before(Box<Invoice>),
    /// The cart is frozen, or was and only the answer is to be found.
    Go(Box<CheckoutRow>),
}

/// Freezes the cart.
fn begin(
    tx: &mut Tx<'_>,
    id: CheckoutId,
    request: &Checkout,
    email: Option<EmailAddress>,
    wish: &IdempotentRequest,
    lifetime: Duration,
) -> Result<BeginOutcome, CartError> {
    if let Some(before) = tx.find_response::<Invoice, CartError>(wish)? {
        return Ok(BeginOutcome::Before(Box::new(before)));
    }
    if let Some(alive) = store::alive(tx.conn, request.user_id)? {
        let same_key = alive.scope == wish.scope && alive.key == wish.key.as_str();
        return Err(match (same_key, alive.state) {
            (true, _) if alive.wish().fingerprint != wish.fingerprint => CommonError::IdempotencyKeyReused.into(),
            (true, CheckoutState::Started | CheckoutState::StockHold) => CommonError::RequestInProgress.into(),
            _ => CartError::CheckoutInProgress { invoice_id: alive.invoice_id },
        });
    }
    if let Some(ended) = store::unanswered(tx.conn, wish, tx.now.saturating_sub(RESPONSE_TTL))? {
        if ended.wish().fingerprint != wish.fingerprint {
            return Err(CommonError::IdempotencyKeyReused.into());
        }
        // News of its invoice came before the answer that made it was kept. Asked again, it is that invoice and no other.
        return Ok(BeginOutcome::Go(Box::new(ended)));
    }
    let lines: Vec<FrozenLine> = store::items(tx.conn, request.user_id)?
        .into_iter()
        .map(|row| FrozenLine { product_id: row.product_id, quantity: row.quantity })
        .collect();
    if lines.is_empty() {
        return Err(CartError::CartEmpty);
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
        scope: wish.scope.clone(),
        key: wish.key.as_str().to_owned(),
        fingerprint: wish.fingerprint.as_bytes().to_vec(),
        release_due: false,
        created_at: tx.now,
        expires_at: tx.now.saturating_add(lifetime),
        ended_at: None,
    };
    store::insert_checkout(tx.conn, &row)?;
    Ok(BeginOutcome::Go(Box::new(row)))
}

/// Brings a checkout into its next state, if it may go there; says whether it does. One that has been there, or
/// further, stays where it is: steps and events are repeated.
pub fn step(tx: &mut Tx<'_>, row: &mut CheckoutRow, next: CheckoutState) -> Result<bool, CartError> {
    if !row.state.may_become(next) {
        return Ok(false);
    }
    row.state = next;
    row.freezes = next.freezes().then_some(row.user_id);
    row.ended_at = (!next.freezes()).then_some(tx.now);
    // Without an invoice nobody else will let the stock go.
    row.release_due = next == CheckoutState::Failed;
    store::save(tx.conn, row)?;
    Ok(true)
}

/// The checkout as it is in this transaction.
fn current(tx: &mut Tx<'_>, id: CheckoutId) -> Result<CheckoutRow, CartError> {
    store::checkout(tx.conn, id)?.ok_or_else(|| {
        log::error!("cart: checkout {id} is gone");
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
    ) -> Result<Invoice, CartError> {
        let id = CheckoutId::new();
        let wish = IdempotentRequest {
            scope: ctx.caller.scope(),
            // A caller without a key gets one, so that the rest need not know the difference.
            key: ctx.key.clone().unwrap_or_else(|| IdempotencyKey::own(&format!("checkout/{id}"))),
            fingerprint: Fingerprint::of(&request)?,
        };
        let lifetime = self.lifetime;
        // Noted before the row can be seen: the timer must not take up what is about to begin.
        let _running = self.under_way.try_insert(id);
        let touch = of_cart(request.user_id).with_key(&wish);
        match self.store.write_locked(touch, move |tx| begin(tx, id, &request, email, &wish, lifetime)).await? {
            BeginOutcome::Before(invoice) => {
                ctx.mark_replayed();
                Ok(*invoice)
            }
            BeginOutcome::Go(row) => self.go_on(&ctx, *row).await,
        }
    }

    /// Takes a checkout from where it stands to its end, as far as the others answer.
    async fn go_on(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<Invoice, CartError> {
        let id = row.id;
        let outcome = match row.state {
            CheckoutState::Started => match self.hold(ctx, row).await {
                Ok(held) => self.invoice(ctx, held).await,
                Err(error) => Err(error),
            },
            _ => self.invoice(ctx, row).await,
        };
        match outcome {
            Err(refusal) if is_refusal(&refusal) => {
                self.give_up(ctx, id).await?;
                Err(refusal)
            }
            Err(unknown) => {
                log::warn!("cart: checkout {id} waits and is taken up again: {unknown} [{}]", ctx.request_id);
                Err(unknown)
            }
            Ok(invoice) => Ok(invoice),
        }
    }

    /// Sets the stock aside and keeps its prices.
    async fn hold(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<CheckoutRow, CartError> {
        if row.expires_at <= self.store.now() {
            return Err(CartError::CheckoutExpired);
        }
        let frozen = row.frozen()?;
        let request = HoldStock {
            hold: row.hold,
            lines: frozen.iter().copied().map(Into::into).collect(),
            expires_at: row.expires_at.saturating_add(HOLD_GRACE),
        };
        let held = self.catalog.call(self.downstream_context(ctx), request).await.map_err(from_catalog)?;
        let (currency, lines) = model::invoice_lines(&frozen, &held.offers)?;
        let id = row.id;
        self.store
            .write_locked(of_cart(row.user_id), move |tx| {
                let mut row = current(tx, id)?;
                row.currency = Some(currency);
                row.invoice_lines = Some(store::to_text(&lines)?);
                if step(tx, &mut row, CheckoutState::StockHold)? {
                    Ok(row)
                } else {
                    // Given up meanwhile by its buyer, who was told so.
                    Err(CartError::NoCheckout)
                }
            })
            .await
    }

    /// Makes the invoice and keeps the answer, unless somebody else has kept it meanwhile: then it is theirs.
    async fn invoice(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<Invoice, CartError> {
        let (currency, lines) = row.priced()?;
        let request = CreateInvoice {
            user_id: row.user_id,
            lines,
            currency,
            email: row.email,
            hold: Some(row.hold),
            checkout: Some(row.id),
            expires_at: Some(row.expires_at),
        };
        let invoice = self.payments.call(self.downstream_context(ctx), request).await.map_err(from_payments)?;
        let (id, answer) = (row.id, invoice);
        let wish = IdempotentRequest {
            scope: row.scope,
            key: IdempotencyKey::own(&row.key),
            fingerprint: Fingerprint::from_bytes(row.fingerprint),
        };
        self.store
            .write_locked(of_cart(row.user_id).with_key(&wish), move |tx| {
                let mut row = current(tx, id)?;
                if let Some(before) = tx.find_response::<Invoice, CartError>(&wish)? {
                    return Ok(before);
                }
                row.invoice_id = Some(answer.id);
                // News of the invoice may have been quicker; then the state stays, and the answer is the same.
                step(tx, &mut row, CheckoutState::Invoiced)?;
                tx.save_response::<_, CartError>(&wish, &answer)?;
                Ok(answer)
            })
            .await
    }

    /// Ends a checkout without an invoice. The cart is free at once, the stock as soon as the catalog hears of it.
    async fn give_up(&self, ctx: &RequestContext, id: CheckoutId) -> Result<(), CartError> {
        let row = self
            .store
            .write(move |tx| {
                let mut row = current(tx, id)?;
                step(tx, &mut row, CheckoutState::Failed)?;
                Ok::<_, CartError>(row)
            })
            .await?;
        if row.release_due
            && let Err(error) = self.release(ctx, row).await
        {
            log::warn!("cart: the stock of checkout {id} is let go later: {error}");
        }
        Ok(())
    }

    /// Lets the stock of a failed checkout go.
    async fn release(&self, ctx: &RequestContext, row: CheckoutRow) -> Result<(), CartError> {
        self.catalog.call(self.downstream_context(ctx), ReleaseHold { hold: row.hold }).await.map_err(from_catalog)?;
        let touch = of_cart(row.user_id);
        self.store.write_locked(touch, move |tx| Ok::<_, CartError>(store::released(tx.conn, row.id)?)).await
    }

    /// Ends, at its buyer's wish, a checkout that has no invoice yet and on which nobody works; `false` when that
    /// cannot be said of it.
    pub async fn abandon(&self, ctx: &RequestContext, row: &CheckoutRow) -> Result<bool, CartError> {
        let Some(_running) = self.under_way.try_insert(row.id) else { return Ok(false) };
        if !self.store.is_orphaned(row.created_at) {
            // Another process may be working on it.
            return Ok(false);
        }
        if row.state != CheckoutState::Started {
            return Ok(false);
        }
        self.give_up(ctx, row.id).await?;
        Ok(true)
    }

    fn downstream_context(&self, ctx: &RequestContext) -> RequestContext {
        ctx.for_downstream_call(self.store.domain(), None).with_timeout(STEP_TIMEOUT)
    }

    /// One round of the timer: takes up checkouts that nobody works on.
    pub async fn look_around(self: Arc<Self>) {
        let rows = self.store.read(|conn| Ok::<_, CartError>(store::unfinished(conn, RESUME_BATCH)?)).await;
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                log::warn!("cart: unfinished checkouts could not be looked for: {error}");
                return;
            }
        };
        for row in rows.into_iter().filter(|row| self.store.is_orphaned(row.created_at)) {
            let Some(running) = self.under_way.try_insert(row.id) else { continue };
            let state = Arc::clone(&self);
            actix::spawn(async move {
                let (_running, id) = (running, row.id);
                if let Err(error) = state.take_up(id).await {
                    log::warn!("cart: checkout {id} is still open: {error}");
                }
            });
        }
    }

    async fn take_up(&self, id: CheckoutId) -> Result<(), CartError> {
        // Read again: it may have ended between the look and the note that we work on it.
        let Some(row) = self.store.read(move |conn| Ok::<_, CartError>(store::checkout(conn, id)?)).await? else {
            return Ok(());
        };
        let ctx = RequestContext::internal(self.store.domain());
        match row.state {
            CheckoutState::Started | CheckoutState::StockHold => self.go_on(&ctx, row).await.map(drop),
            CheckoutState::Failed if row.release_due => self.release(&ctx, row).await,
            _ => Ok(()),
        }
    }
}
