//! Payments: invoices, and the money for them.
//!
//! Contains: invoices, payment attempts, refunds, the payment providers. Does not contain: stock, carts, email, card
//! data (only the provider's token, which is not stored), SQL outside the `store` modules.
//! Calls no other domain. Is called by: web, cart. Subscribes to: [`SaleRefused`] (the money is refunded) and
//! [`UserErased`] (the addresses are cleared; invoices stay for accounting).
//! Publishes: invoices created, paid, expired, voided, refunded; failed payment attempts; disputes.
//!
//! Money moves in three steps: an attempt is committed as `processing`, the provider is called under the attempt's key,
//! and the outcome is committed with its event and its response. After a crash or a lost response, reconciliation
//! queries the provider by that key. What happens at the provider's side, refunds in its dashboard and disputes, arrives
//! by webhook and is recorded here. See [`attempts`], [`refunds`] and [`reconcile`].
//!
//! [`SaleRefused`]: crate::contract::catalog::SaleRefused
//! [`UserErased`]: crate::contract::users::UserErased

mod actor;
mod attempts;
mod model;
mod provider;
#[cfg(feature = "test-hooks")]
mod provider_override;
mod reconcile;
mod refunds;
mod schema;
mod state;
mod store;
mod stripe;
mod test_provider;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use diesel_migrations::embed_migrations;

use crate::runtime::{DomainRuntime, RunningDomain};
use crate::settings::Provider;
use crate::store::{Migrations, OpenError, Store};

use crate::contract::payments::*;
pub use actor::{PaymentsActor, SUBSCRIPTIONS};

/// Interface of a payment provider, for tests with providers of their own.
#[cfg(feature = "test-hooks")]
pub use provider::{
    Charge, ChargeOutcome, ChargeStatus, PaymentProvider, ProviderDispute, ProviderEvent, ProviderEventKind,
    ProviderRefund, ProviderUnavailable, RefundOutcome, RefundRequest, WebhookError,
};

#[cfg(feature = "test-hooks")]
pub use provider_override::set_test_provider;

#[cfg(not(feature = "test-hooks"))]
use provider::PaymentProvider;
use state::PaymentsState;
use stripe::StripeProvider;
use test_provider::TestProvider;

crate::impl_from_storage_error!(PaymentsError);

/// Migrations of this domain's database.
pub const MIGRATIONS: Migrations = Migrations {
    sqlite: embed_migrations!("migrations/payments/sqlite"),
    postgres: embed_migrations!("migrations/payments/postgres"),
};

/// Opens the domain.
///
/// # Errors
/// If the database cannot be opened, or a setting of the provider is invalid.
pub fn open(runtime: &DomainRuntime) -> Result<RunningDomain<PaymentsActor>, OpenError> {
    #[cfg(feature = "test-hooks")]
    if let Some(new_provider) = provider_override::test_provider() {
        return open_with(runtime, |_| Ok(new_provider()));
    }
    let settings = &runtime.settings.payments;
    open_with(runtime, |store| match settings.provider {
        Provider::Test => Ok(Box::new(TestProvider::new(store))),
        Provider::Stripe => match StripeProvider::new(&settings.stripe, store) {
            Ok(stripe) => Ok(Box::new(stripe)),
            Err(reason) => Err(OpenError::setting("payments", "payments.stripe_secret_key", reason)),
        },
    })
}

/// Opens the domain with a given provider.
fn open_with(
    runtime: &DomainRuntime,
    provider: impl FnOnce(Store) -> Result<Box<dyn PaymentProvider>, OpenError>,
) -> Result<RunningDomain<PaymentsActor>, OpenError> {
    let store = runtime.store("payments", MIGRATIONS)?;
    let lifetime = runtime.settings.payments.invoice_lifetime;
    let state = Arc::new(PaymentsState::new(store.clone(), provider(store.clone())?, lifetime));
    Ok(RunningDomain { client: runtime.start("payments", move || PaymentsActor { state }), store })
}
