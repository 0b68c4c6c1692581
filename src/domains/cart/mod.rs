//! Cart: the lines that a buyer has collected, and the checkout that turns them into an invoice.
//!
//! Contains: lines and quantities, the price at which a line was last changed, the checkout saga, the merge of a guest's cart
//! at sign-in. Does not contain:
//! authoritative prices and stock (catalog), card data, email, SQL outside `store`.
//! Calls: catalog, payments. Is called by: web. Subscribes to: paid, expired and voided invoices, erased users.
//! Publishes: that an empty cart received its first line.
//!
//! A checkout is a row with its progress, and each step is idempotent by ids that its first transaction generated; see
//! [`checkout`]. While one is in progress, the cart is read-only: the buyer pays for exactly what was in it.

mod actor;
mod checkout;
mod merge;
mod model;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod unpaid_orders;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::domains::catalog::CatalogActor;
use crate::domains::payments::PaymentsActor;
use crate::messaging::Client;
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::{Migrations, OpenError};

use crate::contract::cart::*;
pub use actor::{CartActor, SUBSCRIPTIONS};

use checkout::CartState;

crate::impl_from_storage_error!(CartError);

/// Migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/cart/sqlite"),
    postgres: embed_migrations!("migrations/cart/postgres"),
};

/// Opens the domain, with clients for `catalog` and `payments`.
///
/// # Errors
/// If the database cannot be opened.
pub fn open(
    runtime: &DomainRuntime,
    catalog: Client<CatalogActor>,
    payments: Client<PaymentsActor>,
) -> Result<RunningDomain<CartActor>, OpenError> {
    let store = runtime.store("cart", MIGRATIONS)?;
    let state = Arc::new(CartState {
        store: store.clone(),
        catalog,
        payments,
        currency: runtime.settings.shop.currency,
        lifetime: runtime.settings.payments.invoice_lifetime,
        limits: runtime.settings.limits.clone(),
        in_flight: Default::default(),
    });
    Ok(RunningDomain { client: runtime.start("cart", move || CartActor { state }), store })
}
