//! Stock and the holds on it.

use serde::{Deserialize, Serialize};

use super::{CatalogError, Offer};
use crate::types::{HoldId, InvoiceId, ProductId, Quantity, Timestamp};

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
