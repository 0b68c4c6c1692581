//! Domain events as they travel: the [`Event`] trait, the [`EventEnvelope`] and the message that delivers them.
//!
//! Contains: the types that source, transport and subscriber share, and the macros [`crate::events!`] (names of events)
//! and [`crate::event_handlers!`] (subscriptions of a domain and the handler of each event).
//! Does not contain: transports (`crate::events`), the outbox and the inbox (`crate::store`), the events of any domain
//! (`crate::contract`).

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::CommonError;
use crate::types::{EventId, Timestamp};

/// A fact of one domain that others may subscribe to. It is written to the outbox in the transaction that made it true,
/// and delivered after that transaction is durable.
pub trait Event: Serialize + DeserializeOwned + Send + 'static {
    /// Name on the wire, `domain.past_participle`; never changes.
    const NAME: &'static str;
}

/// Gives structs their event names.
#[macro_export]
macro_rules! events {
    ($($name:literal : $event:ty;)+) => {$(
        impl $crate::messaging::Event for $event {
            const NAME: &'static str = $name;
        }
    )+};
}

/// An event with its metadata, as it lies in an outbox and travels between processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventEnvelope {
    /// Unique id, by which a subscriber's inbox recognises a redelivery.
    pub id: EventId,
    /// [`Event::NAME`] of the event.
    pub name: String,
    /// Time of the transaction that wrote it.
    pub at: Timestamp,
    /// The event as JSON.
    pub data: serde_json::Value,
    /// W3C `traceparent` of the request that caused it, when that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl EventEnvelope {
    /// Returns the event if it is an `E`, and `None` if it has another name.
    ///
    /// # Errors
    /// When the name is that of an `E` and the data are not: the sender speaks another version.
    pub fn decode<E: Event>(&self) -> Result<Option<E>, serde_json::Error> {
        if self.name == E::NAME { E::deserialize(&self.data).map(Some) } else { Ok(None) }
    }
}

/// Delivers events to a subscriber, in the order in which they were written. Redelivered until acknowledged with `Ok`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliverEvents {
    /// The events, oldest first.
    pub events: Vec<EventEnvelope>,
}

crate::requests! { CommonError;
    "events.DeliverEvents": DeliverEvents => (), retry, |_| Access::Internal;
}
