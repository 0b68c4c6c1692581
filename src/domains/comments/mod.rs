//! Comments: ratings and reviews of products by customers.
//!
//! Contains: comments, one per customer and product; the display names of their authors, as the users domain publishes
//! them; the sum and count of each product's ratings. Does not contain: products (catalog), accounts (users), the mean
//! rating shown with a product (the catalog computes it from the sums published here).
//!
//! Calls the catalog; is called by the gateway. Subscribes to users. Emits `comments.comment_added` and
//! `comments.rating_changed`. Invariant: a product's rating is the sum and count over its comments.

mod actor;
mod model;
mod schema;
mod store;

use std::sync::Arc;

use crate::messaging::Client;
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::OpenError;

use crate::contract::comments::*;
pub use actor::{CommentsActor, SUBSCRIPTIONS};
pub use store::MIGRATIONS;

crate::impl_from_storage_error!(CommentsError);

/// Opens the database and starts the actor.
///
/// # Errors
/// If the database cannot be opened or migrated.
pub fn open(
    runtime: &DomainRuntime,
    catalog: Client<crate::domains::catalog::CatalogActor>,
) -> Result<RunningDomain<CommentsActor>, OpenError> {
    let store = runtime.store("comments", MIGRATIONS)?;
    let state = Arc::new(actor::CommentsState { store: store.clone(), catalog });
    let client = runtime.start("comments", move || CommentsActor { state });
    Ok(RunningDomain { client, store })
}

#[cfg(test)]
mod tests;
