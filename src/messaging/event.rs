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

/// Gives structs their event names, and lists the names in a constant if one is named first.
///
/// ```ignore
/// events! { pub const EVENTS; "comments.comment_added": CommentAdded; }
/// ```
#[macro_export]
macro_rules! events {
    (pub const $names:ident; $($name:literal : $event:ty;)*) => {
        /// Names of all events of this domain.
        pub const $names: &[&str] = &[$($name),*];
        $crate::events! { $($name: $event;)* }
    };
    ($($name:literal : $event:ty;)*) => {$(
        impl $crate::messaging::Event for $event {
            const NAME: &'static str = $name;
        }
    )*};
}

/// Declares the events that a domain subscribes to, each with the function that handles it.
///
/// Expands to `SUBSCRIPTIONS`, the list of event names, and to the given function with one more parameter, the
/// [`EventEnvelope`]: it decodes the event and calls its handler. As both come from one list of types, neither a misspelt
/// name nor an event without a handler compiles; an event that is listed twice is an unreachable pattern.
///
/// A handler takes the declared parameters, then the event, then the fields of the envelope in parentheses behind its
/// name. Events after `also` are subscribed to and handled by other code before this function is called.
///
/// ```ignore
/// event_handlers! {
///     /// Applies an event to the counters.
///     fn handle_event(tx: &mut Tx<'_>) -> Result<(), CommonError>;
///     UserErased => on_user_erased,
///     CartStarted => on_cart_started(at),
/// }
/// ```
#[macro_export]
macro_rules! event_handlers {
    (@call $handler:ident ($($arg:ident,)*) $($value:expr),+) => { $handler($($arg,)* $($value),+) };
    (@dispatch $envelope:ident $args:tt [$($other:ty,)*]
        $($event:ty => $handler:ident ($($field:ident),*);)+
    ) => {
        match $envelope.name.as_str() {
            $(<$event as $crate::messaging::Event>::NAME => $crate::event_handlers!(
                @call $handler $args $envelope.decode_data::<$event>()? $(, $envelope.$field)*
            ),)+
            $(<$other as $crate::messaging::Event>::NAME => {
                $envelope.log_unhandled();
                Err($crate::messaging::CommonError::Internal.into())
            })*
            _ => {
                $envelope.log_unhandled();
                Ok(Default::default())
            }
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> Result<$ok:ty, $error:ty>
        $(, also [$($other:ty),+])?;
        $($event:ty => $handler:ident $(($($field:ident),+))?,)+
    ) => {
        /// Names of the events that this domain subscribes to.
        pub const SUBSCRIPTIONS: &[&str] = &[
            $(<$event as $crate::messaging::Event>::NAME,)+
            $($(<$other as $crate::messaging::Event>::NAME,)+)?
        ];

        $(#[$meta])*
        $vis fn $name($($arg: $type,)* event: &$crate::messaging::EventEnvelope) -> Result<$ok, $error> {
            $crate::event_handlers! { @dispatch event ($($arg,)*) [$($($other,)+)?]
                $($event => $handler ($($($field),+)?);)+
            }
        }
    };
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

    /// Returns the data as an `E`, whatever the name. For [`crate::event_handlers!`].
    ///
    /// # Errors
    /// `Internal` when the data are not those of an `E`; the cause is logged.
    #[doc(hidden)]
    pub fn decode_data<E: Event>(&self) -> Result<E, CommonError> {
        E::deserialize(&self.data).map_err(|error| {
            log::error!("event {} {}: decode failed: {error}", self.name, self.id);
            CommonError::Internal
        })
    }

    /// Logs that an event has no handler, as when it comes from a queue that another version of the domain has bound.
    #[doc(hidden)]
    pub fn log_unhandled(&self) {
        log::warn!("event {} {}: no handler in this version", self.name, self.id);
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
