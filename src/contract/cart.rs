//! Requests, replies, events and errors of the cart domain. Contains no behaviour beyond their error kinds.

use serde::{Deserialize, Serialize};

use crate::contract::payments::Invoice;
use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{
    Amount, CartItemId, CheckoutId, Currency, FieldError, HoldId, InvoiceId, PostalAddress, ProductId, Quantity, UserId,
};

/// A cart line at the current price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartItem {
    /// Id of the line; it stays while the quantity changes.
    pub id: CartItemId,
    /// Product that the line is for.
    pub product_id: ProductId,
    /// Product name with its options; the last known one when the product is no longer sold.
    pub name: String,
    /// Product name in the form used in links.
    pub slug: String,
    /// Number of units, 1 to 10,000.
    pub quantity: Quantity,
    /// Current price of one unit, in minor units of `currency`.
    pub unit_price: Amount,
    /// `unit_price` times `quantity`, in minor units of `currency`.
    pub total: Amount,
    /// Currency of all amounts of the line.
    pub currency: Currency,
    /// Path of the smallest image; `null` when the product has none.
    pub image: Option<String>,
    /// Difference to the state at which the line was last changed; `null` when there is none.
    pub changed: Option<Change>,
    /// Price of one unit when the line was last changed, in minor units of `currency`.
    pub added_unit_price: Amount,
}

/// Difference between a cart line and the product as it is sold now. When several apply, the last of them is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// The price went up or down.
    Price,
    /// Fewer units are left than the line has.
    Stock,
    /// The product is no longer sold, or only in another currency.
    Unavailable,
}

/// The cart of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cart {
    /// Lines in the order in which they were added, at most 100.
    pub items: Vec<CartItem>,
    /// Sum of the lines that can be bought now, in minor units of `currency`; discounts, tax and shipping are not part
    /// of it.
    pub total: Amount,
    /// Currency of `total`; the shop's default currency when the cart is empty.
    pub currency: Currency,
    /// Number of units in all lines.
    pub count: Quantity,
    /// Invoice of the checkout in progress. The cart is read-only until it is paid, expires or is voided.
    pub invoice_id: Option<InvoiceId>,
}

/// Adds units of a product to a cart. A product that is in the cart already keeps its line, and the quantities add up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddItem {
    /// Owner of the cart.
    pub user_id: UserId,
    /// Product to add.
    pub product_id: ProductId,
    /// Number of units to add, 1 to 10,000.
    pub quantity: Quantity,
}

/// Reads one line of a cart at the current price.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetItem {
    /// Owner of the cart.
    pub user_id: UserId,
    /// Line to read.
    pub item_id: CartItemId,
}

/// Sets the quantity of a line; 0 removes it. The line takes the current price.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetQuantity {
    /// Owner of the cart.
    pub user_id: UserId,
    /// Line to change.
    pub item_id: CartItemId,
    /// Number of units, 0 to 10,000.
    pub quantity: Quantity,
}

/// Removes a line from a cart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveItem {
    /// Owner of the cart.
    pub user_id: UserId,
    /// Line to remove.
    pub item_id: CartItemId,
}

/// Reads a cart at current prices.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetCart {
    /// Owner of the cart.
    pub user_id: UserId,
}

/// Turns a cart into an invoice. Its stock is reserved until the invoice is paid, expires or is voided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkout {
    /// Owner of the cart.
    pub user_id: UserId,
    /// Address for the receipt. Required from guests; defaults to the user's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Address that the goods are delivered to, as it is printed on the invoice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping_address: Option<PostalAddress>,
    /// Address that the invoice is made out to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing_address: Option<PostalAddress>,
    /// Message to the shop, at most 2,000 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Cancels the checkout in progress: voids the invoice, releases the stock and unlocks the cart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelCheckout {
    /// Owner of the cart.
    pub user_id: UserId,
}

/// Moves the lines of a guest's cart to the cart of the account that the guest has signed in to. Quantities of a product that
/// both have add up. Lines that do not fit stay with the guest: above the limits of a cart, in another currency, or while a
/// checkout locks the account's cart. A guest's cart that awaits its payment stays as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MergeCart {
    /// Guest.
    pub guest_id: UserId,
    /// Account.
    pub user_id: UserId,
}

/// Result of a [`MergeCart`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedCart {
    /// Number of lines that were moved.
    pub moved: u32,
    /// Names of the products whose lines stay with the guest.
    pub left: Vec<String>,
}

crate::requests! { CartError;
    "cart.MergeCart": MergeCart => MergedCart, retry, |_| Access::Internal;
    "cart.AddItem": AddItem => CartItem, once, |this| Access::Owner(this.user_id);
    "cart.GetItem": GetItem => CartItem, read, |this| Access::Owner(this.user_id);
    "cart.SetQuantity": SetQuantity => Option<CartItem>, retry, |this| Access::Owner(this.user_id);
    "cart.RemoveItem": RemoveItem => (), retry, |this| Access::Owner(this.user_id);
    "cart.GetCart": GetCart => Cart, read, |this| Access::Owner(this.user_id);
    "cart.Checkout": Checkout => Invoice, once, |this| Access::Owner(this.user_id);
    "cart.CancelCheckout": CancelCheckout => (), retry, |this| Access::Owner(this.user_id);
}

/// An empty cart received its first line. Conversion is counted against this event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CartStarted {
    /// Owner of the cart.
    pub user_id: UserId,
}

crate::events! { pub const EVENTS;
    "cart.cart_started": CartStarted;
}

/// Lists what `mercat check` compares between checkouts and other domains.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListCheckoutFacts {
    /// Checkouts to report on.
    pub which: crate::messaging::Selection<CheckoutId>,
}

/// Facts of a checkout that must agree with the data of other domains.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckoutFacts {
    /// Id of the checkout.
    pub checkout: CheckoutId,
    /// One of `started`, `held`, `invoiced`, `paid`, `cancelled`, `failed`.
    pub state: String,
    /// Stock hold that the checkout made or was to make.
    pub hold: HoldId,
    /// Invoice of the checkout, once its creation was confirmed.
    pub invoice_id: Option<InvoiceId>,
    /// Whether the stock hold still has to be released.
    pub release_due: bool,
}

crate::requests! { crate::messaging::CommonError;
    "cart.ListCheckoutFacts": ListCheckoutFacts => Vec<CheckoutFacts>, read, |_| Access::Internal;
}

/// Errors of the cart domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CartError {
    /// The product does not exist or is no longer sold.
    #[error("there is no such product, or it is no longer for sale")]
    ProductNotFound,
    /// The cart has no such line.
    #[error("there is no such item in this cart")]
    ItemNotFound,
    /// Fewer units are left than requested.
    #[error("only {left} left in stock")]
    OutOfStock {
        /// Product that is short.
        product_id: ProductId,
        /// Units that can still be bought.
        left: Quantity,
    },
    /// The product is sold in another currency than the cart; a cart has one currency.
    #[error("this cart is in {currency}; check it out first, or empty it")]
    CurrencyMismatch {
        /// Currency of the cart.
        currency: Currency,
    },
    /// The cart has no lines to check out.
    #[error("the cart is empty")]
    CartEmpty,
    /// The cart has the maximum number of lines.
    #[error("a cart can have at most {max} different products")]
    CartFull {
        /// Maximum number of lines of a cart.
        max: u32,
    },
    /// A checkout in progress locks the cart.
    #[error("a checkout of this cart is in progress: pay its invoice or cancel the checkout first")]
    CheckoutInProgress {
        /// Invoice of that checkout, once there is one.
        invoice_id: Option<InvoiceId>,
    },
    /// The stock hold expired before the checkout was complete.
    #[error("the reservation of this checkout has expired; check out again")]
    CheckoutExpired,
    /// The buyer, or the network, has many orders that are open or were not paid in time.
    #[error("there are {max} unpaid orders already: pay or cancel one, or try again later")]
    TooManyUnpaidOrders {
        /// Most unpaid orders.
        max: u32,
    },
    /// The cart has no checkout that can be cancelled: there is none, or it is paid.
    #[error("this cart has no checkout to cancel")]
    NoCheckout,
    /// An error common to all domains.
    #[error(transparent)]
    #[serde(untagged)]
    Common(#[from] CommonError),
}

crate::impl_from_common_errors!(CartError);

impl DomainError for CartError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::ProductNotFound | Self::ItemNotFound => ErrorKind::NotFound,
            Self::OutOfStock { .. }
            | Self::CurrencyMismatch { .. }
            | Self::CartEmpty
            | Self::CartFull { .. }
            | Self::CheckoutInProgress { .. }
            | Self::CheckoutExpired
            | Self::TooManyUnpaidOrders { .. }
            | Self::NoCheckout => ErrorKind::Conflict,
            Self::Common(error) => error.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(error) => error.fields(),
            _ => &[],
        }
    }
}
