//! Routes events from the outboxes of the local domains to their subscribers, and from domains in other processes to
//! the local ones. The routes change while the shop runs, because domains are moved.
//!
//! Does not contain: the delivery itself ([`crate::events`]), the list of subscriptions ([`super::registry`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::registry::{self, subscribers_of};
use crate::events::{self, Consumer, EventPuller, RabbitMq, Relay, Subscriber};
use crate::messaging::CommonError;
use crate::messaging::grpc::Peer;
use crate::messaging::grpc::proto::{EventsReply, EventsRequest};
use crate::settings::{DomainLocation, Settings};
use crate::store::Store;

/// Database of a domain and the names of those that its events are delivered to.
pub type OutboxSubscribers = (Store, Vec<&'static str>);

/// Event routes of one process.
pub struct EventRouter {
    settings: Arc<Settings>,
    /// Every domain that may be delivered to.
    subscribers: Vec<Subscriber>,
    /// RabbitMQ, if it carries the events.
    broker: Option<RabbitMq>,
    routes: Mutex<Routes>,
}

#[derive(Default)]
struct Routes {
    /// Domains in this process.
    local: BTreeMap<&'static str, LocalDomain>,
    /// Domains in other processes.
    remote: BTreeMap<&'static str, Arc<Peer>>,
    /// Pullers of events from other processes, by source and subscriber. Dropping one ends it.
    pullers: BTreeMap<(&'static str, &'static str), EventPuller>,
}

struct LocalDomain {
    relay: Relay,
    /// Consumer of the domain's queue at the broker.
    consumer: Option<Arc<Consumer>>,
}

impl EventRouter {
    /// Creates a router without routes.
    pub fn new(settings: Arc<Settings>, subscribers: Vec<Subscriber>, broker: Option<RabbitMq>) -> Self {
        Self { settings, subscribers, broker, routes: Mutex::default() }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock()
    }

    fn subscriber(&self, name: &str) -> Option<Subscriber> {
        self.subscribers.iter().find(|subscriber| subscriber.name() == name).cloned()
    }

    /// Adds a domain that runs in this process. Must be called on the thread of an actix system.
    pub fn add_local(&self, store: Store) {
        let name = store.domain();
        let mut routes = self.routes();
        routes.remote.remove(name);
        routes.pullers.retain(|(source, _), _| *source != name);
        let Some(subscriber) = self.subscriber(name) else { return };
        if let Some(broker) = &self.broker {
            let consumer = Some(Arc::new(broker.consume(vec![subscriber])));
            routes.local.insert(name, LocalDomain { relay: Relay::start(store, vec![broker.publisher()]), consumer });
            return;
        }
        deliver_to(&routes, &subscriber);
        let remote = routes.remote.clone();
        for (source, peer) in &remote {
            self.pull(&mut routes, source, peer, name);
        }
        let is_routed =
            |to: &&'static str| *to == name || routes.local.contains_key(to) || routes.remote.contains_key(to);
        let to = subscribers_of(name).into_iter().filter(is_routed).filter_map(|to| self.subscriber(to)).collect();
        routes.local.insert(name, LocalDomain { relay: Relay::start(store, to), consumer: None });
    }

    /// Adds a domain that runs in another process. Subscribers that this process can reach keep receiving its events.
    pub fn set_remote(&self, name: &'static str, peer: &Arc<Peer>) {
        let mut routes = self.routes();
        routes.local.remove(name);
        routes.remote.insert(name, Arc::clone(peer));
        if self.broker.is_some() {
            return;
        }
        let is_routed_here = |to: &&'static str| {
            // A subscriber in the same process as the source is delivered to there.
            routes.local.contains_key(to) || routes.remote.get(to).is_some_and(|other| !Arc::ptr_eq(other, peer))
        };
        for to in subscribers_of(name).into_iter().filter(is_routed_here).collect::<Vec<_>>() {
            self.pull(&mut routes, name, peer, to);
        }
        let remote = routes.remote.clone();
        for (source, other) in remote.iter().filter(|(_, other)| !Arc::ptr_eq(other, peer)) {
            self.pull(&mut routes, source, other, name);
        }
        if let Some(subscriber) = self.subscriber(name) {
            deliver_to(&routes, &subscriber);
        }
    }

    /// Stops delivering a local domain's events and returns its database. With `for_good` nothing is delivered to the
    /// domain any more either.
    pub fn remove_local(&self, name: &str, for_good: bool) -> Option<Store> {
        let mut routes = self.routes();
        let store = routes.local.remove(name).map(|local| local.relay.source());
        if for_good {
            routes.remote.remove(name);
            routes.pullers.retain(|(_, to), _| *to != name);
            routes.local.values().for_each(|local| local.relay.remove(name));
        }
        store
    }

    /// Whether the broker can be used; `None` if events need none.
    pub fn is_broker_up(&self) -> Option<bool> {
        self.broker.as_ref().map(RabbitMq::is_up)
    }

    /// Ends all deliveries.
    pub fn stop(&self) {
        *self.routes() = Routes::default();
    }

    fn pull(&self, routes: &mut Routes, source: &'static str, peer: &Arc<Peer>, to: &'static str) {
        if self.broker.is_none()
            && subscribers_of(source).contains(&to)
            && let Some(subscriber) = self.subscriber(to)
        {
            routes
                .pullers
                .entry((source, to))
                .or_insert_with(|| EventPuller::start(source, Arc::clone(peer), subscriber));
        }
    }

    /// Returns the local domains and the subscribers that this process delivers their events to.
    pub fn relayed(&self) -> Vec<OutboxSubscribers> {
        self.routes().local.values().map(|local| (local.relay.source(), local.relay.subscribers())).collect()
    }

    /// Returns the local domains and the subscribers for which each retains its events until they are delivered: by
    /// this process, or pulled by another one.
    pub fn retained(&self) -> Vec<OutboxSubscribers> {
        let mut all = self.relayed();
        if self.broker.is_none() {
            let is_on = |name: &&'static str| self.settings.domain(name).place != DomainLocation::Off;
            for (source, names) in &mut all {
                let others = subscribers_of(source.domain()).into_iter().filter(is_on);
                let new: Vec<&'static str> = others.filter(|name| !names.contains(name)).collect();
                names.extend(new);
            }
        }
        all
    }

    /// Waits until the local domains have received every event that the broker holds for them at this moment.
    ///
    /// # Errors
    /// An unreachable broker.
    pub async fn flush(&self) -> Result<(), CommonError> {
        let consumers: Vec<_> = self.routes().local.values().filter_map(|local| local.consumer.clone()).collect();
        futures_util::future::try_join_all(consumers.iter().map(|consumer| consumer.flush())).await.map(drop)
    }

    /// Reads the events of `source` after `cursor` for a process that pulls them on behalf of `subscriber`.
    ///
    /// # Errors
    /// `Unavailable` if this process has no route to the source.
    pub async fn read_events(&self, source: &str, subscriber: &str, cursor: i64) -> Result<EventsReply, CommonError> {
        enum Route {
            Local(Store, Vec<&'static str>),
            Remote(Arc<Peer>),
        }
        let route = {
            let routes = self.routes();
            let local = routes.local.get(source).map(|local| (local.relay.source(), local.relay.subscribers()));
            let local = local.map(|(store, relayed)| Route::Local(store, relayed));
            local.or_else(|| routes.remote.get(source).map(|peer| Route::Remote(Arc::clone(peer))))
        };
        let to = subscribers_of(source).into_iter().find(|to| *to == subscriber).ok_or(CommonError::Unavailable)?;
        match route.ok_or(CommonError::Unavailable)? {
            Route::Local(_, relayed) if relayed.contains(&to) => {
                Ok(EventsReply { pushed_by_source: true, ..EventsReply::default() })
            }
            Route::Local(store, _) => events::read_for_remote(store, to, registry::subscriptions(to), cursor).await,
            // The source was moved to another process.
            Route::Remote(peer) => {
                let request = EventsRequest { source: source.to_owned(), subscriber: subscriber.to_owned(), cursor };
                peer.events(request).await.map_err(|_| CommonError::Unavailable)
            }
        }
    }
}

/// Adds a subscriber to the relay of every local domain whose events it wants.
fn deliver_to(routes: &Routes, subscriber: &Subscriber) {
    let name = subscriber.name();
    for (source, local) in &routes.local {
        if subscribers_of(source).contains(&name) && !local.relay.subscribers().contains(&name) {
            local.relay.add(subscriber.clone());
        }
    }
}
