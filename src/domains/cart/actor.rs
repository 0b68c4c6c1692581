//! The actor of the cart: one function a message.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Supervised};

use super::checkout::{self, CartState, from_catalog};
use super::model::{self, CheckoutState, Line};
use super::store::{self, ItemRow};
use super::*;
use crate::contract::catalog::{GetOffers, Offer};
use crate::contract::payments::{
    GetInvoice, Invoice, InvoiceExpired, InvoicePaid, InvoiceStatus, InvoiceVoided, PaymentsError, VoidInvoice,
};
use crate::contract::users::UserErased;
use crate::messaging::{CheckInvariants, CommonError, DeliverEvents, InvariantReport, RequestContext, Role};
use crate::runtime::spawn_leader_interval;
use crate::store::{Conn, LockSet, Tx};
use crate::tasks::spawn_detached;
use crate::types::{CartItemId, CheckoutId, InvoiceId, ProductId, UserId, Validator};

/// How often unfinished checkouts are looked for.
const RESUME_INTERVAL: Duration = Duration::from_secs(2);

/// The actor of this domain.
pub struct CartActor {
    pub(super) state: Arc<CartState>,
}

impl Actor for CartActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        spawn_leader_interval(ctx, &self.state.store, &self.state, RESUME_INTERVAL, CartState::look_around);
    }
}

impl Supervised for CartActor {}

crate::handlers! { CartActor;
    AddItem => add_item,
    GetItem => get_item,
    SetQuantity => set_quantity,
    RemoveItem => remove_item,
    GetCart => get_cart,
    Checkout => check_out,
    CancelCheckout => cancel_checkout,
    DeliverEvents => on_events,
    CheckInvariants => audit,
    ListCheckoutFacts => audit_checkouts,
}

/// What a change of one user's cart touches: its lines and its checkouts.
pub fn of_cart(user: UserId) -> LockSet {
    LockSet::key("cart", user)
}

/// The products as they are sold this moment.
async fn offers(state: &CartState, ctx: &RequestContext, product_ids: Vec<ProductId>) -> Result<Vec<Offer>, CartError> {
    let onward = ctx.for_downstream_call(state.store.domain(), None);
    state.catalog.call(onward, GetOffers { product_ids }).await.map_err(from_catalog)
}

/// The one product, if it can be bought.
async fn offer(state: &CartState, ctx: &RequestContext, product: ProductId) -> Result<Offer, CartError> {
    model::for_sale(offers(state, ctx, vec![product]).await?.into_iter().next())
}

/// Refuses when a checkout freezes the cart.
fn refuse_frozen(conn: &mut Conn, user: UserId) -> Result<(), CartError> {
    match store::frozen_by(conn, user)? {
        Some(invoice_id) => Err(CartError::CheckoutInProgress { invoice_id }),
        None => Ok(()),
    }
}

/// Refuses a cart of two currencies, of which `currency` is the newest line's.
fn refuse_mixture(tx: &mut Tx<'_>, row: &ItemRow) -> Result<(), CartError> {
    match store::other_currency(tx.conn, row.user_id, row.currency)? {
        Some(currency) => Err(CartError::CurrencyMismatch { currency }),
        None => Ok(()),
    }
}

/// Does `work`; and once more if only a checkout stood in its way whose invoice has meanwhile been paid or has ended,
/// while the event that says so is still on its way. Who pays and shops on at once is not told that the checkout runs.
async fn past_ended_checkout<T, F>(
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
            if ended_meanwhile(state, ctx, user, invoice_id).await? =>
        {
            work().await
        }
        outcome => outcome,
    }
}

/// Whether the checkout of the user's cart that waits for this invoice has ended; if so, the cart is free afterwards.
async fn ended_meanwhile(
    state: &CartState,
    ctx: &RequestContext,
    user: UserId,
    invoice_id: InvoiceId,
) -> Result<bool, CartError> {
    let onward = ctx.for_downstream_call(state.store.domain(), None);
    let end_state = match state.payments.call(onward, GetInvoice { invoice_id }).await.map(|invoice| invoice.status) {
        Ok(InvoiceStatus::Paid | InvoiceStatus::Refunded) => CheckoutState::Paid,
        Ok(InvoiceStatus::Expired | InvoiceStatus::Void) => CheckoutState::Cancelled,
        // Not even payments can say: the checkout counts as running.
        Ok(InvoiceStatus::Open) | Err(_) => return Ok(false),
    };
    let row = state.store.read(move |conn| Ok::<_, CartError>(store::alive(conn, user)?)).await?;
    if let Some(row) = row.filter(|row| row.invoice_id == Some(invoice_id)) {
        state.store.write_locked(of_cart(user), move |tx| end(tx, row.id, end_state)).await?;
    }
    Ok(true)
}

async fn add_item(state: Arc<CartState>, ctx: RequestContext, request: AddItem) -> Result<CartItem, CartError> {
    let user = request.user_id;
    let mut fields = Validator::new();
    fields.quantity("quantity", request.quantity);
    fields.finish()?;
    let put_in = || put_in(Arc::clone(&state), ctx.clone(), request.clone());
    // A repetition must not stumble over a price or a stock that has changed since.
    state.store.idempotent(&ctx, &request)?.check_first(|| past_ended_checkout(&state, &ctx, user, put_in)).await
}

async fn put_in(state: Arc<CartState>, ctx: RequestContext, request: AddItem) -> Result<CartItem, CartError> {
    let offer = offer(&state, &ctx, request.product_id).await?;
    let (user, quantity) = (request.user_id, request.quantity);
    state
        .store
        .idempotent(&ctx, &request)?
        .locks(of_cart(user))
        .run(move |tx| {
            refuse_frozen(tx.conn, user)?;
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
            // Put in first and checked then, in the same job: a refusal undoes it, and the adding up is one statement.
            let (id, together) = store::add(tx.conn, &row)?;
            model::fits(together, &offer)?;
            let (lines, first, last) = store::measure(tx.conn, user)?;
            if first != last {
                refuse_mixture(tx, &row)?;
            }
            if lines > i64::from(model::LINES_MAX) {
                return Err(CartError::CartFull { max: model::LINES_MAX });
            }
            if lines == 1 && id == row.id {
                tx.emit(&CartStarted { user_id: user })?;
            }
            let line = Line { id, quantity: together, ..row.into() };
            Ok::<_, CartError>(model::today(line, Some(&offer), offer.currency))
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
    Ok(model::today(row.into(), offers.first(), currency))
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
    let change = || change(Arc::clone(&state), ctx.clone(), request.clone());
    state.store.idempotent(&ctx, &request)?.check_first(|| past_ended_checkout(&state, &ctx, user, change)).await
}

async fn change(
    state: Arc<CartState>,
    ctx: RequestContext,
    request: SetQuantity,
) -> Result<Option<CartItem>, CartError> {
    let SetQuantity { user_id, item_id, quantity } = request;
    if quantity == 0 {
        let job = move |tx: &mut Tx<'_>| take_out(tx, user_id, item_id).map(|()| None);
        return state.store.idempotent(&ctx, &request)?.locks(of_cart(user_id)).run(job).await;
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
        .locks(of_cart(user_id))
        .run(move |tx| {
            refuse_frozen(tx.conn, user_id)?;
            model::fits(quantity, &offer)?;
            let row = ItemRow {
                quantity,
                unit_price: offer.price,
                currency: offer.currency,
                name: offer.name.clone(),
                slug: offer.slug.clone(),
                ..row
            };
            // It may have been taken out since it was read.
            if !store::set(tx.conn, &row)? {
                return Err(CartError::ItemNotFound);
            }
            refuse_mixture(tx, &row)?;
            Ok::<_, CartError>(Some(model::today(row.into(), Some(&offer), offer.currency)))
        })
        .await
}

/// Takes a line out of a cart that may be changed.
fn take_out(tx: &mut Tx<'_>, user: crate::types::UserId, item: CartItemId) -> Result<(), CartError> {
    refuse_frozen(tx.conn, user)?;
    if store::remove(tx.conn, user, item)? { Ok(()) } else { Err(CartError::ItemNotFound) }
}

async fn remove_item(state: Arc<CartState>, ctx: RequestContext, request: RemoveItem) -> Result<(), CartError> {
    let RemoveItem { user_id, item_id } = request;
    let touch = of_cart(user_id);
    let work = || async {
        state.store.idempotent(&ctx, &request)?.locks(touch.clone()).run(move |tx| take_out(tx, user_id, item_id)).await
    };
    past_ended_checkout(&state, &ctx, user_id, work).await
}

async fn get_cart(state: Arc<CartState>, ctx: RequestContext, request: GetCart) -> Result<Cart, CartError> {
    let cart = look(&state, &ctx, &request).await?;
    match cart.invoice_id {
        Some(invoice_id) if ended_meanwhile(&state, &ctx, request.user_id, invoice_id).await? => {
            look(&state, &ctx, &request).await
        }
        _ => Ok(cart),
    }
}

async fn look(state: &CartState, ctx: &RequestContext, request: &GetCart) -> Result<Cart, CartError> {
    let user = request.user_id;
    let (rows, invoice_id) = state
        .store
        .read(move |conn| {
            let rows = store::items(conn, user)?;
            Ok::<_, CartError>((rows, store::frozen_by(conn, user)?.flatten()))
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
            model::today(row.into(), offer, currency)
        })
        .collect();
    let (total, count) = (model::total(&items), items.iter().map(|item| item.quantity).sum());
    Ok(Cart { items, total, currency, count, invoice_id })
}

async fn check_out(state: Arc<CartState>, ctx: RequestContext, request: Checkout) -> Result<Invoice, CartError> {
    let mut fields = Validator::new();
    let said = request.email.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let email = said.and_then(|text| fields.email("email", text));
    if said.is_none() && ctx.identity().is_some_and(|who| who.role == Role::Guest) {
        fields.add_error("email", "required", "must say where the receipt goes, because a guest has no address");
    }
    fields.finish()?;
    spawn_detached(async move {
        let user = request.user_id;
        let work = || Arc::clone(&state).check_out(ctx.clone(), request.clone(), email.clone());
        past_ended_checkout(&state, &ctx, user, work).await
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
        .read(move |conn| Ok::<_, CartError>(store::alive(conn, user)?))
        .await?
        .ok_or(CartError::NoCheckout)?;
    let Some(invoice_id) = row.invoice_id else {
        // Nothing is owed yet. While somebody works on it, or an invoice may exist, nobody can say more.
        return if state.abandon(&ctx, &row).await? {
            state.store.idempotent(&ctx, &request)?.run(|_| Ok::<_, CartError>(())).await
        } else {
            Err(CartError::CheckoutInProgress { invoice_id: None })
        };
    };
    let onward = || ctx.for_downstream_call(state.store.domain(), None);
    match state.payments.call(onward(), VoidInvoice { invoice_id }).await {
        Ok(_) => {}
        Err(PaymentsError::PaymentInProgress) => {
            return Err(CartError::CheckoutInProgress { invoice_id: Some(invoice_id) });
        }
        Err(PaymentsError::NotOpen) => {
            let request = GetInvoice { invoice_id };
            let invoice = state.payments.call(onward(), request).await.map_err(checkout::from_payments)?;
            if matches!(invoice.status, InvoiceStatus::Paid | InvoiceStatus::Refunded) {
                return Err(CartError::NoCheckout);
            }
        }
        Err(error) => return Err(checkout::from_payments(error)),
    }
    // The event says the same a moment later; the buyer who reads the cart now must see it already.
    let id = row.id;
    let job = move |tx: &mut Tx<'_>| end(tx, id, CheckoutState::Cancelled);
    state.store.idempotent(&ctx, &request)?.locks(of_cart(user)).run(job).await
}

/// Ends a checkout, if it has not ended.
fn end(tx: &mut Tx<'_>, id: CheckoutId, state: CheckoutState) -> Result<(), CartError> {
    let Some(mut row) = store::checkout(tx.conn, id)? else { return Ok(()) };
    if checkout::step(tx, &mut row, state)? && state == CheckoutState::Paid {
        store::take_out(tx.conn, row.user_id, &row.frozen()?)?;
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
    event.checkout.map_or(Ok(()), |id| end(tx, id, CheckoutState::Paid))
}

fn on_invoice_expired(tx: &mut Tx<'_>, event: InvoiceExpired) -> Result<(), CartError> {
    event.checkout.map_or(Ok(()), |id| end(tx, id, CheckoutState::Cancelled))
}

fn on_invoice_voided(tx: &mut Tx<'_>, event: InvoiceVoided) -> Result<(), CartError> {
    event.checkout.map_or(Ok(()), |id| end(tx, id, CheckoutState::Cancelled))
}

fn on_user_erased(tx: &mut Tx<'_>, UserErased { user_id, .. }: UserErased) -> Result<(), CartError> {
    // A checkout that has not got to an invoice ends here; one that may have continues without a name.
    if let Some(row) = store::alive(tx.conn, user_id)?
        && row.state == CheckoutState::Started
    {
        end(tx, row.id, CheckoutState::Failed)?;
    }
    Ok(store::erase(tx.conn, user_id)?)
}

async fn audit(
    state: Arc<CartState>,
    _: RequestContext,
    request: CheckInvariants,
) -> Result<InvariantReport, CommonError> {
    state.store.audit(request, store::invariants::INVARIANTS).await
}

async fn audit_checkouts(
    state: Arc<CartState>,
    _: RequestContext,
    request: ListCheckoutFacts,
) -> Result<Vec<CheckoutFacts>, CommonError> {
    state.store.read(move |conn| Ok(store::invariants::checkouts(conn, request.which)?)).await
}
