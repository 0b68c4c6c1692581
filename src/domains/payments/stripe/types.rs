//! Stripe's API objects, reduced to the fields that are used. Other fields are ignored, and unknown states map to
//! `Other`, so that an addition to the API is no error.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::amounts;
use crate::types::{Amount, Currency};

/// Deserializes `null` as the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A payment intent.
#[derive(Debug, Deserialize)]
pub struct Intent {
    pub id: String,
    pub status: IntentStatus,
    /// Requested amount, in Stripe's minor units.
    pub amount: Amount,
    /// Captured amount, in Stripe's minor units.
    #[serde(default)]
    pub amount_received: Option<Amount>,
    pub currency: String,
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: Metadata,
}

impl Intent {
    /// Captured amount in the shop's minor units; `None` if the currency is unknown or the amount has no exact form.
    pub fn paid(&self) -> Option<(Amount, Currency)> {
        let currency: Currency = self.currency.to_ascii_uppercase().parse().ok()?;
        let amount = amounts::from_stripe(currency, self.amount_received.unwrap_or(self.amount))?;
        Some((amount, currency))
    }
}

/// State of a payment intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
    /// A state that the API added later.
    #[serde(other)]
    Other,
}

/// Keys that the shop attached to an object.
#[derive(Debug, Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub mercat_payment: Option<String>,
    #[serde(default)]
    pub mercat_refund: Option<String>,
}

/// A charge, of which only the link to its intent is used.
#[derive(Debug, Deserialize)]
pub struct ChargeObject {
    #[serde(default)]
    pub payment_intent: Option<String>,
}

/// A dispute.
#[derive(Debug, Deserialize)]
pub struct Dispute {
    #[serde(default)]
    pub payment_intent: Option<String>,
    /// Disputed amount, in Stripe's minor units.
    pub amount: Amount,
    pub currency: String,
    #[serde(default)]
    pub reason: String,
    pub status: String,
    #[serde(default, deserialize_with = "or_default")]
    pub evidence_details: EvidenceDetails,
}

/// Deadline of a dispute.
#[derive(Debug, Default, Deserialize)]
pub struct EvidenceDetails {
    /// Time by which evidence must be submitted, in seconds since 1970.
    #[serde(default)]
    pub due_by: Option<i64>,
}

/// A refund.
#[derive(Debug, Deserialize)]
pub struct Refund {
    pub id: String,
    /// Amount in Stripe's minor units.
    #[serde(default)]
    pub amount: Amount,
    #[serde(default)]
    pub currency: String,
    #[serde(default)]
    pub payment_intent: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub status: RefundStatus,
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: Metadata,
}

/// State of a refund.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Pending,
    RequiresAction,
    Succeeded,
    Failed,
    Canceled,
    /// A state that the API added later.
    #[default]
    #[serde(other)]
    Other,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct ListPage<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

/// Body of a webhook.
#[derive(Debug, Deserialize)]
pub struct WebhookEvent {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub data: EventData,
}

/// Object that an event is about, parsed only when its kind is known.
#[derive(Debug, Deserialize)]
pub struct EventData {
    pub object: Box<RawValue>,
}
