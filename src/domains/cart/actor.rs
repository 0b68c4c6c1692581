//! The actor of the cart: one handler per message.
//!
//! Does not contain: the steps of a checkout (`checkout`), SQL.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};

use super::checkout::{self, CartState, map_catalog_error};
use super::merge::merge_cart;
use super::model::{self, CartLine, CheckoutState};
use super::store::{self, ItemRow};
use super::*;
use crate::contract::catalog::{GetOffers, Offer};
use crate::contract::payments::{
    GetInvoice, Invoice, InvoiceExpired, InvoicePaid, InvoiceStatus, InvoiceVoided, PaymentsError, VoidInvoice,
};
use crate::contract::users::UserErased;
use crate::messaging::{CheckInvariants, CommonError, DeliverEvents, ListAuditEntries, RequestContext, Role};
use crate::runtime::{spawn_interval, spawn_leader_interval};
use crate::store::{Conn, DomainState, Invariants, LockSet, Store, Tx, check_invariants, list_audit_entries};
use crate::tasks::spawn_detached;
use crate::types::{CartItemId, CheckoutId, InvoiceId, OrderDetails, ProductId, UserId, Validator};

/// Interval at which unfinished checkouts are resumed.
const RESUME_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which networks of ended checkouts are removed.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);

/// The actor of this domain.
pub struct CartActor {
    pub(super) state: Arc<CartState>,
}

impl Actor for CartActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_interval(ctx, &self.state.store, &self.state, RESUME_INTERVAL, CartState::resume_unfinished);
        spawn_leader_interval(ctx, &self.state.store, &self.state, FORGET_INTERVAL, CartState::forget_networks);
    }
}

impl Supervised for CartActor {}

crate::handlers! { CartActor;
    AddItem => add_item,
    GetItem => get_item,
    SetQuantity => set_quantity,
    RemoveItem => remove_item,
    GetCart => get_cart,
    MergeCart => merge_cart,
    Checkout => check_out,
    CancelCheckout => cancel_checkout,
    DeliverEvents => on_events,
    CheckInvariants => check_invariants,
    ListAuditEntries => list_audit_entries,
    ListCheckoutFacts => list_checkout_facts,
}

/// Locks the cart of a user: its lines and its checkouts.
pub fn cart_lock(user: UserId) -> LockSet {
    LockSet::key("cart", user)
}

/// Reads the current offers of products.
async fn offers(state: &CartState, ctx: &RequestContext, product_ids: Vec<ProductId>) -> Result<Vec<Offer>, CartError> {
    let downstream = ctx.for_downstream_call(state.store.domain(), None);
    state.catalog.call(downstream, GetOffers { product_ids }).await.map_err(map_catalog_error)
}

/// Reads the current offer of a product that is sold.
async fn offer(state: &CartState, ctx: &RequestContext, product: ProductId) -> Result<Offer, CartError> {
    model::for_sale(offers(state, ctx, vec![product]).await?.into_iter().next())
}

/// Returns an error if a checkout locks the cart.
fn ensure_not_frozen(conn: &mut Conn, user: UserId) -> Result<(), CartError> {
    match store::freezing_invoice(conn, user)? {
        Some(invoice_id) => Err(CartError::CheckoutInProgress { invoice_id }),
        None => Ok(()),
    }
}

/// Returns an error if the cart has a line in another currency than `row`.
fn ensure_single_currency(tx: &mut Tx<'_>, row: &ItemRow) -> Result<(), CartError> {
    match store::other_currency(tx.conn, row.user_id, row.currency)? {
        Some(currency) => Err(CartError::CurrencyMismatch { currency }),
        None => Ok(()),
    }
}

/// Runs `work`, and once more if it failed because of a checkout whose invoice has ended, while the event of that is
/// still in flight. So a buyer can continue shopping right after paying.
async fn retry_if_checkout_ended<T, F>(
    state: &CartState,
    ctx: &RequestContext,
    user: UserId,
    work: impl Fn() -> F,
) -> Result<T, CartError>
where
    F: Future<Output = Result<T, CartError>>,
{
    match work().await {
        Err(CartError::CheckoutInProgress { invoice_id: Some(invoice_id) })
            if sync_checkout_status(state, ctx, user, invoice_id).await? =>
        {
            work().await
        }
        outcome => outcome,
    }
}

/// Queries the status of the invoice that locks the cart. If it has ended, unlocks the cart and returns `true`.
async fn sync_checkout_status(
    state: &CartState,
    ctx: &RequestContext,
    user: UserId,
    invoice_id: InvoiceId,
) -> Result<bool, CartError> {
    let downstream = ctx.for_downstream_call(state.store.domain(), None);
    let end_state = match state.payments.call(downstream, GetInvoice { invoice_id }).await.map(|invoice| invoice.status)
    {
        Ok(InvoiceStatus::Paid | InvoiceStatus::Refunded) => CheckoutState::Paid,
        Ok(InvoiceStatus::Expired | InvoiceStatus::Void) => CheckoutState::Cancelled,
        // An unknown status counts as in progress.
        Ok(InvoiceStatus::Open) | Err(_) => return Ok(false),
    };
    let row = state.store.read(move |conn| Ok::<_, CartError>(store::active_checkout(conn, user)?)).await?;
    if let Some(row) = row.filter(|row| row.invoice_id == Some(invoice_id)) {
        state.store.write_locked(cart_lock(user), move |tx| end_checkout(tx, row.id, end_state)).await?;
    }
    Ok(true)
}

async fn add_item(state: Arc<CartState>, ctx: RequestContext, request: AddItem) -> Result<CartItem, CartError> {
    let user = request.user_id;
    let mut fields = Validator::new();
    fields.quantity("quantity", request.quantity);
    fields.finish()?;
    let insert_line = || insert_line(Arc::clone(&state), ctx.clone(), request.clone());
    // A replayed request must not fail because of a price or stock that changed since.
    state
        .store
        .idempotent(&ctx, &request)?
        .check_first(|| retry_if_checkout_ended(&state, &ctx, user, insert_line))
        .await
}

async fn insert_line(state: Arc<CartState>, ctx: RequestContext, request: AddItem) -> Result<CartItem, CartError> {
    let offer = offer(&state, &ctx, request.product_id).await?;
    let (user, quantity) = (request.user_id, request.quantity);
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(cart_lock(user))
        .run(move |tx| {
            ensure_not_frozen(tx.conn, user)?;
            let row = ItemRow {
                id: CartItemId::new(),
                user_id: user,
                product_id: offer.product_id,
                quantity,
                unit_price: offer.price,
                currency: offer.currency,
                name: offer.name.clone(),
                slug: offer.slug.clone(),
                created_at: tx.now,
            };
            // Inserted first and validated then, in one transaction: an error rolls it back, and adding up is one statement.
            let (id, quantity_in_cart) = store::add(tx.conn, &row)?;
            model::validate_quantity(quantity_in_cart, &offer)?;
            let (lines, first, last) = store::line_stats(tx.conn, user)?;
            if first != last {
                ensure_single_currency(tx, &row)?;
            }
            if lines > i64::from(model::LINES_MAX) {
                return Err(CartError::CartFull { max: model::LINES_MAX });
            }
            if lines == 1 && id == row.id {
                tx.emit(&CartStarted { user_id: user })?;
            }
            let line = CartLine { id, quantity: quantity_in_cart, ..row.into() };
            Ok::<_, CartError>(model::at_current_price(line, Some(&offer), offer.currency))
        })
        .await
}

async fn get_item(state: Arc<CartState>, ctx: RequestContext, request: GetItem) -> Result<CartItem, CartError> {
    let GetItem { user_id, item_id } = request;
    let row = state
        .store
        .read(move |conn| Ok::<_, CartError>(store::item(conn, user_id, item_id)?))
        .await?
        .ok_or(CartError::ItemNotFound)?;
    let offers = offers(&state, &ctx, vec![row.product_id]).await?;
    let currency = row.currency;
    Ok(model::at_current_price(row.into(), offers.first(), currency))
}

async fn set_quantity(
    state: Arc<CartState>,
    ctx: RequestContext,
    request: SetQuantity,
) -> Result<Option<CartItem>, CartError> {
    let user = request.user_id;
    let mut fields = Validator::new();
    fields.range("quantity", request.quantity, 0, model::QUANTITY_MAX);
    fields.finish()?;
    let update = || update_line(Arc::clone(&state), ctx.clone(), request.clone());
    state.store.idempotent(&ctx, &request)?.check_first(|| retry_if_checkout_ended(&state, &ctx, user, update)).await
}

async fn update_line(
    state: Arc<CartState>,
    ctx: RequestContext,
    request: SetQuantity,
) -> Result<Option<CartItem>, CartError> {
    let SetQuantity { user_id, item_id, quantity } = request;
    if quantity == 0 {
        let job = move |tx: &mut Tx<'_>| delete_line(tx, user_id, item_id).map(|()| None);
        return state.store.idempotent(&ctx, &request)?.locks(cart_lock(user_id)).run(job).await;
    }
    let row = state
        .store
        .read(move |conn| Ok::<_, CartError>(store::item(conn, user_id, item_id)?))
        .await?
        .ok_or(CartError::ItemNotFound)?;
    let offer = offer(&state, &ctx, row.product_id).await?;
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(cart_lock(user_id))
        .run(move |tx| {
            ensure_not_frozen(tx.conn, user_id)?;
            model::validate_quantity(quantity, &offer)?;
            let row = ItemRow {
                quantity,
                unit_price: offer.price,
                currency: offer.currency,
                name: offer.name.clone(),
                slug: offer.slug.clone(),
                ..row
            };
            // The line may have been removed since it was read.
            if !store::set(tx.conn, &row)? {
                return Err(CartError::ItemNotFound);
            }
            ensure_single_currency(tx, &row)?;
            Ok::<_, CartError>(Some(model::at_current_price(row.into(), Some(&offer), offer.currency)))
        })
        .await
}

/// Deletes a line of an unlocked cart.
fn delete_line(tx: &mut Tx<'_>, user: UserId, item: CartItemId) -> Result<(), CartError> {
    ensure_not_frozen(tx.conn, user)?;
    if store::remove(tx.conn, user, item)? { Ok(()) } else { Err(CartError::ItemNotFound) }
}

async fn remove_item(state: Arc<CartState>, ctx: RequestContext, request: RemoveItem) -> Result<(), CartError> {
    let RemoveItem { user_id, item_id } = request;
    let locks = cart_lock(user_id);
    let work = || async {
        state
            .store
            .idempotent(&ctx, &request)?
            .locks(locks.clone())
            .run(move |tx| delete_line(tx, user_id, item_id))
            .await
    };
    retry_if_checkout_ended(&state, &ctx, user_id, work).await
}

async fn get_cart(state: Arc<CartState>, ctx: RequestContext, request: GetCart) -> Result<Cart, CartError> {
    let cart = load_cart(&state, &ctx, &request).await?;
    match cart.invoice_id {
        Some(invoice_id) if sync_checkout_status(&state, &ctx, request.user_id, invoice_id).await? => {
            load_cart(&state, &ctx, &request).await
        }
        _ => Ok(cart),
    }
}

async fn load_cart(state: &CartState, ctx: &RequestContext, request: &GetCart) -> Result<Cart, CartError> {
    let user = request.user_id;
    let (rows, invoice_id) = state
        .store
        .read(move |conn| {
            let rows = store::items(conn, user)?;
            Ok::<_, CartError>((rows, store::freezing_invoice(conn, user)?.flatten()))
        })
        .await?;
    let Some(currency) = rows.first().map(|row| row.currency) else {
        return Ok(Cart { items: Vec::new(), total: 0, currency: state.currency, count: 0, invoice_id });
    };
    let offers = offers(state, ctx, rows.iter().map(|row| row.product_id).collect()).await?;
    let items: Vec<CartItem> = rows
        .into_iter()
        .map(|row| {
            let offer = offers.iter().find(|offer| offer.product_id == row.product_id);
            model::at_current_price(row.into(), offer, currency)
        })
        .collect();
    let (total, count) = (model::total(&items), items.iter().map(|item| item.quantity).sum());
    Ok(Cart { items, total, currency, count, invoice_id })
}

async fn check_out(state: Arc<CartState>, ctx: RequestContext, request: Checkout) -> Result<Invoice, CartError> {
    let mut fields = Validator::new();
    let address = request.email.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let email = address.and_then(|text| fields.email("email", text));
    if address.is_none() && ctx.identity().is_some_and(|identity| identity.role == Role::Guest) {
        fields.add_error("email", "required", "is required for the receipt, because a guest has no address");
    }
    let details = OrderDetails {
        shipping_address: request.shipping_address.clone(),
        billing_address: request.billing_address.clone(),
        note: request.note.clone(),
    }
    .normalized();
    details.validate(&mut fields);
    fields.finish()?;
    spawn_detached(async move {
        let user = request.user_id;
        let work = || Arc::clone(&state).check_out(ctx.clone(), request.clone(), email.clone(), details.clone());
        retry_if_checkout_ended(&state, &ctx, user, work).await
    })
    .await
}

async fn cancel_checkout(state: Arc<CartState>, ctx: RequestContext, request: CancelCheckout) -> Result<(), CartError> {
    spawn_detached(async move {
        let cancel = || cancel(Arc::clone(&state), ctx.clone(), request.clone());
        state.store.idempotent(&ctx, &request)?.check_first(cancel).await
    })
    .await
}

async fn cancel(state: Arc<CartState>, ctx: RequestContext, request: CancelCheckout) -> Result<(), CartError> {
    let user = request.user_id;
    let row = state
        .store
        .read(move |conn| Ok::<_, CartError>(store::active_checkout(conn, user)?))
        .await?
        .ok_or(CartError::NoCheckout)?;
    let Some(invoice_id) = row.invoice_id else {
        // Without an invoice the checkout can be cancelled only if none can exist and it is not in progress.
        return if state.cancel_unstarted(&ctx, &row).await? {
            state.store.idempotent(&ctx, &request)?.run(|_| Ok::<_, CartError>(())).await
        } else {
            Err(CartError::CheckoutInProgress { invoice_id: None })
        };
    };
    let downstream = || ctx.for_downstream_call(state.store.domain(), None);
    match state.payments.call(downstream(), VoidInvoice { invoice_id }).await {
        Ok(_) => {}
        Err(PaymentsError::PaymentInProgress) => {
            return Err(CartError::CheckoutInProgress { invoice_id: Some(invoice_id) });
        }
        Err(PaymentsError::NotOpen) => {
            let request = GetInvoice { invoice_id };
            let invoice = state.payments.call(downstream(), request).await.map_err(checkout::map_payments_error)?;
            if matches!(invoice.status, InvoiceStatus::Paid | InvoiceStatus::Refunded) {
                return Err(CartError::NoCheckout);
            }
        }
        Err(error) => return Err(checkout::map_payments_error(error)),
    }
    // The event would do the same a moment later, but the buyer may read the cart before it arrives.
    let id = row.id;
    let job = move |tx: &mut Tx<'_>| end_checkout(tx, id, CheckoutState::Cancelled);
    state.store.idempotent(&ctx, &request)?.locks(cart_lock(user)).run(job).await
}

/// Ends a checkout, unless it has ended.
fn end_checkout(tx: &mut Tx<'_>, id: CheckoutId, state: CheckoutState) -> Result<(), CartError> {
    let Some(mut row) = store::checkout(tx.conn, id)? else { return Ok(()) };
    if checkout::transition(tx, &mut row, state)? && state == CheckoutState::Paid {
        store::remove_bought(tx.conn, row.user_id, &row.frozen_lines()?)?;
    }
    Ok(())
}

async fn on_events(state: Arc<CartState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    state.store.consume(request.events, apply_event).await
}

crate::event_handlers! {
    /// Applies an event to carts and checkouts.
    fn apply_event(tx: &mut Tx<'_>) -> Result<(), CartError>;
    InvoicePaid => on_invoice_paid,
    InvoiceExpired => on_invoice_expired,
    InvoiceVoided => on_invoice_voided,
    UserErased => on_user_erased,
}

fn on_invoice_paid(tx: &mut Tx<'_>, event: InvoicePaid) -> Result<(), CartError> {
    event.checkout.map_or(Ok(()), |id| end_checkout(tx, id, CheckoutState::Paid))
}

fn on_invoice_expired(tx: &mut Tx<'_>, event: InvoiceExpired) -> Result<(), CartError> {
    event.checkout.map_or(Ok(()), |id| end_checkout(tx, id, CheckoutState::Cancelled))
}

fn on_invoice_voided(tx: &mut Tx<'_>, event: InvoiceVoided) -> Result<(), CartError> {
    event.checkout.map_or(Ok(()), |id| end_checkout(tx, id, CheckoutState::Cancelled))
}

fn on_user_erased(tx: &mut Tx<'_>, UserErased { user_id, email }: UserErased) -> Result<(), CartError> {
    tx.erase_responses(user_id, email.is_some())?;
    // A checkout that cannot have an invoice ends; one that may have continues without the address.
    if let Some(row) = store::active_checkout(tx.conn, user_id)?
        && row.state == CheckoutState::Started
    {
        end_checkout(tx, row.id, CheckoutState::Failed)?;
    }
    Ok(store::erase(tx.conn, user_id)?)
}

impl DomainState for CartState {
    const INVARIANTS: Invariants = store::invariants::INVARIANTS;

    fn store(&self) -> &Store {
        &self.store
    }
}

async fn list_checkout_facts(
    state: Arc<CartState>,
    _: RequestContext,
    request: ListCheckoutFacts,
) -> Result<Vec<CheckoutFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::checkouts(conn, request.which)?)).await
}
