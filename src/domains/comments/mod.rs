//! Comments: what customers say of products.
//!
//! Lives here: ratings with words, one a customer and product; what their authors are called, as the users domain
//! tells it; the sum and number of each product's ratings. Never enters: products (Catalog), accounts (Users), the
//! mean that is shown with a product (Catalog makes it of the sums told here).
//! Asks: Catalog. Is asked by: web. Announces: `comments.comment_added`, `comments.rating_changed`.

mod actor;
mod model;
mod schema;
mod store;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::messaging::Client;
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::{Migrations, OpenError};

use crate::contract::comments::*;
pub use actor::CommentsActor;

crate::impl_from_storage_error!(CommentsError);

/// The steps of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/comments/sqlite"),
    postgres: embed_migrations!("migrations/comments/postgres"),
};

/// The events of other domains that this one wants to hear of.
pub const SUBSCRIPTIONS: &[&str] = &["users.user_registered", "users.user_changed", "users.user_erased"];

/// Opens the domain.
pub fn open(
    ground: &DomainRuntime,
    catalog: Client<crate::domains::catalog::CatalogActor>,
) -> Result<RunningDomain<CommentsActor>, OpenError> {
    let store = ground.store("comments", MIGRATIONS)?;
    let state = Arc::new(actor::CommentsState { store: store.clone(), catalog });
    let client = ground.start("comments", move || CommentsActor { state });
    Ok(RunningDomain { client, store })
}

#[cfg(test)]
mod tests;
