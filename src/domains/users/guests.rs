//! Erasure of guests that bought nothing: anyone can make guests, and each has rows in several domains.
//!
//! A guest has no password, so once its session has ended it cannot come back. One that has bought something is a customer
//! of the shop and is kept.

use std::sync::Arc;
use std::time::Duration;

use super::actor::UsersState;
use super::store;
use super::{AccessChanged, UserErased, UsersError};
use crate::contract::payments::InvoicePaid;
use crate::messaging::{CommonError, DeliverEvents, RequestContext, Role};
use crate::settings::UsersSettings;
use crate::store::Tx;
use crate::types::UserId;

/// Time after the end of a guest's session in which a payment that it began can still be completed.
const SETTLEMENT: Duration = Duration::from_secs(2 * 86_400);
/// Guests erased per transaction, so that other writes do not wait.
const ERASE_BATCH: i64 = 100;
/// Transactions per purge at most.
const ERASE_ROUNDS: usize = 1_000;

/// Age at which a guest that bought nothing is erased: the configured one, but never while its session may be alive.
pub fn erase_after(settings: &UsersSettings) -> Duration {
    settings.guest.max(settings.session.saturating_add(SETTLEMENT))
}

/// Erases the guests that bought nothing and whose time is over.
pub async fn erase_unbought(state: &UsersState) -> Result<(), UsersError> {
    let age = state.erase_guests_after;
    for _ in 0..ERASE_ROUNDS {
        let erased = state.store.write(move |tx| erase_batch(tx, age)).await?;
        erased.iter().for_each(|guest| state.token_cache.invalidate_user(*guest));
        if erased.is_empty() {
            break;
        }
    }
    Ok(())
}

fn erase_batch(tx: &mut Tx<'_>, age: Duration) -> Result<Vec<UserId>, UsersError> {
    let guests = store::unbought_guests(tx.conn, tx.now.saturating_sub(age), ERASE_BATCH)?;
    for guest in &guests {
        // One that has registered meanwhile keeps its account.
        if store::find_by_id(tx.conn, *guest)?.is_some_and(|account| account.role == Role::Guest) {
            store::delete(tx.conn, *guest)?;
            tx.emit(&UserErased { user_id: *guest, email: None })?;
            tx.emit(&AccessChanged { user_id: *guest, session_id: None })?;
        }
        store::keep_guest(tx.conn, *guest)?;
    }
    Ok(guests)
}

crate::event_handlers! {
    /// Keeps guests that buy.
    fn apply_event(tx: &mut Tx<'_>) -> Result<(), CommonError>;
    InvoicePaid => on_invoice_paid,
}

fn on_invoice_paid(tx: &mut Tx<'_>, event: InvoicePaid) -> Result<(), CommonError> {
    Ok(store::keep_guest(tx.conn, event.invoice.user_id)?)
}

/// Applies events of other domains.
pub async fn on_events(state: Arc<UsersState>, _: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
    state.store.consume(request.events, apply_event).await
}
