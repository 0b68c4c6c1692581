//! Stock and the holds on it.

use serde::{Deserialize, Serialize};

use super::{CatalogError, Offer, Product};
use crate::types::{HoldId, InvoiceId, ProductId, Quantity, Timestamp};

/// Changes the stock of a product by a difference, or sets it to what was counted. Exactly one of the two is given.
///
/// # Errors
/// A change below zero; a count below the number of held items; a product whose stock is not counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeStock {
    /// Id of the product.
    pub product_id: ProductId,
    /// Items that came in, or that are gone if below zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Quantity>,
    /// Items that were counted in the store room, those included that are held for unpaid orders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<Quantity>,
    /// Reason, at most 200 characters, kept with the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A product with its stock as staff see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockedProduct {
    /// The product; its `stock` is what is available.
    #[serde(flatten)]
    pub product: Product,
    /// Items in the store room: those available and those held.
    pub on_hand: Quantity,
    /// Items held for unpaid orders.
    pub held: Quantity,
}

/// Reads the stock of a product and its latest changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetStock {
    /// Id of the product.
    pub product_id: ProductId,
}

/// The stock of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockLevel {
    /// Id of the product.
    pub product_id: ProductId,
    /// Whether the stock is counted; if not, the figures below mean nothing.
    pub track_stock: bool,
    /// Items in the store room: those available and those held.
    pub on_hand: Quantity,
    /// Items held for unpaid orders.
    pub held: Quantity,
    /// Items that buyers can order.
    pub available: Quantity,
    /// The latest changes, at most 50, newest first.
    pub changes: Vec<StockChange>,
}

/// One change of what is available of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockChange {
    /// Items that were added, or taken if below zero.
    pub change: Quantity,
    /// Cause: `set`, `changed`, `held`, `released`, `expired`, `sold` or `returned`.
    pub cause: String,
    /// Reason that staff gave.
    pub reason: Option<String>,
    /// Time of the change.
    pub at: Timestamp,
}

/// Reserves stock for one checkout, all lines or none, so that two buyers cannot both get the last item.
///
/// Idempotent by `hold`: a repetition changes nothing and returns the first reply; one with other lines is rejected. An
/// idempotency key in the context has no effect.
///
/// # Errors
/// [`CatalogError::OutOfStock`]; [`CatalogError::HoldGone`] when the hold was released or has expired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldStock {
    /// Id of the hold, chosen by the caller.
    pub hold: HoldId,
    /// Products and quantities, 1 to 1,000 lines; quantities of a repeated product are added.
    pub lines: Vec<HoldLine>,
    /// Time at which the hold expires unless it is paid or released before.
    pub expires_at: Timestamp,
}

/// One product of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldLine {
    /// Id of the product.
    pub product_id: ProductId,
    /// Number of items, 1 to 10,000.
    pub quantity: Quantity,
}

/// Reserved stock, with the prices at the time of the reservation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockHold {
    /// Id of the hold.
    pub hold: HoldId,
    /// Products as they are sold, one per different product of the hold.
    pub offers: Vec<Offer>,
}

/// Releases a hold. Repeating it changes nothing; releasing a hold that was never made prevents it from being made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseHold {
    /// Id of the hold.
    pub hold: HoldId,
}

crate::requests! { CatalogError;
    "catalog.ChangeStock": ChangeStock => StockedProduct, once, |_| Access::Staff(Role::Manager);
    "catalog.GetStock": GetStock => StockLevel, read, |_| Access::Staff(Role::ReadOnly);
    "catalog.HoldStock": HoldStock => StockHold, retry, |_| Access::Internal;
    "catalog.ReleaseHold": ReleaseHold => (), retry, |_| Access::Internal;
}

/// Event: a product that was sold out or deleted is available again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackInStock {
    /// Id of the product.
    pub product_id: ProductId,
    /// Name of the product.
    pub name: String,
    /// Items available.
    pub stock: Quantity,
}

/// Event: the stock of a product fell to the configured level or below.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LowStock {
    /// Id of the product.
    pub product_id: ProductId,
    /// Stock keeping unit.
    pub sku: String,
    /// Name of the product.
    pub name: String,
    /// Items left.
    pub stock: Quantity,
}

/// Event: an invoice was paid after its hold had ended and its items were sold out. The payment must be refunded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SaleRefused {
    /// Id of the invoice.
    pub invoice_id: InvoiceId,
    /// Id of the hold.
    pub hold: HoldId,
}

/// Returns the facts about holds that other domains must agree with. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListHoldFacts {
    /// Holds to return: a page of all, or given ids.
    pub which: crate::messaging::Selection<HoldId>,
}

/// The state of a hold.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldFacts {
    /// Id of the hold.
    pub hold: HoldId,
    /// `held`, `sold`, `released` or `returned`.
    pub state: String,
    /// Time at which an unpaid hold expires.
    pub expires_at: Timestamp,
    /// Products and quantities, one line per product, in the order of their ids.
    pub lines: Vec<HoldLine>,
}

crate::requests! { crate::messaging::CommonError;
    "catalog.ListHoldFacts": ListHoldFacts => Vec<HoldFacts>, read, |_| Access::Internal;
}
