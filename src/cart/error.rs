//! What can go wrong with a cart, in its own words.

use serde::{Deserialize, Serialize};

use crate::messaging::{DomainError, ErrorKind, Failure};
use crate::types::{Currency, FieldError, InvoiceId, ProductId, Quantity};

/// An error of the cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CartError {
    /// No such product, or no longer for sale.
    #[error("there is no such product, or it is no longer for sale")]
    ProductNotFound,
    /// No such line in this cart.
    #[error("there is no such item in this cart")]
    ItemNotFound,
    /// Fewer are left than were asked for.
    #[error("only {left} of this product can be bought now")]
    OutOfStock {
        /// Of what.
        product_id: ProductId,
        /// How many are left.
        left: Quantity,
    },
    /// One cart, one currency.
    #[error("everything in this cart is in {currency}; buy that first, or empty the cart")]
    CurrencyMismatch {
        /// What the cart is in.
        currency: Currency,
    },
    /// There is nothing to buy.
    #[error("the cart is empty")]
    CartEmpty,
    /// As many different products as a cart may hold.
    #[error("a cart can have at most {max} different products")]
    CartFull {
        /// How many.
        max: u32,
    },
    /// The cart waits for its invoice.
    #[error("a checkout of this cart is under way: pay its invoice, or cancel the checkout, and go on then")]
    CheckoutInProgress {
        /// Which invoice, once there is one.
        invoice_id: Option<InvoiceId>,
    },
    /// The time in which the checkout could be finished is over.
    #[error("the reservation of this checkout is gone; check out again")]
    CheckoutLapsed,
    /// There is no checkout to give up, or it is paid already.
    #[error("there is no checkout of this cart to cancel")]
    NoCheckout,
    /// What can happen to any request.
    #[error(transparent)]
    #[serde(untagged)]
    Failure(#[from] Failure),
}

crate::failures_become!(CartError);

impl DomainError for CartError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ProductNotFound | Self::ItemNotFound => ErrorKind::NotFound,
            Self::OutOfStock { .. }
            | Self::CurrencyMismatch { .. }
            | Self::CartEmpty
            | Self::CartFull { .. }
            | Self::CheckoutInProgress { .. }
            | Self::CheckoutLapsed
            | Self::NoCheckout => ErrorKind::Conflict,
            Self::Failure(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Failure(failure) => failure.fields(),
            _ => &[],
        }
    }
}
