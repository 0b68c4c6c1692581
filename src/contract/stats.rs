//! Messages of the stats domain: the action log, summaries and the count of served requests.

use serde::{Deserialize, Serialize};

use crate::types::{ActionId, Amount, Currency, Page, PageRequest, ProductId, Quantity, Timestamp, UserId};

/// An entry of the action log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoggedAction {
    /// Identifier, for the cursor of [`ListActions`].
    pub id: ActionId,
    /// Time of the action.
    pub at: Timestamp,
    /// User who acted; `null` for anonymous callers and erased users.
    pub user_id: Option<UserId>,
    /// Kind of the action: `product_viewed`, `signed_up`, ...
    pub action: String,
    /// Object of the action, often an id.
    pub subject: Option<String>,
    /// Further JSON of the caller's choice.
    pub data: Option<serde_json::Value>,
}

/// Appends an action to the log. Only administrators and other domains may name another user.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogAction {
    /// User who acted; the caller when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Kind of the action, 1 to 64 characters: letters, digits, `_`, `.`, `-`, `:`.
    pub action: String,
    /// Object of the action, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Further JSON, at most 4,096 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Lists actions in time order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListActions {
    /// Start of the period, inclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// End of the period, exclusive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Kind of action to list; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// User whose actions to list; everyone's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Cursor and page size.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// Width of a summary's buckets. A summary has at most 1,100 buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// A full hour.
    Hour,
    /// A day of UTC.
    Day,
    /// A week of UTC, from Monday.
    Week,
    /// A calendar month of UTC.
    Month,
}

/// Reads totals by bucket, for the charts of the back office.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GetSummary {
    /// Start of the period, inclusive; thirty days before the end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// End of the period, exclusive; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Width of the buckets; the narrowest of day, week and month that fits the period when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Bucket>,
}

/// Totals of a period, by bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Start of the first bucket.
    pub from: Timestamp,
    /// Requested end. The last bucket is counted as a whole even if it ends later.
    pub to: Timestamp,
    /// Width of the buckets.
    pub bucket: Bucket,
    /// Currency of all amounts: the shop's own. Sales in another currency count as orders, without revenue.
    pub currency: Currency,
    /// Totals over all buckets.
    pub totals: Totals,
    /// Buckets in time order, empty ones included.
    pub buckets: Vec<BucketTotals>,
    /// The ten products with the highest revenue on the days of the buckets, refunds not deducted.
    pub top_products: Vec<TopProduct>,
}

/// Totals of a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Payments less refunds, in minor units.
    pub revenue: Amount,
    /// Number of paid invoices.
    pub orders: i64,
    /// Number of new customer accounts.
    pub sign_ups: i64,
    /// Number of carts that received their first item.
    pub carts: i64,
    /// Orders per cart, 0 to 1; `null` without carts.
    pub conversion: Option<f64>,
}

/// Totals of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BucketTotals {
    /// Start of the bucket.
    pub start: Timestamp,
    /// Totals of the bucket.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Sales of one product in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopProduct {
    /// Identifier in the catalog.
    pub product_id: ProductId,
    /// Name at the latest sale.
    pub name: String,
    /// Units sold.
    pub quantity: Quantity,
    /// Revenue in minor units.
    pub revenue: Amount,
}

/// Adds to the count of served requests and returns the new count. For the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddServedRequests {
    /// Requests served since the last call, at most 10^12.
    pub count: i64,
}

/// Reads the count of requests that gateways have reported since the shop was created.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetServedRequests {}

crate::events! { pub const EVENTS; }

crate::requests! { StatsError;
    "stats.LogAction": LogAction => (), once, |_| Access::Anyone;
    "stats.ListActions": ListActions => Page<LoggedAction>, read, |_| Access::InternalNetwork;
    "stats.GetSummary": GetSummary => Summary, read, |_| Access::Staff(Role::ReadOnly);
    "stats.AddServedRequests": AddServedRequests => i64, once, |_| Access::Internal;
    "stats.GetServedRequests": GetServedRequests => i64, read, |_| Access::Internal;
}

/// Counts the log entries of paid orders. At most 500 orders per call. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListOrderFacts {
    /// Invoices with their time of payment.
    pub orders: Vec<(crate::types::InvoiceId, Timestamp)>,
}

/// Log entries of the orders in a [`ListOrderFacts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFacts {
    /// Number of entries per order, in the order of the request.
    pub times: Vec<i64>,
    /// Start of the log's retention: older entries may be deleted.
    pub kept_since: Timestamp,
}

/// Counts the orders per day of UTC, days without orders left out. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountOrders {}

crate::requests! { crate::messaging::CommonError;
    "stats.ListOrderFacts": ListOrderFacts => OrderFacts, read, |_| Access::Internal;
    "stats.CountOrders": CountOrders => Vec<(Timestamp, i64)>, read, |_| Access::Internal;
}

/// Error of the stats domain. It has none of its own.
pub type StatsError = crate::messaging::CommonError;
