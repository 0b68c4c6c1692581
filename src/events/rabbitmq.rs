//! Events over RabbitMQ, for domains in several processes: each domain's outbox is published to one durable topic
//! exchange, each domain hears from a quorum queue of its own. Publisher confirms before the outbox's cursor moves, an
//! acknowledgement after the effect is durable, the inbox in between: at least once on the way, once in effect.
//!
//! What outsiders may rely on (they may bind queues of their own): the exchange `mercat.events`, the routing key, which
//! is the event's name, and the body, a [`EventEnvelope`] as JSON. Every process declares the queues of all domains before
//! it publishes, so that no event is lost because its hearer has not started yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{try_join, try_join_all};
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, BasicRejectOptions,
    ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use tokio::sync::oneshot;

use super::Subscriber;
use crate::messaging::{CommonError, DeliverEvents, EventEnvelope, RequestContext};
use crate::store::BROKER_CURSOR;
use crate::types::new_uuid;

/// Where all events go.
const EXCHANGE: &str = "mercat.events";
/// Where messages go that nobody can read, and the queue that keeps them for people to look at.
const DEAD_LETTER: &str = "mercat.dead";
/// Messages that may be on their way to one domain at once, and told to it at once.
const PREFETCH: u16 = 256;
/// How often a message may come back before it counts as dead. Generous: each kill of the process is one.
const DELIVERIES_MAX: i64 = 1_000;
/// How long the broker may take for anything. A broker that is short of memory or disk stops answering publishers.
const BROKER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a domain may take for a batch.
const DELIVER_TIMEOUT: Duration = Duration::from_secs(30);
/// The first and the longest pause before something that failed is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Persistent, as AMQP says it.
const PERSISTENT: u8 = 2;
/// The type of a message of ours that is no event: whoever sent it learns that everything before it was heard.
const BARRIER: &str = "mercat.marker";

/// A domain, and the events it wants.
pub type Subscription = (&'static str, &'static [&'static str]);

/// How RabbitMQ is reached from this process. Clones share it.
#[derive(Clone)]
pub struct RabbitMq(Arc<Inner>);

struct Inner {
    uri: AMQPUri,
    domains: Vec<Subscription>,
    /// One to publish on and one to hear on: a broker that is short of anything stops reading publishers.
    links: [tokio::sync::Mutex<Option<Connection>>; 2],
    /// Whether what events need was made, and nothing has gone wrong since: a broker that came back may have come back
    /// empty, and a queue may have been deleted.
    is_declared: tokio::sync::Mutex<bool>,
    is_up: AtomicBool,
    /// Who waits for which marker.
    markers: Mutex<HashMap<String, oneshot::Sender<()>>>,
}

#[derive(Clone, Copy)]
enum ConnectionRole {
    Out = 0,
    In = 1,
}

/// What can go wrong with a broker. Its text never shows the password.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It said no, or the connection broke.
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
    /// It did not answer.
    #[error("no answer within {} seconds", BROKER_TIMEOUT.as_secs())]
    Timeout,
    /// It did not take an event that somebody wants.
    #[error("an event was not taken")]
    Refused,
    /// It ended the hearing, as when the queue is deleted.
    #[error("the queue was taken away")]
    Ended,
    /// An event cannot be written as JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// The hearing of some domains' queues; ends when dropped.
pub struct Consumer {
    broker: RabbitMq,
    domains: Vec<&'static str>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl RabbitMq {
    /// A broker at `uri` that carries events to `domains`. It is reached when it is first needed.
    #[must_use]
    pub fn new(uri: AMQPUri, domains: Vec<Subscription>) -> Self {
        Self(Arc::new(Inner {
            uri,
            domains,
            links: Default::default(),
            is_declared: Default::default(),
            is_up: AtomicBool::new(true),
            markers: Mutex::default(),
        }))
    }

    /// Whether it could be reached when it was last needed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.is_up.load(Ordering::Relaxed)
    }

    /// Where it is, without name and password.
    #[must_use]
    pub fn address(&self) -> String {
        let authority = &self.0.uri.authority;
        format!("amqp://{}:{}", authority.host, authority.port)
    }

    /// Tries whether it can be reached and has what events need.
    pub async fn probe(&self) -> Result<(), BrokerError> {
        self.channel(ConnectionRole::Out).await.map(drop)
    }

    /// The broker as the one subscriber of a domain's outbox: what it is told is published, and it says yes when the
    /// broker has confirmed all of it.
    #[must_use]
    pub fn publisher(&self) -> Subscriber {
        let (broker, channel) = (self.clone(), Arc::new(tokio::sync::Mutex::new(None)));
        Subscriber::of_everything(BROKER_CURSOR, move |deliver| {
            let (broker, channel) = (broker.clone(), Arc::clone(&channel));
            Box::pin(async move {
                let mut channel = channel.lock().await;
                let published = broker.publish(&mut channel, &deliver.events).await;
                if published.is_err() {
                    *channel = None;
                    broker.mistrust().await;
                }
                broker.note(&published);
                published.map_err(|_| CommonError::Unavailable)
            })
        })
    }

    /// Starts to hear for domains of this process. Must be called on an actix system's thread.
    #[must_use]
    pub fn hear(&self, domains: Vec<Subscriber>) -> Consumer {
        let names = domains.iter().map(Subscriber::name).collect();
        let tasks = domains.into_iter().map(|domain| actix::spawn(hear(self.clone(), domain))).collect();
        Consumer { broker: self.clone(), domains: names, tasks }
    }

    async fn publish(&self, open: &mut Option<Channel>, events: &[EventEnvelope]) -> Result<(), BrokerError> {
        let channel = match open {
            Some(channel) if channel.status().connected() => channel,
            _ => {
                let channel = self.channel(ConnectionRole::Out).await?;
                in_time(channel.confirm_select(ConfirmSelectOptions::default())).await?;
                open.insert(channel)
            }
        };
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            let wanted = self.0.domains.iter().any(|(_, wants)| wants.contains(&event.name.as_str()));
            // An event that should lie in a queue and finds none comes back: somebody has deleted the queue.
            let options = BasicPublishOptions { mandatory: wanted, ..Default::default() };
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
                _ => return Err(BrokerError::Refused),
            }
        }
        Ok(())
    }

    /// A channel on the connection of this way, which is opened again when it has broken, to a broker that has what
    /// events need.
    async fn channel(&self, way: ConnectionRole) -> Result<Channel, BrokerError> {
        let mut link = self.0.links[way as usize].lock().await;
        let channel = match link.as_ref().filter(|connection| connection.status().connected()) {
            Some(connection) => in_time(connection.create_channel()).await?,
            None => {
                let properties = ConnectionProperties::default().with_connection_name("mercat".into());
                let connection = in_time(Connection::connect_uri(self.0.uri.clone(), properties)).await?;
                in_time(link.insert(connection).create_channel()).await?
            }
        };
        let mut is_declared = self.0.is_declared.lock().await;
        if !*is_declared {
            self.declare(&channel).await?;
            *is_declared = true;
        }
        Ok(channel)
    }

    /// Has what events need made again before the next channel is used.
    async fn mistrust(&self) {
        *self.0.is_declared.lock().await = false;
    }

    /// Makes what events need, unless it is there: the exchange, a queue for each domain and one for the dead.
    async fn declare(&self, channel: &Channel) -> Result<(), BrokerError> {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        for exchange in [EXCHANGE, DEAD_LETTER] {
            in_time(channel.exchange_declare(exchange.into(), ExchangeKind::Topic, durable, FieldTable::default()))
                .await?;
        }
        // All at once: one after the other they would be most of what a start waits for.
        let domains = self.0.domains.iter().map(async |(domain, wants)| {
            let mut arguments = quorum();
            arguments.insert("x-dead-letter-exchange".into(), long(DEAD_LETTER));
            arguments.insert("x-delivery-limit".into(), DELIVERIES_MAX.into());
            // Several processes of one domain take turns, they do not share: events have their effects in order.
            arguments.insert("x-single-active-consumer".into(), true.into());
            self.queue(channel, &queue(domain), arguments, EXCHANGE, wants).await
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

    fn markers(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<()>>> {
        self.0.markers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether it can be reached, and says so when that has changed.
    fn note(&self, outcome: &Result<(), BrokerError>) {
        if self.0.is_up.swap(outcome.is_ok(), Ordering::Relaxed) != outcome.is_ok() {
            match outcome {
                Ok(()) => log::warn!("events: {} is back", self.address()),
                Err(error) => {
                    log::error!("events: {} does not take part: {error}; events wait until it does", self.address());
                }
            }
        }
    }
}

impl Consumer {
    /// Waits until everything that is in the domains' queues by now has had its effect.
    ///
    /// # Errors
    /// `Unavailable` when the broker cannot be reached, or another process hears for one of the domains.
    pub async fn catch_up(&self) -> Result<(), CommonError> {
        let (mut ids, mut heard) = (Vec::new(), Vec::new());
        let marked = async {
            let channel = self.broker.channel(ConnectionRole::Out).await?;
            for domain in &self.domains {
                let (id, (hear, wait)) = (new_uuid().to_string(), oneshot::channel());
                self.broker.markers().insert(id.clone(), hear);
                ids.push(id.clone());
                heard.push(wait);
                let properties = BasicProperties::default().with_type(BARRIER.into()).with_message_id(id.into());
                let (to, options) = (queue(domain).as_str().into(), BasicPublishOptions::default());
                in_time(channel.basic_publish("".into(), to, options, &[], properties)).await?;
            }
            Ok::<_, BrokerError>(())
        };
        let marked = marked.await;
        let all = match marked {
            Ok(()) => tokio::time::timeout(DELIVER_TIMEOUT, try_join_all(heard)).await.is_ok_and(|all| all.is_ok()),
            Err(_) => false,
        };
        let mut waiting = self.broker.markers();
        ids.iter().for_each(|id| drop(waiting.remove(id)));
        if all { Ok(()) } else { Err(CommonError::Unavailable) }
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

/// Hears for one domain, for ever.
async fn hear(broker: RabbitMq, domain: Subscriber) {
    let mut pause = BACKOFF.0;
    loop {
        let begun = tokio::time::Instant::now();
        let ended = hear_until_it_breaks(&broker, &domain).await.map(|never| match never {});
        broker.note(&ended);
        broker.mistrust().await;
        // What worked for a while starts over with a short pause.
        if begun.elapsed() > BACKOFF.1 {
            pause = BACKOFF.0;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn hear_until_it_breaks(broker: &RabbitMq, domain: &Subscriber) -> Result<std::convert::Infallible, BrokerError> {
    let channel = broker.channel(ConnectionRole::In).await?;
    in_time(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut messages =
        in_time(channel.basic_consume(queue(domain.name()).as_str().into(), "".into(), options, none)).await?;
    broker.note(&Ok(()));
    while let Some(first) = messages.next().await {
        let mut batch = vec![first?];
        while batch.len() < usize::from(PREFETCH) {
            let Some(Some(next)) = messages.next().now_or_never() else { break };
            batch.push(next?);
        }
        let (mut events, mut markers, mut last) = (Vec::new(), Vec::new(), None);
        for message in &batch {
            if message.properties.kind().as_ref().is_some_and(|kind| kind.as_str() == BARRIER) {
                markers.extend(message.properties.message_id().as_ref().map(ToString::to_string));
            } else if let Ok(event) = serde_json::from_slice::<EventEnvelope>(&message.data) {
                events.push(event);
            } else {
                log::error!("events: {} got a message that is no event; it lies in {DEAD_LETTER}", domain.name());
                message.reject(BasicRejectOptions { requeue: false }).await?;
                continue;
            }
            last = Some(message.delivery_tag);
        }
        tell(domain, events).await;
        if let Some(last) = last {
            in_time(channel.basic_ack(last, BasicAckOptions { multiple: true })).await?;
        }
        let mut waiting = broker.markers();
        for heard in markers.iter().filter_map(|marker| waiting.remove(marker)) {
            // Nobody waits any more when the time was over.
            let _ = heard.send(());
        }
    }
    Err(BrokerError::Ended)
}

/// Tells a domain until it says yes. The messages stay unacknowledged meanwhile: with a domain that is down nothing gets
/// lost, and nothing goes round in circles.
async fn tell(domain: &Subscriber, events: Vec<EventEnvelope>) {
    if events.is_empty() {
        return;
    }
    let mut pause = BACKOFF.0;
    while let Err(failure) = domain
        .tell(
            RequestContext::internal("rabbitmq").with_timeout(DELIVER_TIMEOUT),
            DeliverEvents { events: events.clone() },
        )
        .await
    {
        log::warn!("events: {} did not take what came from RabbitMQ: {failure}", domain.name());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}
