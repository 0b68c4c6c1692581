//! Replacement of the payment provider by tests, for all shops opened on the current thread.

use std::cell::RefCell;
use std::sync::Arc;

use super::provider::PaymentProvider;

/// Makes the provider of a shop that is being opened.
pub type ProviderFactory = Arc<dyn Fn() -> Box<dyn PaymentProvider>>;

thread_local! {
    static FACTORY: RefCell<Option<ProviderFactory>> = const { RefCell::new(None) };
}

/// Sets or removes the provider of shops that are opened on the current thread.
pub fn set_test_provider(factory: Option<ProviderFactory>) {
    FACTORY.with(|current| *current.borrow_mut() = factory);
}

/// Returns the replacement set on the current thread.
pub fn test_provider() -> Option<ProviderFactory> {
    FACTORY.with(|current| current.borrow().clone())
}
