//! Cart: what a buyer means to buy, before any money moves.
//!
//! Lives here: lines and quantities, the price the buyer was shown, and the walk from cart to invoice. Never enters:
//! prices of its own (the catalog's hold), stock, card data, mail, SQL outside `store`.
//! Asks: catalog, payments. Is asked by: web. Hears: what becomes of an invoice, that a person was erased.
//! Announces: that an empty cart got its first line.
//!
//! A checkout is a row that remembers how far it came, and each step is idempotent by ids that its first transaction
//! fixed; see [`checkout`]. While one runs, the cart is frozen: what is charged is what was in it.

mod actor;
mod checkout;
mod model;
mod schema;
mod store;
#[cfg(test)]
mod tests;

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

/// The steps of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/cart/sqlite"),
    postgres: embed_migrations!("migrations/cart/postgres"),
};

/// Opens the domain, which asks `catalog` and `payments`.
///
/// # Errors
/// When its database cannot be opened.
pub fn open(
    ground: &DomainRuntime,
    catalog: Client<CatalogActor>,
    payments: Client<PaymentsActor>,
) -> Result<RunningDomain<CartActor>, OpenError> {
    let store = ground.store("cart", MIGRATIONS)?;
    let state = Arc::new(CartState {
        store: store.clone(),
        catalog,
        payments,
        currency: ground.settings.shop.currency,
        lifetime: ground.settings.payments.invoice_lifetime,
        under_way: Default::default(),
    });
    Ok(RunningDomain { client: ground.start("cart", move || CartActor { state }), store })
}
