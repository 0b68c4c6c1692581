//! The parts of Stripe's objects that are read here. Everything else in them is passed over, so that a new field or
//! a new word is no error.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::amounts;
use crate::types::{Amount, Currency};

/// What may be `null`.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A payment intent.
#[derive(Debug, Deserialize)]
pub struct Intent {
    pub id: String,
    pub status: IntentStatus,
    pub amount: Amount,
    /// What came of it.
    #[serde(default)]
    pub amount_received: Option<Amount>,
    pub currency: String,
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: Metadata,
}

impl Intent {
    /// How much came, as we count it.
    pub fn paid(&self) -> Option<(Amount, Currency)> {
        let currency: Currency = self.currency.to_ascii_uppercase().parse().ok()?;
        let amount = amounts::from_stripe(currency, self.amount_received.unwrap_or(self.amount))?;
        Some((amount, currency))
    }
}

/// How an intent stands.
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
    /// One that is new since this was written.
    #[serde(other)]
    Other,
}

/// What we wrote on an object.
#[derive(Debug, Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub mercat_payment: Option<String>,
    #[serde(default)]
    pub mercat_refund: Option<String>,
}

/// A refund.
#[derive(Debug, Deserialize)]
pub struct Refund {
    pub id: String,
    #[serde(default, deserialize_with = "or_default")]
    pub status: RefundStatus,
    #[serde(default, deserialize_with = "or_default")]
    pub metadata: Metadata,
}

/// How a refund stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    Pending,
    RequiresAction,
    Succeeded,
    Failed,
    Canceled,
    /// One that is new since this was written.
    #[default]
    #[serde(other)]
    Other,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}

/// What a webhook carries.
#[derive(Debug, Deserialize)]
pub struct Event {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub data: EventData,
}

/// What an event is about, read only when its kind is known.
#[derive(Debug, Deserialize)]
pub struct EventData {
    pub object: Box<RawValue>,
}
