//! What the statistics can be asked and answer.

use serde::{Deserialize, Serialize};

use crate::types::{ActionId, Amount, Currency, Page, PageRequest, ProductId, Quantity, Timestamp, UserId};

/// Something somebody did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Which.
    pub id: ActionId,
    /// When.
    pub at: Timestamp,
    /// Who, if known.
    pub user_id: Option<UserId>,
    /// What: `product_viewed`, `signed_up`, ...
    pub action: String,
    /// With what: often an id.
    pub subject: Option<String>,
    /// Anything else.
    pub data: Option<serde_json::Value>,
}

/// Notes that somebody did something. A user can be named only by themselves or by staff.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogAction {
    /// Who; the caller when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// 1 to 64 characters: letters, digits, `_`, `.`, `-`, `:`.
    pub action: String,
    /// At most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// At most 4,096 bytes of JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<serde_json::Value>,
}

/// Lists actions in time order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListActions {
    /// From this instant on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// Only this action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// Which page.
    #[serde(flatten)]
    pub page: PageRequest,
}

/// How wide a bucket of the summary is. A summary has at most 1,100 of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// An hour.
    Hour,
    /// A day, in UTC.
    #[default]
    Day,
    /// A week from Monday.
    Week,
    /// A calendar month.
    Month,
}

/// Sums up what happened, for the plots.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct GetSummary {
    /// From this instant on; thirty days back when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Before this instant; now when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// How wide the buckets are.
    #[serde(default)]
    pub bucket: Bucket,
}

/// What happened, summed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// From when, at the start of a bucket.
    pub from: Timestamp,
    /// Until when, as it was asked; the last bucket is counted whole.
    pub to: Timestamp,
    /// How wide the buckets are.
    pub bucket: Bucket,
    /// Of all amounts: the shop's own. Sales in another one are counted as orders only.
    pub currency: Currency,
    /// All of it.
    pub totals: Totals,
    /// Bucket for bucket, empty ones included, in time order.
    pub buckets: Vec<BucketTotals>,
    /// The ten products that brought most on the days of the buckets, refunds not taken off.
    pub top_products: Vec<TopProduct>,
}

/// Totals of a stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// What was paid less what went back, in minor units.
    pub revenue: Amount,
    /// Paid invoices.
    pub orders: i64,
    /// New accounts.
    pub sign_ups: i64,
    /// Carts that got their first line.
    pub carts: i64,
    /// Orders for each cart, 0 to 1; `null` without any cart.
    pub conversion: Option<f64>,
}

/// Totals of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BucketTotals {
    /// When the bucket starts.
    pub start: Timestamp,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Totals,
}

/// What a product brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopProduct {
    /// Which.
    pub product_id: ProductId,
    /// Its name when last sold.
    pub name: String,
    /// How many were sold.
    pub quantity: Quantity,
    /// What they brought, in minor units.
    pub revenue: Amount,
}

/// Adds to the count of requests served. For the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddServedRequests {
    /// How many more.
    pub count: i64,
}

/// Reads how many requests were served since the shop was opened, as far as it was told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GetServedRequests {}

crate::requests! { StatsError;
    "stats.LogAction": LogAction => (), once, |_| Access::Anyone;
    "stats.ListActions": ListActions => Page<Action>, retry, |_| Access::InternalNetwork;
    "stats.GetSummary": GetSummary => Summary, retry, |_| Access::Admin;
    "stats.AddServedRequests": AddServedRequests => i64, once, |_| Access::Internal;
    "stats.GetServedRequests": GetServedRequests => i64, retry, |_| Access::Internal;
}

/// Says how often the log has each of these orders as paid at its time, at most 500. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListOrderFacts {
    /// The invoice, and when it was paid.
    pub orders: Vec<(crate::types::InvoiceId, Timestamp)>,
}

/// What the log says of orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderFacts {
    /// How often each is in the log, in the order they were asked.
    pub times: Vec<i64>,
    /// The log may have forgotten what is older.
    pub kept_since: Timestamp,
}

/// Counts the orders of each day of UTC that has any. For `mercat check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CountOrders {}

crate::requests! { crate::messaging::CommonError;
    "stats.ListOrderFacts": ListOrderFacts => OrderFacts, retry, |_| Access::Internal;
    "stats.CountOrders": CountOrders => Vec<(Timestamp, i64)>, retry, |_| Access::Internal;
}

/// An error of the statistics.
pub type StatsError = crate::messaging::CommonError;
