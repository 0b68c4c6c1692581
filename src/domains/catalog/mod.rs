//! Catalog: products and their stock.
//!
//! Contains: products and their variants, search, images, rating sums, stock and the holds on it. Does not contain:
//! carts, invoices, payments, the text of comments, buyers, HTTP. Invariant: the stock of a product is the sum of its
//! stock moves and never negative.
//! Calls: no other domain. Called by: web, cart, comments, the command line. Emits: [`ProductChanged`],
//! [`BackInStock`], [`LowStock`], [`SaleRefused`].
//! While this domain is down: accounts, payment of open invoices, e-mails and past orders still work.
//!
//! # Consistency
//! Products and pages of lists are cached. What this process changes is removed from the cache before the change is
//! durable and cached again only after, so no read is older than one before it. What another process changes in the
//! same database (an import by the command line) is removed when its [`ProductChanged`] arrives, within a second. Holds
//! always read the database.

mod actor;
mod cache;
mod image_handlers;
pub mod image_processing;
pub mod import_export;
mod list_handlers;
mod model;
mod schema;
mod store;
mod suggestions;
#[cfg(test)]
mod tests;
mod text_search;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::{Migrations, OpenError};

use crate::contract::catalog::*;
pub use actor::{CatalogActor, SUBSCRIPTIONS};
pub use store::rebuild_search_index;

crate::impl_from_storage_error!(CatalogError);

/// Schema migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/catalog/sqlite"),
    postgres: embed_migrations!("migrations/catalog/postgres"),
};

/// Opens the domain.
///
/// # Errors
/// The database cannot be opened.
pub fn open(runtime: &DomainRuntime) -> Result<RunningDomain<CatalogActor>, OpenError> {
    let store = runtime.store("catalog", MIGRATIONS)?;
    let state = Arc::new(actor::CatalogState::new(store.clone(), &runtime.settings.catalog));
    Ok(RunningDomain { client: runtime.start("catalog", move || CatalogActor { state }), store })
}
