//! Notifications: a durable stream per user, and pushes for live sessions.
//!
//! Contains: the streams with their sequence numbers (1, 2, 3, ... without gaps, under an epoch that identifies the
//! history), their retention, the texts of notifications, and the [`Feed`] of pushes that live sessions subscribe to.
//! Does not contain: sockets and sessions (web), access to topics (web asks users), mail (mailer).
//!
//! Calls no other domain; is called by the gateway. Subscribes to users, payments, catalog, comments, cart and mailer.
//! Emits no events, only pushes: each once, after its notification is durable, in the order of the commits.

mod actor;
mod broadcast;
mod model;
mod ordered_publisher;
mod schema;
mod store;

use std::sync::Arc;

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::OpenError;

use crate::contract::notifications::*;
pub use actor::NotificationsActor;
pub use broadcast::{Feed, Push};
pub use model::SUBSCRIPTIONS;
pub use store::MIGRATIONS;

crate::impl_from_storage_error!(NotificationsError);

/// Opens the database and starts the actor. Pushes go out on `feed`.
///
/// # Errors
/// If the database cannot be opened or migrated.
pub fn open(runtime: &DomainRuntime, feed: Feed) -> Result<RunningDomain<NotificationsActor>, OpenError> {
    let store = runtime.store("notifications", MIGRATIONS)?;
    if !store.is_sole_process() && !store.is_auxiliary() {
        log::warn!(
            "notifications: another process has the database open too; live pushes reach only the sessions of the \
             process that receives an event first, the others read them back on reconnect: run this domain once"
        );
    }
    let (publisher, keep) =
        (Arc::new(ordered_publisher::OrderedPublisher::new(feed)), runtime.settings.notifications.keep);
    let state = Arc::new(actor::NotificationsState { store: store.clone(), publisher, keep });
    let client = runtime.start("notifications", move || NotificationsActor { state });
    Ok(RunningDomain { client, store })
}

/// Replaces the epoch in a database file that no process has open, because a restore may have lost notifications that
/// sessions have seen.
///
/// # Errors
/// Describes why the file cannot be changed.
pub fn rotate_epoch(file: &std::path::Path) -> Result<(), String> {
    crate::store::modify_offline(file, store::rotate_epoch)
}

#[cfg(test)]
mod tests;
