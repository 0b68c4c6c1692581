//! Stats: what happened in the shop, written down and counted.
//!
//! Lives here: the action log, figures for each hour and day (UTC), what each product brought, the count of requests
//! served. Never enters: names, addresses or card data; figures that another domain could be asked for right now;
//! HTTP; SQL outside `store`.
//! Asks: nobody. Hears of accounts, carts and paid or refunded invoices. Announces: nothing.
//! While this domain is down: the shop sells as ever; the events wait in the outboxes of those who sent them, and
//! each is counted in its own hour when it arrives, once.
//!
//! Totals are kept for ever; actions for `stats.keep_days`. When a user is erased, their actions stay as counts of
//! what was done, without who and without data.

mod actor;
mod model;
mod schema;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::messaging::Event;
use crate::runtime::{DomainRuntime, RunningDomain};
use crate::store::OpenError;

use crate::contract::stats::*;
pub use actor::StatsActor;
pub use store::MIGRATIONS;

/// The events of other domains that this one wants to hear of.
pub const SUBSCRIPTIONS: &[&str] = &[
    crate::contract::users::UserRegistered::NAME,
    crate::contract::users::UserErased::NAME,
    crate::contract::cart::CartStarted::NAME,
    crate::contract::payments::InvoicePaid::NAME,
    crate::contract::payments::InvoiceRefunded::NAME,
];

/// Opens the domain.
pub fn open(ground: &DomainRuntime) -> Result<RunningDomain<StatsActor>, OpenError> {
    let store = ground.store("stats", MIGRATIONS)?;
    let state = Arc::new(actor::StatsState { store: store.clone(), settings: Arc::clone(&ground.settings) });
    Ok(RunningDomain { client: ground.start("stats", move || StatsActor { state }), store })
}
