//! Stats: the action log and totals of what happened in the shop.
//!
//! Contains: the action log, totals per hour and per day (UTC), sales per product, the count of served requests.
//! Does not contain: names, addresses or card data; totals that another domain can compute at any time; HTTP; SQL outside
//! `store`. Calls no other domain, subscribes to accounts, carts and paid or refunded invoices, and emits no events.
//!
//! While this domain is down the shop keeps selling: its events wait in their senders' outboxes. Each is counted once,
//! in the hour in which it happened, however late it arrives.
//!
//! Totals are kept permanently, actions for `stats.keep_days`. The actions of an erased user stay without user and data.

mod actor;
mod model;
mod schema;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::OpenError;

use crate::contract::stats::*;
pub use actor::{SUBSCRIPTIONS, StatsActor};
pub use store::MIGRATIONS;

/// Opens the database and starts the actor.
///
/// # Errors
/// If the database cannot be opened or migrated.
pub fn open(runtime: &DomainRuntime) -> Result<RunningDomain<StatsActor>, OpenError> {
    let store = runtime.store("stats", MIGRATIONS)?;
    let state = Arc::new(actor::StatsState { store: store.clone(), settings: Arc::clone(&runtime.settings) });
    Ok(RunningDomain { client: runtime.start("stats", move || StatsActor { state }), store })
}
