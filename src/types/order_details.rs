//! Details of an order that its buyer states: where it goes, who it is billed to, and a message.

use serde::{Deserialize, Serialize};

use super::{PostalAddress, Validator};

/// Most characters of a message to the shop.
const NOTE_MAX: usize = 2_000;

/// Addresses of an order and the buyer's message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDetails {
    /// Address that the goods are delivered to.
    pub shipping_address: Option<PostalAddress>,
    /// Address that the invoice is made out to.
    pub billing_address: Option<PostalAddress>,
    /// Message to the shop, at most 2,000 characters.
    pub note: Option<String>,
}

impl OrderDetails {
    /// Returns the details in their stored form: addresses normalized, a blank message absent.
    #[must_use]
    pub fn normalized(self) -> Self {
        Self {
            shipping_address: self.shipping_address.map(PostalAddress::normalized),
            billing_address: self.billing_address.map(PostalAddress::normalized),
            note: self.note.filter(|note| !note.trim().is_empty()),
        }
    }

    /// Checks normalized details.
    pub fn validate(&self, fields: &mut Validator) {
        for (prefix, address) in
            [("shipping_address.", &self.shipping_address), ("billing_address.", &self.billing_address)]
        {
            if let Some(address) = address {
                address.validate(prefix, fields);
            }
        }
        fields.text("note", self.note.as_deref().unwrap_or_default(), 0, NOTE_MAX);
    }
}
