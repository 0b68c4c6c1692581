//! Notifications: what a user is told, in order and without gaps, and what goes out live.
//!
//! Lives here: a durable stream for each user (places 1, 2, 3, ... under an epoch that names the history), its
//! retention, the words of what is told, and the [`Feed`] of pushes that the live sessions listen to. Never enters:
//! sockets and sessions (web), whether a person may see a topic (web asks Users), mail (Mailer).
//! Hears of: users, payments, catalog, comments, cart, mailer. Asks nobody. Is asked by: web. Announces nothing but
//! pushes, which are told once, after they are durable, in the order of their commits.

mod actor;
mod broadcast;
mod model;
mod ordered_publisher;
mod schema;
mod store;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::{Migrations, OpenError};

use crate::contract::notifications::*;
pub use actor::NotificationsActor;
pub use broadcast::{Feed, Push};

crate::impl_from_storage_error!(NotificationsError);

/// The steps of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/notifications/sqlite"),
    postgres: embed_migrations!("migrations/notifications/postgres"),
};

/// The events of other domains that this one wants to hear of.
pub const SUBSCRIPTIONS: &[&str] = &[
    "users.user_registered",
    "users.user_erased",
    "users.access_changed",
    "payments.invoice_created",
    "payments.invoice_paid",
    "payments.payment_failed",
    "payments.invoice_expired",
    "payments.invoice_voided",
    "payments.invoice_refunded",
    "catalog.product_changed",
    "catalog.back_in_stock",
    "catalog.low_stock",
    "comments.comment_added",
    "cart.cart_started",
    "mailer.email_changed",
    "mailer.email_failed",
];

/// Opens the domain; what it tells goes out live on `feed`.
pub fn open(ground: &DomainRuntime, feed: Feed) -> Result<RunningDomain<NotificationsActor>, OpenError> {
    let store = ground.store("notifications", MIGRATIONS)?;
    if !store.is_sole_process() && !store.is_auxiliary() {
        log::warn!(
            "notifications: another mercat has them open too; what happens live is shown only by the process that \
             hears of it first, and read back by the others when a listener comes again: run them in one process"
        );
    }
    let (outlet, keep) = (Arc::new(ordered_publisher::OrderedPublisher::new(feed)), ground.settings.notifications.keep);
    let state = Arc::new(actor::NotificationsState { store: store.clone(), outlet, keep });
    let client = ground.start("notifications", move || NotificationsActor { state });
    Ok(RunningDomain { client, store })
}

/// Gives the history in a database that nobody has open another name: it is not the one that listeners know, because
/// some of it may be lost. For a restore.
///
/// # Errors
/// Says what is wrong with the file.
pub fn begin_new_history(file: &std::path::Path) -> Result<(), String> {
    crate::store::change(file, store::new_epoch)
}

#[cfg(test)]
mod tests;
