//! Payments: invoices, and the money for them.
//!
//! Lives here: what a buyer owes, how it was paid, what went back, and who takes the money. Never enters: stock,
//! carts, mail, the buyer's card (only the provider's token for it, which is not kept), SQL outside `store`.
//! Asks: nobody in the shop. Is asked by: web, cart. Hears: that a sale could not be kept (the money goes back),
//! that a person was erased (invoices stay for the books, the address goes).
//! Announces: invoices made, paid, expired, voided, refunded; payments failed.
//!
//! Money moves in three steps: a try is committed as `processing`, the provider is asked under the try's own key,
//! and the outcome is committed with its event and its answer. After a crash or a silence in the middle, whoever
//! finds the try asks the provider by that key; see [`processing`].

mod actor;
mod model;
mod processing;
mod provider;
#[cfg(feature = "test-hooks")]
mod provider_override;
mod schema;
mod store;
mod stripe;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::Provider;
use crate::store::{Migrations, OpenError, Store};

use crate::contract::payments::*;
pub use actor::PaymentsActor;

/// For tests, which have providers of their own.
#[cfg(feature = "test-hooks")]
pub use provider::{
    Charge, ChargeOutcome, ChargeStatus, PaymentProvider, ProviderEvent, ProviderEventKind, RefundOutcome,
    RefundRequest, WebhookError,
};

#[cfg(feature = "test-hooks")]
pub use provider_override::set_test_provider;

use processing::PaymentsState;
#[cfg(not(feature = "test-hooks"))]
use provider::PaymentProvider;
use provider::TestProvider;
use stripe::StripeProvider;

crate::impl_from_storage_error!(PaymentsError);

/// The steps of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/payments/sqlite"),
    postgres: embed_migrations!("migrations/payments/postgres"),
};

/// The events of other domains that this one wants to hear of.
pub const SUBSCRIPTIONS: &[&str] = &["catalog.sale_refused", "users.user_erased"];

/// Opens the domain.
///
/// # Errors
/// When its database cannot be opened, or the provider's settings cannot be used.
pub fn open(ground: &DomainRuntime) -> Result<RunningDomain<PaymentsActor>, OpenError> {
    #[cfg(feature = "test-hooks")]
    if let Some(new_provider) = provider_override::test_provider() {
        return open_with(ground, |_| Ok(new_provider()));
    }
    let settings = &ground.settings.payments;
    open_with(ground, |store| match settings.provider {
        Provider::Test => Ok(Box::new(TestProvider::new(store))),
        Provider::Stripe => match StripeProvider::new(&settings.stripe, store) {
            Ok(stripe) => Ok(Box::new(stripe)),
            Err(wrong) => Err(OpenError::setting("payments", "payments.stripe_secret_key", wrong)),
        },
    })
}

/// Opens the domain with a provider of one's own.
fn open_with(
    ground: &DomainRuntime,
    provider: impl FnOnce(Store) -> Result<Box<dyn PaymentProvider>, OpenError>,
) -> Result<RunningDomain<PaymentsActor>, OpenError> {
    let store = ground.store("payments", MIGRATIONS)?;
    let lifetime = ground.settings.payments.invoice_lifetime;
    let state = Arc::new(PaymentsState::new(store.clone(), provider(store.clone())?, lifetime));
    Ok(RunningDomain { client: ground.start("payments", move || PaymentsActor { state }), store })
}
