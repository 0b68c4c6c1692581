//! Users: who people are and what they may do.
//!
//! Lives here: accounts and guests, passwords as argon2id hashes, sign-ins, API keys, the links that are mailed to
//! prove an address or to set a password anew. Never enters: a cart, an order or anything else that belongs to a
//! person (their domains hear [`UserErased`]), the sending of mail, HTTP and its cookies, a password or bearer token
//! in a form that could be used.
//! Asks: nobody. Is asked by: the gateway, at every request ([`Authenticate`]). Announces: [`UserRegistered`],
//! [`UserChanged`], [`UserErased`], [`AccessChanged`], and the mails it wants sent.
//! While this domain is down nobody who is not anonymous gets past the gateway; browsing goes on.
//!
//! Two things outlive what they are about. The token of a mailed link travels in its event, so it lies in the outbox
//! until events are tidied away; it is good once and for as long as its link. And an erased person's address is in
//! events (a week) and answers kept under an idempotency key (a day) until those are tidied away.

mod actor;
mod model;
mod password_hasher;
mod schema;
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
/// The file of the data folder with the secret that signs tokens; a backup has it too.
pub use signing_secret::FILE as SECRET_FILE;
pub use signing_secret::mark as secret_mark;

/// The events of other domains that this one wants to hear of.
pub const SUBSCRIPTIONS: &[&str] = &[];

crate::impl_from_storage_error!(UsersError);

/// The steps that bring this domain's database to this version.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/users/sqlite"),
    postgres: embed_migrations!("migrations/users/postgres"),
};

/// Opens the domain.
///
/// # Errors
/// When the database or the secret that signs tokens cannot be had.
pub fn open(ground: &DomainRuntime) -> Result<RunningDomain<UsersActor>, OpenError> {
    let state = open_room(ground)?;
    let store = state.store.clone();
    Ok(RunningDomain { client: ground.start("users", move || UsersActor { state }), store })
}

fn open_room(ground: &DomainRuntime) -> Result<Arc<UsersState>, OpenError> {
    let secret = signing_secret::load(&ground.settings)
        .map_err(|signing_secret::SecretError { file, reason }| OpenError { domain: "users", file, reason })?;
    let store = ground.store("users", MIGRATIONS)?;
    Ok(Arc::new(UsersState::new(store, &secret, &ground.settings.users)))
}

#[cfg(test)]
mod tests;
