//! What the cart can be asked, answers and announces.

use serde::{Deserialize, Serialize};

use crate::contract::payments::Invoice;
use crate::messaging::{CommonError, DomainError, ErrorKind};
use crate::types::{
    Amount, CartItemId, CheckoutId, Currency, FieldError, HoldId, InvoiceId, ProductId, Quantity, UserId,
};

/// A line of a cart, at today's price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CartItem {
    /// Which.
    pub id: CartItemId,
    /// Of what.
    pub product_id: ProductId,
    /// The product's name, with its options.
    pub name: String,
    /// The product's name in a link.
    pub slug: String,
    /// How many.
    pub quantity: Quantity,
    /// What one costs today, in minor units.
    pub unit_price: Amount,
    /// What all cost today, in minor units.
    pub total: Amount,
    /// Of the prices.
    pub currency: Currency,
    /// The smallest picture's path.
    pub image: Option<String>,
    /// What is different since it was put in; `null` when nothing is.
    pub changed: Option<Change>,
    /// What one cost when it was put in or last looked at by a change, in minor units.
    pub added_unit_price: Amount,
}

/// What is different with a line since it was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It costs more or less.
    Price,
    /// Fewer are left than are in the cart.
    Stock,
    /// It is no longer for sale.
    Unavailable,
}

/// A user's cart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cart {
    /// The lines, the first put in first.
    pub items: Vec<CartItem>,
    /// What all that is for sale costs today, in minor units.
    pub total: Amount,
    /// Of the total; the shop's own when the cart is empty.
    pub currency: Currency,
    /// How many pieces.
    pub count: Quantity,
    /// The invoice that waits to be paid; while there is one the cart cannot be changed.
    pub invoice_id: Option<InvoiceId>,
}

/// Puts a product into the cart; the same again adds up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddItem {
    /// Whose cart.
    pub user_id: UserId,
    /// What.
    pub product_id: ProductId,
    /// How many, 1 to 10,000.
    pub quantity: Quantity,
}

/// Reads one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetItem {
    /// Whose cart.
    pub user_id: UserId,
    /// Which.
    pub item_id: CartItemId,
}

/// Says how many of a line; none takes it out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetQuantity {
    /// Whose cart.
    pub user_id: UserId,
    /// Which.
    pub item_id: CartItemId,
    /// How many, 0 to 10,000.
    pub quantity: Quantity,
}

/// Takes a line out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemoveItem {
    /// Whose cart.
    pub user_id: UserId,
    /// Which.
    pub item_id: CartItemId,
}

/// Reads a cart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetCart {
    /// Whose.
    pub user_id: UserId,
}

/// Turns a cart into an invoice: its stock is set aside until the invoice is paid or runs out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkout {
    /// Whose cart.
    pub user_id: UserId,
    /// Where the receipt goes; a guest must say, others may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// Gives a checkout up: the invoice becomes void, the stock is let go, the cart can be changed again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelCheckout {
    /// Whose cart.
    pub user_id: UserId,
}

crate::requests! { CartError;
    "cart.AddItem": AddItem => CartItem, once, |this| Access::Owner(this.user_id);
    "cart.GetItem": GetItem => CartItem, retry, |this| Access::Owner(this.user_id);
    "cart.SetQuantity": SetQuantity => Option<CartItem>, retry, |this| Access::Owner(this.user_id);
    "cart.RemoveItem": RemoveItem => (), retry, |this| Access::Owner(this.user_id);
    "cart.GetCart": GetCart => Cart, retry, |this| Access::Owner(this.user_id);
    "cart.Checkout": Checkout => Invoice, once, |this| Access::Owner(this.user_id);
    "cart.CancelCheckout": CancelCheckout => (), retry, |this| Access::Owner(this.user_id);
}

/// An empty cart got its first line: what conversion is counted against.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CartStarted {
    /// Whose.
    pub user_id: UserId,
}

crate::events! {
    "cart.cart_started": CartStarted;
}

/// Tells facts about checkouts. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListCheckoutFacts {
    /// About which.
    pub which: crate::store::Selection<CheckoutId>,
}

/// What must agree with the books of others about a checkout.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckoutFacts {
    /// Which.
    pub checkout: CheckoutId,
    /// How it stands: `started`, `held`, `invoiced`, `paid`, `cancelled`, `failed`.
    pub state: String,
    /// The stock set aside for it.
    pub hold: HoldId,
    /// What it led to.
    pub invoice_id: Option<InvoiceId>,
    /// Whether its stock is yet to be let go.
    pub release_due: bool,
}

crate::requests! { crate::messaging::CommonError;
    "cart.ListCheckoutFacts": ListCheckoutFacts => Vec<CheckoutFacts>, retry, |_| Access::Internal;
}

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
    CheckoutExpired,
    /// There is no checkout to give up, or it is paid already.
    #[error("there is no checkout of this cart to cancel")]
    NoCheckout,
    /// What can happen to any request.
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
            | Self::NoCheckout => ErrorKind::Conflict,
            Self::Common(failure) => failure.kind(),
        }
    }

    fn fields(&self) -> &[FieldError] {
        match self {
            Self::Common(failure) => failure.fields(),
            _ => &[],
        }
    }
}
