//! Transports of domain events: from the outbox of their source to each subscriber, in order and at least once.
//!
//! Contains: the relay (subscribers that this process can call), the puller (sources in another process) and RabbitMQ.
//! Does not contain: event types (`crate::contract`), the envelope (`crate::messaging`), the outbox and the inbox
//! (`crate::store`), effects of events (the subscribing domains).

mod forward;
mod pull;
mod rabbitmq;
mod relay;

pub use pull::{EventPuller, read_for_remote};
pub use rabbitmq::{BrokerError, Consumer, QueueBinding, RabbitMq};
pub use relay::{Relay, Subscriber};

#[cfg(test)]
mod tests;
