//! Catalog: what is for sale, and how much of it is left.
//!
//! Lives here: products and their variants, search, pictures, ratings as a number, stock and the holds on it.
//! Never enters: carts, invoices, money that moves, the text of a review, who a buyer is, HTTP.
//! Asks: nobody. Is asked by: web, cart, comments, the command line. Announces: [`ProductChanged`],
//! [`BackInStock`], [`LowStock`], [`SaleRefused`].
//! While this domain is down: accounts, paying open invoices, mail and reading what was bought still work.
//!
//! # What is fresh
//! Products and pages of lists are kept ready in memory. What this process changes is dropped from there before
//! the change is durable and may come back only after, so no read here is older than one before it. What another
//! process changes in the same database (an import by the command line) is dropped when its [`ProductChanged`]
//! arrives, which takes less than a second. Holds always read the database.

mod actor;
mod cache;
pub mod image_processing;
pub mod import_export;
mod model;
mod schema;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::contract::comments::RatingChanged;
use crate::contract::payments::{InvoiceExpired, InvoicePaid, InvoiceRefunded, InvoiceVoided};
use crate::messaging::Event as _;
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::{Migrations, OpenError};

use crate::contract::catalog::*;
pub use actor::CatalogActor;
pub use store::index_anew;

crate::impl_from_storage_error!(CatalogError);

/// The tables of this domain.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/catalog/sqlite"),
    postgres: embed_migrations!("migrations/catalog/postgres"),
};

/// The events that this domain wants to hear of. Its own are among them: another process may write to the same
/// database.
pub const SUBSCRIPTIONS: &[&str] = &[
    InvoicePaid::NAME,
    InvoiceExpired::NAME,
    InvoiceVoided::NAME,
    InvoiceRefunded::NAME,
    RatingChanged::NAME,
    ProductChanged::NAME,
];

/// Opens the domain.
pub fn open(ground: &DomainRuntime) -> Result<RunningDomain<CatalogActor>, OpenError> {
    let store = ground.store("catalog", MIGRATIONS)?;
    let state = Arc::new(actor::CatalogState::new(store.clone(), &ground.settings.catalog));
    Ok(RunningDomain { client: ground.start("catalog", move || CatalogActor { state }), store })
}
