//! Events over RabbitMQ, for domains in several processes. Each outbox is published to one durable topic exchange, each
//! domain consumes a quorum queue of its own. The outbox's cursor moves after the publisher confirm, a message is
//! acknowledged after its effect is durable, and the inbox drops redeliveries: delivered at least once, applied once.
//!
//! Outsiders may bind queues of their own and may rely on the exchange `mercat.events`, on the routing key, which is the
//! event's name, and on the body, an [`EventEnvelope`] as JSON. Every process declares the queues of all domains before it
//! publishes, so that no event is lost because its subscriber has not started yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Subscriber;
use super::forward::DELIVER_TIMEOUT;
use crate::messaging::{Backoff, CommonError, DeliverEvents, EventEnvelope, RequestContext};
use crate::store::BROKER_CURSOR;
use crate::types::new_uuid;

/// Topic exchange of all events.
const EXCHANGE: &str = "mercat.events";
/// Exchange and queue of messages that are no events, kept for inspection.
const DEAD_LETTER: &str = "mercat.dead";
/// Largest number of unacknowledged messages per domain, and of events per delivery.
const PREFETCH: u16 = 256;
/// Deliveries of a message before the broker dead-letters it. Generous, as each kill of the process counts as one.
const DELIVERIES_MAX: i64 = 1_000;
/// Time limit of every call to the broker: one that is short of memory or disk stops answering publishers.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);
/// Pauses before a consumer is started again and before a delivery is repeated.
const CONSUMER_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// AMQP delivery mode 2: persistent.
const PERSISTENT: u8 = 2;
/// Message type of a barrier: its sender learns that all messages before it have been consumed.
const BARRIER: &str = "mercat.marker";

/// Name of a domain with the names of the events that it subscribes to.
pub type QueueBinding = (&'static str, &'static [&'static str]);

/// Client of one RabbitMQ broker. Clones share its connections.
#[derive(Clone)]
pub struct RabbitMq(Arc<BrokerInner>);

struct BrokerInner {
    uri: AMQPUri,
    /// Authority that signs its certificate, as PEM.
    authority: Option<String>,
    domains: Vec<QueueBinding>,
    /// One to publish on and one to consume on: a broker that is short of resources stops reading from publishers.
    connections: [tokio::sync::Mutex<Option<Connection>>; 2],
    /// Whether exchanges and queues were declared and nothing failed since: a broker may come back empty, and a queue may
    /// be deleted.
    is_declared: tokio::sync::Mutex<bool>,
    is_up: AtomicBool,
    /// Waiting senders of barriers, by message id.
    barriers: Mutex<HashMap<String, oneshot::Sender<()>>>,
}

#[derive(Clone, Copy)]
enum LinkRole {
    Publish = 0,
    Consume = 1,
}

/// Errors of a broker. Their texts never contain the password.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker returned an error, or the connection broke.
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
    /// No answer within [`BROKER_TIMEOUT`].
    #[error("no answer within {} seconds", BROKER_TIMEOUT.as_secs())]
    Timeout,
    /// An event with subscribers was not confirmed or could not be routed.
    #[error("an event was not confirmed")]
    Rejected,
    /// The broker cancelled the consumer, as when its queue is deleted.
    #[error("the consumer was cancelled")]
    Cancelled,
    /// An event has no JSON form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// Consumer of the queues of some domains. Stops when dropped.
pub struct Consumer {
    broker: RabbitMq,
    domains: Vec<&'static str>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl RabbitMq {
    /// Returns a client of the broker at `uri` for the subscriptions `domains`. With `amqps` its certificate must be signed
    /// by `authority`, as PEM, or else by a public one. Connects when first used.
    #[must_use]
    pub fn new(uri: AMQPUri, authority: Option<String>, domains: Vec<QueueBinding>) -> Self {
        Self(Arc::new(BrokerInner {
            uri,
            authority,
            domains,
            connections: Default::default(),
            is_declared: Default::default(),
            is_up: AtomicBool::new(true),
            barriers: Mutex::default(),
        }))
    }

    /// Whether the last use of the broker succeeded.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.is_up.load(Ordering::Relaxed)
    }

    /// Returns the address without user name and password.
    #[must_use]
    pub fn address(&self) -> String {
        let authority = &self.0.uri.authority;
        format!("{}://{}:{}", self.0.uri.scheme, authority.host, authority.port)
    }

    /// Connects and declares exchanges and queues.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses a declaration.
    pub async fn probe(&self) -> Result<(), BrokerError> {
        self.channel(LinkRole::Publish).await.map(drop)
    }

    /// Returns the broker as the only subscriber of a domain's outbox: it publishes what is delivered to it, and
    /// acknowledges when the broker has confirmed all of it.
    #[must_use]
    pub fn publisher(&self) -> Subscriber {
        let (broker, channel) = (self.clone(), Arc::new(tokio::sync::Mutex::new(None)));
        Subscriber::all_events(BROKER_CURSOR, move |deliver| {
            let (broker, channel) = (broker.clone(), Arc::clone(&channel));
            Box::pin(async move {
                let mut channel = channel.lock().await;
                let published = broker.publish(&mut channel, &deliver.events).await;
                if published.is_err() {
                    *channel = None;
                    broker.invalidate_topology().await;
                }
                broker.record_status(&published);
                published.map_err(|_| CommonError::Unavailable)
            })
        })
    }

    /// Starts to consume the queues of domains of this process. Must be called on an actix system's thread.
    #[must_use]
    pub fn consume(&self, domains: Vec<Subscriber>) -> Consumer {
        let names = domains.iter().map(Subscriber::name).collect();
        let tasks = domains.into_iter().map(|domain| actix::spawn(consume_loop(self.clone(), domain))).collect();
        Consumer { broker: self.clone(), domains: names, tasks }
    }

    async fn publish(&self, open: &mut Option<Channel>, events: &[EventEnvelope]) -> Result<(), BrokerError> {
        let channel = match open {
            Some(channel) if channel.status().connected() => channel,
            _ => {
                let channel = self.channel(LinkRole::Publish).await?;
                in_time(channel.confirm_select(ConfirmSelectOptions::default())).await?;
                open.insert(channel)
            }
        };
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            let has_subscribers = self.0.domains.iter().any(|(_, names)| names.contains(&event.name.as_str()));
            // Returned by the broker if its queue has been deleted.
            let options = BasicPublishOptions { mandatory: has_subscribers, ..Default::default() };
            let mut headers = FieldTable::default();
            if let Some(trace) = &event.trace {
                headers.insert("traceparent".into(), long(trace));
            }
            let properties = BasicProperties::default()
                .with_headers(headers)
                .with_delivery_mode(PERSISTENT)
                .with_content_type("application/json".into())
                .with_app_id("mercat".into())
                .with_type(event.name.as_str().into())
                .with_message_id(event.id.to_string().into());
            let (to, body) = (event.name.as_str().into(), serde_json::to_vec(event)?);
            confirms.push(in_time(channel.basic_publish(EXCHANGE.into(), to, options, &body, properties)).await?);
        }
        for confirm in confirms {
            match in_time(confirm).await? {
                Confirmation::Ack(None) => {}
                _ => return Err(BrokerError::Rejected),
            }
        }
        Ok(())
    }

    /// Opens a channel on the connection of this role, connecting again if that has broken, and declares exchanges and
    /// queues if necessary.
    async fn channel(&self, role: LinkRole) -> Result<Channel, BrokerError> {
        let mut connection = self.0.connections[role as usize].lock().await;
        let channel = match connection.as_ref().filter(|connection| connection.status().connected()) {
            Some(open) => in_time(open.create_channel()).await?,
            None => {
                let properties = ConnectionProperties::default().with_connection_name("mercat".into());
                let tls = OwnedTLSConfig { identity: None, cert_chain: self.0.authority.clone() };
                let runtime = lapin::runtime::default_runtime()?;
                let connecting = Connection::connect_uri_with_config(self.0.uri.clone(), properties, tls, runtime);
                let opened = in_time(connecting).await?;
                in_time(connection.insert(opened).create_channel()).await?
            }
        };
        let mut is_declared = self.0.is_declared.lock().await;
        if !*is_declared {
            self.declare(&channel).await?;
            *is_declared = true;
        }
        Ok(channel)
    }

    /// Has exchanges and queues declared again before the next channel is used.
    async fn invalidate_topology(&self) {
        *self.0.is_declared.lock().await = false;
    }

    /// Declares the exchanges, a queue per domain and the queue of dead letters.
    async fn declare(&self, channel: &Channel) -> Result<(), BrokerError> {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for exchange in [EXCHANGE, DEAD_LETTER] {
            in_time(channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default()))
                .await?;
        }
        // Concurrently: one after the other they would dominate the time of a start.
        let domains = self.0.domains.iter().map(async |(domain, subscriptions)| {
            let mut arguments = quorum();
            arguments.insert("x-dead-letter-exchange".into(), long(DEAD_LETTER));
            arguments.insert("x-delivery-limit".into(), DELIVERIES_MAX.into());
            // Of several processes with one domain one consumes at a time, so that events are applied in order.
            arguments.insert("x-single-active-consumer".into(), true.into());
            self.queue(channel, &queue(domain), arguments, EXCHANGE, subscriptions).await
        });
        let dead = self.queue(channel, DEAD_LETTER, quorum(), DEAD_LETTER, &["#"]);
        try_join(dead, try_join_all(domains)).await.map(drop)
    }

    async fn queue(
        &self,
        channel: &Channel,
        name: &str,
        arguments: FieldTable,
        exchange: &str,
        keys: &[&str],
    ) -> Result<(), BrokerError> {
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        in_time(channel.queue_declare(name.into(), durable, arguments)).await?;
        let bound = keys.iter().map(|key| {
            let (options, none) = (QueueBindOptions::default(), FieldTable::default());
            in_time(channel.queue_bind(name.into(), exchange.into(), (*key).into(), options, none))
        });
        try_join_all(bound).await.map(drop)
    }

    /// Records whether the broker can be used, and logs a change.
    fn record_status(&self, outcome: &Result<(), BrokerError>) {
        if self.0.is_up.swap(outcome.is_ok(), Ordering::Relaxed) != outcome.is_ok() {
            match outcome {
                Ok(()) => log::warn!("rabbitmq {}: connected", self.address()),
                Err(error) => {
                    log::error!("rabbitmq {}: unavailable: {error}; events wait in the outboxes", self.address());
                }
            }
        }
    }
}

impl Consumer {
    /// Waits until all messages that are in the domains' queues at present have been applied.
    ///
    /// # Errors
    /// `Unavailable` when the broker cannot be reached, or another process consumes for one of the domains.
    pub async fn flush(&self) -> Result<(), CommonError> {
        let (mut ids, mut passed) = (Vec::new(), Vec::new());
        let sending = async {
            let channel = self.broker.channel(LinkRole::Publish).await?;
            for domain in &self.domains {
                let (id, (sender, receiver)) = (new_uuid().to_string(), oneshot::channel());
                self.broker.0.barriers.lock().insert(id.clone(), sender);
                ids.push(id.clone());
                passed.push(receiver);
                let properties = BasicProperties::default().with_type(BARRIER.into()).with_message_id(id.into());
                let (to, options) = (queue(domain).as_str().into(), BasicPublishOptions::default());
                in_time(channel.basic_publish("".into(), to, options, &[], properties)).await?;
            }
            Ok::<_, BrokerError>(())
        };
        let sent = sending.await;
        let has_passed = match sent {
            Ok(()) => tokio::time::timeout(DELIVER_TIMEOUT, try_join_all(passed)).await.is_ok_and(|all| all.is_ok()),
            Err(_) => false,
        };
        let mut barriers = self.broker.0.barriers.lock();
        ids.iter().for_each(|id| drop(barriers.remove(id)));
        drop(barriers);
        if has_passed { Ok(()) } else { Err(CommonError::Unavailable) }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn queue(domain: &str) -> String {
    format!("mercat.{domain}")
}

fn long(text: &str) -> lapin::types::AMQPValue {
    lapin::types::AMQPValue::LongString(text.into())
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), long("quorum"));
    arguments
}

async fn in_time<T>(work: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    match tokio::time::timeout(BROKER_TIMEOUT, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(BrokerError::Timeout),
    }
}

/// Consumes the queue of one domain, starting again after every failure.
async fn consume_loop(broker: RabbitMq, domain: Subscriber) {
    let mut backoff = CONSUMER_BACKOFF;
    loop {
        let started = tokio::time::Instant::now();
        let ended = consume(&broker, &domain).await.map(|never| match never {});
        broker.record_status(&ended);
        broker.invalidate_topology().await;
        // After a while without failure the pauses start again.
        if started.elapsed() > backoff.max() {
            backoff.reset();
        }
        backoff.wait().await;
    }
}

/// Consumes the queue of one domain until the channel fails.
async fn consume(broker: &RabbitMq, domain: &Subscriber) -> Result<std::convert::Infallible, BrokerError> {
    let channel = broker.channel(LinkRole::Consume).await?;
    in_time(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut messages =
        in_time(channel.basic_consume(queue(domain.name()).as_str().into(), "".into(), options, none)).await?;
    broker.record_status(&Ok(()));
    while let Some(first) = messages.next().await {
        let mut batch = vec![first?];
        while batch.len() < usize::from(PREFETCH) {
            let Some(Some(next)) = messages.next().now_or_never() else { break };
            batch.push(next?);
        }
        let (mut events, mut barriers, mut last) = (Vec::new(), Vec::new(), None);
        for message in &batch {
            if message.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == BARRIER) {
                barriers.extend(message.properties.message_id().as_ref().map(ToString::to_string));
            } else if let Ok(event) = serde_json::from_slice::<EventEnvelope>(&message.data) {
                events.push(event);
            } else {
                log::error!("rabbitmq: message for {} is no event; moved to {DEAD_LETTER}", domain.name());
                message.reject(BasicRejectOptions { requeue: false }).await?;
                continue;
            }
            last = Some(message.delivery_tag);
        }
        deliver_until_accepted(domain, events).await;
        if let Some(last) = last {
            in_time(channel.basic_ack(last, BasicAckOptions { multiple: true })).await?;
        }
        let mut waiting = broker.0.barriers.lock();
        for passed in barriers.iter().filter_map(|barrier| waiting.remove(barrier)) {
            // Fails if the sender has timed out.
            let _ = passed.send(());
        }
    }
    Err(BrokerError::Cancelled)
}

/// Delivers events to a domain until it acknowledges them. Their messages stay unacknowledged meanwhile, so that nothing
/// is lost or requeued while a domain is down.
async fn deliver_until_accepted(domain: &Subscriber, events: Vec<EventEnvelope>) {
    if events.is_empty() {
        return;
    }
    let mut backoff = CONSUMER_BACKOFF;
    loop {
        let ctx = RequestContext::internal("rabbitmq").with_timeout(DELIVER_TIMEOUT);
        let Err(error) = domain.deliver(ctx, DeliverEvents { events: events.clone() }).await else { return };
        log::warn!("event delivery from rabbitmq to {} failed: {error}; retrying", domain.name());
        backoff.wait().await;
    }
}
