//! Relay: forwards the outbox of a domain in this process to its subscribers, each at its own pace.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::forward::{EventSource, forward_loop};
use crate::messaging::{Backoff, Client, CommonError, DeliverEvents, Envelope, EventEnvelope, RequestContext};
use crate::store::Store;

/// Largest number of events that are read and delivered at once.
pub(super) const BATCH: i64 = 256;
/// Longest time between two reads without a notification; events of another process on the same database are found by it.
const POLL_INTERVAL: Duration = Duration::from_millis(700);
/// Difference between the poll intervals of two subscribers, so that they do not all read at the same time.
const POLL_STAGGER: Duration = Duration::from_millis(37);
/// Pauses after failed deliveries.
const RELAY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));

type DeliverFn =
    Arc<dyn Fn(RequestContext, DeliverEvents) -> LocalBoxFuture<'static, Result<(), CommonError>> + Send + Sync>;

/// Recipient of events: a domain or a message broker.
#[derive(Clone)]
pub struct Subscriber {
    name: &'static str,
    /// Event names; all events if `None`.
    subscriptions: Option<&'static [&'static str]>,
    deliver: DeliverFn,
}

impl Subscriber {
    /// Returns the domain behind `client`, with the names of the events that it subscribes to.
    pub fn new<A>(name: &'static str, subscriptions: &'static [&'static str], client: &Client<A>) -> Self
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<DeliverEvents>>,
    {
        let client = client.clone();
        let deliver: DeliverFn = Arc::new(move |ctx, request| {
            let client = client.clone();
            Box::pin(async move { client.call(ctx, request).await })
        });
        Self { name, subscriptions: Some(subscriptions), deliver }
    }

    /// Returns a subscriber of all events, which are passed to `deliver`.
    pub fn all_events(
        name: &'static str,
        deliver: impl Fn(DeliverEvents) -> LocalBoxFuture<'static, Result<(), CommonError>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, subscriptions: None, deliver: Arc::new(move |_, request| deliver(request)) }
    }

    /// Delivers events. After `Ok` their effect is durable at the subscriber.
    ///
    /// # Errors
    /// Those of the call; the events must be delivered again.
    pub async fn deliver(&self, ctx: RequestContext, request: DeliverEvents) -> Result<(), CommonError> {
        (self.deliver)(ctx, request).await
    }

    /// Whether this event is among the subscriptions.
    pub(super) fn is_subscribed_to(&self, event: &EventEnvelope) -> bool {
        self.subscriptions.is_none_or(|names| names.contains(&event.name.as_str()))
    }

    /// Returns the name under which the outbox keeps its cursor.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Forwarding of one domain's events to its subscribers. Stops when dropped.
pub struct Relay {
    source: Store,
    forwarders: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

impl Relay {
    /// Starts to forward the events of `source`. Must be called on an actix system's thread.
    #[must_use]
    pub fn start(source: Store, subscribers: Vec<Subscriber>) -> Self {
        let relay = Self { source, forwarders: Mutex::default() };
        subscribers.into_iter().for_each(|subscriber| relay.add(subscriber));
        relay
    }

    /// Adds a subscriber. Must be called on an actix system's thread.
    pub fn add(&self, subscriber: Subscriber) {
        let mut forwarders = self.forwarders.lock();
        let poll_interval = POLL_INTERVAL + POLL_STAGGER * u32::try_from(forwarders.len()).unwrap_or(0);
        let source = OutboxSource { store: self.source.clone(), changed: None, poll_interval };
        let name = subscriber.name();
        forwarders.push((name, actix::spawn(forward_loop(source, subscriber, RELAY_BACKOFF))));
    }

    /// Removes a subscriber. Its cursor stays, so that undelivered events wait for it.
    pub fn remove(&self, name: &str) {
        self.forwarders.lock().retain(|(subscriber, task)| {
            let stays = *subscriber != name;
            if !stays {
                task.abort();
            }
            stays
        });
    }

    /// Returns the store whose outbox is forwarded.
    #[must_use]
    pub fn source(&self) -> Store {
        self.source.clone()
    }

    /// Returns the names of the subscribers.
    #[must_use]
    pub fn subscribers(&self) -> Vec<&'static str> {
        self.forwarders.lock().iter().map(|(name, _)| *name).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for (_, task) in self.forwarders.lock().iter() {
            task.abort();
        }
    }
}

/// Outbox of a domain in this process.
struct OutboxSource {
    store: Store,
    /// Resolves at the first change after the last read.
    changed: Option<Pin<Box<dyn Future<Output = ()>>>>,
    poll_interval: Duration,
}

impl EventSource for OutboxSource {
    const FAILURE_LEVEL: log::Level = log::Level::Warn;

    fn domain(&self) -> &'static str {
        self.store.domain()
    }

    async fn next_batch(&mut self, subscriber: &'static str) -> Result<Option<(Vec<EventEnvelope>, i64)>, String> {
        // Registered before the outbox is read: an event that is committed in between wakes the loop at once.
        self.changed = Some(Box::pin(self.store.outbox_changed()));
        let rows = self.store.outbox_read_after(subscriber, BATCH).await.map_err(|error| error.to_string())?;
        let last = rows.last().map(|(last, _)| *last);
        Ok(last.map(|last| (rows.into_iter().map(|(_, event)| event).collect(), last)))
    }

    async fn advance(&mut self, subscriber: &'static str, last: i64) -> Result<(), String> {
        self.store.outbox_advance_cursor(subscriber, last).await.map_err(|error| error.to_string())
    }

    async fn wait(&mut self) {
        if let Some(changed) = self.changed.take() {
            let _ = tokio::time::timeout(self.poll_interval, changed).await;
        }
    }
}
