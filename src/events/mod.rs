//! How a domain's news reaches the others: from its outbox, in order, at least once, to each subscriber.
//!
//! Lives here: what an event is, and the relay that carries them, RabbitMQ for a shop of
//! several processes. Never enters: what any event means (that is the
//! subscriber's matter), SQL (the outbox and the inbox belong to the store), HTTP.

mod pull;
mod rabbitmq;
mod relay;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::messaging::CommonError;
use crate::types::{EventId, Timestamp};

pub use pull::{EventPuller, next};
pub use rabbitmq::{BROKER, BrokerError, Consumer, RabbitMq, Subscription};
pub use relay::{Relay, Subscriber};

/// Something that happened in a domain. Written in the transaction that made it happen, told after it is durable.
pub trait Event: Serialize + DeserializeOwned + Send + 'static {
    /// `domain.what_happened`, on the wire for ever.
    const NAME: &'static str;
}

/// Gives structs their event names.
#[macro_export]
macro_rules! events {
    ($($name:literal : $event:ty;)+) => {$(
        impl $crate::events::Event for $event {
            const NAME: &'static str = $name;
        }
    )+};
}

/// An event on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventEnvelope {
    /// Unique for ever: by it a subscriber knows an event it has already seen.
    pub id: EventId,
    /// The event's name.
    pub name: String,
    /// When it happened.
    pub at: Timestamp,
    /// The event itself.
    pub data: serde_json::Value,
    /// Where what made it happen stood in a trace (W3C `traceparent`), when it was in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl EventEnvelope {
    /// The event inside, if it is an `E`.
    ///
    /// # Errors
    /// When the name is that of an `E` and the data are not: the sender speaks another version.
    pub fn decode<E: Event>(&self) -> Result<Option<E>, serde_json::Error> {
        if self.name == E::NAME { E::deserialize(&self.data).map(Some) } else { Ok(None) }
    }
}

/// Told to a subscriber: these happened, in this order. Told again until it is answered with yes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliverEvents {
    /// What happened.
    pub events: Vec<EventEnvelope>,
}

crate::requests! { CommonError;
    "events.DeliverEvents": DeliverEvents => (), retry, |_| Access::Internal;
}

#[cfg(test)]
mod tests;
