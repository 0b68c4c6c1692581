//! Users: accounts, authentication and roles.
//!
//! Contains: accounts and guests, passwords as argon2id hashes, sessions, API keys, and the mailed links that verify an
//! address or reset a password. Does not contain: carts, orders or other data of a user (their domains subscribe to
//! [`UserErased`]), the sending of e-mails, HTTP and its cookies. Invariant: no password and no bearer token is stored
//! in a usable form.
//! Calls: no other domain. Called by: the gateway, for every request with a token ([`Authenticate`]). Emits:
//! [`UserRegistered`], [`UserChanged`], [`UserErased`], [`AccessChanged`], and requests for e-mails. Subscribes to paid
//! invoices, so that only guests that bought nothing are erased.
//! While this domain is down, authenticated requests fail; anonymous browsing works.
//!
//! The address of an erased user stays in events for a week, until those are pruned; stored responses that show the user
//! are blanked.

mod actor;
mod addresses;
mod api_keys;
mod email_links;
mod fair_queue;
mod guests;
mod model;
mod password_hasher;
mod schema;
mod second_factor;
mod security_notices;
mod sign_in;
mod sign_in_throttle;
mod signing_secret;
mod store;
mod token_cache;
mod tokens;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::{Migrations, OpenError};

use crate::contract::users::*;
pub use actor::UsersActor;
use actor::UsersState;
pub use guests::SUBSCRIPTIONS;
/// Name of the file in the data folder that holds the signing secret; part of a backup.
pub use signing_secret::SECRET_FILE;
pub use signing_secret::fingerprint as secret_fingerprint;

crate::impl_from_storage_error!(UsersError);

/// Schema migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/users/sqlite"),
    postgres: embed_migrations!("migrations/users/postgres"),
};

/// Opens the domain.
///
/// # Errors
/// The database cannot be opened, or the signing secret cannot be read or created.
pub fn open(runtime: &DomainRuntime) -> Result<RunningDomain<UsersActor>, OpenError> {
    let state = open_state(runtime)?;
    let store = state.store.clone();
    Ok(RunningDomain { client: runtime.start("users", move || UsersActor { state }), store })
}

fn open_state(runtime: &DomainRuntime) -> Result<Arc<UsersState>, OpenError> {
    let secret = signing_secret::load(&runtime.settings)
        .map_err(|signing_secret::SecretError { file, reason }| OpenError { domain: "users", file, reason })?;
    let store = runtime.store("users", MIGRATIONS)?;
    Ok(Arc::new(UsersState::new(store, &secret, &runtime.settings)))
}

#[cfg(test)]
mod tests;
